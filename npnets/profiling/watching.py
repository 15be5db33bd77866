"""What is timed: the parts of a model that do work of their own, and the clock and the counter around their methods."""

import contextlib
import math
import time
from typing import NamedTuple

from npnets import nn
from npnets.profiling.report import BLOCK

NEEDS_X = {"conv", "depthwise", "pointwise", "linear", "batch norm", "activation", "normalization", BLOCK}
"""The kinds of which x is all that the backward needs besides dy."""


class Unit(NamedTuple):
    """Something that a step calls, and that is timed by itself.

    Attributes
    ----------
    name, kind : str
    called : object
        Whatever has the methods ``forward`` and ``backward``, or ``step``.
    layers : tuple of nn.Layer
        The layers whose work it does: itself, or those of a block in one op. It has their multiply-adds and parameters.
    """

    name: str
    kind: str
    called: object
    layers: tuple = ()

    @property
    def parameters(self):
        values = (value for layer in self.layers for value in vars(layer).values())
        return [value for value in values if isinstance(value, nn.Parameter)]


def units(model, step):
    """Return a :class:`Unit` for everything in a model that does work of its own, in forward order.

    These are the layers, and the modules that compute something from what their layers return: a residual sum, a
    concatenation. A Sequential only hands on, and what is never called only holds others. A block that did not call its
    layers did their work in one op, and is a unit with their multiply-adds and parameters. No other function here knows
    how a model is carried out.

    Parameters
    ----------
    model : nn.Module
    step : callable ()
        Makes a step, in which it is seen what is called.
    """
    everything = [Unit(path, "", module) for path, module in model.named_modules()]
    called, found = set(), {}  # by identity: a layer that stands in two places is one

    def note(unit, method, function):
        def noted(*arguments, **keywords):
            called.add(id(unit.called))
            return function(*arguments, **keywords)

        return noted

    def visit(path, module):
        name = path or type(module).__name__
        below = [part for _, part in module.named_modules() if part is not module]
        if id(module) in called and below and not called & set(map(id, below)):
            layers = tuple(part for part in below if isinstance(part, nn.Layer))
            found.setdefault(id(module), Unit(name, BLOCK, module, layers))
            return
        for child_name, child in module.children():
            visit(f"{path}.{child_name}" if path else child_name, child)
        if (kind := _kind(module)) and id(module) in called:
            own = (module,) if isinstance(module, nn.Layer) else ()
            found.setdefault(id(module), Unit(name, kind, module, own))

    with watched(everything, note):
        step()
    visit("", model)
    return list(found.values())


def _kind(module):
    """Return what kind of work a module does itself; "" for none."""
    if isinstance(module, nn.Residual):
        return "residual sum" if module.adds_input else ""
    if isinstance(module, nn.Concat):
        return "concatenation"
    if type(module).forward is nn.Sequential.forward:
        return ""
    return getattr(module, "kind", "") or type(module).__name__


@contextlib.contextmanager
def taken_apart(model):
    """Within the block of code, carry out every block of the model layer by layer; yield whether that is a change.

    What the last forward has left is given up, so that the two ways do not keep their arrays at the same time.
    """
    modules = [module for _, module in model.named_modules()]
    blocks = [module for module in modules if getattr(module, "as_one_op", False)]

    def switch(as_one_op):
        for block in blocks:
            block.as_one_op = as_one_op
        for module in modules if blocks else []:
            if hasattr(module, "cache"):
                module.cache = None

    switch(False)
    try:
        yield bool(blocks)
    finally:
        switch(True)


@contextlib.contextmanager
def watched(things, around):
    """Within the block, let ``around(unit, method, function)`` take the place of each unit's methods.

    Only the instances are changed, and whatever happens they have their own methods again in the end.
    """
    changed = []
    try:
        for unit in things:
            for method in ("forward", "backward", "step"):
                if callable(getattr(unit.called, method, None)):
                    changed.append((unit.called, method, vars(unit.called).get(method)))
                    setattr(unit.called, method, around(unit, method, getattr(unit.called, method)))
        yield
    finally:
        for called, method, own in reversed(changed):
            if own is None:
                vars(called).pop(method, None)
            else:
                setattr(called, method, own)


