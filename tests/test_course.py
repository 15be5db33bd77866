"""Exercises that check themselves: what counts as right, and that nothing a reader writes stops a notebook."""

import re
import warnings

import numpy as np
import pytest

from npnets import gradcheck, ops
from npnets.course import WIDTH, check, check_backward, check_function, leaves_out, median_seconds, source


@pytest.mark.parametrize(
    "answer, expected",
    [
        (288, 288),
        (288.0, 288),
        (np.int64(288), 288),
        ("1x1", " 1X1 "),
        ((3, 0.5), [3, 0.5]),
        (np.arange(4.0), np.arange(4)),
        (True, True),
        ([1, 2], np.array([1, 2])),
    ],
)
def test_right(answer, expected):
    assert check(answer, expected).right and check(answer, lambda: expected).right
    assert repr(check(answer, expected, hint="no")) == "right"


@pytest.mark.parametrize(
    "answer, expected",
    [
        (287, 288),
        ("288", 288),
        (288, "288"),
        (None, 288),
        ((3,), (3, 4)),
        (3, (3, 4)),
        ((3, 5), (3, 4)),
        (np.arange(4), np.arange(5)),
        (float("nan"), 288),
        ({}, 288),
        (object(), 288),
        (10**400, 5),
        (np.array(["a", "b"]), np.arange(2)),
        (np.array([None, 1]), np.arange(2)),
        ([1, [2]], np.arange(2)),
        (np.array(["a"]), np.arange(1.0)),
        (np.array([None]), np.arange(1.0)),
    ],
)
def test_wrong_answers_of_any_kind_get_the_hint(answer, expected):
    verdict = check(answer, expected, hint="count again")
    assert not verdict.right and repr(verdict) == "not yet: count again"


@pytest.mark.parametrize("answer", [..., (3, ...), [...], ((1, ...), 2)])
def test_a_missing_answer_is_not_a_wrong_one(answer):
    verdict = check(answer, 288, hint="count again")
    assert not verdict.right and repr(verdict) == "not answered yet"


def test_without_a_tolerance_only_rounding_is_forgiven():
    assert check(0.1 + 0.2, 0.3).right and not check(0.3 + 1e-6, 0.3).right


def test_tolerance_is_relative():
    assert check(1.005, 1.0, tolerance=0.01).right and not check(1.02, 1.0, tolerance=0.01).right
    assert check(1005e6, 1e9, tolerance=0.01).right


# --- Functions -------------------------------------------------------------------------------------------------------

IMAGE = (np.random.default_rng(0).standard_normal((2, 5, 4, 3)), np.random.default_rng(1).standard_normal((3, 3, 3, 2)))


def test_a_function_that_does_the_same_is_right_whether_it_returns_a_cache_or_not():
    assert check_function(lambda x, w: ops.conv2d_forward(x, w)[0], ops.conv2d_forward, IMAGE).right
    assert check_function(ops.conv2d_forward, lambda x, w: ops.conv2d_forward(x, w)[0], IMAGE).right


def test_every_sample_counts():
    samples = [(np.zeros(2),), (np.ones(2),)]
    verdict = check_function(lambda x: x * x + x, lambda x: x * x, *samples, hint="and the other one?")
    assert repr(verdict).startswith("not yet") and "2 times what is right" in verdict.hint
    assert verdict.hint.endswith("and the other one?")


