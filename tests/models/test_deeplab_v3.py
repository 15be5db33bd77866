"""DeepLabv3 against section 6.3 of MobileNetV2's paper."""

import inspect
import re

import numpy as np
import pytest

from npnets import cost, models, nn, ops
from npnets.models import deeplab_v3, mobilenet_v2
from npnets.profiling import profile_step
from tests.models import gradient_errors
from tests.nn import randomize
from tests.oracles import assert_close

FILE = inspect.getmodule(deeplab_v3)
BACKBONES = {"mobilenet_v1": 1024, "mobilenet_v2": 320, "resnet101": 2048}


def images(N, H, W=None, channels=3, dtype=np.float64):
    return np.random.default_rng(1).standard_normal((N, H, W or H, channels)).astype(dtype)


def reduced(**settings):
    common = {"num_classes": 3, "width_mult": 0.25, "head": 8, "dtype": np.float64}
    return randomize(deeplab_v3(**common | settings))


def dilations(model):
    """Return path -> dilation of every layer that has one above 1."""
    layers = {path: part for path, part in model.named_modules() if hasattr(part, "dilation")}
    assert all(part.dilation[0] == part.dilation[1] for part in layers.values())
    return {path: part.dilation[0] for path, part in layers.items() if part.dilation != (1, 1)}


# The table


def test_the_table_in_the_docstring():
    rows = re.findall(r"^(\w+)(, no ASPP)? @ 513 +([\d,]+) +([\d,]+) +([\d,]+)$", FILE.__doc__, re.MULTILINE)
    assert len(rows) == 4
    for backbone, no_aspp, params, *macs in rows:
        for output_stride, expected in zip((16, 8), macs):
            model = deeplab_v3(backbone=backbone, aspp=not no_aspp, output_stride=output_stride)
            total = cost.profile(model, (513, 513, 3))
            assert [f"{total.params:,}", f"{total.macs:,}"] == [params, expected]


def test_the_network_in_bold_face():
    """MNet V2* at output stride 16 without ASPP: 2.11M and 2.75B, "for on-device applications"."""
    total = cost.profile(deeplab_v3(aspp=False), (513, 513, 3))
    assert total.params == 2_113_557
    assert total.macs / 2.75e9 == pytest.approx(1, abs=4e-3)
    assert total.params == total.part("backbone").params + total.part("head").params


# The network


@pytest.mark.parametrize("output_stride, pixels", [(32, 17), (16, 33), (8, 65)])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_map_that_the_head_stands_on(backbone, output_stride, pixels):
    model = deeplab_v3(backbone=backbone, output_stride=output_stride)
    inputs = {}
    out = model.trace((513, 513, 3), lambda path, layer, shape, out: inputs.setdefault(path, shape))
    assert out == (513, 513, 21)
    assert inputs["head.aspp.branches.pointwise.conv"] == (pixels, pixels, BACKBONES[backbone])
    assert inputs["head.aspp.project.conv"] == (pixels, pixels, 5 * 256)
    assert inputs["head.classifier"] == (pixels, pixels, 256)


@pytest.mark.parametrize("output_stride, rates", [(32, (3, 6, 9)), (16, (6, 12, 18)), (8, (12, 24, 36))])
def test_the_rates_of_the_head_are_equally_far_in_the_image(output_stride, rates):
    found = dilations(deeplab_v3(output_stride=output_stride).head)
    assert found == {f"aspp.branches.atrous.{k}.conv": rate for k, rate in enumerate(rates)}


def test_atrous_convolution_in_the_backbones():
    """Rate 2 in V1's last depthwise, in V2's last three bottlenecks; at output stride 8 rates 2 and 4."""

    def rates(backbone, output_stride):
        return dilations(deeplab_v3(backbone=backbone, output_stride=output_stride).backbone)

    def blocks(**rates):
        return {f"blocks.{k}.depthwise": rate for k, rate in rates.items()}

    assert rates("mobilenet_v1", 32) == rates("mobilenet_v2", 32) == {}
    assert rates("mobilenet_v1", 16) == blocks(**{"12": 2})
    assert rates("mobilenet_v1", 8) == blocks(**{str(k): 2 for k in range(6, 12)}, **{"12": 4})
    assert rates("mobilenet_v2", 16) == blocks(**{str(k): 2 for k in (14, 15, 16)})
    assert rates("mobilenet_v2", 8) == blocks(**{str(k): 2 for k in range(7, 14)}, **{str(k): 4 for k in (14, 15, 16)})
    assert rates("resnet101", 16) == {f"stages.3.{k}.residual.conv": rate for k, rate in enumerate((2, 4, 8))}


