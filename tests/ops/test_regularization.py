"""Dropout and drop path: one mask for both passes, scaling in training, identity in inference."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npnets import ops
from tests.oracles import assert_close, check_against_reference, check_gradients
from tests.strategies import dropout_cases, seeds

OPS = ["dropout", "drop_path"]


@pytest.mark.parametrize("op", OPS)
def test_by_hand(op, rng):
    """At probability 1/2 whatever is kept doubles; the mask is read off the output."""
    x = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0], [10.0, 11.0, 12.0]])
    y, cache = getattr(ops, f"{op}_forward")(x, 0.5, training=True, rng=rng)
    kept = y != 0
    assert kept.any() and not kept.all()
    assert np.array_equal(y, np.where(kept, 2 * x, 0))
    dy = np.array([[1.0, -1.0, 2.0], [3.0, 1.0, -2.0], [5.0, 4.0, 3.0], [-1.0, -2.0, -3.0]])
    dx = getattr(ops, f"{op}_backward")(dy, cache)
    assert np.array_equal(dx, np.where(kept, 2 * dy, 0))


@pytest.mark.parametrize("op", OPS)
def test_equals_the_loops_given_the_mask(op):
    @given(dropout_cases(op))
    def run(case):
        check_against_reference(case)

    run()


@pytest.mark.parametrize("op", OPS)
def test_gradients_equal_complex_steps(op):
    @given(dropout_cases(op))
    def run(case):
        check_gradients(case)

    run()


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.8])
def test_dropout_draws_each_element_and_keeps_the_mean(rate, rng):
    x = np.ones((100, 40, 5))
    y, _ = ops.dropout_forward(x, rate, training=True, rng=rng)
    kept = y != 0
    deviation = np.sqrt(rate * (1 - rate) / x.size)
    assert abs(kept.mean() - (1 - rate)) < 4 * deviation
    assert abs(y.mean() - 1) < 4 * deviation / (1 - rate)
    for axis in range(3):  # no axis shares its draws
        assert (kept.any(axis=axis) & ~kept.all(axis=axis)).any()


@pytest.mark.parametrize("survival_prob", [0.2, 0.5, 0.9])
def test_drop_path_draws_once_a_sample(survival_prob, rng):
    x = 1 + rng.random((2000, 2, 3, 2))
    y, _ = ops.drop_path_forward(x, survival_prob, training=True, rng=rng)
    kept = y != 0
    whole = kept.reshape(len(x), -1)
    assert np.array_equal(whole.any(axis=1), whole.all(axis=1))
    assert abs(whole[:, 0].mean() - survival_prob) < 4 * np.sqrt(survival_prob * (1 - survival_prob) / len(x))
    assert_close("survivors", y[kept], x[kept] / survival_prob, 1e-12)


@pytest.mark.parametrize("op", OPS)
def test_inference_is_the_identity_and_needs_no_generator(op, rng):
    x = rng.standard_normal((3, 4, 5, 2))
    y, cache = getattr(ops, f"{op}_forward")(x, 0.3, training=False, rng=None)
    assert np.array_equal(y, x)
    dy = rng.standard_normal(x.shape)
    assert np.array_equal(getattr(ops, f"{op}_backward")(dy, cache), dy)


@pytest.mark.parametrize("op, nothing_dropped", [("dropout", 0.0), ("drop_path", 1.0)])
def test_nothing_dropped_is_the_identity_in_training(op, nothing_dropped, rng):
    x = rng.standard_normal((3, 4))
    y, cache = getattr(ops, f"{op}_forward")(x, nothing_dropped, training=True, rng=rng)
    assert np.array_equal(y, x)
    assert np.array_equal(getattr(ops, f"{op}_backward")(x, cache), x)


@pytest.mark.parametrize("op", OPS)
@given(seed=seeds, probability=st.floats(0.1, 0.9))
def test_the_seed_decides_the_mask(op, seed, probability):
    forward = getattr(ops, f"{op}_forward")
    x = np.ones((4, 30))
    first, second = (forward(x, probability, training=True, rng=np.random.default_rng(seed))[0] for _ in range(2))
    assert np.array_equal(first, second)
    rng = np.random.default_rng(seed)
    masks = {forward(x, probability, training=True, rng=rng)[0].tobytes() for _ in range(40)}
    assert len(masks) > 1  # and a generator that goes on draws another one


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5, float("nan")])
def test_a_rate_out_of_range_is_named(rate, rng):
    for training in (True, False):
        with pytest.raises(ValueError, match=f"dropout.*rate.*{rate}"):
            ops.dropout_forward(np.ones((2, 3)), rate, training=training, rng=rng)


@pytest.mark.parametrize("survival_prob", [-0.1, 0.0, 1.5, float("nan")])
def test_a_survival_probability_out_of_range_is_named(survival_prob, rng):
    for training in (True, False):
        with pytest.raises(ValueError, match=f"drop_path.*survival_prob.*{survival_prob}"):
            ops.drop_path_forward(np.ones((2, 3)), survival_prob, training=training, rng=rng)


@pytest.mark.parametrize("op", OPS)
def test_training_without_a_generator_is_named(op):
    with pytest.raises(ValueError, match=f"{op}.*rng"):
        getattr(ops, f"{op}_forward")(np.ones((2, 3)), 0.5, training=True, rng=None)


@pytest.mark.parametrize("op", OPS)
def test_integers_are_refused(op, rng):
    with pytest.raises(ValueError, match=f"{op}.*int64"):
        getattr(ops, f"{op}_forward")(np.ones((2, 3), np.int64), 0.5, training=True, rng=rng)
