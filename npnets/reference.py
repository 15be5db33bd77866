"""The operations as the papers print them: every sum is a loop. Slow, and meant to be obviously right.

Read it beside the paper. The docstring has the equation, and the loops below it are its sums in the same order. The
fast versions in ``npnets/ops`` are tested against this file.

- The names and settings are those of the ops, without their caches: ``y = conv2d(x, w, b, stride=2)``, and the
  backward takes the inputs again: ``dx, dw, db = conv2d_backward(dy, x, w, b, stride=2)``.
- Nothing is padded. A product with a pixel outside the image is left out of the sum, which is what a border of zeros
  means.
- The arithmetic is always float64 (or complex128), whatever comes in.
- Each backward is its forward read from right to left: where the forward adds ``a * b`` to y, the backward adds
  ``b * dy`` to da and ``a * dy`` to db.
"""

import numpy as np

from npnets.shapes import Geometry, geometry, pair

# Convolution


def conv2d(x, w, b=None, *, stride=1, padding="same", dilation=1):
    """Filter and combine: the standard convolution.

    ``G[k, l, n] = sum over i, j, m of K[i, j, m, n] * F[k + i - 1, l + j - 1, m]`` (MobileNetV1, section 3.1).

    Parameters
    ----------
    x : ndarray, shape (N, H, W, C_in)
        F in the paper, one for each image.
    w : ndarray, shape (K_h, K_w, C_in, C_out)
        K in the paper.
    b : ndarray, shape (C_out,), optional
    stride, dilation : int or (int, int)
    padding : {"same", "valid", "symmetric"}, int, or ((top, bottom), (left, right))

    Returns
    -------
    y : ndarray, shape (N, H_out, W_out, C_out)
        G in the paper.

    Raises
    ------
    ValueError
        If the shapes do not fit.

    Notes
    -----
    Differs from the paper. The paper's stride is one and it counts from 1: its ``k + i - 1`` becomes
    ``stride k + dilation i - top`` (see :func:`taps`). ``"same"`` is TensorFlow's SAME: where the number of padded rows
    is odd, there is one more at the bottom than at the top, and likewise one more on the right than on the left.
    """
    x, w, b = _doubles(x, w, b)
    geo = _conv_geometry("conv2d", x, w, stride, padding, dilation, w_ndim=4)
    N, _, _, C_in = x.shape
    C_out = w.shape[3]
    y = _zeros((N, *geo.out, C_out), x, w, b)
    for image in range(N):
        for k, l, i, j, row, col in taps(x.shape, geo):
            for m in range(C_in):
                for n in range(C_out):
                    y[image, k, l, n] += w[i, j, m, n] * x[image, row, col, m]
    return y if b is None else _add_bias(y, b)


def conv2d_backward(dy, x, w, b=None, *, stride=1, padding="same", dilation=1):
    """Return ``(dx, dw, db)`` of :func:`conv2d`; ``db`` is None without a bias.

    Each product ``K[i, j, m, n] * F[row, col, m]`` of the forward sum sends its part of the gradient to both factors::

        dl/dF[row, col, m]   += K[i, j, m, n]  * dl/dG[k, l, n]
        dl/dK[i, j, m, n]    += F[row, col, m] * dl/dG[k, l, n]
        dl/db[n]             += dl/dG[k, l, n]
    """
    dy, x, w, b = _doubles(dy, x, w, b)
    geo = _conv_geometry("conv2d", x, w, stride, padding, dilation, w_ndim=4)
    N, _, _, C_in = x.shape
    C_out = w.shape[3]
    _need_shape("dy", dy, (N, *geo.out, C_out))
    dx, dw = _zeros(x.shape, dy, x, w), _zeros(w.shape, dy, x, w)
    for image in range(N):
        for k, l, i, j, row, col in taps(x.shape, geo):
            for m in range(C_in):
                for n in range(C_out):
                    dx[image, row, col, m] += w[i, j, m, n] * dy[image, k, l, n]
                    dw[i, j, m, n] += x[image, row, col, m] * dy[image, k, l, n]
    return dx, dw, None if b is None else _bias_gradient(dy)


