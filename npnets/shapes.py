"""Integers only: padding, output sizes, channel rounding. And the checks of settings that many files share.

Every layer's geometry is decided here, once, so that the fast operations, the loops of ``reference.py`` and the cost
tables cannot disagree about a size.

A *pair* is ``(along the height, along the width)``. Padding is written ``((top, bottom), (left, right))``.
"""

import math
import numbers
import operator
from typing import NamedTuple

import numpy as np

Pair = tuple[int, int]
Pads = tuple[Pair, Pair]

LARGEST_MULTIPLIER = 1000
"""No network is a thousand times as wide or as deep as that of its paper, and no array could hold it."""


class Geometry(NamedTuple):
    """Everything about a 2-D window that slides over an image, resolved to integers."""

    kernel: Pair
    stride: Pair
    dilation: Pair
    pads: Pads
    out: Pair


def integer(value, name: str, at_least: int) -> int:
    """Return ``value`` as an ``int``, or raise a ``ValueError`` that names it."""
    try:
        found = operator.index(value)
    except TypeError:
        found = None
    if found is None or isinstance(value, bool):
        raise ValueError(f"{name} must be an integer, got {value!r}")
    if found < at_least:
        raise ValueError(f"{name} must be at least {at_least}, got {found}")
    return found


def number(value, name: str, *, at_least=-math.inf, above=-math.inf, below=math.inf, at_most=math.inf) -> float:
    """Return ``value`` as a ``float``, or raise a ``ValueError`` unless it is a finite number within the bounds."""
    if not _is_finite(value):
        raise ValueError(f"{name} must be a finite number, got {value!r}")
    if not (at_least <= value <= at_most and above < value < below):
        bounds = {"at least": at_least, "above": above, "below": below, "at most": at_most}
        expected = " and ".join(f"{words} {bound}" for words, bound in bounds.items() if math.isfinite(bound))
        raise ValueError(f"{name} must be {expected}, got {value}")
    return float(value)


def _is_finite(value):
    try:
        return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer that no float can hold
        return False


def multiplier(value, name: str) -> float:
    """Return ``value`` as a ``float``, or raise a ``ValueError`` unless it is above 0 and not absurdly large."""
    if not _is_finite(value) or value <= 0:
        raise ValueError(f"{name} must be a finite number above 0, got {value!r}")
    return number(value, name, at_most=LARGEST_MULTIPLIER)


def boolean(value, name: str) -> bool:
    """Return ``value`` as a ``bool``, or raise a ``ValueError``: any word would count as True, ``"off"`` too."""
    if not isinstance(value, (bool, type(np.True_))):
        raise ValueError(f"{name} must be True or False, got {value!r}")
    return bool(value)


def choice(value, name: str, known):
    """Return ``value``, or raise a ``ValueError`` unless it is one of the known words."""
    if not isinstance(value, str) or value not in tuple(known):
        *others, last = (f'"{word}"' for word in known)
        raise ValueError(f"{name} must be {', '.join(others)} or {last}, got {value!r}")
    return value


def floating(dtype, name: str = "dtype") -> np.dtype:
    """Return the NumPy dtype, or raise a ``ValueError`` unless it is float32 or float64: no layer computes in others.

    >>> floating("float64"), floating(np.float32)
    (dtype('float64'), dtype('float32'))
    """
    try:
        found = None if dtype is None else np.dtype(dtype)  # None would be float64
    except (TypeError, ValueError, SyntaxError):
        found = None
    if found is None or found not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise ValueError(f"{name} must be float32 or float64, got {dtype!r}")
    return found


def sequence(values, name: str, of: str) -> list:
    """Return the list of ``values``, or raise a ``ValueError``: a single number has none, a word only its letters."""
    try:
        return list(None if isinstance(values, str) else values)
    except TypeError:
        raise ValueError(f"{name} must be a list of {of}, got {values!r}") from None


