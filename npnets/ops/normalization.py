"""Batch normalization and local response normalization."""

from typing import NamedTuple

import numpy as np

from npnets.ops.activation import clip_of
from npnets.ops.checks import check_array, check_floating, check_gradient, check_not_empty
from npnets.ops.rows import along_row, channel_sums, rows_of
from npnets.parallel import cut, run, sum_in_order
from npnets.shapes import integer


class BatchNormCache(NamedTuple):
    """What the backward needs. ``mu`` and ``inv_std`` are the batch's in training, the running ones otherwise.

    ``mask`` tells where a ReLU or ReLU6 applied in the same pass has slope one; it is None without.
    """

    x: np.ndarray
    gamma: np.ndarray
    mu: np.ndarray
    inv_std: np.ndarray
    training: bool
    mask: np.ndarray | None = None


def batch_norm_forward(
    x, gamma, beta, running_mean, running_var, *, training, decay=0.99, eps=1e-3, activation=None
):
    """Normalize each channel to mean 0 and variance 1, then scale and shift it.

    In training (Ioffe and Szegedy 2015, Algorithm 1), with the mean and variance of the mini-batch,
    ``mu = 1/m sum x`` and ``var = 1/m sum (x - mu)^2``: ``x_hat = (x - mu) / sqrt(var + eps)``,
    ``y = gamma x_hat + beta``. In inference (Algorithm 2) mu and var are the running ones, and y is an affine map of x.

    Parameters
    ----------
    x : ndarray, shape (..., C)
        The sums run over every axis but the last: for (N, C) each activation is normalized by itself, for
        (N, H, W, C) all pixels of a channel together, ``m = N H W`` (the convolutional way, section 3.2).
    gamma, beta : ndarray, shape (C,)
    running_mean, running_var : ndarray, shape (C,)
        In training they are updated in place: ``running = decay running + (1 - decay) batch``. The variance goes in
        as the unbiased ``m / (m - 1) var`` of Algorithm 2.
    training : bool
    decay : float
        The weight of the old statistic (one minus what PyTorch calls momentum).
    eps : float
        Added to the variance, inside the root.
    activation : {None, "relu", "relu6"}
        Applied to y while y is still in the core's cache. The numbers are those of the two ops one after the other;
        a big array is written and read once less.

    Returns
    -------
    y : ndarray, shape (..., C)
    cache : BatchNormCache

    Raises
    ------
    ValueError
        If the shapes do not fit, or in training with m = 1, where the variance is zero and has no unbiased estimate.

    Notes
    -----
    Differs from the paper: Algorithm 2 averages the statistics of many mini-batches after training. A running average
    is what every framework does instead, and what section 3.1 suggests for following the accuracy while training.
    """
    C = _check_batch_norm(x, gamma, beta, running_mean, running_var, decay, eps)
    clip = clip_of("batch_norm", activation, x)
    rows = rows_of(x)
    if training:
        m = x.size // C
        if m < 2:
            has = f"x {x.shape} has {m}; use a larger batch"
            raise ValueError(f"batch_norm: training needs at least 2 values a channel, {has}")
        mu, var = joined(run(lambda piece: moments(rows[piece], C), _pieces(rows)))
        update_running(running_mean, running_var, mu, var, m, decay)
    else:
        mu, var = running_mean.astype(x.dtype), running_var.astype(x.dtype)  # copies: a later step changes them
    affine = normalizer(mu, var, gamma, beta, eps)
    y = np.empty(x.shape, np.result_type(x, affine.scale))
    y_rows = rows_of(y)
    scale_row, shift_row = (along_row(vector, rows) for vector in (affine.scale, affine.shift))
    mask = None if clip is None else np.empty(x.shape, bool)

    def scale_and_shift(piece):
        part = np.multiply(rows[piece], scale_row, out=y_rows[piece])
        part += shift_row
        if clip is not None:
            clip(part, out=part, mask=rows_of(mask)[piece])

    run(scale_and_shift, _pieces(rows))
    return y, BatchNormCache(x, gamma, mu, affine.inv_std, training, mask)