def depthwise_conv2d(x, w, b=None, *, stride=1, padding="same", dilation=1):
    """Filter each channel with its own kernel.

    ``G^[k, l, m] = sum over i, j of K^[i, j, m] * F[k + i - 1, l + j - 1, m]`` (MobileNetV1, section 3.1).

    Parameters
    ----------
    x : ndarray, shape (N, H, W, C)
    w : ndarray, shape (K_h, K_w, C)
        K^ in the paper.
    b : ndarray, shape (C,), optional
    stride, padding, dilation
        As in :func:`conv2d`, and with the same differences from the paper.

    Returns
    -------
    y : ndarray, shape (N, H_out, W_out, C)
        G^ in the paper.

    Raises
    ------
    ValueError
        If the shapes do not fit.
    """
    x, w, b = _doubles(x, w, b)
    geo = _conv_geometry("depthwise_conv2d", x, w, stride, padding, dilation, w_ndim=3)
    N, _, _, C = x.shape
    y = _zeros((N, *geo.out, C), x, w, b)
    for image in range(N):
        for k, l, i, j, row, col in taps(x.shape, geo):
            for m in range(C):
                y[image, k, l, m] += w[i, j, m] * x[image, row, col, m]
    return y if b is None else _add_bias(y, b)


def depthwise_conv2d_backward(dy, x, w, b=None, *, stride=1, padding="same", dilation=1):
    """Return ``(dx, dw, db)`` of :func:`depthwise_conv2d`; ``db`` is None without a bias.

    ::

        dl/dF[row, col, m] += K^[i, j, m]    * dl/dG^[k, l, m]
        dl/dK^[i, j, m]    += F[row, col, m] * dl/dG^[k, l, m]
        dl/db[m]           += dl/dG^[k, l, m]
    """
    dy, x, w, b = _doubles(dy, x, w, b)
    geo = _conv_geometry("depthwise_conv2d", x, w, stride, padding, dilation, w_ndim=3)
    N, _, _, C = x.shape
    _need_shape("dy", dy, (N, *geo.out, C))
    dx, dw = _zeros(x.shape, dy, x, w), _zeros(w.shape, dy, x, w)
    for image in range(N):
        for k, l, i, j, row, col in taps(x.shape, geo):
            for m in range(C):
                dx[image, row, col, m] += w[i, j, m] * dy[image, k, l, m]
                dw[i, j, m] += x[image, row, col, m] * dy[image, k, l, m]
    return dx, dw, None if b is None else _bias_gradient(dy)


def pointwise_conv2d(x, w, b=None):
    """Combine the channels of each pixel: the 1x1 convolution of MobileNetV1, section 3.1.

    ``G[k, l, n] = sum over m of K[m, n] * F[k, l, m]``, with x (N, H, W, C_in), w (C_in, C_out) and b (C_out,).
    """
    x, w, b = _doubles(x, w, b)
    _need_ndim("x", x, 4)
    N, H, W, C_in = x.shape
    _need_shape("w", w, (C_in, w.shape[-1]))
    y = _zeros((N, H, W, w.shape[1]), x, w, b)
    for image, k, l, n in np.ndindex(y.shape):
        for m in range(C_in):
            y[image, k, l, n] += w[m, n] * x[image, k, l, m]
    return y if b is None else _add_bias(y, b)


def pointwise_conv2d_backward(dy, x, w, b=None):
    """Return ``(dx, dw, db)`` of :func:`pointwise_conv2d`; ``db`` is None without a bias."""
    dy, x, w, b = _doubles(dy, x, w, b)
    _need_shape("dy", dy, (*x.shape[:3], w.shape[1]))
    dx, dw = _zeros(x.shape, dy, x, w), _zeros(w.shape, dy, x, w)
    for image, k, l, n in np.ndindex(dy.shape):
        for m in range(x.shape[3]):
            dx[image, k, l, m] += w[m, n] * dy[image, k, l, n]
            dw[m, n] += x[image, k, l, m] * dy[image, k, l, n]
    return dx, dw, None if b is None else _bias_gradient(dy)


def linear(x, w, b=None):
    """Return the fully connected layer ``y[i, n] = sum over m of w[m, n] * x[i, m] + b[n]``.

    x is (N, C_in), w (C_in, C_out), b (C_out,) and y (N, C_out). The batch-norm paper (section 4.1) writes ``W u + b``
    for one column u; here one sample is a row, and w is its W transposed.
    """
    x, w, b = _doubles(x, w, b)
    _need_ndim("x", x, 2)
    N, C_in = x.shape
    _need_shape("w", w, (C_in, w.shape[-1]))
    y = _zeros((N, w.shape[1]), x, w, b)
    for i, n in np.ndindex(y.shape):
        for m in range(C_in):
            y[i, n] += w[m, n] * x[i, m]
    return y if b is None else _add_bias(y, b)


