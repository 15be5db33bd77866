"""BN-Inception against Figure 5 of its paper, its variants of section 4.2, and the small one for 28 and 32 pixels."""

import inspect

import numpy as np
import pytest

from npnets import cost, nn, ops, parallel
from npnets.models import bn_inception, bn_inception_small, build
from npnets.optim import SGD
from tests.models import docstring_rows, gradient_errors
from tests.nn import randomize

FILE = inspect.getmodule(bn_inception)

# Figure 5: the output of every row.
STEM = [(112, 112, 64), (56, 56, 64), (56, 56, 192), (28, 28, 192)]
MODULES = {
    "3a": (28, 28, 256),
    "3b": (28, 28, 320),
    "3c": (14, 14, 576),
    "4a": (14, 14, 576),
    "4b": (14, 14, 576),
    "4c": (14, 14, 576),
    "4d": (14, 14, 576),
    "4e": (7, 7, 1024),
    "5a": (7, 7, 1024),
    "5b": (7, 7, 1024),
}

# The networks that section 4.2 compares.
VARIANTS = {
    "baseline": {"batch_norm": False},
    "without local response normalization": {"batch_norm": False, "local_response_norm": False},
    "BN-baseline": {},
    "with dropout and local response normalization": {"dropout": 0.4, "local_response_norm": True},
    "BN-x5-Sigmoid": {"activation": "sigmoid"},
    "sigmoid": {"batch_norm": False, "activation": "sigmoid"},
}
variants = pytest.mark.parametrize("variant", VARIANTS)


def outputs(model, shape):
    """Return the output of each layer of the stem and of each module, for one image."""
    found = {}
    shape = model.stem.trace(shape, lambda path, layer, shape, out: found.__setitem__(path.split(".")[0], out))
    for name, module in model.blocks.children():
        shape = found[name] = module.trace(shape, lambda *layer: None)
    return found


def layers(model, kind):
    return [part for _, part in model.named_modules() if isinstance(part, kind)]


def images(N, pixels, seed=1, dtype=np.float64):
    return np.random.default_rng(seed).standard_normal((N, pixels, pixels, 3)).astype(dtype)


def test_figure_5():
    found = outputs(bn_inception(), (224, 224, 3))
    assert [found[name] for name in ("conv1", "pool1", "conv2", "pool2")] == STEM
    assert {name: found[name] for name in MODULES} == MODULES
    assert list(found)[-10:] == list(MODULES)


def test_the_comments_of_the_tables_are_the_inputs():
    source = inspect.getsource(FILE)
    for table, model, pixels in [("TABLE", bn_inception(), 224), ("SMALL_TABLE", bn_inception_small(), 32)]:
        literal = source.partition(f"\n{table} = [")[2].partition("\n]")[0]
        comments = [line.partition("),  # ")[2] for line in literal.splitlines() if line.startswith('    ("')]
        maps = list(outputs(model, (pixels, pixels, 3)).values())[-len(comments) - 1 :]
        assert comments == [f"{H} x {W} x {C}" for H, W, C in maps[:-1]]


def test_the_table_in_the_docstring():
    [(width, pixels, params, macs)] = docstring_rows(FILE)
    total = cost.profile(bn_inception(width_mult=width), (pixels, pixels, 3))
    assert (total.params, total.macs) == (params, macs)
    assert (round(params / 1e6, 1), round(macs / 1e9, 1)) == (11.2, 2.0)


def test_the_small_network_costs_what_it_says():
    total = cost.profile(bn_inception_small(), (32, 32, 3))
    assert f"{total.params:,} parameters" in bn_inception_small.__doc__
    assert f"{total.macs:,} multiply-adds" in bn_inception_small.__doc__


def test_stride_2_sits_on_the_last_3x3_of_a_branch():
    model = bn_inception()
    for name in MODULES:
        module = getattr(model.blocks, name)
        s = 2 if name in ("3c", "4e") else 1
        double = module.double3x3
        convolutions = [module.conv3x3.conv.conv, double.conv2.conv, double.conv1.conv]
        assert [conv.stride[0] for conv in convolutions] == [s, s, 1]
        pool = module.pool if s == 2 else module.pool.pool
        assert (pool.stride, type(pool)) == ((s, s), nn.MaxPool2d if name in ("3c", "4e", "5b") else nn.AvgPool2d)


def test_the_small_network_is_a_quarter_as_wide():
    rows = {row[0]: row for row in FILE.TABLE}
    for name, s, *channels, pool, projection in FILE.SMALL_TABLE:
        whole = rows[name]
        assert (s, pool) == (whole[1], whole[7])
        assert [4 * c for c in (*channels, projection)] == [*whole[2:7], whole[8]]
    assert tuple(4 * c for c in FILE.SMALL_STEM) == FILE.STEM


