"""Fully connected and pointwise (1x1) layers: one matrix product each.

A pointwise convolution combines the channels of every pixel with the same matrix. Because channels are the last axis,
the image is already the matrix of the product, one row a pixel, and nothing has to be rearranged first (MobileNetV1,
section 3.2: "1x1 convolutions do not require this reordering in memory").
"""

from typing import NamedTuple

import numpy as np

from npnets.ops.activation import finish_of, gradient_before
from npnets.ops.checks import check_bias, check_gradient, check_ndim
from npnets.parallel import cut, run, sum_in_order


class LinearCache(NamedTuple):
    """What the backward needs: the inputs of the forward."""

    x: np.ndarray
    w: np.ndarray
    b: np.ndarray | None
    activation: str | None = None


def linear_forward(x, w, b=None, *, activation=None):
    """Return ``y = x w + b``, or its activation.

    Parameters
    ----------
    x : ndarray, shape (N, C_in)
    w : ndarray, shape (C_in, C_out)
    b : ndarray, shape (C_out,), optional
    activation : {None, "relu", "relu6", "swish"}
        Applied to y while y is still in the core's cache. Meant for inference: the backward computes y once more.

    Returns
    -------
    y : ndarray, shape (N, C_out)
    cache : LinearCache

    Raises
    ------
    ValueError
        If the shapes do not fit; the message names both.
    """
    return _matmul_forward("linear", x, w, b, activation, ndim=2)


def linear_backward(dy, cache):
    """Return ``(dx, dw, db)`` of :func:`linear_forward`; ``db`` is None where there was no bias.

    With ``y = x w + b``: ``dx = dy w^T``, ``dw = x^T dy``, ``db = sum over N of dy``.
    """
    return _matmul_backward("linear", dy, cache)


def pointwise_conv2d_forward(x, w, b=None, *, activation=None):
    """Combine the channels of each pixel: ``y[n, k, l, :] = x[n, k, l, :] w + b``.

    This is the standard convolution of MobileNetV1 section 3.1 with D_K = 1, the second step of a depthwise separable
    convolution. It costs ``C_in C_out H W`` multiply-adds.

    Parameters
    ----------
    x : ndarray, shape (N, H, W, C_in)
    w : ndarray, shape (C_in, C_out)
    b : ndarray, shape (C_out,), optional
    activation : {None, "relu", "relu6", "swish"}
        As in :func:`linear_forward`.

    Returns
    -------
    y : ndarray, shape (N, H, W, C_out)
    cache : LinearCache

    Raises
    ------
    ValueError
        If the shapes do not fit; the message names both.
    """
    return _matmul_forward("pointwise_conv2d", x, w, b, activation, ndim=4)


def pointwise_conv2d_backward(dy, cache):
    """Return ``(dx, dw, db)`` of :func:`pointwise_conv2d_forward`, as for a linear layer with N H W rows."""
    return _matmul_backward("pointwise_conv2d", dy, cache)


def _matmul_forward(op, x, w, b, activation, ndim):
    check_ndim(op, x, ndim, w, 2)
    if x.shape[-1] != w.shape[0]:
        raise ValueError(f"{op}: x {x.shape} has {x.shape[-1]} channels, but w {w.shape} expects {w.shape[0]}")
    check_bias(op, b, w)
    rows = x.reshape(-1, x.shape[-1])  # (N, H, W, C_in) -> (N H W, C_in)
    y = np.empty((len(rows), w.shape[1]), np.result_type(x, w))
    finish = finish_of(op, b, activation, y)

    def product(piece):
        np.matmul(rows[piece], w, out=y[piece])
        finish(y[piece])

    run(product, cut(len(rows), y.itemsize * sum(w.shape)))
    return y.reshape(*x.shape[:-1], -1), LinearCache(x, w, b, activation)


def _matmul_backward(op, dy, cache):
    x, w, b, activation = cache
    check_gradient(op, dy, (*x.shape[:-1], w.shape[1]))
    if activation is not None:
        dy = gradient_before(activation, dy, _matmul_forward(op, x, w, b, None, x.ndim)[0])
    x_rows, dy_rows = x.reshape(-1, w.shape[0]), dy.reshape(-1, w.shape[1])
    dx = np.empty(x_rows.shape, np.result_type(dy, w))

    def gradients(piece):
        np.matmul(dy_rows[piece], w.T, out=dx[piece])
        return x_rows[piece].T @ dy_rows[piece], None if b is None else dy_rows[piece].sum(axis=0)

    parts = run(gradients, cut(len(dx), dx.itemsize * sum(w.shape)))
    dw = sum_in_order(part[0] for part in parts)
    db = None if b is None else sum_in_order(part[1] for part in parts)
    return dx.reshape(x.shape), dw, db
