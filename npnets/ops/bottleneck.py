"""The block of MobileNetV1 and V2 as one op: expand, filter, project, with a batch norm after each.

The numbers are those of the layers one after the other, but for rounding. What makes it an op of its own is time: a
core computes faster than it can fetch big arrays from memory, and every meeting of the threads costs. Nothing but batch
norm couples the images of a batch. So between two batch norms, a slice of a few images goes through everything while it
is in the core's cache, and the threads meet only where the sums of the whole batch are needed:

=============  ================================================================================================
forward        for each slice
=============  ================================================================================================
1. expansion   mean and scatter of x, which tell the statistics of ``x w`` (see :func:`_expansion`)
2. filter      expand, normalize, clip; depthwise convolution; its moments
3. project     normalize, clip; product with the projection; its moments
4. output      normalize; add x, where the block has a shortcut
=============  ================================================================================================

The backward goes the same way up, from the sums of one batch norm to those of the next.
"""

import math
from typing import NamedTuple

import numpy as np

from npnets.ops.activation import UPPER, clip_of
from npnets.ops.checks import check_block, check_gradient, check_ndim
from npnets.ops.convolution import (
    bordered,
    clear_border,
    depthwise_kernel,
    inside,
    kernel_gradient,
    transposed_kernel,
)
from npnets.ops.normalization import (
    Normalizer,
    centred_rows,
    check_norm_settings,
    gradient_sums,
    joined,
    moments,
    normalizer,
    parameter_gradients,
    through_statistics,
    update_running,
)
from npnets.ops.rows import along_row, channel_sums, rows_of
from npnets.parallel import cut, run, sum_in_order
from npnets.shapes import Geometry, geometry


class ConvNorm(NamedTuple):
    """A convolution without bias, the batch norm after it (see ``batch_norm_forward``), and an activation."""

    w: np.ndarray
    gamma: np.ndarray
    beta: np.ndarray
    running_mean: np.ndarray
    running_var: np.ndarray
    decay: float = 0.99
    eps: float = 1e-3
    activation: str | None = "relu6"

    @property
    def arrays(self):
        """All of them, weights first."""
        return self[:5]


class Gradients(NamedTuple):
    """The gradients of the weights of a :class:`ConvNorm`."""

    w: np.ndarray
    gamma: np.ndarray
    beta: np.ndarray


class Expanded(NamedTuple):
    """What the forward leaves of the expansion. Its C_mid channels before batch norm are nowhere stored."""

    x: np.ndarray  # (N, H, W, C_in)
    mean: np.ndarray  # (C_in,), of x
    scatter: np.ndarray  # (C_in, C_in), the sum of (x - mean) (x - mean)^T over all pixels
    norm: Normalizer


class Convolved(NamedTuple):
    """What the forward leaves of the depthwise convolution, or of the projection."""

    y: np.ndarray  # (N, H_out, W_out, C), its output before batch norm
    norm: Normalizer


class BottleneckCache(NamedTuple):
    """What the backward needs. Each mask tells where an activation has slope one; it is None without one."""

    weights: tuple[ConvNorm | None, ConvNorm, ConvNorm]
    geometry: Geometry
    expanded: Expanded | None
    padded: np.ndarray  # (N, top + H + bottom, left + W + right, C_mid), what the depthwise convolution reads
    expanded_mask: np.ndarray | None
    filtered: Convolved
    projected: Convolved
    out_mask: np.ndarray | None
    shortcut: bool


def bottleneck_forward(x, expand, depthwise, project, *, stride=1, padding="same", dilation=1, shortcut=False):
    """Expand, filter and project in training: Table 1 of MobileNetV2, or without ``expand`` Figure 3 of MobileNetV1.

    The running statistics are updated in place, as by ``batch_norm_forward``.

    Parameters
    ----------
    x : ndarray, shape (N, H, W, C_in)
    expand : ConvNorm or None
        ``w`` (C_in, C_mid); with an activation. None at expansion factor 1, and then C_mid = C_in.
    depthwise : ConvNorm
        ``w`` (K_h, K_w, C_mid); with an activation.
    project : ConvNorm
        ``w`` (C_mid, C_out); the activation is None in a linear bottleneck.
    stride, padding, dilation
        Of the depthwise convolution, as in :func:`npnets.ops.depthwise_conv2d_forward`.
    shortcut : bool
        Whether x is added to the output, which must have its shape.

    Returns
    -------
    y : ndarray, shape (N, H_out, W_out, C_out)
    cache : BottleneckCache

    Raises
    ------
    ValueError
        If the shapes do not fit, the dtypes differ, a setting is out of range, an activation is missing or is no ReLU
        or ReLU6, or a batch norm would see a single value a channel.

    Notes
    -----
    Where the channels of x cancel almost wholly in a channel of ``x w``, its variance is rounded more than that of the
    layers: it comes from sums over the channels of x.
    """
    settings = {"stride": stride, "padding": padding, "dilation": dilation, "name": "bottleneck"}
    geo = _check(x, expand, depthwise, project, settings, shortcut)
    expanded = None if expand is None else _expansion(x, expand)
    padded, expanded_mask, filtered = _filter(x, expand, expanded, depthwise, geo)
    projected = _project(filtered, depthwise.activation, project)
    y, out_mask = _output(projected, project.activation, x if shortcut else None)
    inner = (expanded, padded, expanded_mask, filtered, projected, out_mask)
    return y, BottleneckCache((expand, depthwise, project), geo, *inner, shortcut)


