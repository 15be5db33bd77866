"""What a ReLU leaves of a signal in few dimensions: the argument for linear bottlenecks (MobileNetV2, Figure 1).

A curve in d dimensions is sent through a random matrix T to n dimensions, a ReLU follows, and the pseudo-inverse of T
leads back. In few dimensions points fall together for good; in many, every point has enough coordinates left that tell
where it was. :func:`recoveries` measures it, in three ways that ask for less and less from whoever wants x back:

=================== =================================================================================================
``pseudo_inverse``  what the figure draws: ``x_hat = y T^+``. It undoes T but not the ReLU, which lets about half of a
                    signal through: of many dimensions comes back x / 2, which is three quarters of its variance
``regression``      the best affine map from y back to x, for these points
``determined``      the share of the points at which y leaves no choice but x, for a decoder that can do anything
=================== =================================================================================================

The other functions look at any matrix of activations, (M, C): M points or pixels with C channels.
"""

import itertools
import math
from typing import NamedTuple

import numpy as np

from npnets import ops
from npnets.shapes import choice, integer

ACTIVATIONS = {
    "linear": lambda z: z,
    "relu": lambda z: ops.relu_forward(z)[0],
    "relu6": lambda z: ops.relu6_forward(z)[0],
}


def spiral(count=600, *, turns=2.5, radius=1.0):
    """Return points of a spiral around the origin, (count, 2): about equally far from each other along the curve.

    ``x(u) = radius sqrt(u) (cos phi, sin phi)``, ``phi = 2 pi turns sqrt(u)``, with u from 0 to 1.
    """
    root = np.sqrt(np.linspace(0, 1, integer(count, "count", 2)))
    phi = 2 * np.pi * turns * root
    return radius * root[:, None] * np.stack([np.cos(phi), np.sin(phi)], axis=1)


def random_matrix(d, n, rng):
    """Return T, (d, n): each number from a Gaussian with standard deviation 1. (The paper does not say from which.)"""
    return rng.standard_normal((integer(d, "d", 1), integer(n, "n", 1)))


def embedded(x, T, activation="relu"):
    """Return ``y = activation(x T)``, (M, d) -> (M, n).

    Parameters
    ----------
    x : ndarray, shape (M, d)
    T : ndarray, shape (d, n)
    activation : {"linear", "relu", "relu6"}
    """
    return ACTIVATIONS[choice(activation, "activation", ACTIVATIONS)](x @ T)


def pulled_back(y, T):
    """Return ``y T^+`` with the pseudo-inverse of T, (M, n) -> (M, d): the way back in the paper's Figure 1."""
    return y @ np.linalg.pinv(T)


def active(y, activation="relu"):
    """Return where y tells its input, (M, n) of bool: for ReLU where it is above 0, for ReLU6 below 6 as well."""
    choice(activation, "activation", ACTIVATIONS)
    if activation == "linear":
        return np.ones(y.shape, bool)
    return (y > 0) & (y < ops.activation.UPPER[activation])


def determined(T, active):
    """Return for each point whether its active coordinates determine it, (M,) of bool.

    ``y = ReLU(x T)`` has no other solution x if and only if the columns of T that belong to the active coordinates span
    all d dimensions (the paper's Lemma 2, in its appendix A): the coordinates that are cut off tell no more than on
    which side of a plane x lies.

    Parameters
    ----------
    T : ndarray, shape (d, n)
    active : ndarray of bool, shape (M, n)
        See :func:`active`.
    """
    sets, which = np.unique(active, axis=0, return_inverse=True)
    enough = np.linalg.matrix_rank(T * sets[:, None, :]) == len(T)  # (sets, d, n), other columns zero -> (sets,)
    return enough[which.reshape(-1)]


def chance_determined(n, d=2):
    """Return how likely a point is determined after ReLU, for a T with a symmetric distribution.

    Each of the n coordinates is positive with probability 1/2, and any d of them are enough:
    ``1 - 2^-n sum_{k < d} (n over k)``.

    >>> [chance_determined(n) for n in (1, 2, 3, 5, 15)]
    [0.0, 0.25, 0.5, 0.8125, 0.99951171875]
    """
    return 1 - sum(math.comb(n, k) for k in range(d)) / 2**n


