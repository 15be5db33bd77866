"""Exercises that check themselves: what counts as right, and that nothing a reader writes stops a notebook."""

import numpy as np
import pytest

from npnets.course import check


@pytest.mark.parametrize(
    "answer, expected",
    [
        (288, 288),
        (288.0, 288),
        (np.int64(288), 288),
        ("1x1", " 1X1 "),
        ((3, 0.5), [3, 0.5]),
        (np.arange(4.0), np.arange(4)),
        (True, True),
        ([1, 2], np.array([1, 2])),
    ],
)
def test_right(answer, expected):
    assert check(answer, expected).right and check(answer, lambda: expected).right
    assert repr(check(answer, expected, hint="no")) == "right"


@pytest.mark.parametrize(
    "answer, expected",
    [
        (287, 288),
        ("288", 288),
        (288, "288"),
        (None, 288),
        ((3,), (3, 4)),
        (3, (3, 4)),
        ((3, 5), (3, 4)),
        (np.arange(4), np.arange(5)),
        (float("nan"), 288),
        ({}, 288),
        (object(), 288),
        (10**400, 5),
        (np.array(["a", "b"]), np.arange(2)),
        (np.array([None, 1]), np.arange(2)),
        ([1, [2]], np.arange(2)),
    ],
)
def test_wrong_answers_of_any_kind_get_the_hint(answer, expected):
    verdict = check(answer, expected, hint="count again")
    assert not verdict.right and repr(verdict) == "not yet: count again"


@pytest.mark.parametrize("answer", [..., (3, ...), [...], ((1, ...), 2)])
def test_a_missing_answer_is_not_a_wrong_one(answer):
    verdict = check(answer, 288, hint="count again")
    assert not verdict.right and repr(verdict) == "not answered yet"


def test_without_a_tolerance_only_rounding_is_forgiven():
    assert check(0.1 + 0.2, 0.3).right and not check(0.3 + 1e-6, 0.3).right


def test_tolerance_is_relative():
    assert check(1.005, 1.0, tolerance=0.01).right and not check(1.02, 1.0, tolerance=0.01).right
    assert check(1005e6, 1e9, tolerance=0.01).right
