"""A number as a paper prints it, against the one that was computed: does it reproduce?

``"4.2M"`` says that the number lies between 4.15 and 4.25 million, if it was rounded, or between 4.2 and 4.3, if the
rest was cut off.
"""

import math
import re
from collections.abc import Callable
from typing import NamedTuple

UNITS = {"": 1, "K": 1e3, "M": 1e6, "B": 1e9, "%": 0.01}
CLOSE = 0.004
"""Relative difference up to which a number is close to a printed one that it does not give."""


class Printed(NamedTuple):
    """A printed number: its text, its value, and what one unit of its last digit is worth."""

    text: str
    value: float
    last_digit: float
    unit: str

    def in_its_unit(self, number):
        """Return another number as text in the same unit, with more digits.

        >>> parse("4.2M").in_its_unit(4231976)
        '4.232M'
        """
        decimals = round(math.log10(UNITS[self.unit] / self.last_digit)) + 2
        return f"{number / UNITS[self.unit]:,.{decimals}f}{self.unit}"


def parse(text):
    """Return a :class:`Printed` for a text such as ``"569M"``, ``"1.25B"`` or ``"94.86%"``.

    Raises
    ------
    ValueError
        If it is no number with one of the units K, M, B, %, or without one.
    """
    found = re.fullmatch(r"(\d+)(?:\.(\d+))?([KMB%]?)", text)
    if found is None:
        raise ValueError(f"{text!r} is not a printed number such as '569M', '1.25B' or '94.86%'")
    whole, decimals, unit = found.group(1), found.group(2) or "", found.group(3)
    last_digit = UNITS[unit] / 10 ** len(decimals)
    return Printed(text, int(whole + decimals) * last_digit, last_digit, unit)


def difference(number, printed):
    """Return by how much the number is larger than the printed one, relative to that."""
    return number / printed.value - 1


def is_close(number, printed):
    """Tell whether a number differs from the printed one by no more than :data:`CLOSE`, relative to that."""
    return abs(difference(number, printed)) <= CLOSE


def _in_last_digits(number, printed):
    """Return how many units of the printed number's last digit a number has."""
    return number / printed.last_digit


def _rounds(number, printed):
    return abs(_in_last_digits(number - printed.value, printed)) <= 0.5 + 1e-9


def _rounds_twice(number, printed):
    once = round(_in_last_digits(number, printed), 1)
    return math.floor(once + 0.5) == round(_in_last_digits(printed.value, printed))


def _cut_off(number, printed):
    return -1e-9 <= _in_last_digits(number - printed.value, printed) < 1


class Way(NamedTuple):
    """A way to print a number: what it is called, and whether ``fits(number, printed)``."""

    name: str
    fits: Callable


WAYS = {
    "": Way("", _rounds),
    "cut_off": Way("the rest cut off", _cut_off),
    "cut_off_here": Way("cut off, unlike other rows", _cut_off),
    "rounded_twice": Way("rounded to one more digit first", _rounds_twice),
}
"""By the names that ``published.toml`` uses. Only rounding is taken for granted."""
