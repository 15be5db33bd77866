"""Two ways to differentiate without calculus, and how far each can be trusted.

A backward pass returns a *vector-Jacobian product*: with the upstream gradient ``dy`` and the loss
``L = sum(dy * f(x))``, it is dL/dx. Both functions here compute that number by number, from ``f`` alone.

===================== ============================================ ===================== =============================
method                formula                                      error                 asks of f
===================== ============================================ ===================== =============================
:func:`complex_step`  ``Im L(x + i h) / h``                        rounding of f only    accepts complex numbers,
                                                                   (about 1e-16)         analytic (no ``abs``, ``var``)
central differences   ``(L(x + h) - L(x - h)) / (2 h)``            ``h^2`` + ``1e-16/h`` no kink between the points
===================== ============================================ ===================== =============================
"""

import copy
import warnings
from collections.abc import Callable
from contextlib import contextmanager

import numpy as np


def complex_step(f: Callable, inputs, dy, *, wrt=None, h: float = 1e-30):
    """Return the gradients of ``sum(dy * f(*inputs))`` by a complex step.

    ``dL/dx = Im L(x + i h) / h + O(h^2)``: the Taylor series of an analytic function at x + i h has the derivative in
    its imaginary part. Nothing is subtracted, so nothing cancels, and h can be so small that the error of order h^2
    vanishes. What remains is the rounding of f itself, about 1e-16 of its terms.

    Parameters
    ----------
    f : callable
        ``f(*inputs) -> y`` or ``(y, cache)``, as a forward pass returns it. It is called once for each element.
    inputs : ndarray or tuple
        One input, or the tuple of all. Floating-point inputs are computed with in double precision.
    dy : ndarray
        Upstream gradient, of the shape of y. Draw it at random: with ones, what must be zero by symmetry is zero.
    wrt : sequence of int, optional
        Positions of the inputs to differentiate; all floating-point arrays by default.
    h : float
        Length of the step.

    Returns
    -------
    ndarray, or tuple of ndarray
        One float64 gradient for each position in ``wrt``; the array alone if ``inputs`` is an array.

    Raises
    ------
    ValueError
        If f rejects complex numbers, drops their imaginary part, or is not analytic (use
        :func:`central_differences`), or if ``dy`` does not have the shape of y.

    Notes
    -----
    ``x.var()`` is the trap: for complex numbers NumPy averages the squared *modulus*, which is not analytic. The
    derivative then lacks the path through the variance, and would agree with a backward that forgets it. Write
    ``((x - x.mean()) ** 2).mean()``. So that no such number is believed, the slope along one random direction is
    compared with a central difference. A comparison such as ``x > 0`` looks at the real part, and is harmless away
    from the kink.
    """
    _require_analytic(f, inputs, dy, wrt)

    def derivative(evaluate, x, index):
        here = x[index]
        x[index] = here + 1j * h
        y = evaluate()
        x[index] = here
        return np.sum(dy * y.imag) / h

    return _each_element(f, inputs, dy, wrt, derivative, np.complex128)


def central_differences(f: Callable, inputs, dy, *, wrt=None, h: float = 1e-6):
    """Return the gradients of ``sum(dy * f(*inputs))`` by central differences.

    ``dL/dx = (L(x + h) - L(x - h)) / (2 h) + O(h^2)``, with the step scaled to the number it changes:
    ``h max(1, |x|)``. The error has two parts: the series is cut off (``h^2`` times the third derivative), and two
    nearly equal numbers are subtracted (1e-16 of y, divided by h). The sum is smallest near h = 1e-5, where about ten
    digits are right. y is subtracted before it is summed, so that outputs that do not depend on the element cancel
    exactly.

    Parameters
    ----------
    f, inputs, dy, wrt
        As for :func:`complex_step`; f is called twice for each element.
    h : float
        Length of the step for numbers up to one.

    Returns
    -------
    ndarray, or tuple of ndarray
        As from :func:`complex_step`.

    Raises
    ------
    ValueError
        If ``dy`` does not have the shape of y.

    Notes
    -----
    At a kink the result is the mean of the slopes on both sides, which is not what a backward pass returns.
    """

    def derivative(evaluate, x, index):
        here = x[index]
        step = h * max(1.0, abs(here))
        x[index] = here + step
        above = evaluate()
        distance = x[index]
        x[index] = here - step
        distance -= x[index]  # the distance that was gone, after rounding
        difference = above - evaluate()
        x[index] = here
        return np.sum(dy * difference) / distance

    return _each_element(f, inputs, dy, wrt, derivative, np.float64)


def one_sided_slopes(f: Callable, inputs, dy, position: int, index, h: float = 1e-6) -> tuple[float, float]:
    """Return the slopes ``(left, right)`` of ``sum(dy * f(*inputs))`` in one element; at a kink they differ."""
    slopes = []
    for step in (-h, h):

        def derivative(evaluate, x, index, step=step):
            here = x[index]
            y = evaluate()
            x[index] = here + step * max(1.0, abs(here))
            moved = x[index] - here
            slope = np.sum(dy * (evaluate() - y)) / moved
            x[index] = here
            return slope

        gradient = _each_element(f, tuple(inputs), dy, (position,), derivative, np.float64, only=index)
        slopes.append(float(gradient[0][index]))
    return slopes[0], slopes[1]


