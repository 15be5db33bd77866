"""Standard and depthwise convolution.

Both are cross-correlations, as in the papers: the kernel is not flipped. The images of a batch are independent, so a
batch is cut into pieces of a few images that stay in a core's cache; padding, windows and columns exist for one piece
at a time.
"""

import itertools
import math
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

from npnets.ops.activation import finish_of, gradient_before
from npnets.ops.checks import check_bias, check_gradient, check_ndim
from npnets.parallel import cut, run, sum_in_order
from npnets.shapes import Geometry, geometry


class ConvCache(NamedTuple):
    """What the backward needs: the inputs of the forward and the resolved geometry."""

    x: np.ndarray
    w: np.ndarray
    b: np.ndarray | None
    geometry: Geometry
    activation: str | None = None


# --- Standard convolution --------------------------------------------------------------------------------------------


def conv2d_forward(x, w, b=None, *, stride=1, padding="same", dilation=1, activation=None):
    """Filter and combine in one step: each output channel sums a window over all input channels.

    ``G[k, l, n] = sum over i, j, m of K[i, j, m, n] F[k + i - 1, l + j - 1, m]`` (MobileNetV1, section 3.1), for each
    image of the batch. The windows of a piece are copied into the rows of a matrix; the sum is then one product.

    Parameters
    ----------
    x : ndarray, shape (N, H, W, C_in)
        F of the paper, one for each image.
    w : ndarray, shape (K_h, K_w, C_in, C_out)
        K of the paper, with its index order.
    b : ndarray, shape (C_out,), optional
    stride, dilation : int or (int, int)
        Step between windows, and between the pixels of a window, along the height and the width.
    padding : {"same", "valid", "symmetric"}, int, or ((top, bottom), (left, right))
        Zeros around the image. ``"same"`` is TensorFlow's: ``ceil(n / stride)`` outputs, the odd pixel at the bottom
        and on the right. ``"symmetric"`` is ``span // 2`` on every side.
    activation : {None, "relu", "relu6", "swish"}
        Applied to y while y is still in the core's cache. Meant for inference: the backward computes y once more.

    Returns
    -------
    y : ndarray, shape (N, H_out, W_out, C_out)
        ``H_out = floor((H + top + bottom - dilation (K_h - 1) - 1) / stride) + 1``
    cache : ConvCache

    Raises
    ------
    ValueError
        If the shapes do not fit (the message names both), or a setting is out of range.

    Notes
    -----
    Differs from the paper: the section assumes stride one and counts pixels from 1, so that its ``k + i - 1`` reaches
    from ``k`` to ``k + D_K - 1``; where the image starts is left to the padding. Here the window of output pixel k
    starts at ``stride k - top``.
    """
    check_ndim("conv2d", x, 4, w, 4)
    K_h, K_w, C_in, C_out = w.shape
    if x.shape[-1] != C_in:
        raise ValueError(f"conv2d: x {x.shape} has {x.shape[-1]} channels, but w {w.shape} expects {C_in}")
    check_bias("conv2d", b, w)
    geo = geometry(x.shape[1:3], (K_h, K_w), stride=stride, padding=padding, dilation=dilation, name="conv2d")
    y = np.empty((len(x), *geo.out, C_out), np.result_type(x, w))
    finish = finish_of("conv2d", b, activation, y)
    w_matrix = w.reshape(-1, C_out)  # (K_h, K_w, C_in, C_out) -> (K_h K_w C_in, C_out)

    def product(images):
        np.matmul(_columns(x[images], geo), w_matrix, out=y[images].reshape(-1, C_out))
        finish(y[images])

    run(product, _pieces(len(x), geo, C_in, y.itemsize))
    return y, ConvCache(x, w, b, geo, activation)


