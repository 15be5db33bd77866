"""The block as one op against the layers one after the other."""

import numpy as np
import pytest
from hypothesis import given, note
from hypothesis import strategies as st

from npnets import ops, parallel
from npnets.ops.bottleneck import ConvNorm, bottleneck_backward, bottleneck_forward
from npnets.shapes import geometry
from tests.strategies import seeds, window_settings


def conv_norm(rng, shape, activation, **settings):
    """Draw a convolution and its batch norm, of channels with different means and scales."""
    C = shape[-1]
    arrays = (rng.standard_normal(shape), rng.uniform(0.3, 2, C), rng.uniform(-1, 3, C), rng.standard_normal(C))
    return ConvNorm(*arrays, rng.uniform(0.5, 2, C), activation=activation, **settings)


def fresh(block, dtype=np.float64):
    """Return copies: the running statistics are changed in place."""
    return [s if s is None else s._replace(**{k: v.astype(dtype) for k, v in arrays_of(s).items()}) for s in block]


def arrays_of(stage):
    return dict(zip(ConvNorm._fields, stage.arrays))


@st.composite
def blocks(draw):
    """Draw (x, [expand, depthwise, project], settings, seed), with and without expansion, shortcut and activation."""
    kernel, (H, W), settings = draw(window_settings(max_kernel=5, max_dilation=2))
    out = geometry((H, W), kernel, **settings, name="").out
    C_in, C_mid, C_out = draw(st.integers(1, 3)), draw(st.integers(1, 5)), draw(st.integers(1, 4))
    few = 1 in (out[0] * out[1], H * W)  # with two values a channel x_hat is close to +-1, whatever x is
    N = draw(st.integers(3 if few else 1 if min(out[0] * out[1], H * W) > 2 else 2, 4))
    expands = draw(st.booleans())
    C_mid = C_mid if expands else C_in
    if out == (H, W) and draw(st.booleans()):
        settings["shortcut"], C_out = True, C_in
    norm = {"decay": draw(st.sampled_from([0.9, 0.99])), "eps": draw(st.sampled_from([1e-3, 1e-5]))}
    clips = st.sampled_from(["relu", "relu6"])
    seed = draw(seeds)
    rng = np.random.default_rng(seed)
    expand = conv_norm(rng, (C_in, C_mid), draw(clips), **norm) if expands else None
    depthwise = conv_norm(rng, (*kernel, C_mid), draw(clips), **norm)
    project = conv_norm(rng, (C_mid, C_out), draw(st.none() | clips), **norm)
    x = rng.standard_normal((N, H, W, C_in)) * rng.uniform(0.5, 2, C_in) + rng.uniform(-3, 3, C_in)
    return x, [expand, depthwise, project], settings, seed


def layer_by_layer(x, block, stride=1, padding="same", dilation=1, shortcut=False):
    """Return y, and the function that goes back: ``dy -> (dx, [(dw, dgamma, dbeta) or None, ...])``."""
    conv = [ops.pointwise_conv2d_forward, ops.depthwise_conv2d_forward, ops.pointwise_conv2d_forward]
    back = [ops.pointwise_conv2d_backward, ops.depthwise_conv2d_backward, ops.pointwise_conv2d_backward]
    window = {"stride": stride, "padding": padding, "dilation": dilation}
    y, caches = x, []
    for k, stage in enumerate(block):
        if stage is None:
            caches.append(None)
            continue
        y, conv_cache = conv[k](y, stage.w, **(window if k == 1 else {}))
        settings = {"decay": stage.decay, "eps": stage.eps, "activation": stage.activation}
        y, norm_cache = ops.batch_norm_forward(y, *stage.arrays[1:], training=True, **settings)
        caches.append((conv_cache, norm_cache))

    def backward(dy):
        dx, gradients = dy, [None] * 3
        for k in (2, 1, 0):
            if caches[k] is not None:
                conv_cache, norm_cache = caches[k]
                dx, dgamma, dbeta = ops.batch_norm_backward(dx, norm_cache)
                dx, dw, _ = back[k](dx, conv_cache)
                gradients[k] = dw, dgamma, dbeta
        return dx + dy if shortcut else dx, gradients

    return (y + x if shortcut else y), backward


