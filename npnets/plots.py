"""Every figure that more than one notebook draws, in one style.

Colours are those of Okabe and Ito, which colour-blind readers can tell apart; the same thing has the same colour
everywhere (``COLOURS``). Figures are made without pyplot's global state, so that they can be made anywhere.
"""

import io

import matplotlib
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

COLOURS = {
    "train": "#0072B2",  # blue
    "test": "#D55E00",  # vermilion
    "grey": "#666666",
}

KINDS = {  # of layers: colour and marker. Neighbours differ in brightness too, so that they can be told apart in grey.
    "block in one op": ("#56B4E9", "P"),  # sky blue
    "pointwise": ("#0072B2", "o"),  # blue
    "depthwise": ("#E69F00", "^"),  # orange
    "batch norm": ("#009E73", "s"),  # green
    "linear": ("#CC79A7", "v"),  # purple
    "conv": ("#D55E00", "D"),  # vermilion
    "residual sum": ("#AAAAAA", "X"),
    "update": ("#444444", "*"),
    "other": ("#CCCCCC", "."),
}

STYLE = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "savefig.dpi": 150,
}


def training_curves(history, *, title=""):
    """Draw the loss and the error of a training over its epochs.

    Parameters
    ----------
    history : training.History
    title : str

    Returns
    -------
    matplotlib.figure.Figure
        Left the loss, right the share of wrong answers in percent, both on a logarithmic axis, since the last tenths
        are what differs. A training value is the mean over an epoch, while the weights change, and is drawn in the
        middle of the epoch; a test value is measured at its end.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 3.6), layout="constrained")
        left, right = figure.subplots(1, 2, sharex=True)
        if history.epochs:
            steps_per_epoch = history.epochs[0]["step"] / history.epochs[0]["epoch"]
            points = _thinned(history.losses, 300)
            left.plot(
                [step / steps_per_epoch for step, _ in points],
                [loss for _, loss in points],
                color=COLOURS["train"],
                alpha=0.4,
                linewidth=1,
                label="training, along the way",
            )
            errors = {part: _errors(history[f"{part}_accuracy"]) for part in ("train", "test")}
            _draw_epochs(left, history["epoch"], history["train_loss"], history["test_loss"])
            _draw_epochs(right, history["epoch"], errors["train"], errors["test"])
            if errors["test"]:
                last = (history["epoch"][-1], errors["test"][-1])
                text = f"{100 * (1 - history['test_accuracy'][-1]):.2f} %"
                right.annotate(text, last, textcoords="offset points", xytext=(0, 7), ha="center")
        for ax, label in ((left, "cross-entropy (nats)"), (right, "wrong answers (%)")):
            ax.set(xlabel="epoch", ylabel=label, yscale="log")
            ax.set_xlim(left=0)
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
            low, high = ax.get_ylim()
            few, many = (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)
            ax.yaxis.set_major_locator(LogLocator(subs=few if high > 10 * low else many))
            ax.yaxis.set_major_formatter("{x:g}")
            ax.yaxis.set_minor_formatter(NullFormatter())
            if history.epochs:
                ax.legend()
            else:
                ax.text(0.5, 0.5, "no epoch yet", ha="center", transform=ax.transAxes)
        figure.suptitle(title, fontsize=11)
    return figure


def _draw_epochs(ax, epochs, train, test):
    middle = [epoch - 0.5 for epoch in epochs]
    ax.plot(middle, train, "o-", markersize=4, color=COLOURS["train"], label="training, mean over the epoch")
    if test and test[0] is not None:
        ax.plot(epochs, test, "s-", markersize=4, color=COLOURS["test"], label="test")


def _errors(accuracies):
    """Return errors in percent for a logarithmic axis: where there is none, half of the smallest other one."""
    if not accuracies or accuracies[0] is None:
        return []
    errors = [100 * (1 - accuracy) for accuracy in accuracies]
    smallest = min((error for error in errors if error > 0), default=0.02)
    return [max(error, smallest / 2) for error in errors]


def _thinned(entries, most):
    """Average neighbouring [step, loss] entries so that at most so many are left."""
    size = -(-len(entries) // most) if entries else 1
    groups = [entries[k : k + size] for k in range(0, len(entries), size)]
    return [(group[-1][0], sum(loss for _, loss in group) / len(group)) for group in groups]


def step_times(profile, *, by="layer", sort=None, title=""):
    """Draw the time of each layer, block or kind of layer as a horizontal bar.

    Parameters
    ----------
    profile : profiling.StepProfile
    by, sort
        As for its ``by``.
    title : str

    Returns
    -------
    matplotlib.figure.Figure
        The colour is that of the kind. The bar of a block is cut into its kinds; in the others, the forward is full
        and the backward hatched.
    """
    members = profile.groups(by)
    rows = [row for row in profile.by(by, sort) if row.seconds > 0]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 1.5 + 0.2 * len(rows)), layout="constrained")
        ax = figure.subplots()
        for y, row in enumerate(rows):
            left = 0.0
            for width, kind, hatch in _by_kind(members[row.name]) if by == "block" else _by_way(row):
                colour, _ = _kind_style(kind)
                ax.barh(y, width, left=left, color=colour, edgecolor="white", hatch=hatch, linewidth=0.4)
                left += width
        ax.set_yticks(range(len(rows)), [row.name for row in rows])
        longest = max(1e3 * row.seconds for row in rows)
        ax.set(xlabel="time (ms)", xlim=(0, 1.03 * longest), ylim=(len(rows) - 0.3, -0.7))  # the first at the top
        ax.grid(axis="y", visible=False)
        used = {_joined(row.kind) for row in profile.rows} if by != "kind" else set()
        patches = [Patch(facecolor=KINDS[kind][0], label=kind) for kind in KINDS if kind in used]
        if by != "block" and not profile.inference:
            patches.append(Patch(facecolor=COLOURS["grey"], label="forward"))
            patches.append(Patch(facecolor=COLOURS["grey"], edgecolor="white", hatch="////", label="backward"))
        if patches:
            figure.legend(handles=patches, loc="outside lower center", ncols=min(len(patches), 5))
        figure.suptitle(title, fontsize=11)
    return figure


def _by_way(row):
    """Return the parts of a bar (ms, kind, hatch): forward, what is neither, backward."""
    seconds = ((row.forward.seconds, ""), (row.other, ""), (row.backward.seconds, "////"))
    return [(1e3 * part, row.kind, hatch) for part, hatch in seconds]


def _by_kind(rows):
    """Return the parts of a bar (ms, kind, hatch): one for each kind of layer."""
    times = dict.fromkeys(KINDS, 0.0)
    for row in rows:
        times[_joined(row.kind)] += 1e3 * row.seconds
    return [(ms, kind, "") for kind, ms in times.items()]


def step_shares(profile):
    """Draw what share of a step's time, multiply-adds and parameters each kind of layer has, for a StepProfile."""
    group = {}
    for k, measure in enumerate(("time", "multiply-adds", "parameters")):
        group[measure] = {kind: shares[k] for kind, shares in profile.shares().items()}
    return shares_by_kind({profile.heading(): group})


