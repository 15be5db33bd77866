"""Batch norm folded into a layer, and the folded block as one op against its convolutions one after the other."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npnets import ops, parallel
from npnets.ops.folded import FoldedConv, folded_batch_norm, folded_bottleneck
from npnets.shapes import geometry
from tests.oracles import assert_close
from tests.strategies import seeds, window_settings


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype, tolerance", [(np.float64, 1e-13), (np.float32, 1e-6)])
def test_a_layer_with_a_folded_batch_norm_computes_both(dtype, tolerance, bias, rng):
    x, w = rng.standard_normal((5, 3)).astype(dtype), rng.standard_normal((3, 4)).astype(dtype)
    gamma, beta, mean, b = rng.standard_normal((4, 4)).astype(dtype)
    b, var = b if bias else None, rng.uniform(0.1, 2, 4).astype(dtype)
    arrays = (w, b, gamma, beta, mean, var)
    before = [array if array is None else array.copy() for array in arrays]
    folded_w, folded_b = folded_batch_norm(*arrays, eps=0.3)
    assert folded_w.dtype == folded_b.dtype == dtype
    y, _ = ops.linear_forward(x, w, b)
    y, _ = ops.batch_norm_forward(y, gamma, beta, mean, var, training=False, eps=0.3)
    assert_close("y", ops.linear_forward(x, folded_w, folded_b)[0], y, tolerance)
    for array, old in zip(arrays, before):
        np.testing.assert_array_equal(array, old)
        assert array is None or not any(np.shares_memory(array, folded) for folded in (folded_w, folded_b))


def conv(rng, shape, activation, bias=True):
    return FoldedConv(rng.standard_normal(shape), 2 * rng.standard_normal(shape[-1]) if bias else None, activation)


@st.composite
def blocks(draw):
    """Draw (x, [expand, depthwise, project], settings), with and without expansion, shortcut, bias and activation."""
    kernel, (H, W), settings = draw(window_settings(max_kernel=5, max_dilation=2))
    N, C_in, C_mid, C_out = (draw(st.integers(1, n)) for n in (4, 3, 5, 4))
    expands = draw(st.booleans())
    if geometry((H, W), kernel, **settings).out == (H, W) and draw(st.booleans()):
        settings["shortcut"], C_out = True, C_in
    activations, bias = st.sampled_from([None, "relu", "relu6", "swish"]), draw(st.booleans())
    rng = np.random.default_rng(draw(seeds))
    shapes = [(C_in, C_mid), (*kernel, C_mid if expands else C_in), (C_mid if expands else C_in, C_out)]
    block = [conv(rng, shape, draw(activations), bias) for shape in shapes]
    return 3 * rng.standard_normal((N, H, W, C_in)), [block[0] if expands else None, *block[1:]], settings


def one_after_the_other(x, expand, depthwise, project, shortcut=False, **settings):
    y = x
    if expand is not None:
        y, _ = ops.pointwise_conv2d_forward(y, *expand[:2], activation=expand.activation)
    y, _ = ops.depthwise_conv2d_forward(y, *depthwise[:2], activation=depthwise.activation, **settings)
    y, _ = ops.pointwise_conv2d_forward(y, *project[:2], activation=project.activation)
    return y + x if shortcut else y


@pytest.mark.parametrize("piece_bytes", [1 << 20, 300], ids=["one slice", "many slices"])
@given(drawn=blocks())
def test_it_is_its_convolutions_one_after_the_other(piece_bytes, drawn):
    x, block, settings = drawn
    x.flags.writeable = False
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parallel, "PIECE_BYTES", piece_bytes)
        y = folded_bottleneck(x, *block, **settings)
    assert_close("y", y, one_after_the_other(x, *block, **settings), 1e-12)
    assert not np.may_share_memory(x, y)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_any_number_of_threads_gives_the_same_bits_in_the_same_dtype(dtype, rng, monkeypatch):
    monkeypatch.setattr(parallel, "PIECE_BYTES", 2000)
    monkeypatch.setattr(parallel, "LEAST_BYTES", 1000)
    x = rng.standard_normal((9, 6, 5, 3)).astype(dtype)
    block = [conv(rng, shape, "relu6") for shape in ((3, 8), (3, 3, 8), (8, 3))]
    block = [FoldedConv(c.w.astype(dtype), c.b.astype(dtype), c.activation) for c in block]
    with parallel.threads(1):
        one = folded_bottleneck(x, *block, shortcut=True)
    assert one.dtype == dtype
    for n in (2, 8):
        with parallel.threads(n):
            assert folded_bottleneck(x, *block, shortcut=True).tobytes() == one.tobytes()


WRONG = {
    "expand": ([(4, 8), (3, 3, 8), (8, 3)], {}, r"expand.w must have the shape \(3, 8\) for x .*, got \(4, 8\)"),
    "project": ([(3, 8), (3, 3, 8), (7, 3)], {}, r"project.w must have the shape \(8, 3\) for x .*, got \(7, 3\)"),
    "depthwise": ([(3, 7), (3, 3, 8), (8, 3)], {}, r"expand.w must have the shape \(3, 8\) for x .*, got \(3, 7\)"),
    "no expansion": ([None, (3, 3, 8), (8, 3)], {}, r"depthwise.w must have the shape \(3, 3, 3\) for x"),
    "shortcut": (
        [(3, 8), (3, 3, 8), (8, 3)],
        {"shortcut": True, "stride": 2},
        r"a shortcut adds x to the output, but x is \(2, 6, 5, 3\) and the output \(2, 3, 3, 3\)",
    ),
    "stride": ([(3, 8), (3, 3, 8), (8, 3)], {"stride": 0}, "folded_bottleneck: stride must be at least 1"),
    "axes": ([(3, 8), (3, 8), (8, 3)], {}, "folded_bottleneck: w must have 3 axes"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_does_not_fit_is_named(what, rng):
    shapes, settings, message = WRONG[what]
    block = [shape and conv(rng, shape, "relu") for shape in shapes]
    with pytest.raises(ValueError, match=f"^folded_bottleneck: .*{message.removeprefix('folded_bottleneck: ')}"):
        folded_bottleneck(rng.standard_normal((2, 6, 5, 3)), *block, **settings)


@pytest.mark.parametrize("k", range(3))
def test_a_bias_of_another_length_is_named(k, rng):
    block = [conv(rng, shape, "relu") for shape in ((3, 8), (3, 3, 8), (8, 3))]
    block[k] = block[k]._replace(b=np.ones(1))
    with pytest.raises(ValueError, match="folded_bottleneck: b must have the shape"):
        folded_bottleneck(rng.standard_normal((2, 6, 5, 3)), *block)
