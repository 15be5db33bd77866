"""Dropout and drop path: the mask of the forward, once more."""

import numpy as np

from npnets.gradcheck.catalogue import KnownOp, mistake, register

BOTH = "dropout drop_path"


def scaled_mask(case):
    """Return what the forward multiplied x with: 0 or one over the probability to be kept."""
    return case.again(x=np.ones_like(case.x))


def keep(case):
    """Return the probability to be kept."""
    return 1.0 - case.rate if case.op == "dropout" else case.survival_prob


def mask(case):
    """Return 1 where the forward kept x, 0 where it dropped it."""
    return (scaled_mask(case) != 0) * 1.0


def right(case):
    """The right gradient of both, in training and in inference."""
    return {"dx": case.dy * scaled_mask(case)}


def is_another_mask(case, gradient):
    """Whether the gradient is dy times some mask, with the right scale, but not times the mask of the forward."""
    if not case.training or np.shape(gradient) != case.dy.shape:
        return False
    ratio = gradient * keep(case) / np.where(case.dy == 0, 1, case.dy)
    is_mask = np.isclose(ratio, 0, atol=1e-9) | np.isclose(ratio, 1, atol=1e-9)
    kept = ratio > 0.5
    here = mask(case) > 0
    return bool(is_mask.all() and kept.any() and not kept.all() and np.any(kept != here) and np.any(kept == here))


@mistake(
    BOTH,
    "mask drawn again",
    "the mask is drawn again in the backward",
    "The gradient must pass where the activation passed. Put the mask of the forward into the cache.",
    recognise=is_another_mask,
)
def mask_drawn_again(case):
    """Another mask; which one cannot be known, so this is an example."""
    if not case.training:
        return {}
    return {"dx": case.dy * np.roll(scaled_mask(case), 1, axis=0)}


@mistake(
    BOTH,
    "inverted scaling forgotten",
    "the inverted scaling is forgotten: the mask alone, without 1 / (probability to be kept)",
    "The forward divides what it keeps by the probability to be kept; the gradient passes through the same factor.",
)
def scaling_forgotten(case):
    """The mask, unscaled."""
    return {"dx": case.dy * mask(case)}


@mistake(
    BOTH,
    "scaled by the wrong number",
    "the mask is scaled by the wrong number",
    "What was kept is divided by the probability to be KEPT: 1 - rate for dropout, survival_prob for drop path.",
)
def wrong_scale(case):
    """Times the probability to be kept, over or times the probability to be dropped."""
    if not case.training or keep(case) in (0, 1):
        return []
    return [{"dx": case.dy * mask(case) * factor} for factor in (keep(case), 1 / (1 - keep(case)), 1 - keep(case))]


@mistake(
    BOTH,
    "mask forgotten",
    "the mask is forgotten in the backward",
    "What the forward dropped takes no part in y, and gets no gradient.",
)
def mask_forgotten(case):
    """dy as it is, or scaled but not masked."""
    return [{"dx": case.dy}, {"dx": case.dy / keep(case)}] if case.training else []


@mistake(
    BOTH,
    "mask inverted",
    "the gradient passes where the forward dropped",
    "The mask marks what is kept: rng.random() < probability to be kept.",
)
def mask_inverted(case):
    """1 - mask."""
    return {"dx": case.dy * (1 - mask(case)) / keep(case)} if case.training else {}


@mistake(
    BOTH,
    "applied in inference",
    "the scaling of training is applied in inference",
    "In inference nothing is dropped and nothing scaled: dx = dy. That is what inverted scaling is for.",
)
def applied_in_inference(case):
    """dy times or over the probability to be kept."""
    return [] if case.training else [{"dx": case.dy / keep(case)}, {"dx": case.dy * keep(case)}]


@mistake(
    "drop_path",
    "one decision for the batch",
    "one decision is taken for the whole batch",
    "Each sample decides for itself: the mask has the shape (N, 1, 1, 1).",
)
def per_batch(case):
    """The first sample's decision for all, or the last one's."""
    scaled = scaled_mask(case)
    return [{"dx": case.dy * scaled[:1]}, {"dx": case.dy * scaled[-1:]}]


def _samples(probability):
    def samples(rng):
        # Two masks: drop path keeps the first image of one and the last of the other, and drops the opposite ones.
        x = rng.standard_normal((6, 3, 2, 2))
        return [
            ((x, probability), {"training": training, "rng": np.random.default_rng(seed)})
            for training, seed in ((True, 1), (True, 11), (False, 1))
        ]

    return samples


DEFAULTS = {"training": True, "rng": None}
register(KnownOp("dropout", ("x", "rate"), ("dx",), right, _samples(0.3), DEFAULTS))
register(KnownOp("drop_path", ("x", "survival_prob"), ("dx",), right, _samples(0.7), DEFAULTS))
