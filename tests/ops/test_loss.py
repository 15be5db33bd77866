"""Softmax cross entropy: by hand, against the loops, and the identities of a softmax."""

import math

import numpy as np
import pytest
from hypothesis import given

from npnets import ops
from tests.oracles import assert_close, check_against_reference, check_gradients
from tests.strategies import softmax_cross_entropy_cases

LOG_3 = math.log(3.0)


def test_by_hand():
    logits = np.array([[0.0, LOG_3], [0.0, LOG_3]])  # exponentials 1 and 3: probabilities 1/4 and 3/4
    loss, cache = ops.softmax_cross_entropy_forward(logits, np.array([1, 0]))
    assert_close("loss", loss, -(math.log(3 / 4) + math.log(1 / 4)) / 2, 1e-15)
    dlogits = ops.softmax_cross_entropy_backward(1.0, cache)
    assert_close("dlogits", dlogits, [[1 / 4 / 2, (3 / 4 - 1) / 2], [(1 / 4 - 1) / 2, 3 / 4 / 2]], 1e-15)


def test_smoothing_gives_eps_over_K_to_every_class_by_hand():
    loss, cache = ops.softmax_cross_entropy_forward(np.array([[0.0, LOG_3]]), np.array([1]), label_smoothing=0.2)
    assert_close("loss", loss, -(0.1 * math.log(1 / 4) + (0.8 + 0.1) * math.log(3 / 4)), 1e-15)
    dlogits = ops.softmax_cross_entropy_backward(1.0, cache)
    assert_close("dlogits", dlogits, [[1 / 4 - 0.1, 3 / 4 - 0.9]], 1e-15)


@given(softmax_cross_entropy_cases())
def test_equals_the_loops(case):
    check_against_reference(case)


@given(softmax_cross_entropy_cases())
def test_gradients_equal_complex_steps(case):
    check_gradients(case)


@given(softmax_cross_entropy_cases())
def test_a_shift_of_all_logits_of_a_sample_changes_nothing(case):
    (logits,), (labels,) = case.inputs, case.extra
    shift = 10 * np.random.default_rng(case.seed).standard_normal((len(logits), 1))
    loss, cache = ops.softmax_cross_entropy_forward(logits, labels, **case.settings)
    shifted, shifted_cache = ops.softmax_cross_entropy_forward(logits + shift, labels, **case.settings)
    assert_close("loss", shifted, loss, 1e-12)
    dlogits = ops.softmax_cross_entropy_backward(1.0, cache)
    assert_close("dlogits", ops.softmax_cross_entropy_backward(1.0, shifted_cache), dlogits, 1e-12)
    assert np.abs(dlogits.sum(axis=1)).max() <= 1e-15  # so no gradient points along such a shift


@given(softmax_cross_entropy_cases())
def test_the_loss_is_a_mean(case):
    """A batch repeated three times has the same loss, and each copy a third of the gradient."""
    (logits,), (labels,) = case.inputs, case.extra
    loss, cache = ops.softmax_cross_entropy_forward(logits, labels, **case.settings)
    tiled, tiled_cache = ops.softmax_cross_entropy_forward(np.tile(logits, (3, 1)), np.tile(labels, 3), **case.settings)
    assert_close("loss", tiled, loss, 1e-13)
    dlogits = ops.softmax_cross_entropy_backward(1.0, cache)
    tiled_dlogits = ops.softmax_cross_entropy_backward(1.0, tiled_cache)
    assert_close("dlogits", tiled_dlogits, np.tile(dlogits, (3, 1)) / 3, 1e-13)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("K", [1, 2, 10])
def test_equal_logits_cost_log_K(K, label_smoothing):
    labels = np.arange(6) % K
    loss, _ = ops.softmax_cross_entropy_forward(np.full((6, K), 2.5), labels, label_smoothing=label_smoothing)
    assert abs(loss - math.log(K)) <= 1e-15


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_huge_logits_neither_overflow_nor_lose_the_loss(dtype):
    logits = np.array([[1e4, -1e4, 0.0], [-1e4, 1e4, 1e4]], dtype)
    loss, cache = ops.softmax_cross_entropy_forward(logits, np.array([1, 2]))
    assert_close("loss", loss, (2e4 + math.log(2.0)) / 2, 1e-6)
    dlogits = ops.softmax_cross_entropy_backward(1.0, cache)
    assert_close("dlogits", dlogits, [[0.5, -0.5, 0.0], [0.0, 0.25, -0.25]], 1e-6)


def test_dy_scales_the_gradient(rng):
    logits, labels = rng.standard_normal((4, 5)), np.array([0, 4, 2, 2])
    _, cache = ops.softmax_cross_entropy_forward(logits, labels)
    one, many = (ops.softmax_cross_entropy_backward(dy, cache) for dy in (1.0, -0.37))
    assert_close("dlogits", many, -0.37 * one, 1e-15)


@pytest.mark.parametrize("dy", [1.0, np.float64(0.5), np.float32(0.5)])
def test_dy_does_not_change_the_dtype(dy, rng):
    logits = rng.standard_normal((4, 5)).astype(np.float32)
    loss, cache = ops.softmax_cross_entropy_forward(logits, np.array([0, 4, 2, 2]), label_smoothing=np.float64(0.1))
    assert loss.dtype == np.float32
    assert ops.softmax_cross_entropy_backward(dy, cache).dtype == np.float32


def test_unsigned_and_small_labels_are_accepted(rng):
    logits = rng.standard_normal((3, 4))
    losses = {float(ops.softmax_cross_entropy_forward(logits, np.array([0, 3, 1], t))[0]) for t in ("u1", "i2", "i8")}
    assert len(losses) == 1


MISUSES = {
    # name of the misuse: logits, labels, smoothing, what the message must name
    "fewer labels": (np.zeros((3, 4)), np.zeros(2, int), 0.0, ["(3, 4)", "(2,)"]),
    "one-hot labels": (np.zeros((3, 4)), np.zeros((3, 4), int), 0.0, ["(3, 4)", "(N,)"]),
    "axes of logits": (np.zeros((3, 1, 1, 4)), np.zeros(3, int), 0.0, ["(3, 1, 1, 4)", "(N, K)"]),
    "label K": (np.zeros((3, 4)), np.array([0, 4, 1]), 0.0, ["labels", "3", "4"]),
    "negative label": (np.zeros((3, 4)), np.array([0, -1, 1]), 0.0, ["labels", "-1"]),
    "float labels": (np.zeros((3, 4)), np.zeros(3), 0.0, ["labels", "float64"]),
    "bool labels": (np.zeros((3, 4)), np.zeros(3, bool), 0.0, ["labels", "bool"]),
    "integer logits": (np.zeros((3, 4), int), np.zeros(3, int), 0.0, ["logits", "int64"]),
    "no samples": (np.zeros((0, 4)), np.zeros(0, int), 0.0, ["(0, 4)"]),
    "negative smoothing": (np.zeros((3, 4)), np.zeros(3, int), -0.1, ["label_smoothing", "-0.1"]),
    "smoothing one": (np.zeros((3, 4)), np.zeros(3, int), 1.0, ["label_smoothing", "1.0"]),
}


@pytest.mark.parametrize("misuse", MISUSES)
def test_misuse_is_named(misuse):
    logits, labels, label_smoothing, named = MISUSES[misuse]
    with pytest.raises(ValueError) as error:
        ops.softmax_cross_entropy_forward(logits, labels, label_smoothing=label_smoothing)
    for words in ["softmax_cross_entropy", *named]:
        assert words in str(error.value)
