"""What the notebooks of the course share: exercises that check themselves, code that is shown, work that is timed.

An exercise leaves ``...`` where the answer belongs. A wrong, missing or failing answer is told, and never stops the
notebook: :func:`check` is for numbers and words, :func:`check_function` for a function that the reader writes,
:func:`check_backward` for a backward pass.
"""

import ast
import copy
import inspect
import numbers
import re
import statistics
import textwrap
import time
import traceback
import warnings

import numpy as np

from npnets.gradcheck import check_op, diagnose, known_ops
from npnets.gradcheck.catalogue import known_op
from npnets.gradcheck.describe import describe
from npnets.gradcheck.numerical import output_of
from npnets.gradcheck.running import not_an_array

UNANSWERED, RIGHT, NOT_YET = "not answered yet", "right", "not yet"
WIDTH = 110
"""Characters in a line of a verdict."""


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


def check_function(function, expected, *samples, hint="", tolerance=1e-9):
    """Tell whether a function that the reader wrote returns what another one does.

    Parameters
    ----------
    function : callable
        The reader's. It gets copies of its arguments.
    expected : callable
        A function that is right. Of a result ``(y, cache)``, here or there, y alone is compared.
    *samples : tuple
        The arguments of one call each. A mistake that one set of shapes hides should show in another.
    hint : str
        Shown beside a wrong answer, after what is wrong with it.
    tolerance : float
        By how much a number may differ, relative to the largest one.

    Returns
    -------
    Verdict

    >>> check_function(lambda x: x.sum(), np.mean, (np.arange(4.0),))
    not yet: it is 4 times what is right: a factor 4 too much
    >>> def unfinished(x):
    ...     return 2 * ...
    >>> check_function(unfinished, np.mean, (np.arange(4.0),))
    not answered yet
    """
    if not callable(function):
        return _no_function(function)
    watched = _Watched(function)
    for sample in samples:
        wrong = _difference(watched, expected, sample, tolerance)
        if watched.unanswered:
            return Verdict(UNANSWERED, watched.remark)
        if wrong:
            return Verdict(NOT_YET, "\n".join(filter(None, (wrong, hint))))
    return Verdict(RIGHT)


def check_backward(op, backward, forward=None, inputs=None, *, settings=None, hint=""):
    """Tell whether a backward pass that the reader wrote is right and, where not, which mistake is in it.

    Parameters
    ----------
    op : str
        One of :func:`npnets.gradcheck.known_ops`: its mistakes are diagnosed (:func:`npnets.gradcheck.diagnose`). Any
        other name needs forward and inputs: the backward is compared with numerical gradients
        (:func:`npnets.gradcheck.check_op`).
    backward : callable, or tuple of callable
        ``backward(dy, cache) ->`` the gradients, in the order of the inputs; or one such function for each gradient. A
        gradient that is still ``...`` is left out, and the others are checked.
    forward : callable, optional
        The forward whose cache the backward expects; by default that of ``npnets.ops``.
    inputs, settings : tuple and dict, optional
        Arguments of the forward; for a known op they are drawn.
    hint : str
        Shown beside a wrong answer, after what is wrong with it.

    Returns
    -------
    Verdict
        What is wrong stands below it, gradient by gradient.

    Raises
    ------
    ValueError
        If op is not known, and forward or inputs are missing.

    >>> check_backward("relu6", lambda dy, cache: dy * cache.mask)
    right
    >>> check_backward("relu6", lambda dy, cache: dy * cache.mask - 0.1)
    not yet
      dx: it is off by the constant -0.1 everywhere.
    >>> check_backward("relu6", lambda dy, cache: ...)
    not answered yet
    """
    known = op in known_ops()
    if not known and (forward is None or inputs is None):
        raise ValueError(f"{op!r} is none of {', '.join(known_ops())}: give its forward and inputs too")
    parts = backward if isinstance(backward, (tuple, list)) else [backward]
    if not parts or not all(map(callable, parts)):
        return _no_function(next((part for part in parts if not callable(part)), backward))
    watched = _Watched(backward) if callable(backward) else _Together(backward)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a division by zero is told as the NaN that it leaves
        if known:
            lines, right = _diagnosed(op, watched, forward, inputs, settings)
        else:
            lines, right = _compared(op, watched, forward, inputs, settings)
    if watched.unanswered:
        return Verdict(UNANSWERED, watched.remark)
    if right:
        return Verdict(RIGHT)
    lines = [line.replace(f"{_Failed.__name__}: ", "") for line in lines]
    return Verdict(NOT_YET, "\n".join([*lines, *([hint] if hint else [])]), below=True)


