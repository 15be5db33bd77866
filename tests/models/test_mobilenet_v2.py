"""MobileNetV2 against section 4 of its paper, and a whole training step on any number of threads."""

import inspect
import itertools

import numpy as np
import pytest

from npnets import cost, nn, ops, parallel
from npnets.models import mobilenet_v2, mobilenet_v2_small
from npnets.models.mobilenet_v2 import mobilenet_v2_features
from npnets.optim import RMSProp
from tests.models import atrous_difference, docstring_rows, gradient_errors
from tests.nn import randomize

FILE = inspect.getmodule(mobilenet_v2)
SHORTCUTS = ["bottleneck", "expansion", "none"]

# Table 2: the input of each operator, then t, c, n, s.
TABLE_2 = [
    ((112, 112, 32), 1, 16, 1, 1),
    ((112, 112, 16), 6, 24, 2, 2),
    ((56, 56, 24), 6, 32, 3, 2),
    ((28, 28, 32), 6, 64, 4, 2),
    ((14, 14, 64), 6, 96, 3, 1),
    ((14, 14, 96), 6, 160, 3, 2),
    ((7, 7, 160), 6, 320, 1, 1),
]


def block_inputs(model, shape):
    """Return the input shape of each bottleneck, of the head, and of the pooling."""
    inputs = {}
    model.trace(shape, lambda path, layer, shape, out: inputs.setdefault(".".join(path.split(".")[:2]), shape))
    return [shape for path, shape in inputs.items() if path.startswith(("blocks.", "head.conv", "pool"))]


def test_table_2():
    expected = [shape for shape, _, _, n, _ in TABLE_2 for _ in range(n)]
    first = [sum(n for *_, n, _ in TABLE_2[:k]) for k in range(len(TABLE_2))]
    inputs = block_inputs(mobilenet_v2(), (224, 224, 3))
    assert [inputs[k] for k in first] == [expected[k] for k in first]  # the rows that the paper prints
    assert inputs[-2:] == [(7, 7, 320), (7, 7, 1280)]
    assert [row[1:] for row in TABLE_2] == FILE.TABLE


def test_the_comments_of_the_table_are_the_inputs():
    source = inspect.getsource(FILE).partition("\nTABLE = [")[2].partition("]")[0]
    assert [f"  # {H} x {W} x {C}" in source for (H, W, C), *_ in TABLE_2] == [True] * 7


def test_17_bottlenecks_10_with_a_residual():
    """The text says 19 bottlenecks; Table 2 has 17. A residual needs stride 1 and equal channels: all repeats."""
    blocks = mobilenet_v2().blocks
    assert len(blocks) == 17
    adds = [block.adds_input for block in blocks]
    assert adds == [k > 0 for *_, n, _ in TABLE_2 for k in range(n)] and sum(adds) == 10


def test_the_first_bottleneck_alone_has_no_expansion():
    names = {p.name for p in mobilenet_v2().parameters()}
    assert "blocks.0.expand.w" not in names
    assert all(f"blocks.{k}.expand.w" in names for k in range(1, 17))


def test_every_convolution_is_normalized_and_the_projections_are_linear():
    model = mobilenet_v2()
    layers = [(path, part) for path, part in model.named_modules() if isinstance(part, nn.Layer)]
    for (path, part), (_, norm) in itertools.pairwise(layers):
        if hasattr(part, "w") and path != "classifier":
            assert isinstance(norm, nn.BatchNorm) and part.b is None, path
            assert norm.activation == (None if path.endswith("project") else "relu6"), path
    assert [path for path, _ in layers[-3:]] == ["pool", "dropout", "classifier"]


def test_weight_decay_leaves_out_biases_and_batch_norm():
    decays = {p.name: p.decay for p in mobilenet_v2().parameters()}
    assert {name for name, decay in decays.items() if not decay} == {
        name for name in decays if not name.endswith(".w")
    }


@pytest.mark.parametrize(
    "width_mult, stem, first, last, head",
    [(0.35, 16, 8, 112, 1280), (0.5, 16, 8, 160, 1280), (0.75, 24, 16, 240, 1280), (1.4, 48, 24, 448, 1792)],
)
def test_the_width_multiplier_leaves_the_head_alone_below_1(width_mult, stem, first, last, head):
    """"we apply width multiplier to all layers except the very last convolutional layer"."""
    model = mobilenet_v2(width_mult=width_mult)
    assert model.stem.conv.C_out == stem
    assert model.blocks[0].project.C_out == first and model.blocks[-1].project.C_out == last
    assert model.head.conv.C_out == model.classifier.C_in == head


