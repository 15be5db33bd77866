"""check_module: a layer, a block or a whole network, along random directions.

A network has too many numbers to change one by one. But the gradient g says how the loss changes along *any* direction
v: by ``<g, v>``. A wrong gradient agrees with the measured change along a random direction only by a coincidence of
probability zero, so a few directions are enough.
"""

import copy
from typing import NamedTuple

import numpy as np

from npnets.gradcheck.numerical import output_of
from npnets.gradcheck.report import OK, SUSPICIOUS, WRONG, Report, Row, verdict_of
from npnets.gradcheck.running import generator
from npnets.shapes import integer

STEPS = (1e-6, 1e-7, 1e-8)
"""Lengths of a step. The shorter ones cross fewer kinks, but lose more digits to rounding."""

INPUT = "x"
TOGETHER = "everything together"


def check_module(module, x, *, training=True, directions=5, seed=0, tolerance=1e-6) -> Report:
    """Check the backward of a module against differences along random directions.

    With the loss ``L = sum(dy * y)`` for a random dy, ``<gradient, v>`` is compared with
    ``(L(p + h v) - L(p - h v)) / (2 h)`` for random directions v: in the input and all parameters together, in the
    input alone, and in each parameter alone. Everything is computed in double precision.

    All of it happens to a copy: the module's values, running statistics, gradients and generators stay as they are.
    Each evaluation starts from the same running statistics and draws the same random numbers. In the copy, arrays that
    hold one number everywhere (gamma of ones, biases of zeros) are made random: they would hide mistakes.

    Parameters
    ----------
    module : Module
        Anything with ``forward(x, training)``, ``backward(dy)`` and ``parameters()``, each with ``name``, ``value``
        and ``grad``; optionally ``state_dict()``, ``load_state_dict()`` and ``generators()``.
    x : ndarray
        A small batch. Draw it at random.
    training : bool
    directions : int
        How many directions. A parameter gets one, and the others only where the first disagrees.
    seed : int
        For dy and the directions.
    tolerance : float
        Relative error up to which a row is ok.

    Returns
    -------
    Report
        One row for everything together, one for the input, one for each parameter.

    Raises
    ------
    ValueError
        If the module lacks one of the three methods, or ``directions`` is not a positive integer.

    Notes
    -----
    Where a step crosses a kink (a ReLU changes sides, another cell wins a maximum), the difference mixes two slopes and
    the direction is an outlier. It is then repeated with shorter steps; and a row counts the *median* of its
    directions, so that a single outlier does not decide. A wrong gradient disagrees along all of them. Where a number
    is exactly at a kink no step helps; that is called suspicious, and said.
    """
    missing = [name for name in ("forward", "backward", "parameters") if not callable(getattr(module, name, None))]
    if missing:
        kind = type(module).__name__
        raise ValueError(f"module must have forward, backward and parameters; this {kind} has no {missing[0]}")
    directions = integer(directions, "directions", 1)
    title = f"check of {type(module).__name__}, {'training' if training else 'inference'}"
    try:
        subject = _Subject(module, x, training, generator(seed))
    except _Failed as failure:
        return Report(title, (Row(failure.stage, WRONG, note=str(failure)),), tolerance)
    rows = [
        subject.row(name, targets, directions, 1 if name in subject.parameters else directions, tolerance)
        for name, targets in subject.what_to_check()
    ]
    return Report(title, tuple(rows), tolerance)


class _Failed(Exception):
    """A forward or backward that cannot be checked any further."""

    def __init__(self, stage, message):
        super().__init__(message)
        self.stage = stage