def integers(values, name: str, at_least: int = 1) -> tuple[int, ...]:
    """Return the tuple of several integers, or raise a ``ValueError`` that names them."""
    return tuple(integer(value, name, at_least) for value in sequence(values, name, "integers"))


def checked_rows(table, columns: str) -> list[tuple]:
    """Return the rows of a network's table as tuples, or raise a ``ValueError`` unless they have these columns."""
    rows = sequence(table, "table", f"rows ({columns})")
    if not rows:
        raise ValueError(f"table must have at least one row ({columns})")
    for row in rows:
        if not isinstance(row, (tuple, list)) or len(row) != len(columns.split(", ")):
            raise ValueError(f"table: every row must be ({columns}), got {row!r}")
    return [tuple(row) for row in rows]


def table_rows(table, columns: str) -> list[tuple]:
    """Return the rows of a network's table as tuples of positive integers.

    >>> table_rows([(6, 24, 2, 2)], "t, c, n, s")
    [(6, 24, 2, 2)]

    Raises
    ------
    ValueError
        If there is no row, one has more or fewer columns, or a number in it is not a positive integer.
    """
    names = columns.split(", ")
    return [
        tuple(integer(n, f"table: {name}", 1) for n, name in zip(row, names)) for row in checked_rows(table, columns)
    ]


def pair(value, name: str, at_least: int = 1) -> Pair:
    """Return an int or a pair of ints as a pair: ``pair(2, "stride")`` is ``(2, 2)``."""
    if isinstance(value, (tuple, list)):
        if len(value) != 2:
            raise ValueError(f"{name} must be an integer or a pair (along the height, along the width), got {value!r}")
        return integer(value[0], name, at_least), integer(value[1], name, at_least)
    number = integer(value, name, at_least)
    return number, number


def span(kernel: int, dilation: int) -> int:
    """Return how many pixels a dilated kernel covers: ``(K - 1) * dilation + 1``."""
    return (kernel - 1) * dilation + 1


