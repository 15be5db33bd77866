"""The Inception module against the same ops by hand."""

import numpy as np
import pytest

from npnets import nn, ops
from npnets.nn.blocks.inception import inception_conv
from tests.models import gradient_errors
from tests.nn.test_blocks import assert_same, block, images, relu, training_or_not

BRANCHES = {"conv1x1": 2, "conv3x3": (3, 4), "double3x3": (2, 5), "projection": 3}
HALVING = {"conv1x1": 0, "conv3x3": (3, 4), "double3x3": (2, 5), "projection": 0, "stride": 2}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def unit(state, path, x, training, g, stride=1, padding="same"):
    """A convolution, its batch norm or its bias, and the nonlinearity g."""
    w = state[f"{path}.conv.w"]
    b = state.get(f"{path}.conv.b")
    h, _ = ops.conv2d_forward(x, w[None, None] if w.ndim == 2 else w, b, stride=stride, padding=padding)
    if b is None:
        vectors = [state[f"{path}.bn.{part}"].copy() for part in ("gamma", "beta", "running_mean", "running_var")]
        h, _ = ops.batch_norm_forward(h, *vectors, training=training)
    return g(h)


def by_hand(module, x, training, g=relu, *, pool="avg", projection, stride=1, padding="same", **rest):
    """Figure 5 of the batch-norm paper, a row of it."""
    state = module.state_dict()
    settings = {"training": training, "g": g, "padding": padding}
    outputs = [unit(state, "conv1x1", x, **settings)] if rest["conv1x1"] else []
    h = unit(state, "conv3x3.reduce", x, **settings)
    outputs.append(unit(state, "conv3x3.conv", h, stride=stride, **settings))
    h = unit(state, "double3x3.reduce", x, **settings)
    h = unit(state, "double3x3.conv1", h, **settings)
    outputs.append(unit(state, "double3x3.conv2", h, stride=stride, **settings))
    pooled, _ = getattr(ops, f"{pool}_pool2d_forward")(x, 3, stride=stride, padding=padding)
    outputs.append(unit(state, "pool.project", pooled, **settings) if projection else pooled)
    return np.concatenate(outputs, axis=-1)


@training_or_not
@pytest.mark.parametrize("padding", ["same", "symmetric"])
@pytest.mark.parametrize("pool", ["avg", "max"])
@pytest.mark.parametrize("branches", [BRANCHES, HALVING], ids=["stride 1", "stride 2"])
def test_the_module_by_hand(branches, pool, padding, training):
    settings = branches | {"pool": pool, "padding": padding}
    module, x = block(nn.Inception, 6, **settings), images(3, 6, 8, 6)
    assert_same(module, x, training, by_hand(module, x, training, **settings))


@training_or_not
@pytest.mark.parametrize("activation, g", [("relu", relu), ("sigmoid", sigmoid)])
@pytest.mark.parametrize("batch_norm", [True, False])
def test_with_and_without_batch_norm_under_both_nonlinearities(batch_norm, activation, g, training):
    module = block(nn.Inception, 6, **BRANCHES, batch_norm=batch_norm, activation=activation)
    x = images(3, 6, 7, 6)
    assert_same(module, x, training, by_hand(module, x, training, g, **BRANCHES))
    norms = sum(isinstance(part, nn.BatchNorm) for _, part in module.named_modules())
    biases = sum(p.name.endswith(".b") for p in module.parameters())
    assert (norms, biases) == ((7, 0) if batch_norm else (0, 7))


def test_the_branches_in_the_order_of_the_paper():
    for branches, channels, size in [(BRANCHES, 2 + 4 + 5 + 3, (7, 5)), (HALVING, 4 + 5 + 6, (4, 3))]:
        module = nn.Inception(6, **branches, rng=np.random.default_rng(0))
        names = [name for name, _ in module.children()]
        assert names == ["conv1x1", "conv3x3", "double3x3", "pool"][not branches["conv1x1"] :]
        assert module.trace((7, 5, 6), lambda *layer: None) == (*size, channels)


@training_or_not
@pytest.mark.parametrize(
    "settings",
    [
        BRANCHES,
        HALVING | {"pool": "max"},
        BRANCHES | {"pool": "max", "batch_norm": False},
        BRANCHES | {"activation": "sigmoid"},
    ],
    ids=["avg", "stride 2", "no batch norm", "sigmoid"],
)
def test_gradients(settings, training):
    module = block(nn.Inception, 4, **settings)
    errors = gradient_errors(module, images(3, 6, 5, 4), training=training, h=1e-7)
    assert np.median(errors) < 1e-6, errors


def test_with_and_without_batch_norm_the_initial_weights_are_the_same():
    """The comparison of section 4.2 starts both networks from the same filters."""
    states = [
        nn.Inception(6, **BRANCHES, batch_norm=batch_norm, rng=np.random.default_rng(3)).state_dict()
        for batch_norm in (True, False)
    ]
    weights = [{name: array for name, array in state.items() if name.endswith("w")} for state in states]
    assert list(weights[0]) == list(weights[1]) and len(weights[0]) == 7
    assert all(np.array_equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("kernel", [1, 3])
def test_initial_weights_keep_the_energy_of_what_comes_in(kernel, batch_norm):
    """He's for the fan-in: variance 2 / (K_h K_w C_in), whatever C_out; and twice the weights where it is asked for."""
    settings = {"batch_norm": batch_norm, "dtype": np.float64}
    w, doubled = (
        inception_conv(50, 400, kernel, init_scale=scale, rng=np.random.default_rng(1), **settings).conv.w.value
        for scale in (1.0, 2.0)
    )
    assert np.var(w) == pytest.approx(2 / (kernel * kernel * 50), rel=0.05)
    np.testing.assert_array_equal(doubled, 2 * w)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"pool": ["avg"]}, r'Inception: pool must be "avg" or "max", got'),
        ({"batch_norm": "off"}, "batch_norm must be True or False, got 'off'"),
        ({"activation": None}, "activation must be .*, got None"),
        ({"pool": "mean"}, 'Inception: pool must be "avg" or "max", got \'mean\''),
        ({"stride": 2}, "Inception: a module with a stride has no 1x1 branch"),
        ({"conv1x1": -1}, "Inception: conv1x1 must be at least 0, got -1"),
        ({"conv3x3": (0, 4)}, "Inception: conv3x3 must be at least 1, got 0"),
        ({"double3x3": (2, 5, 5)}, "Inception: double3x3 must be an integer or a pair"),
        ({"projection": 2.5}, "Inception: projection must be an integer, got 2.5"),
        ({"activation": "tanh"}, "activation must be .*sigmoid"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        nn.Inception(6, **{**BRANCHES, **settings}, rng=np.random.default_rng(0))
