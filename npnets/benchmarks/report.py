"""Tables of comparisons, as text for a terminal or as Markdown."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """A heading, columns and rows of text. The first column stands left, the others right."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def text(self):
        """Return the table with its columns aligned."""
        lines = (self.columns, *self.rows)
        widths = [max(len(line[k]) for line in lines) for k in range(len(self.columns))]
        first, *rest = widths
        aligned = ["  ".join([line[0].ljust(first), *map(str.rjust, line[1:], rest)]).rstrip() for line in lines]
        return "\n".join([self.title, aligned[0], "  ".join("-" * width for width in widths), *aligned[1:]])

    def markdown(self):
        """Return the table as Markdown."""
        rule = ("---",) + ("---:",) * (len(self.columns) - 1)
        lines = ["| " + " | ".join(line) + " |" for line in (self.columns, rule, *self.rows)]
        return "\n".join([f"**{self.title}**", "", *lines])


@dataclass(frozen=True)
class Section:
    """What one benchmark found: the comparisons, the tables made of them, and remarks."""

    title: str
    comparisons: tuple
    tables: tuple[Table, ...]
    notes: tuple[str, ...] = ()

    def text(self):
        """Return the section for a terminal."""
        return "\n\n".join([f"{self.title}\n{'=' * len(self.title)}", *(t.text() for t in self.tables), *self.notes])

    def markdown(self):
        """Return the section as Markdown."""
        return "\n\n".join([f"## {self.title}", *(table.markdown() for table in self.tables), *self.notes])

    def record(self):
        """Return everything that was measured as a list for JSON."""
        return [comparison.record() for comparison in self.comparisons]


def time_table(comparisons):
    """Return a row for each thread count and case: medians and quartiles in ms, and npnets' median over each other's.

    All comparisons must be of the same libraries.
    """
    labels = comparisons[0].labels
    rows = []
    for comparison in comparisons:
        for case in comparison.cases:
            times = [_spread(comparison.seconds(label, case)) for label in labels]
            ratios = [f"{comparison.ratio(label, case):.2f}" for label in labels[1:]]
            rows.append((case, str(comparison.threads), *times, *ratios))
    title = "Time in ms: median [quartiles]" + _explain_ratios(labels)
    return Table(title, ("", "threads", *labels, *_ratio_columns(labels)), tuple(rows))


def memory_table(comparisons):
    """Return a row for each comparison of one case, like :func:`time_table`; None where the system does not tell."""
    labels = comparisons[0].labels
    rows = []
    for comparison in comparisons:
        memory = [comparison.memory(label) for label in labels]
        if None in memory:
            return None
        sizes = [f"{peak / 1e6:.0f} [{over_imports / 1e6:.0f}]" for peak, over_imports in memory]
        ratios = [f"{memory[0][0] / peak:.2f}" for peak, _ in memory[1:]]
        rows.append((", ".join(comparison.cases), str(comparison.threads), *sizes, *ratios))
    title = "Peak resident memory of the process in MB [of which after its imports]" + _explain_ratios(labels)
    return Table(title, ("", "threads", *labels, *_ratio_columns(labels)), tuple(rows))


def _ratio_columns(labels):
    return [f"{labels[0]} / {label}" for label in labels[1:]]


def _explain_ratios(labels):
    return "; ratios below 1: npnets needs less" if len(labels) > 1 else ""


def _spread(spread):
    """Write seconds as milliseconds with three significant digits: ``123 [119, 131]``."""
    median = spread.median * 1e3
    decimals = 0 if median >= 100 else 1 if median >= 10 else 2 if median >= 1 else 3
    return f"{median:.{decimals}f} [{spread.low * 1e3:.{decimals}f}, {spread.high * 1e3:.{decimals}f}]"