def bottleneck_backward(dy, cache):
    """Return ``(dx, expand, depthwise, project)``: dx, and the :class:`Gradients` of each (None without expansion).

    Parameters
    ----------
    dy : ndarray, shape (N, H_out, W_out, C_out)
    cache : BottleneckCache
    """
    check_gradient("bottleneck", dy, cache.projected.y.shape)
    g, project_norm, correction = _through_output(dy, cache)
    g, project_w, depthwise_norm, correction = _through_projection(g, correction, cache)
    dx, depthwise_w, sums = _through_filter(g, correction, cache)
    expand = None if cache.expanded is None else _through_expansion(dx, sums, cache)
    if cache.shortcut:
        _add_in_place(dx, dy)
    return dx, expand, Gradients(depthwise_w, *depthwise_norm), Gradients(project_w, *project_norm)


# --- Forward ---------------------------------------------------------------------------------------------------------


def _expansion(x, expand):
    """Return what batch norm needs to know of ``z = x w``, without computing z.

    z is linear in x. With the mean of x, and the scatter S, the sum of ``(x - mean) (x - mean)^T`` over all pixels,
    channel c of z has the mean ``mean . w_c`` and the sum of squares ``w_c^T S w_c``. x has several times fewer
    channels than z, so its statistics cost less than those of z would. Rounding of S must not make a sum of squares
    negative.
    """
    C_in = x.shape[-1]
    m = x.size // C_in

    def scatter(images):
        rows = rows_of(x[images])
        count, mean, centred = centred_rows(rows, C_in)
        pixels = centred.reshape(-1, C_in)
        return count, mean, pixels.T @ pixels

    parts = run(scatter, _slices(x))
    mean = sum_in_order(count / m * part_mean for count, part_mean, _ in parts)
    # As in ``normalization.joined``: around the common mean, the scatter of a part grows.
    total = sum_in_order(S + count * np.outer(part_mean - mean, part_mean - mean) for count, part_mean, S in parts)
    var = np.maximum(np.einsum("ic,ic->c", expand.w, total @ expand.w) / m, 0)
    return Expanded(x, mean, total, _norm(mean @ expand.w, var, expand, m))