def shares_by_kind(groups, *, title=""):
    """Draw how something is shared out among the kinds of layers: a bar for each whole, cut into its parts.

    Parameters
    ----------
    groups : dict heading -> dict label -> dict kind -> share
        The bars of a heading stand together. What is below 1 % in every bar is joined to "other".
    title : str

    Returns
    -------
    matplotlib.figure.Figure
    """
    bars = [shares for group in groups.values() for shares in group.values()]
    kinds = [kind for kind in KINDS if max(shares.get(kind, 0) for shares in bars) >= 0.01 or kind == "other"]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 0.9 + sum(0.55 + 0.3 * len(group) for group in groups.values())))
        figure.set_layout_engine("constrained")
        heights = [1.5 + len(group) for group in groups.values()]
        axes = figure.subplots(len(groups), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
        for ax, (heading, group) in zip(axes, groups.items()):
            for y, shares in enumerate(group.values()):
                _draw_shares(ax, y, {kind: shares.get(kind, 0) for kind in kinds[:-1]}, sum(shares.values()))
            ax.set_title(heading, loc="left", fontsize=10)
            ax.set_yticks(range(len(group)), list(group))
            ax.set(xlim=(0, 100), ylim=(len(group) - 0.5, -0.5))
            ax.grid(visible=False)
            ax.tick_params(length=0)
            ax.spines[:].set_visible(False)
        axes[-1].set_xlabel("share (%)")
        patches = [Patch(facecolor=KINDS[kind][0], label=kind) for kind in kinds]
        figure.legend(handles=patches, loc="outside lower center", ncols=min(len(kinds), 5))
        figure.suptitle(title, fontsize=11)
    return figure


def roofline(panels, *, title=""):
    """Draw layers below the machine's roofs: arithmetic rate over intensity, both axes logarithmic.

    Parameters
    ----------
    panels : dict heading -> (roofs, points)
        Roofs with ``gemm`` (FLOP a second), ``l2`` and ``memory`` (bytes a second); points with ``kind``, ``way``,
        ``intensity`` (FLOP a byte) and ``flop_rate``: see :mod:`npnets.benchmarks.roofline`.
    title : str

    Returns
    -------
    matplotlib.figure.Figure
        A marker for each layer, in colour and shape of its kind: full for the forward, hollow for the backward.
    """
    everything = [point for _, points in panels.values() for point in points]
    low, high = 0.6 * min(p.intensity for p in everything), 2 * max(p.intensity for p in everything)
    floor = 0.5e-9 * min(p.flop_rate for p in everything)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5 * max(len(panels), 2), 5.2), layout="constrained")
        axes = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
        for ax, (heading, (roofs, points)) in zip(axes, panels.items()):
            ax.set(xscale="log", yscale="log", xlim=(low, high), xlabel="intensity (FLOP/byte)")
            ax.set_title(heading, fontsize=10)
            ax.set_aspect("equal")  # a decade is as long on both axes, so that slopes are diagonals
            ax.set_ylim(floor, 2.2e-9 * max(roofs.gemm for roofs, _ in panels.values()))
            for point in points:
                colour, marker = _kind_style(point.kind)
                face = colour if point.way == "forward" else "none"
                ax.plot(point.intensity, point.flop_rate / 1e9, marker, color=colour, markerfacecolor=face)
            _draw_roofs(ax, roofs, low, high)
            for axis in (ax.xaxis, ax.yaxis):
                axis.set_major_formatter("{x:g}")
                axis.set_minor_formatter(NullFormatter())
        axes[0].set_ylabel("GFLOP/s")
        used = [kind for kind in KINDS if kind in {_joined(point.kind) for point in everything}]
        marks = [Line2D([], [], linestyle="", color=KINDS[k][0], marker=KINDS[k][1], label=k) for k in used]
        hollow = {"linestyle": "", "marker": "o", "color": COLOURS["grey"]}
        marks += [Line2D([], [], label="forward", **hollow)]
        marks += [Line2D([], [], label="backward", markerfacecolor="none", **hollow)]
        figure.legend(handles=marks, loc="outside lower center", ncols=-(-len(marks) // 2))
        figure.suptitle(title, fontsize=11)
    return figure


def _draw_roofs(ax, roofs, low, high):
    """Draw the flat roof of arithmetic and the slopes of L2 and of memory, and write their rates beside them."""
    grey, top = COLOURS["grey"], roofs.gemm / 1e9
    ax.plot([roofs.gemm / roofs.l2, high], [top, top], color=grey, linewidth=1.2)
    ax.text(0.9 * high, 1.1 * top, f"matrix product {top:.0f} GFLOP/s", ha="right", fontsize=9)
    for rate, name, dashes in ((roofs.l2, "L2", "--"), (roofs.memory, "memory", "-")):
        ridge = roofs.gemm / rate
        ax.plot([low, ridge], [low * rate / 1e9, top], dashes, color=grey, linewidth=1.2)
        place = {"rotation": 45, "rotation_mode": "anchor", "fontsize": 9}
        ax.text(1.2 * low, 1.4 * low * rate / 1e9, f"copy in {name} {rate / 1e9:.0f} GB/s", **place)


def _draw_shares(ax, y, parts, total):
    """Draw one bar, the rest up to ``total`` as "other", and write into each part its percents, where there is room."""
    left = 0.0
    for kind, share in (parts | {"other": total - sum(parts.values())}).items():
        colour, _ = _kind_style(kind)
        ax.barh(y, 100 * share, left=left, height=0.8, color=colour, edgecolor="white", linewidth=1)
        if share >= 0.04:
            ink = "white" if _brightness(colour) < 0.5 else "black"
            ax.text(left + 50 * share, y, f"{100 * share:.0f}", ha="center", va="center", color=ink, fontsize=9)
        left += 100 * share


def _joined(kind):
    """Return the kind under which a layer is drawn: its own, or "other"."""
    return kind if kind in KINDS else "other"


def _kind_style(kind):
    """Return colour and marker of a kind of layer."""
    return KINDS[_joined(kind)]


def _brightness(colour):
    red, green, blue = to_rgb(colour)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def png(figure):
    """Return a figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format="png")
    return buffer.getvalue()
