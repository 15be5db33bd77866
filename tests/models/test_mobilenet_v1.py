"""MobileNetV1 against section 3 of its paper."""

import inspect

import numpy as np
import pytest

from npnets import cost, nn
from npnets.models import mobilenet_v1, mobilenet_v1_small
from tests.models import docstring_rows, gradient_errors
from tests.nn import randomize

FILE = inspect.getmodule(mobilenet_v1)


def body_inputs(model, shape):
    """Return the input shape of each depthwise convolution, and what reaches the pooling."""
    shapes = []

    def visit(path, layer, shape, out):
        if isinstance(layer, nn.DepthwiseConv2d | nn.GlobalAvgPool):
            shapes.append(shape)

    model.trace(shape, visit)
    return shapes


def test_table_1():
    """The column "Input Size" of Table 1, for the depthwise rows; then 7 x 7 x 1024 into the average pool."""
    expected = [(112, 32), (112, 64), (56, 128), (56, 128), (28, 256), (28, 256)]
    expected += [(14, 512)] * 6 + [(7, 1024)] * 2
    assert body_inputs(mobilenet_v1(), (224, 224, 3)) == [(size, size, C) for size, C in expected]


def test_the_comments_of_the_table_are_the_inputs():
    """``(1, 64),  # 112 x 112 x 32``: the reader compares them with the paper."""
    source = inspect.getsource(FILE).partition("\nTABLE = [")[2].partition("]")[0]
    comments = [line.partition("# ")[2] for line in source.splitlines() if line.startswith("    (")]
    assert len(comments) == 13
    for comment, (H, W, C) in zip(comments, body_inputs(mobilenet_v1(), (224, 224, 3))):
        assert comment.removesuffix(", five times") in (f"{H} x {W} x {C}", "")
    assert [k for k, comment in enumerate(comments) if not comment] == [7, 8, 9, 10]


def test_28_layers():
    """Section 3.2: "Counting depthwise and pointwise convolutions as separate layers, MobileNet has 28 layers"."""
    rows = cost.profile(mobilenet_v1(), (224, 224, 3)).rows
    assert sum(row.macs > 0 for row in rows) == 28


def test_batch_norm_and_relu_after_every_layer_but_the_last():
    layers = [part for _, part in mobilenet_v1().named_modules() if isinstance(part, nn.Layer)]
    kinds = [type(part) for part in layers]
    weighted = [k for k, part in enumerate(layers) if hasattr(part, "w")]
    for k in weighted[:-1]:
        assert kinds[k + 1] is nn.BatchNorm and layers[k + 1].activation == "relu" and layers[k].b is None
    assert kinds[weighted[-1] :] == [nn.Linear] and layers[-1].b is not None
    assert kinds[-3:-1] == [nn.GlobalAvgPool, nn.Dropout]


def test_weight_decay_leaves_out_depthwise_kernels_biases_and_batch_norm():
    decays = {p.name: p.decay for p in mobilenet_v1().parameters()}
    assert {name for name, decay in decays.items() if decay} == {
        "stem.conv.w",
        *(f"blocks.{k}.pointwise.w" for k in range(13)),
        "classifier.w",
    }


def test_names():
    names = list(mobilenet_v1_small().state_dict())
    norm = ["gamma", "beta", "running_mean", "running_var"]
    assert names[:5] == ["stem.conv.w", *(f"stem.bn.{name}" for name in norm)]
    block = ["depthwise.w", *(f"depthwise_bn.{name}" for name in norm)]
    block += ["pointwise.w", *(f"pointwise_bn.{name}" for name in norm)]
    assert names[5:15] == [f"blocks.0.{name}" for name in block]
    assert names[-2:] == ["classifier.w", "classifier.b"]


@pytest.mark.parametrize("alpha, channels", [(0.75, [24, 48, 768]), (0.25, [8, 16, 256]), (0.35, [11, 22, 358])])
def test_the_width_multiplier_thins_every_layer(alpha, channels):
    model = mobilenet_v1(width_mult=alpha)
    got = [model.stem.conv.C_out, model.blocks[0].pointwise.C_out, model.blocks[-1].pointwise.C_out]
    assert got == channels and model.classifier.C_in == channels[-1]
    assert all(part.w.shape[-1] >= 8 for _, part in model.named_modules() if hasattr(part, "w"))


def test_the_table_in_the_docstring():
    rows = docstring_rows(FILE)
    assert [(alpha, pixels) for alpha, pixels, _, _ in rows] == [(1, 224), (0.75, 224), (0.5, 224), (0.25, 224)]
    for alpha, pixels, params, macs in rows:
        total = cost.profile(mobilenet_v1(width_mult=alpha), (pixels, pixels, 3))
        assert (total.params, total.macs) == (params, macs)


