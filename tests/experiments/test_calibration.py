"""Accuracy, likelihood and calibration by hand; averaged probabilities."""

import numpy as np
import pytest

from npnets.experiments.calibration import average, reliability, scores
from tests.experiments import numbers

# Confidences 0.9, 0.8, 0.55 and 0.52; the first, third and fourth are right.
P = np.array([[0.9, 0.1], [0.2, 0.8], [0.45, 0.55], [0.52, 0.48]])
LABELS = np.array([0, 0, 1, 0])


def test_the_scores_of_a_case_worked_by_hand():
    found = scores(P, LABELS, bins=5)
    assert found.accuracy == 0.75
    assert found.negative_log_likelihood == pytest.approx(-np.log([0.9, 0.2, 0.55, 0.52]).mean())
    # Bins of 0.2: (0.8, 1] has 0.9, right; (0.6, 0.8] has 0.8, wrong; (0.4, 0.6] has both others, right.
    gaps = [abs(1 - 0.9) * 1, abs(0 - 0.8) * 1, abs(1 - (0.55 + 0.52) / 2) * 2]
    assert found.calibration_error == pytest.approx(sum(gaps) / 4)


def test_the_bins_of_a_case_worked_by_hand():
    confidence, accuracy, count = reliability(P, LABELS, bins=5)
    assert count.tolist() == [0, 0, 2, 1, 1]
    assert confidence.tolist() == pytest.approx([np.nan, np.nan, 0.535, 0.8, 0.9], nan_ok=True)
    assert accuracy.tolist() == pytest.approx([np.nan, np.nan, 1, 0, 1], nan_ok=True)


def test_a_network_that_is_right_as_often_as_it_claims_has_no_calibration_error():
    p = np.tile([0.75, 0.25], (4, 1))
    assert scores(p, np.array([0, 0, 0, 1])).calibration_error == pytest.approx(0)
    assert scores(p, np.array([1, 1, 1, 1])).calibration_error == pytest.approx(0.75)


def test_certainty_is_counted_and_does_not_overflow():
    found = scores(np.eye(3)[[0, 1, 2, 0]], np.array([0, 1, 2, 1]))
    assert found.accuracy == 0.75 and found.calibration_error == pytest.approx(0.25)
    assert found.negative_log_likelihood == pytest.approx(-np.log(1e-12) / 4)


def test_every_image_falls_into_one_bin():
    p, labels = numbers(500)
    confidence, accuracy, count = reliability(p, labels)
    assert count.sum() == 500 and len(count) == 15
    filled = count > 0
    assert (accuracy[filled] * count[filled]).sum() == pytest.approx((p.argmax(axis=1) == labels).sum())
    assert (confidence[filled] * count[filled]).sum() == pytest.approx(p.max(axis=1).sum())


def test_probabilities_are_averaged_arithmetically():
    others = np.array([[0.5, 0.5], [0.6, 0.4], [0.05, 0.95], [0.02, 0.98]])
    expected = [[0.7, 0.3], [0.4, 0.6], [0.25, 0.75], [0.27, 0.73]]
    assert average([P, others]) == pytest.approx(np.array(expected))


def test_the_average_of_several_is_never_less_likely_than_they_are_on_average():
    """The logarithm is concave: Jensen's inequality, which is why averaging helps."""
    each = [numbers(50, seed=k)[0] for k in range(4)]
    labels = numbers(50)[1]
    alone = [scores(p, labels).negative_log_likelihood for p in each]
    assert scores(average(each), labels).negative_log_likelihood < np.mean(alone)