def test_without_aspp_three_convolutions_are_gone():
    with_aspp, without = (nn.Sequential(head=deeplab_v3(aspp=aspp).head) for aspp in (True, False))
    names = [{p.name for p in model.parameters()} for model in (with_aspp, without)]
    assert names[1] < names[0]
    assert {name.partition("atrous.")[2][2:] for name in names[0] - names[1]} == {"conv.w", "bn.gamma", "bn.beta"}
    assert without.head.aspp.project.conv.C_in == 2 * 256


def test_batch_norm_and_relu_after_every_layer_of_the_head_but_the_last():
    layers = [(path, part) for path, part in deeplab_v3().head.named_modules() if isinstance(part, nn.Layer)]
    weighted = [k for k, (_, part) in enumerate(layers) if hasattr(part, "w")]
    for k in weighted[:-1]:
        following = layers[k + 1][1]
        assert isinstance(following, nn.BatchNorm) and following.activation == "relu" and layers[k][1].b is None
    assert [path for path, _ in layers[-2:]] == ["dropout", "classifier"] and layers[-1][1].b is not None


def test_the_backbone_of_v2_ends_with_the_last_bottleneck():
    """V2*; for the same seed its weights are those of the classifier, and so are their names."""
    model, whole = deeplab_v3(width_mult=0.25, seed=3), mobilenet_v2(width_mult=0.25, seed=3)
    own = {name: a for name, a in whole.state_dict().items() if name.startswith(("stem", "blocks"))}
    state = model.backbone.state_dict()
    assert list(state) == list(own) and all(np.array_equal(state[name], own[name]) for name in own)


def test_the_resnet_is_that_of_deeplab():
    backbone = deeplab_v3(backbone="resnet101").backbone
    convolutions = [part for _, part in backbone.stem.named_modules() if isinstance(part, nn.Conv2d)]
    assert [(part.C_out, part.kernel, part.stride) for part in convolutions] == [
        (64, (3, 3), (2, 2)),
        (64, (3, 3), (1, 1)),
        (128, (3, 3), (1, 1)),
    ]
    strided = [
        path
        for path, part in backbone.named_modules()
        if isinstance(part, nn.Conv2d) and part.stride == (2, 2) and path.startswith("stages")
    ]
    assert strided == ["stages.0.2.residual.conv", "stages.1.3.residual.conv"]  # the last unit; the third stage is kept
    assert len([p for p in backbone.parameters() if p.name.endswith("residual.conv.w")]) == 3 + 4 + 23 + 3


# Running it


@pytest.mark.parametrize("H, W", [(33, 33), (37, 50), (64, 32)])
def test_scores_for_every_pixel_of_any_image(H, W):
    model = reduced()
    y = model(images(2, H, W))
    assert y.shape == (2, H, W, 3) and np.all(np.isfinite(y))
    assert model.trace((H, W, 3), lambda *layer: None) == (H, W, 3)
    small = nn.Sequential(backbone=model.backbone, head=model.head)(images(2, H, W))
    assert np.array_equal(y, ops.resize_bilinear_forward(small, (H, W), align_corners=True)[0])


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_common_settings(backbone):
    common = {"num_classes": 5, "in_channels": 2, "dropout": 0.1, "bn_decay": 0.5, "bn_eps": 0.01, "seed": 3}
    settings = {"width_mult": 0.125, "head": 8, "padding": "symmetric", "dtype": np.float64, "backbone": backbone}
    model = models.build("deeplab_v3", **common, **settings)
    x = images(2, 33, channels=2)
    y = model(x, training=True)
    assert y.shape == (2, 33, 33, 5) and y.dtype == np.float64
    assert model.backward(y).shape == x.shape
    parts = [part for _, part in model.named_modules()]
    assert {(part.decay, part.eps) for part in parts if isinstance(part, nn.BatchNorm)} == {(0.5, 0.01)}
    assert {part.padding for part in parts if hasattr(part, "kernel")} == {"symmetric"}
    assert [part.rate for part in parts if isinstance(part, nn.Dropout)] == [0.1]
    assert {p.dtype for p in model.parameters()} == {np.dtype(np.float64)}


