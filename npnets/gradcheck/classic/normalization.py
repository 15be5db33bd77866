"""Batch normalization and local response normalization.

Batch norm in training (Ioffe and Szegedy, section 3): x acts on y directly, through the mean, and through the
variance. With ``dx_hat = gamma dy`` and means over the m numbers of a channel, the three paths sum up to

    ``dx = gamma inv_std (dy - mean(dy) - x_hat mean(dy x_hat))``.

The second term is the path through the mean, the third the path through the variance. In inference the statistics are
constants and only the first term is left.
"""

from typing import NamedTuple

import numpy as np

from npnets.gradcheck.catalogue import Case, KnownOp, mistake, register


class Statistics(NamedTuple):
    """What normalizes x: per channel, with every axis kept for broadcasting."""

    mu: np.ndarray
    var: np.ndarray
    inv_std: np.ndarray
    x_hat: np.ndarray
    m: int


def statistics(case, *, axes=None, eps=None, batch=None):
    """Return the statistics of the batch or, in inference, the running ones."""
    axes = tuple(range(case.x.ndim - 1)) if axes is None else axes
    eps = case.eps if eps is None else eps
    m = int(np.prod([case.x.shape[axis] for axis in axes]))
    if case.training if batch is None else batch:
        mu, var = case.x.mean(axis=axes, keepdims=True), case.x.var(axis=axes, keepdims=True)
    else:
        mu, var = case.running_mean, case.running_var
    inv_std = 1 / np.sqrt(var + eps)
    return Statistics(mu, var, inv_std, (case.x - mu) * inv_std, m)


def closed_form(case, *, through_mean=1.0, through_var=1.0, axes=None, m=None, centred=False, **changed):
    """Return dx, with factors on the two indirect paths, other axes for the means, or other statistics.

    ``centred`` keeps the path from the variance through the mean, as the chain rule of the paper writes it. It is zero
    where x_hat has mean zero, but not with the wrong statistics.
    """
    used = statistics(case)._replace(**changed)
    axes = tuple(range(case.x.ndim - 1)) if axes is None else axes
    m = used.m if m is None else m
    mean_dy = case.dy.sum(axis=axes, keepdims=True) / m
    mean_dy_x_hat = (case.dy * used.x_hat).sum(axis=axes, keepdims=True) / m
    deviation = used.x_hat - used.x_hat.mean(axis=axes, keepdims=True) if centred else used.x_hat
    return case.gamma * used.inv_std * (case.dy - through_mean * mean_dy - through_var * deviation * mean_dy_x_hat)


def direct_path(case, inv_std):
    """Return the first term alone: the gradient for statistics that are constants."""
    return case.gamma * inv_std * case.dy


def dgamma(case, x_hat):
    """Return ``sum dy x_hat``, for whatever is taken for x_hat."""
    return (case.dy * x_hat).sum(axis=tuple(range(case.x.ndim - 1)))


def right_batch_norm(case):
    """The right gradients, in training and in inference."""
    used = statistics(case)
    dx = closed_form(case) if case.training else direct_path(case, used.inv_std)
    return {"dx": dx, "dgamma": dgamma(case, used.x_hat), "dbeta": dgamma(case, np.ones_like(case.x))}


def in_training(variants):
    """Make a mistake that concerns the indirect paths only: in inference there are none."""
    return lambda case: variants(case) if case.training else {}


@mistake(
    "batch_norm",
    "variance as a constant",
    "the variance is treated as a constant",
    "Every x of the channel changes the variance. The path through it adds - x_hat mean(dy x_hat) in the bracket.",
)
@in_training
def variance_constant(case):
    """The x_hat term dropped."""
    return {"dx": closed_form(case, through_var=0)}


@mistake(
    "batch_norm",
    "mean as a constant",
    "the mean is treated as a constant",
    "Every x of the channel changes the mean. The path through it adds - mean(dy) in the bracket.",
)
@in_training
def mean_constant(case):
    """The mean(dy) term dropped."""
    return {"dx": closed_form(case, through_mean=0)}


