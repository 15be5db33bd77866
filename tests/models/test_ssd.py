"""SSD and SSDLite against section 6.2 of MobileNetV2's paper."""

import inspect
import re

import numpy as np
import pytest

from npnets import cost, models, nn
from npnets.models import mobilenet_v1, mobilenet_v2, ssd, ssdlite
from npnets.profiling import profile_step
from tests.models import gradient_errors
from tests.nn import randomize
from tests.oracles import assert_close

FILE = inspect.getmodule(ssd)
BACKBONES = ["mobilenet_v1", "mobilenet_v2"]
MAPS = {
    "mobilenet_v1": [(20, 20, 512), (10, 10, 1024)],
    "mobilenet_v2": [(20, 20, 576), (10, 10, 1280)],
}
EXTRAS = [(5, 5, 512), (3, 3, 256), (2, 2, 256), (1, 1, 128)]


def head_of(model, pixels=320):
    return cost.profile(model, (pixels, pixels, 3)).part("head")


def reduced(make=ssdlite, **settings):
    """A detector with three maps for images of 33 pixels or more."""
    common = {"num_classes": 3, "width_mult": 0.25, "extras": (32,), "dtype": np.float64}
    return randomize(make(**common | settings))


def images(N, pixels, channels=3, dtype=np.float64):
    return np.random.default_rng(1).standard_normal((N, pixels, pixels, channels)).astype(dtype)


# The tables


def test_the_tables_in_the_docstring():
    rows = re.findall(r"^(\w+), (\w+) @ 320 +([\d,]+) +([\d,]+)$", FILE.__doc__, re.MULTILINE)
    assert len(rows) == 6
    for name, what, *counts in rows:
        model = models.build(name, backbone="mobilenet_v2" if what == "head" else what)
        total = head_of(model) if what == "head" else cost.profile(model, (320, 320, 3))
        assert [f"{total.params:,}", f"{total.macs:,}"] == counts, (name, what)


def test_table_4_the_heads():
    """SSD 14.8M and 1.25B, the latter cut off; SSDLite 2.1M and 0.35B, which is twice the multiply-adds."""
    lite, full = head_of(ssdlite()), head_of(ssd())
    assert (lite.params_without_bn, lite.macs) == (2_096_501, 177_617_344)
    assert f"{2 * lite.macs / 1e9:.2f}" == "0.36"
    assert f"{full.params / 1e6:.1f}" == "14.8" and int(full.macs / 1e7) == 125


def test_table_5_the_detectors():
    for backbone, params, macs in [("mobilenet_v1", "5.1", "1.3"), ("mobilenet_v2", "4.3", "0.8")]:
        total = cost.profile(ssdlite(backbone=backbone), (320, 320, 3))
        assert (f"{total.params / 1e6:.1f}", f"{total.macs / 1e9:.1f}") == (params, macs)
        assert total.params == total.part("backbone").params + total.part("head").params


# The maps and the head


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("make", [ssd, ssdlite])
def test_six_maps(make, backbone):
    model = make(backbone=backbone)
    assert model.maps((320, 320)) == MAPS[backbone] + EXTRAS
    assert [predictor.anchors for predictor in model.head.predictors] == [3, 6, 6, 6, 6, 6]
    assert model.trace((320, 320, 3), lambda *layer: None) == (2034, 4 + 81) == (len(model.default_boxes(320)), 85)


def test_the_first_map_of_v2_is_the_expansion_of_the_block_that_halves_it():
    """After its batch norm and ReLU6, before its depthwise convolution; the other layers belong to the next segment."""
    first, second, *_ = ssdlite().segments()
    assert [path for path, _ in first[-2:]] == ["backbone.blocks.13.expand", "backbone.blocks.13.expand_bn"]
    assert first[-1][1].activation == "relu6"
    assert second[0][0] == "backbone.blocks.13.depthwise" and second[0][1].stride == (2, 2)
    assert second[-1][0] == "backbone.head"


def test_the_first_map_of_v1_is_its_11th_pointwise_convolution():
    first, second, *_ = ssdlite(backbone="mobilenet_v1").segments()
    assert [path for path, _ in first] == ["backbone.stem", *(f"backbone.blocks.{k}" for k in range(11))]
    assert [path for path, _ in second] == ["backbone.blocks.11", "backbone.blocks.12"]