@pytest.mark.parametrize("pixels, sizes", [(28, [14, 7, 4]), (32, [16, 8, 4])])
def test_the_small_network_halves_three_times(pixels, sizes):
    shapes = body_inputs(mobilenet_v1_small(in_channels=1), (pixels, pixels, 1))
    assert list(dict.fromkeys(H for H, _, _ in shapes)) == sizes
    assert shapes[-1] == (4, 4, 256)


@pytest.mark.parametrize("pixels, in_channels", [(28, 1), (32, 3)])
def test_the_small_network_runs(pixels, in_channels):
    model = mobilenet_v1_small(in_channels=in_channels, width_mult=0.5)
    x = np.random.default_rng(0).standard_normal((2, pixels, pixels, in_channels), np.float32)
    logits = model(x, training=True)
    assert logits.shape == (2, 10) and logits.dtype == np.float32
    assert model.backward(logits).shape == x.shape


def small_images(N, pixels, seed=1):
    return np.random.default_rng(seed).standard_normal((N, pixels, pixels, 3))


@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize("settings", [{}, {"padding": "symmetric", "dropout": 0.3}])
def test_gradients_of_the_small_network(settings, training):
    model = randomize(mobilenet_v1_small(dtype=np.float64, width_mult=0.5, **settings))
    errors = gradient_errors(model, small_images(3, 12), training=training)
    assert np.median(errors) < 1e-6, errors


def test_gradients_of_each_parameter_by_itself():
    """Among all the others, a wrong gradient of a few numbers could drown."""
    model = randomize(mobilenet_v1_small(dtype=np.float64, width_mult=0.5))
    x = small_images(3, 9)
    for parameter in model.parameters():
        errors = gradient_errors(model, x, training=True, directions=3, h=1e-7, names={parameter.name})
        assert np.median(errors) < 1e-6, (parameter.name, errors)


@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
def test_gradients_of_the_full_network(training):
    model = randomize(mobilenet_v1(10, width_mult=0.25, dtype=np.float64))
    errors = gradient_errors(model, small_images(6, 32), training=training)
    assert np.median(errors) < 1e-6, errors


def test_settings_reach_every_layer():
    model = mobilenet_v1(7, 2, 0.25, dropout=0.4, padding="symmetric", bn_decay=0.6, bn_eps=0.5, dtype=np.float64)
    parts = [part for _, part in model.named_modules()]
    norms = [part for part in parts if isinstance(part, nn.BatchNorm)]
    assert len(norms) == 27 and {(part.decay, part.eps) for part in norms} == {(0.6, 0.5)}
    assert {part.padding for part in parts if hasattr(part, "padding")} == {"symmetric"}
    assert (model.dropout.rate, model.classifier.C_out, model.stem.conv.C_in) == (0.4, 7, 2)
    assert {p.dtype for p in model.parameters()} == {np.dtype(np.float64)}


def test_same_and_symmetric_padding_differ_by_a_shift_alone():
    """SAME pads 0 and 1 at stride 2, symmetric 1 and 1: equal shapes, other numbers."""
    x = small_images(1, 12).astype(np.float32)
    same, symmetric = (mobilenet_v1_small(padding=padding) for padding in ("same", "symmetric"))
    for model in (same, symmetric):
        assert model(x).shape == (1, 10)
    assert not np.any(same(x) == symmetric(x))


def test_the_seed_decides_the_weights():
    a, b, c = (mobilenet_v1_small(seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(np.array_equal(a[name], b[name]) for name in a)
    assert not np.any(a["classifier.w"] == c["classifier.w"])


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"width_mult": 0}, "width_mult must be .*above 0, got 0"),
        ({"width_mult": -1.0}, "width_mult must be .*above 0, got -1.0"),
        ({"width_mult": np.nan}, "width_mult must be .*, got nan"),
        ({"width_mult": np.inf}, "width_mult must be .*, got inf"),
        ({"width_mult": "0.5"}, "width_mult must be .*, got '0.5'"),
        ({"num_classes": 0}, "num_classes must be at least 1, got 0"),
        ({"in_channels": 0}, "in_channels must be at least 1, got 0"),
        ({"padding": "SAME"}, "padding must be .* got 'SAME'"),
        ({"dropout": 1.0}, "rate must be at least 0 and below 1, got 1.0"),
        ({"bn_decay": 1.0}, "decay .* got 1.0"),
        ({"table": [(1, 64, 3)]}, r"table.* \(s, c\).*got \(1, 64, 3\)"),
        ({"stem_stride": 0}, "stride must be at least 1, got 0"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        mobilenet_v1(**settings)


def test_an_image_of_other_channels_names_the_layer():
    model = mobilenet_v1_small()
    with pytest.raises(ValueError, match=r"stem: conv: conv2d: x \(2, 28, 28, 1\) has 1 channels"):
        model(np.zeros((2, 28, 28, 1), np.float32))

