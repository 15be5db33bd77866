"""check_op: one forward and backward against the numerical gradient, element by element."""

from collections.abc import Callable

import numpy as np

from npnets.gradcheck.catalogue import known_op, known_ops, positional_names
from npnets.gradcheck.describe import NOTHING_KNOWN, describe
from npnets.gradcheck.diagnosis import diagnose
from npnets.gradcheck.numerical import (
    central_differences,
    complex_step,
    is_differentiable,
    one_sided_slopes,
    relative_error,
)
from npnets.gradcheck.report import OK, SUSPICIOUS, WRONG, Report, Row, verdict_of
from npnets.gradcheck.running import as_inputs, frozen, generator, not_an_array, require_callable, run_once

COMPLEX, DIFFERENCES = "complex step", "differences"
METHODS = {"auto": None, "complex": COMPLEX, COMPLEX: COMPLEX, DIFFERENCES: DIFFERENCES}
TOLERANCE = {COMPLEX: 1e-9, DIFFERENCES: 1e-6}
STEP = 1e-6


def check_op(
    forward: Callable,
    backward: Callable,
    inputs,
    *,
    settings: dict | None = None,
    wrt=None,
    method: str = "auto",
    seed: int = 0,
    tolerance: float | None = None,
    names=None,
    op: str | None = None,
) -> Report:
    """Check a backward pass against the numerical gradient, element by element.

    Draws a random upstream gradient dy, and compares each gradient of ``sum(dy * y)`` that the backward returns with
    the numerical one. Everything is computed in double precision. Also reported: a wrong shape or dtype, NaN, an input
    or dy that was written into, a gradient that shares memory with one of them.

    A wrong answer, an exception included, gives a report and does not stop a notebook.

    Parameters
    ----------
    forward : callable
        ``forward(*inputs, **settings) -> (y, cache)``.
    backward : callable
        ``backward(dy, cache) ->`` the gradient, or a tuple of gradients in the order of the inputs.
    inputs : ndarray or tuple
        Keep it small: the forward runs at least once for each number. Draw it at random; symmetric inputs hide
        mistakes, and so do gamma = 1 and beta = 0.
    settings : dict, optional
        Keyword arguments of the forward. Each call gets its own copy, so a generator in it draws the same numbers.
    wrt : sequence of int, optional
        Positions of the inputs that the backward returns gradients for; by default what is known of the op, or all
        floating-point arrays.
    method : {"auto", "complex", "differences"}
        "auto" takes the complex step and falls back on differences where the op has kinks or takes no complex numbers.
    seed : int
        For dy.
    tolerance : float, optional
        Relative error (:func:`relative_error`) up to which a gradient is ok; 1e-9 by complex step, 1e-6 by differences.
    names : sequence of str, optional
        Names of the inputs; by default those in the forward's signature.
    op : str, optional
        Which op of :func:`known_ops` this is: then a wrong gradient is diagnosed. Guessed from the forward's name.

    Returns
    -------
    Report
        One row for each gradient.

    Raises
    ------
    ValueError
        If forward or backward cannot be called, or ``method`` or ``op`` is not known.

    Examples
    --------
    >>> def forward(x):
    ...     return x ** 3, x
    >>> check_op(forward, lambda dy, x: 3 * x**2 * dy, np.array([1.0, 2.0])).passed
    True
    >>> print(check_op(forward, lambda dy, x: 3 * x * dy, np.array([1.0, 2.0])).rows[0].verdict)
    WRONG
    """
    require_callable(forward, "forward")
    require_callable(backward, "backward")
    if method not in METHODS:
        raise ValueError(f'method must be "auto", "complex" or "differences", got {method!r}')
    known = _known(forward, op)
    inputs, settings = as_inputs(inputs), dict(settings or {})
    names, labels = _argument_names(forward, inputs, known), names
    labels = [*(labels or names), *names][: len(inputs)]
    title = op or getattr(forward, "__name__", "function").removesuffix("_forward")
    call = frozen(forward, settings)
    outcome = run_once(call, backward, inputs, generator(seed), names)
    if outcome.failed:
        row = Row(outcome.failed, WRONG, note=outcome.error)
        return Report(f"check of {title}", (row,), tolerance or TOLERANCE[COMPLEX])
    wrt = _positions(inputs, wrt, known, names)
    gradients = _aligned(outcome.gradients, wrt, inputs, known, names)
    numerical = _Numerical(call, inputs, outcome, METHODS[method], known, tolerance)
    shared = {position: name for position, name in outcome.shared if len(outcome.gradients) > position}
    rows, at_kink = [], False
    for position, (gradient, returned_as) in zip(wrt, gradients):
        row, kinks = numerical.compare(f"d{labels[position]}", gradient, position)
        rows.append(_with_sharing(row, shared.get(returned_as)))
        at_kink |= kinks
    rows += [Row(note.split(" ", 1)[0], WRONG, note=note.split(" ", 1)[1]) for note in outcome.notes]
    notes = _surplus(outcome.gradients, wrt, inputs, known)
    diagnosis = None
    if known is not None and (at_kink or any(row.verdict == WRONG for row in rows)):
        diagnosis = diagnose(known.name, backward, inputs, settings=settings, forward=forward, seed=seed)
        diagnosis = diagnosis.of_gradients(known.gradients)
        rows = [_as_diagnosed(row, diagnosis, names, labels) for row in rows]
        diagnosis = None if diagnosis.right and not diagnosis.notes else diagnosis
    return Report(f"check of {title}", tuple(rows), numerical.tolerance, notes, diagnosis)