@pytest.mark.parametrize("pixels, sizes", [(28, [28, 14, 7, 4]), (32, [32, 16, 8, 4])])
def test_the_small_network_halves_three_times(pixels, sizes):
    found = outputs(bn_inception_small(), (pixels, pixels, 3))
    assert list(dict.fromkeys(H for H, _, _ in found.values())) == sizes
    assert found["5b"] == (4, 4, 256)


def test_the_width_multiplier():
    model = bn_inception(width_mult=0.3)
    assert outputs(model, (64, 64, 3))["conv1"][-1] == 24  # 19.2, and 16 would be less than nine tenths of it
    module = getattr(model.blocks, "3a")
    widths = [conv.C_out for conv in layers(module, nn.Conv2d | nn.PointwiseConv2d)]
    assert widths == [24, 24, 24, 24, 32, 32, 16] and not hasattr(getattr(model.blocks, "3c"), "conv1x1")


@pytest.mark.parametrize("network", [bn_inception, bn_inception_small])
def test_batch_norm_takes_the_place_of_biases_response_normalization_and_dropout(network):
    """Sections 4.2.2 and 4.2.6; the baseline of section 4.2 has all three."""
    normalized, baseline = network(), network(batch_norm=False)
    convolutions = len(layers(normalized, nn.Conv2d | nn.PointwiseConv2d)) - 1  # the classifier is one of these
    counts = [(len(layers(m, nn.BatchNorm)), len(layers(m, nn.LocalResponseNorm))) for m in (normalized, baseline)]
    assert counts == [(convolutions, 0), (0, 2)]
    assert (normalized.dropout.rate, baseline.dropout.rate) == (0, 0.4)
    biases = [sum(p.name.endswith(".b") for p in m.parameters()) for m in (normalized, baseline)]
    assert biases == [1, convolutions + 1]


def test_response_normalization_sits_where_googlenet_has_it():
    for settings in ({"batch_norm": False}, {"local_response_norm": True}):
        names = [name for name, _ in bn_inception(**settings).stem.children()]
        assert names == ["conv1", "pool1", "norm1", "conv2_reduce", "conv2", "norm2", "pool2"]


def test_batch_norm_stands_before_every_nonlinearity():
    for activation, kind in [("relu", nn.ReLU), ("sigmoid", nn.Sigmoid)]:
        model = bn_inception(activation=activation)
        norms = layers(model, nn.BatchNorm)
        if activation == "relu":  # in the same pass
            assert {norm.activation for norm in norms} == {"relu"} and not layers(model, kind)
        else:
            assert len(layers(model, kind)) == len(norms) and not layers(model, nn.ReLU)


@variants
@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
def test_gradients_of_the_small_network(variant, training):
    model = randomize(bn_inception_small(width_mult=0.5, dtype=np.float64, **VARIANTS[variant]))
    errors = gradient_errors(model, images(3, 12), training=training)
    assert np.median(errors) < 1e-6, errors


@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize("padding", ["same", "symmetric"])
def test_gradients_of_the_full_network(padding, training):
    model = randomize(bn_inception(5, width_mult=0.125, padding=padding, dtype=np.float64))
    errors = gradient_errors(model, images(4, 40), training=training)
    assert np.median(errors) < 1e-6, errors


def test_all_variants_start_from_the_same_filters():
    states = [bn_inception_small(seed=3, **settings).state_dict() for settings in VARIANTS.values()]
    for state in states[1:]:
        for name, array in state.items():
            if name.endswith(".w"):
                assert np.array_equal(array, states[0][name]), name


def test_increased_initial_weights():
    """Section 4.3; the classifier keeps its own."""
    small, large = (bn_inception_small(init_scale=scale).state_dict() for scale in (1, 3))
    for name, array in small.items():
        scale = 3 if name.endswith("conv.w") else 1
        np.testing.assert_allclose(large[name], scale * array, rtol=1e-6)


def test_without_batch_norm_activations_and_gradients_keep_their_size():
    """Through all ten modules, at the start: otherwise the baseline would not be one."""
    model = bn_inception(10, width_mult=0.5, batch_norm=False, dtype=np.float64)
    x = model.stem(images(4, 64))
    y = model.blocks(x)
    dx = model.blocks.backward(np.random.default_rng(2).standard_normal(y.shape))
    assert 0.3 < y.std() / x.std() < 3
    assert 0.1 < dx.std() < 3


@variants
def test_training_steps_lower_the_loss(variant):
    rng = np.random.default_rng(0)
    x, labels = images(8, 16, dtype=np.float32), rng.integers(0, 10, 8)
    model = bn_inception_small(width_mult=0.5, seed=1, **VARIANTS[variant])
    optimizer = SGD(model.parameters(), 0.05, momentum=0.9)
    losses = []
    for _ in range(12):
        loss, cache = ops.softmax_cross_entropy_forward(model(x, training=True), labels)
        model.backward(ops.softmax_cross_entropy_backward(1.0, cache))
        optimizer.step()
        losses.append(loss)
    assert losses[0] == pytest.approx(np.log(10), abs=0.1)  # a new classifier is undecided
    assert losses[-1] < losses[0]


