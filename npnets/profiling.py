"""Where the time of a training step goes, layer by layer, beside multiply-adds and bytes.

MobileNetV1 "spends 95% of it's computation time in 1x1 convolutions" (Howard et al. 2017, section 3.2); what Table 2
counts there are multiply-adds. Here time is measured, so that the two can be compared::

    profile = profile_step(models.mobilenet_v1(), (8, 224, 224, 3))
    profile                                              # in a notebook: the table, layer by layer
    profile.shares()["pointwise"]                        # of the time, of the multiply-adds, of the parameters

What is counted, for the whole batch:

- *Multiply-adds.* Forward as in :mod:`npnets.cost`; backward twice that, since the entries of dx and dw together are
  sums of twice as many products as those of y. What costs nothing there costs nothing here.
- *Bytes*, from shapes and dtype: the least that has to be moved if nothing stays in the cache between two layers and
  everything is read once. Forward reads x and the parameters and writes y. Backward reads dy and the parameters, and x
  where the gradient depends on it, and writes dx and the gradients of the parameters. A residual sum reads two arrays
  and writes one. A layer that goes over its input twice, as batch norm does in training, really moves more.
- *Time*, the median over some steps. A layer is timed by replacing its ``forward`` and ``backward`` during a step. In
  between, steps are timed that nobody looks into, so that it shows what the looking costs.

Where a block is one op (:class:`npnets.nn.blocks.Bottleneck`), its layers cannot be timed in it. So they are carried
out one after the other here, which takes longer than usual; both times are given. With ``whole_blocks=True`` the blocks
are timed as they are.
"""

import contextlib
import operator
import time
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from npnets import nn, ops, optim, parallel
from npnets.cost import html_table, markdown_table, text_table
from npnets.shapes import integer

BLOCK = "block in one op"
"""The kind of a block that is timed as a whole."""

NEEDS_X = {"conv", "depthwise", "pointwise", "linear", "batch norm", "activation", "normalization", BLOCK}
"""The kinds whose backward depends on x, not on dy alone."""

NOTE = (
    "Multiply-adds and MB are those of the whole batch. A backward counts twice the multiply-adds of its forward, for "
    "dx and dw. MB is the least to be read and written, from shapes: x, y, parameters and their gradients, once each."
)

GROUPINGS = ("layer", "block", "kind")
SORTS = {
    "time": "seconds",
    "forward": "forward.seconds",
    "backward": "backward.seconds",
    "macs": "macs",
    "bytes": "bytes",
    "params": "params",
}


class Pass(NamedTuple):
    """One way through a layer, for a batch: median seconds, multiply-adds, and the least bytes to be moved."""

    seconds: float = 0.0
    macs: int = 0
    bytes: int = 0


class Row(NamedTuple):
    """A layer, or several together. The output shape is that of one image.

    ``other`` is time in seconds that belongs to neither way: the update of the weights, and what lies between layers.
    """

    name: str
    kind: str
    output_shape: tuple
    params: int
    forward: Pass = Pass()
    backward: Pass = Pass()
    other: float = 0.0

    @property
    def seconds(self):
        return self.forward.seconds + self.backward.seconds + self.other

    @property
    def macs(self):
        return self.forward.macs + self.backward.macs

    @property
    def bytes(self):
        return self.forward.bytes + self.backward.bytes


def rates(work):
    """Return (multiply-adds a second, bytes a second) of a :class:`Row` or :class:`Pass`; 0 where nothing was timed."""
    return tuple(amount / work.seconds if work.seconds > 0 else 0.0 for amount in (work.macs, work.bytes))


