"""Tables of comparisons, as text for a terminal or as Markdown."""

from dataclasses import dataclass, field


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
        rule = ["---"] + ["---:"] * (len(self.columns) - 1)
        lines = ["| " + " | ".join(line) + " |" for line in (self.columns, rule, *self.rows)]
        return "\n".join([f"**{self.title}**", "", *lines])


@dataclass(frozen=True)
class Section:
    """What one benchmark found: the comparisons, the tables made of them, and remarks.

    Attributes
    ----------
    title : str
    comparisons : tuple
        Anything with a ``record()`` that JSON can hold. A figure in ``figures.py`` is drawn from these records.
    tables : tuple of Table
    notes : tuple of str
    method : dict
        Rounds, steps and so on, where they are not those of the command line.
    """

    title: str
    comparisons: tuple
    tables: tuple[Table, ...]
    notes: tuple[str, ...] = ()
    method: dict = field(default_factory=dict)

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
    rows = []
    for comparison in comparisons:
        for case in comparison.cases:
            times = [milliseconds(comparison.seconds(label, case)) for label in comparison.labels]
            ratios = [comparison.ratio(label, case) for label in comparison.labels]
            rows.append((case, str(comparison.threads), *_with_ratios(times, ratios)))
    return _table("Time in ms: median [quartiles]", comparisons[0].labels, rows)


def memory_table(comparisons):
    """Return a row for each thread count and network, like :func:`time_table`; None where the system does not tell."""
    rows = []
    for comparison in comparisons:
        memory = [comparison.memory(label) for label in comparison.labels]
        if None in memory:
            return None
        sizes = [f"{peak / 1e6:.0f} [{after_imports / 1e6:.0f}]" for peak, after_imports in memory]
        ratios = [memory[0][0] / peak for peak, _ in memory]
        rows.append((", ".join(comparison.cases), str(comparison.threads), *_with_ratios(sizes, ratios)))
    return _table("Peak resident memory of the process in MB [of which after its imports]", comparisons[0].labels, rows)


def _table(title, labels, rows):
    if len(labels) > 1:
        title += f"; ratio: {labels[0]} over the library to its left"
    return Table(title, ("", "threads", *_with_ratios(labels, ["ratio"] * len(labels))), tuple(rows))


def _with_ratios(cells, ratios):
    """Put each ratio behind its cell; the first library's, which is 1, is left out."""
    texts = [ratio if isinstance(ratio, str) else f"{ratio:.2f}" for ratio in ratios]
    return [cells[0], *(text for pair in zip(cells[1:], texts[1:]) for text in pair)]


def milliseconds(spread):
    """Write seconds as milliseconds with three significant digits: ``123 [119, 131]``."""
    low, median, high = (1e3 * seconds for seconds in spread)
    decimals = 0 if median >= 100 else 1 if median >= 10 else 2 if median >= 1 else 3
    return f"{median:.{decimals}f} [{low:.{decimals}f}, {high:.{decimals}f}]"