def source(function, *, only=None):
    """Return the code of a function without its docstring, for a notebook to show: it is always the code that runs.

    Parameters
    ----------
    function : function or class
    only : str or tuple of str, optional
        Show only the lines in which one of these stands.

    Returns
    -------
    Code
        Which a notebook shows in colours.

    Raises
    ------
    ValueError
        If no line has one of the texts in ``only``: the code has changed, and what is written about it must, too.

    >>> source(Verdict, only="self.text ==")
    return self.text == RIGHT
    """
    text = textwrap.dedent(inspect.getsource(function))
    lines = text.splitlines()
    first = ast.parse(text).body[0].body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
        del lines[first.lineno - 1 : first.end_lineno]
    if only is not None:
        wanted = (only,) if isinstance(only, str) else tuple(only)
        for words in wanted:
            if not any(words in line for line in lines):
                raise ValueError(f"no line of {function.__name__} has {words!r} in it any more")
        lines = [line for line in lines if any(words in line for words in wanted)]
    return Code(textwrap.dedent("\n".join(lines)))


class Code:
    """Lines of Python."""

    def __init__(self, text):
        self.text = text

    def __repr__(self):
        return self.text

    def _repr_markdown_(self):
        return f"```python\n{self.text}\n```"


def median_seconds(work, *, repeats=7):
    """Return how long a function without arguments takes: the median of some runs, after one that does not count.

    >>> 0 <= median_seconds(lambda: None, repeats=3) < 1
    True
    """
    seconds = []
    for _ in range(1 + repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def leaves_out(code):
    """Whether Python code has a ``...`` where an answer belongs: as a value, not as an index.

    >>> leaves_out("macs = ..."), leaves_out("row = x[..., 0]")
    (True, False)
    """
    tree = ast.parse(re.sub(r"^%.*$", "", code, flags=re.MULTILINE))  # without IPython's magics
    indices = {id(part) for node in ast.walk(tree) if isinstance(node, ast.Subscript) for part in ast.walk(node.slice)}
    values = (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and node.value is ...)
    return any(id(node) not in indices for node in values)


class Verdict:
    """The answer to an answer; it prints as a line of text, or as several."""

    def __init__(self, text, hint="", *, below=False):
        self.text, self.hint = text, hint
        self._below = below or "\n" in hint or len(hint) > WIDTH

    @property
    def right(self):
        """Whether the exercise is solved."""
        return self.text == RIGHT

    def __repr__(self):
        if self._below:
            return "\n".join([self.text, *map(_filled, self.hint.splitlines())])
        return f"{self.text}: {self.hint}" if self.hint else self.text


def _filled(line):
    indented = {"initial_indent": "  " + " " * (len(line) - len(line.lstrip())), "subsequent_indent": " " * 6}
    return textwrap.fill(line.lstrip(), WIDTH, **indented, break_long_words=False, break_on_hyphens=False)


class _Watched:
    """A function of the reader, which keeps in mind whether a ``...`` is left in it and where it failed."""

    def __init__(self, function):
        self.function = function
        self.unanswered = False
        self.remark = ""
        self.missing = set()
        """Positions of the results that are ``...``, where others are not."""
        self.failures = {}
        """Of functions for one result each: position -> how it failed."""

    def __call__(self, *arguments, **settings):
        try:
            result = self.function(*arguments, **settings)
        except Exception as error:
            self.unanswered |= _unfinished(self.function)
            raise _Failed(_sentence(error, self.function)) from error
        parts = result if isinstance(result, (tuple, list)) else (result,)
        missing = {k for k, part in enumerate(parts) if part is ...}
        self.missing |= missing
        if result is None or (parts and len(missing) == len(parts)):
            self.unanswered = True
            self.remark = "the function returns nothing" if result is None else ""
        return result


class _Together(_Watched):
    """Several functions of the reader, one for each result: one that fails or is missing does not hide the others."""

    def __init__(self, functions):
        super().__init__(functions)
        self.parts = [_Watched(function) for function in functions]

    def __call__(self, *arguments):
        results = [self._result(k, arguments) for k in range(len(self.parts))]
        self.missing = {k for k, part in enumerate(self.parts) if part.unanswered}
        self.unanswered = len(self.missing) == len(self.parts)
        return tuple(results)

    def _result(self, k, arguments):
        part = self.parts[k]
        try:
            result = part(*arguments)
        except _Failed as failure:
            if not part.unanswered:
                self.failures[k] = f"it failed: {failure}"
            return None
        return ... if part.unanswered else result


class _Failed(Exception):
    """A failure of the reader's function, in one sentence."""


def _unfinished(function):
    try:
        return leaves_out(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):  # its source is nowhere, or is a part of a line
        return False


def _sentence(error, function):
    """Return what went wrong, and in which line of the function."""
    said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    file = getattr(getattr(function, "__code__", None), "co_filename", None)
    lines = [frame.line for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file and frame.line]
    return f"{said} (in the line `{lines[-1]}`)" if lines else said


def _no_function(answer):
    if _unanswered(answer):
        return Verdict(UNANSWERED)
    return Verdict(NOT_YET, f"the answer is a function, not {type(answer).__name__}")


def _difference(function, expected, sample, tolerance):
    """Return how the result of a function differs from the expected one, or None."""
    right = output_of(expected(*copy.deepcopy(sample)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            got = function(*copy.deepcopy(sample))
        except _Failed as failure:
            return f"it failed: {failure}"
    got = got[0] if isinstance(got, tuple) and got else got
    problem = not_an_array(got)
    if problem:
        return problem.replace("the backward returned None for it", "it returned None")
    got = np.asarray(got)
    if got.shape == right.shape and np.allclose(got, right, rtol=0, atol=tolerance * np.max(np.abs(right), initial=0)):
        return None
    arrays = {f"argument {k + 1}": array for k, array in enumerate(sample) if isinstance(array, np.ndarray)}
    return describe(got, right, arrays=arrays, rtol=tolerance).replace("the right gradient", "what is right")


def _diagnosed(op, backward, forward, inputs, settings):
    """Return what there is to say about the backward of a known op, and whether it is right."""
    diagnosis = diagnose(op, backward, inputs, settings=settings, forward=forward)
    names = known_op(op).gradients
    missing = {names[k] for k in backward.missing if k < len(names)}
    failed = {names[k]: said for k, said in backward.failures.items() if k < len(names)}
    findings = [finding for finding in diagnosis.findings if finding.gradient not in (*missing, *failed)]
    lines = [f"{name}: {said}" for name, said in failed.items()]
    for finding in findings:
        lines += [f"{finding.gradient}: {finding.text}.", *([f"    {finding.hint}"] if finding.hint else [])]
    lines += [f"{name}: {UNANSWERED}" for name in names if name in missing]
    if all(name in names for name in diagnosis.wrong):  # otherwise the whole failed
        lines += [f"{name}: {RIGHT}" for name in names if name not in (*diagnosis.wrong, *missing)]
    return [*lines, *diagnosis.notes], diagnosis.right


def _compared(op, backward, forward, inputs, settings):
    """Return the same for an op of which nothing is known but its forward."""
    report = check_op(forward, backward, inputs, settings=settings)
    lines = []
    for k, row in enumerate(report.rows):
        if k in backward.missing:
            lines.append(f"{row.name}: {UNANSWERED}")
        elif k in backward.failures:
            lines.append(f"{row.name}: {backward.failures[k]}")
        elif row.verdict == "ok":
            lines.append(f"{row.name}: {RIGHT}")
        else:
            lines.append(f"{row.name}: {_where_it_differs(row)}")
    return [*lines, *report.notes], report.passed


def _where_it_differs(row):
    if row.where is None:
        return row.note
    at = f"at {list(row.where)} it is {row.analytic:.6g} where {row.numerical:.6g} is right"
    return "; ".join(filter(None, (row.note, at)))


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
    try:
        return bool(np.allclose(answer, expected, rtol=max(tolerance, 1e-9), atol=0))
    except TypeError:  # an array of something else than numbers
        return False
