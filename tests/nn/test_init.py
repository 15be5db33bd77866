"""Fans, and the distributions that the papers name. Samples are large and seeded, the bounds many deviations wide."""

import math

import numpy as np
import pytest

from npnets import nn
from npnets.nn import init

SHAPES = {
    "standard": ((3, 5, 40, 60), 600, 900),
    "depthwise": ((3, 5, 4000), 15, 15),
    "pointwise": ((300, 200), 300, 200),
}


@pytest.mark.parametrize("kind", SHAPES)
def test_fans(kind):
    shape, fan_in, fan_out = SHAPES[kind]
    assert init.fans(shape) == (fan_in, fan_out)


def test_depthwise_fans_do_not_count_the_channels():
    """Counted as a dense kernel, the filters would start sqrt(C) too small, and a deep network would fade out."""
    assert init.fans((3, 3, 16)) == init.fans((3, 3, 1024)) == (9, 9)
    w = nn.DepthwiseConv2d(4000, 3, rng=np.random.default_rng(0)).w.value
    assert w.std() == pytest.approx(math.sqrt(2 / 9), rel=0.02)


@pytest.mark.parametrize("mode", ["fan_in", "fan_out"])
@pytest.mark.parametrize("kind", SHAPES)
def test_he_normal_has_variance_two_over_fan(kind, mode):
    shape, fan_in, fan_out = SHAPES[kind]
    w = init.he_normal(mode)(shape, np.random.default_rng(1))
    fan = {"fan_in": fan_in, "fan_out": fan_out}[mode]
    assert w.shape == shape and w.dtype == np.float64
    assert w.std() == pytest.approx(math.sqrt(2 / fan), rel=0.02)
    assert abs(w.mean()) < 5 * w.std() / math.sqrt(w.size)
    assert np.mean((w / w.std()) ** 4) == pytest.approx(3, abs=0.1)  # Gaussian, not uniform (1.8)


def test_glorot_uniform_has_variance_two_over_both_fans():
    w = init.glorot_uniform()((300, 200), np.random.default_rng(2))
    assert w.std() == pytest.approx(math.sqrt(2 / 500), rel=0.02)
    assert np.abs(w).max() <= math.sqrt(6 / 500) < 1.001 * np.abs(w).max()


def test_gaussian_and_constant():
    w = init.gaussian(0.3)((300, 200), np.random.default_rng(3))
    assert w.std() == pytest.approx(0.3, rel=0.02) and np.mean((w / 0.3) ** 4) == pytest.approx(3, abs=0.1)
    assert np.array_equal(init.constant(1)((2, 3), None), np.ones((2, 3)))


@pytest.mark.parametrize("initializer", [init.he_normal(), init.glorot_uniform(), init.gaussian(1.0)])
def test_the_generator_alone_decides(initializer):
    draw = [initializer((4, 5), np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert np.array_equal(draw[0], draw[1]) and not np.any(draw[0] == draw[2])


def test_a_wrong_mode_is_named():
    with pytest.raises(ValueError, match='mode must be "fan_in" or "fan_out", got'):
        init.he_normal("fan_avg")


@pytest.mark.parametrize(
    "make, std",
    [
        (lambda rng: nn.Conv2d(20, 60, 3, rng=rng), math.sqrt(2 / (9 * 60))),
        (lambda rng: nn.PointwiseConv2d(100, 400, rng=rng), math.sqrt(2 / 400)),
        (lambda rng: nn.PointwiseConv2d(100, 400, initializer=init.gaussian(0.5), rng=rng), 0.5),
        (lambda rng: nn.Linear(400, 100, rng=rng), 0.01),
        (lambda rng: nn.Linear(400, 100, initializer=init.gaussian(0.5), rng=rng), 0.5),
    ],
)
def test_what_the_layers_start_from(make, std):
    layer = make(np.random.default_rng(4))
    assert layer.w.value.std() == pytest.approx(std, rel=0.03)
    assert layer.b is None or not layer.b.value.any()


def test_relu_layers_pass_the_energy_on():
    """He's factor 2 makes up for the ReLU: after ten layers the mean square is still about one."""
    rng = np.random.default_rng(5)
    x = rng.standard_normal((200, 400))
    for _ in range(10):
        x = np.maximum(x @ init.he_normal("fan_in")((400, 400), rng), 0)
        assert 0.5 < np.mean(x**2) < 2.0
