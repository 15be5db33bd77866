"""Images, kernels and windows as grids of cells, small enough to count in.

Cells inside the image have a white ground, cells of the padding a hatched grey one. A window is filled with one colour;
a second window is told from it by its dashed outline, not by colour alone.
"""

import math

import matplotlib
import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from npnets import reference
from npnets.plots.style import STYLE, brightness
from npnets.shapes import geometry

WINDOW, NEXT_WINDOW, TARGET = "#56B4E9", "#D55E00", "#E69F00"  # sky blue, vermilion, orange
PADDING = "#E6E6E6"
NO_PADS = ((0, 0), (0, 0))
MINUS = "\N{MINUS SIGN}"


def number_grids(panels, *, title="", names=("row", "column")):
    """Draw arrays of numbers as grids, side by side; the larger a number is, the darker is its cell.

    Parameters
    ----------
    panels : dict heading -> array (H, W)
    title : str
    names : (str, str)
        What the two axes are.

    Returns
    -------
    matplotlib.figure.Figure
        The darkness is relative to the largest magnitude of all panels.
    """
    largest = max(float(np.abs(values).max()) for values in panels.values()) or 1.0
    with matplotlib.rc_context(STYLE):
        figure, axes = _panels([values.shape for values in panels.values()], title=title)
        for ax, (heading, values) in zip(axes, panels.items()):
            fill = {cell: _shade(abs(values[cell]) / largest) for cell in np.ndindex(values.shape)}
            _draw_cells(ax, values, fill=fill)
            _name(ax, heading, names)
    return figure


def convolution_step(x, w, at, *, stride=1, padding="same", dilation=1, title=""):
    """Draw how one number of a convolution comes about: the window, the kernel, and the sum of their products.

    Parameters
    ----------
    x : array (H, W)
        An image of one channel, F of MobileNetV1's section 3.1.
    w : array (K_h, K_w)
        K there.
    at : (int, int)
        Row k and column l of the output, counted from 0.
    stride, padding, dilation
        As in :func:`npnets.ops.conv2d_forward`.
    title : str

    Returns
    -------
    matplotlib.figure.Figure
        Three grids: F with the window filled, K, and G with the sum's place filled. Below them stands the sum.

    Raises
    ------
    ValueError
        If the output has no such place.
    """
    x, w = np.asarray(x), np.asarray(w)
    settings = {"stride": stride, "padding": padding, "dilation": dilation}
    geo = geometry(x.shape, w.shape, **settings, name="convolution_step")
    if not all(0 <= place < size for place, size in zip(at, geo.out)):
        raise ValueError(f"convolution_step: the output has {geo.out[0]}x{geo.out[1]} pixels, there is no {tuple(at)}")
    y = reference.conv2d(x[None, :, :, None], w[:, :, None, None], **settings)[0, :, :, 0]
    window = _window(geo, at)
    products = [(w[entry], x[pixel]) for entry, pixel in zip(np.ndindex(w.shape), window) if _inside(pixel, x.shape)]
    with matplotlib.rc_context(STYLE):
        figure, axes = _panels([x.shape, w.shape, y.shape], [geo.pads, NO_PADS, NO_PADS], title=title, below=0.3)
        _draw_cells(axes[0], x, geo.pads, fill=dict.fromkeys(window, WINDOW))
        _draw_cells(axes[1], w, fill=dict.fromkeys(np.ndindex(w.shape), WINDOW))
        _draw_cells(axes[2], y, fill={tuple(at): TARGET})
        for ax, name, indices in zip(axes, ("image F", "kernel K", "output G"), ("row column", "i j", "k l")):
            _name(ax, name, indices.split())
        total = f"G[{at[0]}, {at[1]}]  =  {_sum_of(products)}  =  {_plain(y[tuple(at)])}"
        figure.text(0.5, 0.06 / figure.get_figheight(), total, ha="center", va="bottom", fontsize=10)
    return figure


