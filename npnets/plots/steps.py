"""Where the time of a training step goes."""

import matplotlib
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import NullFormatter

from npnets.plots.style import COLOURS, KINDS, STYLE, brightness, joined, kind_style


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
                colour, _ = kind_style(kind)
                ax.barh(y, width, left=left, color=colour, edgecolor="white", hatch=hatch, linewidth=0.4)
                left += width
        ax.set_yticks(range(len(rows)), [row.name for row in rows])
        longest = max(1e3 * row.seconds for row in rows)
        ax.set(xlabel="time (ms)", xlim=(0, 1.03 * longest), ylim=(len(rows) - 0.3, -0.7))  # the first at the top
        ax.grid(axis="y", visible=False)
        used = {joined(row.kind) for row in profile.rows} if by != "kind" else set()
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
        times[joined(row.kind)] += 1e3 * row.seconds
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
                colour, marker = kind_style(point.kind)
                face = colour if point.way == "forward" else "none"
                ax.plot(point.intensity, point.flop_rate / 1e9, marker, color=colour, markerfacecolor=face)
            _draw_roofs(ax, roofs, low, high)
            for axis in (ax.xaxis, ax.yaxis):
                axis.set_major_formatter("{x:g}")
                axis.set_minor_formatter(NullFormatter())
        axes[0].set_ylabel("GFLOP/s")
        used = [kind for kind in KINDS if kind in {joined(point.kind) for point in everything}]
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
        colour, _ = kind_style(kind)
        ax.barh(y, 100 * share, left=left, height=0.8, color=colour, edgecolor="white", linewidth=1)
        if share >= 0.04:
            ink = "white" if brightness(colour) < 0.5 else "black"
            ax.text(left + 50 * share, y, f"{100 * share:.0f}", ha="center", va="center", color=ink, fontsize=9)
        left += 100 * share