# --- What was measured -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StepProfile:
    """Where the time of a step went.

    Attributes
    ----------
    input_shape : tuple
        (N, H, W, C) or (N, C).
    rows : list of Row
        The layers in forward order, with the residual sums where they are taken; then ``loss``, ``update`` and
        ``between layers`` (Python, and whatever is no layer).
    step_seconds, apart_seconds, watched_seconds : float
        Medians of the whole step: as it usually is; with its blocks taken apart into layers, if they are; and so while
        the layers are timed.
    threads, repeats : int
    inference : bool
        Then a step is a forward alone, with batch norm folded into the convolutions.
    name : str
        Of the model, for the heading.
    """

    input_shape: tuple
    rows: list
    step_seconds: float
    apart_seconds: float
    watched_seconds: float
    threads: int
    repeats: int
    inference: bool = False
    name: str = ""

    def by(self, what, sort=None):
        """Return a row for each ``"layer"``, ``"block"`` (a child of the model) or ``"kind"``.

        Parameters
        ----------
        what : {"layer", "block", "kind"}
        sort : {"time", "forward", "backward", "macs", "bytes", "params"}, optional
            From the largest to the smallest; by default in forward order.

        Raises
        ------
        ValueError
            If one of them is something else.
        """
        if sort is not None and sort not in SORTS:
            raise ValueError(f"sort must be one of {', '.join(SORTS)}, got {sort!r}")
        groups = self.groups(what)
        rows = self.rows if what == "layer" else [_together(name, members) for name, members in groups.items()]
        return list(rows) if sort is None else sorted(rows, key=operator.attrgetter(SORTS[sort]), reverse=True)

    def groups(self, what):
        """Return name -> the rows of each ``"layer"``, ``"block"`` or ``"kind"``."""
        if what not in GROUPINGS:
            raise ValueError(f"by must be one of {', '.join(GROUPINGS)}, got {what!r}")
        groups = {}
        for row in self.rows:
            name = {"layer": row.name, "kind": row.kind, "block": _block(row.name)}[what]
            groups.setdefault(name, []).append(row)
        return groups

    def by_kind(self):
        """Return a row for each kind of layer, the one that takes the longest first."""
        return self.by("kind", "time")

    def shares(self):
        """Return kind -> (share of the time, of the multiply-adds, of the parameters), the longest first."""
        columns = {row.kind: (row.seconds, row.macs, row.params) for row in self.by_kind()}
        totals = [sum(column) for column in zip(*columns.values())]
        return {kind: tuple(map(_share, numbers, totals)) for kind, numbers in columns.items()}

    # How it is shown

    def table(self, by="layer", sort=None):
        """Return the rows of :meth:`by` as text: header, rows, total."""
        rows = self.by(by, sort)
        total = _together("total", self.rows)
        names = ("layer", "kind", "output") if by == "layer" else (by,)
        ways = ("ms",) if self.inference else ("forward ms", "backward ms", "ms")
        header = (*names, *ways, "of time", "M mult-adds", "MB", "G mult-adds/s", "GB/s")
        return [header, *(self._line(row, by, total) for row in (*rows, total))]

    def _line(self, row, by, total):
        names = (row.name, "" if row.kind == row.name else row.kind, " x ".join(map(str, row.output_shape)))
        seconds = (row.seconds,) if self.inference else (row.forward.seconds, row.backward.seconds, row.seconds)
        numbers = [1e3 * s for s in seconds], [row.macs / 1e6, row.bytes / 1e6, *(rate / 1e9 for rate in rates(row))]
        times, work = ([three_digits(number) for number in part] for part in numbers)
        return (*(names if by == "layer" else names[:1]), *times, f"{_share(row.seconds, total.seconds):.1%}", *work)

    def kind_table(self):
        """Return the :meth:`shares` as text: header, kinds, total."""
        shares = self.shares()
        lines = [(kind, *(f"{share:.2%}" if share else "" for share in line)) for kind, line in shares.items()]
        total = (f"{sum(column):.2%}" for column in zip(*shares.values()))
        return [("kind", "of time", "of multiply-adds", "of parameters"), *lines, ("total", *total)]

    def heading(self):
        """Return one line: what a step is, its size and its time."""
        what = "inference, batch norm folded" if self.inference else "training step"
        shape = " x ".join(map(str, self.input_shape))
        threads = f"{self.threads} thread" + "s" * (self.threads > 1)
        images = self.input_shape[0] / self.step_seconds
        text = f"{what}, batch {shape}, {threads}: {three_digits(1e3 * self.step_seconds)} ms, {images:,.0f} images/s"
        return f"{self.name}: {text}" if self.name else text

    def remark(self):
        """Return one line: how long a step takes as it is, taken apart into layers, and with these timed."""
        steps = (self.step_seconds, self.apart_seconds, self.watched_seconds)
        as_is, apart, watched = (f"{three_digits(1e3 * seconds)} ms" for seconds in steps)
        taken_apart = f"{apart} layer by layer, " if self.apart_seconds != self.step_seconds else ""
        looking = self.watched_seconds / self.apart_seconds - 1
        return f"Medians of {self.repeats}: {as_is} as it is, {taken_apart}{watched} while timed ({looking:+.1%})."

    def to_text(self, by="layer", sort=None):
        """Return :meth:`table` and :meth:`kind_table` for a terminal."""
        tables = [text_table(self.table(by, sort), _left(by)), text_table(self.kind_table(), 1)]
        return "\n\n".join([f"{self.heading()}\n{self.remark()}", *tables, NOTE])

    def to_markdown(self, by="layer", sort=None):
        """Return the same as Markdown."""
        tables = [markdown_table(self.table(by, sort), _left(by)), markdown_table(self.kind_table(), 1)]
        return "\n\n".join([f"**{self.heading()}**", self.remark(), *tables, NOTE])

    def _repr_html_(self):
        tables = html_table(self.kind_table()) + html_table(self.table())
        return f"<p>{self.heading()}<br>{self.remark()}</p>{tables}<p>{NOTE}</p>"

    def __str__(self):
        return self.to_text()

    # As JSON

    def to_json(self):
        """Return everything as a dict of plain values, in seconds and bytes."""
        rows = [row._asdict() | {w: getattr(row, w)._asdict() for w in ("forward", "backward")} for row in self.rows]
        return vars(self) | {"rows": rows}

    @staticmethod
    def from_json(data):
        """Return the profile that :meth:`to_json` described; raise ``ValueError`` if it is none."""
        try:
            rows = []
            for row in data["rows"]:
                ways = {way: Pass(**row[way]) for way in ("forward", "backward")}
                rows.append(Row(**(row | ways | {"output_shape": tuple(row["output_shape"])})))
            return StepProfile(**(data | {"rows": rows, "input_shape": tuple(data["input_shape"])}))
        except (KeyError, TypeError) as error:
            raise ValueError(f"this is not the profile of a step: {error!r}") from error


