"""Differences between variants: cases worked by hand, and how often the interval holds what it should."""

import itertools

import numpy as np
import pytest

from npnets.experiments.differences import STUDENT, Difference, contrast, difference, pooled, student


def test_two_variants_worked_by_hand():
    # squares 2 + 8 = 10 with 4 degrees of freedom: s = sqrt(2.5); error sqrt(2.5 (1/3 + 1/3)) = 1.29099
    found = difference([1.0, 2.0, 3.0], [4.0, 6.0, 8.0])
    assert found == pytest.approx((-4.0, -4.0 - 2.776 * 1.2909944, -4.0 + 2.776 * 1.2909944))


def test_groups_of_different_size():
    # squares 2 + 0.5 = 2.5 with 3 degrees of freedom; error sqrt(2.5 / 3 (1/3 + 1/2)) = 5/6
    assert difference([1.0, 2.0, 3.0], [0.0, 1.0]) == pytest.approx((1.5, 1.5 - 3.182 * 5 / 6, 1.5 + 3.182 * 5 / 6))


def test_a_single_seed_is_compared_by_the_scatter_of_the_others():
    # squares 2 with 2 degrees of freedom: s = 1; error sqrt(1/3 + 1)
    half = 4.303 * np.sqrt(4 / 3)
    assert difference([1.0, 2.0, 3.0], [0.0]) == pytest.approx((2.0, 2.0 - half, 2.0 + half))


def test_pairs_worked_by_hand():
    # differences 1, 2, 3: mean 2, standard deviation 1
    gap = np.array([5.0, 8.0, 2.0]) - [4.0, 6.0, -1.0]
    half = 4.303 / np.sqrt(3)
    assert contrast({"gap": gap}, {"gap": 1}) == pytest.approx((2.0, 2.0 - half, 2.0 + half))


def test_a_contrast_uses_the_scatter_of_all_and_the_means_of_some():
    values = {"a": [1.0, 3.0], "b": [10.0, 10.0, 10.0, 10.0], "unused": [0.0, 4.0]}
    assert pooled(values) == (pytest.approx(np.sqrt((2 + 0 + 8) / 5)), 5)
    half = 2.571 * np.sqrt(2.0) * np.sqrt(0.25 / 2 + 4 / 4)
    assert contrast(values, {"a": 0.5, "b": -2}) == pytest.approx((-19.0, -19.0 - half, -19.0 + half))


@pytest.mark.parametrize("seeds", [2, 3, 5, 20])
def test_95_of_100_intervals_hold_the_true_difference(seeds):
    rng = np.random.default_rng(seeds)
    runs = rng.normal(size=(4000, 3, seeds)) + [[0.3], [0.0], [7.0]]
    found = [contrast(dict(zip("abc", three)), {"a": 1, "b": -1}) for three in runs]
    assert np.mean([one.low < 0.3 < one.high for one in found]) == pytest.approx(0.95, abs=0.012)  # 3.5 standard errors


def test_in_points():
    assert Difference(-0.0164, -0.0382, 0.0055).points() == "-1.6 [-3.8, 0.5]"
    assert Difference(-0.0164, -0.0382, 0.00551).points(2) == "-1.64 [-3.82, 0.55]"


@pytest.mark.parametrize(
    "values, weights, words",
    [
        ({"a": [1.0], "b": [2.0]}, {"a": 1, "b": -1}, "at least one variant needs two"),
        ({"a": [1.0, 2.0], "b": []}, {"a": 1, "b": -1}, "there are no runs of b"),
        ({"a": [1.0, 2.0]}, {"a": 1, "c": -1, "d": 0}, "there are no runs of c, d"),
        ({"a": [1.0, np.nan], "b": [2.0, 3.0]}, {"b": 1}, "a: a number is missing; did a training diverge"),
        ({"a": [1.0, 2.0], "b": [2.0, np.inf]}, {"a": 1}, "b: a number is missing"),
        ({}, {}, "at least one variant needs two"),
    ],
)
def test_what_has_no_interval_is_refused(values, weights, words):
    with pytest.raises(ValueError, match=words):
        contrast(values, weights)


def test_students_t_falls_towards_that_of_the_normal_distribution():
    each = [student(freedom) for freedom in range(1, 200)]
    assert each[:30] == list(STUDENT) and all(before > after > 1.96 for before, after in itertools.pairwise(each))
    assert [student(freedom) for freedom in (40, 60, 120)] == pytest.approx([2.021, 2.000, 1.980], abs=0.002)