def window_grids(size, kernel, panels, *, at=(0, 0), title=""):
    """Draw where the windows of a convolution lie on an image, one panel for each way to set it.

    Parameters
    ----------
    size : (int, int)
        Of the image.
    kernel : int or (int, int)
    panels : dict heading -> dict of settings
        ``stride``, ``padding`` and ``dilation`` as in :func:`npnets.ops.conv2d_forward`. The size of the output is
        written below the heading.
    at : (int, int)
        Which output's window is filled.
    title : str

    Returns
    -------
    matplotlib.figure.Figure
        The cells that one window multiplies are filled; a dashed line surrounds its neighbour to the right. A dot
        stands in the middle of every window, so there are as many dots as outputs.
    """
    geos = {heading: geometry(size, kernel, **settings, name=heading) for heading, settings in panels.items()}
    with matplotlib.rc_context(STYLE):
        figure, axes = _panels([size] * len(geos), [geo.pads for geo in geos.values()], title=title)
        for ax, (heading, geo) in zip(axes, geos.items()):
            H_out, W_out = geo.out
            k, l = min(at[0], H_out - 1), min(at[1], W_out - 1)
            _draw_cells(ax, np.full(size, np.nan), geo.pads, fill=dict.fromkeys(_window(geo, (k, l)), WINDOW))
            if l + 1 < W_out:
                _outline(ax, _window(geo, (k, l + 1)))
            centres = [np.mean(_window(geo, place), axis=0) for place in np.ndindex(geo.out)]
            rows, columns = zip(*centres)
            ax.plot(columns, rows, "o", color="black", markersize=4, clip_on=False)
            _name(ax, f"{heading}\n{size[0]} x {size[1]} to {H_out} x {W_out}", ("row", "column"))
    return figure


def window_rows(size, kernel, panels, *, title=""):
    """Draw the windows of a convolution along one axis, below each other: a row of cells for each output.

    Parameters
    ----------
    size, kernel : int
        Along that axis.
    panels : dict heading -> dict of settings
        ``stride``, ``padding`` and ``dilation`` along that axis: padding may be a name, an int or (before, after).
    title : str

    Returns
    -------
    matplotlib.figure.Figure
        Column p of row k is filled where output k multiplies pixel p. Pixels of the padding are hatched; how many there
        are before and after is written below the heading.
    """
    geos = {}
    for heading, settings in panels.items():
        padding = settings.get("padding", "same")
        padding = padding if isinstance(padding, str | int) else (padding, padding)
        geos[heading] = geometry((size, size), kernel, **(settings | {"padding": padding}), name=heading)
    with matplotlib.rc_context(STYLE):
        pads = [(NO_PADS[0], geo.pads[1]) for geo in geos.values()]
        figure, axes = _panels([(geo.out[1], size) for geo in geos.values()], pads, title=title)
        for ax, (heading, geo) in zip(axes, geos.items()):
            (before, after), outputs = geo.pads[1], range(geo.out[1])
            fill = {(k, pixel): WINDOW for k in outputs for _, pixel in _window(geo, (0, k))}
            _draw_cells(ax, np.full((len(outputs), size), np.nan), (NO_PADS[0], geo.pads[1]), fill=fill)
            _name(ax, f"{heading}\npads {before} before, {after} after", ("output k", "pixel"))
    return figure


def window_matrix(x, kernel, *, stride=1, padding="valid", dilation=1, title=""):
    """Draw the windows of a small image, copied into the rows of a matrix (im2col).

    Parameters
    ----------
    x : array (H, W)
    kernel : int or (int, int)
    stride, padding, dilation
        As in :func:`npnets.ops.conv2d_forward`.
    title : str

    Returns
    -------
    matplotlib.figure.Figure
        Left the image, with the first window filled, right the matrix: a row for each output, a column for each kernel
        entry. Its first row is filled.
    """
    x = np.asarray(x)
    geo = geometry(x.shape, kernel, stride=stride, padding=padding, dilation=dilation, name="window_matrix")
    windows = [_window(geo, place) for place in np.ndindex(geo.out)]
    rows = np.array([[x[pixel] if _inside(pixel, x.shape) else 0 for pixel in window] for window in windows])
    with matplotlib.rc_context(STYLE):
        figure, axes = _panels([x.shape, rows.shape], [geo.pads, NO_PADS], title=title)
        _draw_cells(axes[0], x, geo.pads, fill=dict.fromkeys(windows[0], WINDOW))
        _draw_cells(axes[1], rows, fill={(0, column): WINDOW for column in range(rows.shape[1])})
        _name(axes[0], "image", ("row", "column"))
        _name(axes[1], "its windows as rows", ("output (k, l)", "kernel entry (i, j)"))
        axes[1].set_yticks(range(len(rows)), [f"{k}, {l}" for k, l in np.ndindex(geo.out)])
        axes[1].set_xticks(range(rows.shape[1]), [f"{i}, {j}" for i, j in np.ndindex(geo.kernel)])
    return figure


