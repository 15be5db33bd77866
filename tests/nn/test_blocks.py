"""The blocks against the same ops composed by hand, and what the papers say of them."""

import numpy as np
import pytest

from npnets import nn, ops
from npnets.nn.blocks import mobile
from tests.models import gradient_errors
from tests.nn import make, randomize

SHORTCUTS = ["bottleneck", "expansion", "none"]


def block(maker, *args, **settings):
    return randomize(maker(*args, rng=np.random.default_rng(2), dtype=np.float64, **settings))


def images(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


class ByHand:
    """The ops of a block, with the weights of a state."""

    def __init__(self, module, training, eps=1e-3):
        self.state = {name.removeprefix("filtering."): array for name, array in module.state_dict().items()}
        self.settings = {"training": training, "eps": eps}

    def bn(self, x, name):
        vectors = [self.state[f"{name}.{part}"] for part in ("gamma", "beta", "running_mean", "running_var")]
        return ops.batch_norm_forward(x, *vectors, **self.settings)[0]

    def conv(self, x, name, **settings):
        return ops.conv2d_forward(x, self.state[f"{name}.w"], **settings)[0]

    def depthwise(self, x, name, **settings):
        return ops.depthwise_conv2d_forward(x, self.state[f"{name}.w"], **settings)[0]

    def pointwise(self, x, name):
        return x @ self.state[f"{name}.w"]


def relu(x):
    return np.maximum(x, 0)


def relu6(x):
    return np.clip(x, 0, 6)


def assert_same(module, x, training, expected):
    np.testing.assert_allclose(module(x, training), expected, rtol=1e-12, atol=1e-12)


training_or_not = pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])


# ConvBNAct


@training_or_not
@pytest.mark.parametrize("activation, g", [("relu", relu), ("relu6", relu6), (None, lambda x: x)])
def test_conv_bn_act(activation, g, training):
    settings = {"stride": (2, 1), "padding": "symmetric"}
    module = block(nn.ConvBNAct, 3, 4, (3, 5), activation=activation, bn_eps=0.01, **settings)
    x = 5 * images(2, 6, 7, 3)
    by_hand = ByHand(module, training, eps=0.01)
    assert_same(module, x, training, g(by_hand.bn(by_hand.conv(x, "conv", **settings), "bn")))


@pytest.mark.parametrize("kernel", [1, (1, 1)])
def test_a_1x1_conv_bn_act_is_pointwise(kernel):
    """In the cost table a 1x1 counts as pointwise: Table 1 of MobileNetV1 keeps the two apart."""
    module = block(nn.ConvBNAct, 3, 4, kernel)
    assert isinstance(module.conv, nn.PointwiseConv2d)
    assert isinstance(block(nn.ConvBNAct, 3, 4, 1, stride=2).conv, nn.Conv2d)  # a stride needs a window


def test_blocks_have_no_bias_before_batch_norm():
    """Its gradient would be exactly zero: batch norm takes the mean away."""
    for case in ("ConvBNAct", "DepthwiseSeparable", "InvertedResidual"):
        module, _ = make(case)
        assert all(part.b is None for _, part in module.named_modules() if hasattr(part, "b"))


@pytest.mark.parametrize(
    "make_block",
    [
        lambda **settings: nn.ConvBNAct(3, 4, activation="tanh", **settings),
        lambda **settings: nn.DepthwiseSeparable(3, 4, activation="tanh", **settings),
    ],
)
def test_an_unknown_activation_is_named(make_block):
    with pytest.raises(ValueError, match=r"activation must be .*relu6.* got 'tanh'"):
        make_block(rng=np.random.default_rng(0))


# DepthwiseSeparable


@training_or_not
@pytest.mark.parametrize("settings", [{}, {"stride": 2}, {"stride": 2, "padding": "symmetric"}])
def test_depthwise_separable_filters_then_combines(settings, training):
    module = block(nn.DepthwiseSeparable, 3, 5, **settings)
    x = images(2, 6, 7, 3)
    by_hand = ByHand(module, training)
    filtered = relu(by_hand.bn(by_hand.depthwise(x, "depthwise", **settings), "depthwise_bn"))
    assert_same(module, x, training, relu(by_hand.bn(by_hand.pointwise(filtered, "pointwise"), "pointwise_bn")))


def test_the_depthwise_kernel_of_v1_has_no_weight_decay_unless_asked():
    """Section 3.2: "it was important to put very little or no weight decay on the depthwise filters"."""
    for settings, decay in [({}, False), ({"decay_depthwise": True}, True)]:
        module = block(nn.DepthwiseSeparable, 3, 5, **settings)
        decays = {p.name: p.decay for p in module.parameters() if p.name.endswith("w")}
        assert decays == {"depthwise.w": decay, "pointwise.w": True}


