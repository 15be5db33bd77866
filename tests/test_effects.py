"""Which classic mistakes a call can see: what the course says about an all-ones upstream gradient."""

import numpy as np
import pytest

from npnets import gradcheck
from npnets.gradcheck import effects, known_ops
from npnets.gradcheck.catalogue import known_op, mistakes

NOISE = 1e-9


def batch_norm(seed=0, gamma=None, beta=None):
    rng = np.random.default_rng(seed)
    C = 3
    x = rng.uniform(0.3, 2, C) * rng.standard_normal((4, 3, 2, C)) + rng.standard_normal(C)
    gamma = rng.uniform(0.5, 2, C) if gamma is None else gamma
    return x, gamma, rng.standard_normal(C) if beta is None else beta, rng.standard_normal(C), rng.uniform(0.3, 3, C)


def hidden(*arguments, **settings):
    return {name for name, size in effects("batch_norm", *arguments, settings=settings).items() if size < NOISE}


def random(y):
    return np.random.default_rng(1).standard_normal(y.shape)


def test_random_numbers_see_every_mistake_of_training():
    assert hidden(batch_norm(), random, training=True) == {"training formula in inference"}


def test_ones_hide_most_of_batch_norm():
    assert hidden(batch_norm(), np.ones_like, training=True) >= {
        "variance as a constant", "gamma forgotten", "inv_std forgotten", "divided by the variance",
        "factor in the variance path", "power in the variance path", "unbiased variance", "eps left out",
        "the whole gradient times m",
    }  # fmt: skip


def test_the_start_of_training_hides_gamma():
    start = batch_norm(gamma=np.ones(3), beta=np.zeros(3))
    assert {"gamma forgotten", "dgamma from y"} <= hidden(start, random, training=True)
    assert not {"gamma forgotten", "dgamma from y"} & hidden(batch_norm(), random, training=True)


def test_inference_hides_what_concerns_training():
    found = hidden(batch_norm(), random, training=False)
    assert "variance as a constant" in found and "training formula in inference" not in found


@pytest.mark.parametrize("op", known_ops())
def test_on_the_inputs_that_are_drawn_for_the_diagnosis_every_mistake_shows(op):
    rng = np.random.default_rng(0)
    largest = {}
    for inputs, settings in known_op(op).samples(rng):
        for name, size in effects(op, inputs, lambda y: rng.standard_normal(y.shape), settings=settings).items():
            largest[name] = max(size, largest.get(name, 0.0))
    assert largest and min(largest.values()) > 1e-6
    assert set(largest) == {mistake.name for mistake in mistakes(op) if mistake.recognise is None}


def test_another_shape_cannot_be_missed_and_no_input_is_changed():
    inputs = batch_norm()
    before = [array.copy() for array in inputs]
    found = effects("batch_norm", inputs, np.zeros((4, 3, 2, 3)), settings={"training": True})
    assert found["summed over the batch only"] == np.inf and found["mean as a constant"] == 0
    assert all(np.array_equal(*pair) for pair in zip(inputs, before))


def test_an_unknown_op_is_an_error():
    with pytest.raises(ValueError, match="op must be one of"):
        gradcheck.effects("cube", (np.ones(3),), np.ones(3))
