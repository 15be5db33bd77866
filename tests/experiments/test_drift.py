"""Measures of drift: worked by hand, without a unit, and blind to nothing that they should see."""

import numpy as np
import pytest

from npnets import experiments
from npnets.experiments import Record
from npnets.experiments.drift import between, mean_slope, moments, restlessness, sampling, typical, wandering
from npnets.ops import sigmoid_backward, sigmoid_forward

M = 60


def record(mean, variance, quantiles=None, steps=None):
    """Return a record of some steps with these moments, (T, U) each."""
    steps = list(range(1, len(mean) + 1)) if steps is None else steps
    content = {"variant": "baseline", "seed": 0, "settings": {"batch_size": M}, "steps": steps}
    arrays = {"mean": mean, "variance": variance, "quantiles": quantiles}
    return Record(content, {name: np.array(a, np.float16) for name, a in arrays.items() if a is not None})


def batches(steps, units, *, mean=0.0, std=1.0, seed=0):
    """Return the record of mini-batches that are drawn from Gaussians with these moments."""
    x = mean + std * np.random.default_rng(seed).standard_normal((steps, M, units))
    return record(x.mean(axis=1), x.var(axis=1), np.quantile(x, [0.15, 0.5, 0.85], axis=1).swapaxes(0, 1))


def test_shift_and_stretch_of_a_case_worked_by_hand():
    found = between(record([[0, 1], [9, 9], [3, 1]], [[1, 4], [9, 9], [17, 1]], steps=[1, 5, 20]), 1, 20)
    assert found.shift == pytest.approx([3 / np.sqrt(9), 0])
    assert found.stretch == pytest.approx([np.log2(np.sqrt(17)), -1])


def test_drift_backwards_is_minus_drift_forwards():
    one = batches(2, 7)
    for forth, back in zip(between(one, 1, 2), between(one, 2, 1)):
        assert np.any(forth != 0) and back == pytest.approx(-forth)


def test_drift_has_no_unit():
    mean, variance = np.array([[0.5, -1], [1, 2]]), np.array([[1.0, 2], [3, 0.5]])
    for one, other in zip(between(record(mean, variance), 1, 2), between(record(4 * mean, 16 * variance), 1, 2)):
        assert one == pytest.approx(other)


def test_a_step_that_is_not_recorded_is_named():
    with pytest.raises(ValueError, match="of step 3; there are 1, 2, 5"):
        between(record(np.ones((3, 1)), np.ones((3, 1)), steps=[1, 2, 5]), 1, 3)


def test_moments_are_those_of_the_record():
    found = moments(record([[1, 2]], [[4, 9]], steps=[7]))
    assert (found.steps.tolist(), found.mean.tolist(), found.std.tolist()) == ([7], [[1, 2]], [[2, 3]])
    assert found.mean.dtype == found.std.dtype == np.float64


def test_what_sampling_alone_makes():
    found = between(batches(2, 20_000), 1, 2)
    expected = sampling(M)
    assert np.std(found.shift) == pytest.approx(expected.shift, rel=0.02)
    assert np.std(found.stretch) == pytest.approx(expected.stretch, rel=0.02)
    with pytest.raises(ValueError, match="batch_size"):
        sampling(1)


def test_weights_that_stand_still_have_a_restlessness_of_one():
    assert restlessness(batches(40, 500, mean=-0.5, std=0.3), 1) == pytest.approx(1, rel=0.03)


def test_restlessness_counts_from_a_step_on():
    still = batches(40, 500)
    mean = still.arrays["mean"].astype(float)
    mean[:20] += np.arange(20)[:, None]  # it moves in the first half
    moving = record(mean, still.arrays["variance"])
    assert restlessness(moving, 1) > 5
    assert restlessness(moving, 21) == pytest.approx(1, rel=0.05)
    with pytest.raises(ValueError, match="last that is recorded"):
        restlessness(moving, 40)
    with pytest.raises(ValueError, match="of step 41"):
        restlessness(moving, 41)


def test_wandering_of_a_case_worked_by_hand():
    quantiles = np.zeros((2, 3, 2))
    quantiles[:, :, 0] = [[-1, 0, 1], [-3, 0, 3]]  # std over time: 1, 0, 1
    quantiles[:, :, 1] = 5  # does not move
    assert wandering(record(np.zeros((2, 2)), np.ones((2, 2)), quantiles)) == pytest.approx([np.sqrt(2 / 3), 0])


@pytest.mark.parametrize(("widths", "expected"), [([3, 1, 2], 2), ([4, 1, 3, 2], 3), ([1, 1, 1], 1)])
def test_the_typical_unit_is_in_the_middle(widths, expected):
    steps = np.array([-1.0, 1.0])[:, None, None]
    quantiles = steps * np.broadcast_to(np.array(widths, float), (2, 3, len(widths)))
    assert typical(record(np.zeros((2, len(widths))), np.ones((2, len(widths))), quantiles)) == expected


def test_the_slope_is_a_quarter_around_zero_and_vanishes_far_away_and_far_out():
    assert mean_slope(0, 0) == pytest.approx(0.25)
    assert mean_slope([-9, 9], 1e-3) == pytest.approx(np.exp(-9), rel=1e-2)
    assert mean_slope(0, 4) == pytest.approx(1 / (4 * np.sqrt(2 * np.pi)), rel=0.15)  # the slope's area is one


def test_the_mean_slope_is_that_of_many_numbers():
    rng = np.random.default_rng(0)
    mean, std = rng.standard_normal((2, 3)), rng.uniform(0.2, 2, (2, 3))
    x = mean + std * rng.standard_normal((200_000, 2, 3))
    slopes = sigmoid_backward(np.ones(x.shape), sigmoid_forward(x)[1])
    assert mean_slope(mean, std) == pytest.approx(slopes.mean(axis=0), rel=5e-3)


def test_batch_norm_holds_the_means_and_not_the_widths():
    """What notebook 04 says of the recorded results."""
    records = experiments.load("activations")
    for without, with_ in zip(records.of("baseline"), records.of("batch_norm")):
        shifts = [np.median(np.abs(between(one, 1, 1000).shift)) for one in (without, with_)]
        assert shifts[0] > 20 * shifts[1]
        stretches = [np.median(between(one, 10_000, 50_000).stretch) for one in (without, with_)]
        assert 1 < stretches[0] / stretches[1] < 2
        assert 1 < restlessness(without, 10_000) < 1.5 and restlessness(with_, 10_000) < 1e-3