class _Subject:
    """A double-precision copy of the module, its analytic gradients, and a way to move it."""

    def __init__(self, module, x, training, rng):
        self.module, self.training, self.rng = copy.deepcopy(module), training, rng
        self.parameters = {p.name or f"parameter {k}": p for k, p in enumerate(self.module.parameters())}
        for parameter in self.parameters.values():
            if hasattr(parameter, "dtype"):
                parameter.dtype = np.dtype(np.float64)
            parameter.value = np.asarray(parameter.value, np.float64)
            parameter.grad = None
        self.points = {INPUT: np.array(x, np.float64)}
        self.points |= {name: _not_constant(p.value, rng) for name, p in self.parameters.items()}
        state_dict = getattr(self.module, "state_dict", dict)
        self.state = {name: _not_constant(value, rng) for name, value in state_dict().items()}
        self.generators = list(getattr(self.module, "generators", dict)())
        self.generator_states = [copy.deepcopy(g.bit_generator.state) for _, g in self.generators]
        y = self._attempt("forward", lambda: self.evaluate({}))
        if not np.array_equal(y, self.evaluate({})):
            raise _Failed("forward", "the same input gives another output the second time: give it generators()")
        self.dy = rng.standard_normal(y.shape)
        self.rounding = 4 * np.finfo(float).eps * np.linalg.norm(self.dy * y)
        self.evaluate({})
        dx = self._attempt("backward", lambda: self.module.backward(self.dy.copy()))
        self.gradients = {INPUT: dx} | {name: p.grad for name, p in self.parameters.items()}

    def _attempt(self, stage, work):
        try:
            return work()
        except Exception as error:
            raise _Failed(stage, f"{type(error).__name__}: {error}") from error

    def evaluate(self, moves):
        """Return y with some of the points moved, from the same running statistics and random numbers each time."""
        if self.state:
            self.module.load_state_dict(self.state)
        for (_, source), state in zip(self.generators, self.generator_states):
            source.bit_generator.state = state
        for name, parameter in self.parameters.items():
            parameter.value = self.points[name] + moves.get(name, 0.0)
        x = self.points[INPUT] + moves.get(INPUT, 0.0)
        return np.array(output_of(self.module.forward(x, self.training)))

    def what_to_check(self):
        """Yield the name of each row with the points that its directions move."""
        if self.parameters:
            yield TOGETHER, list(self.points)
        for name in self.points:
            yield name, [name]

    def row(self, name, targets, directions, at_first, tolerance):
        """Return the row for a set of points."""
        problem = self._unusable(targets)
        if problem:
            return Row(name, WRONG, "differences", note=problem)
        results = []
        while len(results) < at_first or (len(results) < directions and results[0].error > tolerance):
            results.append(self._along_one_direction(targets, tolerance))
        results.sort(key=lambda result: result.error)
        median = results[(len(results) - 1) // 2]
        verdict = verdict_of(median.error, tolerance)
        if verdict == WRONG and all(result.at_kink for result in results):
            verdict = SUSPICIOUS
        return Row(
            name,
            verdict,
            "differences",
            median.error,
            analytic=median.analytic,
            numerical=median.numerical,
            note=self._note(results, verdict, tolerance),
        )

    def _unusable(self, targets):
        for target in targets:
            gradient, point = self.gradients[target], self.points[target]
            if gradient is None:
                return f"the backward sets no gradient for {target}"
            if np.shape(gradient) != point.shape:
                return f"the gradient of {target} has the shape {np.shape(gradient)}, expected {point.shape}"
            if not np.all(np.isfinite(gradient)):
                return f"the gradient of {target} is not finite"
        return ""

    def _along_one_direction(self, targets, tolerance):
        """Compare along one direction, with shorter steps until the two agree; return the best of them."""
        v = {target: self.rng.standard_normal(self.points[target].shape) for target in targets}
        products = [float(np.vdot(self.gradients[target], v[target])) for target in targets]
        analytic, size = sum(products), float(np.linalg.norm(products))
        size = max(size, *(float(np.linalg.norm(self.gradients[target])) for target in targets))
        best = None
        for h in STEPS:
            above = self.evaluate({target: h * step for target, step in v.items()})
            below = self.evaluate({target: -h * step for target, step in v.items()})
            numerical = float(np.sum(self.dy * (above - below)) / (2 * h))
            # The floor: <g, v> may be small by cancellation, and rounding leaves its trace in the difference.
            floor = max(0.1 * size, self.rounding / h / tolerance)
            error = abs(analytic - numerical) / (max(abs(analytic) + abs(numerical), floor) or 1.0)
            result = _Direction(error, analytic, numerical, h)
            best = result if best is None or result.error < best.error else best
            if best.error <= tolerance:
                return best
        here = self.evaluate({})
        left, right = (float(np.sum(self.dy * y)) / h for y in (here - below, above - here))
        smooth = 1e-3 * max(size, abs(left), abs(right))
        return best._replace(at_kink=abs(right - left) > smooth)

    def _note(self, results, verdict, tolerance):
        outliers = sum(result.error > tolerance for result in results)
        if verdict == OK and outliers:
            return f"{outliers} of {len(results)} directions cross a kink even with the shortest step"
        if verdict == OK and any(result.h < STEPS[0] for result in results):
            return "a direction crossed a kink; a shorter step did not"
        if results[0].at_kink:
            return (
                "the slopes on the two sides differ: some number is exactly at a kink, where nothing can be compared "
                "(a pixel of zero before a ReLU?): move x a little"
            )
        if verdict == WRONG:
            return f"{outliers} of {len(results)} directions disagree"
        return ""


class _Direction(NamedTuple):
    """The comparison along one direction, with a step of length h."""

    error: float
    analytic: float
    numerical: float
    h: float
    at_kink: bool = False


def _not_constant(value, rng):
    """Return a copy; where all numbers are the same, with up to 0.5 added to or taken from each."""
    value = np.array(value)
    if value.dtype.kind == "f" and value.size and np.all(value == value.flat[0]):
        value = value + rng.uniform(-0.5, 0.5, value.shape)
    return value
