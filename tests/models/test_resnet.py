"""ResNet against Table 1 of its paper, and in the arrangements that EfficientNet and DeepLab count."""

import inspect
import itertools

import numpy as np
import pytest

from npnets import cost, nn
from npnets.models import build, resnet50, resnet101, resnet152
from npnets.models.resnet import TABLE, resnet, resnet_features
from npnets.shapes import round_channels
from tests.models import docstring_rows, gradient_errors
from tests.nn import randomize

FILE = inspect.getmodule(resnet)
MODELS = {50: resnet50, 101: resnet101, 152: resnet152}
DEEPLAB = {"stride_in": "last", "stem": "3x3", "multi_grid": (1, 2, 4)}


def blocks_of(model):
    """Return the list of blocks in each stage."""
    return [[block.residual for _, block in stage.children()] for stage in model.stages]


def maps(model, shape):
    """Return the output of the stem, the max pooling, and of each block, for one image."""
    outputs = {}
    model.trace(shape, lambda path, layer, shape, out: outputs.__setitem__(path, out))
    ends = [path for path in outputs if path == "pool" or path.endswith(".act")]
    stem = [path for path in outputs if path.startswith("stem")][-1]
    return [outputs[path] for path in (stem, *ends)]


@pytest.mark.parametrize("layers, repeats", [(50, (3, 4, 6, 3)), (101, (3, 4, 23, 3)), (152, (3, 8, 36, 3))])
def test_table_1(layers, repeats):
    model = MODELS[layers]()
    assert TABLE[layers] == repeats
    found = maps(model, (224, 224, 3))
    assert found[:2] == [(112, 112, 64), (56, 56, 64)]
    stages = [(56, 56, 256), (28, 28, 512), (14, 14, 1024), (7, 7, 2048)]
    assert found[2:] == [shape for shape, n in zip(stages, repeats) for _ in range(n)]
    for stage, n, C in zip(blocks_of(model), repeats, (64, 128, 256, 512)):
        assert [(block.reduce.C_out, block.conv.C_out, block.restore.C_out) for block in stage] == [(C, C, 4 * C)] * n
    weighted = sum(hasattr(part, "w") for path, part in model.named_modules() if "shortcut" not in path)
    assert weighted == layers  # "layers" are convolutions and the classifier, projections apart


def test_the_table_in_the_docstring():
    rows = docstring_rows(FILE)
    assert [(layers, pixels) for layers, pixels, _, _ in rows] == [(50, 224), (101, 224), (152, 224)]
    for layers, pixels, params, macs in rows:
        total = cost.profile(MODELS[layers](), (pixels, pixels, 3))
        assert (total.params, total.macs) == (params, macs)


@pytest.mark.parametrize(
    "layers, stride_in, macs",
    [(50, "3x3", 4_089_184_256), (50, "1x1", 3_857_973_248), (50, "last", 3_482_255_360), (152, "1x1", 11_282_415_616)],
)
def test_golden_multiply_adds(layers, stride_in, macs):
    """EfficientNet's 4.1B for 50 layers is the first, its 11.3B for 152 the last of these."""
    total = cost.profile(MODELS[layers](stride_in=stride_in), (224, 224, 3))
    assert total.macs == macs
    assert total.params == cost.profile(MODELS[layers](), (224, 224, 3)).params


@pytest.mark.parametrize(
    "settings, pixels, billions", [({"depth_mult": 4}, 224, 14.6), ({"width_mult": 2}, 224, 16.1), ({}, 448, 16.4)]
)
def test_scaling_of_efficientnet(settings, pixels, billions):
    """Its table prints 16.2 for the first and 14.7 for the second: they look swapped."""
    assert round(cost.profile(resnet50(**settings), (pixels, pixels, 3)).macs / 1e9, 1) == billions


def test_width_and_depth_multipliers():
    model = resnet50(width_mult=0.6, depth_mult=1.4)
    assert [len(stage) for stage in blocks_of(model)] == [5, 6, 9, 5]  # ceil(1.4 n)
    widths = [stage[0].conv.C_out for stage in blocks_of(model)]
    assert widths == [round_channels(0.6 * C) for C in (64, 128, 256, 512)] == [40, 80, 152, 304]
    assert model.stem.trace((8, 8, 3), lambda *layer: None) == (4, 4, 40)
    assert model.classifier.C_in == 4 * 304


