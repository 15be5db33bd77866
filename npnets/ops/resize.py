"""Bilinear resizing of images, as two matrix products."""

from typing import NamedTuple

import numpy as np

from npnets.ops.checks import check_floating, check_gradient, check_ndim
from npnets.shapes import pair


class ResizeCache(NamedTuple):
    """The interpolation matrices along the height (H_out, H) and along the width (W_out, W), and the channels."""

    along_height: np.ndarray
    along_width: np.ndarray
    x_shape: tuple


def resize_bilinear_forward(x, size, *, align_corners=False):
    """Resize images to ``size`` pixels by linear interpolation along the height and then along the width.

    Every output pixel mixes two input pixels along each axis, so ``y = R_h x R_w^T`` for each channel, with matrices
    of interpolation weights whose rows sum to one.

    Parameters
    ----------
    x : ndarray, shape (N, H, W, C)
    size : int or (int, int)
        The new height and width in pixels.
    align_corners : bool
        False: pixels are areas, output pixel k lies at ``(k + 1/2) H / H_out - 1/2`` of the input. True: the centres
        of the corner pixels stay where they are, ``k (H - 1) / (H_out - 1)``, as DeepLab resizes.

    Returns
    -------
    y : ndarray, shape (N, H_out, W_out, C)
    cache : ResizeCache

    Raises
    ------
    ValueError
        If x is not (N, H, W, C) or the size is not positive.
    """
    check_ndim("resize_bilinear", x, 4)
    check_floating("resize_bilinear", x, "x")
    H_out, W_out = pair(size, "resize_bilinear: size")
    along_height = _interpolation(x.shape[1], H_out, align_corners, x.real.dtype)
    along_width = _interpolation(x.shape[2], W_out, align_corners, x.real.dtype)
    return _apply(along_height, along_width, x), ResizeCache(along_height, along_width, x.shape)


def resize_bilinear_backward(dy, cache):
    """Return dx of :func:`resize_bilinear_forward`: the transposed matrices, ``dx = R_h^T dy R_w``."""
    along_height, along_width, (N, _, _, C) = cache
    check_gradient("resize_bilinear", dy, (N, len(along_height), len(along_width), C))
    return _apply(along_height.T, along_width.T, dy)


def _apply(along_height, along_width, x):
    N, H, W, C = x.shape
    tall = (along_height @ x.reshape(N, H, W * C)).reshape(N, -1, W, C)  # (N, H, W, C) -> (N, H_out, W, C)
    return along_width @ tall  # (W_out, W) times (N, H_out, W, C) -> (N, H_out, W_out, C)


def _interpolation(size, out, align_corners, dtype):
    """Return the matrix (out, size) of interpolation weights along one axis."""
    k = np.arange(out)
    if align_corners:
        position = k * ((size - 1) / max(out - 1, 1))
    else:
        position = np.clip((k + 0.5) * (size / out) - 0.5, 0, size - 1)  # beyond the border: the border's value
    below = np.minimum(position.astype(int), size - 1)
    above = np.minimum(below + 1, size - 1)
    fraction = position - below
    weights = np.zeros((out, size))
    weights[k, below] += 1 - fraction
    weights[k, above] += fraction
    return weights.astype(dtype)
