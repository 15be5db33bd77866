"""Is one variant better than another? The difference of their means over the seeds, and how far it can be trusted."""

from typing import NamedTuple

import numpy as np

STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""For 1, 2, ..., 10 degrees of freedom: 95 % of Student's t lie between -t and t."""


class Difference(NamedTuple):
    """The difference of two means, and the interval that holds the true one with a confidence of 95 %."""

    mean: float
    low: float
    high: float

    def points(self):
        """Return it in percentage points, as text.

        >>> Difference(0.047, 0.031, 0.0631).points()
        '4.7 [3.1, 6.3]'
        """
        mean, low, high = (f"{100 * value:.1f}" for value in self)
        return f"{mean} [{low}, {high}]"


def difference(one, other, *, paired=False):
    """Return the :class:`Difference` of the means of two variants, ``one`` minus ``other``.

    The runs of one variant are taken as independent and as normally distributed. If all runs are independent, and both
    variants vary as much (Student 1908)::

        m +- t s sqrt(1/S + 1/T),    s^2 = (sum (x - mean x)^2 + sum (y - mean y)^2) / (S + T - 2)

    Paired, run k of both has something in common, such as the weights it began with, and the S differences are looked
    at: ``m +- t s / sqrt(S)`` with their standard deviation s. That is narrower where what they share still matters in
    the end, and wider where it does not, since it has only S - 1 degrees of freedom.

    Parameters
    ----------
    one, other : sequence of float, (S,) and (T,)
        A number for each seed, such as the accuracies of :func:`npnets.experiments.common.final_accuracies`.
    paired : bool

    Raises
    ------
    ValueError
        If there are too few numbers or more than ``STUDENT`` is for, if one is not finite, or if there are not equally
        many to be paired.

    >>> difference([0.70, 0.72, 0.71], [0.60, 0.61, 0.62]).points()
    '10.0 [7.7, 12.3]'
    """
    x, y = (np.asarray(values, np.float64) for values in (one, other))  # (S,), (T,)
    if paired and x.shape != y.shape:
        raise ValueError(f"{len(x)} and {len(y)} seeds cannot be paired")
    freedom = len(x) - 1 if paired else len(x) + len(y) - 2
    if not 1 <= freedom <= len(STUDENT) or not len(x) or not len(y):
        what = f"{len(x)} and {len(y)} seeds do not do"
        raise ValueError(f"an interval needs 1 to {len(STUDENT)} degrees of freedom; {what}")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("a number is missing: did a training diverge?")
    if paired:
        error = (x - y).std(ddof=1) / np.sqrt(len(x))
    else:
        squares = ((x - x.mean()) ** 2).sum() + ((y - y.mean()) ** 2).sum()
        error = np.sqrt(squares / freedom * (1 / len(x) + 1 / len(y)))
    mean, half = x.mean() - y.mean(), STUDENT[freedom - 1] * error
    return Difference(float(mean), float(mean - half), float(mean + half))
