"""What the command line takes as a value: numbers, and settings ``NAME=VALUE``."""

import argparse
import ast


def setting(text):
    """Return (name, value) of a setting: a number, true, false, none, a tuple such as (1,2,4), or a word."""
    name, sign, value = text.partition("=")
    if not (name.isidentifier() and sign and value):
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, such as output_stride=16, got {text!r}")
    words = {"true": True, "false": False, "none": None}
    if value.lower() in words:
        return name, words[value.lower()]
    for number in (int, float):
        try:
            return name, number(value)
        except ValueError:
            pass
    if value.startswith(("(", "[")):
        try:
            return name, ast.literal_eval(value)  # literals only: nothing is run
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            pass
    return name, value


def whole(text):
    """Return a whole number from 1."""
    return _checked(text, int, lambda n: n >= 1, "a whole number from 1")


def natural(text):
    """Return a whole number from 0."""
    return _checked(text, int, lambda n: n >= 0, "a whole number from 0")


def number(text):
    """Return a number from 0."""
    return _checked(text, float, lambda x: 0 <= x < float("inf"), "a number from 0")


def _checked(text, kind, fits, expected):
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not fits(value):
        raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}")
    return value


def one_line(message):
    """Return an error's message without line breaks; a system error's with the name of its file first."""
    if isinstance(message, OSError) and message.filename:
        message = f"{message.filename}: {message.strerror}"
    return " ".join(str(message).split())