def _window(geo, place):
    """Return the pixels (row, col) that the window of an output meets, those of the padding included, in row order."""
    (top, _), (left, _) = geo.pads
    k, l = place
    return [
        (geo.stride[0] * k + geo.dilation[0] * i - top, geo.stride[1] * l + geo.dilation[1] * j - left)
        for i, j in np.ndindex(geo.kernel)
    ]


def _inside(pixel, size):
    return all(0 <= place < length for place, length in zip(pixel, size))


def _sum_of(products):
    """Return a sum of products as text, in lines of a few products each."""
    terms = [f"{_plain(a)}·" + (f"({_plain(b)})" if b < 0 else _plain(b)) for a, b in products]
    lines = [" + ".join(terms[k : k + 9]) for k in range(0, len(terms), 9)]
    return " +\n".join(lines).replace(f"+ {MINUS}", f"{MINUS} ") or "0"


def _plain(number):
    return f"{number:g}".replace("-", MINUS)


def _panels(shapes, pads=None, *, title="", below=0.0, cell=0.36, widest=12.0):
    """Return a figure with axes side by side, in which all cells have the same size, and these axes.

    Lengths are in inches; ``below`` is room below the axes.
    """
    pads = [NO_PADS] * len(shapes) if pads is None else pads
    heights = [H + sum(vertical) for (H, _), (vertical, _) in zip(shapes, pads)]
    widths = [W + sum(horizontal) for (_, W), (_, horizontal) in zip(shapes, pads)]
    before, after, above, under = 0.75, 0.15, 0.5 + 0.3 * bool(title), 0.5 + below  # room for names and numbers
    cell = min(cell, (widest - (before + after) * len(shapes)) / sum(widths))
    width, height = cell * sum(widths) + (before + after) * len(shapes), cell * max(heights) + above + under
    figure = Figure(figsize=(width, height))
    axes, left = [], 0.0
    for columns, rows in zip(widths, heights):
        box = left + before, height - above - cell * rows, cell * columns, cell * rows
        axes.append(figure.add_axes((box[0] / width, box[1] / height, box[2] / width, box[3] / height)))
        left += before + box[2] + after
    figure.suptitle(title, fontsize=11, y=1 - 0.12 / height, va="top")
    return figure, axes


def _draw_cells(ax, values, pads=NO_PADS, *, fill=None):
    """Draw an array (H, W) with padding around it; ``fill`` is (row, col) -> colour. What is NaN stays blank."""
    fill = fill or {}
    H, W = values.shape
    (top, bottom), (left, right) = pads
    for row in range(-top, H + bottom):
        for col in range(-left, W + right):
            inside = _inside((row, col), (H, W))
            ground = fill.get((row, col), "white" if inside else PADDING)
            look = {"edgecolor": "#333333", "linewidth": 0.9, "zorder": 2}
            if not inside:
                look = {"edgecolor": "#999999", "linewidth": 0.6, "zorder": 1, "hatch": "/////"}
            ax.add_patch(Rectangle((col - 0.5, row - 0.5), 1, 1, facecolor=ground, clip_on=False, **look))
            if inside and not math.isnan(values[row, col]):
                ink = "white" if brightness(ground) < 0.5 else "black"
                ax.text(col, row, _plain(values[row, col]), ha="center", va="center", fontsize=9, color=ink, zorder=3)
    ax.set(xlim=(-left - 0.5, W + right - 0.5), ylim=(H + bottom - 0.5, -top - 0.5))  # row 0 at the top
    ax.set_xticks(range(W), range(W))
    ax.set_yticks(range(H), range(H))
    ax.tick_params(length=0, labelsize=8)
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)


def _outline(ax, window):
    """Draw a dashed line around a window."""
    (top, left), (bottom, right) = np.min(window, axis=0) - 0.42, np.max(window, axis=0) + 0.42
    dashed = {"fill": False, "edgecolor": NEXT_WINDOW, "linestyle": (0, (3, 1.5)), "linewidth": 2, "zorder": 4}
    ax.add_patch(Rectangle((left, top), right - left, bottom - top, **dashed))


def _name(ax, heading, names):
    ax.set_title(heading, fontsize=10)
    upright = {"rotation": "horizontal", "labelpad": 8, "va": "center"} if len(names[0]) == 1 else {}
    ax.set_ylabel(names[0], fontsize=9, **upright)
    ax.set_xlabel(names[1], fontsize=9)


def _shade(share):
    """Return a blue that is the darker the larger the share is, white for 0."""
    dark = np.array(to_rgb("#0072B2"))
    return tuple(1 - 0.85 * float(share) * (1 - dark))