@pytest.mark.parametrize(
    "stride_in, first, last", [("3x3", [1, 2, 2, 2], [1, 1, 1, 1]), ("last", [1, 1, 1, 1], [2, 2, 2, 1])]
)
def test_where_the_strides_sit(stride_in, first, last):
    stages = blocks_of(resnet50(stride_in=stride_in))
    assert [stage[0].conv.stride for stage in stages] == [(s, s) for s in first]
    assert [stage[-1].conv.stride for stage in stages] == [(s, s) for s in last]
    assert all(block.conv.stride == (1, 1) for stage in stages for block in stage[1:-1])
    assert all(isinstance(block.reduce, nn.PointwiseConv2d) for stage in stages for block in stage)


def test_stride_in_the_first_1x1_is_that_of_the_paper():
    for stage, s in zip(blocks_of(resnet50(stride_in="1x1")), (1, 2, 2, 2)):
        assert getattr(stage[0].reduce, "stride", (1, 1)) == (s, s)
        assert stage[0].conv.stride == (1, 1)


def test_projections_only_where_the_channels_change():
    for stride_in, subsampled in (("3x3", 0), ("last", 3)):
        stages = blocks_of(resnet50(stride_in=stride_in))
        kinds = [type(block.shortcut) for stage in stages for block in stage]
        assert kinds.count(nn.ConvBNAct) == 4 and kinds.count(nn.MaxPool2d) == subsampled
        assert all(isinstance(stage[0].shortcut, nn.ConvBNAct) for stage in stages)


def test_the_stem_of_three_convolutions():
    model = resnet101(stem="3x3")
    convolutions = [part for _, part in model.stem.named_modules() if isinstance(part, nn.Conv2d)]
    assert [(conv.C_in, conv.C_out, conv.kernel, conv.stride) for conv in convolutions] == [
        (3, 64, (3, 3), (2, 2)),
        (64, 64, (3, 3), (1, 1)),
        (64, 128, (3, 3), (1, 1)),
    ]
    assert maps(model, (224, 224, 3))[:3] == [(112, 112, 128), (56, 56, 128), (56, 56, 256)]


@pytest.mark.parametrize("stride_in", ["3x3", "1x1", "last"])
@pytest.mark.parametrize(
    "output_stride, sizes, rates",
    [(None, (129, 65, 33, 17), (1, 1, 1)), (16, (129, 65, 33, 33), (1, 1, 2)), (8, (129, 65, 65, 65), (1, 2, 4))],
)
def test_output_stride(output_stride, sizes, rates, stride_in):
    """513 pixels: the map stops shrinking, and what comes after looks twice as far apart."""
    model = resnet101(output_stride=output_stride, stride_in=stride_in)
    ends = np.cumsum(TABLE[101]) + 1
    found = maps(model, (513, 513, 3))
    if stride_in == "last":  # a stage ends with the stride for the next one
        ends = ends - 1
    assert [found[k][0] for k in ends] == list(sizes)
    assert [stage[-1].conv.dilation[0] for stage in blocks_of(model)[1:]] == list(rates)
    assert found[-1] == (sizes[-1], sizes[-1], 2048)


@pytest.mark.parametrize("output_stride, rates", [(None, (1, 2, 4)), (16, (2, 4, 8)), (8, (4, 8, 16))])
def test_multi_grid_multiplies_the_rates_of_the_last_stage(output_stride, rates):
    stages = blocks_of(resnet101(output_stride=output_stride, **DEEPLAB))
    assert [block.conv.dilation for block in stages[-1]] == [(rate, rate) for rate in rates]
    others = {block.conv.dilation for stage in stages[:-1] for block in stage}
    assert others <= {(1, 1), (2, 2)} and ((2, 2) in others) == (output_stride == 8)


def test_every_convolution_is_normalized():
    layers = [(path, part) for path, part in resnet50().named_modules() if isinstance(part, nn.Layer)]
    norms = 0
    for (path, part), (_, norm) in itertools.pairwise(layers):
        if hasattr(part, "w") and path != "classifier":
            norms += 1
            linear = "restore" in path or "shortcut" in path
            assert isinstance(norm, nn.BatchNorm) and part.b is None, path
            assert norm.activation == (None if linear else "relu"), path
    assert norms == 53


