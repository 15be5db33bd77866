"""Compound scaling: equation 3 of EfficientNet, and what it makes of the networks of section 5.1."""

import numpy as np
import pytest

from npnets import cost, models
from npnets.models import compound_scaling, scaling_of
from npnets.models.efficientnet import VARIANTS


def macs(depth, width, resolution, name, **settings):
    model, pixels = compound_scaling(depth, width, resolution, name, **settings)
    return cost.profile(model, (pixels, pixels, 3)).macs


# Equation 3


def test_equation_3():
    assert scaling_of(0) == (1, 1, 1)
    assert scaling_of(1) == pytest.approx((1.2, 1.1, 1.15))
    assert scaling_of(3, alpha=2, beta=1, gamma=1) == (8, 1, 1)


@pytest.mark.parametrize("phi", [0.5, 1, 2, 3])
def test_the_cost_grows_by_the_factor_of_the_equation(phi):
    """Proportional to d w^2 r^2, which is 1.92^phi, and more where numbers are rounded up. The paper says 2^phi."""
    depth, width, resolution = scaling_of(phi)
    assert depth * width**2 * resolution**2 == pytest.approx(1.9203**phi, rel=1e-3)
    grown = macs(*scaling_of(phi), "efficientnet_b0") / macs(1, 1, 1, "efficientnet_b0")
    assert 1.92**phi < grown < 1.4 * 1.92**phi


@pytest.mark.parametrize("k, phi", list(enumerate([0, 0.5, 1, 2, 3.5, 5, 6, 7])))
def test_the_networks_of_the_paper_are_near_it(k, phi):
    width, depth, pixels, _ = VARIANTS[f"efficientnet_b{k}"]
    expected = scaling_of(phi)
    assert abs(width - expected[1]) <= 0.055
    assert abs(pixels / 224 - expected[2]) <= 0.07
    assert 0.85 < depth / expected[0] <= 1.01


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"phi": np.inf}, "phi must be a finite number, got inf"),
        ({"phi": "1"}, "phi must be a finite number, got '1'"),
        ({"phi": True}, "phi must be a finite number, got True"),
        ({"phi": 1e9}, "phi is too large for alpha, beta and gamma, got 1000000000.0"),
        ({"phi": 1, "alpha": 0}, "alpha must be a finite number above 0, got 0"),
        ({"phi": 1, "beta": -1.1}, "beta must be a finite number above 0, got -1.1"),
        ({"phi": 1, "gamma": None}, "gamma must be a finite number above 0, got None"),
    ],
)
def test_bad_coefficients_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        scaling_of(**settings)


# Networks


@pytest.mark.parametrize("name", ["efficientnet_b0", "mobilenet_v1", "mobilenet_v2", "resnet50"])
def test_factors_of_one_change_nothing(name):
    model, pixels = compound_scaling(1, 1, 1, name)
    assert pixels == 224 and repr(model) == repr(models.build(name))


@pytest.mark.parametrize("factor, pixels", [(2, 448), (1.3, 291), (0.5, 112), (225.5 / 224, 226), (1e-2, 2)])
def test_the_resolution_is_rounded_to_the_nearest_pixel_and_halves_up(factor, pixels):
    assert compound_scaling(1, 1, factor)[1] == pixels


def test_depth_and_width_are_those_of_the_network():
    model, pixels = compound_scaling(1.2, 1.1, 260 / 224, dropout=0.3)
    assert pixels == 260 and repr(model) == repr(models.efficientnet_b2())
    model, pixels = compound_scaling(1.4, 1.2, 1.3, "mobilenet_v2", num_classes=7)
    assert pixels == 291 and repr(model) == repr(models.mobilenet_v2(7, width_mult=1.2, depth_mult=1.4))


# Section 5.1, "Scaling Up MobileNets and ResNets": depth, width, resolution, multiply-adds in billions as printed.
SCALED = [
    ("mobilenet_v1", (1, 1, 1), "0.6"),
    ("mobilenet_v1", (1, 2, 1), "2.2"),
    ("mobilenet_v2", (1, 1, 1), "0.3"),
    ("mobilenet_v2", (4, 1, 1), "1.2"),
    ("mobilenet_v2", (1, 2, 1), "1.1"),
    ("mobilenet_v2", (1, 1, 2), "1.2"),
    ("resnet50", (1, 1, 1), "4.1"),
    ("resnet50", (1, 1, 2), "16.4"),
]


@pytest.mark.parametrize("name, factors, printed", SCALED)
def test_rows_of_the_scaling_table(name, factors, printed):
    assert f"{macs(*factors, name) / 1e9:.1f}" == printed


def test_the_rows_of_resnet_look_swapped():
    """The paper prints 16.2 for four times the depth and 14.7 for twice the width."""
    assert macs(4, 1, 1, "resnet50") / 1e9 == pytest.approx(14.6, abs=0.05)
    assert macs(1, 2, 1, "resnet50") / 1e9 == pytest.approx(16.1, abs=0.05)


def test_a_pixel_more_can_be_a_row_more_in_every_map():
    """r = 1.3 is 291 pixels, whose maps are 146, 73, 37, 19, 10; those of 288 are 144, 72, 36, 18, 9.

    With 288 the multiply-adds that the paper prints for the compound V2, 1.3B, come out; with 291 it is 1.44B.
    """
    assert f"{macs(1.4, 1.2, 288 / 224, 'mobilenet_v2') / 1e9:.1f}" == "1.3"
    assert macs(1.4, 1.2, 1.3, "mobilenet_v2") > 1.1 * macs(1.4, 1.2, 288 / 224, "mobilenet_v2")


@pytest.mark.parametrize(
    "arguments, settings, message",
    [
        ((0, 1, 1), {}, "depth must be a finite number above 0, got 0"),
        ((1, -2, 1), {}, "width must be a finite number above 0, got -2"),
        ((1, 1, np.nan), {}, "resolution must be a finite number above 0, got nan"),
        ((1, 1, 1.7e308), {}, "resolution must be at most 1000, got 1.7e\\+308"),
        ((1, 1, 1e-4), {}, "resolution 0.0001 leaves no pixel of 224"),
        ((1, 1, 1, "mobilenet_v9"), {}, "unknown model 'mobilenet_v9'"),
        ((1, 1, 1, "mlp_batch_norm"), {}, "mlp_batch_norm cannot be scaled in depth.*efficientnet_b0"),
        ((1, 1, 1), {"depth_mult": 2}, "compound_scaling sets depth_mult itself; give it as depth"),
        ((1, 1, 1), {"width_mult": 2}, "compound_scaling sets width_mult itself; give it as width"),
        ((1, 1, 1), {"colour": 2}, "efficientnet_b0 has no setting 'colour'"),
    ],
)
def test_what_cannot_be_scaled_is_named(arguments, settings, message):
    with pytest.raises(ValueError, match=message):
        compound_scaling(*arguments, **settings)
