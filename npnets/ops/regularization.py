"""Dropout and drop path (stochastic depth). Both scale in training, so that inference is the identity."""

from typing import NamedTuple

import numpy as np

from npnets.ops.checks import check_floating, check_gradient


class DropoutCache(NamedTuple):
    """What was kept (None: everything), the factor on it, and the shape of the input."""

    mask: np.ndarray | None
    scale: float
    x_shape: tuple


def dropout_forward(x, rate, *, training, rng=None):
    """Set each activation to zero with probability ``rate``; multiply the others by ``1 / (1 - rate)``.

    Inverted dropout: the expectation of y is x, so inference needs no scaling (Srivastava et al. 2014, section 10,
    scale at test time instead).

    Parameters
    ----------
    x : ndarray, any shape
    rate : float
        Probability of being dropped, 0 <= rate < 1.
    training : bool
        In inference y is a copy of x.
    rng : numpy.random.Generator
        Where the mask is drawn from; needed in training.

    Returns
    -------
    y : ndarray, shape of x
    cache : DropoutCache

    Raises
    ------
    ValueError
        If rate is out of range, or training without a generator.
    """
    if not 0 <= rate < 1:
        raise ValueError(f"dropout: rate must be at least 0 and below 1, got {rate}")
    return _drop("dropout", x, rate, x.shape, training, rng)


def dropout_backward(dy, cache):
    """Return ``dx = dy mask / (1 - rate)``, with the mask of the forward."""
    return _drop_backward("dropout", dy, cache)


def drop_path_forward(x, survival_prob, *, training, rng=None):
    """Set the whole branch of an image to zero with probability ``1 - survival_prob``; scale the others up.

    Stochastic depth (Huang et al. 2016) as EfficientNet uses it: one draw for each image of the batch, survivors
    multiplied by ``1 / survival_prob``.

    Parameters
    ----------
    x : ndarray, shape (N, ...)
        The output of a residual branch, before it is added to the shortcut.
    survival_prob : float
        Probability that a branch is kept, 0 < survival_prob <= 1.
    training : bool
        In inference y is a copy of x.
    rng : numpy.random.Generator
        Where the draws come from; needed in training.

    Returns
    -------
    y : ndarray, shape of x
    cache : DropoutCache

    Raises
    ------
    ValueError
        If survival_prob is out of range, or training without a generator.

    Notes
    -----
    Differs from the paper, which scales at test time; the scaling in training is that of EfficientNet's code.
    """
    if not 0 < survival_prob <= 1:
        raise ValueError(f"drop_path: survival_prob must be above 0 and at most 1, got {survival_prob}")
    return _drop("drop_path", x, 1 - survival_prob, (len(x), *(1,) * (x.ndim - 1)), training, rng)


def drop_path_backward(dy, cache):
    """Return ``dx = dy mask / survival_prob``, with the draws of the forward."""
    return _drop_backward("drop_path", dy, cache)


def _drop(op, x, rate, mask_shape, training, rng):
    check_floating(op, x, "x")
    if not training or rate == 0:
        return x.copy(), DropoutCache(None, 1.0, x.shape)
    if rng is None:
        raise ValueError(f"{op}: training needs rng, a numpy.random.Generator such as numpy.random.default_rng(0)")
    mask = rng.random(mask_shape, np.float32) >= rate
    scale = 1 / (1 - float(rate))  # a float64 scalar of NumPy would turn float32 into float64
    return x * mask * scale, DropoutCache(mask, scale, x.shape)


def _drop_backward(op, dy, cache):
    check_gradient(op, dy, cache.x_shape)
    if cache.mask is None:
        return dy.copy()
    return dy * cache.mask * cache.scale