def test_features_are_the_network_without_its_head():
    settings = {"width_mult": 0.125, "output_stride": 16, "seed": 5, **DEEPLAB}
    whole, features = resnet(TABLE[50], 10, **settings), resnet_features(TABLE[50], **settings)
    assert [name for name, _ in features.children()] == ["stem", "pool", *(f"stages.{k}" for k in range(4))]
    x = np.random.default_rng(0).standard_normal((1, 33, 33, 3), np.float32)
    y = features(x)
    assert y.shape == (1, 3, 3, 256)
    np.testing.assert_array_equal(whole.classifier(y.mean(axis=(1, 2))), whole(x))


SMALL = {"num_classes": 5, "width_mult": 0.125, "dtype": np.float64}


@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize(
    "settings",
    [
        {"padding": "symmetric"},
        {"stride_in": "1x1", "dropout": 0.3},
        {"stride_in": "last", "stem": "3x3", "multi_grid": (1, 2), "output_stride": 16},
    ],
    ids=["3x3", "1x1", "last"],
)
def test_gradients(settings, training):
    model = randomize(resnet((1, 1, 2, 2), **settings, **SMALL))
    x = np.random.default_rng(1).standard_normal((6, 48, 40, 3))
    errors = gradient_errors(model, x, training=training)
    assert np.median(errors) < 1e-6, errors


def test_state_round_trip():
    first, second = (randomize(resnet((1, 2, 1, 1), seed=seed, **SMALL), seed) for seed in (1, 2))
    x = np.random.default_rng(0).standard_normal((2, 32, 32, 3))
    assert not np.array_equal(first(x), second(x))
    second.load_state_dict(first.state_dict())
    np.testing.assert_array_equal(first(x), second(x))
    names = list(first.state_dict())
    assert names[0] == "stem.0.conv.w" and names[-2:] == ["classifier.w", "classifier.b"]
    assert "stages.1.1.residual.conv.w" in names and "stages.1.0.residual.shortcut.conv.w" in names


def test_settings_reach_every_layer():
    model = build("resnet50", num_classes=7, in_channels=2, padding="symmetric", bn_decay=0.6, bn_eps=0.5, dropout=0.4)
    parts = [part for _, part in model.named_modules()]
    norms = [part for part in parts if isinstance(part, nn.BatchNorm)]
    assert len(norms) == 53 and {(norm.decay, norm.eps) for norm in norms} == {(0.6, 0.5)}
    assert {part.padding for part in parts if hasattr(part, "padding")} == {"symmetric"}
    assert (model.dropout.rate, model.classifier.C_out) == (0.4, 7)
    assert model.trace((64, 64, 2), lambda *layer: None) == (7,)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"stride_in": "2x2"}, 'stride_in must be "3x3", "1x1" or "last", got \'2x2\''),
        ({"stem": "5x5"}, 'stem must be "7x7" or "3x3", got \'5x5\''),
        ({"output_stride": 12}, "output_stride must be 8, 16 or 32 .*got 12"),
        ({"num_classes": 0}, "num_classes must be at least 1, got 0"),
        ({"in_channels": 0}, "in_channels must be at least 1, got 0"),
        ({"width_mult": 0}, "width_mult must be .*above 0, got 0"),
        ({"depth_mult": -1}, "depth_mult must be .*above 0, got -1"),
        ({"multi_grid": (1, 2)}, r"multi_grid must have a rate for each of the 3 blocks .*got \(1, 2\)"),
        ({"multi_grid": (1, 0, 4)}, "multi_grid must be at least 1, got 0"),
        ({"dropout": 1}, "rate must be at least 0 and below 1, got 1"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        resnet50(**settings)


@pytest.mark.parametrize("repeats", [50, (3, 4, 6), (3, 4, 0, 3)])
def test_bad_repeats_are_named(repeats):
    with pytest.raises(ValueError, match="repeats must be"):
        resnet(repeats)


def test_a_resolution_too_small_is_refused():
    with pytest.raises(ValueError, match=r"stages.1.*too small for the stride"):
        resnet50().trace((4, 4, 3), lambda *layer: None)
