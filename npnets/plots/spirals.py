"""Curves in the plane, and what is left of them after a detour: Figure 1 of MobileNetV2."""

import matplotlib
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Wedge

from npnets.plots.style import STYLE

# Its brightness grows steadily, so that the order can be seen in grey, too; its last tenth is nearly white.
ALONG = ListedColormap(matplotlib.colormaps["viridis"](np.linspace(0, 0.9, 256)))


SECTORS = {  # by how many coordinates are active there: colour, and what is left of the sector
    0: ("#8C8C8C", "none active: a point is left"),
    1: ("#D0D0D0", "one: a half-line is left"),
    2: ("#FFFFFF", "two or more: nothing is lost"),
}


def active_sectors(x, matrices, *, title=""):
    """Draw how a ReLU after a matrix cuts the plane into sectors, and how many coordinates are active in each.

    Coordinate j of ``ReLU(x T)`` is active on one side of a line through the origin, at right angles to column j of T.
    In a sector between such lines all points have the same active coordinates, so the map is linear there.

    Parameters
    ----------
    x : array (M, 2)
        The points of a curve in their order, drawn over it.
    matrices : dict heading -> array (2, n)
        A panel for each T.
    title : str

    Returns
    -------
    matplotlib.figure.Figure
        The number of active coordinates stands in each sector, and what it means in the legend. Arrows are the
        directions of the columns of T.
    """
    x = np.asarray(x)
    reach = 1.25 * np.hypot(*x.T).max()
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(2.9 * len(matrices), 3.5), layout="constrained")
        for ax, (heading, T) in zip(figure.subplots(1, len(matrices), squeeze=False)[0], matrices.items()):
            for start, end, count in _sectors(T):
                ax.add_patch(Wedge((0, 0), reach, start, end, facecolor=SECTORS[min(count, 2)][0], edgecolor="#555555"))
                if end - start > 5:  # degrees; there is no room for a number in a narrower one
                    place = 0.9 * reach * _direction(np.radians((start + end) / 2))
                    ax.text(*place, count, ha="center", va="center", fontsize=9)
            for column in np.asarray(T).T:
                tip = 0.45 * reach * column / max(np.hypot(*column), 1e-12)
                ax.annotate("", tip, (0, 0), arrowprops={"arrowstyle": "-|>", "color": "#D55E00", "linewidth": 1.5})
            ax.plot(*x.T, color="#0072B2", linewidth=1.2)
            ax.set(title=heading, xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xticks=[], yticks=[])
            ax.grid(visible=False)
            ax.spines[:].set_visible(False)
        entries = [Patch(facecolor=colour, edgecolor="#555555", label=label) for colour, label in SECTORS.values()]
        figure.legend(handles=entries, loc="outside lower center", ncols=len(entries), fontsize=8)
        figure.suptitle(title, fontsize=11)
    return figure


def _sectors(T):
    """Return (start, end, active coordinates) of the sectors, in degrees, against the clock."""
    angles = np.degrees(np.arctan2(*np.asarray(T)[::-1]))  # of the columns, (n,)
    borders = np.unique(np.round(np.concatenate([angles - 90, angles + 90]) % 360, 9))
    ends = np.append(borders[1:], borders[0] + 360)
    middles = _direction(np.radians((borders + ends) / 2)).T  # (sectors, 2)
    return list(zip(borders, ends, np.sum(middles @ T > 0, axis=1)))


def _direction(angle):
    return np.array([np.cos(angle), np.sin(angle)])


def recovered_curves(x, rows, *, title=""):
    """Draw the points of a curve, and beside them what came back, in several rows.

    Parameters
    ----------
    x : array (M, 2)
        The points in their order along the curve.
    rows : dict heading -> dict name -> array (M, 2)
        What came back of each point: a panel for each name, such as "n = 15".
    title : str

    Returns
    -------
    matplotlib.figure.Figure
        Each point keeps its colour, which tells its place along the curve. The panels have scales of their own, but the
        same along both axes.
    """
    columns = 1 + max(map(len, rows.values()))
    place = np.linspace(0, 1, len(x))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(1.7 * columns + 0.8, 1.75 * len(rows) + 0.4), layout="constrained")
        axes = figure.subplots(len(rows), columns, squeeze=False)
        for row, (heading, panels) in zip(axes, rows.items()):
            for ax in row[1 + len(panels) :]:
                ax.set_axis_off()
            for ax, (name, points) in zip(row, [("input", x), *panels.items()]):
                drawn = ax.scatter(*np.asarray(points).T, c=place, cmap=ALONG, s=4, linewidths=0)
                ax.set_title(name, fontsize=9)
                ax.set_aspect("equal", adjustable="datalim")
                ax.tick_params(labelsize=6)
                ax.locator_params(nbins=3)
            row[0].set_ylabel(heading)
        bar = figure.colorbar(drawn, ax=axes, label="place along the curve", shrink=0.8, pad=0.02, ticks=[0, 1])
        bar.ax.set_yticklabels(["start", "end"])
        figure.suptitle(title, fontsize=11)
    return figure