def rows_of_layers(model):
    """Return path -> (kind, output shape) of the head's convolutions."""
    return {row.name: (row.kind, row.output_shape) for row in head_of(model).rows if row.macs}


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_layer_of_ssdlite(backbone):
    maps = MAPS[backbone] + EXTRAS
    expected = {}
    for k, (before, (H, W, C)) in enumerate(zip(maps[1:], EXTRAS)):
        expected[f"head.extras.{k}.reduce.conv"] = "pointwise", (*before[:2], C // 2)
        expected[f"head.extras.{k}.halve.depthwise"] = "depthwise", (H, W, C // 2)
        expected[f"head.extras.{k}.halve.pointwise"] = "pointwise", (H, W, C)
    for k, (H, W, C) in enumerate(maps):
        for branch, numbers in (("box", 4), ("score", 81)):
            expected[f"head.predictors.{k}.{branch}.depthwise"] = "depthwise", (H, W, C)
            project = f"head.predictors.{k}.{branch}.project"
            expected[project] = "pointwise", (H, W, (3 if k == 0 else 6) * numbers)
    assert rows_of_layers(ssdlite(backbone=backbone)) == expected


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_layer_of_ssd(backbone):
    maps = MAPS[backbone] + EXTRAS
    expected = {}
    for k, (before, (H, W, C)) in enumerate(zip(maps[1:], EXTRAS)):
        expected[f"head.extras.{k}.reduce.conv"] = "pointwise", (*before[:2], C // 2)
        expected[f"head.extras.{k}.halve.conv"] = "conv", (H, W, C)
    for k, (H, W, _) in enumerate(maps):
        anchors = 3 if k == 0 else 6
        for branch, numbers in (("box", 4), ("score", 81)):
            expected[f"head.predictors.{k}.{branch}.conv"] = "conv", (H, W, anchors * numbers)
    assert rows_of_layers(ssd(backbone=backbone)) == expected


@pytest.mark.parametrize("make", [ssd, ssdlite])
def test_biases_where_a_prediction_comes_out_and_batch_norm_with_relu6_everywhere_else(make):
    head = make().head
    layers = [(path, part) for path, part in head.named_modules() if isinstance(part, nn.Layer)]
    for (path, part), (_, following) in zip(layers, [*layers[1:], ("", None)]):
        if hasattr(part, "w"):
            predicts = path.startswith("predictors") and path.endswith(("project", "conv"))
            assert (part.b is not None) == predicts, path
            if not predicts:
                assert isinstance(following, nn.BatchNorm) and following.activation == "relu6", path


@pytest.mark.parametrize("backbone, classifier", [("mobilenet_v1", mobilenet_v1), ("mobilenet_v2", mobilenet_v2)])
def test_the_backbone_is_the_classifier_without_its_end(backbone, classifier):
    """The same names, and for the same seed the same weights: those of a trained classifier can be taken over."""
    model, whole = ssdlite(backbone=backbone, width_mult=0.25, seed=3), classifier(width_mult=0.25, seed=3)
    own = {name: array for name, array in whole.state_dict().items() if not name.startswith("classifier")}
    state = model.backbone.state_dict()
    assert list(state) == list(own) and all(np.array_equal(state[name], own[name]) for name in own)
    assert {name.partition(".")[0] for name in model.state_dict()} == {"backbone", "head"}


def test_the_width_multiplier_thins_the_extra_maps_too():
    assert ssdlite(width_mult=0.5).maps((320, 320))[2:] == [(H, W, C // 2) for H, W, C in EXTRAS]
    assert ssdlite(width_mult=0.35).maps((320, 320))[-1] == (1, 1, 44)  # int(0.35 * 128)


# Running it


def test_an_image_of_320_pixels():
    model = ssdlite(width_mult=0.1)
    y = model(images(1, 320, dtype=np.float32))
    assert y.shape == (1, 2034, 85) and y.dtype == np.float32 and np.all(np.isfinite(y))
    code, scores = model.split(y)
    assert code.shape == (1, 2034, 4) and scores.shape == (1, 2034, 81)


@pytest.mark.parametrize("name", ["ssd", "ssdlite"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_common_settings(name, backbone):
    common = {"num_classes": 5, "in_channels": 2, "dropout": 0.1, "bn_decay": 0.5, "bn_eps": 0.01, "seed": 3}
    settings = {"width_mult": 0.25, "padding": "symmetric", "dtype": np.float64, "extras": (32,), "backbone": backbone}
    model = models.build(name, **common, **settings)
    x = images(2, 48, 2)
    y = model(x, training=True)
    assert y.shape == (2, 3 * 9 + 6 * 4 + 6 * 1, 9) and y.dtype == np.float64
    assert model.backward(y).shape == x.shape
    assert model.trace((48, 48, 2), lambda *layer: None) == y.shape[1:]
    parts = [part for _, part in model.named_modules()]
    assert {(part.decay, part.eps) for part in parts if isinstance(part, nn.BatchNorm)} == {(0.5, 0.01)}
    assert {part.padding for part in parts if hasattr(part, "padding")} == {"symmetric"}
    assert {part.rate for part in parts if isinstance(part, nn.Dropout)} == {0.1}
    assert {p.dtype for p in model.parameters()} == {np.dtype(np.float64)}
    other = models.build(name, **common | {"seed": 4}, **settings).state_dict()
    state = models.build(name, **common, **settings).state_dict()
    weights = [key for key in state if key.endswith(".w")]
    assert not any(np.any(state[key] == other[key]) for key in weights)


@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize("make, backbone", [(ssd, "mobilenet_v1"), (ssdlite, "mobilenet_v2")])
def test_gradients(make, backbone, training):
    model = reduced(make, backbone=backbone, dropout=0.2)
    errors = gradient_errors(model, images(4, 33), training=training, directions=3, h=1e-8)
    assert np.median(errors) < 1e-6, errors


def test_state_round_trip():
    model, other = reduced(seed=3), reduced(seed=4)
    x = images(2, 40)
    assert not np.any(other(x) == model(x))
    other.load_state_dict(model.state_dict())
    assert np.array_equal(other(x), model(x))


@pytest.mark.parametrize("make, backbone", [(ssd, "mobilenet_v1"), (ssdlite, "mobilenet_v2")])
def test_batch_norm_is_folded(make, backbone):
    """In the block that the first map is taken from, too: it is the same map afterwards."""
    model = reduced(make, backbone=backbone)
    x = images(4, 40)
    model(x, training=True)
    folded = nn.fold_batch_norm(model)
    assert "BatchNorm" not in {type(part).__name__ for _, part in folded.named_modules()}
    assert_close("predictions", folded(x), model(x), 1e-10)
    assert cost.profile(folded, x.shape).macs == cost.profile(model, x.shape).macs


def test_a_step_is_timed_layer_by_layer():
    model = reduced(dtype=np.float32)
    rows = profile_step(model, (2, 33, 33, 3), repeats=1, warmup=0, threads=1).rows
    total = cost.profile(model, (33, 33, 3))
    assert sum(row.forward.macs for row in rows) == 2 * total.macs
    assert sum(row.params for row in rows) == total.params
    assert "head" not in [row.name for row in rows]  # it holds the parts, and does nothing itself


@pytest.mark.parametrize("backbone", BACKBONES)
def test_no_two_weights_are_drawn_alike(backbone):
    """The head has a stream of its own: the ratio of the first two numbers would be the same, whatever their scale."""
    weights = [p.value.ravel() for p in reduced(backbone=backbone).parameters() if p.name.endswith(".w")]
    assert len({w[0] / w[1] for w in weights}) == len(weights)


# Errors


def test_ssdlite_is_separable():
    for settings in ({"separable": False}, {"separable": False, "extras": ()}):
        with pytest.raises(ValueError, match="ssdlite is the network with separable=True; the other one is ssd"):
            ssdlite(**settings)
    assert repr(ssdlite(separable=True)) == repr(ssd(separable=True)) == repr(ssdlite())


def test_below_257_pixels_there_is_nothing_left_to_halve():
    assert ssdlite().maps((257, 257))[-1] == (1, 1, 128)
    for call in (lambda: cost.profile(ssdlite(), (256, 256, 3)), lambda: ssdlite(width_mult=0.1)(images(1, 256))):
        with pytest.raises(ValueError, match=r"^head.extras.3: .* 1x1 pixels .* stride 2; use a higher resolution$"):
            call()


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"num_classes": 0}, "num_classes must be at least 1, got 0"),
        ({"width_mult": 0}, "width_mult must be .*above 0, got 0"),
        ({"width_mult": -0.5}, "width_mult must be .*above 0, got -0.5"),
        ({"in_channels": 0}, "in_channels must be at least 1, got 0"),
        ({"backbone": "resnet50"}, 'backbone must be "mobilenet_v1" or "mobilenet_v2", got .resnet50.'),
        ({"extras": (512, 256, 256, 128, 128)}, "extras must be the channels of at most 4 maps"),
        ({"extras": 512}, "extras must be the channels of at most 4 maps, got 512"),
        ({"extras": (512, 0)}, "extras must be at least 1, got 0"),
        ({"padding": "SAME"}, "padding must be .* got 'SAME'"),
        ({"dropout": 1.0}, "rate must be at least 0 and below 1, got 1.0"),
    ],
)
def test_bad_settings_are_named(settings, message):
    for make in (ssd, ssdlite):
        with pytest.raises(ValueError, match=message):
            make(**settings)
