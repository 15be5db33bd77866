"""The papers' cost tables, computed again from npnets' own definitions: ``python -m npnets cost --paper all``.

What the papers print stands in ``published.toml``, which also says which network a row describes. Everything else is
computed here: the row's network is built and counted the usual way, then, where the printed number does not come out,
under the other conventions that the table names. A convention that gives the printed digits is how the paper counted.
"""

import functools
import html
import textwrap
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from npnets import models, nn
from npnets.cost import printed
from npnets.cost.counting import Profile, multi_scale, profile
from npnets.cost.tables import html_table, markdown_table, text_table

PUBLISHED = Path(__file__).with_name("published.toml")
PAPERS = ("mobilenet_v1", "mobilenet_v2", "efficientnet", "batch_norm")
QUANTITIES = {"params": "parameters", "macs": "multiply-adds"}

LEFT = (0, 1, 5)  # columns of text
TEXT_WIDTH = 100  # of footnotes in a terminal
REPRODUCED, UNDER, CLOSE, NOT, QUOTED = (
    "reproduced", "reproduced under a convention", "close", "not reproduced", "quoted"
)  # fmt: skip
"""The verdicts. ``CLOSE`` is a number that is not the printed one, but differs by no more than 0.4 %."""


class Convention(NamedTuple):
    """Another way to count: what it is called, which quantity it is for, and the number it gives for a row."""

    name: str
    quantity: str
    count: Callable


def _three_a_channel(row):
    total = row.profile
    return total.params_without_bn + 3 * (total.params - total.params_without_bn) // 2


def _without_classifier(row):
    return sum(layer.macs for layer in row.profile.trained if layer.kind != nn.Linear.kind)


CONVENTIONS = {
    "no_bn": Convention("without batch norm", "params", lambda row: row.profile.params_without_bn),
    "statistics": Convention("with the running statistics", "params", lambda row: row.profile.params_with_statistics),
    "three_a_channel": Convention("three numbers a batch-norm channel", "params", _three_a_channel),
    "weights": Convention("weights alone", "params", lambda row: row.weights()),
    "no_classifier": Convention("without the classifier", "macs", _without_classifier),
    "flops": Convention("multiply and add counted apart", "macs", lambda row: 2 * row.macs()),
    "space_to_batch": Convention("atrous by space-to-batch", "macs", lambda row: row.dealt_out()),
}
"""Other ways to count, by the names that ``published.toml`` uses; :data:`printed.WAYS` has the ways to print."""


class Number(NamedTuple):
    """One number of a paper's table beside the computed one.

    Attributes
    ----------
    row, quantity, published : str
        The row's name; "parameters" or "multiply-adds"; the number as it is printed.
    computed : float or None
        None where the row is only quoted.
    verdict : str
        ``REPRODUCED``, ``UNDER`` a convention, ``CLOSE``, ``NOT``, or ``QUOTED``.
    convention : str
        Under which it is reproduced, or comes nearest.
    note : str
        Why not, or why only so.
    usual : float or None
        The number as it is usually counted here, whatever the convention.
    """

    row: str
    quantity: str
    published: str
    computed: float | None
    verdict: str
    convention: str = ""
    note: str = ""
    usual: float | None = None

    @property
    def difference(self):
        """By how much the computed number is larger, relative to the published one."""
        return printed.difference(self.computed, printed.parse(self.published))