def assert_close(actual, expected, what, tolerance=1e-8):
    scale = max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * scale, err_msg=what)


@pytest.mark.parametrize("piece_bytes", [1 << 20, 300], ids=["one slice", "many slices"])
@given(drawn=blocks())
def test_it_computes_what_the_layers_compute(piece_bytes, drawn):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parallel, "PIECE_BYTES", piece_bytes)
        check_against_the_layers(*drawn)


def check_against_the_layers(x, block, settings, seed):
    note(f"{settings}, x {x.shape}, w {[s and s.w.shape for s in block]}")
    ours, theirs = fresh(block), fresh(block)
    x = np.asfortranarray(x)
    x.flags.writeable = False
    y, cache = bottleneck_forward(x, *ours, **settings)
    expected, backward = layer_by_layer(x, theirs, **settings)
    assert_close(y, expected, "y")
    for a, b in zip(ours, theirs):
        if a is not None:
            assert_close(a.running_mean, b.running_mean, "running_mean")
            assert_close(a.running_var, b.running_var, "running_var")
    dy = np.random.default_rng([seed, 1]).standard_normal(y.shape)
    given = dy.copy(order="F")
    given.flags.writeable = False
    y[...] = np.nan  # what it gave away it does not need any more
    dx, *gradients = bottleneck_backward(given, cache)
    expected_dx, expected_gradients = backward(dy)
    # inv_std reaches 300 where a channel is almost constant, and enters once for each batch norm on the way.
    assert_close(dx, expected_dx, "dx", 1e-6)
    for stage, got, wanted in zip(("expand", "depthwise", "project"), gradients, expected_gradients):
        assert (got is None) == (wanted is None), stage
        for name, a, b in zip(("w", "gamma", "beta"), got or (), wanted or ()):
            assert_close(a, b, f"{stage} {name}", 1e-6)


def plain_block(rng, t=3, C_in=4, C_out=4):
    C_mid = t * C_in
    expand = conv_norm(rng, (C_in, C_mid), "relu6")
    return [expand, conv_norm(rng, (3, 3, C_mid), "relu6"), conv_norm(rng, (C_mid, C_out), None)]


def test_float32_is_kept_and_no_less_exact_far_from_zero(rng):
    """The expansion's statistics come from products of x: around its mean, or x at a mean of 1000 would lose them."""
    block = plain_block(rng)
    x = rng.standard_normal((5, 6, 7, 4)) + 1000
    y, cache = bottleneck_forward(x.astype(np.float32), *fresh(block, np.float32))
    assert y.dtype == np.float32
    exact, _ = layer_by_layer(x.astype(np.float32).astype(np.float64), fresh(block, np.float32))
    assert_close(y, exact, "y", 2e-3)
    dx, *gradients = bottleneck_backward(rng.standard_normal(y.shape).astype(np.float32), cache)
    assert {array.dtype for array in (dx, *(a for g in gradients for a in g))} == {np.dtype(np.float32)}


def test_channels_that_cancel_in_the_expansion_have_no_negative_variance(rng):
    """x holds the same numbers twice, and the weights take their difference: float32 leaves a rounding error of S."""
    expand, depthwise, project = fresh(plain_block(rng, C_in=2), np.float32)
    for seed in range(20):
        once = 1000 * np.random.default_rng(seed).standard_normal((3, 5, 5, 1)).astype(np.float32)
        x = np.concatenate([once, once * np.float32(1 + 1e-7)], axis=-1)
        expand.w[:] = np.random.default_rng(seed).uniform(0.5, 1, expand.w.shape[1]) * np.array([[1], [-1]])
        y, cache = bottleneck_forward(x, expand._replace(eps=1e-5), depthwise, project)
        assert np.isfinite(y).all()
        assert all(np.isfinite(a).all() for a in bottleneck_backward(y, cache)[1])


def test_weights_and_inputs_are_untouched(rng):
    block = plain_block(rng)
    x, dy = rng.standard_normal((2, 3, 5, 5, 4))
    before = [array.copy() for array in (x, dy, *(a for s in block for a in s.arrays[:3]))]
    y, cache = bottleneck_forward(x, *block, shortcut=True)
    assert not np.shares_memory(y, x)
    dx, *_ = bottleneck_backward(dy, cache)
    again, *_ = bottleneck_backward(dy, cache)
    np.testing.assert_array_equal(dx, again)  # nothing in the cache was used up
    for old, array in zip(before, (x, dy, *(a for s in block for a in s.arrays[:3]))):
        np.testing.assert_array_equal(old, array)


