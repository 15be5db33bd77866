"""What networks cost: layer by layer, and beside their accuracy."""

import matplotlib
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from npnets.plots.style import FAMILIES, KINDS, STYLE, joined, kind_style


def layer_costs(profile, *, title="", macs_limit=None, params_limit=None):
    """Draw the multiply-adds and the parameters of each layer, in forward order.

    Parameters
    ----------
    profile : cost.Profile
    title : str
    macs_limit, params_limit : float, optional
        Upper ends of the two axes, so that several figures can be compared.

    Returns
    -------
    matplotlib.figure.Figure
        A bar for each layer that multiplies, in the colour of its kind. Batch norm, which has few parameters and no
        multiply-adds, is left out of the bars; the totals in the panels' titles are of everything.
    """
    rows = [row for row in profile.rows if row.macs]
    numbers = range(len(rows))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 5), layout="constrained")
        top, bottom = figure.subplots(2, 1, sharex=True)
        colours = [kind_style(row.kind)[0] for row in rows]
        top.bar(numbers, [row.macs / 1e6 for row in rows], color=colours, width=0.85)
        bottom.bar(numbers, [row.params / 1e3 for row in rows], color=colours, width=0.85)
        top.set_ylabel("multiply-adds (millions)")
        bottom.set_ylabel("parameters (thousands)")
        top.set_ylim(0, macs_limit and macs_limit / 1e6)
        bottom.set_ylim(0, params_limit and params_limit / 1e3)
        for ax, text in ((top, f"{profile.macs:,} multiply-adds"), (bottom, f"{profile.params:,} parameters")):
            ax.set_title(text, loc="right", fontsize=10)
            ax.grid(axis="x", visible=False)
        starts = _first_layers(rows)
        bottom.set_xticks(list(starts.values()), list(starts), rotation=90, fontsize=8)
        used = {joined(row.kind) for row in rows}
        patches = [Patch(facecolor=KINDS[kind][0], label=kind) for kind in KINDS if kind in used]
        figure.legend(handles=patches, loc="outside lower center", ncols=len(patches))
        figure.suptitle(title, fontsize=11)
    return figure


def _first_layers(rows, most=40):
    """Return name -> number of the first layer, for each block; for every other one where there are too many."""
    starts = {}
    for number, row in enumerate(rows):
        block, _, _ = row.name.rpartition(".")
        starts.setdefault(block or row.name, number)
    step = -(-len(starts) // most)
    return dict(list(starts.items())[::step])


def accuracy_over_cost(series, *, measure="top-1 accuracy (%)", title=""):
    """Draw accuracy over multiply-adds and over parameters, both on logarithmic axes, as the papers' figures do.

    Parameters
    ----------
    series : list of (family, points)
        The family is one of ``FAMILIES``. Points are (label, accuracy, parameters, multiply-adds) and are joined by a
        line, but those of the family "quoted"; what is None is not drawn. An empty label is not written.
    measure : str
        What the accuracy is.
    title : str

    Returns
    -------
    matplotlib.figure.Figure
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 4.4), layout="constrained")
        axes = figure.subplots(1, 2, sharey=True)
        labels = {ax: [] for ax in axes}
        for ax, column, unit, name in zip(
            axes, (3, 2), (1e9, 1e6), ("multiply-adds (billions)", "parameters (millions)")
        ):
            for family, points in series:
                colour, marker = FAMILIES[family]
                drawn = [point for point in points if point[column] is not None]
                x, y = [point[column] / unit for point in drawn], [point[1] for point in drawn]
                line = "none" if family == "quoted" else "-"
                ax.plot(x, y, linestyle=line, marker=marker, color=colour, markersize=5, linewidth=1)
                labels[ax] += [(point[0], where, colour) for point, where in zip(drawn, zip(x, y)) if point[0]]
            ax.set(xscale="log", xlabel=name)
            ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            ax.xaxis.set_major_formatter("{x:g}")
            ax.xaxis.set_minor_formatter(NullFormatter())
            ax.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes[0].set_ylabel(measure)
        figure.legend(handles=_legend({family for family, _ in series}), loc="outside lower center", ncols=6)
        figure.suptitle(title, fontsize=11)
        figure.draw_without_rendering()  # so that the axes have their final size
        for ax in axes:
            _write_apart(ax, labels[ax])
    return figure


def pareto_fronts(panels, fronts, *, title=""):
    """Draw accuracy over multiply-adds of several networks, and the front of those that no other one beats.

    Parameters
    ----------
    panels : dict heading -> dict family -> list of lines
        The family is one of ``FAMILIES``. A line is a list of (millions of multiply-adds, accuracy in percent), for
        example the resolutions of one width; its points are joined.
    fronts : dict heading -> list of (millions of multiply-adds, accuracy in percent)
        By rising cost, from :func:`npnets.experiments.width_resolution.pareto_front`.
    title : str

    Returns
    -------
    matplotlib.figure.Figure
        A panel for each heading. The front is a grey staircase: the best accuracy for at most so many multiply-adds.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(1 + 4.5 * len(panels), 4.4), layout="constrained")
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for ax, (heading, families) in zip(axes, panels.items()):
            front = sorted(fronts[heading])
            right = max(x for lines in families.values() for line in lines for x, _ in line)
            steps = [*front, (right, front[-1][1])]
            ax.step(*zip(*steps), where="post", color="#BBBBBB", linewidth=5, solid_capstyle="round", label="front")
            for family, lines in families.items():
                colour, marker = FAMILIES[family]
                for k, line in enumerate(lines):
                    label = family if k == 0 else None
                    ax.plot(*zip(*sorted(line)), marker=marker, color=colour, markersize=5, linewidth=0.8, label=label)
            ax.set(xscale="log", xlabel="multiply-adds (millions)", ylabel="accuracy (%)", title=heading)
            ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            ax.xaxis.set_major_formatter("{x:g}")
            ax.xaxis.set_minor_formatter(NullFormatter())
            ax.legend(loc="lower right")
        figure.suptitle(title, fontsize=11)
    return figure


def _write_apart(ax, labels, size=7):
    """Write each label beside its point, on the first side where it covers no marker and no other label."""
    width, height = 0.62 * size, 1.2 * size  # of a character, in points
    to_points = 72 / ax.figure.dpi
    places = [place for line in ax.get_lines() for place in zip(line.get_xdata(), line.get_ydata())]
    taken = [(x - 2, y - 2, x + 2, y + 2) for x, y in (ax.transData.transform(place) * to_points for place in places)]
    for text, where, colour in labels:
        x, y = ax.transData.transform(where) * to_points
        left = -5 - width * len(text)
        sides = ((5, -9), (5, 3), (left, 3), (left, -9), (5, -18), (5, 12), (left, 12), (left, -18))
        boxes = [(x + dx, y + dy, x + dx + width * len(text), y + dy + height) for dx, dy in sides]
        free = [k for k, box in enumerate(boxes) if not any(_overlap(box, other) for other in taken)]
        side = free[0] if free else 0
        taken.append(boxes[side])
        ax.annotate(text, where, textcoords="offset points", xytext=sides[side], fontsize=size, color=colour)


def _overlap(a, b):
    """Tell whether two boxes (left, bottom, right, top) have anything in common."""
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _legend(families):
    marks = {family: style for family, style in FAMILIES.items() if family in families}
    return [
        Line2D([], [], color=colour, marker=marker, linestyle="" if family == "quoted" else "-", label=family)
        for family, (colour, marker) in marks.items()
    ]
