"""Squeeze-and-excitation and MBConv against the same arithmetic by hand, and what EfficientNet says of them."""

import copy

import numpy as np
import pytest

from npnets import cost, nn, ops
from tests.models import gradient_errors
from tests.nn import randomize

DRAWN = {"dtype": np.float64}
training_or_not = pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])


def made(maker, *args, seed=2, **settings):
    """Return a block of float64 with random numbers everywhere."""
    return randomize(maker(*args, rng=np.random.default_rng(seed), dtype=np.float64, **settings))


def images(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def swish(x):
    return x * sigmoid(x)


def squeeze_excite(x, state, path="", activation=swish):
    """Equations 2 to 4 of Hu et al."""
    z = x.mean(axis=(1, 2))
    w1, b1, w2, b2 = (state[f"{path}{name}"] for name in ("reduce.w", "reduce.b", "expand.w", "expand.b"))
    s = sigmoid(activation(z @ w1 + b1) @ w2 + b2)
    return x * s[:, None, None, :]


def batch_norm(x, state, path, training, eps=1e-3):
    mean, var = (x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))) if training else (None, None)
    if not training:
        mean, var = state[f"{path}.running_mean"], state[f"{path}.running_var"]
    return state[f"{path}.gamma"] * (x - mean) / np.sqrt(var + eps) + state[f"{path}.beta"]


def branch(x, state, training, **spatial):
    """The chain of an MBConv, layer by layer; what is not in the state is left out."""
    if "expand.w" in state:
        x = swish(batch_norm(x @ state["expand.w"], state, "expand_bn", training))
    x, _ = ops.depthwise_conv2d_forward(x, state["depthwise.w"], **spatial)
    x = swish(batch_norm(x, state, "depthwise_bn", training))
    if "squeeze_excite.reduce.w" in state:
        x = squeeze_excite(x, state, "squeeze_excite.")
    return batch_norm(x @ state["project.w"], state, "project_bn", training)


# SqueezeExcite


@training_or_not
@pytest.mark.parametrize("activation, g", [("swish", swish), ("relu", lambda x: np.maximum(x, 0))])
def test_squeeze_excite_by_hand(activation, g, training):
    module, x = made(nn.SqueezeExcite, 5, 3, activation), images(4, 6, 7, 5)
    expected = squeeze_excite(x, module.state_dict(), activation=g)
    np.testing.assert_allclose(module(x, training), expected, rtol=1e-13, atol=1e-13)


def test_gradients_of_squeeze_excite():
    """Both ways into x: through the product, and through the mean, the two layers and the gate."""
    module = made(nn.SqueezeExcite, 5, 3)
    for training in (True, False):
        assert max(gradient_errors(module, images(3, 4, 5, 5), training=training, h=1e-6)) < 1e-7


def test_the_gates_start_undecided_and_differ_between_images():
    module, x = nn.SqueezeExcite(8, 2, rng=np.random.default_rng(0), **DRAWN), images(3, 4, 5, 8)
    gates = []
    module.gate.observers.append(gates.append)
    module(x)
    (s,) = gates
    assert s.shape == (3, 8) and s.min() > 0 and s.max() < 1 and abs(s.mean() - 0.5) < 0.2
    assert not np.allclose(s[0], s[1])


def test_observers_see_every_layer_of_squeeze_excite():
    module, seen = made(nn.SqueezeExcite, 5, 3), []
    for name, child in module.children():
        child.observers.append(lambda y, name=name: seen.append((name, y.shape)))
    module(images(4, 6, 7, 5), training=True)
    assert seen == [("pool", (4, 5)), ("reduce", (4, 3)), ("act", (4, 3)), ("expand", (4, 5)), ("gate", (4, 5))]


def test_squeeze_excite_costs_its_two_layers():
    """``C_in C_out`` each, whatever the number of pixels; their biases are parameters."""
    total = cost.profile(nn.SqueezeExcite(96, 4, rng=np.random.default_rng(0)), (112, 112, 96))
    assert (total.macs, total.params) == (2 * 96 * 4, 2 * 96 * 4 + 4 + 96)
    assert total.rows[-1].output_shape == (96,)


