"""Curves in the plane, and what is left of them after a detour: Figure 1 of MobileNetV2."""

import matplotlib
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from npnets.plots.style import STYLE

# Its brightness grows steadily, so that the order can be seen in grey, too; its last tenth is nearly white.
ALONG = ListedColormap(matplotlib.colormaps["viridis"](np.linspace(0, 0.9, 256)))


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