def linear_backward(dy, x, w, b=None):
    """Return ``(dx, dw, db)`` of :func:`linear`; ``db`` is None without a bias."""
    dy, x, w, b = _doubles(dy, x, w, b)
    _need_shape("dy", dy, (x.shape[0], w.shape[1]))
    dx, dw = _zeros(x.shape, dy, x, w), _zeros(w.shape, dy, x, w)
    for i, n in np.ndindex(dy.shape):
        for m in range(x.shape[1]):
            dx[i, m] += w[m, n] * dy[i, n]
            dw[m, n] += x[i, m] * dy[i, n]
    return dx, dw, None if b is None else _bias_gradient(dy)


# Normalization


def batch_norm(x, gamma, beta, running_mean, running_var, *, training, decay=0.99, eps=1e-3):
    """Normalize each channel over the batch (and, for images, over all pixels).

    Algorithm 1 of Ioffe & Szegedy (2015), with the m values of one channel as the mini-batch::

        mu    = 1/m sum over i of x_i
        var   = 1/m sum over i of (x_i - mu)^2
        x^_i  = (x_i - mu) / sqrt(var + eps)
        y_i   = gamma x^_i + beta

    In training the two running arrays are updated in place: each becomes ``decay * old + (1 - decay) * new``, where the
    new variance is the unbiased ``m / (m - 1) * var`` of Algorithm 2. In inference they take the places of mu and var.

    Parameters
    ----------
    x : ndarray, shape (N, C) or (N, H, W, C)
    gamma, beta, running_mean, running_var : ndarray, shape (C,)
    training : bool
    decay : float
        Weight of the OLD running statistic.
    eps : float

    Returns
    -------
    y : ndarray, shape of x

    Raises
    ------
    ValueError
        If the shapes do not fit, or in training with a single value a channel.

    Notes
    -----
    Differs from the paper: Algorithm 2 averages the statistics of several batches after training; the moving average is
    the paper's own suggestion (section 3.1) for following the model while it trains.
    """
    x, gamma, beta = _doubles(x, gamma, beta)
    mini_batches = x.reshape(-1, x.shape[-1])  # (N, H, W, C) -> (m, C)
    m, C = mini_batches.shape
    for name, array in (("gamma", gamma), ("beta", beta), ("running_mean", running_mean), ("running_var", running_var)):
        _need_shape(name, array, (C,))
    if training and m < 2:
        raise ValueError(f"batch_norm: x {x.shape} has a single value a channel; its variance says nothing")
    y = _zeros(mini_batches.shape, x, gamma, beta)
    for c in range(C):
        mu, var = _batch_statistics(mini_batches[:, c]) if training else (running_mean[c], running_var[c])
        for i in range(m):
            x_hat = (mini_batches[i, c] - mu) / np.sqrt(var + eps)
            y[i, c] = gamma[c] * x_hat + beta[c]
        if training:
            running_mean[c] = decay * running_mean[c] + (1 - decay) * mu
            running_var[c] = decay * running_var[c] + (1 - decay) * m / (m - 1) * var
    return y.reshape(x.shape)