def three_digits(number):
    """Write a number with about three digits, and nothing for zero.

    >>> [three_digits(number) for number in (1234.5, 12.345, 0.012345, 0)]
    ['1,234', '12.3', '0.012', '']
    """
    decimals = 0 if number >= 100 else 1 if number >= 10 else 2 if number >= 1 else 3
    return f"{number:,.{decimals}f}" if number else ""


def _together(name, rows):
    """Return the sum of rows as one row."""
    forward, backward = (Pass(*map(sum, zip(*ways))) for ways in zip(*((row.forward, row.backward) for row in rows)))
    return Row(name, name, (), sum(row.params for row in rows), forward, backward, sum(row.other for row in rows))


def _block(name):
    """Return the child of the model that a layer belongs to: ``blocks.3`` for ``blocks.3.depthwise``."""
    first, *rest = name.split(".")
    return f"{first}.{rest[0]}" if rest and rest[0].isdigit() else first


def _share(part, total):
    return part / total if total else 0.0


def _left(by):
    """Return how many columns of a table are words."""
    return 3 if by == "layer" else 1


# --- What is timed ---------------------------------------------------------------------------------------------------


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
    concatenation. A Sequential only hands on. A block that did not call its layers did their work in one op, and is a
    unit with their multiply-adds and parameters. No other function here knows how a model is carried out.

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
        if kind := _kind(module):
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
    """Return the least bytes that a method must read and write (see the top of this file)."""
    if unit.kind == "residual sum":
        return 3 * result.nbytes
    if unit.kind == "concatenation":  # the parts are read; backward, the gradients of the branches are added
        return result.nbytes * (2 if method == "forward" else 1 + len(list(unit.called.children())))
    parameters = sum(parameter.value.nbytes for parameter in unit.parameters)
    if method == "forward":
        return given.nbytes + parameters + result.nbytes
    x = result.nbytes if unit.kind in NEEDS_X else 0
    return given.nbytes + x + parameters + result.nbytes + parameters