def _filter(x, expand, expanded, depthwise, geo):
    """Expand, normalize and clip x into padded images, and convolve them."""
    N, H, W, C_in = x.shape
    C = depthwise.w.shape[-1]
    kernel = depthwise_kernel(depthwise.w, geo)
    padded = bordered(x.shape[:3], C, geo.pads, x.dtype)
    mask = None if expand is None else np.empty((N, H, W, C), bool)
    y = np.empty((N, *geo.out, C), x.dtype)
    if expand is not None:
        clip = clip_of("bottleneck", expand.activation, x)
        weights = expand.w * expanded.norm.scale  # z = scale (x w) + shift
        shift_row = along_row(expanded.norm.shift, rows_of(mask))

    def filter_images(images):
        clear_border(padded[images], geo.pads)
        target = inside(padded[images], geo.pads)
        if expand is None:
            target[...] = x[images]
        else:
            z = (x[images].reshape(-1, C_in) @ weights).reshape(target.shape)
            z_rows = rows_of(z)
            z_rows += shift_row
            clip(z, out=target, mask=mask[images])
        kernel.filter(padded[images], out=y[images])
        return moments(rows_of(y[images]), C)

    mu, var = joined(run(filter_images, _slices(padded)))
    return padded, mask, Convolved(y, _norm(mu, var, depthwise, y.size // C))


def _project(filtered, activation, project):
    """Normalize and clip what the depthwise convolution left, and multiply by the projection."""
    C_mid, C_out = project.w.shape
    y = np.empty((*filtered.y.shape[:3], C_out), filtered.y.dtype)
    scale_and_shift = _affine(filtered)

    def project_images(images):
        z = scale_and_shift(images)
        np.clip(z, 0, UPPER[activation], out=z)
        np.matmul(z.reshape(-1, C_mid), project.w, out=y[images].reshape(-1, C_out))
        return moments(rows_of(y[images]), C_out)

    mu, var = joined(run(project_images, _slices(filtered.y)))
    return Convolved(y, _norm(mu, var, project, y.size // C_out))


def _output(projected, activation, straight):
    """Normalize what the projection left, and add the straight connection where there is one."""
    y = np.empty_like(projected.y)
    clip = clip_of("bottleneck", activation, y)
    mask = None if clip is None else np.empty(y.shape, bool)
    scale_and_shift = _affine(projected)

    def output(images):
        z = scale_and_shift(images, out=rows_of(y[images]))
        if clip is not None:
            clip(z, out=z, mask=rows_of(mask[images]))
        if straight is not None:
            y[images] += straight[images]

    run(output, _slices(y))
    return y, mask


# --- Backward --------------------------------------------------------------------------------------------------------


def _through_output(dy, cache):
    """Return the gradient below the output's activation, dgamma and dbeta of its batch norm, and its correction."""
    y, norm = cache.projected
    g = dy if cache.out_mask is None else np.empty_like(y)
    mu_row = along_row(norm.mu, rows_of(y))

    def sums(images):
        if cache.out_mask is not None:
            np.multiply(dy[images], cache.out_mask[images], out=g[images])
        return gradient_sums(rows_of(g[images]), rows_of(y[images]), mu_row)

    return g, *_norm_gradients(run(sums, _slices(y)), cache.projected)


def _through_projection(g, correction, cache):
    """Return the gradient below the middle activation, dw, and of its batch norm what :func:`_through_output` does.

    The gradient of the product is ``scale h`` with ``h = g + slope y + offset``. Its scale is left to the weights, on
    either side of the product: there it is one multiplication a weight instead of one a pixel. What the product read is
    computed once more from the output of the depthwise convolution, and with it the slope of the activation.
    """
    _, depthwise, project = cache.weights
    scale = cache.projected.norm.scale
    C_mid, C_out = project.w.shape
    filtered = cache.filtered.y
    weights = np.ascontiguousarray((project.w * scale).T)
    g_mid = np.empty_like(filtered)
    mu_row = along_row(cache.filtered.norm.mu, rows_of(filtered))
    clip = clip_of("bottleneck", depthwise.activation, filtered)
    scale_and_shift = _affine(cache.filtered)

    def gradients(images):
        h = correction(g, images).reshape(-1, C_out)
        z = scale_and_shift(images)
        mask = np.empty(z.shape, bool)
        clip(z, out=z, mask=mask)
        dw = z.reshape(-1, C_mid).T @ h
        below = np.matmul(h, weights, out=g_mid[images].reshape(-1, C_mid))
        below *= mask.reshape(-1, C_mid)
        return dw, gradient_sums(rows_of(g_mid[images]), rows_of(filtered[images]), mu_row)

    parts = run(gradients, _slices(filtered))
    dw = sum_in_order(part[0] for part in parts) * scale
    return g_mid, dw, *_norm_gradients([part[1] for part in parts], cache.filtered)


def _through_filter(g, correction, cache):
    """Return dx, dw and the sums for :func:`_through_expansion`, which dx still needs."""
    expand, depthwise, _ = cache.weights
    scale = cache.filtered.norm.scale
    geo = cache.geometry
    inner = inside(cache.padded, geo.pads).shape  # (N, H, W, C_mid)
    kernel = transposed_kernel(depthwise.w * scale, geo, inner[1:3])  # as above: the scale is left to the weights
    dx = np.empty(inner if expand is None else cache.expanded.x.shape, g.dtype)
    if expand is not None:
        weights = np.ascontiguousarray((expand.w * cache.expanded.norm.scale).T)
        mean_row = along_row(cache.expanded.mean, rows_of(cache.expanded.x))

    def gradients(images):
        padded_h = bordered(g[images].shape[:3], g.shape[-1], kernel.pads, g.dtype)
        clear_border(padded_h, kernel.pads)
        h = correction(g, images, out=inside(padded_h, kernel.pads))
        dw = kernel_gradient(cache.padded[images], h, geo)
        if expand is None:
            kernel.input_gradient(padded_h, out=dx[images])
            return dw, None
        below = np.empty((len(h), *inner[1:]), g.dtype)
        kernel.input_gradient(padded_h, out=below)
        below *= cache.expanded_mask[images]
        pixels = below.reshape(-1, inner[-1])
        np.matmul(pixels, weights, out=dx[images].reshape(len(pixels), -1))
        centred = rows_of(cache.expanded.x[images]) - mean_row
        return dw, (centred.reshape(len(pixels), -1).T @ pixels, rows_of(below).sum(axis=0))

    parts = run(gradients, _slices(cache.padded))
    dw = sum_in_order(part[0] for part in parts) * scale
    return dx, dw, [part[1] for part in parts]


def _through_expansion(dx, sums, cache):
    """Add to dx what reaches x through the statistics of ``z = x w``, and return the expansion's gradients.

    The gradient of z is ``scale (g + slope (z - mu) - dbeta / m)``. Its first term is in dx already. The second needs
    z, but z - mu is ``(x - mean) w``: so it is a product of x with the small matrix ``w diag(scale slope) w^T``, and
    dgamma and dw need no more than ``P = sum (x - mean) g^T`` and the scatter of x.
    """
    expand = cache.weights[0]
    x, mean, scatter, (mu, inv_std, scale, _) = cache.expanded
    C_in = x.shape[-1]
    m = x.size // C_in
    P = sum_in_order(part[0] for part in sums)
    dbeta = channel_sums(sum_in_order(part[1] for part in sums), len(mu))
    dgamma = inv_std * np.einsum("ic,ic->c", expand.w, P)
    slope, _ = through_statistics(mu, inv_std, dgamma, dbeta, m)
    dw = scale * (P + slope * (scatter @ expand.w))
    back = (expand.w * (scale * slope)) @ expand.w.T  # (C_in, C_in)
    constant_row = along_row(-mean @ back - (scale * dbeta / m) @ expand.w.T, rows_of(dx))

    def add(images):
        pixels = dx[images].reshape(-1, C_in)
        pixels += x[images].reshape(-1, C_in) @ back
        rows = rows_of(dx[images])
        rows += constant_row

    run(add, _slices(dx))
    return Gradients(dw, dgamma, dbeta)


# --- Both ------------------------------------------------------------------------------------------------------------


def _slices(x):
    return cut(len(x), x.nbytes / len(x))


def _norm(mu, var, layer, m):
    """Update a layer's running statistics, and return its :class:`Normalizer`."""
    update_running(layer.running_mean, layer.running_var, mu, var, m, layer.decay)
    return normalizer(mu, var, layer.gamma, layer.beta, layer.eps)


def _affine(convolved):
    """Return the function that normalizes some images of a convolution's output: (n, H, W, C) -> rows."""
    y, norm = convolved
    scale_row, shift_row = (along_row(vector, rows_of(y)) for vector in (norm.scale, norm.shift))

    def scale_and_shift(images, out=None):
        z = np.multiply(rows_of(y[images]), scale_row, out=out)
        z += shift_row
        return z

    return scale_and_shift


def _norm_gradients(sums, convolved):
    """Return ``(dgamma, dbeta)`` of a batch norm, and the function ``correction(g, images)``.

    It returns ``h = g + slope y + offset`` for some images: the gradient of y, but for its scale.
    """
    y, norm = convolved
    dgamma, dbeta = parameter_gradients(sums, norm.inv_std)
    slope, offset = through_statistics(norm.mu, norm.inv_std, dgamma, dbeta, y.size // y.shape[-1])
    slope_row, offset_row = (along_row(vector, rows_of(y)) for vector in (slope, offset))

    def correction(g, images, out=None):
        h = rows_of(y[images]) * slope_row
        h += offset_row
        h = h.reshape(g[images].shape)
        return np.add(h, g[images], out=h if out is None else out)

    return (dgamma, dbeta), correction


def _add_in_place(total, term):
    run(lambda images: np.add(total[images], term[images], out=total[images]), _slices(total))


def _check(x, expand, depthwise, project, settings, shortcut):
    """Return the geometry of the depthwise convolution, or raise ``ValueError``."""
    check_ndim("bottleneck", x, 4, depthwise.w, 3)
    geo = geometry(x.shape[1:3], depthwise.w.shape[:2], **settings)
    weights = (expand and expand.w, depthwise.w, project.w)
    check_block("bottleneck", x, *weights, geo.out, shortcut)
    for name, stage in (("expand", expand), ("depthwise", depthwise), ("project", project)):
        if stage is None:
            continue
        if {array.dtype for array in stage.arrays} != {x.dtype}:
            raise ValueError(f"bottleneck: {name} must have the dtype of x, {x.dtype}")
        C = stage.w.shape[-1:]
        for field, vector in zip(stage._fields[1:], stage.arrays[1:]):
            if vector.shape != C:
                raise ValueError(f"bottleneck: {name}.{field} must have the shape {C}, got {vector.shape}")
        check_norm_settings("bottleneck", stage.decay, stage.eps)
        if name != "project" and stage.activation is None:
            raise ValueError(f'bottleneck: {name}.activation must be "relu" or "relu6", got None')
        clip_of("bottleneck", stage.activation, x)
    if len(x) * min(math.prod(geo.out), math.prod(geo.out if expand is None else x.shape[1:3])) < 2:
        leaves = f"x {x.shape} leaves one; use a larger batch"
        raise ValueError(f"bottleneck: training needs at least 2 values a channel, {leaves}")
    return geo