def conv2d_backward(dy, cache):
    """Return ``(dx, dw, db)`` of :func:`conv2d_forward`; ``db`` is None where there was no bias.

    The forward is ``y = columns w``, so ``dw = columns^T dy``. Kernel entry (i, j) sent ``x w[i, j]`` from one pixel of
    the padded image to each output, so dx adds up ``dy w[i, j]^T`` on those pixels, for every entry.

    Parameters
    ----------
    dy : ndarray, shape (N, H_out, W_out, C_out)
    cache : ConvCache
    """
    x, w, b, geo, activation = cache
    N, C_out = len(x), w.shape[-1]
    check_gradient("conv2d", dy, (N, *geo.out, C_out))
    if activation is not None:
        dy = gradient_before(activation, dy, conv2d_forward(x, w, b, **_settings(geo))[0])
    dx = np.empty(x.shape, np.result_type(dy, w))

    def gradients(images):
        dy_rows = dy[images].reshape(-1, C_out)
        dw = _columns(x[images], geo).T @ dy_rows
        _add_where_taken_from(dy_rows, w, dx[images], geo)
        return dw, None if b is None else dy_rows.sum(axis=0)

    parts = run(gradients, _pieces(N, geo, x.shape[-1], dx.itemsize))
    dw = sum_in_order(part[0] for part in parts).reshape(w.shape)
    db = None if b is None else sum_in_order(part[1] for part in parts)
    return dx, dw, db


def _settings(geo):
    """Return the keywords of a forward with this geometry."""
    return {"stride": geo.stride, "padding": geo.pads, "dilation": geo.dilation}


def _pieces(N, geo, C_in, itemsize):
    return cut(N, math.prod(geo.out) * math.prod(geo.kernel) * C_in * itemsize)


def _columns(x, geo):
    """Copy every window into a row: (N, H, W, C) -> (N H_out W_out, K_h K_w C)."""
    padded = _pad(x, geo.pads)
    windows = _pixel_windows(padded, geo)
    return windows.reshape(len(x) * math.prod(geo.out), -1)


def _add_where_taken_from(dy_rows, w, dx, geo):
    """Write into dx, for each pixel, the sum of ``dy w[i, j]^T`` over the kernel entries that met it."""
    N, H, W, C = dx.shape
    (top, bottom), (left, right) = geo.pads
    (K_h, K_w), (s_h, s_w), (d_h, d_w), (H_out, W_out) = geo.kernel, geo.stride, geo.dilation, geo.out
    padded = np.zeros((N, H + top + bottom, W + left + right, C), dx.dtype)
    for i in range(K_h):
        for j in range(K_w):
            rows = slice(i * d_h, i * d_h + (H_out - 1) * s_h + 1, s_h)
            cols = slice(j * d_w, j * d_w + (W_out - 1) * s_w + 1, s_w)
            padded[:, rows, cols] += (dy_rows @ w[i, j].T).reshape(N, H_out, W_out, C)
    dx[...] = padded[:, top : top + H, left : left + W]


def _pad(x, pads):
    """Return a C-contiguous copy of x (N, H, W, C) with zeros around its images, or x itself where none are needed."""
    (top, bottom), (left, right) = pads
    if not any((top, bottom, left, right)):
        return np.ascontiguousarray(x)
    padded = bordered(x.shape[:3], x.shape[-1], pads, x.dtype)
    inside(padded, pads)[...] = x
    clear_border(padded, pads)
    return padded


def bordered(size, C, pads, dtype):
    """Return an empty array for images of a ``size`` (N, H, W) with borders; see :func:`clear_border`."""
    N, H, W = size
    (top, bottom), (left, right) = pads
    return np.empty((N, top + H + bottom, left + W + right, C), dtype)


def inside(padded, pads):
    """View padded images without their borders."""
    (top, bottom), (left, right) = pads
    _, H, W, _ = padded.shape
    return padded[:, top : H - bottom, left : W - right]


def clear_border(padded, pads):
    """Write zeros around padded images."""
    (top, bottom), (left, right) = pads
    _, H, W, _ = padded.shape
    padded[:, :top] = 0
    padded[:, H - bottom :] = 0
    padded[:, :, :left] = 0
    padded[:, :, W - right :] = 0