@pytest.mark.parametrize("expands", [True, False])
def test_any_number_of_threads_gives_the_same_bits(expands, rng, monkeypatch):
    monkeypatch.setattr(parallel, "PIECE_BYTES", 1000)
    block = plain_block(rng)
    if not expands:
        block = [None, conv_norm(rng, (3, 3, 4), "relu6"), conv_norm(rng, (4, 4), "relu6")]
    x, dy = rng.standard_normal((2, 9, 5, 6, 4)).astype(np.float32)

    def results(n):
        with parallel.threads(n):
            stages = fresh(block, np.float32)
            y, cache = bottleneck_forward(x, *stages, shortcut=True)
            dx, *gradients = bottleneck_backward(dy, cache)
        arrays = [a for g in gradients if g is not None for a in g] + [a for s in stages if s for a in s.arrays]
        return [array.tobytes() for array in (y, dx, *arrays)]

    one = results(1)
    assert all(results(n) == one for n in (2, 8, 3))


MISUSES = {
    r"bottleneck: expand.w must have the shape \(5, 12\) for x \(2, 6, 7, 5\), got \(4, 12\)": {"C_in": 5},
    r"bottleneck: project.w must have the shape \(12, 4\)": {"project": (11, 4)},
    r"bottleneck: depthwise.w must have the shape \(3, 3, 4\)": {"expand": None},
    r"bottleneck: depthwise must have the dtype of x, float32": {"dtype": np.float32},
    r'bottleneck: expand.activation must be "relu" or "relu6", got None': {"activation": None},
    r'bottleneck: activation must be "relu", "relu6" or None, got .swish.': {"activation": "swish"},
    r"bottleneck: a shortcut adds x to the output, but x is \(2, 6, 7, 4\) and the output \(2, 3, 4, 4\)": {
        "settings": {"stride": 2, "shortcut": True}
    },
    r"bottleneck: expand.gamma must have the shape \(12,\), got \(1,\)": {"gamma": np.ones(1)},
    r"bottleneck: decay \(the weight of the old statistic\) must be from 0 to 1, got 2": {"decay": 2},
    r"bottleneck: training needs at least 2 values a channel, x \(1, 6, 7, 4\) leaves one; use a larger batch": {
        "N": 1,
        "settings": {"stride": 7},
    },
}


@pytest.mark.parametrize("message", MISUSES)
def test_misuse_is_named(message, rng):
    misuse = MISUSES[message]
    expand, depthwise, project = plain_block(rng)
    x = rng.standard_normal((misuse.get("N", 2), 6, 7, misuse.get("C_in", 4)))
    if "project" in misuse:
        project = conv_norm(rng, misuse["project"], None)
    if "activation" in misuse:
        expand = expand._replace(activation=misuse["activation"])
    for field in {"gamma", "decay"} & misuse.keys():
        expand = expand._replace(**{field: misuse[field]})
    if "dtype" in misuse:
        x, expand = x.astype(misuse["dtype"]), fresh([expand], misuse["dtype"])[0]
    if "expand" in misuse:
        expand = None
    with pytest.raises(ValueError, match=message):
        bottleneck_forward(x, expand, depthwise, project, **misuse.get("settings", {}))


def test_one_pixel_alone_has_no_variance_even_if_padding_makes_more_of_it(rng):
    expand, depthwise, project = plain_block(rng)
    with pytest.raises(ValueError, match=r"training needs at least 2 values a channel, x \(1, 1, 1, 4\) leaves one"):
        bottleneck_forward(rng.standard_normal((1, 1, 1, 4)), expand, depthwise, project, padding=2)
    assert np.isfinite(expand.running_mean).all()


def test_a_dy_of_another_shape_is_refused(rng):
    _, cache = bottleneck_forward(rng.standard_normal((2, 6, 7, 4)), *plain_block(rng))
    with pytest.raises(ValueError, match=r"bottleneck: dy has the shape \(2, 6, 7, 3\), but the forward returned"):
        bottleneck_backward(np.ones((2, 6, 7, 3)), cache)