def same_padding(size: int, kernel: int, stride: int, dilation: int = 1) -> Pair:
    """Return TensorFlow's SAME padding ``(before, after)`` along one axis.

    The output has ``ceil(size / stride)`` pixels, and where the padding is odd the extra pixel goes *after*:

    >>> same_padding(224, kernel=3, stride=2)
    (0, 1)
    >>> same_padding(224, kernel=5, stride=2)
    (1, 2)
    """
    out = -(-size // stride)
    total = max((out - 1) * stride + span(kernel, dilation) - size, 0)
    return total // 2, total - total // 2


def output_size(size: int, kernel: int, stride: int, pads: Pair = (0, 0), dilation: int = 1) -> int:
    """Return ``floor((size + before + after - span) / stride) + 1``, the number of places a window fits.

    A remainder is dropped: the last pixels of an image need not be reached by any window.

    >>> output_size(224, kernel=3, stride=2, pads=(1, 1))
    112
    """
    return (size + sum(pads) - span(kernel, dilation)) // stride + 1


def resolve_padding(padding, size: Pair, kernel: Pair, stride: Pair, dilation: Pair, name: str = "padding") -> Pads:
    """Return ``((top, bottom), (left, right))`` for any of the four ways to write padding.

    ``"same"`` (TensorFlow's), ``"symmetric"`` (``span // 2`` on every side, as weights trained in PyTorch expect),
    ``"valid"`` (none), an int (on every side), or the pairs themselves.
    """
    if isinstance(padding, str):
        if padding == "same":
            return tuple(same_padding(*axis) for axis in zip(size, kernel, stride, dilation))
        if padding == "symmetric":
            return tuple((span(k, d) // 2,) * 2 for k, d in zip(kernel, dilation))
        if padding == "valid":
            return (0, 0), (0, 0)
    elif isinstance(padding, (tuple, list)):
        if len(padding) == 2 and all(isinstance(side, (tuple, list)) and len(side) == 2 for side in padding):
            return tuple(tuple(integer(n, name, 0) for n in side) for side in padding)
    else:
        return (((integer(padding, name, 0),) * 2),) * 2
    raise ValueError(
        f'{name} must be "same", "symmetric", "valid", an integer, or ((top, bottom), (left, right)), got {padding!r}'
    )


def geometry(size: Pair, kernel: Pair, *, stride=1, padding="same", dilation=1, name: str = "window") -> Geometry:
    """Resolve a layer's settings for an image of ``size``; raise ``ValueError`` where no window fits."""
    stride, dilation = pair(stride, f"{name}: stride"), pair(dilation, f"{name}: dilation")
    kernel = pair(kernel, f"{name}: kernel size")
    pads = resolve_padding(padding, size, kernel, stride, dilation, f"{name}: padding")
    out = tuple(output_size(*axis) for axis in zip(size, kernel, stride, pads, dilation))
    if min(out) < 1:
        raise ValueError(
            f"{name}: a {kernel[0]}x{kernel[1]} kernel with dilation {dilation} does not fit into an image of "
            f"{size[0]}x{size[1]} pixels with padding {pads}; use a larger image or more padding"
        )
    return Geometry(kernel, stride, dilation, pads, out)


def atrous_strides(strides, output_stride: int | None) -> list[Pair]:
    """Return the (stride, dilation) of each layer of a network whose maps shall not become smaller than a given size.

    Once the strides so far multiply up to ``output_stride``, a later stride s becomes 1, and the layers after it look
    for their pixels s times as far apart: the same pixels that they would have seen, on a map that was not thinned out
    (the atrous convolution of DeepLab; section 6.3 of MobileNetV2 names the output stride).

    >>> atrous_strides([2, 2, 1, 2, 1], output_stride=4)
    [(2, 1), (2, 1), (1, 1), (1, 1), (1, 2)]

    Parameters
    ----------
    strides : iterable of int
        From the first layer of the network on.
    output_stride : {8, 16, 32} or None
        None keeps all strides.

    Raises
    ------
    ValueError
        If the strides do not go that far, or jump over it: a stride can be left out, but not changed.
    """
    so_far, rate, found = 1, 1, []
    for s in strides:
        if so_far == output_stride:
            found.append((1, rate))
            rate *= s
        elif output_stride is not None and so_far < output_stride < so_far * s:
            jump = f"the strides go from {so_far} to {so_far * s}"
            raise ValueError(f"output_stride {output_stride} cannot be reached: {jump}")
        else:
            found.append((s, rate))
            so_far *= s
    if output_stride not in (None, so_far):
        raise ValueError(f"output_stride {output_stride} cannot be reached: the strides go to {so_far}")
    return found


def check_output_stride(value):
    """Return ``value``, or raise a ``ValueError`` unless it is 8, 16, 32 or None."""
    if value is not None and not (isinstance(value, numbers.Integral) and value in (8, 16, 32)):
        raise ValueError(f"output_stride must be 8, 16 or 32 (or None, to keep all strides), got {value!r}")
    return value


def scale_channels(channels: int, width_mult: float) -> int:
    """Return MobileNetV1's channel count for a width multiplier: ``max(int(alpha * d), 8)``.

    >>> [scale_channels(32, alpha) for alpha in (1.0, 0.75, 0.25, 0.1)]
    [32, 24, 8, 8]
    """
    return max(int(width_mult * channels), 8)


def round_channels(channels: float, multiple: int = 8) -> int:
    """Return MobileNetV2's channel count: the nearest multiple of 8, at least 8, never more than 10 % too small.

    >>> [round_channels(c) for c in (16 * 0.5, 24 * 0.5, 32 * 0.35, 24 * 0.75)]
    [8, 16, 16, 24]
    """
    rounded = max(multiple, int(channels + multiple / 2) // multiple * multiple)
    return rounded + multiple if rounded < 0.9 * channels else rounded


def round_repeats(repeats: int, depth_mult: float) -> int:
    """Return EfficientNet's number of repeats: ``ceil(depth * n)``."""
    return math.ceil(depth_mult * repeats)