def explained(x, x_hat):
    """Return the share of the variance of x that an estimate of it gets right: ``1 - |x - x_hat|^2 / |x - mean|^2``.

    Both (M, d). It is 1 for x itself, 0 for the mean of x everywhere, and negative for something worse than that; NaN
    where all x are the same.
    """
    x, x_hat = np.asarray(x, np.float64), np.asarray(x_hat, np.float64)
    variance = np.sum((x - x.mean(axis=0)) ** 2)
    return float(1 - np.sum((x - x_hat) ** 2) / variance) if variance else math.nan


def regression(x, y):
    """Return the best affine estimate of x from y by least squares, (M, d) and (M, n) -> (M, d)."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    mean, y = x.mean(axis=0), y - y.mean(axis=0)
    return mean + y @ np.linalg.lstsq(y, x - mean, rcond=None)[0]


def singular_values(y):
    """Return the singular values of a matrix of activations (M, C), largest first, without the mean of each column."""
    y = np.asarray(y, np.float64)
    return np.linalg.svd(y - y.mean(axis=0), compute_uv=False)


def effective_rank(s):
    """Return the effective rank of a matrix with these singular values: how many dimensions it really uses.

    ``exp(-sum p log p)`` with ``p = s / sum(s)``: the exponential of their entropy (Roy and Vetterli 2007, "The
    effective rank: a measure of effective dimensionality"). It is C where all C are equal, near 1 where one is much
    larger than the others, and 0 of nothing.

    >>> effective_rank([5.0, 5.0, 0.0]), round(effective_rank([9.0, 1.0, 0.0]), 2)
    (2.0, 1.38)
    """
    s = np.asarray(s, np.float64)
    p = s[s > 0] / max(s.sum(), np.finfo(float).tiny)
    return float(np.exp(-np.sum(p * np.log(p)))) if p.size else 0.0


def rank_above(s, share=0.01):
    """Return how many singular values are above a share of the largest; 0 where all are zero."""
    s = np.asarray(s)
    return int(np.sum(s > share * s.max(initial=0.0)))


def dead(y, tolerance=1e-6):
    """Return which coordinates are the same number for all points, but for rounding: they tell nothing. (C,) of bool.

    Parameters
    ----------
    y : ndarray, shape (M, C)
    tolerance : float
        Differences up to this share of the largest number do not count.
    """
    return np.ptp(y, axis=0) <= tolerance * np.abs(y).max()


class Recovery(NamedTuple):
    """What can be got back of x from ``y = activation(x T)``, and what y looks like."""

    pseudo_inverse: float  # share of the variance of x, see the top of this file
    regression: float
    determined: float  # share of the points
    rank: float  # of y: singular values above 1 % of the largest
    effective_rank: float
    active: float  # share of the coordinates of a point that tell their input, mean over the points
    sets: float  # how many different sets of active coordinates there are


def recovery(x, T, activation="relu"):
    """Return the :class:`Recovery` of points x (M, d) from their image through T (d, n) and an activation."""
    y = embedded(x, T, activation)
    on, s = active(y, activation), singular_values(y)
    return Recovery(
        pseudo_inverse=explained(x, pulled_back(y, T)),
        regression=explained(x, regression(x, y)),
        determined=float(determined(T, on).mean()),
        rank=rank_above(s),
        effective_rank=effective_rank(s),
        active=float(on.mean()),
        sets=len(np.unique(on, axis=0)),
    )


def recoveries(x, dimensions, activation="relu", *, draws=20, seed=0):
    """Return the recovery of points for several n, with several random matrices each.

    Parameters
    ----------
    x : ndarray, shape (M, d)
    dimensions : sequence of int
        The n.
    activation : {"linear", "relu", "relu6"}
    draws : int
    seed : int
        For the same one, all activations get the same matrices.

    Returns
    -------
    Recovery
        Of arrays (len(dimensions), draws).
    """
    rngs = {n: np.random.default_rng([seed, n]) for n in dimensions}
    draws = integer(draws, "draws", 1)
    found = [
        recovery(x, random_matrix(x.shape[1], n, rngs[n]), activation)
        for n, _ in itertools.product(dimensions, range(draws))
    ]
    each = np.array(found, np.float64).reshape(len(dimensions), draws, -1)
    return Recovery(*np.moveaxis(each, -1, 0))
