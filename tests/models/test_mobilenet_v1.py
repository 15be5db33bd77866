"""MobileNetV1 against section 3 of its paper."""

import inspect
import itertools
import re

import numpy as np
import pytest

from npnets import cost, nn
from npnets.models import mobilenet_v1, mobilenet_v1_small
from npnets.models.mobilenet_v1 import deepened, mobilenet_v1_features
from tests.models import atrous_difference, docstring_rows, gradient_errors
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


def test_weight_decay_on_the_depthwise_kernels_if_it_is_asked_for():
    usual, asked = (mobilenet_v1(decay_depthwise=value).parameters() for value in (False, True))
    changed = [p.name for p, q in zip(asked, usual, strict=True) if p.decay != q.decay]
    assert changed == [f"blocks.{k}.depthwise.w" for k in range(13)]
    with pytest.raises(ValueError, match='needs depthwise kernels; convolution="standard" has none'):
        mobilenet_v1(convolution="standard", decay_depthwise=True)


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


# Its variants


@pytest.mark.parametrize("name, settings", [("shallow", {"shallow": True}), ("standard", {"convolution": "standard"})])
def test_the_variants_in_the_docstring(name, settings):
    (counts,) = re.findall(rf"^{name} @ 224 +([\d,]+) +([\d,]+)$", FILE.__doc__, re.MULTILINE)
    total = cost.profile(mobilenet_v1(**settings), (224, 224, 3))
    assert (f"{total.params:,}", f"{total.macs:,}") == counts


def test_conv_mobilenet():
    """4866M multiply-adds (without the classifier) and 29.3M parameters: one 3x3 convolution for each pair."""
    model = mobilenet_v1(convolution="standard")
    total = cost.profile(model, (224, 224, 3))
    assert (total.macs - total.part("classifier").macs) // 10**6 == 4866 and round(total.params / 1e5) == 293
    pairs = mobilenet_v1().blocks
    for pair, block in zip(pairs, model.blocks, strict=True):
        conv, norm = (part for _, part in block.chain())
        assert (conv.kernel, conv.stride, conv.C_out) == ((3, 3), pair.depthwise.stride, pair.pointwise.C_out)
        assert norm.activation == "relu" and conv.b is None and conv.w.decay


def test_shallow_mobilenet():
    """307M multiply-adds and 2.9M parameters: without the five rows of 14 x 14 x 512."""
    total = cost.profile(mobilenet_v1(shallow=True), (224, 224, 3))
    assert round(total.macs / 1e6) == 307 and round(total.params / 1e5) == 29
    repeated = [k for k, row in enumerate(FILE.TABLE) if row == (1, 512)]
    assert len(repeated) == 5
    assert [row for k, row in enumerate(FILE.TABLE) if k not in repeated] == FILE.SHALLOW_TABLE


@pytest.mark.parametrize("settings", [{"convolution": "standard"}, {"shallow": True, "output_stride": 8}])
def test_gradients_of_the_variants(settings):
    model = randomize(mobilenet_v1(4, width_mult=0.1, dtype=np.float64, **settings))
    errors = gradient_errors(model, small_images(4, 33), training=True, directions=3)
    assert np.median(errors) < 1e-6, errors


def test_depth_repeats_rows_of_equally_many_filters():
    """64 once, 128 twice, 256 twice, 512 six times, 1024 twice; strides stay where they are."""
    counts = {c: len(list(group)) for c, group in itertools.groupby(c for _, c in FILE.TABLE)}
    assert counts == {64: 1, 128: 2, 256: 2, 512: 6, 1024: 2}
    for depth, expected in [(1.4, [2, 3, 3, 9, 3]), (2, [2, 4, 4, 12, 4]), (0.5, [1, 1, 1, 3, 1])]:
        rows = deepened(FILE.TABLE, depth)
        assert [len(list(group)) for _, group in itertools.groupby(c for _, c in rows)] == expected
        assert [row for row in rows if row[0] == 2] == [row for row in FILE.TABLE if row[0] == 2]
        assert [block.pointwise.C_out for block in mobilenet_v1(depth_mult=depth).blocks] == [c for _, c in rows]
    assert deepened(FILE.TABLE, 1) == FILE.TABLE


