"""Max, average and global average pooling.

A window's cells are visited one kernel position at a time: for position (i, j), a strided view holds that cell of every
window at once.
"""

from typing import NamedTuple

import numpy as np

from npnets.ops.checks import check_floating, check_gradient, check_ndim
from npnets.parallel import cut, run
from npnets.shapes import Geometry, geometry, pair


class MaxPoolCache(NamedTuple):
    """For each output, which cell of its window (counted row by row) was the largest."""

    winner: np.ndarray
    x_shape: tuple
    geometry: Geometry


class AvgPoolCache(NamedTuple):
    """How many cells of each window lie inside the image, (H_out, W_out, 1)."""

    cells: np.ndarray
    x_shape: tuple
    geometry: Geometry


class GlobalAvgPoolCache(NamedTuple):
    """The shape of the input: its values do not matter to the gradient."""

    x_shape: tuple


def max_pool2d_forward(x, size, *, stride=None, padding="valid"):
    """Return the largest value of each window, for each channel.

    Parameters
    ----------
    x : ndarray, shape (N, H, W, C), real
    size : int or (int, int)
        Height and width of the window.
    stride : int or (int, int), optional
        Step between windows; by default the window's size.
    padding
        As in ``conv2d_forward``; cells outside the image never win.

    Returns
    -------
    y : ndarray, shape (N, H_out, W_out, C)
    cache : MaxPoolCache

    Raises
    ------
    ValueError
        If x is not (N, H, W, C), a setting is out of range, or a window could lie outside the image altogether.
    """
    geo = _pool_geometry("max_pool2d", x, size, stride, padding)
    if x.dtype.kind == "c":
        raise ValueError("max_pool2d: has kinks, so complex numbers (and complex-step gradients) do not fit it")
    y = np.empty((len(x), *geo.out, x.shape[-1]), x.dtype)
    winner = np.zeros(y.shape, np.min_scalar_type(geo.kernel[0] * geo.kernel[1] - 1))

    def largest(images):
        best, index = y[images], winner[images]
        for number, cell in enumerate(_cells(_padded(x[images], geo, fill=-np.inf), geo)):
            if number == 0:
                best[...] = cell
            else:
                larger = cell > best  # strictly: among equals the first one wins
                np.maximum(index, larger * index.dtype.type(number), out=index)
                np.maximum(best, cell, out=best)

    run(largest, _pieces(x))
    return y, MaxPoolCache(winner, x.shape, geo)


def max_pool2d_backward(dy, cache):
    """Return dx of :func:`max_pool2d_forward`: each dy goes to the cell that won (the first among equals)."""
    winner, x_shape, geo = cache
    check_gradient("max_pool2d", dy, winner.shape)
    return _spread(dy, x_shape, geo, lambda images, number: dy[images] * (winner[images] == number))


def avg_pool2d_forward(x, size, *, stride=None, padding="valid"):
    """Return the mean of each window, for each channel, over the cells that lie inside the image.

    Parameters
    ----------
    x, size, stride, padding
        As in :func:`max_pool2d_forward`.

    Returns
    -------
    y : ndarray, shape (N, H_out, W_out, C)
    cache : AvgPoolCache

    Raises
    ------
    ValueError
        As :func:`max_pool2d_forward`.

    Notes
    -----
    Padding does not count: a corner window of 3x3 with padding 1 divides by 4, as in TensorFlow (PyTorch divides by 9
    unless told otherwise).
    """
    geo = _pool_geometry("avg_pool2d", x, size, stride, padding)
    inside = np.zeros((1, *x.shape[1:3], 1), x.real.dtype) + 1
    cells = sum(_cells(_padded(inside, geo), geo))[0]  # (1, H_out, W_out, 1) -> (H_out, W_out, 1)
    y = np.empty((len(x), *geo.out, x.shape[-1]), x.dtype)

    def mean(images):
        first, *others = _cells(_padded(x[images], geo), geo)
        total = y[images]
        total[...] = first
        for cell in others:
            total += cell
        total /= cells

    run(mean, _pieces(x))
    return y, AvgPoolCache(cells, x.shape, geo)


def avg_pool2d_backward(dy, cache):
    """Return dx of :func:`avg_pool2d_forward`: each cell inside the image gets an equal share of dy."""
    cells, x_shape, geo = cache
    check_gradient("avg_pool2d", dy, (x_shape[0], *geo.out, x_shape[-1]))
    part = dy / cells
    return _spread(dy, x_shape, geo, lambda images, number: part[images])


def global_avg_pool_forward(x):
    """Return the mean over all pixels: ``y[n, c] = 1 / (H W) sum over k, l of x[n, k, l, c]``.

    Parameters
    ----------
    x : ndarray, shape (N, H, W, C)

    Returns
    -------
    y : ndarray, shape (N, C)
    cache : GlobalAvgPoolCache
    """
    check_ndim("global_avg_pool", x, 4)
    return x.mean(axis=(1, 2)), GlobalAvgPoolCache(x.shape)


def global_avg_pool_backward(dy, cache):
    """Return dx of :func:`global_avg_pool_forward`: every pixel gets ``dy / (H W)``."""
    N, H, W, C = cache.x_shape
    check_gradient("global_avg_pool", dy, (N, C))
    dx = np.empty(cache.x_shape, dy.dtype)
    dx[...] = (dy / (H * W))[:, None, None, :]  # (N, C) -> (N, H, W, C)
    return dx


def _pool_geometry(op, x, size, stride, padding):
    check_ndim(op, x, 4)
    check_floating(op, x, "x")
    size = pair(size, f"{op}: size")
    geo = geometry(x.shape[1:3], size, stride=size if stride is None else stride, padding=padding, name=op)
    if any(pad >= k for k, pads in zip(size, geo.pads) for pad in pads):
        raise ValueError(f"{op}: padding {geo.pads} is not smaller than the window {size}; some windows would be empty")
    return geo


def _padded(x, geo, fill=0):
    (top, bottom), (left, right) = geo.pads
    N, H, W, C = x.shape
    padded = np.full((N, top + H + bottom, left + W + right, C), fill, x.dtype)
    padded[:, top : top + H, left : left + W] = x
    return padded


def _cells(padded, geo):
    """Yield, row by row, for each position of the window a view (N, H_out, W_out, C) of that cell of all windows."""
    (s_h, s_w), (H_out, W_out) = geo.stride, geo.out
    for i in range(geo.kernel[0]):
        for j in range(geo.kernel[1]):
            yield padded[:, i : i + (H_out - 1) * s_h + 1 : s_h, j : j + (W_out - 1) * s_w + 1 : s_w]


def _spread(dy, x_shape, geo, share):
    """Add to each cell its share of the window's gradient, ``share(images, number of the cell)``."""
    (top, bottom), (left, right) = geo.pads
    _, H, W, C = x_shape
    dx = np.empty(x_shape, dy.dtype)

    def add_up(images):
        padded = np.zeros((len(dx[images]), top + H + bottom, left + W + right, C), dy.dtype)
        for number, cell in enumerate(_cells(padded, geo)):
            cell += share(images, number)
        dx[images] = padded[:, top : top + H, left : left + W]

    run(add_up, _pieces(dx))
    return dx


def _pieces(x):
    return cut(len(x), x.nbytes / max(len(x), 1))