@mistake(
    "batch_norm",
    "mean and variance as constants",
    "mean and variance are both treated as constants",
    "gamma inv_std dy is right in inference. In training, mean and variance depend on x: two more paths.",
)
@in_training
def both_constant(case):
    """The direct path alone, with the statistics of the batch."""
    return {"dx": direct_path(case, statistics(case).inv_std)}


@mistake(
    "batch_norm",
    "inference formula in training",
    "the formula of inference, with the running variance, is used in training",
    "In training the batch was normalized with its own mean and variance; the running ones take no part in y.",
)
@in_training
def inference_formula(case):
    """The direct path with the running variance as it was before the forward, or as the forward left it."""
    used = statistics(case)
    unbiased = used.var * used.m / (used.m - 1)
    after = case.decay * case.running_var + (1 - case.decay) * unbiased
    return [{"dx": direct_path(case, 1 / np.sqrt(var + case.eps))} for var in (case.running_var, after)]


@mistake(
    "batch_norm",
    "training formula in inference",
    "the formula of training is used in inference",
    "In inference mean and variance are constants, they do not depend on x: dx = gamma inv_std dy.",
)
def training_formula(case):
    """All three paths or two of them, with the running statistics; all three with those of the batch."""
    if case.training:
        return []
    of_batch = statistics(case, batch=True)
    return [
        {"dx": closed_form(case)},
        {"dx": closed_form(case, centred=True)},
        {"dx": closed_form(case, through_var=0)},
        {"dx": closed_form(case, through_mean=0)},
        {"dx": closed_form(case, inv_std=of_batch.inv_std, x_hat=of_batch.x_hat)},
    ]


@mistake(
    "batch_norm",
    "1/m missing",
    "the 1/m of the means is missing",
    "mu = 1/m sum x, so each x moves the mean by 1/m only: sums over dy and dy x_hat are divided by m.",
)
@in_training
def m_missing(case):
    """Sums for means: in both terms, or in one of them."""
    m = statistics(case).m
    return [{"dx": closed_form(case, through_mean=a, through_var=b)} for a, b in ((m, m), (m, 1), (1, m))]


@mistake(
    "batch_norm",
    "the whole gradient times m",
    "the 1/m in front of m dy - sum(dy) - x_hat sum(dy x_hat) is missing",
    "That bracket is m times too large; divide by m once.",
)
@in_training
def m_times_too_large(case):
    """m dx."""
    return {"dx": statistics(case).m * closed_form(case)}


@mistake(
    "batch_norm",
    "m taken for N",
    "m is taken for the batch size N: the pixels are not counted",
    "A channel's statistics are over all pixels of all images (section 3.2): m = N H W.",
)
@in_training
def m_is_batch_size(case):
    """Sums over everything, divided by N."""
    return {"dx": closed_form(case, m=len(case.x))} if case.x.ndim == 4 else {}


@mistake(
    "batch_norm",
    "statistics per pixel",
    "the means are taken per pixel, over the batch only",
    "One mean and one variance for each channel (section 3.2): average over (N, H, W), every axis but the last.",
)
@in_training
def per_pixel(case):
    """Means over axis 0, with x_hat as it should be (in closed form or not), or normalized per pixel too."""
    if case.x.ndim != 4:
        return []
    pixel = statistics(case, axes=(0,))
    return [
        {"dx": closed_form(case, axes=(0,), m=pixel.m)},
        {"dx": closed_form(case, axes=(0,), m=pixel.m, centred=True)},
        {
            "dx": closed_form(case, axes=(0,), m=pixel.m, x_hat=pixel.x_hat, inv_std=pixel.inv_std),
            "dgamma": dgamma(case, pixel.x_hat),
        },
    ]


@mistake(
    "batch_norm",
    "gamma forgotten",
    "gamma is forgotten in dx",
    "y = gamma x_hat + beta, so dx_hat = gamma dy. With gamma = 1, as at the start of training, nobody notices.",
)
def gamma_forgotten(case):
    """dy where gamma dy belongs."""
    return {"dx": right_batch_norm(Case(**vars(case) | {"gamma": np.ones_like(case.gamma)}))["dx"]}