def test_channels_may_be_rounded_to_another_multiple_than_8():
    model = mobilenet_v2(width_mult=1.1, multiple=1)
    assert model.stem.conv.C_out == 35 and model.head.conv.C_out == 1408  # of 35.2 and 1408.0
    assert [block.project.C_out for block in model.blocks][:6] == [18, 26, 26, 35, 35, 35]  # of 17.6, 26.4, 35.2
    assert mobilenet_v2(width_mult=1.1, multiple=4).blocks[1].project.C_out == 28


def test_the_table_in_the_docstring():
    rows = docstring_rows(FILE)
    assert [(width, pixels) for width, pixels, _, _ in rows] == [
        (1.4, 224), (1.0, 224), (0.75, 224), (0.5, 224), (0.35, 224), (1.0, 96)
    ]  # fmt: skip
    for width, pixels, params, macs in rows:
        total = cost.profile(mobilenet_v2(width_mult=width), (pixels, pixels, 3))
        assert (total.params, total.macs) == (params, macs)


def test_depth_repeats_the_rows_of_the_table():
    model = mobilenet_v2(depth_mult=1.5)
    expected = [c for _, c, n, _ in FILE.TABLE for _ in range(-(-3 * n // 2))]  # 1, 2, 3, 4 become 2, 3, 5, 6
    assert [block.project.C_out for block in model.blocks] == expected
    strides = [block.depthwise.stride[0] for block in model.blocks]
    assert strides.count(2) == 4 and cost.profile(model, (224, 224, 3)).rows[-1].name == "classifier"
    assert block_inputs(model, (224, 224, 3))[-1] == (7, 7, 1280)
    assert len(mobilenet_v2(depth_mult=0.1).blocks) == 7


def test_features_are_the_network_up_to_its_pooling():
    whole = mobilenet_v2(width_mult=0.25, seed=3)
    x = small_images(2, 32).astype(np.float32)
    for with_head, last in [(True, whole.head), (False, whole.blocks[-1])]:
        features = mobilenet_v2_features(width_mult=0.25, seed=3, with_head=with_head)
        seen = []
        last.observers.append(seen.append)
        whole(x)
        assert np.array_equal(features(x), seen[0])
        left_out = ("classifier",) if with_head else ("head", "classifier")
        names = [name for name in whole.state_dict() if not name.startswith(left_out)]
        assert list(features.state_dict()) == names


@pytest.mark.parametrize("output_stride, pixels, rates", [
    (None, 7, {}),
    (32, 7, {}),
    (16, 14, {14: 2, 15: 2, 16: 2}),
    (8, 28, {**dict.fromkeys(range(7, 14), 2), 14: 4, 15: 4, 16: 4}),
])  # fmt: skip
def test_output_stride(output_stride, pixels, rates):
    model = mobilenet_v2(output_stride=output_stride)
    assert block_inputs(model, (224, 224, 3))[-1] == (pixels, pixels, 1280)
    found = {k: block.depthwise.dilation[0] for k, block in enumerate(model.blocks)}
    assert found == {k: rates.get(k, 1) for k in range(17)}
    assert [block.adds_input for block in model.blocks] == [block.adds_input for block in mobilenet_v2().blocks]


@pytest.mark.parametrize("output_stride", [16, 8])
@pytest.mark.parametrize("padding, H, W", [("symmetric", 64, 64), ("symmetric", 37, 50), ("same", 65, 33)])
def test_atrous_convolution_finds_the_same_features_more_densely(padding, H, W, output_stride):
    """Where a stride is left out, the dilated windows after it see the pixels that they would have seen."""
    settings = {"width_mult": 0.35, "padding": padding, "dtype": np.float64}
    strided = randomize(mobilenet_v2_features(**settings))
    atrous = mobilenet_v2_features(**settings, output_stride=output_stride)
    x = np.random.default_rng(0).standard_normal((1, H, W, 3))
    assert atrous_difference(strided, atrous, x, 32 // output_stride) < 1e-12


def test_same_padding_shifts_the_features_of_an_even_image():
    """Its windows are centred at the second pixel, not the first, where the image is halved: hence DeepLab's 513."""
    settings = {"width_mult": 0.35, "dtype": np.float64}
    strided, atrous = randomize(mobilenet_v2_features(**settings)), mobilenet_v2_features(**settings, output_stride=16)
    x = np.random.default_rng(0).standard_normal((1, 64, 64, 3))
    assert atrous_difference(strided, atrous, x, 2) > 0.1


def test_gradients_with_an_output_stride():
    model = randomize(mobilenet_v2(4, width_mult=0.1, dtype=np.float64, output_stride=8, head=32))
    errors = gradient_errors(model, small_images(4, 33), training=True, directions=3)
    assert np.median(errors) < 1e-6, errors


def test_names():
    names = list(mobilenet_v2_small().state_dict())
    norm = ["gamma", "beta", "running_mean", "running_var"]
    for block, parts in [(0, ["depthwise", "project"]), (1, ["expand", "depthwise", "project"])]:
        expected = [
            f"blocks.{block}.{name}"
            for part in parts
            for name in (f"{part}.w", *(f"{part}_bn.{array}" for array in norm))
        ]
        assert [name for name in names if name.startswith(f"blocks.{block}.")] == expected
    assert names[0] == "stem.conv.w" and names[-2:] == ["classifier.w", "classifier.b"]
    assert "blocks.3.depthwise.w" in names


@pytest.mark.parametrize("bottleneck", ["linear", "relu6"])
def test_the_ablations_of_figure_5_have_equal_sizes(bottleneck):
    models = [mobilenet_v2_small(bottleneck=bottleneck, shortcut=shortcut) for shortcut in SHORTCUTS]
    totals = [cost.profile(model, (28, 28, 3)) for model in models]
    assert len({(total.params, total.macs) for total in totals}) == 1
    sizes = [[parameter.size for parameter in model.parameters()] for model in models]
    assert sizes[0] == sizes[1] == sizes[2]
    shortcuts = [
        sum(type(part) is nn.Residual or getattr(part, "adds_input", False) for _, part in model.named_modules())
        for model in models
    ]
    assert shortcuts == [4, 4, 0]  # three repeats, and the first bottleneck: 16 channels to 16


def test_relu_takes_the_place_of_relu6_everywhere():
    found = {}
    for activation in ("relu6", "relu"):
        model = mobilenet_v2_small(activation=activation, bottleneck="relu6")
        norms = {path: part for path, part in model.named_modules() if isinstance(part, nn.BatchNorm)}
        found[activation] = {path: norm.activation for path, norm in norms.items()}
    assert set(found["relu6"].values()) == {"relu6"}
    for path, name in found["relu"].items():  # the bottleneck has the one that is asked for there
        assert name == ("relu6" if path.endswith("project_bn") else "relu"), path


def test_the_small_network_halves_three_times():
    for pixels, sizes in [(28, [14, 7, 4]), (32, [16, 8, 4])]:
        inputs = block_inputs(mobilenet_v2_small(), (pixels, pixels, 3))
        assert list(dict.fromkeys(H for H, _, _ in inputs)) == sizes
        assert inputs[-2:] == [(4, 4, 64), (4, 4, 256)]


def small_images(N, pixels, seed=1):
    return np.random.default_rng(seed).standard_normal((N, pixels, pixels, 3))


@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize("bottleneck", ["linear", "relu6"])
@pytest.mark.parametrize("shortcut", SHORTCUTS)
def test_gradients_of_the_small_network(shortcut, bottleneck, training):
    settings = {"shortcut": shortcut, "bottleneck": bottleneck, "dropout": 0.2}
    model = randomize(mobilenet_v2_small(dtype=np.float64, width_mult=0.5, **settings))
    errors = gradient_errors(model, small_images(3, 12), training=training)
    assert np.median(errors) < 1e-6, errors


def test_gradients_of_each_parameter_by_itself():
    """Among all the others, a wrong gradient of a few numbers could drown."""
    model = randomize(mobilenet_v2_small(dtype=np.float64, width_mult=0.5, head=32))
    x = small_images(3, 9)
    for parameter in model.parameters():
        if not parameter.name.endswith("project_bn.beta"):
            errors = gradient_errors(model, x, training=True, directions=3, h=1e-7, names={parameter.name})
            assert np.median(errors) < 1e-6, (parameter.name, errors)


def test_the_shift_of_a_linear_bottleneck_has_no_gradient_in_training():
    """What beta adds to a bottleneck passes a linear 1x1 convolution and is taken away by its batch norm's mean.

    So these betas never move, and differences of the loss along them are rounding errors. With a ReLU6 on the
    bottleneck they count.
    """
    for bottleneck in ("linear", "relu6"):
        model = randomize(mobilenet_v2_small(dtype=np.float64, width_mult=0.5, bottleneck=bottleneck))
        y = model(small_images(3, 9), training=True)
        model.backward(np.random.default_rng(2).standard_normal(y.shape))
        for block in model.blocks:
            negligible = 1e-9 * np.abs(block.project_bn.gamma.grad).max()
            assert (np.abs(block.project_bn.beta.grad).max() < negligible) == (bottleneck == "linear")


@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize("padding", ["same", "symmetric"])
def test_gradients_of_the_full_network(padding, training):
    model = randomize(mobilenet_v2(10, width_mult=0.25, dtype=np.float64, padding=padding))
    errors = gradient_errors(model, small_images(6, 32), training=training)
    assert np.median(errors) < 1e-6, errors


def test_settings_reach_every_layer():
    model = mobilenet_v2(7, 2, 0.5, dropout=0.4, padding="symmetric", bn_decay=0.6, bn_eps=0.5, dtype=np.float64)
    parts = [part for _, part in model.named_modules()]
    norms = [part for part in parts if isinstance(part, nn.BatchNorm)]
    assert len(norms) == 52 and {(part.decay, part.eps) for part in norms} == {(0.6, 0.5)}
    assert {part.padding for part in parts if hasattr(part, "padding")} == {"symmetric"}
    assert (model.dropout.rate, model.classifier.C_out, model.stem.conv.C_in) == (0.4, 7, 2)
    assert {p.dtype for p in model.parameters()} == {np.dtype(np.float64)}


def test_a_table_of_ones_own():
    """The network of the benchmark: 32 x 32 pixels, stem stride 1, the second stage at stride 1."""
    table = [(1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    model = mobilenet_v2(10, width_mult=0.5, table=table, stem_stride=1, head=640)
    inputs = block_inputs(model, (32, 32, 3))
    assert (inputs[0], inputs[-1]) == ((32, 32, 16), (4, 4, 640))


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"width_mult": 0}, "width_mult must be .*above 0, got 0"),
        ({"width_mult": np.inf}, "width_mult must be .*, got inf"),
        ({"width_mult": "1"}, "width_mult must be .*, got '1'"),
        ({"num_classes": 10.0}, "num_classes must be an integer, got 10.0"),
        ({"in_channels": -3}, "in_channels must be at least 1, got -3"),
        ({"bottleneck": "relu"}, 'bottleneck must be "linear" or "relu6"'),
        ({"activation": "tanh"}, 'activation must be "relu6" or "relu"'),
        ({"shortcut": "residual"}, 'shortcut must be "bottleneck", "expansion" or "none"'),
        ({"table": [(6, 16, 1)]}, r"table.* \(t, c, n, s\).*got \(6, 16, 1\)"),
        ({"table": [(0, 16, 1, 1)]}, r"\bt must be at least 1, got 0"),
        ({"table": [(6, 0, 1, 1)]}, "c must be at least 1, got 0"),
        ({"table": [(6, 16, 0, 1)]}, "n must be at least 1, got 0"),
        ({"head": 0}, "head must be at least 1, got 0"),
        ({"stem": 0}, "stem must be at least 1, got 0"),
        ({"num_classes": 0}, "num_classes must be at least 1, got 0"),
        ({"width_mult": -0.35}, "width_mult must be .*above 0, got -0.35"),
        ({"depth_mult": "2"}, "depth_mult must be .*, got '2'"),
        ({"output_stride": 12}, r"output_stride must be 8, 16 or 32 \(or None, to keep all strides\), got 12"),
        ({"stem_stride": 0}, "stem_stride must be at least 1, got 0"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        mobilenet_v2(**settings)


# A whole training step


def trained(threads, steps=2):
    """Return the bytes of logits, input gradient, weights and statistics after some steps."""
    rng = np.random.default_rng(9)
    model = mobilenet_v2_small(width_mult=0.5, dropout=0.2, head=40, seed=4)
    optimizer = RMSProp(model.parameters(), 0.01, weight_decay=1e-4)
    results = []
    with parallel.threads(threads):
        for _ in range(steps):
            x = rng.standard_normal((6, 14, 14, 3), np.float32)
            logits = model(x, training=True)
            _, cache = ops.softmax_cross_entropy_forward(logits, rng.integers(0, 10, 6))
            dx = model.backward(ops.softmax_cross_entropy_backward(1.0, cache))
            optimizer.step()
            results += [logits, dx, *(p.grad for p in model.parameters())]
    results += [*model.state_dict().values(), *optimizer.state_dict().values(), model(x)]
    return [array.tobytes() for array in results]


def test_a_training_step_has_the_same_bits_on_any_number_of_threads(monkeypatch):
    monkeypatch.setattr(parallel, "PIECE_BYTES", 1 << 12)
    one = trained(1)
    for threads in (2, 8):
        assert trained(threads) == one, f"{threads} threads"


def test_training_steps_lower_the_loss():
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((16, 8, 8, 3), np.float32), rng.integers(0, 10, 16)
    model = mobilenet_v2_small(width_mult=0.5, seed=1)
    optimizer = RMSProp(model.parameters(), 0.01)
    losses = []
    for _ in range(12):
        loss, cache = ops.softmax_cross_entropy_forward(model(x, training=True), labels)
        model.backward(ops.softmax_cross_entropy_backward(1.0, cache))
        optimizer.step()
        losses.append(loss)
    assert losses[0] == pytest.approx(np.log(10), abs=0.1)  # a new classifier is undecided
    assert losses[-1] < 0.5 * losses[0]
