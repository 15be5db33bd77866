"""How the time of a training step grows with the batch, the width and the resolution."""

from dataclasses import asdict, dataclass, replace

import numpy as np

from npnets import cost
from npnets.benchmarks import measure, networks
from npnets.benchmarks.report import Section, Table, memory_table

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
WIDTHS = (0.25, 0.5, 0.75, 1.0)
RESOLUTIONS = (16, 24, 32, 48, 64)
WIDTH, RESOLUTION, BATCH = 0.5, 32, 64
"""What stays as it is while something else grows."""

TITLES = {"batch": "the batch", "width": "the width multiplier", "resolution": "the resolution"}


def scaling(setup, batches=BATCHES, widths=WIDTHS, resolutions=RESOLUTIONS, batch=BATCH):
    """Time training steps of the width-0.5 network, and of wider, narrower, larger and smaller ones.

    The steps are many, so there are fewer of each: two rounds of at most two, and one to warm up. A case that is
    over in milliseconds gets more of them.
    """
    setup = replace(setup, rounds=min(setup.rounds, 2), steps=min(setup.steps, 2), warmup=min(setup.warmup, 1))
    sizes = [(width, RESOLUTION) for width in widths] + [(WIDTH, r) for r in resolutions if r != RESOLUTION]
    entries, facts = [], {}
    for width, resolution in sizes:
        network = networks.scaled(width, resolution)
        own_batches = sorted({*batches, batch}) if (width, resolution) == (WIDTH, RESOLUTION) else [batch]
        entries.append({"network": asdict(network), "plan": networks.plan(network), "batches": own_batches})
        macs = cost.profile(networks.build(network), network.image).macs
        for N in own_batches:
            case = {"width": width, "resolution": resolution, "batch": N, "macs": N * macs}
            facts[f"{network.name}, batch {N}"] = case
    job = {"benchmark": "scaling", "least_seconds": 0.2, "networks": entries}
    small = [entry | {"network": entry["network"] | {"batch": 4}} for entry in entries]
    comparisons = measure.compare(setup, job, smaller={"networks": small}, facts=facts)
    return section(comparisons, setup)


def section(comparisons, setup):
    """Return the tables of the comparisons."""
    tables = [_batch_table(comparisons), _growth_table(comparisons), _fit_table(comparisons)]
    memory = memory_table(comparisons)
    if memory is not None:  # a process does all cases, so its peak is that of the largest
        name = "all cases, the largest of them counts"
        tables.append(replace(memory, rows=tuple((name, *row[1:]) for row in memory.rows)))
    notes = (
        "Multiply-adds are those of a forward. Batch norm and ReLU6 cost in proportion to pixels and channels, which "
        "grow as the width does, while multiply-adds grow nearly as its square: in a narrow network their share is "
        "larger, and a slope below 1 over the width is to be expected.",
    )
    title = f"Scaling: the training step of the width-{WIDTH} network over batch, width and resolution"
    return Section(title, tuple(comparisons), tuple(tables), notes, setup.record())