def batch_norm_backward(dy, x, gamma, beta, running_mean, running_var, *, training, decay=0.99, eps=1e-3):
    """Return ``(dx, dgamma, dbeta)`` of :func:`batch_norm`.

    In training, term by term as in section 3 of the paper::

        dl/dx^_i  = dl/dy_i gamma
        dl/dvar   = sum over i of dl/dx^_i (x_i - mu) (-1/2) (var + eps)^(-3/2)
        dl/dmu    = sum over i of dl/dx^_i (-1 / sqrt(var + eps)) + dl/dvar (1/m) sum over i of -2 (x_i - mu)
        dl/dx_i   = dl/dx^_i (1 / sqrt(var + eps)) + dl/dvar 2 (x_i - mu) / m + dl/dmu (1/m)
        dl/dgamma = sum over i of dl/dy_i x^_i
        dl/dbeta  = sum over i of dl/dy_i

    In inference mu and var are constants, so that only the first term of dl/dx_i is left. ``beta`` and ``decay`` are
    taken for the sake of a uniform call; no gradient depends on them.
    """
    dy, x, gamma, beta = _doubles(dy, x, gamma, beta)
    _need_shape("dy", dy, x.shape)
    C = x.shape[-1]
    dl_dy, mini_batches = dy.reshape(-1, C), x.reshape(-1, C)  # (N, H, W, C) -> (m, C)
    m = len(mini_batches)
    dx = _zeros(mini_batches.shape, dy, x, gamma)
    dgamma, dbeta = _zeros(C, dy, x), _zeros(C, dy, x)
    for c in range(C):
        mu, var = _batch_statistics(mini_batches[:, c]) if training else (running_mean[c], running_var[c])
        centred = mini_batches[:, c] - mu
        dl_dx_hat = dl_dy[:, c] * gamma[c]
        for i in range(m):
            dgamma[c] += dl_dy[i, c] * centred[i] / np.sqrt(var + eps)
            dbeta[c] += dl_dy[i, c]
        if not training:
            for i in range(m):
                dx[i, c] = dl_dx_hat[i] / np.sqrt(var + eps)
            continue

        dl_dvar = 0.0
        for i in range(m):
            dl_dvar += dl_dx_hat[i] * centred[i] * -0.5 * (var + eps) ** -1.5
        dl_dmu = 0.0
        for i in range(m):
            dl_dmu += dl_dx_hat[i] * -1 / np.sqrt(var + eps)
        for i in range(m):
            dl_dmu += dl_dvar * -2 * centred[i] / m
        for i in range(m):
            dx[i, c] = dl_dx_hat[i] / np.sqrt(var + eps) + dl_dvar * 2 * centred[i] / m + dl_dmu / m
    return dx.reshape(x.shape), dgamma, dbeta


def _batch_statistics(values):
    m = len(values)
    mu = 0.0
    for x_i in values:
        mu += x_i / m
    var = 0.0
    for x_i in values:
        var += (x_i - mu) ** 2 / m
    return mu, var


def local_response_norm(x, *, size=5, alpha=1e-4, beta=0.75, k=2.0):
    """Divide each value by a power of the energy of the neighbouring channels, at the same pixel.

    ``b[i] = a[i] / (k + alpha * sum over j of a[j]^2)^beta``, j from ``max(0, i - size // 2)`` to
    ``min(C - 1, i + size // 2)`` (Krizhevsky et al. 2012, section 3.3: a is our x, b our y, n our size).

    Parameters
    ----------
    x : ndarray, shape (..., C)
    size : int
        Odd: the channel itself and as many on either side.
    alpha, beta, k : float
        As in the paper. PyTorch and Caffe divide alpha by the size; here it is not divided.
    """
    (x,) = _doubles(x)
    y = _zeros(x.shape, x)
    for position in np.ndindex(x.shape[:-1]):
        for i in range(x.shape[-1]):
            y[*position, i] = x[*position, i] / _response_energy(x[position], i, size, alpha, k) ** beta
    return y


def local_response_norm_backward(dy, x, *, size=5, alpha=1e-4, beta=0.75, k=2.0):
    """Return dx of :func:`local_response_norm`.

    With ``s[i] = k + alpha * sum over j of a[j]^2``, the quotient and the chain rule give::

        db[i]/da[i]  = s[i]^(-beta)                                            (from the numerator)
        db[i]/da[j] += -2 alpha beta a[i] a[j] s[i]^(-beta - 1)                (from each neighbour j, i included)
    """
    dy, x = _doubles(dy, x)
    _need_shape("dy", dy, x.shape)
    dx = _zeros(x.shape, dy, x)
    for position in np.ndindex(x.shape[:-1]):
        a, dl_db, dl_da = x[position], dy[position], dx[position]
        for i in range(x.shape[-1]):
            s_i = _response_energy(a, i, size, alpha, k)
            dl_da[i] += dl_db[i] * s_i**-beta
            for j in _neighbours(i, len(a), size):
                dl_da[j] += dl_db[i] * -2 * alpha * beta * a[i] * a[j] * s_i ** (-beta - 1)
    return dx


def _response_energy(a, i, size, alpha, k):
    energy = 0.0
    for j in _neighbours(i, len(a), size):
        energy += a[j] ** 2
    return k + alpha * energy


