"""Calling a student's functions so that nothing they do goes wrong silently, or stops a notebook."""

import copy
import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from npnets.gradcheck.numerical import is_differentiable, output_of
from npnets.shapes import integer


class Outcome(NamedTuple):
    """One forward and backward: the gradients as a list, or what went wrong."""

    y: np.ndarray | None = None
    dy: np.ndarray | None = None
    gradients: tuple = ()
    error: str = ""
    failed: str = ""
    """"forward" or "backward", where error says something."""
    notes: tuple = ()
    """Inputs or dy written into."""
    shared: tuple = ()
    """Pairs (position among the gradients, name of the input or dy whose memory it shares)."""


def require_callable(function, name: str) -> None:
    """Raise a ``ValueError`` unless ``function`` can be called."""
    if not callable(function):
        raise ValueError(f"{name} must be a function, got {type(function).__name__}")


def as_inputs(inputs) -> tuple:
    """Return the inputs as a tuple, floating-point numbers in double precision, everything copied."""
    inputs = tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)
    return tuple(np.array(x, np.float64) if is_differentiable(x) else copy.deepcopy(x) for x in inputs)


def generator(seed: int) -> np.random.Generator:
    """Return a generator of its own for the checks.

    With the plain seed, a student who drew x from ``default_rng(0)`` would get a dy equal to x, and the gradient of
    batch norm would be nearly zero, whatever the formula.
    """
    return np.random.default_rng([integer(seed, "seed", 0), *b"gradcheck"])


def frozen(forward: Callable, settings: dict) -> Callable:
    """Return the forward with its settings, the same at each call: random numbers and running statistics included."""

    def call(*inputs):
        return forward(*inputs, **copy.deepcopy(settings))

    return call


def run_once(call: Callable, backward: Callable, inputs: tuple, rng: np.random.Generator, names) -> Outcome:
    """Run forward and backward with a random upstream gradient, and watch what they do to their arguments."""
    arguments = tuple(copy.deepcopy(inputs))
    try:
        result = call(*arguments)
        y = output_of(result)
    except Exception as error:
        return Outcome(failed="forward", error=_sentence(error))
    if y.dtype.kind not in "fc":
        return Outcome(failed="forward", error=f"it returned {y.dtype} numbers, not floating-point ones")
    if not isinstance(result, tuple) or len(result) != 2:
        return Outcome(y, failed="forward", error="it must return (y, cache)")
    dy = rng.standard_normal(y.shape)[()]  # a number, not an array, for a loss
    given = copy.deepcopy(dy)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a division by zero is reported as the NaN it leaves
            gradients = backward(given, result[1])
    except Exception as error:
        return Outcome(y, dy, failed="backward", error=_sentence(error))
    gradients = tuple(gradients) if isinstance(gradients, (tuple, list)) else (gradients,)
    watched = dict(zip(names, zip(inputs, arguments)))
    watched["dy"] = dy, given
    notes = [
        f"{name} was written into; work on a copy"
        for name, (before, after) in watched.items()
        if isinstance(after, np.ndarray) and not _same(before, after) and not name.startswith("running_")
    ]
    shared = [
        (k, name)
        for k, gradient in enumerate(gradients)
        for name, (_, array) in watched.items()
        if isinstance(gradient, np.ndarray) and isinstance(array, np.ndarray) and np.shares_memory(gradient, array)
    ]
    return Outcome(y, dy, gradients, notes=tuple(notes), shared=tuple(shared))


def not_an_array(gradient) -> str | None:
    """Return what is wrong with something that should be a gradient, or None."""
    if gradient is None:
        return "the backward returned None for it"
    try:
        array = np.asarray(gradient)
    except ValueError:
        return "it is not an array (rows of different length)"
    if array.dtype.kind == "c":
        return "it is complex"
    if array.dtype.kind not in "fiub":
        return f"it is not an array of numbers but {type(gradient).__name__}"
    return None


def _same(a, b):
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


def _sentence(error):
    return f"{type(error).__name__}: {error}"
