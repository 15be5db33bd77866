"""The parts of DeepLabv3's head."""

import numpy as np
import pytest

from npnets import nn, ops
from tests.models import gradient_errors
from tests.nn import make, randomize
from tests.oracles import assert_close


def drawn():
    return {"rng": np.random.default_rng(0), "dtype": np.float64}


def images(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def relu(x):
    return np.maximum(x, 0)


def test_a_chain_is_resized_to_its_input():
    conv = nn.Conv2d(3, 4, 3, stride=2, **drawn())
    resized, x = nn.ResizedToInput(conv=conv), images(2, 9, 6, 3)
    small = conv(x)
    assert small.shape == (2, 5, 3, 4)
    y = resized(x)
    assert y.shape == (2, 9, 6, 4)
    corners = (slice(None), [0, 0, -1, -1], [0, -1, 0, -1])
    assert_close("corners stay where they are", y[corners], small[corners], 1e-14)
    assert np.array_equal(y, ops.resize_bilinear_forward(small, (9, 6), align_corners=True)[0])
    assert resized.trace((9, 6, 3), lambda *layer: None) == (9, 6, 4)


def test_a_chain_of_vectors_cannot_be_resized():
    pooled = nn.ResizedToInput(pool=nn.GlobalAvgPool())
    for call in (lambda: pooled(images(2, 4, 4, 3)), lambda: pooled.trace((4, 4, 3), lambda *layer: None)):
        with pytest.raises(ValueError, match="H, W, C"):
            call()


def test_image_pooling_by_hand():
    """Every pixel gets the same features: those of the mean of all."""
    pooling, x = randomize(nn.ImagePooling(3, 4, **drawn())), images(2, 5, 7, 3)
    norm = pooling.project.bn
    mean = x.mean(axis=(1, 2)) @ pooling.project.conv.w.value
    scale = norm.gamma.value / np.sqrt(norm.running_var + norm.eps)
    expected = relu((mean - norm.running_mean) * scale + norm.beta.value)
    y = pooling(x)
    assert y.shape == (2, 5, 7, 4)
    assert_close("every pixel", y, np.broadcast_to(expected[:, None, None], y.shape), 1e-13)


def test_image_pooling_trains_with_two_images_and_not_with_one():
    pooling = nn.ImagePooling(3, 4, **drawn())
    assert pooling(images(2, 5, 7, 3), training=True).shape == (2, 5, 7, 4)
    with pytest.raises(ValueError, match=r"project: bn: batch_norm: training needs at least 2 values a channel"):
        pooling(images(1, 5, 7, 3), training=True)


@pytest.mark.parametrize("rates", [(), (2,), (1, 3, 5)])
def test_aspp_by_hand(rates):
    """The branches side by side, in this order; a dilated kernel is a larger one with zeros between its entries."""
    aspp, x = randomize(nn.ASPP(3, 4, rates, **drawn())), images(2, 8, 7, 3)
    branches = [aspp.branches.image_pooling(x), aspp.branches.pointwise(x)]
    for rate, branch in zip(rates, aspp.branches.atrous, strict=True):
        w = np.zeros((2 * rate + 1, 2 * rate + 1, 3, 4))
        w[::rate, ::rate] = branch.conv.w.value
        branches.append(branch.bn(ops.conv2d_forward(x, w)[0]))
    assert branches[-1].min() == 0  # a ReLU
    joined = np.concatenate(branches, axis=-1)
    assert joined.shape == (2, 8, 7, 4 * (2 + len(rates)))
    y = aspp(x)
    assert_close("aspp", y, aspp.project(joined), 1e-12)
    assert y.shape == (2, 8, 7, 4) and y.min() == 0
    assert aspp.trace((8, 7, 3), lambda *layer: None) == (8, 7, 4)


def test_names():
    names = [p.name for p in nn.ASPP(3, 4, (2, 4), **drawn()).parameters() if p.name.endswith("w")]
    assert names == [
        "branches.image_pooling.project.conv.w",
        "branches.pointwise.conv.w",
        "branches.atrous.0.conv.w",
        "branches.atrous.1.conv.w",
        "project.conv.w",
    ]


@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize("case", ["ResizedToInput", "ImagePooling", "ASPP", "ASPP, no rates"])
def test_gradients(case, training):
    module, shape = make(case)
    errors = gradient_errors(module, images(3, *shape), training=training, h=1e-7)
    assert np.median(errors) < 1e-6, errors


@pytest.mark.parametrize("case", ["ImagePooling", "ASPP"])
def test_batch_norm_is_folded_inside(case):
    module, shape = make(case)
    x = images(3, *shape)
    folded = nn.fold_batch_norm(module)
    assert "BatchNorm" not in {type(part).__name__ for _, part in folded.named_modules()}
    assert_close(case, folded(x), module(x), 1e-10)


@pytest.mark.parametrize("settings, message", [
    ({"rates": (6, 0)}, "rates must be at least 1, got 0"),
    ({"rates": 5}, "rates must be a list of integers, got 5"),
    ({"rates": None}, "rates must be a list of integers, got None"),
    ({"rates": (2.5,)}, "rates must be an integer, got 2.5"),
    ({"C_out": 0}, "must be at least 1, got 0"),
])  # fmt: skip
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        nn.ASPP(**{"C_in": 3, "C_out": 4, "rates": (), **settings}, **drawn())