# --- Cases and lines -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """What one library took while one thing grew.

    Attributes
    ----------
    names : list
        The batch sizes, widths or resolutions.
    images, macs : float arrays
        Images of a step, and multiply-adds of their forward.
    seconds : float array
        Of a step: medians.
    reference : int
        Which of them is the network and the batch from which the others depart.
    """

    names: list
    images: np.ndarray
    macs: np.ndarray
    seconds: np.ndarray
    reference: int


def line(comparison, label, what):
    """Return the :class:`Line` of a library over ``"batch"``, ``"width"`` or ``"resolution"``; None without cases."""
    usual = {"batch": _usual_batch(comparison), "width": WIDTH, "resolution": RESOLUTION}
    chosen = [
        (fact[what], case)
        for case, fact in comparison.facts.items()
        if all(fact[name] == value for name, value in usual.items() if name != what)
    ]
    names = [name for name, _ in sorted(chosen)]
    if usual[what] not in names:
        return None
    facts = [comparison.facts[case] for _, case in sorted(chosen)]
    return Line(
        names,
        np.array([fact["batch"] for fact in facts], float),
        np.array([fact["macs"] for fact in facts], float),
        np.array([comparison.seconds(label, case).median for _, case in sorted(chosen)]),
        names.index(usual[what]),
    )


def _usual_batch(comparison):
    """Return the batch with which widths and resolutions were measured."""
    counts = [fact["batch"] for fact in comparison.facts.values()]
    return max(sorted(set(counts)), key=counts.count)


def straight(x, seconds):
    """Fit ``seconds = fixed + each * x`` and return (fixed, each, largest relative deviation from it).

    Relative errors are minimized, so that the small batches count as much as the large ones; neither is below zero.
    """
    A = np.stack([1 / seconds, x / seconds], axis=1)
    fixed, each = np.linalg.lstsq(A, np.ones(len(x)), rcond=None)[0]
    if fixed < 0:
        fixed, each = 0.0, float(A[:, 1].sum() / (A[:, 1] ** 2).sum())
    deviation = np.abs((fixed + each * x) / seconds - 1).max()
    return float(fixed), float(each), float(deviation)


def power(x, seconds):
    """Fit ``seconds = c * x ** slope`` and return (slope, largest relative deviation from it)."""
    slope, logarithm = np.polyfit(np.log(x), np.log(seconds), 1)
    fitted = np.exp(logarithm + slope * np.log(x))
    return float(slope), float(np.abs(fitted / seconds - 1).max())


# --- Tables ----------------------------------------------------------------------------------------------------------


def _batch_table(comparisons):
    """Return ms an image by batch size, and as a multiple of the usual batch's."""
    rows = []
    for comparison in comparisons:
        lines = {label: line(comparison, label, "batch") for label in comparison.labels}
        for k, N in enumerate(lines[comparison.labels[0]].names):
            cells = []
            for one in lines.values():
                each = one.seconds / one.images
                cells += [f"{1e3 * each[k]:.2f}", f"{each[k] / each[one.reference]:.2f}"]
            rows.append((f"batch {N}", str(comparison.threads), *cells))
    usual = _usual_batch(comparisons[0])
    title = f"Batch: ms an image, and as a multiple of those of a batch of {usual} (1 is linear growth)"
    return Table(title, _columns(comparisons, "multiple"), tuple(rows))


def _growth_table(comparisons):
    """Return ms a step by width and resolution, and ms a multiply-add as a multiple of the usual network's."""
    rows = []
    for comparison in comparisons:
        for what in ("width", "resolution"):
            lines = {label: line(comparison, label, what) for label in comparison.labels}
            first = lines[comparison.labels[0]]
            for k, name in enumerate(first.names):
                cells = []
                for one in lines.values():
                    each = one.seconds / one.macs
                    cells += [f"{1e3 * one.seconds[k]:.0f}", f"{each[k] / each[one.reference]:.2f}"]
                millions = first.macs[k] / first.images[k] / 1e6
                label = f"{what} {name}: {millions:.1f} M multiply-adds an image"
                rows.append((label, str(comparison.threads), *cells))
    usual = _usual_batch(comparisons[0])
    title = (
        f"Width and resolution, batch {usual}: ms a step, and the time of a multiply-add as a multiple of that at "
        f"width {WIDTH}, {RESOLUTION}x{RESOLUTION} (1 is linear growth)"
    )
    return Table(title, _columns(comparisons, "multiple"), tuple(rows))


def _fit_table(comparisons):
    """Return the fitted lines: a straight one over the batch, powers over multiply-adds."""
    rows = []
    for comparison in comparisons:
        batch, width, resolution = [], [], []
        for label in comparison.labels:
            one = line(comparison, label, "batch")
            fixed, each, deviation = straight(one.images, one.seconds)
            batch += [f"{1e3 * fixed:.1f} + {1e3 * each:.2f} N", f"{deviation:.0%}"]
            for what, cells in (("width", width), ("resolution", resolution)):
                one = line(comparison, label, what)
                slope, deviation = power(one.macs, one.seconds)
                cells += [f"{slope:.2f}", f"{deviation:.0%}"]
        threads = str(comparison.threads)
        rows += [
            ("ms of a step with N images", threads, *batch),
            ("slope of log time over log multiply-adds, by width", threads, *width),
            ("slope of log time over log multiply-adds, by resolution", threads, *resolution),
        ]
    return Table("Fits, and the largest deviation from each", _columns(comparisons, "deviation"), tuple(rows))


def _columns(comparisons, second):
    return ("", "threads", *(name for label in comparisons[0].labels for name in (label, second)))