def test_state_round_trip():
    first, second = (randomize(bn_inception_small(dtype=np.float64, seed=seed), seed) for seed in (1, 2))
    x = images(2, 28)
    assert not np.array_equal(first(x), second(x))
    second.load_state_dict(first.state_dict())
    np.testing.assert_array_equal(first(x), second(x))
    names = list(first.state_dict())
    assert names[0] == "stem.conv1.conv.w" and names[-2:] == ["classifier.w", "classifier.b"]
    assert "blocks.4a.double3x3.conv2.conv.w" in names and "blocks.4a.pool.project.bn.running_var" in names


def trained(threads):
    """Return the bytes of logits, input gradient and gradients of a training step."""
    model = bn_inception_small(local_response_norm=True, dropout=0.2, seed=4)
    x = images(6, 20, dtype=np.float32)
    with parallel.threads(threads):
        logits = model(x, training=True)
        dx = model.backward(np.random.default_rng(5).standard_normal(logits.shape).astype(np.float32))
    return [array.tobytes() for array in (logits, dx, *(p.grad for p in model.parameters()))]


def test_a_training_step_has_the_same_bits_on_any_number_of_threads(monkeypatch):
    monkeypatch.setattr(parallel, "PIECE_BYTES", 1 << 12)
    one = trained(1)
    for threads in (2, 8):
        assert trained(threads) == one, f"{threads} threads"


def test_settings_reach_every_layer():
    settings = {"padding": "symmetric", "bn_decay": 0.6, "bn_eps": 0.5, "dropout": 0.3, "dtype": np.float64}
    for name in ("bn_inception", "bn_inception_small"):
        model = build(name, num_classes=7, in_channels=2, **settings)
        assert {(norm.decay, norm.eps) for norm in layers(model, nn.BatchNorm)} == {(0.6, 0.5)}
        padded = layers(model, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d)
        assert {part.padding for part in padded} == {"symmetric"}
        assert {p.dtype for p in model.parameters()} == {np.dtype(np.float64)}
        assert (model.dropout.rate, model.classifier.C_out, model.stem.conv1.conv.C_in) == (0.3, 7, 2)


ROW = ("3a", 1, 8, 8, 8, 8, 8, "avg", 8)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"num_classes": 0}, "num_classes must be at least 1, got 0"),
        ({"in_channels": 0}, "in_channels must be at least 1, got 0"),
        ({"width_mult": -1}, "width_mult must be .*above 0, got -1"),
        ({"init_scale": 0}, "init_scale must be .*above 0, got 0"),
        ({"dropout": 1}, "rate must be at least 0 and below 1, got 1"),
        ({"activation": "tanh"}, "activation must be .*, got 'tanh'"),
        ({"table": [ROW[:-1]]}, r"table: every row must be \(type, s, 1x1, .*projection\), got \('3a', 1, 8"),
        ({"table": [3]}, "table: every row must be .*, got 3"),
        ({"table": [(*ROW[:3], 0, *ROW[4:])]}, "conv3x3 must be at least 1, got 0"),
        ({"table": [(*ROW[:2], -8, *ROW[3:])]}, "channels must be at least 0, got -8"),
        ({"table": [(*ROW[:7], "mean", 8)]}, "pool must be \"avg\" or \"max\", got 'mean'"),
        ({"table": [(*ROW[:2], None, *ROW[3:])]}, "channels must be an integer, got None"),
        ({"table": [(*ROW[:7], ["avg"], 8)]}, "pool must be \"avg\" or \"max\", got \\['avg'\\]"),
        ({"table": [(3, *ROW[1:])]}, "table: type must be the name of a module, .*, got 3"),
        ({"table": [("", *ROW[1:])]}, "table: type must be the name of a module, .*, got ''"),
        ({"table": [("3.a", *ROW[1:])]}, "table: type must be .*without a dot.*, got '3.a'"),
        ({"table": [ROW, ROW]}, "table: type must be .* only once, got '3a'"),
        ({"stem": (16, 16)}, r"stem must be the filters of its three convolutions, got \(16, 16\)"),
        ({"stem_pools": 3}, "stem_pools must be 1 or 2, got 3"),
    ],
)
def test_bad_settings_are_named(settings, message):
    for network in (bn_inception, bn_inception_small):
        with pytest.raises(ValueError, match=message):
            network(**settings)


def test_a_resolution_too_small_is_refused():
    with pytest.raises(ValueError, match=r"4e.*too small for the stride"):
        bn_inception().trace((16, 16, 3), lambda *layer: None)