# --- Depthwise convolution -------------------------------------------------------------------------------------------


def depthwise_conv2d_forward(x, w, b=None, *, stride=1, padding="same", dilation=1, activation=None):
    """Filter each channel with a kernel of its own; channels are not combined (multiplier 1).

    ``G^[k, l, m] = sum over i, j of K^[i, j, m] F[k + i - 1, l + j - 1, m]`` (MobileNetV1, section 3.1). Where a
    standard convolution sums over the input channels, this one keeps them apart, which costs C_out times less.

    Parameters
    ----------
    x : ndarray, shape (N, H, W, C)
    w : ndarray, shape (K_h, K_w, C)
        K^ of the paper, with its index order.
    b : ndarray, shape (C,), optional
    stride, dilation, padding, activation
        As in :func:`conv2d_forward`.

    Returns
    -------
    y : ndarray, shape (N, H_out, W_out, C)
    cache : ConvCache

    Raises
    ------
    ValueError
        If the shapes do not fit (the message names both), or a setting is out of range.

    Notes
    -----
    All pixels of an output row, with all their channels, are one run of ``W_out C`` contiguous numbers, and so are the
    input pixels that kernel entry (i, j) multiplies: the image row moved by j pixels. With the kernel repeated along
    the row, the sum over i and j becomes one contraction of long rows.
    """
    check_ndim("depthwise_conv2d", x, 4, w, 3)
    if x.shape[-1] != w.shape[-1]:
        raise ValueError(
            f"depthwise_conv2d: x {x.shape} has {x.shape[-1]} channels, but w {w.shape} has kernels for {w.shape[-1]}"
        )
    check_bias("depthwise_conv2d", b, w)
    settings = {"stride": stride, "padding": padding, "dilation": dilation}
    geo = geometry(x.shape[1:3], w.shape[:2], **settings, name="depthwise_conv2d")
    kernel = depthwise_kernel(w, geo)
    y = np.empty((len(x), *geo.out, w.shape[-1]), np.result_type(x, w))
    finish = finish_of("depthwise_conv2d", b, activation, y)

    def filter_images(images):
        kernel.filter(_pad(x[images], geo.pads), out=y[images])
        finish(y[images])

    run(filter_images, cut(len(x), x.nbytes / len(x)))
    return y, ConvCache(x, w, b, geo, activation)


def depthwise_conv2d_backward(dy, cache):
    """Return ``(dx, dw, db)`` of :func:`depthwise_conv2d_forward`; ``db`` is None where there was no bias.

    ``dw[i, j, m]`` sums ``dy[k, l, m]`` times the input pixel that entry (i, j) met there. ``dx`` is again a depthwise
    convolution: of dy with the flipped kernel, since the pixel that entry i met at output k is met by entry i + 1 at
    output k - 1. Under a stride, only every s-th kernel entry reaches a given pixel.

    Parameters
    ----------
    dy : ndarray, shape (N, H_out, W_out, C)
    cache : ConvCache
    """
    x, w, b, geo, activation = cache
    check_gradient("depthwise_conv2d", dy, (len(x), *geo.out, x.shape[-1]))
    if activation is not None:
        dy = gradient_before(activation, dy, depthwise_conv2d_forward(x, w, b, **_settings(geo))[0])
    kernel = transposed_kernel(w, geo, x.shape[1:3])
    dx = np.empty(x.shape, np.result_type(dy, w))

    def gradients(images):
        kernel.input_gradient(_pad(dy[images], kernel.pads), out=dx[images])
        dw = kernel_gradient(_pad(x[images], geo.pads), dy[images], geo)
        return dw, None if b is None else dy[images].sum(axis=(0, 1, 2))

    parts = run(gradients, cut(len(x), x.nbytes / len(x)))
    dw = sum_in_order(part[0] for part in parts)
    db = None if b is None else sum_in_order(part[1] for part in parts)
    return dx, dw, db


# The convolution and its two gradients for a slice of a batch, already padded; the bottleneck block uses them too.