@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize("settings", [{"backbone": "mobilenet_v1"}, {"output_stride": 8}, {"aspp": False}])
def test_gradients(settings, training):
    model = reduced(**settings)
    errors = gradient_errors(model, images(4, 33), training=training, directions=3, h=1e-8)
    assert np.median(errors) < 1e-6, errors


def test_state_round_trip():
    model, other = reduced(seed=3), reduced(seed=4)
    x = images(2, 33)
    assert not np.any(other(x) == model(x))
    other.load_state_dict(model.state_dict())
    assert np.array_equal(other(x), model(x))


@pytest.mark.parametrize("backbone", ["mobilenet_v1", "mobilenet_v2"])
def test_batch_norm_is_folded(backbone):
    model, x = reduced(backbone=backbone), images(3, 33)
    model(x, training=True)
    folded = nn.fold_batch_norm(model)
    assert "BatchNorm" not in {type(part).__name__ for _, part in folded.named_modules()}
    assert_close("scores", folded(x), model(x), 1e-10)
    assert cost.profile(folded, x.shape).macs == cost.profile(model, x.shape).macs


def test_a_step_is_timed_layer_by_layer():
    model = reduced(dtype=np.float32)
    rows = profile_step(model, (2, 33, 33, 3), repeats=1, warmup=0, threads=1).rows
    total = cost.profile(model, (33, 33, 3))
    assert sum(row.forward.macs for row in rows) == 2 * total.macs
    assert sum(row.params for row in rows) == total.params
    (resize,) = [row for row in rows if row.name == "ResizedToInput"]
    assert (resize.kind, resize.output_shape) == ("resize", (33, 33, 3))


def test_no_two_weights_are_drawn_alike():
    """The head has a stream of its own: the ratio of the first two numbers would be the same, whatever their scale."""
    weights = [p.value.ravel() for p in reduced().parameters() if p.name.endswith(".w")]
    assert len({w[0] / w[1] for w in weights}) == len(weights)


def test_a_new_classifier_is_undecided():
    assert np.std(deeplab_v3().head.classifier.w.value) == pytest.approx(0.01, rel=0.05)


# Errors


def test_an_image_of_a_single_pixel_is_refused():
    for call in (lambda: cost.profile(deeplab_v3(), (1, 1, 3)), lambda: reduced()(images(1, 1))):
        with pytest.raises(ValueError, match=r"^backbone: stem: .* 1x1 pixels .* stride 2; use a higher resolution$"):
            call()


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"num_classes": 0}, "num_classes must be at least 1, got 0"),
        ({"width_mult": 0}, "width_mult must be .*above 0, got 0"),
        ({"in_channels": 0}, "in_channels must be at least 1, got 0"),
        ({"backbone": "vgg16"}, 'backbone must be "mobilenet_v1", "mobilenet_v2" or "resnet101", got .vgg16.'),
        ({"output_stride": 12}, "output_stride must be 8, 16 or 32 .*, got 12"),
        ({"output_stride": None}, "output_stride must be 8, 16 or 32: the rates of the head depend on it"),
        ({"output_stride": 16.5}, "output_stride must be 8, 16 or 32 .*, got 16.5"),
        ({"head": 0}, "head must be at least 1, got 0"),
        ({"padding": "SAME"}, "padding must be .* got 'SAME'"),
        ({"dropout": 1.0}, "rate must be at least 0 and below 1, got 1.0"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        deeplab_v3(**settings)
