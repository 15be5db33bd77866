"""What a check found, as a table to read in a terminal or a notebook."""

import html
import math
from dataclasses import dataclass, field

OK, SUSPICIOUS, WRONG = "ok", "suspicious", "WRONG"

SUSPICIOUS_UP_TO = 1000
"""An error of up to this many tolerances is called suspicious: lost digits rather than a wrong formula."""


def verdict_of(error: float, tolerance: float) -> str:
    """Return ``"ok"``, ``"suspicious"`` (lost digits) or ``"WRONG"`` for a relative error."""
    if error <= tolerance:
        return OK
    return SUSPICIOUS if error <= SUSPICIOUS_UP_TO * tolerance else WRONG


@dataclass(frozen=True)
class Row:
    """One line of a report.

    Attributes
    ----------
    name : str
        What was compared: a gradient such as ``dx``, a parameter, an op.
    verdict : str
        ``"ok"``, ``"suspicious"`` or ``"WRONG"``.
    method : str
        ``"complex step"`` or ``"differences"``.
    error : float or None
        Largest relative error (:func:`npnets.gradcheck.relative_error`); None where nothing could be compared.
    where : tuple of int or None
        Index of the element with the largest error.
    analytic, numerical : float or None
        What the backward pass and the numerical method say there.
    seconds : float or None
    note : str
        What else there is to say.
    """

    name: str
    verdict: str
    method: str = ""
    error: float | None = None
    where: tuple | None = None
    analytic: float | None = None
    numerical: float | None = None
    seconds: float | None = None
    note: str = ""


# Heading, how a cell is written, whether it is a number.
_COLUMNS = {
    "name": ("gradient", str, False),
    "method": ("method", str, False),
    "error": ("largest error", lambda error: f"{error:.1e}", True),
    "where": ("at", lambda where: str(where) if where else "-", False),
    "analytic": ("backward", lambda number: f"{number:.9g}", True),
    "numerical": ("numerical", lambda number: f"{number:.9g}", True),
    "verdict": ("verdict", str, False),
    "seconds": ("seconds", lambda seconds: f"{seconds:.2f}", True),
}


@dataclass(frozen=True)
class Report:
    """The result of a check; ``print`` it, or let Jupyter show it.

    Attributes
    ----------
    title : str
    rows : tuple of Row
    tolerance : float
        Relative error up to which a row is ok.
    notes : tuple of str
        Remarks that concern no single row.
    diagnosis : Diagnosis or None
        What is known about the mistake, where a gradient of a known op is wrong.
    first_column : str
        Heading of the column of names.
    """

    title: str
    rows: tuple[Row, ...]
    tolerance: float
    notes: tuple[str, ...] = ()
    diagnosis: object = None
    first_column: str = field(default="gradient", repr=False)

    @property
    def passed(self) -> bool:
        """Whether there is something to report on and all of it is ok."""
        return bool(self.rows) and all(row.verdict == OK for row in self.rows)

    @property
    def error(self) -> float:
        """The largest relative error of all rows; infinite where a gradient could not be compared."""
        return max((math.inf if row.error is None else row.error for row in self.rows), default=math.inf)

    @property
    def summary(self) -> str:
        """The title and the outcome in one line."""
        failed = [row.name for row in self.rows if row.verdict != OK]
        if self.passed:
            return f"{self.title}: all {len(self.rows)} agree" if len(self.rows) > 1 else f"{self.title}: agrees"
        return f"{self.title}: look at {', '.join(failed)}" if failed else f"{self.title}: nothing was compared"

    def __str__(self) -> str:
        keys = self._keys()
        lines = [[self._heading(key) for key in keys]] + [[_cell(row, key) for key in keys] for row in self.rows]
        widths = [max(len(line[k]) for line in lines) for k in range(len(keys))]
        right = [_COLUMNS[key][2] for key in keys]
        table = [
            "  ".join(cell.rjust(w) if r else cell.ljust(w) for cell, w, r in zip(line, widths, right)).rstrip()
            for line in lines
        ]
        table.insert(1, "  ".join("-" * w for w in widths))
        parts = [self.summary, "", *table]
        remarks = [f"{row.name}: {row.note}" for row in self.rows if row.note] + list(self.notes)
        if remarks:
            parts += ["", *remarks]
        if self.diagnosis is not None:
            parts += ["", str(self.diagnosis)]
        return "\n".join(parts)

    def _repr_html_(self) -> str:
        keys = self._keys()
        head = "".join(f"<th>{html.escape(self._heading(key))}</th>" for key in keys)
        body = "".join(
            f"<tr>{''.join(_html_cell(row, key) for key in keys)}</tr>"
            + (f'<tr><td></td><td colspan="{len(keys) - 1}">{html.escape(row.note)}</td></tr>' if row.note else "")
            for row in self.rows
        )
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in self.notes)
        diagnosis = "" if self.diagnosis is None else self.diagnosis._repr_html_()
        summary = html.escape(self.summary)
        return (
            f"<p><b>{summary}</b></p><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
            f"{notes}{diagnosis}"
        )

    def _keys(self):
        """The columns in which some row has something to show."""
        return [key for key in _COLUMNS if any(getattr(row, key) not in (None, "") for row in self.rows)]

    def _heading(self, key):
        return self.first_column if key == "name" else _COLUMNS[key][0]


def _cell(row, key):
    value = getattr(row, key)
    return "-" if value is None or value == "" else _COLUMNS[key][1](value)


def _html_cell(row, key):
    text = html.escape(_cell(row, key))
    if key == "verdict" and row.verdict != OK:
        text = f"<b>{text}</b>"
    return f'<td style="text-align: {"right" if _COLUMNS[key][2] else "left"}">{text}</td>'