# InvertedResidual


def inverted_residual_by_hand(module, x, t, stride, shortcut, bottleneck, training, clip=relu6):
    """Table 1 of MobileNetV2, and the shortcut as section 6 and Figure 5 have it."""
    by_hand = ByHand(module, training)
    keeps_shape = stride == 1 and x.shape[-1] == by_hand.state["project.w"].shape[1]
    expanded = x if t == 1 else clip(by_hand.bn(by_hand.pointwise(x, "expand"), "expand_bn"))
    filtered = clip(by_hand.bn(by_hand.depthwise(expanded, "depthwise", stride=stride), "depthwise_bn"))
    if shortcut == "expansion" and keeps_shape:
        filtered = expanded + filtered
    y = by_hand.bn(by_hand.pointwise(filtered, "project"), "project_bn")
    if bottleneck == "relu6":
        y = relu6(y)
    return x + y if shortcut == "bottleneck" and keeps_shape else y


@training_or_not
@pytest.mark.parametrize("bottleneck", ["linear", "relu6"])
@pytest.mark.parametrize("shortcut", SHORTCUTS)
@pytest.mark.parametrize("C_out, stride", [(3, 1), (3, 2), (4, 1), (4, 2)])
@pytest.mark.parametrize("t", [1, 6])
def test_inverted_residual_by_hand(t, C_out, stride, shortcut, bottleneck, training):
    settings = {"stride": stride, "shortcut": shortcut, "bottleneck": bottleneck}
    module = block(nn.InvertedResidual, 3, C_out, t, **settings)
    x = 4 * images(2, 6, 7, 3)
    assert_same(module, x, training, inverted_residual_by_hand(module, x, t, **settings, training=training))


@training_or_not
@pytest.mark.parametrize("shortcut", SHORTCUTS)
@pytest.mark.parametrize("t", [1, 6])
def test_inverted_residual_with_relu_by_hand(t, shortcut, training):
    module = block(nn.InvertedResidual, 3, 3, t, shortcut=shortcut, activation="relu")
    getattr(module, "filtering", module).depthwise_bn.gamma.value *= 20  # beyond 6
    x = 4 * images(2, 6, 7, 3)
    settings = {"stride": 1, "shortcut": shortcut, "bottleneck": "linear", "training": training}
    expected = inverted_residual_by_hand(module, x, t, **settings, clip=relu)
    assert_same(module, x, training, expected)


@training_or_not
@pytest.mark.parametrize("shortcut", SHORTCUTS)
@pytest.mark.parametrize("t", [1, 4])
def test_gradients_of_inverted_residuals(t, shortcut, training):
    for settings in ({}, {"stride": 2}, {"bottleneck": "relu6"}, {"activation": "relu"}):
        module = block(nn.InvertedResidual, 3, 3, t, shortcut=shortcut, **settings)
        errors = gradient_errors(module, images(3, 6, 5, 3), training=training, h=1e-7)
        assert np.median(errors) < 1e-6, (settings, errors)


@pytest.mark.parametrize("C_out, stride, adds", [(8, 1, True), (8, 2, False), (16, 1, False), (8, (1, 1), True)])
def test_a_residual_only_at_stride_1_and_equal_channels(C_out, stride, adds):
    module = nn.InvertedResidual(8, C_out, stride=stride, rng=np.random.default_rng(0))
    assert module.adds_input is adds
    assert ("adds its input" in repr(module)) is adds


def test_no_expansion_convolution_at_t_1():
    plain, expanded = (block(nn.InvertedResidual, 3, 3, t) for t in (1, 2))
    assert [p.name for p in plain.parameters() if p.name.endswith("w")] == ["depthwise.w", "project.w"]
    assert [p.name for p in expanded.parameters() if p.name.endswith("w")] == ["expand.w", "depthwise.w", "project.w"]
    assert expanded.depthwise.w.shape == (3, 3, 6)  # t times the *input* channels
    assert block(nn.InvertedResidual, 3, 5, 6).depthwise.w.shape == (3, 3, 18)


def test_the_bottleneck_is_linear_unless_asked():
    x = 10 * images(4, 6, 7, 3)
    linear = block(nn.InvertedResidual, 3, 8)(x)
    assert linear.min() < 0
    clipped = block(nn.InvertedResidual, 3, 8, bottleneck="relu6")(x)
    np.testing.assert_allclose(clipped, relu6(linear))


