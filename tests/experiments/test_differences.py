"""Differences between variants: cases worked by hand, and how often the interval holds what it should."""

import itertools

import numpy as np
import pytest

from npnets.experiments.differences import STUDENT, Difference, difference


def test_independent_runs_worked_by_hand():
    # squares 2 + 8 = 10 with 4 degrees of freedom: s = sqrt(2.5); error sqrt(2.5 (1/3 + 1/3)) = 1.29099
    found = difference([1.0, 2.0, 3.0], [4.0, 6.0, 8.0])
    assert found == pytest.approx((-4.0, -4.0 - 2.776 * 1.2909944, -4.0 + 2.776 * 1.2909944))


def test_groups_of_different_size():
    # squares 2 + 0.5 = 2.5 with 3 degrees of freedom; error sqrt(2.5 / 3 (1/3 + 1/2)) = 5/6
    assert difference([1.0, 2.0, 3.0], [0.0, 1.0]) == pytest.approx((1.5, 1.5 - 3.182 * 5 / 6, 1.5 + 3.182 * 5 / 6))


def test_paired_runs_worked_by_hand():
    # differences 1, 2, 3: mean 2, standard deviation 1
    half = 4.303 / np.sqrt(3)
    assert difference([5.0, 8.0, 2.0], [4.0, 6.0, -1.0], paired=True) == pytest.approx((2.0, 2.0 - half, 2.0 + half))


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_95_of_100_intervals_hold_the_true_difference(seeds, paired):
    rng = np.random.default_rng(seeds)
    runs = rng.normal(size=(4000, 2, seeds)) + [[0.3], [0.0]]
    found = [difference(x, y, paired=paired) for x, y in runs]
    assert np.mean([one.low < 0.3 < one.high for one in found]) == pytest.approx(0.95, abs=0.012)  # 3.5 standard errors


def test_what_both_share_does_not_widen_a_paired_interval():
    shared = np.array([0.0, 10.0, 20.0])
    narrow, wide = (difference(shared + [1, 2, 3], shared, paired=paired) for paired in (True, False))
    assert narrow.mean == wide.mean == 2 and narrow.high - narrow.low < 6 < wide.high - wide.low


def test_in_points():
    assert Difference(-0.0164, -0.0382, 0.0055).points() == "-1.6 [-3.8, 0.5]"


@pytest.mark.parametrize(
    "one, other, settings, words",
    [
        ([1.0], [2.0], {}, "1 and 1 seeds do not do"),
        ([1.0, 2.0, 3.0], [], {}, "3 and 0 seeds do not do"),
        ([1.0], [2.0], {"paired": True}, "1 and 1 seeds do not do"),
        ([1.0] * 7, [2.0] * 7, {}, "1 to 10 degrees of freedom; 7 and 7"),
        ([1.0, 2.0], [2.0, 3.0, 4.0], {"paired": True}, "2 and 3 seeds cannot be paired"),
        ([1.0, np.nan], [2.0, 3.0], {}, "did a training diverge"),
        ([1.0, 2.0], [2.0, np.nan], {}, "did a training diverge"),
    ],
)
def test_what_has_no_interval_is_refused(one, other, settings, words):
    with pytest.raises(ValueError, match=words):
        difference(one, other, **settings)


def test_students_t_falls_towards_that_of_the_normal_distribution():
    assert all(before > after > 1.96 for before, after in itertools.pairwise(STUDENT))
