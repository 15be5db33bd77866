"""Parameter, Module, and the three ways to put modules together."""

import copy

import numpy as np
import pytest

from npnets import nn, ops
from npnets.nn import Parameter
from tests.models import gradient_errors
from tests.nn import make, randomize


def conv(C_in, C_out, seed=0, **settings):
    return nn.PointwiseConv2d(C_in, C_out, rng=np.random.default_rng(seed), dtype=np.float64, **settings)


def images(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


# Parameter


def counting(drawn):
    """Return an initializer that notes what it draws."""

    def initializer(shape, rng):
        drawn.append(shape)
        return rng.standard_normal(shape)

    return initializer


def test_a_value_is_drawn_once_when_it_is_asked_for():
    drawn = []
    parameter = Parameter((2, 3), counting(drawn), np.random.default_rng(0))
    assert (parameter.shape, parameter.size, parameter.dtype, parameter.grad) == ((2, 3), 6, np.float32, None)
    assert "shape=(2, 3)" in repr(parameter) and not drawn
    value = parameter.value
    assert parameter.value is value and drawn == [(2, 3)]
    assert value.dtype == np.float32 and value.shape == (2, 3)


def test_setting_a_value_copies_and_converts():
    parameter = Parameter((2,), nn.init.constant(0))
    for dtype in (np.float32, np.float64):
        given = np.array([1, 2], dtype)
        parameter.value = given
        given[0] = 7
        assert parameter.value.dtype == np.float32 and parameter.value.tolist() == [1, 2]
    parameter.value = [3, 4]
    assert parameter.value.tolist() == [3, 4]


def test_a_value_of_another_shape_is_refused_by_name():
    layer = nn.Sequential(norm=nn.BatchNorm(3))
    parameter = layer.parameters()[0]
    with pytest.raises(ValueError, match=r"norm.gamma: the value must have the shape \(3,\), got \(\)"):
        parameter.value = 1.0
    assert parameter.value.tolist() == [1, 1, 1]


def test_weights_depend_on_seed_and_position_alone():
    """Not on which others were drawn before, and not on the dtype beyond rounding."""

    def network(seed, dtype=np.float64):
        rng = np.random.default_rng(seed)
        return nn.Sequential(
            nn.ConvBNAct(3, 4, rng=rng, dtype=dtype),
            nn.InvertedResidual(4, 4, rng=rng, dtype=dtype),
            nn.Dropout(0.5, rng=rng),
            nn.PointwiseConv2d(4, 4, rng=rng, dtype=dtype),
            nn.PointwiseConv2d(4, 4, rng=rng, dtype=dtype),
        )

    first, second, other, single = network(5), network(5), network(6), network(5, np.float32)
    forwards = [p.value for p in first.parameters()]
    backwards = [p.value for p in reversed(second.parameters())][::-1]
    for p, a, b, c, d in zip(first.parameters(), forwards, backwards, other.parameters(), single.parameters()):
        assert np.array_equal(a, b), p.name
        assert np.array_equal(a.astype(np.float32), d.value), p.name
        if p.name.endswith("w"):
            assert not np.any(a == c.value), p.name
    assert not np.any(forwards[-1] == forwards[-2])  # two layers of the same shape have weights of their own


# Names and state


class Net(nn.Module):
    """A module with a parameter, a running array, a child and a list of children, set in this order."""

    running = ("seen",)

    def __init__(self):
        super().__init__()
        self.scale = Parameter((2,), nn.init.constant(1))
        self.seen = np.zeros(2)
        self.stem = conv(2, 3)
        self.settings = {"not": "state"}
        rng = np.random.default_rng(0)
        self.blocks = [nn.ReLU(), nn.Sequential(depthwise=nn.BatchNorm(3)), nn.Dropout(0.5, rng=rng)]
        self.source = rng


def test_names_are_paths_in_the_order_of_the_attributes():
    net = Net()
    assert [p.name for p in net.parameters()] == [
        "scale",
        "stem.w",
        "blocks.1.depthwise.gamma",
        "blocks.1.depthwise.beta",
    ]
    assert list(net.state_dict()) == [
        "scale",
        "seen",
        "stem.w",
        "blocks.1.depthwise.gamma",
        "blocks.1.depthwise.beta",
        "blocks.1.depthwise.running_mean",
        "blocks.1.depthwise.running_var",
    ]
    paths = ["", "stem", "blocks.0", "blocks.1", "blocks.1.depthwise", "blocks.2"]
    assert [path for path, _ in net.named_modules()] == paths
    assert [name for name, _ in net.children()] == ["stem", "blocks.0", "blocks.1", "blocks.2"]
    assert {path for path, _ in net.generators()} == {"source", "blocks.2.rng"}


def test_names_begin_at_the_module_that_was_asked():
    net = Net()
    assert [p.name for p in net.blocks[1].parameters()] == ["depthwise.gamma", "depthwise.beta"]
    assert net.parameters()[2].name == "blocks.1.depthwise.gamma"


def test_a_state_is_a_copy():
    net = Net()
    state = net.state_dict()
    state["scale"][...] = 7
    state["seen"][...] = 7
    assert net.scale.value.tolist() == [1, 1] and net.seen.tolist() == [0, 0]


def test_loading_converts_and_keeps_the_arrays_in_place():
    """In place: an optimizer or an average may hold the very arrays."""
    net = Net()
    gamma, seen = net.blocks[1].depthwise.gamma, net.seen
    value = gamma.value
    state = {name: np.full(array.shape, 3, int) for name, array in net.state_dict().items()}
    net.load_state_dict(state)
    assert gamma.value is value and value.dtype == np.float32 and value.tolist() == [3, 3, 3]
    assert net.seen is seen and seen.tolist() == [3, 3]
    state["seen"][...] = 5
    assert seen.tolist() == [3, 3]


def refused(net, state):
    """Return the message with which a state is refused, having checked that nothing was changed."""
    before = net.state_dict()
    with pytest.raises(ValueError) as error:
        net.load_state_dict(state)
    for name, array in net.state_dict().items():
        assert array.tobytes() == before[name].tobytes(), f"{name} was changed by a state that was refused"
    return str(error.value)


def test_a_state_of_another_model_is_refused_with_every_name():
    net = Net()
    state = {name: array + 1 for name, array in net.state_dict().items()}
    del state["seen"], state["blocks.1.depthwise.running_var"]
    state |= {"stem.b": np.zeros(3), "head.w": np.zeros((3, 4))}
    state["stem.w"] = np.zeros((3, 2))
    state["blocks.1.depthwise.beta"] = np.float32(1)
    message = refused(net, state)
    for problem in (
        "missing: seen (2,)",
        "missing: blocks.1.depthwise.running_var (3,)",
        "unexpected: stem.b (3,)",
        "unexpected: head.w (3, 4)",
        "another shape: stem.w is (3, 2), this model needs (2, 3)",
        "another shape: blocks.1.depthwise.beta is (), this model needs (3,)",
    ):
        assert problem in message
    assert len(message.splitlines()) == 7


@pytest.mark.parametrize("wrong", [np.array(["a", "b", "c"]), np.zeros(3, complex), np.array([{}, None, "c"], object)])
def test_a_state_of_something_else_than_numbers_is_refused_by_name(wrong):
    """From a hostile checkpoint: right names, right shapes. Arrays before it must not have been taken over."""
    net = Net()
    state = {name: array + 1 for name, array in net.state_dict().items()}
    state["blocks.1.depthwise.beta"] = wrong
    assert "blocks.1.depthwise.beta" in refused(net, state)


def test_a_copy_of_a_model_is_independent():
    net = Net()
    twin = copy.deepcopy(net)
    twin.scale.value[...] = 5
    twin.seen += 1
    assert net.scale.value.tolist() == [1, 1] and net.seen.tolist() == [0, 0]
    assert np.array_equal(net.stem.w.value, twin.stem.w.value)  # drawn after the copy, from the same stream


def test_observers_get_the_output_in_forward_order():
    seen = []
    net = nn.Sequential(nn.ReLU(), blocks=[nn.ReLU6()])
    for path, module in net.named_modules():
        module.observers.append(lambda y, path=path: seen.append((path, y)))
    y = net(images(1, 2))
    assert [path for path, _ in seen] == ["0", "blocks.0", ""]
    assert seen[-1][1] is y
    net.observers.clear()
    net(images(1, 2))
    assert [path for path, _ in seen[3:]] == ["0", "blocks.0"]


def test_what_a_module_does_not_define_is_a_sentence():
    for call in (
        lambda module: module.forward(1),
        lambda module: module.backward(1),
        lambda module: module.trace(1, print),
    ):
        with pytest.raises(NotImplementedError, match=r"Module does not define (forward|backward|trace)"):
            call(nn.Module())


# Sequential, Residual, Concat


def test_sequential_is_function_composition():
    a, b = conv(3, 4, seed=1), conv(4, 2, seed=2)
    x, dy = images(2, 3, 2, 3), images(2, 3, 2, 2, seed=1)
    net = nn.Sequential(a, nn.ReLU(), last=[b])
    hidden = x @ a.w.value
    np.testing.assert_allclose(net(x), np.maximum(hidden, 0) @ b.w.value)
    dhidden = (dy @ b.w.value.T) * (hidden > 0)
    np.testing.assert_allclose(net.backward(dy), dhidden @ a.w.value.T)
    np.testing.assert_allclose(a.w.grad, np.einsum("nhwi,nhwo->io", x, dhidden))


@pytest.mark.parametrize("maker", [nn.Sequential, nn.Residual, nn.Concat])
def test_only_modules_can_be_put_together(maker):
    for layers, named in [((nn.ReLU(), 3), {}), ((), {"act": [nn.ReLU(), nn.ReLU]}), ((), {"act": "relu"})]:
        with pytest.raises(ValueError, match=f"{maker.__name__}: .* must be a Module, got"):
            maker(*layers, **named)


@pytest.mark.parametrize("name", ["forward", "children"])
@pytest.mark.parametrize("maker", [nn.Sequential, nn.Concat])
def test_a_layer_cannot_take_the_name_of_a_method(maker, name):
    with pytest.raises(ValueError, match=name):
        maker(**{name: nn.ReLU()})


@pytest.mark.parametrize("wrap", [nn.Sequential, nn.Residual, nn.Concat])
def test_an_error_tells_the_path_of_the_layer(wrap):
    net = nn.Sequential(stem=conv(3, 4), blocks=[nn.ReLU(), wrap(project=conv(5, 4))])
    message = r"^blocks.1: project: .*5 channels|^blocks.1: project: .* expects 5"
    with pytest.raises(ValueError, match=message):
        net(images(1, 2, 2, 3))
    with pytest.raises(ValueError, match=message):
        net.trace((2, 2, 3), lambda *layer: None)


def test_residual_adds_its_input():
    branch = conv(3, 3)
    net = nn.Residual(branch)
    x, dy = images(2, 3, 2, 3), images(2, 3, 2, 3, seed=1)
    np.testing.assert_allclose(net(x), x + x @ branch.w.value)
    np.testing.assert_allclose(net.backward(dy), dy + dy @ branch.w.value.T)


def test_residual_with_a_module_on_the_shortcut():
    branch, shortcut = conv(3, 4, seed=1), conv(3, 4, seed=2)
    net = nn.Residual(branch, nn.ReLU(), shortcut=shortcut)
    x, dy = images(2, 3, 2, 3), images(2, 3, 2, 4, seed=1)
    hidden = x @ branch.w.value
    np.testing.assert_allclose(net(x), x @ shortcut.w.value + np.maximum(hidden, 0))
    np.testing.assert_allclose(net.backward(dy), dy @ shortcut.w.value.T + (dy * (hidden > 0)) @ branch.w.value.T)
    np.testing.assert_allclose(shortcut.w.grad, np.einsum("nhwi,nhwo->io", x, dy))
    assert [p.name for p in net.parameters()] == ["0.w", "shortcut.w"]
    assert [path for path, _ in traced(net, (3, 2, 3))] == ["0", "1", "shortcut"]


def test_an_error_in_the_shortcut_names_it():
    net = nn.Residual(conv(3, 4), shortcut=nn.Sequential(conv=conv(5, 4)))
    for call in (lambda: net(np.zeros((2, 3, 2, 3))), lambda: traced(net, (3, 2, 3))):
        with pytest.raises(ValueError, match=r"^shortcut: conv: "):
            call()


@pytest.mark.parametrize("settings", [{}, {"shortcut": conv(3, 5)}])
def test_residual_needs_equal_shapes(settings):
    net = nn.Residual(conv(3, 4), **settings)
    with pytest.raises(ValueError, match=r"Residual: .*\(1, 2, 2, [35]\).* \(1, 2, 2, 4\)"):
        net(images(1, 2, 2, 3))
    with pytest.raises(ValueError, match=r"Residual: .*\(2, 2, [35]\).* \(2, 2, 4\)"):
        net.trace((2, 2, 3), lambda *layer: None)


def test_concat_joins_channels_in_the_order_of_the_branches():
    a, b = conv(3, 2, seed=1), conv(3, 4, seed=2)
    net = nn.Concat(a, nn.ReLU(), wide=b)
    x, dy = images(2, 3, 2, 3), images(2, 3, 2, 9, seed=1)
    np.testing.assert_allclose(net(x), np.concatenate([x @ a.w.value, np.maximum(x, 0), x @ b.w.value], axis=-1))
    dx = dy[..., :2] @ a.w.value.T + dy[..., 2:5] * (x > 0) + dy[..., 5:] @ b.w.value.T
    np.testing.assert_allclose(net.backward(dy), dx)
    np.testing.assert_allclose(b.w.grad, np.einsum("nhwi,nhwo->io", x, dy[..., 5:]))
    assert [p.name for p in net.parameters()] == ["0.w", "wide.w"]
    assert [path for path, _ in traced(net, (3, 2, 3))] == ["0", "1", "wide"]


def test_concat_needs_equal_sizes():
    net = nn.Concat(nn.ReLU(), nn.MaxPool2d(2))
    with pytest.raises(ValueError, match=r"Concat: .*\(1, 4, 4, 3\).*\(1, 2, 2, 3\)"):
        net(images(1, 4, 4, 3))
    with pytest.raises(ValueError, match=r"Concat: .*\(4, 4, 3\).*\(2, 2, 3\)"):
        net.trace((4, 4, 3), lambda *layer: None)


def traced(net, shape):
    """Return (path, output shape) of every layer that the trace visits."""
    visited = []
    net.trace(shape, lambda path, layer, shape, out: visited.append((path, out)))
    return visited


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("case", ["Sequential", "Residual", "Residual, shortcut", "Concat"])
def test_gradients_of_what_is_put_together(case, training):
    module, shape = make(case)
    errors = gradient_errors(module, images(3, *shape, seed=5), training=training, h=1e-6)
    assert np.median(errors) < 1e-6, errors


def test_the_shapes_of_a_trace_are_those_of_the_forward():
    """Of every module inside, not of the last alone."""
    for case in ("Sequential", "Residual, shortcut", "Concat", "InvertedResidual, expansion"):
        module, shape = make(case)
        seen = {}
        for path, part in module.named_modules():
            part.observers.append(lambda y, path=path, seen=seen: seen.__setitem__(path, y.shape[1:]))
        module(images(2, *shape))
        visited = traced(module, shape)
        assert len({path for path, _ in visited}) == len(visited)
        leaves = [path for path, part in module.named_modules() if isinstance(part, nn.Layer)]
        assert sorted(path for path, _ in visited) == sorted(leaves)
        assert all(seen[path] == out for path, out in visited)


def test_a_residual_block_of_ops_by_hand_trains_like_the_module():
    """Gradients that meet at a fork add up, across two levels of nesting."""
    inner = nn.Residual(nn.Swish())
    net = randomize(nn.Residual(conv(3, 3), inner))
    w = net.parameters()[0].value
    x, dy = images(2, 2, 2, 3), images(2, 2, 2, 3, seed=1)
    hidden = x @ w
    swish, cache = ops.swish_forward(hidden)
    np.testing.assert_allclose(net(x), x + hidden + swish)
    dhidden = dy + ops.swish_backward(dy, cache)
    np.testing.assert_allclose(net.backward(dy), dy + dhidden @ w.T)
