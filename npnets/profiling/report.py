"""What was measured of a step, and how it is shown: as tables of text, Markdown or HTML, and as JSON."""

import operator
from dataclasses import dataclass
from typing import NamedTuple

from npnets.cost import html_table, markdown_table, text_table

BLOCK = "block in one op"
"""The kind of a block that is timed as a whole."""

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