def test_features_are_the_network_up_to_its_pooling():
    features, whole = mobilenet_v1_features(width_mult=0.25, seed=3), mobilenet_v1(width_mult=0.25, seed=3)
    x = small_images(2, 32).astype(np.float32)
    seen = []
    whole.blocks[-1].observers.append(seen.append)
    whole(x)
    assert np.array_equal(features(x), seen[0])
    names = [name for name in whole.state_dict() if not name.startswith("classifier")]
    assert list(features.state_dict()) == names


# Atrous convolution


@pytest.mark.parametrize("output_stride, pixels, rates", [
    (None, 7, {}),
    (32, 7, {}),
    (16, 14, {12: 2}),
    (8, 28, {6: 2, 7: 2, 8: 2, 9: 2, 10: 2, 11: 2, 12: 4}),
])  # fmt: skip
def test_output_stride(output_stride, pixels, rates):
    model = mobilenet_v1(output_stride=output_stride)
    assert body_inputs(model, (224, 224, 3))[-1] == (pixels, pixels, 1024)
    found = {k: block.depthwise.dilation[0] for k, block in enumerate(model.blocks)}
    assert found == {k: rates.get(k, 1) for k in range(13)}


@pytest.mark.parametrize("output_stride", [16, 8])
@pytest.mark.parametrize("padding, H, W", [("symmetric", 64, 64), ("symmetric", 37, 50), ("same", 65, 33)])
def test_atrous_convolution_finds_the_same_features_more_densely(padding, H, W, output_stride):
    """Symmetric padding puts the first window around the first pixel, whatever the stride; SAME does for odd sizes.

    So DeepLab's images are 513 pixels wide: 257, 129, 65 and 33 are odd, too.
    """
    settings = {"width_mult": 0.25, "padding": padding, "dtype": np.float64}
    strided = randomize(mobilenet_v1_features(**settings))
    atrous = mobilenet_v1_features(**settings, output_stride=output_stride)
    x = np.random.default_rng(0).standard_normal((1, H, W, 3))
    assert atrous_difference(strided, atrous, x, 32 // output_stride) < 1e-12


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


def test_a_group_of_one_keeps_its_stride_to_itself():
    """In the shallow table 512 stands alone: a repeat that halved the map again would leave 4 pixels of 224."""
    assert deepened([(2, 512)], 3) == [(2, 512), (1, 512), (1, 512)]
    model = mobilenet_v1(shallow=True, depth_mult=2)
    assert sum(block.depthwise.stride == (2, 2) for block in model.blocks) == 4


def test_shallow_has_a_table_of_its_own():
    for make, settings in ((mobilenet_v1_small, {}), (mobilenet_v1, {"table": [(1, 64)]})):
        with pytest.raises(ValueError, match="shallow=True is for SHALLOW_TABLE; it goes with no other table"):
            make(shallow=True, **settings)


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
        ({"output_stride": 12}, r"output_stride must be 8, 16 or 32 \(or None, to keep all strides\), got 12"),
        ({"output_stride": "16"}, "output_stride must be .* got '16'"),
        ({"depth_mult": 0}, "depth_mult must be .*above 0, got 0"),
        ({"convolution": "full"}, 'convolution must be "separable" or "standard", got \'full\''),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        mobilenet_v1(**settings)


def test_an_image_of_other_channels_names_the_layer():
    model = mobilenet_v1_small()
    with pytest.raises(ValueError, match=r"stem: conv: conv2d: x \(2, 28, 28, 1\) has 1 channels"):
        model(np.zeros((2, 28, 28, 1), np.float32))

