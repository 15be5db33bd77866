"""Batch norm folded into the weights before it, and the block of MobileNetV1 and V2 as one op in inference.

Without batch norm nothing couples the images of a batch. So a slice of a few images goes through the whole block while
it is in the core's cache: the expanded images, several times larger than what comes in and goes out, are nowhere kept.
MobileNetV2 points to this in section 5.1, "Memory efficient inference"; there the channels are cut instead.
"""

from typing import NamedTuple

import numpy as np

from npnets.ops.activation import finish_of
from npnets.ops.checks import check_bias, check_block, check_ndim
from npnets.ops.convolution import bordered, clear_border, depthwise_kernel, inside
from npnets.parallel import cut, run
from npnets.shapes import geometry


class FoldedConv(NamedTuple):
    """A convolution into which a batch norm was folded: weights, bias, and the activation that follows."""

    w: np.ndarray
    b: np.ndarray | None
    activation: str | None


def folded_batch_norm(w, b, gamma, beta, running_mean, running_var, *, eps):
    """Return the weights and the bias of one layer that computes a layer and the batch norm after it, in inference.

    There the statistics are constants, and batch norm is an affine map (Ioffe and Szegedy 2015, Algorithm 2, line 11).
    With ``scale = gamma / sqrt(running_var + eps)``: ``w' = w scale`` and ``b' = beta + (b - running_mean) scale``.

    Parameters
    ----------
    w : ndarray, shape (..., C)
        Of a convolution, depthwise ones included, or a linear layer: its last axis is that of the output channels.
    b : ndarray, shape (C,), or None
    gamma, beta, running_mean, running_var : ndarray, shape (C,)
    eps : float

    Returns
    -------
    w, b : ndarray, shapes (..., C) and (C,), dtype of w
        New arrays. They are computed in float64 and rounded once.
    """
    mean, var = running_mean.astype(np.float64), running_var.astype(np.float64)
    scale = gamma / np.sqrt(var + eps)
    shift = beta + ((0 if b is None else b) - mean) * scale
    return (w * scale).astype(w.dtype), shift.astype(w.dtype)


def folded_bottleneck(x, expand, depthwise, project, *, stride=1, padding="same", dilation=1, shortcut=False):
    """Expand, filter and project: Table 1 of MobileNetV2, or without ``expand`` Figure 3 of MobileNetV1.

    The numbers are those of the three convolutions one after the other, but for rounding.

    Parameters
    ----------
    x : ndarray, shape (N, H, W, C_in)
    expand : FoldedConv or None
        ``w`` (C_in, C_mid). None at expansion factor 1, and then C_mid = C_in.
    depthwise : FoldedConv
        ``w`` (K_h, K_w, C_mid).
    project : FoldedConv
        ``w`` (C_mid, C_out).
    stride, padding, dilation
        Of the depthwise convolution, as in :func:`npnets.ops.depthwise_conv2d_forward`.
    shortcut : bool
        Whether x is added to the output, which must have its shape.

    Returns
    -------
    y : ndarray, shape (N, H_out, W_out, C_out)

    Raises
    ------
    ValueError
        If the shapes do not fit, or a setting is out of range.
    """
    check_ndim("folded_bottleneck", x, 4, depthwise.w, 3)
    N, H, W, C_in = x.shape
    C_mid, C_out = depthwise.w.shape[-1], project.w.shape[-1]
    settings = {"stride": stride, "padding": padding, "dilation": dilation, "name": "folded_bottleneck"}
    geo = geometry((H, W), depthwise.w.shape[:2], **settings)
    check_block("folded_bottleneck", x, expand and expand.w, depthwise.w, project.w, geo.out, shortcut)
    for stage in filter(None, (expand, depthwise, project)):
        check_bias("folded_bottleneck", stage.b, stage.w)
    y = np.empty((N, *geo.out, C_out), np.result_type(x, project.w))
    expanded, filtered, projected = (
        conv and finish_of("folded_bottleneck", conv.b, conv.activation, y) for conv in (expand, depthwise, project)
    )
    kernel = depthwise_kernel(depthwise.w, geo)

    def go_through(images):
        part, result = x[images], y[images]
        padded = bordered(part.shape[:3], C_mid, geo.pads, y.dtype)
        clear_border(padded, geo.pads)
        interior = inside(padded, geo.pads)
        if expand is None:
            interior[...] = part
        else:
            expanded((part.reshape(-1, C_in) @ expand.w).reshape(interior.shape), out=interior)
        middle = np.empty((*result.shape[:3], C_mid), y.dtype)
        kernel.filter(padded, out=middle)
        filtered(middle)
        np.matmul(middle.reshape(-1, C_mid), project.w, out=result.reshape(-1, C_out))
        projected(result)
        if shortcut:
            result += part

    run(go_through, cut(N, H * W * C_mid * y.itemsize))
    return y