# --- Measuring -------------------------------------------------------------------------------------------------------


def profile_step(
    model,
    input_shape,
    *,
    repeats=10,
    warmup=2,
    threads=None,
    inference=False,
    whole_blocks=False,
    name="",
    progress=False,
):
    """Time a training step of a model, or its inference, layer by layer.

    A training step is the forward, a softmax cross-entropy, the backward and an RMSProp update, on images drawn at
    random. (An output that is not (N, K) is taken for the scores of K classes in every pixel.) The model is given back
    as it was: weights, running statistics, gradients, caches and random generators.

    Parameters
    ----------
    model : nn.Module
    input_shape : tuple of int
        (N, H, W, C), or (N, C) for vectors.
    repeats : int
        Steps of which the median is taken, with the layers timed and as many without.
    warmup : int
        Steps before them; two more count multiply-adds and bytes.
    threads : int, optional
        By default the cores this process may use.
    inference : bool
        Time the forward alone, with batch norm folded into the convolutions (:func:`npnets.nn.fold_batch_norm`).
    whole_blocks : bool
        Time blocks that are one op as they are, instead of their layers.
    name : str
        Of the model, for the heading.
    progress : bool
        Show a bar on stderr.

    Returns
    -------
    StepProfile

    Raises
    ------
    ValueError
        If a setting is out of range, or the shape does not fit the model; the message names the layer.

    >>> block = nn.DepthwiseSeparable(4, 8, rng=np.random.default_rng(0))
    >>> profile = profile_step(block, (2, 6, 6, 4), repeats=1, threads=1)
    >>> [(row.name, row.kind, row.forward.macs) for row in profile.rows[:3]]
    [('depthwise', 'depthwise', 2592), ('depthwise_bn', 'batch norm', 0), ('pointwise', 'pointwise', 2304)]
    """
    shape = _batch_shape(input_shape)
    repeats, warmup = integer(repeats, "repeats", 1), integer(warmup, "warmup", 0)
    threads = parallel.available_cores() if threads is None else threads
    output_shape = model.trace(shape[1:], lambda *layer: None)
    if inference:
        model = nn.fold_batch_norm(model)
    with parallel.threads(threads), _left_as_it_was(model), _bar(progress) as bar:
        step = _Inference(model, shape) if inference else _TrainingStep(model, shape, output_shape)
        steps, rows = _measure(step, not whole_blocks, repeats, warmup, bar)
    return StepProfile(shape, rows, *steps, threads, repeats, bool(inference), name)


def _measure(step, take_apart, repeats, warmup, bar):
    """Return the three times of a step (see :class:`StepProfile`) and the rows of its layers."""

    def seconds():
        start = time.perf_counter()
        step()
        taken = time.perf_counter() - start
        bar.update()
        return taken

    def inside():
        return taken_apart(step.model) if take_apart else contextlib.nullcontext(False)

    for _ in range(warmup):
        seconds()
    counter = Counter()
    with inside() as changed:
        layers = units(step.model, seconds)
        with watched(layers, counter.around):
            seconds()
    bar.reset(total=(2 + changed) * repeats)
    everything = [*layers, *step.more_units()]
    as_it_is, apart, timed, parts = [], [], [], []
    for _ in range(repeats):
        as_it_is.append(seconds())
        clock = Clock()
        with inside():
            apart.append(seconds() if changed else as_it_is[-1])
            with watched(everything, clock.around):
                timed.append(seconds())
        parts.append(clock.seconds)
    rows = [_row(unit, parts, counter) for unit in everything]
    rest = [total - sum(part.values()) for total, part in zip(timed, parts)]
    rows.append(Row("between layers", "between layers", (), 0, other=_median(rest)))
    return [_median(times) for times in (as_it_is, apart, timed)], rows