def _neighbours(i, C, size):
    return range(max(0, i - size // 2), min(C - 1, i + size // 2) + 1)


# Activations


def relu(x):
    """Return ``max(0, x)`` of each element."""
    (x,) = _doubles(x)
    y = _zeros(x.shape, x)
    for p in np.ndindex(x.shape):
        if x[p] > 0:
            y[p] = x[p]
    return y


def relu_backward(dy, x):
    """Return dx of :func:`relu`: dy where x > 0, else 0 (also at the kink itself)."""
    dy, x = _doubles(dy, x)
    dx = _zeros(x.shape, dy)
    for p in np.ndindex(x.shape):
        if x[p] > 0:
            dx[p] = dy[p]
    return dx


def relu6(x):
    """Return ``min(max(0, x), 6)`` of each element (MobileNetV2, section 4)."""
    (x,) = _doubles(x)
    y = _zeros(x.shape, x)
    for p in np.ndindex(x.shape):
        y[p] = min(max(0.0, x[p]), 6.0)
    return y


def relu6_backward(dy, x):
    """Return dx of :func:`relu6`: dy where 0 < x < 6, else 0 (also at the two kinks)."""
    dy, x = _doubles(dy, x)
    dx = _zeros(x.shape, dy)
    for p in np.ndindex(x.shape):
        if 0 < x[p] < 6:
            dx[p] = dy[p]
    return dx


def sigmoid(x):
    """Return ``1 / (1 + exp(-x))`` of each element, written so that the exponential never overflows."""
    (x,) = _doubles(x)
    y = _zeros(x.shape, x)
    for p in np.ndindex(x.shape):
        y[p] = _sigmoid(x[p])
    return y


def sigmoid_backward(dy, x):
    """Return dx of :func:`sigmoid`: ``dy s (1 - s)`` with ``s = sigmoid(x)``."""
    dy, x = _doubles(dy, x)
    dx = _zeros(x.shape, dy, x)
    for p in np.ndindex(x.shape):
        s = _sigmoid(x[p])
        dx[p] = dy[p] * s * (1 - s)
    return dx


def swish(x):
    """Return ``x sigmoid(x)`` of each element (Ramachandran et al. 2017, with their beta = 1)."""
    (x,) = _doubles(x)
    y = _zeros(x.shape, x)
    for p in np.ndindex(x.shape):
        y[p] = x[p] * _sigmoid(x[p])
    return y


def swish_backward(dy, x):
    """Return dx of :func:`swish`: ``dy (s + x s (1 - s))`` with ``s = sigmoid(x)``, by the product rule."""
    dy, x = _doubles(dy, x)
    dx = _zeros(x.shape, dy, x)
    for p in np.ndindex(x.shape):
        s = _sigmoid(x[p])
        dx[p] = dy[p] * (s + x[p] * s * (1 - s))
    return dx


def _sigmoid(x):
    if x.real >= 0:
        return 1 / (1 + np.exp(-x))
    return np.exp(x) / (1 + np.exp(x))


# Scale


def channel_scale(x, s):
    """Multiply each channel of an image by a number of its own.

    ``y[n, k, l, c] = x[n, k, l, c] s[n, c]`` (equation 4 of Hu et al. 2018, the end of squeeze-and-excitation).

    Parameters
    ----------
    x : ndarray, shape (N, H, W, C)
    s : ndarray, shape (N, C)
    """
    x, s = _doubles(x, s)
    _need_ndim("x", x, 4)
    _need_shape("s", s, (x.shape[0], x.shape[3]))
    y = _zeros(x.shape, x, s)
    for n, k, l, c in np.ndindex(x.shape):
        y[n, k, l, c] = x[n, k, l, c] * s[n, c]
    return y


def channel_scale_backward(dy, x, s):
    """Return (dx, ds) of :func:`channel_scale`: ds adds up the gradients of all pixels that s scaled."""
    dy, x, s = _doubles(dy, x, s)
    _need_shape("dy", dy, x.shape)
    dx, ds = _zeros(x.shape, dy, s), _zeros(s.shape, dy, x)
    for n, k, l, c in np.ndindex(x.shape):
        dx[n, k, l, c] = dy[n, k, l, c] * s[n, c]
        ds[n, c] += dy[n, k, l, c] * x[n, k, l, c]
    return dx, ds


# Pooling


def max_pool2d(x, size, *, stride=None, padding="valid"):
    """Return the largest value of each window, channel by channel.

    Parameters
    ----------
    x : ndarray, shape (N, H, W, C)
    size : int or (int, int)
    stride : int or (int, int), optional
        Default: the size, so that the windows do not overlap.
    padding : as in :func:`conv2d`
        Pixels outside the image do not take part: they are not zeros here.

    Returns
    -------
    y : ndarray, shape (N, H_out, W_out, C)
    """
    (x,) = _doubles(x)
    geo = _pool_geometry("max_pool2d", x, size, stride, padding)
    y = _zeros((x.shape[0], *geo.out, x.shape[3]), x)
    for image, k, l, c in np.ndindex(y.shape):
        row, col = _first_largest(x[image, :, :, c], k, l, geo)
        y[image, k, l, c] = x[image, row, col, c]
    return y


def max_pool2d_backward(dy, x, size, *, stride=None, padding="valid"):
    """Return dx of :func:`max_pool2d`: each window gives its gradient to the pixel it chose.

    Where several pixels of a window are equally large, the first in row order gets all of it.
    """
    dy, x = _doubles(dy, x)
    geo = _pool_geometry("max_pool2d", x, size, stride, padding)
    _need_shape("dy", dy, (x.shape[0], *geo.out, x.shape[3]))
    dx = _zeros(x.shape, dy)
    for image, k, l, c in np.ndindex(dy.shape):
        row, col = _first_largest(x[image, :, :, c], k, l, geo)
        dx[image, row, col, c] += dy[image, k, l, c]
    return dx


def avg_pool2d(x, size, *, stride=None, padding="valid"):
    """Return the mean of each window over the pixels that lie inside the image, channel by channel.

    Parameters are those of :func:`max_pool2d`. A window that hangs over the border is divided by the number of its
    pixels inside the image, as TensorFlow does, not by the size of the window.
    """
    (x,) = _doubles(x)
    geo = _pool_geometry("avg_pool2d", x, size, stride, padding)
    y = _zeros((x.shape[0], *geo.out, x.shape[3]), x)
    for image, k, l, c in np.ndindex(y.shape):
        pixels = window(x.shape, k, l, geo)
        for row, col in pixels:
            y[image, k, l, c] += x[image, row, col, c] / len(pixels)
    return y


def avg_pool2d_backward(dy, x, size, *, stride=None, padding="valid"):
    """Return dx of :func:`avg_pool2d`: each window shares its gradient equally among its pixels inside the image."""
    dy, x = _doubles(dy, x)
    geo = _pool_geometry("avg_pool2d", x, size, stride, padding)
    _need_shape("dy", dy, (x.shape[0], *geo.out, x.shape[3]))
    dx = _zeros(x.shape, dy)
    for image, k, l, c in np.ndindex(dy.shape):
        pixels = window(x.shape, k, l, geo)
        for row, col in pixels:
            dx[image, row, col, c] += dy[image, k, l, c] / len(pixels)
    return dx


def global_avg_pool(x):
    """Return the mean of each channel over all pixels: (N, H, W, C) -> (N, C)."""
    (x,) = _doubles(x)
    _need_ndim("x", x, 4)
    N, H, W, C = x.shape
    y = _zeros((N, C), x)
    for image, row, col, c in np.ndindex(x.shape):
        y[image, c] += x[image, row, col, c] / (H * W)
    return y


def global_avg_pool_backward(dy, x):
    """Return dx of :func:`global_avg_pool`: every pixel gets ``dy / (H W)`` of its channel."""
    dy, x = _doubles(dy, x)
    N, H, W, C = x.shape
    _need_shape("dy", dy, (N, C))
    dx = _zeros(x.shape, dy)
    for image, row, col, c in np.ndindex(x.shape):
        dx[image, row, col, c] = dy[image, c] / (H * W)
    return dx


def _first_largest(channel, k, l, geo):
    best = None
    for pixel in window((1, *channel.shape, 1), k, l, geo):
        if best is None or channel[pixel] > channel[best]:
            best = pixel
    return best


# Regularization


def dropout(x, rate, *, mask):
    """Keep the elements where the mask is true, scaled by ``1 / (1 - rate)``, and set the others to zero.

    ``y = x mask / (1 - rate)``, so that the expected value of y is x and inference leaves x alone.

    Parameters
    ----------
    x : ndarray
    rate : float
        The probability that an element is dropped.
    mask : ndarray of bool, shape of x
        True where an element is kept. The op draws it; the reference is told.

    Notes
    -----
    Differs from Srivastava et al. (2014): they scale by the keep probability at test time; scaling in training instead
    ("inverted" dropout) is the same up to a constant, and inference needs to know nothing.
    """
    (x,) = _doubles(x)
    _need_shape("mask", mask, x.shape)
    y = _zeros(x.shape, x)
    for p in np.ndindex(x.shape):
        if mask[p]:
            y[p] = x[p] / (1 - rate)
    return y


def dropout_backward(dy, x, rate, *, mask):
    """Return dx of :func:`dropout`: ``dy mask / (1 - rate)``, with the mask of the forward."""
    return dropout(dy, rate, mask=mask)


def drop_path(x, survival_prob, *, mask):
    """Keep a whole sample, scaled by ``1 / survival_prob``, or set all of it to zero.

    ``y[n] = x[n] mask[n] / survival_prob`` (stochastic depth, Huang et al. 2016, with the scaling moved from inference
    to training as in :func:`dropout`).

    Parameters
    ----------
    x : ndarray, shape (N, ...)
    survival_prob : float
        The probability that a sample is kept.
    mask : ndarray of bool, shape (N,)
        True where a sample is kept.
    """
    (x,) = _doubles(x)
    _need_shape("mask", mask, x.shape[:1])
    y = _zeros(x.shape, x)
    for n, *p in np.ndindex(x.shape):
        if mask[n]:
            y[n, *p] = x[n, *p] / survival_prob
    return y


def drop_path_backward(dy, x, survival_prob, *, mask):
    """Return dx of :func:`drop_path`: ``dy[n] mask[n] / survival_prob``, with the mask of the forward."""
    return drop_path(dy, survival_prob, mask=mask)


# Resize


def resize_bilinear(x, size, *, align_corners=False):
    """Resize images by linear interpolation along both axes.

    Output pixel (k, l) lies at the point (u, v) of the image, between rows ``r = floor(u)`` and r + 1 and columns
    ``q = floor(v)`` and q + 1. With the fractions ``f = u - r`` and ``g = v - q``::

        y[k, l] = (1-f)(1-g) x[r, q] + (1-f) g x[r, q+1] + f (1-g) x[r+1, q] + f g x[r+1, q+1]

    Parameters
    ----------
    x : ndarray, shape (N, H, W, C)
    size : int or (int, int)
        ``(H_out, W_out)``
    align_corners : bool
        False: pixels are squares and their centres lie at halves: ``u = (k + 1/2) H / H_out - 1/2``, held inside the
        image. True: the centres of the corner pixels stay where they are: ``u = k (H - 1) / (H_out - 1)``.

    Notes
    -----
    When the image shrinks, pixels between the sampled points are skipped: there is no anti-aliasing.
    """
    (x,) = _doubles(x)
    _need_ndim("x", x, 4)
    H_out, W_out = pair(size, "size")
    y = _zeros((x.shape[0], H_out, W_out, x.shape[3]), x)
    for image, k, l, c in np.ndindex(y.shape):
        for row, f in _between(k, x.shape[1], H_out, align_corners):
            for col, g in _between(l, x.shape[2], W_out, align_corners):
                y[image, k, l, c] += f * g * x[image, row, col, c]
    return y


def resize_bilinear_backward(dy, x, size, *, align_corners=False):
    """Return dx of :func:`resize_bilinear`: each output gives to its four pixels, with the same weights."""
    dy, x = _doubles(dy, x)
    H_out, W_out = pair(size, "size")
    _need_shape("dy", dy, (x.shape[0], H_out, W_out, x.shape[3]))
    dx = _zeros(x.shape, dy)
    for image, k, l, c in np.ndindex(dy.shape):
        for row, f in _between(k, x.shape[1], H_out, align_corners):
            for col, g in _between(l, x.shape[2], W_out, align_corners):
                dx[image, row, col, c] += f * g * dy[image, k, l, c]
    return dx


def _between(k, n, n_out, align_corners):
    """Return the two pixels around output pixel k along one axis, with their weights; at the border they may agree."""
    if align_corners:
        u = k * (n - 1) / (n_out - 1) if n_out > 1 else 0.0
    else:
        u = min(max((k + 0.5) * n / n_out - 0.5, 0.0), n - 1.0)
    r = int(u)
    return [(r, 1 - (u - r)), (min(r + 1, n - 1), u - r)]


# Loss


def softmax_cross_entropy(logits, labels, *, label_smoothing=0.0):
    """Return the mean cross entropy between smoothed labels and the softmax of the logits.

    With ``p[k] = exp(z[k]) / sum over j of exp(z[j])`` and
    ``q[k] = (1 - label_smoothing) [k == label] + label_smoothing / K``, one sample's loss is
    ``- sum over k of q[k] log p[k]`` (Szegedy et al. 2016, section 7). Every class, the true one too, gets its share of
    the smoothing.

    Parameters
    ----------
    logits : ndarray, shape (N, K)
        z in the equation.
    labels : ndarray of int, shape (N,)
    label_smoothing : float
        epsilon in the paper.

    Notes
    -----
    The largest logit is subtracted first. This changes no p[k], and no exponential overflows.
    """
    (z,) = _doubles(logits)
    N, K = z.shape
    loss = 0.0
    for i in range(N):
        for k in range(K):
            loss += -_smoothed(labels[i], k, K, label_smoothing) * _log_softmax(z[i])[k] / N
    return loss


def softmax_cross_entropy_backward(dy, logits, labels, *, label_smoothing=0.0):
    """Return dlogits of :func:`softmax_cross_entropy`: ``dy (p[k] - q[k]) / N``."""
    (z,) = _doubles(logits)
    N, K = z.shape
    dlogits = _zeros(z.shape, z, np.asarray(dy))
    for i in range(N):
        for k in range(K):
            p_k = np.exp(_log_softmax(z[i])[k])
            dlogits[i, k] = dy * (p_k - _smoothed(labels[i], k, K, label_smoothing)) / N
    return dlogits


def _log_softmax(z):
    largest = max(z_k.real for z_k in z)
    total = 0.0
    for z_k in z:
        total += np.exp(z_k - largest)
    return [z_k - largest - np.log(total) for z_k in z]


def _smoothed(label, k, K, label_smoothing):
    return (1 - label_smoothing) * (k == label) + label_smoothing / K


# Windows


def taps(x_shape, geo: Geometry):
    """Yield ``(k, l, i, j, row, col)`` for every kernel entry that meets a pixel of the image.

    At output (k, l), kernel entry (i, j) meets the pixel ``row = stride k + dilation i - top``,
    ``col = stride l + dilation j - left``. Where that lies outside the image, the product is zero and is left out.
    """
    _, H, W, _ = x_shape
    (top, _), (left, _) = geo.pads
    for k, l, i, j in np.ndindex(*geo.out, *geo.kernel):
        row = geo.stride[0] * k + geo.dilation[0] * i - top
        col = geo.stride[1] * l + geo.dilation[1] * j - left
        if 0 <= row < H and 0 <= col < W:
            yield k, l, i, j, row, col


def window(x_shape, k, l, geo: Geometry):
    """Return the pixels (row, col) inside the image that the window at output (k, l) covers, in row order."""
    _, H, W, _ = x_shape
    (top, _), (left, _) = geo.pads
    pixels = []
    for i, j in np.ndindex(geo.kernel):
        row, col = geo.stride[0] * k + i - top, geo.stride[1] * l + j - left
        if 0 <= row < H and 0 <= col < W:
            pixels.append((row, col))
    if not pixels:
        raise ValueError(f"the pooling window at output {(k, l)} lies wholly outside the image; use less padding")
    return pixels


# Helpers


def _doubles(*arrays):
    """Return the arrays in double precision (None stays None)."""
    return [
        None if array is None else np.asarray(array, np.complex128 if np.iscomplexobj(array) else np.float64)
        for array in arrays
    ]


def _zeros(shape, *arrays):
    return np.zeros(shape, np.result_type(*[array for array in arrays if array is not None]))


def _add_bias(y, b):
    _need_shape("b", b, y.shape[-1:])
    for p in np.ndindex(y.shape):
        y[p] += b[p[-1]]
    return y


def _bias_gradient(dy):
    db = _zeros(dy.shape[-1], dy)
    for p in np.ndindex(dy.shape):
        db[p[-1]] += dy[p]
    return db


def _conv_geometry(name, x, w, stride, padding, dilation, w_ndim):
    _need_ndim("x", x, 4)
    _need_ndim("w", w, w_ndim)
    if w.shape[2] != x.shape[3]:
        raise ValueError(f"{name}: x {x.shape} has {x.shape[3]} channels, but w {w.shape} expects {w.shape[2]}")
    return geometry(x.shape[1:3], w.shape[:2], stride=stride, padding=padding, dilation=dilation, name=name)


def _pool_geometry(name, x, size, stride, padding):
    _need_ndim("x", x, 4)
    size = pair(size, f"{name}: size")
    return geometry(x.shape[1:3], size, stride=size if stride is None else stride, padding=padding, name=name)


def _need_ndim(name, array, ndim):
    if array.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} axes, got the shape {array.shape}")


def _need_shape(name, array, shape):
    if array.shape != tuple(shape):
        raise ValueError(f"{name} must have the shape {tuple(shape)}, got {array.shape}")
