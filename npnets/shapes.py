"""Integers only: padding, output sizes, channel rounding.

Every layer's geometry is decided here, once, so that the fast operations, the loops of ``reference.py`` and the cost
tables cannot disagree about a size.

A *pair* is ``(along the height, along the width)``. Padding is written ``((top, bottom), (left, right))``.
"""

import math
import numbers
import operator
from typing import NamedTuple

Pair = tuple[int, int]
Pads = tuple[Pair, Pair]


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
        number = operator.index(value)
    except TypeError:
        raise ValueError(f"{name} must be an integer, got {value!r}") from None
    if number < at_least:
        raise ValueError(f"{name} must be at least {at_least}, got {number}")
    return number


def multiplier(value, name: str) -> float:
    """Return ``value`` as a ``float``, or raise a ``ValueError`` unless it is a finite number above 0."""
    if not isinstance(value, numbers.Real) or not 0 < value < math.inf:
        raise ValueError(f"{name} must be a finite number above 0, got {value!r}")
    return float(value)


def table_rows(table, columns: str) -> list[tuple]:
    """Return the rows of a network's table as tuples of positive integers.

    >>> table_rows([(6, 24, 2, 2)], "t, c, n, s")
    [(6, 24, 2, 2)]

    Raises
    ------
    ValueError
        If a row has more or fewer columns, or a number in it is not a positive integer.
    """
    names = columns.split(", ")
    for row in table:
        if not isinstance(row, (tuple, list)) or len(row) != len(names):
            raise ValueError(f"table: every row must be ({columns}), got {row!r}")
    return [tuple(integer(n, f"table: {name}", 1) for n, name in zip(row, names)) for row in table]


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
        If the strides jump over it: a stride can be left out, but not made smaller.
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
    return found


def check_output_stride(value):
    """Return ``value``, or raise a ``ValueError`` unless it is 8, 16, 32 or None."""
    if value is not None and (isinstance(value, bool) or value not in (8, 16, 32)):
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