@dataclass(frozen=True, repr=False)
class PaperTable:
    """A table of a paper, its numbers computed again.

    Attributes
    ----------
    paper, key, title, source : str
    numbers : list of Number
    accuracies : dict row -> (measure, percent)
        The published accuracy of each row that has one: top1, map or miou.
    models : dict row -> str
        The npnets model of each row that is computed.
    remark : str
        What else is to be said of the table.
    """

    paper: str
    key: str
    title: str
    source: str
    numbers: list
    accuracies: dict
    models: dict
    remark: str = ""

    def points(self):
        """Return (row, accuracy, parameters, multiply-adds) for each row with an accuracy, to be drawn.

        Costs are computed, and counted the usual way in every row; where a row is quoted, they are the published ones.
        They are None where nothing was published.
        """
        found = []
        for row, (_, accuracy) in self.accuracies.items():
            costs = dict.fromkeys(QUANTITIES.values())
            for number in self.numbers:
                if number.row == row:
                    published = printed.parse(number.published).value
                    costs[number.quantity] = published if number.usual is None else number.usual
            found.append((row, accuracy, *costs.values()))
        return found

    def table(self):
        """Return (lines, footnotes): the lines with a header, as text; footnotes are numbered from 1."""
        lines = [("", "", "published", "computed", "difference", "verdict")]
        notes, before = {}, None
        for number in self.numbers:
            mark = f" [{notes.setdefault(number.note, len(notes) + 1)}]" if number.note else ""
            verdict = REPRODUCED if number.verdict == UNDER else number.verdict
            if number.convention:
                verdict += f" (nearest: {number.convention})" if number.verdict == NOT else f": {number.convention}"
            shown, by = "", ""
            if number.computed is not None:
                shown = printed.parse(number.published).in_its_unit(number.computed)
                by = f"{number.difference + 0.0:+.1%}".replace("-0.0%", "0.0%").replace("+0.0%", "0.0%")
            name, before = ("" if number.row == before else number.row), number.row
            lines.append((name, number.quantity, number.published, shown, by, verdict + mark))
        return lines, list(notes)

    def to_markdown(self):
        """Return the table as Markdown, with its title, source and footnotes."""
        lines, notes = self.table()
        return "\n\n".join([f"**{self.title}** ({self.source})", markdown_table(lines, LEFT), *self._below(notes)])

    def _repr_html_(self):
        lines, notes = self.table()
        below = "".join(f"<p>{html.escape(text, quote=False)}</p>" for text in self._below(notes))
        return f"<p><b>{self.title}</b> ({self.source})</p>{html_table(lines, LEFT, total=False)}{below}"

    def __repr__(self):
        lines, notes = self.table()
        body = text_table(lines, LEFT, total=False)
        below = [textwrap.fill(text, TEXT_WIDTH, subsequent_indent="    ") for text in self._below(notes)]
        return "\n".join([self.title, self.source, "", body, *below])

    def _below(self, notes):
        """Return what stands below the table: its remark, and the numbered footnotes."""
        return [*filter(None, [self.remark]), *(f"[{k}] {note}" for k, note in enumerate(notes, 1))]


def paper_tables(paper="all"):
    """Return the cost tables of a paper, or of all, with every number computed again.

    Parameters
    ----------
    paper : {"mobilenet_v1", "mobilenet_v2", "efficientnet", "batch_norm", "all"}

    Returns
    -------
    list of PaperTable

    Raises
    ------
    ValueError
        If there is no such paper.
    """
    if paper not in (*PAPERS, "all"):
        raise ValueError(f"there are no tables of {paper!r}; choose from {', '.join(PAPERS)}, all")
    return [_computed(table) for table in published() if paper in (table["paper"], "all")]


def published():
    """Return the contents of ``published.toml``: a list of tables as dictionaries."""
    with open(PUBLISHED, "rb") as file:
        return tomllib.load(file)["table"]


def _computed(table):
    own = {"paper", "key", "title", "source", "remark", "rows"}
    common = {name: value for name, value in table.items() if name not in own}
    numbers, accuracies, built = [], {}, {}
    for row in table["rows"]:
        merged = common | row
        if "alternative" in row:
            merged["alternative"] = common.get("alternative", {}) | row["alternative"]
        if "model" in merged:
            built[row["name"]] = merged["model"]
        numbers += [_number(merged, quantity) for quantity in QUANTITIES if quantity in row]
        measure = next((name for name in ("top1", "map", "miou") if name in row), None)
        if measure:
            accuracies[row["name"]] = measure, row[measure]
    heading = (table[name] for name in ("paper", "key", "title", "source"))
    return PaperTable(*heading, numbers, accuracies, built, table.get("remark", ""))


