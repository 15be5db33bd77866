"""Sums that are missing or become means, in every op that broadcasts a parameter over the batch and the pixels.

A vector that is added to (or multiplies) every pixel of every image gets the sum of all their gradients.
"""

import numpy as np

from npnets.gradcheck.catalogue import mistake
from npnets.gradcheck.classic import convolution, linear
from npnets.gradcheck.classic.normalization import statistics

OF_IMAGES = "conv2d depthwise_conv2d pointwise_conv2d batch_norm"


def before_the_sum(case):
    """Return what is summed over all axes but the last, by the name of its gradient."""
    if case.op == "batch_norm":
        return {"dgamma": case.dy * statistics(case).x_hat, "dbeta": case.dy}
    return {} if case.b is None else {"db": case.dy}


def _each_and_all(terms, change):
    return {name: change(term) for name, term in terms.items()}


@mistake(
    "conv2d depthwise_conv2d pointwise_conv2d linear batch_norm",
    "not summed",
    "nothing is summed: every output keeps its own gradient of the bias (or of gamma, beta)",
    "The gradient has the shape of the parameter, (C,). Sum over every axis but the last.",
)
def not_summed(case):
    """The shape of dy."""
    return _each_and_all(before_the_sum(case), np.copy)


@mistake(
    OF_IMAGES,
    "summed over the batch only",
    "the sum runs over the batch only, not over the pixels",
    "The parameter acts on every pixel too: sum over (N, H, W), not over axis 0 alone.",
)
def over_batch_only(case):
    """(H, W, C)."""
    return _each_and_all(before_the_sum(case), lambda term: term.sum(axis=0)) if case.dy.ndim == 4 else {}


@mistake(
    OF_IMAGES,
    "summed over the pixels only",
    "the sum runs over the pixels only, not over the batch",
    "Every image of the batch uses the same parameter: sum over (N, H, W).",
)
def over_pixels_only(case):
    """(N, C)."""
    return _each_and_all(before_the_sum(case), lambda term: term.sum(axis=(1, 2))) if case.dy.ndim == 4 else {}


@mistake(
    "conv2d depthwise_conv2d pointwise_conv2d linear batch_norm",
    "summed over the channels too",
    "the sum runs over the channels too",
    "Each channel has its own parameter: .sum() without an axis adds them all up.",
)
def over_everything(case):
    """A scalar."""
    return _each_and_all(before_the_sum(case), lambda term: np.array(term.sum()))


@mistake(
    OF_IMAGES,
    "mean instead of sum",
    "the mean is taken where the sum belongs",
    "The mean over the batch is in the loss already; what a parameter collects is added up.",
)
def mean_for_sum(case):
    """1/m too small."""
    return _each_and_all(before_the_sum(case), lambda term: term.mean(axis=tuple(range(term.ndim - 1))))


@mistake(
    "conv2d depthwise_conv2d pointwise_conv2d linear",
    "divided by the batch size",
    "the parameters' gradients are divided by the batch size",
    "The 1/N of a mean loss arrives with dy. Dividing again makes the learning rate depend on the batch.",
)
def divided_by_batch(case):
    """dw and db over N."""
    gradients = (linear if case.op in ("linear", "pointwise_conv2d") else convolution).right(case)
    return {name: gradients[name] / len(case.x) for name in ("dw", "db") if gradients[name] is not None}