class DepthwiseKernel(NamedTuple):
    """A kernel, repeated along the rows that it multiplies: once for all slices of a batch."""

    geometry: Geometry
    phases: list["ColumnPhase"]
    rows: list[np.ndarray]  # for each phase (K_h, taps, W_out C)

    def filter(self, padded, out):
        """Write the convolution of padded images (N, top + H + bottom, ...) into ``out`` (N, H_out, W_out, C)."""
        y_rows = _rows(out)
        for phase, kernel in zip(self.phases, self.rows):
            windows = _row_windows(padded, phase, self.geometry)
            if phase is self.phases[0]:
                np.einsum("nhijr,ijr->nhr", windows, kernel, out=y_rows)
            else:
                y_rows += np.einsum("nhijr,ijr->nhr", windows, kernel)


def depthwise_kernel(w, geo):
    """Prepare a kernel w (K_h, K_w, C) for a convolution of this geometry."""
    phases = _column_phases(geo)
    rows = [np.tile(w[:, phase.taps], geo.out[1]) for phase in phases]  # (K_h, taps, C) -> (K_h, taps, W_out C)
    return DepthwiseKernel(geo, phases, rows)


def kernel_gradient(padded, dy, geo):
    """Return dw (K_h, K_w, C) for padded images and dy (N, H_out, W_out, C)."""
    if geo.stride[1] > 1:
        return np.einsum("nhwijc,nhwc->ijc", _pixel_windows(padded, geo), dy)
    dw = np.empty((*geo.kernel, dy.shape[-1]), np.result_type(padded, dy))
    (phase,) = _column_phases(geo)
    windows = _row_windows(padded, phase, geo)
    dy_rows = _rows(dy)
    for j in range(geo.kernel[1]):  # one einsum for all columns would take longer
        rows = np.einsum("nhir,nhr->ir", windows[:, :, :, j], dy_rows)  # -> (K_h, W_out C)
        dw[:, j] = rows.reshape(geo.kernel[0], geo.out[1], -1).sum(axis=1)
    return dw


class TransposedKernel(NamedTuple):
    """A kernel, repeated along the rows of dy that it multiplies on the way back."""

    pads: tuple  # the zeros that dy needs around it
    reaches: list[tuple["Reach", "Reach", np.ndarray | None]]

    def input_gradient(self, padded_dy, out):
        """Write dx into ``out`` (N, H, W, C), for dy with zeros around it.

        It is a stride-1 convolution of dy for each pair of residues of the pixels modulo the stride.
        """
        C = out.shape[-1]
        (top, _), (left, _) = self.pads
        padded = _rows(padded_dy)
        for rows, columns, kernel in self.reaches:
            target = out[:, rows.pixels, columns.pixels]
            if kernel is None:
                target[...] = 0  # a stride larger than the kernel skips these pixels
                continue
            start = padded[:, top + rows.first :, (left + columns.first) * C :]
            shape = (len(out), rows.count, len(rows.taps), len(columns.taps), columns.count * C)
            windows = _windows(start, shape, steps=(1, rows.step, columns.step * C))
            if columns.pixels.step == 1:
                np.einsum("nhijr,ijr->nhr", windows, kernel, out=_rows(target))
            else:
                target[...] = np.einsum("nhijr,ijr->nhr", windows, kernel).reshape(target.shape)


def transposed_kernel(w, geo, size):
    """Prepare a kernel w (K_h, K_w, C) for the gradient of images of a ``size`` (H, W)."""
    row_reaches, column_reaches = (
        _reaches(*axis) for axis in zip(size, geo.out, geo.kernel, geo.stride, geo.dilation, geo.pads)
    )

    def along_rows(rows, columns):
        return np.tile(w[np.ix_(rows.taps, columns.taps)], columns.count) if rows.taps and columns.taps else None

    pairs = itertools.product(row_reaches, column_reaches)
    reaches = [(rows, columns, along_rows(rows, columns)) for rows, columns in pairs]
    return TransposedKernel(tuple(map(_reach_pads, (row_reaches, column_reaches), geo.out)), reaches)


