"""Scale each channel of an image by a number of its own: the last step of squeeze-and-excitation."""

import itertools
from typing import NamedTuple

import numpy as np

from npnets.ops.checks import check_array, check_floating, check_gradient, check_ndim
from npnets.ops.rows import channel_sums, rows_of
from npnets.parallel import cut, run


class ChannelScaleCache(NamedTuple):
    """The inputs: each is a factor of the other's gradient."""

    x: np.ndarray
    s: np.ndarray


def channel_scale_forward(x, s):
    """Return ``y[n, k, l, c] = x[n, k, l, c] s[n, c]``.

    Equation 4 of Squeeze-and-Excitation Networks (Hu et al. 2018): s are the gates, one for each channel of each image.

    Parameters
    ----------
    x : ndarray, shape (N, H, W, C)
    s : ndarray, shape (N, C)

    Returns
    -------
    y : ndarray, shape (N, H, W, C)
    cache : ChannelScaleCache

    Raises
    ------
    ValueError
        If the shapes do not fit; the message names both.
    """
    check_ndim("channel_scale", x, 4)
    check_array("channel_scale", s, "s")
    check_floating("channel_scale", s, "s")
    if s.shape != (x.shape[0], x.shape[3]):
        wanted = (x.shape[0], x.shape[3])
        raise ValueError(f"channel_scale: s must have the shape {wanted} for x {x.shape}, got {s.shape}")
    x_rows = _rows_of_images(x)
    y = np.empty(x_rows.shape, np.result_type(x, s))

    def scale(piece):
        np.multiply(x_rows[piece], _along_rows(s[piece[0]], x_rows), out=y[piece])

    run(scale, _pieces(y))
    return y.reshape(x.shape), ChannelScaleCache(x, s)


def channel_scale_backward(dy, cache):
    """Return ``(dx, ds)`` of :func:`channel_scale_forward`.

    ``dx[n, k, l, c] = dy[n, k, l, c] s[n, c]``, and since s[n, c] acts on every pixel,
    ``ds[n, c] = sum over k, l of dy[n, k, l, c] x[n, k, l, c]``.
    """
    x, s = cache
    check_gradient("channel_scale", dy, x.shape)
    x_rows, dy_rows = _rows_of_images(x), _rows_of_images(dy)
    dx = np.empty(x_rows.shape, np.result_type(dy, s))
    ds = np.zeros(s.shape, np.result_type(dy, x))

    def gradients(piece):
        np.multiply(dy_rows[piece], _along_rows(s[piece[0]], x_rows), out=dx[piece])
        products = np.einsum("nrl,nrl->nl", dy_rows[piece], x_rows[piece])  # (N, R, k W C) -> (N, k W C)
        return channel_sums(products, s.shape[1])

    pieces = _pieces(dx)
    for (images, _), part in zip(pieces, run(gradients, pieces)):
        ds[images] += part
    return dx.reshape(x.shape), ds


def _rows_of_images(x):
    """View images as long rows, none of which belongs to two images: (N, H, W, C) -> (N, R, k W C)."""
    rows = rows_of(x)
    return rows.reshape(len(x), -1, rows.shape[1])


def _along_rows(s, rows):
    """Repeat the factors of images along one row of theirs: (N, C) -> (N, 1, k W C)."""
    return s[:, np.newaxis].repeat(rows.shape[2] // s.shape[1], axis=1).reshape(len(s), 1, -1)


def _pieces(rows):
    """Return pairs of slices (images, rows): some small images at a time, or some rows of a large one."""
    N, R, length = rows.shape
    images = cut(N, R * length * rows.itemsize)
    return list(itertools.product(images, cut(R, length * rows.itemsize) if len(images) == N else [slice(None)]))