def test_squeeze_excite_keeps_nothing_in_a_folded_model():
    module, x = made(nn.SqueezeExcite, 5, 3), images(2, 4, 5, 5)
    y = module(x)
    folded = nn.fold_batch_norm(nn.Sequential(module=module)).module
    assert folded.cache is None
    np.testing.assert_array_equal(folded(x), y)
    assert folded.cache is None
    for use in (lambda: folded.backward(y), lambda: folded(x, training=True)):
        with pytest.raises(RuntimeError, match="for inference alone"):
            use()
    assert module.backward(y).shape == x.shape


def test_backward_belongs_to_the_last_forward_of_each_copy():
    module, dy = made(nn.SqueezeExcite, 5, 3), images(2, 4, 5, 5, seed=1)
    module(images(2, 4, 5, 5))
    expected = module.backward(dy)
    twin = copy.deepcopy(module)
    twin(images(2, 4, 5, 5, seed=3))
    np.testing.assert_array_equal(module.backward(dy), expected)
    assert not np.array_equal(twin.backward(dy), expected)


# MBConv


@training_or_not
@pytest.mark.parametrize("squeeze_ratio", [0.25, None])
@pytest.mark.parametrize("C_out, spatial", [(8, {"stride": 1}), (8, {"stride": 2}), (6, {"dilation": 2})])
@pytest.mark.parametrize("t, kernel", [(1, 3), (6, 5)])
def test_mbconv_by_hand(t, kernel, C_out, spatial, squeeze_ratio, training):
    module = made(nn.MBConv, 8, C_out, t, kernel, squeeze_ratio=squeeze_ratio, **spatial)
    x = images(3, 6, 7, 8)
    y = branch(x, module.state_dict(), training, **spatial)
    if C_out == 8 and spatial["stride"] == 1:
        y = x + y
    np.testing.assert_allclose(module(x, training), y, rtol=1e-11, atol=1e-11)


@training_or_not
@pytest.mark.parametrize("t, C_out, stride", [(1, 8, 1), (3, 8, 2), (3, 6, 1)])
def test_gradients_of_mbconv(t, C_out, stride, training):
    module = made(nn.MBConv, 8, C_out, t, stride=stride, survival_prob=0.6)
    errors = gradient_errors(module, images(4, 6, 5, 8), training=training, h=1e-6)
    assert max(errors) < 1e-6, errors


def names(module):
    return [name for name, _ in module.chain()]


def test_the_layers_and_their_order():
    """Squeeze-and-excitation stands between the depthwise convolution and the projection, which is linear."""
    layers = ["depthwise", "depthwise_bn", "depthwise_act", "squeeze_excite", "project", "project_bn", "drop_path"]
    assert names(made(nn.MBConv, 8, 8)) == ["expand", "expand_bn", "expand_act", *layers]
    assert names(made(nn.MBConv, 8, 8, 1)) == layers  # no expansion convolution at t = 1
    assert names(made(nn.MBConv, 8, 8, 1, squeeze_ratio=None)) == [n for n in layers if n != "squeeze_excite"]
    relu6 = made(nn.MBConv, 8, 8, 1, activation="relu6")
    assert names(relu6) == [n for n in layers if n != "depthwise_act"]  # batch norm applies it
    assert relu6.depthwise_bn.activation == "relu6" and type(relu6.squeeze_excite.act) is nn.ReLU6


@pytest.mark.parametrize("C_out, stride, adds", [(8, 1, True), (8, 2, False), (16, 1, False), (8, (1, 1), True)])
def test_residual_and_drop_path_only_at_stride_1_and_equal_channels(C_out, stride, adds):
    module = made(nn.MBConv, 8, C_out, stride=stride, survival_prob=0.5)
    assert module.adds_input is adds and ("drop_path" in names(module)) is adds
    assert ("adds its input" in repr(module)) is adds


@pytest.mark.parametrize("C_in, t, squeezed", [(32, 1, 8), (16, 6, 4), (24, 6, 6), (3, 6, 1), (10, 6, 2)])
def test_squeeze_excite_is_sized_from_the_input_channels(C_in, t, squeezed):
    """Not from the expanded ones: B0 would have 8.42M parameters instead of 5.29M."""
    module = nn.MBConv(C_in, 24, t, rng=np.random.default_rng(0))
    assert module.squeeze_excite.reduce.w.shape == (t * C_in, squeezed)
    assert module.squeeze_excite.expand.w.shape == (squeezed, t * C_in)