class Clock:
    """Adds up the seconds that each unit takes, without those of the units that it calls in turn.

    Attributes
    ----------
    seconds : dict of (name of the unit, method) -> float
    """

    def __init__(self):
        self.seconds = {}
        self._within = [0.0]  # for each call that has not returned yet: the seconds of the calls inside

    def around(self, unit, method, function):
        """For :func:`watched`."""

        def timed(*arguments, **keywords):
            self._within.append(0.0)
            start = time.perf_counter()
            try:
                return function(*arguments, **keywords)
            finally:
                seconds = time.perf_counter() - start
                own = seconds - self._within.pop()
                self._within[-1] += seconds
                self.seconds[unit.name, method] = self.seconds.get((unit.name, method), 0.0) + own

        return timed


class Counter:
    """Adds up what each unit has to do, from the shapes of the arrays that pass through it.

    Attributes
    ----------
    macs, bytes : dict of (name of the unit, method) -> int
    output_shapes : dict of name -> tuple
    """

    def __init__(self):
        self.macs, self.bytes, self.output_shapes = {}, {}, {}

    def around(self, unit, method, function):
        """For :func:`watched`."""

        def counted(given, *arguments, **keywords):
            result = function(given, *arguments, **keywords)
            if method == "forward":
                macs = len(given) * _macs(unit, given.shape[1:])
                self.output_shapes[unit.name] = result.shape[1:]
            else:
                macs = 2 * len(result) * _macs(unit, result.shape[1:])  # result is dx: it has the shape of x
            key = unit.name, method
            self.macs[key] = self.macs.get(key, 0) + macs
            self.bytes[key] = self.bytes.get(key, 0) + _bytes(unit, method, given, result)
            return result

        return counted


def _macs(unit, shape):
    """Return the multiply-adds of a forward for one image."""
    counts = []
    if unit.layers:
        unit.called.trace(shape, lambda path, layer, shape, output_shape: counts.append(layer.macs(shape)))
    return sum(counts)


def _bytes(unit, method, given, result):
    """Return the least bytes that a method must read and write (see :mod:`npnets.profiling`)."""
    forward = method == "forward"
    if unit.kind == "residual sum":
        return 3 * result.nbytes
    if unit.kind == "concatenation":  # the parts are read; backward, the gradients of the branches are added
        return result.nbytes * (2 if forward else 1 + len(list(unit.called.children())))
    if unit.kind == "scale":  # backward, dy, x and the gradient of the squeeze are read; a gate is a number a channel
        gates = result.nbytes // math.prod(result.shape[1:3])
        return 2 * result.nbytes + gates if forward else 4 * result.nbytes + 2 * gates
    if unit.kind == "resize":  # between the output and that of the chain inside
        image, resized = (given, result) if forward else (result, given)
        inside = nn.Sequential.trace(unit.called, image.shape[1:], lambda *layer: None)
        return resized.nbytes + len(image) * math.prod(inside) * image.itemsize
    if unit.kind == "predictions":  # the parts are read; backward, the gradients of a map are added
        return 2 * result.nbytes if forward else 3 * len(result) * _numbers_shared(unit, result) * result.itemsize
    parameters = sum(parameter.value.nbytes for parameter in unit.parameters)
    if forward:
        return given.nbytes + parameters + result.nbytes
    x = result.nbytes if unit.kind in NEEDS_X else 0
    return given.nbytes + x + parameters + result.nbytes + parameters


def _numbers_shared(unit, dx):
    """Return how many numbers of an image have two gradients: a Predictor's map, a Detector's maps but for the last."""
    maps = unit.called.maps(dx.shape[1:])[:-1] if isinstance(unit.called, nn.Detector) else [dx.shape[1:]]
    return sum(map(math.prod, maps))