def relative_error(analytic, numerical, floor: float | None = None) -> np.ndarray:
    """Return ``|a - n| / max(|a| + |n|, floor)``, element by element.

    0 is agreement, 1 a gradient that is missing, has the wrong sign, or is unrelated. The floor keeps the measure
    sensible where the gradient is nearly zero and its relative error means nothing: by default 1 % of the largest
    ``|n|`` in the array, so that a small element may be as inaccurate as the larger ones allow.

    >>> relative_error(np.array([1.0, 2.0, 1e-12]), np.array([1.0, 1.0, 0.0])).round(3)
    array([0.   , 0.333, 0.   ])
    """
    analytic, numerical = np.asarray(analytic), np.asarray(numerical)
    if floor is None:
        floor = 0.01 * np.max(np.abs(numerical), initial=0.0)
    size = np.maximum(np.abs(analytic) + np.abs(numerical), floor)
    return np.abs(analytic - numerical) / np.where(size > 0, size, 1.0)


def is_differentiable(value) -> bool:
    """Return whether an input is something to differentiate: an array of floating-point numbers."""
    return isinstance(value, np.ndarray) and value.dtype.kind == "f"


def output_of(result):
    """Return y from what a forward pass returns: y itself or ``(y, cache)``."""
    return np.asarray(result[0] if isinstance(result, tuple) else result)


def _each_element(f, inputs, dy, wrt, derivative, dtype, only=None):
    alone, inputs, wrt = _arguments(inputs, wrt)
    gradients = []
    for position in wrt:
        x = np.array(inputs[position], dtype)
        evaluate = _evaluation(f, inputs, position, x, np.asarray(dy))
        gradient = np.zeros(x.shape)
        with _complex_warnings_as_errors():
            for index in [only] if only is not None else np.ndindex(x.shape):
                gradient[index] = derivative(evaluate, x, index)
        gradients.append(gradient)
    return gradients[0] if alone else tuple(gradients)


def _require_analytic(f, inputs, dy, wrt):
    """Raise a ``ValueError`` where complex step and central difference disagree along a random direction."""
    _, inputs, wrt = _arguments(inputs, wrt)
    rng, dy = np.random.default_rng(0), np.asarray(dy)

    def output(position, x):
        return _evaluation(f, inputs, position, x, dy)()

    for position in wrt:
        x = np.array(inputs[position], np.float64)
        v = rng.standard_normal(x.shape) * np.maximum(1.0, np.abs(x))
        with _complex_warnings_as_errors():
            terms = dy * output(position, x + 1e-30j * v).imag / 1e-30
        for h in (1e-6, 1e-8):  # the shorter step for strongly curved functions
            above, below = output(position, x + h * v), output(position, x - h * v)
            difference = np.sum(dy * (above - below)) / (2 * h)
            rounding = 10 * np.finfo(float).eps * np.linalg.norm(np.ravel(dy * above)) / h
            if abs(np.sum(terms) - difference) <= 1e-5 * np.linalg.norm(np.ravel(terms)) + rounding:
                break
        else:
            raise ValueError(
                f"the function is not analytic: along one direction its slope is {difference:.6g}, by complex step "
                f"{np.sum(terms):.6g} (abs, a real part, var of complex numbers, a kink?)"
            )


def _arguments(inputs, wrt):
    """Return whether there is one input only, the tuple of inputs, and the positions to differentiate."""
    alone = not isinstance(inputs, (tuple, list))
    inputs = (inputs,) if alone else tuple(inputs)
    if wrt is None:
        wrt = [0] if alone else [k for k, value in enumerate(inputs) if is_differentiable(value)]
    return alone, inputs, wrt


@contextmanager
def _complex_warnings_as_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error", np.exceptions.ComplexWarning)
        yield


def _evaluation(f, inputs, position, x, dy):
    """Return a function that computes y for the present numbers in x."""

    def evaluate():
        # f gets copies: a forward that updates running statistics, or writes where it should not, spoils only those.
        # All arrays get the same type: y = x w, then y += b, does not work with a complex b alone.
        arguments = [x.copy() if k == position else _as_type(x.dtype, value) for k, value in enumerate(inputs)]
        try:
            y = output_of(f(*arguments))
        except (TypeError, np.exceptions.ComplexWarning) as error:
            if x.dtype.kind == "c":
                raise ValueError(f"the function does not take complex numbers ({error})") from error
            raise
        if y.shape != dy.shape:
            raise ValueError(f"dy must have the shape of the function's output {y.shape}, got {dy.shape}")
        if x.dtype.kind == "c" and y.dtype.kind != "c":
            raise ValueError(f"the function drops the imaginary part: it returned {y.dtype} for a complex input")
        return y

    return evaluate


def _as_type(dtype, value):
    """Return a copy to compute with: arrays of floating-point numbers in the given type, the rest as it is."""
    return value.astype(dtype) if is_differentiable(value) else copy.deepcopy(value)
