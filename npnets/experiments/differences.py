"""Is one variant better than another? Differences of means over the seeds, and how far they can be trusted."""

from typing import NamedTuple

import numpy as np

STUDENT = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
"""For 1, 2, ..., 30 degrees of freedom: 95 % of Student's t lie between -t and t."""


class Difference(NamedTuple):
    """The difference of some means, and the interval that holds the true one with a confidence of 95 %."""

    mean: float
    low: float
    high: float

    def points(self, digits=1):
        """Return it in percentage points, as text.

        >>> Difference(0.047, 0.031, 0.0631).points()
        '4.7 [3.1, 6.3]'
        """
        mean, low, high = (f"{100 * value:.{digits}f}" for value in self)
        return f"{mean} [{low}, {high}]"


def student(freedom):
    """Return the t between whose negative and which 95 % of Student's t lie; beyond 30 to two digits behind the point.

    >>> student(4), round(student(120), 2)
    (2.776, 1.98)
    """
    return STUDENT[freedom - 1] if freedom <= len(STUDENT) else 1.96 + 2.4 / freedom


def pooled(values):
    """Return (s, f): by how much a run scatters, taken from the seeds of all variants together, and how well that is
    known, its degrees of freedom.

    ``s^2 = sum_v sum_k (x_vk - m_v)^2 / f`` with ``f = sum_v (S_v - 1)``, if variant v has S_v seeds with the mean m_v.

    Parameters
    ----------
    values : dict variant -> sequence of float
        A number for each seed, such as the accuracies of :func:`npnets.experiments.common.final_accuracies`.

    Raises
    ------
    ValueError
        If no variant has two seeds, or a number is not finite.
    """
    each = {name: np.asarray(own, np.float64) for name, own in values.items()}  # (S_v,) each
    for name, own in each.items():
        if not np.isfinite(own).all():
            raise ValueError(f"{name}: a number is missing; did a training diverge?")
    freedom = sum(len(own) - 1 for own in each.values() if len(own))
    if freedom < 1:
        raise ValueError("one seed does not tell how far seeds scatter: at least one variant needs two")
    squares = sum(((own - own.mean()) ** 2).sum() for own in each.values() if len(own))
    return float(np.sqrt(squares / freedom)), freedom


def contrast(values, weights):
    """Return the :class:`Difference` that is a weighted sum of means, ``D = sum_v c_v m_v``.

    Weights of 1 and -1 compare two variants; 1, -1, -1, 1 is an interaction, whether one difference depends on another;
    and the slope of a straight line is such a sum, too. If all runs are independent and scatter alike (Student 1908)::

        D +- t_f s sqrt(sum_v c_v^2 / S_v)

    with s and f from :func:`pooled`. More variants than the weighted ones tell more exactly how far a run scatters, if
    they scatter as much.

    Parameters
    ----------
    values : dict variant -> sequence of float
        As for :func:`pooled`.
    weights : dict variant -> float
        Zero for those that are not in it.

    Raises
    ------
    ValueError
        As :func:`pooled`; or if a weighted variant has no seed.
    """
    missing = [name for name in weights if not len(values.get(name, ()))]
    if missing:
        raise ValueError(f"there are no runs of {', '.join(map(str, missing))}")
    s, freedom = pooled(values)
    mean = sum(c * np.mean(values[name]) for name, c in weights.items())
    half = student(freedom) * s * np.sqrt(sum(c * c / len(values[name]) for name, c in weights.items()))
    return Difference(float(mean), float(mean - half), float(mean + half))


def difference(one, other):
    """Return the :class:`Difference` of the means of two variants, ``one`` minus ``other``; their runs are independent.

    Where run k of both began alike, with the same weights, say, ``contrast({"gap": one - other}, {"gap": 1})`` looks at
    the difference of each pair instead. That is narrower if the common beginning still matters in the end, and wider if
    not, since it has only half of the degrees of freedom.

    Parameters
    ----------
    one, other : sequence of float, (S,) and (T,)

    Raises
    ------
    ValueError
        As :func:`contrast`.

    >>> difference([0.70, 0.72, 0.71], [0.60, 0.61, 0.62]).points()
    '10.0 [7.7, 12.3]'
    """
    return contrast({"one": one, "other": other}, {"one": 1, "other": -1})