@mistake(
    "batch_norm",
    "inv_std forgotten",
    "1/std is forgotten in dx",
    "x_hat = (x - mu) inv_std: the gradient passes through the same factor.",
)
def inv_std_forgotten(case):
    """dx / inv_std."""
    return {"dx": right_batch_norm(case)["dx"] / statistics(case).inv_std}


@mistake(
    "batch_norm",
    "divided by the variance",
    "dx is divided by the variance instead of the standard deviation",
    "inv_std is 1 / sqrt(var + eps): look for a missing square root.",
)
def square_root_forgotten(case):
    """inv_std squared."""
    return {"dx": right_batch_norm(case)["dx"] * statistics(case).inv_std}


@mistake(
    "batch_norm",
    "eps left out",
    "eps is left out of the standard deviation in the backward",
    "The forward divides by sqrt(var + eps); the backward must use the same number. Keep inv_std in the cache.",
)
def eps_left_out(case):
    """1 / sqrt(var), with the x_hat of the forward or with one computed anew."""
    bare = statistics(case, eps=0.0)
    if not case.training:
        return [{"dx": direct_path(case, bare.inv_std), "dgamma": dgamma(case, bare.x_hat)}]
    return [
        {"dx": closed_form(case, inv_std=bare.inv_std)},
        {"dx": closed_form(case, inv_std=bare.inv_std, x_hat=bare.x_hat), "dgamma": dgamma(case, bare.x_hat)},
    ]


@mistake(
    "batch_norm",
    "unbiased variance",
    "the unbiased variance, with m - 1, is used in the backward",
    "The batch is normalized with 1/m. The m/(m-1) of Algorithm 2 is for the running variance alone.",
)
@in_training
def unbiased(case):
    """m - 1 in the path through the variance, in the standard deviation, or in both."""
    used = statistics(case)
    ratio = used.m / (used.m - 1)
    inv_std = 1 / np.sqrt(used.var * ratio + case.eps)
    x_hat = (case.x - used.mu) * inv_std
    return [
        {"dx": closed_form(case, through_var=ratio)},
        {"dx": closed_form(case, inv_std=inv_std)},
        {"dx": closed_form(case, inv_std=inv_std, x_hat=x_hat), "dgamma": dgamma(case, x_hat)},
    ]


@mistake(
    "batch_norm",
    "factor in the variance path",
    "a factor is lost in the path through the variance (-1/2 of the power, or 2 of the square)",
    "d(var + eps)^(-1/2)/dvar = -1/2 (var + eps)^(-3/2), and dvar/dx = 2 (x - mu) / m: the 2 and the -1/2 make -1.",
)
@in_training
def factor_in_variance_path(case):
    """2 forgotten, 1/2 forgotten, the sign forgotten, -1/2 forgotten."""
    return [{"dx": closed_form(case, through_var=factor)} for factor in (0.5, 2, -1, -2)]


@mistake(
    "batch_norm",
    "power in the variance path",
    "the power of (var + eps) in the path through the variance is not -3/2",
    "Differentiating (var + eps)^(-1/2) lowers the power by one: -3/2.",
)
@in_training
def power_in_variance_path(case):
    """(var + eps) to the power -1/2 or -1 instead of -3/2."""
    inv_std = statistics(case).inv_std
    return [{"dx": closed_form(case, through_var=inv_std**-power)} for power in (2, 1)]


@mistake(
    "batch_norm",
    "sign of the mean path",
    "the path through the mean has the wrong sign",
    "x_hat contains - mu, so the gradient of the mean is - inv_std sum(dx_hat).",
)
@in_training
def sign_of_mean_path(case):
    """+ mean(dy)."""
    return {"dx": closed_form(case, through_mean=-1)}


@mistake(
    "batch_norm",
    "dgamma from x",
    "dgamma is computed from x (or x - mu) instead of x_hat",
    "y = gamma x_hat + beta: what gamma multiplies is the normalized x_hat. Keep it in the cache.",
)
def dgamma_from_x(case):
    """sum dy x, or sum dy (x - mu)."""
    return [{"dgamma": dgamma(case, case.x)}, {"dgamma": dgamma(case, case.x - statistics(case).mu)}]


