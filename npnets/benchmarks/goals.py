"""What npnets was to reach beside the other libraries, and whether the recorded measurements reach it."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from npnets.benchmarks import networks
from npnets.benchmarks.measure import Comparison
from npnets.benchmarks.report import Table

SMALL, HALF = networks.NETWORKS
_, FULL = networks.INFERENCE
PYTORCH, CHANNELS_LAST, CHAINER = "PyTorch", "PyTorch channels_last", "Chainer"


class Goal(NamedTuple):
    """Bounds on npnets' time or memory as a multiple of other libraries'.

    Attributes
    ----------
    work : str
    benchmark : str
        Where it is measured.
    measured : callable (list of Comparison, label) -> float or None
        The multiple of one library; None if the comparisons do not have it.
    most : dict of label -> float
        The multiple must not be above it.
    """

    work: str
    benchmark: str
    measured: Callable
    most: dict


def time(network, threads):
    """Return a function that looks up npnets' median time for a network as a multiple of another library's."""

    def measured(comparisons, label):
        for comparison in comparisons:
            if comparison.threads == threads and network.name in comparison.cases and label in comparison.labels:
                return comparison.ratio(label, network.name)
        return None

    return measured


def over_cases(word, summary, threads):
    """Return a function that summarizes the multiples of all cases whose name ends with a word."""

    def measured(comparisons, label):
        ratios = [
            comparison.ratio(label, case)
            for comparison in comparisons
            if comparison.threads == threads and label in comparison.labels
            for case in comparison.cases
            if case.endswith(word)
        ]
        return float(summary(ratios)) if ratios else None

    return measured


def memory(comparisons, label):
    """Return the largest of npnets' peaks as multiples of another library's, over networks and threads."""
    peaks = [(c.memory(c.labels[0]), c.memory(label)) for c in comparisons if label in c.labels]
    if not peaks or any(None in pair for pair in peaks):
        return None
    return max(own[0] / other[0] for own, other in peaks)


STEP = "training step, width 0.5, batch 64, {}"
SMALL_STEP = "training step, mobilenet_v2_small, batch 64, two threads"
FOLDED = "inference, width 0.5, batch 64, batch norm folded, two threads"
SINGLE = "inference, MobileNetV2 1.0 at 224 pixels, batch 1, one thread"
DEPTHWISE = "depthwise 3x3, {}, two threads"

GOALS = [
    Goal(STEP.format("two threads"), "train_step", time(HALF, 2), {CHANNELS_LAST: 1.0, PYTORCH: 0.7, CHAINER: 0.1}),
    Goal(STEP.format("one thread"), "train_step", time(HALF, 1), {CHANNELS_LAST: 1.0, PYTORCH: 0.75, CHAINER: 0.1}),
    Goal(SMALL_STEP, "train_step", time(SMALL, 2), {CHANNELS_LAST: 1.3, PYTORCH: 0.9, CHAINER: 0.1}),
    Goal("peak memory of the training steps, largest", "train_step", memory, {CHANNELS_LAST: 1.0, PYTORCH: 1.0}),
    Goal(FOLDED, "inference", time(HALF, 2), {CHANNELS_LAST: 1.0}),
    Goal(SINGLE, "inference", time(FULL, 1), {CHANNELS_LAST: 1.2, PYTORCH: 1.5}),
    *(
        Goal(
            DEPTHWISE.format(f"{direction}, {name}"),
            "depthwise",
            over_cases(direction, summary, 2),
            {CHANNELS_LAST: 0.7, PYTORCH: 0.3},
        )
        for direction in ("forward", "backward")
        for name, summary in {"median of the shapes": np.median, "worst shape": max}.items()
    ),
]


def table(records):
    """Return the table of all goals.

    Parameters
    ----------
    records : dict of benchmark -> list of dict
        What ``Section.record`` returned, or the JSON of it.
    """
    wanted = {goal.benchmark for goal in GOALS}
    comparisons = {
        name: [Comparison.from_record(r) for r in found] for name, found in records.items() if name in wanted
    }
    rows = []
    for goal in GOALS:
        for label, most in goal.most.items():
            found = goal.measured(comparisons.get(goal.benchmark, []), label)
            verdict = "not measured" if found is None else "reached" if found <= most else "**not reached**"
            measured = "-" if found is None else _multiple(found, decimals=3)  # 1.004 must not look like 1
            rows.append((goal.work, label, _multiple(most), measured, verdict))
    columns = ("npnets over", "the other library", "at most", "measured", "")
    return Table("npnets' time or memory as a multiple of the other library's; medians", columns, tuple(rows))


def _multiple(ratio, decimals=2):
    """Write a multiple; a small one as one over the number of times that npnets is faster."""
    return f"1/{1 / ratio:.3g}" if ratio < 0.2 else f"{ratio:.{decimals}f}"