class _Numerical:
    """The numerical side of one comparison: the method in use, and the gradients it gives."""

    def __init__(self, call, inputs, outcome, method, known, tolerance):
        self.call, self.inputs, self.y, self.dy, self.known = call, inputs, outcome.y, outcome.dy, known
        self.method = method or (DIFFERENCES if known is not None and known.kinked else COMPLEX)
        self.automatic = method is None
        self.given_tolerance = tolerance
        self.reason = ""

    @property
    def tolerance(self):
        return self.given_tolerance or TOLERANCE[self.method]

    def gradient(self, position):
        """Return the numerical gradient; where complex numbers do not fit the function, change over to differences."""
        if self.method == COMPLEX:
            try:
                return complex_step(self.call, self.inputs, self.dy, wrt=(position,))[0]
            except Exception as error:
                if not self.automatic:
                    raise
                self.method, self.reason = DIFFERENCES, f"differences were taken: {error}"
        return central_differences(self.call, self.inputs, self.dy, wrt=(position,), h=STEP)[0]

    def compare(self, name, gradient, position):
        """Return the row for one gradient, and whether some elements lie at a kink."""
        try:
            numerical = self.gradient(position)
        except Exception as error:
            note = f"no numerical gradient: the forward raised {type(error).__name__}: {error}"
            return Row(name, WRONG, note=note), False
        problem = not_an_array(gradient)
        if problem:
            return Row(name, WRONG, self.method, note=problem), False
        got = np.asarray(gradient)
        if got.shape != numerical.shape or not np.all(np.isfinite(got)):
            return Row(name, WRONG, self.method, note=describe(got, numerical, **self._context())), False
        errors = self._errors(got, numerical)
        notes, kinks = [self.reason] if self.reason else [], False
        self.reason = ""  # said once
        if self.method == DIFFERENCES:
            at_kink = self._at_kinks(errors, position)
            if at_kink.any():
                kinks, errors = True, np.where(at_kink, -1.0, errors)  # none of them shall be the largest
                first = [int(k) for k in np.argwhere(at_kink)[0]]
                notes.append(f"at a kink and left out: {at_kink.sum()} of {errors.size} elements, the first at {first}")
        return self._row(name, got, numerical, errors, notes), kinks

    def _row(self, name, got, numerical, errors, notes):
        worst = tuple(int(k) for k in np.unravel_index(np.argmax(errors), errors.shape)) if errors.size else ()
        error = max(float(errors[worst]), 0.0) if errors.size else 0.0
        verdict = verdict_of(error, self.tolerance)
        if verdict == WRONG:
            count = int(np.sum(errors > self.tolerance))
            notes.append(f"{count} of {errors.size} elements differ")
            found = "" if self.known else describe(got, numerical, **self._context())
            if found and not found.startswith(NOTHING_KNOWN):
                notes.append(found)
        if got.dtype != np.float64:
            notes.append(f"the dtype is {got.dtype} for float64 inputs")
            verdict = SUSPICIOUS if verdict == OK else verdict
        if not errors.size or errors[worst] < 0:
            return Row(name, verdict, self.method, error, note="; ".join(notes))
        here = float(got[worst]), float(numerical[worst])
        return Row(name, verdict, self.method, error, worst, *here, note="; ".join(notes))

    def _errors(self, got, numerical):
        """Relative errors; what rounding makes of the numerical gradient itself is not held against the backward."""
        rounding = 4 * np.finfo(float).eps * np.linalg.norm(np.ravel(self.dy * self.y))
        noise = rounding / STEP if self.method == DIFFERENCES else rounding
        floor = max(0.01 * np.max(np.abs(numerical), initial=0.0), noise / self.tolerance)
        return relative_error(got, numerical, floor)

    def _at_kinks(self, errors, position):
        """Mark the disagreeing elements in which the slopes on the two sides differ."""
        at_kink = np.zeros(errors.shape, bool)
        for index in map(tuple, np.argwhere(errors > self.tolerance)):
            left, right = one_sided_slopes(self.call, self.inputs, self.dy, position, index, STEP)
            at_kink[index] = abs(right - left) > 1e-3 * max(abs(left), abs(right))
        return at_kink

    def _context(self):
        rtol = 1e-8 if self.method == COMPLEX else 1e-6
        return {"rtol": rtol, "arrays": {"dy": np.asarray(self.dy)}}