def test_functions_get_copies():
    def spoil(x):
        x[...] = 0
        return x + 1

    x = np.arange(3.0)
    assert check_function(spoil, lambda x: np.ones(3), (x,), (x,)).right and x[2] == 2
    assert check_function(lambda x: np.ones(3), spoil, (x,), (x,)).right and x[2] == 2


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda x: x.missing, "AttributeError: .*missing.* in the line"),
        (lambda x: x[:2], r"shape is \(2,\) where \(3,\)"),
        (lambda x: "words", "not an array of numbers but str"),
        (lambda x: [[1], [1, 2]], "rows of different length"),
        (lambda x: (x, x, x), "x, unchanged|argument 1, unchanged"),
        (lambda x, w: x, "TypeError"),
        (lambda x: x + np.nan, "contains nan"),
        (7, "a function, not int"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_what_is_wrong_with_a_function_is_told(function, said):
    verdict = check_function(function, lambda x: 2 * x, (np.arange(3.0),))
    assert verdict.text == "not yet" and re.search(said, verdict.hint)


def unfinished_value(x):
    return ...


def unfinished_term(x):
    return 2 * x + ...


def unfinished_line(x):
    y = np.zeros(3)
    y[0] = ...
    return y


def unfinished_method(x):
    y = ...
    return y.sum()


def no_return(x):
    x + 1


UNFINISHED = [..., unfinished_value, unfinished_term, unfinished_line, unfinished_method, no_return]


@pytest.mark.parametrize("function", UNFINISHED)
def test_an_unfinished_function_is_not_a_wrong_one(function):
    assert check_function(function, np.sum, (np.arange(3.0),)).text == "not answered yet"
    backward = function if function is ... else lambda dy, cache: function(dy)
    assert check_backward("relu", backward).text == "not answered yet"


def test_an_index_with_two_ellipses_is_an_error_of_the_reader():
    def function(x):
        return x[..., ...]

    verdict = check_function(function, np.sum, (np.arange(3.0),))
    assert verdict.text == "not yet" and "IndexError" in verdict.hint


# --- Backward passes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", gradcheck.known_ops())
def test_the_backward_of_npnets_is_right(op):
    verdict = check_backward(op, getattr(ops, f"{op}_backward"))
    assert verdict.right and repr(verdict) == "right"


def half_finished(dy, cache):
    """Of batch norm: dx with a classic mistake, dgamma missing, dbeta right."""
    axes = tuple(range(dy.ndim - 1))
    mean = dy.mean(axes) if cache.training else 0
    return cache.gamma * cache.inv_std * (dy - mean), ..., dy.sum(axes)


def test_gradients_are_told_apart_and_the_mistake_is_named():
    verdict = check_backward("batch_norm", half_finished, hint="Look at section 5.")
    lines = repr(verdict).splitlines()
    assert lines[0] == "not yet" and lines[1].startswith("  dx: this is the gradient you get when the variance")
    assert lines[-3:] == ["  dgamma: not answered yet", "  dbeta: right", "  Look at section 5."]
    assert max(map(len, lines)) <= WIDTH


def test_a_gradient_that_is_missing_is_not_right():
    def backward(dy, cache):
        dx, dgamma, _ = ops.batch_norm_backward(dy, cache)
        return dx, dgamma, ...

    verdict = check_backward("batch_norm", backward)
    assert not verdict.right and verdict.hint == "dbeta: not answered yet\ndx: right\ndgamma: right"


def test_a_failing_backward_is_told_with_its_line():
    def backward(dy, cache):
        return dy @ np.zeros(99)

    verdict = check_backward("conv2d", backward)
    assert verdict.text == "not yet" and "ValueError" in verdict.hint and "dy @ np.zeros(99)" in verdict.hint
    assert "_Failed" not in verdict.hint


@pytest.mark.parametrize(
    ("backward", "said"),
    [
        (lambda dy, cache: dy * cache.mask / 0, "inf|nan"),
        (lambda dy, cache: [], "the backward returned"),
        (lambda dy, cache: {"dx": dy}, "not an array"),
        (lambda dy, cache: dy.astype(str), "not an array of numbers"),
        (lambda dy: dy, "TypeError"),
        (np.zeros(3), "a function, not ndarray"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_nothing_a_reader_writes_raises_or_warns(backward, said):
    verdict = check_backward("relu6", backward)
    assert verdict.text == "not yet" and re.search(said, repr(verdict))


def test_gradients_may_be_functions_of_their_own_and_one_does_not_hide_the_others():
    def dx(dy, cache):
        return dy @ ...

    def dw(dy, cache):
        return ops.depthwise_conv2d_backward(dy, cache)[1]

    def db(dy, cache):
        return dy.sum(99)

    lines = check_backward("depthwise_conv2d", (dx, dw, db)).hint.splitlines()
    assert lines[0].startswith("db: it failed: AxisError") and "dy.sum(99)" in lines[0]
    assert lines[1:] == ["dx: not answered yet", "dw: right"]
    right = [lambda dy, cache, k=k: ops.depthwise_conv2d_backward(dy, cache)[k] for k in range(3)]
    assert check_backward("depthwise_conv2d", right).right
    for parts in ((no_return, dx, dx), (dx,), (..., dx, dw), ()):
        assert check_backward("depthwise_conv2d", parts).text in ("not answered yet", "not yet")
    assert check_backward("depthwise_conv2d", (dx, dx, dx)).text == "not answered yet"
    verdict = check_backward("cube", (lambda dy, x: 1 / 0,), cube, CUBED)
    assert verdict.hint.startswith("dx: it failed: ZeroDivisionError")


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("a = ...", True),
        ("a, b = ..., 3", True),
        ("def f(x):\n    return ...", True),
        ("%matplotlib inline\ncheck(..., 3)", True),
        ("y = x[..., 0]", False),
        ("y = x[...]\ny[..., None] = 3", False),
        ("print('...')", False),
        ("# a = ...", False),
    ],
)
def test_where_an_answer_is_left_out(text, left):
    assert leaves_out(text) is left


def test_what_a_reader_warns_of_is_not_shown():
    def backward(dy, cache):
        warnings.warn("old", DeprecationWarning, stacklevel=1)
        return dy / 0 * cache.mask

    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        assert not check_backward("relu6", backward).right
        assert not check_function(lambda dy: backward(dy, np), np.sum, (np.ones(3),)).right
    assert not shown


def cube(x):
    return x**3, x


CUBED = np.array([1.0, 2.0])


def test_an_op_that_nobody_knows_is_compared_with_numerical_gradients():
    assert check_backward("cube", lambda dy, x: 3 * x * x * dy, cube, CUBED).right
    verdict = check_backward("cube", lambda dy, x: 3 * x * dy, cube, CUBED)
    assert verdict.text == "not yet" and re.search(r"^dx: .*at \[1\] it is .* where .* is right$", verdict.hint)
    assert check_backward("cube", lambda dy, x: ..., cube, CUBED).text == "not answered yet"
    verdict = check_backward("cube", lambda dy, x: 1 / 0, cube, CUBED)
    assert "ZeroDivisionError" in verdict.hint and "_Failed" not in verdict.hint


def test_of_two_gradients_of_an_unknown_op_one_may_be_missing():
    def product(a, b):
        return a * b, (a, b)

    verdict = check_backward("product", lambda dy, cache: (dy * cache[1], ...), product, (CUBED, 3 * CUBED))
    assert verdict.hint == "da: right\ndb: not answered yet"


def test_an_unknown_op_without_a_forward_is_the_teachers_mistake():
    with pytest.raises(ValueError, match=r"'cube' is none of .*conv2d.*give its forward and inputs"):
        check_backward("cube", lambda dy, x: dy)


# --- Code that is shown, work that is timed ---------------------------------------------------------------------------


def documented(x):
    """Say what it does.

    And more.
    """
    # a comment
    y = x + 1

    return y


def test_code_is_shown_without_its_docstring():
    assert repr(source(documented)) == "def documented(x):\n    # a comment\n    y = x + 1\n\n    return y"
    assert source(documented)._repr_markdown_().startswith("```python\ndef documented(x):\n")
    assert repr(source(cube)) == "def cube(x):\n    return x**3, x"


def test_some_lines_of_it_can_be_shown():
    assert repr(source(documented, only="y")) == "y = x + 1\nreturn y"
    assert repr(source(documented, only=("comment", "return"))) == "# a comment\nreturn y"


@pytest.mark.parametrize("only", ["And more", "z =", ("return", "z =")])
def test_lines_that_are_not_there_any_more_are_an_error(only):
    with pytest.raises(ValueError, match=r"no line of documented has '(And more|z =)' in it any more"):
        source(documented, only=only)


def test_work_is_timed_by_the_median_of_its_runs(monkeypatch):
    clock, lasts = [0.0], [100.0, 3.0, 1.0, 8.0]  # the first does not count
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])

    def work():
        clock[0] += lasts.pop(0)

    assert median_seconds(work, repeats=3) == 3.0 and not lasts
