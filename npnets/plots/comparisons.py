"""Several trainings beside each other: their curves and their best results, with every seed shown."""

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from npnets.plots.style import COLOURS, STYLE

UNKNOWN = ("#666666", "-", "o")
"""Colour, line and marker of what no style is given for."""


def curves_with_spread(panels, styles, *, xlabel="step", ylabel="test accuracy (%)", scale=100.0, level=None, title=""):
    """Draw a quantity over the steps of several trainings: the mean over the seeds, and their range as a band.

    Parameters
    ----------
    panels : dict heading -> dict label -> Curve
        A panel each, side by side with one y axis; :class:`npnets.experiments.Curve` from ``records.curve(...)``. Where
        one of the seeds has ended, the curve ends.
    styles : dict label -> (colour, line style, marker)
        The marker is not used here. What is not in it is drawn in grey.
    xlabel, ylabel : str
    scale : float
        Values are multiplied by it; 100 makes percents.
    level : (float, str), optional
        A value (before scaling) to which a line is drawn across all panels, and what it is.
    title : str

    Returns
    -------
    matplotlib.figure.Figure
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(1.2 + 4.1 * len(panels), 3.8), layout="constrained")
        axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for ax, (heading, curves) in zip(axes, panels.items()):
            for label, curve in curves.items():
                colour, line, _ = styles.get(label, UNKNOWN)
                mean, low, high = (scale * values for values in (curve.mean, curve.low, curve.high))
                ax.plot(curve.steps, mean, linestyle=line, color=colour, linewidth=1.6, label=label)
                ax.fill_between(curve.steps, low, high, color=colour, alpha=0.2, linewidth=0)
            if level is not None:
                ax.axhline(scale * level[0], color=COLOURS["grey"], linewidth=1, linestyle=(0, (1, 1)))
                right = (1, scale * level[0])
                ax.annotate(level[1], right, xycoords=ax.get_yaxis_transform(), xytext=(0, 2), ha="right", size=8,
                            textcoords="offset points", color=COLOURS["grey"])  # fmt: skip
            ax.set(xlabel=xlabel, title=heading)
            ax.xaxis.set_major_locator(MaxNLocator(5))
            ax.xaxis.set_major_formatter("{x:,.0f}")
            ax.legend(fontsize=8)
        axes[0].set_ylabel(ylabel)
        figure.suptitle(title, fontsize=11)
    return figure


def seed_ranges(rows, styles, *, xlabel="best test accuracy (%)", scale=100.0, reference=None, title=""):
    """Draw one number of each training: a line for each variant, a mark for each seed, and a bar at their mean.

    Parameters
    ----------
    rows : dict label -> sequence of float
        The numbers of the seeds, top row first.
    styles : dict label -> (colour, line style, marker)
    xlabel : str
    scale : float
    reference : str, optional
        The row whose range is shaded over all rows, to compare the others with.
    title : str

    Returns
    -------
    matplotlib.figure.Figure
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7, 0.9 + 0.36 * len(rows)), layout="constrained")
        ax = figure.subplots()
        if reference is not None:
            values = scale * np.asarray(rows[reference], float)
            ax.axvspan(values.min(), values.max(), color="#DDDDDD", linewidth=0)
        for y, (label, values) in enumerate(rows.items()):
            colour, _, marker = styles.get(label, UNKNOWN)
            values = scale * np.asarray(values, float)
            ax.plot(values, np.full(len(values), y), marker, color=colour, fillstyle="none", markeredgewidth=1.5)
            ax.plot([values.mean()] * 2, [y - 0.3, y + 0.3], color=colour, linewidth=2)
        ax.set_yticks(range(len(rows)), list(rows))
        ax.set(xlabel=xlabel, ylim=(len(rows) - 0.5, -0.5))
        ax.grid(visible=False, axis="y")
        figure.suptitle(title, fontsize=11)
    return figure