def _number(row, quantity):
    text = printed.parse(row[quantity])
    place = row["name"], QUANTITIES[quantity], text.text
    if not {"model", "layer"} & set(row):
        return Number(*place, None, QUOTED, note=row.get("note", ""))
    counted = list(_candidates(row, quantity))
    usual = counted[0][1]
    for way in ("", *row.get("counting", ())):
        if way in printed.WAYS:
            for name, value, note in counted:
                if printed.WAYS[way].fits(value, text):
                    convention = ", ".join(filter(None, (name, printed.WAYS[way].name)))
                    verdict = UNDER if convention else REPRODUCED
                    return Number(*place, value, verdict, convention, convention and note, usual)
    name, value, note = min(counted, key=lambda candidate: abs(printed.difference(candidate[1], text)))
    return Number(*place, value, CLOSE if printed.is_close(value, text) else NOT, name, note, usual)


def _candidates(row, quantity):
    """Yield (convention, number, note): the usual count first, then the others that the row names."""
    usual, note = _Counted(row), row.get(f"{quantity}_note", row.get("note", ""))
    yield "", getattr(usual, quantity)(), note
    for name in row.get("counting", ()):
        if name in CONVENTIONS and CONVENTIONS[name].quantity == quantity:
            yield CONVENTIONS[name].name, CONVENTIONS[name].count(usual), note
    other = row.get("alternative", {})
    if {"settings", "pixels"} & set(other):
        changed = {"settings": row.get("settings", {}) | other.get("settings", {})}
        changed |= {"pixels": other["pixels"]} if "pixels" in other else {}
        yield other["name"], getattr(_Counted(row | changed), quantity)(), other["note"]


class _Counted:
    """The network, or part of one, that a row of ``published.toml`` describes, and its counts."""

    def __init__(self, row):
        self.row = row
        self.model, self.pixels = _network(row)

    @functools.cached_property
    def profile(self) -> Profile:
        return self._profile()

    def _profile(self, **counting):
        channels = self.row.get("channels", 3)
        total = profile(self.model, (self.pixels, self.pixels, channels), **counting)
        return total.part(self.row["part"]) if "part" in self.row else total

    def params(self):
        return self._share(1, weights_only=False) if "share" in self.row else self.profile.params

    def weights(self):
        return self._share(1, weights_only=True) if "share" in self.row else self.profile.weights

    def macs(self):
        if "scales" in self.row:
            return self._multi_scale()
        return self._share(0, weights_only=False) if "share" in self.row else self.profile.macs

    def dealt_out(self):
        counting = {"atrous": "space_to_batch"}
        return self._multi_scale(**counting) if "scales" in self.row else self._profile(**counting).macs

    def _multi_scale(self, **counting):
        return multi_scale(self.model, (self.pixels, self.pixels, 3), self.row["scales"], **counting).macs

    def _share(self, column, *, weights_only):
        return self.profile.shares(weights_only=weights_only)[self.row["share"]][column]


def _network(row):
    """Return (model, pixels) of a row."""
    if "layer" in row:
        return LAYERS[row["layer"]](row["channels"]), row["pixels"]
    if "scaling" in row:
        model, pixels = models.compound_scaling(*row["scaling"], row["model"])
        return model, row.get("pixels", pixels)
    return models.build(row["model"], **row.get("settings", {})), row["pixels"]


def _full_layer(C):
    return nn.Conv2d(C, C, 3, rng=np.random.default_rng(0))


def _separable_layer(C):
    return nn.DepthwiseSeparable(C, C, rng=np.random.default_rng(0))


LAYERS = {"conv": _full_layer, "separable": _separable_layer}
"""The single layers of MobileNetV1's Table 3, for C channels in and out."""
