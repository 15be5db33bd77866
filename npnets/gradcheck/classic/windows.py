"""Where a sliding window meets the image, for gradients written as a sum over the kernel's entries.

Image and windows are laid out on a *canvas* that is large enough for any padding, a wrong one too; the part of the
canvas under the image is cut out at the end.
"""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from npnets.shapes import Geometry


class Axis(NamedTuple):
    """One axis of the canvas: where the image lies, and which cells each kernel entry meets, one for each output."""

    length: int
    image: slice
    taps: list[slice]


def canvas_axes(size, geo: Geometry) -> list[Axis]:
    """Lay out height and width for an image of ``size``."""
    axes = []
    for n, kernel, stride, dilation, (before, _), out in zip(size, *geo):
        start = max(before, 0)
        first = start - before
        reach = (out - 1) * stride + 1
        taps = [slice(first + i * dilation, first + i * dilation + reach, stride) for i in range(kernel)]
        axes.append(Axis(max(start + n, taps[-1].stop), slice(start, start + n), taps))
    return axes


def taps(size, geo: Geometry) -> Iterator[tuple[tuple[int, int], tuple[slice, slice]]]:
    """Yield each kernel entry ``(i, j)`` with the rows and columns of the canvas that it meets."""
    rows, columns = canvas_axes(size, geo)
    for (i, row), (j, column) in itertools.product(enumerate(rows.taps), enumerate(columns.taps)):
        yield (i, j), (row, column)


def on_canvas(x, geo: Geometry, fill=0.0) -> np.ndarray:
    """Return x (N, H, W, C) on its canvas, surrounded by ``fill``."""
    rows, columns = canvas_axes(x.shape[1:3], geo)
    canvas = np.full((len(x), rows.length, columns.length, x.shape[-1]), fill, x.dtype)
    canvas[:, rows.image, columns.image] = x
    return canvas


def windows(x, geo: Geometry, fill=0.0) -> np.ndarray:
    """Return what every kernel entry meets: (N, H, W, C) -> (K_h, K_w, N, H_out, W_out, C)."""
    canvas = on_canvas(x, geo, fill)
    met = [canvas[:, row, column] for _, (row, column) in taps(x.shape[1:3], geo)]
    return np.stack(met).reshape(*geo.kernel, *met[0].shape)


def add_back(parts, size, geo: Geometry) -> np.ndarray:
    """Add to every pixel what the kernel entries that met it hand back: the transpose of :func:`windows`."""
    canvas = np.zeros(_canvas_shape(parts, size, geo))
    for tap, (row, column) in taps(size, geo):
        canvas[:, row, column] += parts[tap]
    return cut_out(canvas, size, geo)


def overwrite(parts, size, geo: Geometry, *, window_by_window: bool) -> np.ndarray:
    """As :func:`add_back` with ``=`` in place of ``+=``: the last to come wins.

    The loop runs over the outputs, writing whole windows, or over the kernel's entries.
    """
    canvas = np.zeros(_canvas_shape(parts, size, geo))
    if window_by_window:
        for k, l in np.ndindex(*geo.out):
            for tap, (row, column) in taps(size, geo):
                here = row.start + k * geo.stride[0], column.start + l * geo.stride[1]
                canvas[:, here[0], here[1]] = parts[tap][:, k, l]
    else:
        for tap, (row, column) in taps(size, geo):
            canvas[:, row, column] = parts[tap]
    return cut_out(canvas, size, geo)


def cut_out(canvas, size, geo: Geometry) -> np.ndarray:
    """Return the part of the canvas under the image."""
    rows, columns = canvas_axes(size, geo)
    return canvas[:, rows.image, columns.image]


def shifted(geo: Geometry, down: int, right: int) -> Geometry:
    """Return the geometry with that many pixels more padding at the top and on the left."""
    (top, bottom), (left, right_side) = geo.pads
    return geo._replace(pads=((top + down, bottom), (left + right, right_side)))


ONE_PIXEL_OFF = ((1, 1), (-1, -1), (1, 0), (-1, 0), (0, 1), (0, -1))
"""The ways to be off by one: (down, right)."""


def _canvas_shape(parts, size, geo):
    rows, columns = canvas_axes(size, geo)
    return parts.shape[2], rows.length, columns.length, parts.shape[-1]