def test_only_squeeze_excite_has_biases():
    module = made(nn.MBConv, 8, 8)
    assert [p.name for p in module.parameters() if p.name.endswith(".b")] == [
        "squeeze_excite.reduce.b", "squeeze_excite.expand.b"
    ]  # fmt: skip


def test_drop_path_leaves_out_the_branch_of_whole_images():
    module, x = made(nn.MBConv, 8, 8, survival_prob=0.5), images(16, 4, 5, 8)
    kept = x + branch(x, module.state_dict(), training=True) / 0.5
    y = module(x, training=True)
    straight = [np.array_equal(y[n], x[n]) for n in range(16)]
    assert 2 < sum(straight) < 14
    for n in range(16):
        if not straight[n]:
            np.testing.assert_allclose(y[n], kept[n], rtol=1e-10, atol=1e-10)
    state = module.state_dict()
    np.testing.assert_allclose(module(x), x + branch(x, state, training=False), rtol=1e-11, atol=1e-11)


def test_the_same_seed_draws_the_same_weights_with_and_without_drop_path():
    one, other = (made(nn.MBConv, 8, 8, survival_prob=p).state_dict() for p in (1.0, 0.5))
    assert all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("settings", [{}, {"t": 1}, {"stride": 2}, {"squeeze_ratio": None}, {"activation": "relu"}])
def test_folding_an_mbconv_gives_the_same_outputs(settings):
    module, x = made(nn.MBConv, 8, 8, **settings), images(4, 6, 5, 8)
    for _ in range(3):
        module(x, training=True)
    expected = module(x)
    folded = nn.fold_batch_norm(module)
    np.testing.assert_allclose(folded(x), expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(copy.deepcopy(folded)(x), expected, rtol=1e-12, atol=1e-12)
    assert "BatchNorm" not in repr(folded)
    assert all(getattr(part, "cache", None) is None for _, part in folded.named_modules())


def test_the_squeeze_is_rounded_down():
    """``int(0.25 C_in)`` of the input channels, and at least one number."""
    squeezed = {C: made(nn.MBConv, C, 4, t=2).squeeze_excite.reduce.C_out for C in (3, 7, 8, 11)}
    assert squeezed == {3: 1, 7: 1, 8: 2, 11: 2}


def test_every_batch_norm_gets_the_settings():
    module = made(nn.MBConv, 3, 4, bn_decay=0.75, bn_eps=0.125)
    found = [part for _, part in module.named_modules() if isinstance(part, nn.BatchNorm)]
    assert [(part.decay, part.eps) for part in found] == [(0.75, 0.125)] * 3
    assert {p.dtype for p in module.parameters()} == {np.dtype(np.float64)}


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"t": 0}, "expansion factor t must be at least 1, got 0"),
        ({"squeeze_ratio": 0}, "squeeze_ratio must be a finite number above 0, got 0"),
        ({"survival_prob": 0}, "survival_prob must be above 0 and at most 1, got 0"),
        ({"survival_prob": 1.5, "stride": 2}, "survival_prob must be above 0 and at most 1, got 1.5"),
        ({"activation": "tanh"}, r"activation must be .*swish.* got 'tanh'"),
        ({"stride": 0}, "stride must be at least 1, got 0"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        nn.MBConv(3, 3, rng=np.random.default_rng(0), **settings)
    with pytest.raises(ValueError, match="squeezed must be at least 1, got 0"):
        nn.SqueezeExcite(3, 0, rng=np.random.default_rng(0))


def test_an_image_of_other_channels_names_the_layer():
    module = nn.Sequential(block=nn.MBConv(8, 8, 1, rng=np.random.default_rng(0)))
    with pytest.raises(ValueError, match=r"block: depthwise: depthwise_conv2d: .*\(2, 6, 5, 7\)"):
        module(np.zeros((2, 6, 5, 7), np.float32))
    with pytest.raises(ValueError, match=r"reduce: Linear: expects 5 channels, got the shape \(7,\)"):
        made(nn.SqueezeExcite, 5, 3).trace((6, 5, 7), lambda *layer: None)
