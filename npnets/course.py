"""What the notebooks of the course share: exercises that check themselves.

An exercise leaves ``...`` where the answer belongs. A wrong or missing answer is told, and never stops the notebook.
"""

import numbers

import numpy as np

UNANSWERED, RIGHT, NOT_YET = "not answered yet", "right", "not yet"


def check(answer, expected, *, hint="", tolerance=0.0):
    """Tell whether the answer to an exercise is right.

    Parameters
    ----------
    answer : number, array, text, or a tuple or list of these
        ``...`` stands for no answer.
    expected : the same
        Or a function without arguments that returns it, so that it does not stand in the cell.
    hint : str
        Shown beside a wrong answer.
    tolerance : float
        By how much a number may differ, relative to the expected one.

    Returns
    -------
    Verdict
        Which a notebook shows as a line of text; ``verdict.right`` is True or False.

    >>> check(3 * 3 * 32, 9 * 32)
    right
    >>> check(..., 288)
    not answered yet
    >>> check(32, 288, hint="how many weights has one kernel?")
    not yet: how many weights has one kernel?
    """
    if _unanswered(answer):
        return Verdict(UNANSWERED)
    right = _agree(answer, expected() if callable(expected) else expected, tolerance)
    return Verdict(RIGHT if right else NOT_YET, "" if right else hint)


class Verdict:
    """The answer to an answer; it prints as a line of text."""

    def __init__(self, text, hint=""):
        self.text, self.hint = text, hint

    @property
    def right(self):
        """Whether the exercise is solved."""
        return self.text == RIGHT

    def __repr__(self):
        return f"{self.text}: {self.hint}" if self.hint else self.text


def _unanswered(answer):
    return answer is ... or (isinstance(answer, (tuple, list)) and any(_unanswered(part) for part in answer))


def _agree(answer, expected, tolerance):
    """Tell whether an answer is right; whatever cannot be compared is wrong."""
    try:
        return _equal(answer, expected, tolerance)
    except (TypeError, ValueError, OverflowError):
        return False


def _equal(answer, expected, tolerance):
    if isinstance(answer, (tuple, list)) and isinstance(expected, np.ndarray):
        answer = np.array(answer)
    if isinstance(expected, (tuple, list)):
        same_length = isinstance(answer, (tuple, list)) and len(answer) == len(expected)
        return same_length and all(_equal(one, other, tolerance) for one, other in zip(answer, expected))
    if isinstance(expected, str):
        return isinstance(answer, str) and answer.strip().lower() == expected.strip().lower()
    if not isinstance(answer, (numbers.Number, np.ndarray)) or np.shape(answer) != np.shape(expected):
        return False
    return bool(np.allclose(answer, expected, rtol=max(tolerance, 1e-9), atol=0))
