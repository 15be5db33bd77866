"""Activations: ReLU, ReLU6, sigmoid, swish.

Each is applied to every element by itself, so the arrays are flattened and cut into pieces.
"""

from typing import NamedTuple

import numpy as np

from npnets.ops.checks import check_floating, check_gradient
from npnets.ops.rows import LONG_ROW, repeated
from npnets.parallel import cut, run

UPPER = {"relu": np.inf, "relu6": 6}
"""The activations that cut numbers off, at 0 and at this bound: they can be applied in the pass of another op."""


class MaskCache(NamedTuple):
    """Where the output follows the input with slope one."""

    mask: np.ndarray


class SigmoidCache(NamedTuple):
    """The output: the gradient of a sigmoid is a function of it alone."""

    y: np.ndarray


class SwishCache(NamedTuple):
    """The input and its sigmoid."""

    x: np.ndarray
    s: np.ndarray


def relu_forward(x):
    """Return ``y = max(x, 0)`` and a cache.

    Parameters
    ----------
    x : ndarray, any shape, real

    Returns
    -------
    y : ndarray, shape of x
    cache : MaskCache
    """
    return _clipped("relu", x)


def relu_backward(dy, cache):
    """Return ``dx = dy where x > 0, else 0``: at the kink, x = 0, the gradient is 0."""
    return _masked("relu", dy, cache)


def relu6_forward(x):
    """Return ``y = min(max(x, 0), 6)`` and a cache (the non-linearity of MobileNetV2, section 4).

    Parameters
    ----------
    x : ndarray, any shape, real

    Returns
    -------
    y : ndarray, shape of x
    cache : MaskCache
    """
    return _clipped("relu6", x)


def relu6_backward(dy, cache):
    """Return ``dx = dy where 0 < x < 6, else 0``: at both kinks the gradient is 0."""
    return _masked("relu6", dy, cache)


def sigmoid_forward(x):
    """Return ``y = 1 / (1 + exp(-x))`` and a cache, without overflow for any x.

    Parameters
    ----------
    x : ndarray, any shape

    Returns
    -------
    y : ndarray, shape of x
    cache : SigmoidCache
    """
    check_floating("sigmoid", x, "x")
    y = _sigmoid(x)
    return y, SigmoidCache(y.copy())


def sigmoid_backward(dy, cache):
    """Return ``dx = dy y (1 - y)``."""
    y = cache.y
    check_gradient("sigmoid", dy, y.shape)
    return dy * y * (1 - y)


def swish_forward(x):
    """Return ``y = x sigmoid(x)`` and a cache (EfficientNet's activation, also called SiLU).

    Parameters
    ----------
    x : ndarray, any shape

    Returns
    -------
    y : ndarray, shape of x
    cache : SwishCache
    """
    check_floating("swish", x, "x")
    s = _sigmoid(x)
    return x * s, SwishCache(x, s)


def swish_backward(dy, cache):
    """Return ``dx = dy (s + x s (1 - s))`` with ``s = sigmoid(x)``."""
    x, s = cache
    check_gradient("swish", dy, x.shape)
    return dy * (s + x * s * (1 - s))


def clip_of(op, activation, x):
    """Return the function ``clip(x, out, mask)`` of an activation for arrays like x, or None for None.

    It writes the activation of x into ``out``, and into ``mask`` where its slope is one. Errors name ``op``.
    """
    _check_activation(op, activation, x)
    if activation is None:
        return None
    upper = UPPER[activation]

    def clip(x, out, mask):
        np.greater(x, 0, out=mask)
        if upper < np.inf:
            mask &= x < upper
        np.clip(x, 0, upper, out=out)  # last: out may be x

    return clip


def finish_of(op, b, activation, y):
    """Return the function ``finish(part, out=part)`` that adds a bias to a part of y and applies an activation.

    So it can be done while the part, some pixels with all their channels, is still in the core's cache. Errors name
    ``op``.
    """
    _check_activation(op, activation, y)
    b_row = None if b is None else repeated(b, max(1, LONG_ROW // len(b)))

    def finish(part, out=None):
        if b is not None:
            flat = part.reshape(-1)
            rest = len(flat) % len(b_row)
            rows = flat[: len(flat) - rest].reshape(-1, len(b_row))
            rows += b_row
            flat[len(flat) - rest :] += b_row[:rest]
        if activation is not None:
            np.clip(part, 0, UPPER[activation], out=part if out is None else out)
        elif out is not None:
            out[...] = part

    return finish


def gradient_before(activation, dy, y):
    """Return the gradient with respect to y, the input of an activation, for the gradient dy after it."""
    return _masked(activation, dy, _clipped(activation, y)[1])


def _check_activation(op, activation, x):
    if activation is None:
        return
    if activation not in tuple(UPPER):
        raise ValueError(f'{op}: activation must be "relu", "relu6" or None, got {activation!r}')
    if x.dtype.kind == "c":
        raise ValueError(f"{op}: has a kink, so complex numbers (and complex-step gradients) do not fit it")


def _clipped(op, x):
    check_floating(op, x, "x")
    clip = clip_of(op, op, x)
    flat = x.reshape(-1)
    y, mask = np.empty_like(flat), np.empty(flat.shape, bool)
    run(lambda piece: clip(flat[piece], out=y[piece], mask=mask[piece]), cut(flat.size, flat.itemsize))
    return y.reshape(x.shape), MaskCache(mask.reshape(x.shape))


def _masked(op, dy, cache):
    check_gradient(op, dy, cache.mask.shape)
    dy_flat, mask = dy.reshape(-1), cache.mask.reshape(-1)
    dx = np.empty_like(dy_flat)
    run(lambda piece: np.multiply(dy_flat[piece], mask[piece], out=dx[piece]), cut(dx.size, dx.itemsize))
    return dx.reshape(dy.shape)


def _sigmoid(x):
    """exp only of numbers with a real part at most 0; the two halves are 1 / (1 + e) and e / (1 + e)."""
    positive = x.real >= 0
    e = np.exp(np.where(positive, -x, x))
    return np.where(positive, 1, e) / (1 + e)
