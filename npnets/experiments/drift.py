"""How the inputs of the last sigmoid move while a network trains: measures over the records of ``activations``.

A record has the mean and variance of each of the hundred inputs, over the mini-batch of a step, at the recorded steps
(section 4.1 and Figure 1 (b, c) of the batch-norm paper). The paper compares two curves by eye. Here are numbers::

    found = between(record, 1000, 50_000)
    found.shift, found.stretch               # (100,) each: of the mean, and of the standard deviation

Both have no unit: they stay what they are if a layer's output is multiplied by a constant. That is needed to compare
two networks whose activations have different scales.
"""

from typing import NamedTuple

import numpy as np

from npnets.shapes import integer

_NODES = 64  # of the quadrature: right to eight digits for a standard deviation of 2, to three for 4


class Moments(NamedTuple):
    """Mean and standard deviation of each unit over a mini-batch, at T recorded steps; in float64."""

    steps: np.ndarray  # (T,)
    mean: np.ndarray  # (T, U)
    std: np.ndarray  # (T, U)


class Drift(NamedTuple):
    """How far a distribution has moved from one step to another.

    Attributes
    ----------
    shift : ndarray, shape (U,)
        Difference of the means, in standard deviations (the root of the mean of both variances).
    stretch : ndarray, shape (U,)
        Ratio of the standard deviations, in octaves: 1 is twice as wide, -1 half as wide.
    """

    shift: np.ndarray
    stretch: np.ndarray


def moments(record):
    """Return the :class:`Moments` of a record of ``activations``."""
    mean, variance = (record.arrays[name].astype(np.float64) for name in ("mean", "variance"))
    return Moments(np.array(record["steps"], np.int64), mean, np.sqrt(variance))


def between(record, since, until):
    """Return the :class:`Drift` of each unit from one recorded step to another.

    Parameters
    ----------
    record : Record
        Of ``activations``.
    since, until : int

    Raises
    ------
    ValueError
        If nothing is recorded of one of the steps.
    """
    found = moments(record)
    first, last = (_index(found.steps, step) for step in (since, until))
    pooled = np.sqrt((found.std[first] ** 2 + found.std[last] ** 2) / 2)  # (U,)
    shift = (found.mean[last] - found.mean[first]) / pooled
    return Drift(shift, np.log2(found.std[last] / found.std[first]))


def sampling(batch_size):
    """Return the :class:`Drift` that two batches of one and the same distribution seem to have.

    Parameters
    ----------
    batch_size : int
        m, at least 2.

    Returns
    -------
    Drift
        The standard deviations of shift and stretch, a number each: ``sqrt(2 / (m - 1))`` and, of Gaussian numbers,
        ``1 / (ln 2 sqrt(m - 1))``.

    Notes
    -----
    Of the *outputs* of batch norm both are zero: the mean of every mini-batch is beta, its standard deviation gamma.
    """
    m = integer(batch_size, "batch_size", 2)
    return Drift(np.sqrt(2 / (m - 1)), 1 / (np.log(2) * np.sqrt(m - 1)))


def restlessness(record, since):
    """Return how much more the batch means change from one recorded step to the next than by sampling alone.

    Parameters
    ----------
    record : Record
        Of ``activations``.
    since : int
        The first recorded step that counts.

    Returns
    -------
    float
        The mean over units and steps of the squared change, divided by its expectation ``2 var / (m - 1)``. One is what
        another choice of images makes, with the weights as they are.

    Raises
    ------
    ValueError
        If nothing is recorded of the step, or of none after it.
    """
    found = moments(record)
    first = _index(found.steps, since)
    if first == len(found.steps) - 1:
        raise ValueError(f"step {since} is the last that is recorded; choose an earlier one")
    mean, variance = found.mean[first:], found.std[first:] ** 2
    expected = (variance[1:] + variance[:-1]) / (record.settings["batch_size"] - 1)  # (T', U)
    return float(np.mean(np.diff(mean, axis=0) ** 2) / np.mean(expected))


def wandering(record):
    """Return how far the percentiles of each unit move about, (U,).

    It is the standard deviation over the recorded steps of each of its three percentiles, and the root mean square of
    the three: in the unit of the sigmoid's input, as Figure 1 (b, c) draws it.
    """
    percentiles = record.arrays["quantiles"].astype(np.float64)  # (T, 3, U)
    return np.sqrt(percentiles.var(axis=0).mean(axis=0))


def typical(record):
    """Return the number of the unit that is in the middle by its :func:`wandering`: half of the others move more.

    The paper shows "one typical activation" and does not say how it was chosen. Of an even number of units this is the
    last of the lower half.
    """
    order = np.argsort(wandering(record), kind="stable")
    return int(order[(len(order) - 1) // 2])


def mean_slope(mean, std):
    """Return the mean of the sigmoid's slope over inputs from a Gaussian, ``E[s'(x)]`` with x from N(mean, std^2).

    It is 1/4 for a narrow Gaussian around zero, and falls to zero when the Gaussian drifts away or spreads out: the
    share of the gradient that a sigmoid lets through on the average.

    Parameters
    ----------
    mean, std : array_like, of shapes that broadcast

    Returns
    -------
    ndarray
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    x = np.asarray(mean)[..., None] + np.asarray(std)[..., None] * nodes  # (..., nodes)
    s = 1 / (1 + np.exp(-x))
    return (s * (1 - s)) @ (weights / weights.sum())


def _index(steps, step):
    """Return where a step is among the recorded ones."""
    found = np.flatnonzero(steps == step)
    if not found.size:
        raise ValueError(f"nothing is recorded of step {step}; there are {', '.join(map(str, steps))}")
    return found[0]