class ColumnPhase(NamedTuple):
    """Kernel columns that meet the same image columns modulo the stride.

    Neighbouring outputs of a strided convolution are not neighbours in the image. But the image columns first,
    first + s, first + 2s, ..., put side by side, are an image on which these kernel columns (``taps``) move with
    stride 1, ``step`` columns from one tap to the next. At stride 1 there is one phase: the image itself.
    """

    taps: slice
    first: int
    step: int


def _column_phases(geo):
    K_w, s, d = geo.kernel[1], geo.stride[1], geo.dilation[1]
    common = math.gcd(s, d)
    every = s // common  # taps j, j + every, ... meet columns that are congruent modulo the stride
    return [ColumnPhase(slice(j, None, every), j * d, d // common) for j in range(min(every, K_w))]


def _row_windows(padded, phase, geo):
    """View the padded images as (N, H_out, K_h, taps, W_out C): for each kernel entry, the row that it multiplies."""
    s_h, s_w = geo.stride
    C = padded.shape[-1]
    rows = _rows(padded if s_w == 1 else np.ascontiguousarray(padded[:, :, phase.first :: s_w]))
    taps = len(range(geo.kernel[1])[phase.taps])
    shape = (len(rows), geo.out[0], geo.kernel[0], taps, geo.out[1] * C)
    return _windows(rows, shape, steps=(s_h, geo.dilation[0], phase.step * C))


def _windows(rows, shape, steps):
    """View images stored as rows (N, H, W C) as windows (N, H_out, taps, taps, W_out C).

    ``steps``: how many rows from one output to the next and from one tap to the next, and how many numbers along the
    row from one tap to the next.
    """
    n, h, _ = rows.strides
    item = rows.itemsize  # not the last stride: for an axis of length 1 NumPy allows any
    output, tap, along = steps
    return as_strided(rows, shape, (n, output * h, tap * h, along * item, item), writeable=False)


def _pixel_windows(padded, geo):
    """View the padded images as (N, H_out, W_out, K_h, K_w, C): for each output, the pixels of its window."""
    n, h, w, c = padded.strides
    (s_h, s_w), (d_h, d_w) = geo.stride, geo.dilation
    shape = (len(padded), *geo.out, *geo.kernel, padded.shape[-1])
    return as_strided(padded, shape, (n, s_h * h, s_w * w, d_h * h, d_w * w, c), writeable=False)


def _rows(images):
    """View images as rows of pixels: (N, H, W, C) -> (N, H, W C)."""
    N, H, W, C = images.shape
    return images.reshape(N, H, W * C)


class Reach(NamedTuple):
    """Which outputs a pixel takes part in, along one axis, for the pixels r, r + s, r + 2s, ... (``pixels``).

    Pixel ``r + s k`` meets kernel entry ``taps[t]`` (in reversed order, the flip) in output ``k + first + step t``.
    """

    pixels: slice
    count: int
    taps: list[int]
    first: int
    step: int


def _reaches(size, out, kernel, stride, dilation, pads):
    """Solve ``stride * output + dilation * tap = pixel + before`` for each residue of the pixels modulo the stride."""
    reaches = []
    step = dilation // math.gcd(stride, dilation)
    for r in range(min(stride, size)):
        taps = [i for i in reversed(range(kernel)) if (r + pads[0] - dilation * i) % stride == 0]
        first = (r + pads[0] - dilation * taps[0]) // stride if taps else 0
        reaches.append(Reach(slice(r, None, stride), len(range(r, size, stride)), taps, first, step))
    return reaches


def _reach_pads(reaches, out):
    """Return how many zeros dy needs before and after so that every reach stays inside."""
    first = [reach.first for reach in reaches if reach.taps]
    last = [reach.count - 1 + reach.first + reach.step * (len(reach.taps) - 1) for reach in reaches if reach.taps]
    return max(0, -min(first, default=0)), max(0, max(last, default=0) - (out - 1))
