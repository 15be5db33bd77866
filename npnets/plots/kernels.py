"""Kernels and matrices as pictures: mid-grey is zero, white positive, black negative."""

import matplotlib
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from npnets.plots.style import STYLE

GREYS = "gray"
UNUSED = "#DCE9F2"  # a pale blue, for entries that a matrix does not have


def kernel_tiles(rows, *, title="", label="weight", shared=True):
    """Draw small images or kernels as tiles, a row of them for each heading.

    Parameters
    ----------
    rows : dict heading -> sequence of arrays (H, W), or (H, W, 3) with colours from 0 to 1
        The headings stand to the left.
    title : str
    label : str
        What the grey means, beside its scale.
    shared : bool
        One scale for all rows, which is then shown; otherwise each tile has its own.

    Returns
    -------
    matplotlib.figure.Figure
        Grey scales are symmetric: mid-grey is zero. Images in colour are shown as they are.
    """
    rows = {heading: [np.asarray(tile) for tile in tiles] for heading, tiles in rows.items()}
    columns = max(map(len, rows.values()))
    grey = [tile for tiles in rows.values() for tile in tiles if tile.ndim == 2]
    largest = max((float(np.abs(tile).max()) for tile in grey), default=0.0)
    with matplotlib.rc_context(STYLE):
        size = min(1.1, 9.0 / columns)
        figure = Figure(figsize=(1.6 + size * columns + 0.9 * shared, size * len(rows) + 0.5), layout="constrained")
        axes = figure.subplots(len(rows), columns, squeeze=False)
        picture = None
        for row, (heading, tiles) in zip(axes, rows.items()):
            for ax in row[len(tiles) :]:
                ax.set_axis_off()
            for ax, tile in zip(row, tiles):
                limit = (largest if shared else float(np.abs(tile).max())) or 1.0
                shown = ax.imshow(tile, cmap=GREYS, vmin=-limit, vmax=limit, interpolation="nearest")
                picture = shown if tile.ndim == 2 else picture
                ax.set(xticks=[], yticks=[])
                ax.grid(visible=False)
                ax.spines[:].set_visible(True)
                ax.spines[:].set(color="#888888", linewidth=0.5)
            row[0].set_ylabel(heading, fontsize=9, rotation="horizontal", ha="right", va="center")
        if shared and picture is not None:
            figure.colorbar(picture, ax=axes, label=label, shrink=0.9, pad=0.02)
        figure.suptitle(title, fontsize=11)
    return figure


def matrix_equation(parts, *, title=""):
    """Draw matrices as pictures with signs between them, such as W = B P.

    Parameters
    ----------
    parts : sequence of (heading, matrix, names) or str
        A string is a sign. ``names`` are what the rows and the columns are. NaN marks entries that are zero by
        construction, and no parameters.
    title : str

    Returns
    -------
    matplotlib.figure.Figure
        All matrices on the same symmetric scale of greys, with cells of the same size.
    """
    matrices = [part[1] for part in parts if not isinstance(part, str)]
    largest = max(float(np.nanmax(np.abs(matrix))) for matrix in matrices) or 1.0
    before, after, between, above, below = 0.75, 0.15, 0.35, 0.5 + 0.3 * bool(title), 0.5  # inches
    cell = min(0.24, 6.0 / max(len(matrix) for matrix in matrices))
    lengths = [between if isinstance(part, str) else before + cell * part[1].shape[1] + after for part in parts]
    tallest = max(len(matrix) for matrix in matrices)
    width, height = sum(lengths), cell * tallest + above + below
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height))
        left = 0.0
        for part, length in zip(parts, lengths):
            if isinstance(part, str):
                middle = (height - above - cell * tallest / 2) / height
                figure.text((left + length / 2) / width, middle, part, ha="center", va="center", fontsize=16)
            else:
                heading, matrix, names = part
                H, W = matrix.shape
                bottom = height - above - cell * (tallest + H) / 2
                box = ((left + before) / width, bottom / height, cell * W / width, cell * H / height)
                _draw_matrix(figure.add_axes(box), heading, matrix, names, largest)
            left += length
        figure.suptitle(title, fontsize=11, y=1 - 0.12 / height, va="top")
    return figure


def _draw_matrix(ax, heading, matrix, names, largest):
    H, W = matrix.shape
    ax.imshow(np.isnan(matrix), cmap=ListedColormap(["white", UNUSED]), vmin=0, vmax=1)
    ax.imshow(matrix, cmap=GREYS, vmin=-largest, vmax=largest, interpolation="nearest")
    ax.set_xticks(np.arange(W + 1) - 0.5, minor=True)
    ax.set_yticks(np.arange(H + 1) - 0.5, minor=True)
    ax.grid(which="minor", color="#888888", linewidth=0.6)
    ax.grid(which="major", visible=False)
    ax.tick_params(which="both", length=0)
    ax.spines[:].set(visible=True, color="#888888", linewidth=0.8)
    ax.set_axisbelow(False)  # the lines between the cells lie on them
    ax.set(xticks=[], yticks=[])
    ax.set_title(heading, fontsize=10)
    ax.set_ylabel(names[0], fontsize=9)
    ax.set_xlabel(names[1], fontsize=9)