class _TrainingStep:
    """Forward, loss, backward, update."""

    def __init__(self, model, shape, output_shape):
        rng = np.random.default_rng(0)
        parameters = model.parameters()
        self.model, self.x = model, _images(model, shape, rng)
        self.loss = _Loss(rng.integers(output_shape[-1], size=(shape[0], *output_shape[:-1])))
        self.optimizer = optim.RMSProp(parameters, learning_rate=1e-4) if parameters else None

    def __call__(self):
        self.loss.forward(self.model(self.x, training=True))
        self.model.backward(self.loss.backward(1.0))
        if self.optimizer is not None:
            self.optimizer.step()

    def more_units(self):
        """Return what is timed besides the layers."""
        update = [] if self.optimizer is None else [Unit("update", "update", self.optimizer)]
        return [Unit("loss", "loss", self.loss), *update]


class _Inference:
    """A forward."""

    def __init__(self, model, shape):
        self.model, self.x = model, _images(model, shape, np.random.default_rng(0))

    def __call__(self):
        self.model(self.x)

    def more_units(self):
        return []


class _Loss:
    """Softmax cross-entropy of each pixel (N, H, W, K), or of each image (N, K), with labels (N, H, W) or (N,)."""

    def __init__(self, labels):
        self.labels = labels

    def forward(self, logits):
        rows = logits.reshape(-1, logits.shape[-1])  # (N, H, W, K) -> (N H W, K)
        loss, self.cache = ops.softmax_cross_entropy_forward(rows, self.labels.reshape(-1))
        return loss

    def backward(self, dy):
        dlogits = ops.softmax_cross_entropy_backward(dy, self.cache)
        return dlogits.reshape(*self.labels.shape, -1)  # (N H W, K) -> (N, H, W, K)


def _images(model, shape, rng):
    dtype = next((parameter.dtype for parameter in model.parameters()), np.float32)
    return rng.standard_normal(shape, np.float32).astype(dtype, copy=False)


def _batch_shape(input_shape):
    try:
        shape = tuple(integer(n, "input_shape", 1) for n in input_shape)
    except TypeError:
        shape = ()
    if len(shape) not in (2, 4):
        raise ValueError(f"input_shape must be (N, H, W, C), or (N, C) for vectors, got {input_shape!r}")
    return shape


def _row(unit, parts, counter):
    """Return the row of a unit: the median of the seconds in ``parts``, a dict for each step, and its counts."""

    def seconds(method):
        return _median([part.get((unit.name, method), 0.0) for part in parts])

    ways = []
    for method in ("forward", "backward"):
        key = unit.name, method
        ways.append(Pass(seconds(method), counter.macs.get(key, 0), counter.bytes.get(key, 0)))
    params = sum(parameter.size for parameter in unit.parameters)
    return Row(unit.name, unit.kind, counter.output_shapes.get(unit.name, ()), params, *ways, seconds("step"))


def _median(numbers):
    return float(np.median(numbers))


@contextlib.contextmanager
def _left_as_it_was(model):
    """Give the model back as it was before the block."""
    attributes = [(module, dict(vars(module))) for _, module in model.named_modules()]
    values = [value for _, before in attributes for value in before.values()]
    parameters = [(value, value.name, value.grad) for value in values if isinstance(value, nn.Parameter)]
    generators = [(generator, generator.bit_generator.state) for _, generator in model.generators()]
    state = model.state_dict()
    try:
        yield
    finally:
        for module, before in attributes:
            vars(module).clear()
            vars(module).update(before)
        for parameter, name, gradient in parameters:
            parameter.name, parameter.grad = name, gradient
        for generator, before in generators:
            generator.bit_generator.state = before
        model.load_state_dict(state)


def _bar(shown):
    """Return a tqdm bar, imported here so that `import npnets` stays quick."""
    from tqdm import tqdm

    return tqdm(desc="profile", unit=" steps", leave=False, disable=not shown)