def batch_norm_backward(dy, cache):
    """Return ``(dx, dgamma, dbeta)`` of :func:`batch_norm_forward`.

    ``dbeta = sum dy`` and ``dgamma = sum dy x_hat``. In training mu and var depend on x too, and the chain rule of
    section 3 (the equations after Algorithm 1) collapses to

    ``dx = gamma inv_std (dy - dbeta / m - x_hat dgamma / m)``:

    from dy, its mean (the path through mu) and its projection on x_hat (the path through var) are taken away. In
    inference mu and var are constants, and ``dx = gamma inv_std dy``. Where an activation was applied, dy is first
    multiplied by its slope, zero or one.

    Parameters
    ----------
    dy : ndarray, shape (..., C)
    cache : BatchNormCache
    """
    x, gamma, mu, inv_std, training, mask = cache
    check_gradient("batch_norm", dy, x.shape)
    scale = gamma * inv_std
    dx = np.empty(x.shape, np.result_type(dy, scale))
    rows, dy_rows, dx_rows = rows_of(x), rows_of(dy), rows_of(dx)
    mu_row = along_row(mu, rows)
    g_rows = dy_rows if mask is None else dx_rows  # the gradient below the activation; dx has room for it until the end

    def sums(piece):
        if mask is not None:
            np.multiply(dy_rows[piece], rows_of(mask)[piece], out=g_rows[piece])
        return gradient_sums(g_rows[piece], rows[piece], mu_row)

    dgamma, dbeta = parameter_gradients(run(sums, _pieces(rows)), inv_std)
    slope, offset = through_statistics(mu, inv_std, dgamma, dbeta, x.size // len(mu))
    scale_row, slope_row, offset_row = (along_row(vector, rows) for vector in (scale, slope, offset))

    def input_gradient(piece):
        g = g_rows[piece]
        if training:
            correction = rows[piece] * slope_row
            correction += offset_row
            g = np.add(g, correction, out=dx_rows[piece])
        np.multiply(g, scale_row, out=dx_rows[piece])

    run(input_gradient, _pieces(rows))
    return dx, dgamma, dbeta


# What batch norm does with a part of the rows, and with the sums of all parts; the bottleneck block uses it too.


class Moments(NamedTuple):
    """How many values a channel has in a part of x, their mean, and their squares around it, summed."""

    count: int
    mean: np.ndarray
    squares: np.ndarray


class Normalizer(NamedTuple):
    """The affine map that batch norm comes down to: ``y = scale x + shift``."""

    mu: np.ndarray
    inv_std: np.ndarray
    scale: np.ndarray
    shift: np.ndarray


def moments(rows, C):
    """Return the :class:`Moments` of some rows (R, k W C)."""
    count, mean, centred = centred_rows(rows, C)
    return Moments(count, mean, channel_sums(np.einsum("ij,ij->j", centred, centred), C))


def centred_rows(rows, C):
    """Return how many values a channel has in some rows (R, k W C), their mean, and the rows around it.

    Each part of x is centred on its own mean, so that nothing cancels in float32 (E[x^2] - E[x]^2 would), and is read
    from memory once.
    """
    count = rows.size // C
    mean = channel_sums(rows.sum(axis=0), C) / count  # (R, k W C) -> (C,)
    return count, mean, rows - along_row(mean, rows)


def joined(parts):
    """Return mean and variance of each channel over all parts.

    By the formula of Chan, Golub and LeVeque (1979): around the common mean, the squares of a part grow by
    ``count (its mean - common mean)^2``.
    """
    m = sum(part.count for part in parts)
    dtype = parts[0].mean.dtype
    mu = sum_in_order(count / m * mean for count, mean, _ in parts)
    var = sum_in_order((squares + count * (mean - mu) ** 2) / m for count, mean, squares in parts)
    return mu.astype(dtype), var.astype(dtype)


def update_running(running_mean, running_var, mu, var, m, decay):
    """Move the running statistics towards those of a batch with m values a channel (Algorithm 2: unbiased)."""
    running_mean[...] = decay * running_mean + (1 - decay) * mu.real
    running_var[...] = decay * running_var + (1 - decay) * (m / (m - 1)) * var.real


def normalizer(mu, var, gamma, beta, eps):
    """Return the :class:`Normalizer` for these statistics."""
    inv_std = 1 / np.sqrt(var + var.real.dtype.type(eps))
    scale = gamma * inv_std
    return Normalizer(mu, inv_std, scale, beta - mu * scale)


def gradient_sums(g, rows, mu_row):
    """Return ``sum g`` and ``sum g (x - mu)`` along the columns of a part: (R, k W C) -> (2, k W C)."""
    sums = np.empty((2, g.shape[1]), np.result_type(g, rows))
    g.sum(axis=0, out=sums[0])
    np.einsum("ij,ij->j", g, rows - mu_row, out=sums[1])
    return sums


def parameter_gradients(parts, inv_std):
    """Return ``(dgamma, dbeta)`` from the :func:`gradient_sums` of all parts."""
    dbeta, sum_g_centred = channel_sums(sum_in_order(parts), len(inv_std))  # (2, k W C) -> (2, C)
    return sum_g_centred * inv_std, dbeta


def through_statistics(mu, inv_std, dgamma, dbeta, m):
    """Return ``(slope, offset)`` of ``dx = scale (g + slope x + offset)``: the paths through var and through mu."""
    slope = -inv_std * dgamma / m
    return slope, -dbeta / m - slope * mu


def _pieces(rows):
    return cut(len(rows), rows.itemsize * rows.shape[1])


def check_norm_settings(op, decay, eps):
    """Raise ``ValueError`` for a decay or an eps that batch norm cannot have; the error names ``op``."""
    if not 0 <= decay <= 1:
        raise ValueError(f"{op}: decay (the weight of the old statistic) must be from 0 to 1, got {decay}")
    if eps < 0:
        raise ValueError(f"{op}: eps must not be negative, got {eps}")


def _check_batch_norm(x, gamma, beta, running_mean, running_var, decay, eps):
    check_floating("batch_norm", x, "x")
    check_not_empty("batch_norm", x)
    check_norm_settings("batch_norm", decay, eps)
    if x.ndim < 2:
        raise ValueError(f"batch_norm: x must have the shape (N, C) or (N, H, W, C), got {x.shape}")
    C = x.shape[-1]
    vectors = {"gamma": gamma, "beta": beta, "running_mean": running_mean, "running_var": running_var}
    for name, vector in vectors.items():
        check_array("batch_norm", vector, name)
        if vector.shape != (C,):
            raise ValueError(f"batch_norm: {name} must have the shape ({C},) for x {x.shape}, got {vector.shape}")
    return C


class LocalResponseNormCache(NamedTuple):
    """What the backward needs: the input, ``s = k + alpha sum x^2``, and the settings."""

    x: np.ndarray
    s: np.ndarray
    size: int
    alpha: float
    beta: float


def local_response_norm_forward(x, *, size=5, alpha=1e-4, beta=0.75, k=2.0):
    """Divide each activation by the energy of its neighbours among the channels.

    ``y_c = x_c / (k + alpha sum over c' of x_c'^2)^beta`` with ``|c' - c| <= size // 2`` (Krizhevsky et al. 2012,
    section 3.3; the normalization that section 4.2.6 of the batch-norm paper removes).

    Parameters
    ----------
    x : ndarray, shape (..., C)
    size : int
        How many neighbouring channels are summed; odd, so that the window is centred.
    alpha, beta, k : float
        The paper's constants. ``alpha`` is not divided by ``size`` (PyTorch divides it).

    Returns
    -------
    y : ndarray, shape (..., C)
    cache : LocalResponseNormCache

    Raises
    ------
    ValueError
        If size is not a positive odd integer.
    """
    if integer(size, "local_response_norm: size", 1) % 2 == 0:
        raise ValueError(f"local_response_norm: size must be odd, so that the window is centred, got {size}")
    check_floating("local_response_norm", x, "x")
    alpha, beta, k = float(alpha), float(beta), float(k)
    s = k + alpha * _sum_neighbours(x * x, size)
    return x * s**-beta, LocalResponseNormCache(x, s, size, alpha, beta)


def local_response_norm_backward(dy, cache):
    """Return dx of :func:`local_response_norm_forward`.

    Through its own numerator ``dy s^-beta``; through the sums of its neighbours, which form the same window,
    ``-2 alpha beta x sum over c' of (dy x s^(-beta-1))_c'``.
    """
    x, s, size, alpha, beta = cache
    check_gradient("local_response_norm", dy, x.shape)
    power = s**-beta
    return dy * power - 2 * alpha * beta * x * _sum_neighbours(dy * x * power / s, size)


def _sum_neighbours(values, size):
    """Return for each channel the sum over the ``size`` channels around it; there are none beyond the ends."""
    C, half = values.shape[-1], size // 2
    total = np.zeros_like(values)
    for offset in range(-min(half, C - 1), min(half, C - 1) + 1):
        here, there = slice(max(0, -offset), C - max(0, offset)), slice(max(0, offset), C - max(0, -offset))
        total[..., here] += values[..., there]
    return total
