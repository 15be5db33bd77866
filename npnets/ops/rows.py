"""Images as long rows, and vectors of C channels repeated along them.

What batch norm and a bias do to a channel, they do to every pixel of it. Written as ``x * scale`` with C channels, the
inner loop is C numbers long, and NumPy spends its time between the loops. So images are viewed as rows of many pixels.
"""

import math

import numpy as np

LONG_ROW = 6144
"""Numbers in a row that is long enough: what NumPy does between two rows takes no noticeable part of the time."""


def rows_of(x):
    """View x as rows of whole lines of pixels: (N, H, W, C) -> (N H / k, k W C), with enough lines for a long row.

    k divides H: a row never reaches into the next image. For (N, C) a row is a sample. As with ``reshape``, the rows of
    an array that is not contiguous are a copy.
    """
    length = x.shape[-1] * (x.shape[-2] if x.ndim > 2 else 1)
    H = x.shape[-3] if x.ndim > 3 else 1
    lines = next((k for k in range(1, H) if H % k == 0 and k * length >= LONG_ROW), H)
    return x.reshape(-1, lines * length)


def along_row(vector, rows):
    """Repeat a vector of C channels along a row (R, k W C)."""
    return repeated(vector, rows.shape[-1] // len(vector))


def repeated(vector, times):
    """Return ``np.tile(vector, times)``, which has more to do for a vector than to copy it."""
    return vector[np.newaxis].repeat(times, axis=0).reshape(-1)


def channel_sums(rows, C):
    """Add up the pixels of rows: (..., k W C) -> (..., C). In two steps: long chains of float32 sums lose digits."""
    pixels = rows.shape[-1] // C
    step = next(n for n in range(math.isqrt(pixels), 0, -1) if pixels % n == 0)
    return rows.reshape(*rows.shape[:-1], step, -1, C).sum(axis=-3).sum(axis=-2)
