"""Activations: ReLU, ReLU6, sigmoid, swish.

Each is applied to every element by itself, so the arrays are flattened and cut into pieces.
"""

from typing import NamedTuple

import numpy as np

from npnets.ops.checks import check_floating, check_gradient
from npnets.ops.rows import LONG_ROW, repeated
from npnets.parallel import cut, run

UPPER = {"relu": np.inf, "relu6": 6}
"""The activations that cut numbers off, at 0 and at this bound: batch norm can apply them in its pass."""

SAME_PASS = (*UPPER, "swish")
"""The activations that a convolution or linear layer can apply in its pass."""


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
    flat = x.reshape(-1)
    y, kept = np.empty_like(flat), np.empty_like(flat)

    def work(piece):
        _sigmoid(flat[piece], out=kept[piece])
        y[piece] = kept[piece]

    run(work, _pieces(y))
    return y.reshape(x.shape), SigmoidCache(kept.reshape(x.shape))


def sigmoid_backward(dy, cache):
    """Return ``dx = dy y (1 - y)``."""
    check_gradient("sigmoid", dy, cache.y.shape)
    dy_flat, y = dy.reshape(-1), cache.y.reshape(-1)
    dx = np.empty(y.shape, np.result_type(dy, y))

    def work(piece):
        part = np.subtract(1, y[piece], out=dx[piece])
        part *= y[piece]
        part *= dy_flat[piece]

    run(work, _pieces(dx))
    return dx.reshape(dy.shape)


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
    flat = x.reshape(-1)
    y, s = np.empty_like(flat), np.empty_like(flat)

    def work(piece):
        _sigmoid(flat[piece], out=s[piece])
        np.multiply(flat[piece], s[piece], out=y[piece])

    run(work, _pieces(y))
    return y.reshape(x.shape), SwishCache(x, s.reshape(x.shape))


def swish_backward(dy, cache):
    """Return ``dx = dy (s + x s (1 - s))`` with ``s = sigmoid(x)``, computed as ``dy s (1 + x (1 - s))``."""
    check_gradient("swish", dy, cache.x.shape)
    dy_flat, x, s = (array.reshape(-1) for array in (dy, *cache))
    dx = np.empty(x.shape, np.result_type(dy, x))

    def work(piece):
        part = np.subtract(1, s[piece], out=dx[piece])
        part *= x[piece]
        part += 1
        part *= s[piece]
        part *= dy_flat[piece]

    run(work, _pieces(dx))
    return dx.reshape(dy.shape)


def clip_of(op, activation, x):
    """Return the function ``clip(x, out, mask)`` of an activation for arrays like x, or None for None.

    It writes the activation of x into ``out``, and into ``mask`` where its slope is one. Errors name ``op``.
    """
    _check_activation(op, activation, x, UPPER)
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
    _check_activation(op, activation, y, SAME_PASS)
    b_row = None if b is None else repeated(b, max(1, LONG_ROW // len(b)))

    def finish(part, out=None):
        if b is not None:
            flat = part.reshape(-1)
            rest = len(flat) % len(b_row)
            rows = flat[: len(flat) - rest].reshape(-1, len(b_row))
            rows += b_row
            flat[len(flat) - rest :] += b_row[:rest]
        target = part if out is None else out
        if activation == "swish":
            _swish(part, target)
        elif activation is not None:
            np.clip(part, 0, UPPER[activation], out=target)
        elif out is not None:
            out[...] = part

    return finish


def gradient_before(activation, dy, y):
    """Return the gradient with respect to y, the input of an activation, for the gradient dy after it."""
    if activation == "swish":
        return swish_backward(dy, swish_forward(y)[1])
    return _masked(activation, dy, _clipped(activation, y)[1])


def _check_activation(op, activation, x, known):
    if activation is None:
        return
    if activation not in tuple(known):
        listed = ", ".join(f'"{name}"' for name in known)
        raise ValueError(f"{op}: activation must be {listed} or None, got {activation!r}")
    if x.dtype.kind == "c" and activation in UPPER:
        raise ValueError(f"{op}: has a kink, so complex numbers (and complex-step gradients) do not fit it")


def _clipped(op, x):
    check_floating(op, x, "x")
    clip = clip_of(op, op, x)
    flat = x.reshape(-1)
    y, mask = np.empty_like(flat), np.empty(flat.shape, bool)
    run(lambda piece: clip(flat[piece], out=y[piece], mask=mask[piece]), _pieces(flat))
    return y.reshape(x.shape), MaskCache(mask.reshape(x.shape))


def _masked(op, dy, cache):
    check_gradient(op, dy, cache.mask.shape)
    dy_flat, mask = dy.reshape(-1), cache.mask.reshape(-1)
    dx = np.empty_like(dy_flat)
    run(lambda piece: np.multiply(dy_flat[piece], mask[piece], out=dx[piece]), _pieces(dx))
    return dx.reshape(dy.shape)


def _sigmoid(x, out):
    """Write ``e / (1 + e)`` with ``e = exp(x)`` into ``out``.

    Where x is negative, e underflows to zero as it should. Where it is large, the result is 1 to the last digit, long
    before e overflows: numbers whose e would are cut off.
    """
    largest = np.floor(np.log(np.finfo(x.dtype).max))
    np.clip(x.real, -np.inf, largest, out=out.real)
    if x.dtype.kind == "c":
        out.imag = x.imag
    np.exp(out, out=out)
    np.divide(out, out + 1, out=out)


def _swish(x, out):
    """Write ``x / (1 + exp(-x))`` of images (N, H, W, C), or of rows (N, C), into ``out``, which may be x."""
    for image, result in zip(x, out) if x.ndim == 4 else [(x, out)]:
        for lines in cut(len(image), image.nbytes / len(image)):  # the scratch array shall not outgrow the cache
            e = np.negative(image[lines])
            with np.errstate(over="ignore"):  # of an x so negative that x / inf, zero, is right
                np.exp(e, out=e)
            e += 1
            np.divide(image[lines], e, out=result[lines])


def _pieces(flat):
    return cut(flat.size, flat.itemsize)
