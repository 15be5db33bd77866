"""What is known about the ops: their right gradients once more, and the classic ways to get them wrong.

The formulas under ``classic/`` are written out in plain NumPy, slowly and apart from :mod:`npnets.ops`: a wrong
gradient is one changed term in them, so the reader sees what the mistake is. This file holds what those modules are
made of, and the two lists that they fill.
"""

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np


class Case(SimpleNamespace):
    """One call of an op: every argument of its forward by name (``x``, ``w``, ``stride``, ...), and

    ``op`` (its name), ``y``, ``dy``, and ``again(x=...)``, which returns y for other inputs and the same settings, the
    same random numbers included.
    """


@dataclass(frozen=True)
class KnownOp:
    """An op whose wrong gradients can be diagnosed.

    Attributes
    ----------
    name : str
        ``npnets.ops`` has it as ``<name>_forward`` and ``<name>_backward``.
    arguments : tuple of str
        The positional arguments of the forward, in order.
    gradients : tuple of str
        What the backward returns, in order; ``"d" + argument``.
    right : callable
        ``right(case) -> {gradient: array}``.
    samples : callable
        ``samples(rng) -> [(inputs, settings), ...]``: inputs on which no two mistakes give the same numbers.
    defaults : dict
        Settings of the forward that may be left out.
    kinked : bool
        Whether only central differences apply.
    """

    name: str
    arguments: tuple[str, ...]
    gradients: tuple[str, ...]
    right: Callable
    samples: Callable
    defaults: dict = field(default_factory=dict)
    kinked: bool = False

    def argument_names(self, forward: Callable, count: int) -> tuple[str, ...]:
        """Return the names of the first ``count`` arguments of a forward of this op, a student's perhaps.

        They are those of its signature if they mean something here, and those of the op otherwise.
        """
        own = positional_names(forward)
        understood = {*self.arguments, *self.defaults}
        names = own if len(own) >= count and understood.issuperset(own[:count]) else self.arguments
        return names[:count]


@dataclass(frozen=True)
class Mistake:
    """A classic wrong gradient.

    Attributes
    ----------
    op, name : str
    cause : str
        Continues "this is the gradient you get when ...".
    hint : str
        What to look at, not the solution.
    variants : callable
        ``variants(case)`` returns the wrong gradients by name, or a list of such dicts where the mistake can be made in
        several ways; gradients that it leaves alone are not in them. Empty where it makes no difference.
    recognise : callable or None
        ``recognise(case, gradient) -> bool`` for a mistake without fixed numbers, such as a mask that is drawn again.
    """

    op: str
    name: str
    cause: str
    hint: str
    variants: Callable = field(repr=False)
    recognise: Callable | None = field(default=None, repr=False)

    @property
    def sentence(self) -> str:
        """The diagnosis in one sentence."""
        return f"this is the gradient you get when {self.cause}"

    def wrong(self, case: Case) -> list[dict]:
        """Return the wrong gradients on ``case``, one dict for each way to make the mistake."""
        with np.errstate(all="ignore"):  # a division by zero makes a variant that nothing equals
            variants = self.variants(case)
        return [variants] if isinstance(variants, dict) else list(variants)

    def __str__(self) -> str:
        return f"{self.op}: {self.name}: {self.sentence}"


_ops: dict[str, KnownOp] = {}
_mistakes: list[Mistake] = []


def register(op: KnownOp) -> None:
    """Add an op to those that can be diagnosed."""
    _ops[op.name] = op


def mistake(ops: str, name: str, cause: str, hint: str, recognise: Callable | None = None) -> Callable:
    """Return a decorator that adds a function ``variants(case)`` to the catalogue, for each op named in ``ops``."""

    def add(variants):
        _mistakes.extend(Mistake(op, name, cause, hint, variants, recognise) for op in ops.split())
        return variants

    return add


def known_ops() -> tuple[str, ...]:
    """Return the names of the ops that :func:`npnets.gradcheck.diagnose` knows.

    >>> "depthwise_conv2d" in known_ops()
    True
    """
    _load()
    return tuple(_ops)


def mistakes(op: str | None = None) -> tuple[Mistake, ...]:
    """Return the catalogue of classic mistakes: all of it, or what belongs to one op.

    >>> for mistake in mistakes("global_avg_pool")[:2]:
    ...     print(mistake.name)
    not divided by H W
    not spread over the pixels

    Raises
    ------
    ValueError
        If the op is not known.
    """
    _load()
    return tuple(_mistakes) if op is None else tuple(m for m in _mistakes if m.op == known_op(op).name)


def known_op(name: str) -> KnownOp:
    """Return what is known about an op, or raise a ``ValueError`` that lists the known names."""
    _load()
    name = str(name).removesuffix("_forward").removesuffix("_backward")
    if name not in _ops:
        raise ValueError(f"op must be one of {', '.join(_ops)}; got {name!r}")
    return _ops[name]


def make_case(op: KnownOp, forward: Callable, call: Callable, inputs: tuple, settings: dict, y, dy) -> Case:
    """Put the arguments of one call of ``forward`` together under their names.

    ``call(*inputs)`` returns y, with the settings and the random numbers of that call.
    """
    names = op.argument_names(forward, len(inputs))

    def again(**changed):
        return call(*(changed.get(name, value) for name, value in zip(names, inputs)))

    own = {p.name: p.default for p in _signature(forward) if p.default is not p.empty}
    arguments = {**op.defaults, **own, **settings, **dict(zip(names, inputs))}
    return Case(**arguments | {"op": op.name, "y": np.asarray(y), "dy": np.asarray(dy), "again": again})


def positional_names(function: Callable) -> tuple[str, ...]:
    """Return the names of a function's positional arguments, as far as they are known."""
    return tuple(p.name for p in _signature(function) if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD))


def _signature(function):
    try:
        return tuple(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # not every callable has one
        return ()


def _load():
    if not _ops:
        importlib.import_module("npnets.gradcheck.classic")