def _known(forward, op):
    if op is not None:
        return known_op(op)
    name = getattr(forward, "__name__", "").removesuffix("_forward")
    return known_op(name) if name in known_ops() else None


def _argument_names(forward, inputs, known):
    if known is not None:
        names = known.argument_names(forward, len(inputs))
    else:
        names = positional_names(forward)[: len(inputs)]
    return [*names, *(f"input{k}" for k in range(len(names), len(inputs)))]


def _positions(inputs, wrt, known, names):
    """Positions of the inputs to check."""
    if wrt is None:
        wrt = [k for k, name in enumerate(names) if known is None or f"d{name}" in known.gradients]
    return [k for k in wrt if k < len(inputs) and is_differentiable(inputs[k])]


def _aligned(gradients, wrt, inputs, known, names):
    """Return for each position in wrt the gradient returned for it, and its place among the returned ones.

    A backward may leave out the inputs that have no gradient (labels), or return None for them.
    """
    if known is not None:
        order = {gradient: place for place, gradient in enumerate(known.gradients)}
        places = [order.get(f"d{names[k]}", len(gradients)) for k in wrt]
    elif len(gradients) == len(inputs) and len(gradients) != len(wrt):
        places = wrt
    else:
        places = range(len(wrt))
    return [(gradients[p] if p < len(gradients) else None, p) for p in places]


def _surplus(gradients, wrt, inputs, known):
    expected = len(known.gradients) if known is not None else max(len(wrt), len(inputs))
    if len(gradients) > expected:
        return (f"the backward returned {len(gradients)} gradients, {expected} were expected",)
    return ()


def _with_sharing(row, name):
    if name is None:
        return row
    note = f"it shares memory with {name}: a later change of one changes the other; return a new array"
    changes = {"verdict": SUSPICIOUS if row.verdict == OK else row.verdict}
    return _replaced(row, note="; ".join(filter(None, (row.note, note))), **changes)


def _as_diagnosed(row, diagnosis, names, labels):
    """A gradient that only the diagnosis found wrong (its convention at a kink) is not ok either."""
    own_name = {f"d{label}": f"d{name}" for name, label in zip(names, labels)}
    wrong = row.verdict == OK and own_name.get(row.name) in diagnosis.wrong
    return _replaced(row, verdict=WRONG) if wrong else row


def _replaced(row, **changes):
    return Row(**{**vars(row), **changes})
