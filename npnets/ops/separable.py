"""How nearly separable a kernel is: a standard convolution as a sum of depthwise separable ones.

A depthwise kernel D and a pointwise kernel P, with nothing between them, are one standard convolution with the kernel
``K[i, j, m, n] = D[i, j, m] P[m, n]`` (MobileNetV1, section 3.1). For one input channel m that is a column times a row:
of the matrix with a row for each (i, j) and a column for each n, it is a matrix of rank one. So a standard convolution
is separable exactly if, in each input channel, all its output channels use the same pattern, and differ in its strength
alone. Any kernel is a sum of such terms, at most ``min(K_h K_w, C_out)`` of them.

These are plain functions of weights, no pairs of forward and backward. Hence ``from npnets.ops import separable``.
"""

import numpy as np

from npnets.ops.checks import check_array
from npnets.shapes import integer


def singular_values(w):
    """Return how strong each separable term of a kernel is, for each input channel, the strongest first.

    Parameters
    ----------
    w : ndarray, shape (K_h, K_w, C_in, C_out)

    Returns
    -------
    ndarray, shape (C_in, min(K_h K_w, C_out)), float64
        Their squares add up to the sum of the squares of w. If all but the first T are left out, what is missing is
        the sum of the squares of the others, and no other sum of T separable terms misses less (Eckart and Young).

    Raises
    ------
    ValueError
        If w has another number of axes, or does not hold real floating-point numbers.
    """
    return np.linalg.svd(_channel_matrices(w), compute_uv=False)


def best_terms(w, count=None):
    """Return the depthwise and pointwise kernels whose sum comes nearest to a kernel.

    ``K[i, j, m, n] ~ sum over t of D[t, i, j, m] P[t, m, n]``: for each input channel m, the first terms of a singular
    value decomposition. The sum of squared errors is a sum over the input channels, so that each of them may be
    approximated on its own.

    Parameters
    ----------
    w : ndarray, shape (K_h, K_w, C_in, C_out)
    count : int, optional
        How many terms; by default ``min(K_h K_w, C_out)``, with which the sum is w itself but for rounding.

    Returns
    -------
    depthwise : ndarray, shape (count, K_h, K_w, C_in)
        Each kernel has length one. Of its entries the one with the largest magnitude is positive.
    pointwise : ndarray, shape (count, C_in, C_out)
        These hold the singular values.

    Raises
    ------
    ValueError
        If w does not fit (see :func:`singular_values`), or has not so many terms.
    """
    matrices = _channel_matrices(w)
    K_h, K_w, C_in, _ = w.shape
    most = min(matrices.shape[1:])
    count = most if count is None else integer(count, "best_terms: count", 1)
    if count > most:
        raise ValueError(f"best_terms: a kernel {w.shape} has {most} separable terms in each channel, not {count}")
    patterns, values, strengths = np.linalg.svd(matrices, full_matrices=False)
    patterns, strengths = patterns[:, :, :count], values[:, :count, None] * strengths[:, :count]
    largest = np.abs(patterns).argmax(axis=1, keepdims=True)
    sign = np.where(np.take_along_axis(patterns, largest, axis=1) < 0, -1.0, 1.0)  # (C_in, 1, count)
    depthwise = (patterns * sign).transpose(2, 1, 0).reshape(count, K_h, K_w, C_in)
    pointwise = (strengths * sign.transpose(0, 2, 1)).transpose(1, 0, 2)  # (C_in, count, C_out) -> (count, C_in, C_out)
    return np.ascontiguousarray(depthwise, w.dtype), np.ascontiguousarray(pointwise, w.dtype)


def kernel_of(depthwise, pointwise):
    """Return the kernel of a standard convolution that does the same as a sum of separable ones.

    ``K[i, j, m, n] = sum over t of D[t, i, j, m] P[t, m, n]``

    Parameters
    ----------
    depthwise : ndarray, shape (T, K_h, K_w, C_in)
    pointwise : ndarray, shape (T, C_in, C_out)

    Returns
    -------
    ndarray, shape (K_h, K_w, C_in, C_out)

    Raises
    ------
    ValueError
        If the two do not fit each other.
    """
    for name, array in (("depthwise", depthwise), ("pointwise", pointwise)):
        check_array("kernel_of", array, name)
    shapes = depthwise.shape, pointwise.shape
    fit = list(map(len, shapes)) == [4, 3] and (shapes[0][0], shapes[0][3]) == shapes[1][:2]
    if not fit:
        wanted = "depthwise (T, K_h, K_w, C_in) and pointwise (T, C_in, C_out)"
        raise ValueError(f"kernel_of: expected {wanted}, got {shapes[0]} and {shapes[1]}")
    return np.einsum("tijm,tmn->ijmn", depthwise, pointwise)


def _channel_matrices(w):
    """Return a matrix (K_h K_w, C_out) for each input channel of a kernel, in float64."""
    check_array("separable", w, "w")
    if w.ndim != 4 or w.size == 0:
        raise ValueError(f"separable: w must have the shape (K_h, K_w, C_in, C_out), got {w.shape}")
    if w.dtype.kind != "f":
        raise ValueError(f"separable: w must hold real floating-point numbers, got dtype {w.dtype}; use w.astype")
    K_h, K_w, C_in, C_out = w.shape
    return w.astype(np.float64).transpose(2, 0, 1, 3).reshape(C_in, K_h * K_w, C_out)