@pytest.mark.parametrize("C_out, stride", [(3, 1), (3, 2), (4, 1)])
def test_the_three_shortcuts_have_equally_many_parameters(C_out, stride):
    """Otherwise Figure 5 (b) would compare networks of different sizes. They also start from the same weights."""
    modules = [block(nn.InvertedResidual, 3, C_out, 4, stride=stride, shortcut=shortcut) for shortcut in SHORTCUTS]
    parameters = [[(p.shape, p.decay) for p in module.parameters()] for module in modules]
    assert parameters[0] == parameters[1] == parameters[2]
    names = [{p.name.removeprefix("filtering.") for p in module.parameters()} for module in modules]
    assert names[0] == names[1] == names[2]
    for p, q, r in zip(*(module.parameters() for module in modules)):
        assert np.array_equal(p.value, q.value) and np.array_equal(p.value, r.value)
    x = images(2, 6, 5, 3)
    ys = [module(x) for module in modules]
    if C_out == 3 and stride == 1:
        assert not np.any(ys[0] == ys[1]) and not np.any(ys[0] == ys[2]) and not np.any(ys[1] == ys[2])
    else:
        assert np.array_equal(ys[0], ys[1]) and np.array_equal(ys[0], ys[2])


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"bottleneck": "relu"}, 'bottleneck must be "linear" or "relu6", got \'relu\''),
        ({"activation": "swish"}, 'activation must be "relu6" or "relu", got \'swish\''),
        ({"shortcut": None}, 'shortcut must be "bottleneck", "expansion" or "none", got None'),
        ({"t": 0}, "expansion factor t must be at least 1, got 0"),
        ({"t": 1.5}, "expansion factor t must be an integer, got 1.5"),
        ({"stride": 0}, "stride must be at least 1, got 0"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        nn.InvertedResidual(3, 3, rng=np.random.default_rng(0), **settings)


@pytest.mark.parametrize(
    "maker, norms",
    [(nn.ConvBNAct, 1), (nn.DepthwiseSeparable, 2), (nn.InvertedResidual, 3)],
)
def test_every_batch_norm_gets_the_settings(maker, norms):
    module = maker(3, 4, bn_decay=0.75, bn_eps=0.125, rng=np.random.default_rng(0), dtype=np.float64)
    found = [part for _, part in module.named_modules() if isinstance(part, nn.BatchNorm)]
    assert [(part.decay, part.eps, part.running_mean.dtype) for part in found] == [(0.75, 0.125, np.float64)] * norms
    assert {p.dtype for p in module.parameters()} == {np.dtype(np.float64)}


# As one op

ONE_OP = {
    "InvertedResidual": lambda: block(nn.InvertedResidual, 4, 4, 3),
    "InvertedResidual, relu6, stride 2": lambda: block(nn.InvertedResidual, 4, 6, 3, stride=2, bottleneck="relu6"),
    "InvertedResidual, t = 1": lambda: block(nn.InvertedResidual, 4, 4, 1, padding="symmetric"),
    "DepthwiseSeparable": lambda: block(nn.DepthwiseSeparable, 4, 6, stride=2),
}


def run_through(module, x, dy):
    """Return y, dx, the gradients by name, and the state after a step of training."""
    y = module(x, training=True)
    return {"y": y, "dx": module.backward(dy)} | {p.name: p.grad for p in module.parameters()} | module.state_dict()


@pytest.fixture
def ops_called(monkeypatch):
    """Count the calls of the one op."""
    called = []
    forward = mobile.bottleneck_forward
    monkeypatch.setattr(mobile, "bottleneck_forward", lambda *a, **k: called.append(1) or forward(*a, **k))
    return called


@pytest.mark.parametrize("name", ONE_OP)
def test_as_one_op_a_block_trains_as_its_layers_do(name, ops_called):
    one, layers = ONE_OP[name](), ONE_OP[name]()
    layers.as_one_op = False
    x = images(3, 6, 5, 4)
    dy = images(*one(x).shape, seed=1)
    assert not ops_called  # inference is layer by layer
    got, expected = run_through(one, x, dy), run_through(layers, x, dy)
    assert len(ops_called) == 1
    assert got.keys() == expected.keys()
    for key in got:
        np.testing.assert_allclose(got[key], expected[key], rtol=1e-9, atol=1e-9, err_msg=key)


def test_backward_belongs_to_the_last_forward_whichever_way_it_went():
    module, x = ONE_OP["InvertedResidual"](), images(3, 6, 5, 4)
    dy = images(3, 6, 5, 4, seed=1)
    alone = ONE_OP["InvertedResidual"]()
    alone.load_state_dict(module.state_dict())
    alone(x)
    module(x, training=True)
    alone.load_state_dict(module.state_dict())  # the running statistics that inference uses
    alone(x)
    module(x)
    np.testing.assert_array_equal(module.backward(dy), alone.backward(dy))


def test_observers_inside_a_block_see_its_layers_and_change_no_bit():
    module, watched = ONE_OP["InvertedResidual"](), ONE_OP["InvertedResidual"]()
    layers = ONE_OP["InvertedResidual"]()
    layers.as_one_op = False
    seen, wanted = [], []
    watched.depthwise.observers.append(seen.append)
    layers.depthwise.observers.append(wanted.append)
    x, dy = images(3, 6, 5, 4), images(3, 6, 5, 4, seed=1)
    plain, with_probe = run_through(module, x, dy), run_through(watched, x, dy)
    layers(x, training=True)
    for key in plain:
        np.testing.assert_array_equal(plain[key], with_probe[key], err_msg=key)
    assert len(seen) == 1
    np.testing.assert_array_equal(seen[0], wanted[0])


CHANGES = {
    "a layer with a bias": lambda m: setattr(m, "project", nn.PointwiseConv2d(12, 4, bias=True, rng=RNG, dtype=float)),
    "a layer with an activation": lambda m: setattr(m.project, "activation", "relu"),
    "another kind of layer": lambda m: setattr(m, "project", nn.Conv2d(12, 4, 1, rng=RNG, dtype=float)),
    "another norm": lambda m: setattr(m, "depthwise_bn", nn.ReLU6()),
    "a layer at the end": lambda m: setattr(m, "last", nn.ReLU()),
    "a norm of another dtype": lambda m: setattr(m, "depthwise_bn", nn.BatchNorm(12, activation="relu6")),
    "no activation": lambda m: setattr(m.expand_bn, "activation", None),
    "a shortcut of its own": lambda m: setattr(m, "shortcut", nn.PointwiseConv2d(4, 4, rng=RNG, dtype=float)),
}
RNG = np.random.default_rng(3)


@pytest.mark.parametrize("change", CHANGES)
def test_a_block_that_was_changed_goes_layer_by_layer(change, ops_called):
    module = ONE_OP["InvertedResidual"]()
    CHANGES[change](module)
    y = module(images(3, 6, 5, 4), training=True)
    assert not ops_called
    assert module.backward(y).shape == (3, 6, 5, 4)


def test_a_norm_of_other_channels_is_named_by_the_layer(ops_called):
    module = ONE_OP["InvertedResidual"]()
    module.depthwise_bn = nn.BatchNorm(5, activation="relu6", dtype=np.float64)
    with pytest.raises(ValueError, match=r"^depthwise_bn: batch_norm: gamma must have the shape \(12,\)"):
        module(images(3, 6, 5, 4), training=True)
    assert not ops_called


def test_images_of_another_dtype_go_layer_by_layer(ops_called):
    module = ONE_OP["InvertedResidual"]()
    module(images(3, 6, 5, 4).astype(np.float32), training=True)
    assert not ops_called


def test_training_as_one_op_lets_go_of_what_an_earlier_inference_kept():
    module, x = ONE_OP["InvertedResidual"](), images(3, 6, 5, 4)
    module(x)
    assert module.depthwise.cache is not None
    module.depthwise.observers.append(lambda y: None)
    module(x, training=True)
    assert all(layer.cache is None for _, layer in module.chain())


def test_an_observer_that_fails_leaves_the_running_statistics_alone():
    module, x = ONE_OP["InvertedResidual"](), images(3, 6, 5, 4)
    before = module.state_dict()

    def fail(y):
        raise RuntimeError("looked too closely")

    module.project_bn.observers.append(fail)
    with pytest.raises(RuntimeError, match="looked too closely"):
        module(x, training=True)
    for name, array in module.state_dict().items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)


def test_a_list_is_refused_by_the_layer():
    with pytest.raises(ValueError, match="must be a NumPy array"):
        ONE_OP["InvertedResidual"]()([[1.0]], training=True)


def test_a_shape_that_does_not_fit_is_named_by_the_layer():
    with pytest.raises(ValueError, match=r"expand: pointwise_conv2d: x \(3, 6, 5, 7\) has 7 channels"):
        ONE_OP["InvertedResidual"]()(images(3, 6, 5, 7), training=True)