@mistake(
    "batch_norm",
    "dgamma from y",
    "dgamma is computed from the output y instead of x_hat",
    "y already contains gamma and beta; what gamma multiplies is x_hat.",
)
def dgamma_from_y(case):
    """sum dy y."""
    return {"dgamma": dgamma(case, case.y)}


@mistake(
    "batch_norm",
    "dgamma and dbeta swapped",
    "dgamma and dbeta are returned in each other's place",
    "The order is that of the inputs: dx, dgamma, dbeta.",
)
def swapped(case):
    """(dx, dbeta, dgamma)."""
    gradients = right_batch_norm(case)
    return {"dgamma": gradients["dbeta"], "dbeta": gradients["dgamma"]}


def _samples_batch_norm(rng):
    def inputs(*shape):
        normal, uniform, C = rng.standard_normal, rng.uniform, shape[-1]
        x = uniform(0.2, 2.0, C) * normal(shape) + normal(C)
        return x, uniform(0.5, 2.0, C), normal(C), normal(C), uniform(0.3, 3.0, C)

    return [
        (inputs(3, 4, 2, 3), {"training": True}),
        (inputs(6, 3), {"training": True, "decay": 0.9, "eps": 0.01}),
        (inputs(3, 4, 2, 3), {"training": False}),
    ]


register(
    KnownOp(
        "batch_norm",
        ("x", "gamma", "beta", "running_mean", "running_var"),
        ("dx", "dgamma", "dbeta"),
        right_batch_norm,
        _samples_batch_norm,
        {"training": True, "decay": 0.99, "eps": 1e-3, "running_mean": 0.0, "running_var": 1.0},
    )
)


def neighbours(channels, size):
    """Return the matrix of ones where two channels are at most size // 2 apart: it sums over the neighbourhood."""
    k = np.arange(channels)
    return (abs(k[:, None] - k) <= size // 2).astype(float)


def response_norm(case, factor=2.0, near=None, power=1.0):
    """Return dx; its second term is the path through the sums of squares."""
    near = neighbours(case.x.shape[-1], case.size) if near is None else near
    scale = case.k + case.alpha * (case.x**2 @ neighbours(case.x.shape[-1], case.size))
    through_sum = (case.dy * case.x * scale ** (-case.beta - power)) @ near
    return {"dx": case.dy * scale**-case.beta - factor * case.alpha * case.beta * case.x * through_sum}


@mistake(
    "local_response_norm",
    "norm as a constant",
    "the sum of squares is treated as a constant",
    "Each x is part of the sums of its neighbours and of its own: a second term, with power -beta - 1.",
)
def norm_constant(case):
    """The direct path alone."""
    return response_norm(case, factor=0.0)


@mistake(
    "local_response_norm",
    "neighbours forgotten",
    "only a channel's own sum is differentiated, not those of its neighbours",
    "x of channel c is part of the sums of all channels within size // 2 of it; each of them sends a gradient back.",
)
def neighbours_forgotten(case):
    """The diagonal of the neighbourhood."""
    return response_norm(case, near=np.eye(case.x.shape[-1]))


@mistake(
    "local_response_norm",
    "2 of the square forgotten",
    "the 2 of the derivative of x^2 is forgotten",
    "d(x^2)/dx = 2 x.",
)
def two_forgotten(case):
    """Half of the second term."""
    return response_norm(case, factor=1.0)


@mistake(
    "local_response_norm",
    "power not lowered",
    "the power of the sum is not lowered by one in the second term",
    "The derivative of s^-beta is -beta s^(-beta - 1).",
)
def power_not_lowered(case):
    """-beta instead of -beta - 1."""
    return response_norm(case, power=0.0)


def _samples_response_norm(rng):
    settings = {"size": 3, "alpha": 0.3, "beta": 0.6, "k": 1.5}
    return [((rng.standard_normal((2, 3, 2, 5)),), settings)]


register(
    KnownOp(
        "local_response_norm",
        ("x",),
        ("dx",),
        response_norm,
        _samples_response_norm,
        {"size": 5, "alpha": 1e-4, "beta": 0.75, "k": 2.0},
    )
)
