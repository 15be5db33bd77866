"""The figures of the benchmarks, drawn from their records, which may have been read back from JSON.

A library has the same colour in every figure (``COLOURS``), and its name stands at the end of its line.
"""

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, NullFormatter, NullLocator

from npnets import plots
from npnets.benchmarks import roofline, shares
from npnets.benchmarks.accuracy import Training
from npnets.benchmarks.measure import Comparison
from npnets.benchmarks.scaling import TITLES, line

COLOURS = {  # of Okabe and Ito
    "npnets": "#D55E00",  # vermilion
    "PyTorch": "#56B4E9",  # sky blue
    "PyTorch channels_last": "#0072B2",  # blue
    "Chainer": "#CC79A7",  # reddish purple
}


def scaling(records):
    """Return file name -> Figure: the time of a training step over batch and multiply-adds.

    A row of panels for each number of threads, both axes logarithmic. The dashed line is growth in proportion, through
    npnets' time for the usual batch, width and resolution.
    """
    comparisons = [Comparison.from_record(record) for record in records]
    with matplotlib.rc_context(plots.STYLE):
        figure = Figure(figsize=(9.5, 2.9 * len(comparisons)), layout="constrained")
        panels = figure.subplots(len(comparisons), len(TITLES), squeeze=False, sharex="col", sharey=True)
        ends = []
        for comparison, row in zip(comparisons, panels):
            for (what, title), ax in zip(TITLES.items(), row):
                ends.append(_draw_growth(ax, comparison, what))
                ax.set_title(f"{title}, {_threads(comparison.threads)}", fontsize=10)
            row[0].set_ylabel("ms a step")
        for (what, _), ax in zip(TITLES.items(), panels[-1]):
            ax.set_xlabel("images a step" if what == "batch" else "million multiply-adds an image, forward")
        low, high = ax.get_ylim()
        ax.set_ylim(low / 1.4, high * 1.4)
        figure.draw_without_rendering()  # so that limits and layout are final
        for ax, of_panel in zip(panels.flat, ends):
            _name_ends(ax, of_panel)
    return {"scaling.png": figure}


def _draw_growth(ax, comparison, what):
    """Draw a panel and return the ends of its lines."""
    ax.set(xscale="log", yscale="log")
    ends = []
    for label in comparison.labels:
        one = line(comparison, label, what)
        x = one.images if what == "batch" else one.macs / one.images / 1e6
        milliseconds = 1e3 * one.seconds
        ax.plot(x, milliseconds, "o-", markersize=3, linewidth=1.3, color=_colour(label), zorder=2 + (not ends))
        ends.append((x[-1], milliseconds[-1], label.removeprefix("PyTorch ") or label, _colour(label)))
        if label == comparison.labels[0]:
            linear = milliseconds[one.reference] * x / x[one.reference]
            ax.plot(x, linear, "--", color=plots.COLOURS["grey"], linewidth=1, zorder=1)
            ax.annotate(
                "linear", (x[0], linear[0]), xytext=(4, -2), textcoords="offset points", va="top",
                fontsize=8, color=plots.COLOURS["grey"],
            )  # fmt: skip
    ax.set_xlim(right=x[-1] * (x[-1] / x[0]) ** 0.4)  # room for the names
    ax.xaxis.set_major_locator(FixedLocator(x[:: 1 if len(x) < 6 else 2]))
    ax.xaxis.set_major_formatter(
        lambda value, _: f"{value:.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"
    )
    ax.xaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter("{x:g}")
    return ends


def time_to_accuracy(records):
    """Return file name -> Figure: the wrong test answers over seconds of training, and over images seen."""
    trainings = [Training.from_record(record) for record in records]
    target = 100 * (1 - trainings[0].target)
    with matplotlib.rc_context(plots.STYLE):
        figure = Figure(figsize=(9, 3.8), layout="constrained")
        for ax, unit, title in zip(
            figure.subplots(1, 2, sharey=True),
            (lambda one: one["seconds"], lambda one: one["images"] / 1e3),
            ("seconds of training", "thousand images seen"),
        ):
            ax.set(yscale="log", xlabel=title)
            ax.axhline(target, linestyle="--", color=plots.COLOURS["grey"], linewidth=1, zorder=1)
            ax.annotate(
                f"{trainings[0].target:.0%} right", (0, target), xytext=(4, 3), xycoords=("axes fraction", "data"),
                textcoords="offset points", fontsize=8, color=plots.COLOURS["grey"],
            )  # fmt: skip
            for training in trainings:
                x = [unit(one) for one in training.evaluations]
                errors = [max(100 * (1 - one["accuracy"]), 0.01) for one in training.evaluations]
                ax.plot(x, errors, ".-", markersize=4, linewidth=1, alpha=0.7, color=_colour(training.label))
            ax.set_xlim(left=0)
            ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            ax.yaxis.set_major_formatter("{x:g}")
            ax.yaxis.set_minor_formatter(NullFormatter())
        left = figure.axes[0]
        left.set_ylabel("wrong test answers (%)")
        _list_names(left, list(dict.fromkeys(training.label for training in trainings)))
    return {"time_to_accuracy.png": figure}


FIGURES = {
    "shares": shares.figures,
    "roofline": roofline.figures,
    "scaling": scaling,
    "time_to_accuracy": time_to_accuracy,
}
"""Benchmark -> a function (records) -> file name -> Figure."""


def _colour(label):
    return COLOURS.get(label, plots.COLOURS["grey"])


def _threads(n):
    return "one thread" if n == 1 else f"{n} threads"


def _name_ends(ax, ends, apart=10.5):
    """Write a name at the end of each line, (x, y, text, colour), at least so many points apart."""
    points = 72 / ax.figure.dpi
    heights = [points * ax.transData.transform((x, y))[1] for x, y, _, _ in ends]
    placed = _spread(heights, apart)
    for (x, y, text, colour), height, place in zip(ends, heights, placed):
        ax.annotate(
            text, (x, y), xytext=(5, place - height), textcoords="offset points", va="center", fontsize=8, color=colour
        )


def _spread(heights, apart):
    """Move numbers as little as it takes until neighbours are ``apart``, in the order they have."""
    order = np.argsort(heights, kind="stable")
    # With k * apart taken off the k-th, neighbours may touch but not cross: a monotone regression.
    groups = []
    for k, index in enumerate(order):
        groups.append([heights[index] - k * apart, 1])
        while len(groups) > 1 and groups[-2][0] > groups[-1][0]:
            value, size = groups.pop()
            groups[-1] = [(groups[-1][0] * groups[-1][1] + value * size) / (groups[-1][1] + size), groups[-1][1] + size]
    flat = [value for value, size in groups for _ in range(size)]
    placed = [0.0] * len(heights)
    for k, index in enumerate(order):
        placed[index] = flat[k] + k * apart
    return placed


def _list_names(ax, labels):
    """Write the names below each other in the upper right corner, in their colours."""
    for k, label in enumerate(labels):
        ax.annotate(
            label, (1, 1), xycoords="axes fraction", xytext=(-4, -4 - 13 * k), textcoords="offset points",
            ha="right", va="top", color=_colour(label),
        )  # fmt: skip
