"""Linear and pointwise layers: by hand, against the loops, against each other, and their errors."""

import re

import numpy as np
import pytest
from hypothesis import given

from npnets import ops
from tests.oracles import assert_close, check_against_reference, check_gradients
from tests.strategies import linear_cases


def test_linear_by_hand():
    x = np.array([[1.0, 2.0], [3.0, 4.0]])
    w = np.array([[1.0, 10.0, 0.0], [2.0, 20.0, 1.0]])
    b = np.array([0.5, 0.0, -1.0])
    y, cache = ops.linear_forward(x, w, b)
    assert np.array_equal(
        y,
        [
            [1 * 1 + 2 * 2 + 0.5, 1 * 10 + 2 * 20, 2 * 1 - 1],
            [3 * 1 + 4 * 2 + 0.5, 3 * 10 + 4 * 20, 4 * 1 - 1],
        ],
    )
    dy = np.array([[1.0, 0.0, 5.0], [2.0, -1.0, 0.0]])
    dx, dw, db = ops.linear_backward(dy, cache)
    assert np.array_equal(dx, [[1 * 1, 2 * 1 + 1 * 5], [1 * 2 - 10 * 1, 2 * 2 - 20 * 1]])
    assert np.array_equal(dw, [[1 * 1 + 3 * 2, -3 * 1, 1 * 5], [2 * 1 + 4 * 2, -4 * 1, 2 * 5]])
    assert np.array_equal(db, [1 + 2, 0 - 1, 5])


@pytest.mark.parametrize("op", ["linear", "pointwise_conv2d"])
def test_equals_the_loops(op):
    @given(linear_cases(op))
    def run(case):
        check_against_reference(case)

    run()


@pytest.mark.parametrize("op", ["linear", "pointwise_conv2d"])
def test_gradients_equal_complex_steps(op):
    @given(linear_cases(op))
    def run(case):
        check_gradients(case)

    run()


@given(linear_cases("pointwise_conv2d"))
def test_pointwise_is_linear_on_every_pixel(case):
    x, w, b = case.inputs
    y, cache = ops.pointwise_conv2d_forward(x, w, b)
    rows, rows_cache = ops.linear_forward(x.reshape(-1, x.shape[-1]), w, b)
    assert_close("y", y.reshape(rows.shape), rows, 1e-13)
    dy = case.upstream(y)
    dx, dw, _ = ops.pointwise_conv2d_backward(dy, cache)
    dx_rows, dw_rows, _ = ops.linear_backward(dy.reshape(rows.shape), rows_cache)
    assert_close("dx", dx.reshape(dx_rows.shape), dx_rows, 1e-13)
    assert_close("dw", dw, dw_rows, 1e-13)


@given(linear_cases("pointwise_conv2d"))
def test_pointwise_is_the_dense_convolution_of_kernel_size_one(case):
    x, w, b = case.inputs
    y, cache = ops.pointwise_conv2d_forward(x, w, b)
    dense, dense_cache = ops.conv2d_forward(x, w[None, None], b)
    assert_close("y", y, dense, 1e-13)
    dy = case.upstream(y)
    dx, dw, _ = ops.pointwise_conv2d_backward(dy, cache)
    dense_dx, dense_dw, _ = ops.conv2d_backward(dy, dense_cache)
    assert_close("dx", dx, dense_dx, 1e-13)
    assert_close("dw", dw, dense_dw[0, 0], 1e-13)


def test_the_bias_gradient_is_summed_over_the_batch_and_all_pixels(rng):
    x, w, b = rng.standard_normal((2, 3, 4, 5)), rng.standard_normal((5, 6)), rng.standard_normal(6)
    y, cache = ops.pointwise_conv2d_forward(x, w, b)
    dy = rng.standard_normal(y.shape)
    assert_close("db", ops.pointwise_conv2d_backward(dy, cache)[2], dy.sum(axis=(0, 1, 2)), 1e-13)


SHAPES = {
    # name of the misuse: op, x, w, b, what the message must name
    "channels": ("linear", (4, 3), (5, 2), None, ["(4, 3)", "(5, 2)"]),
    "axes of x": ("linear", (4, 2, 2, 3), (3, 2), None, ["(4, 2, 2, 3)", "(N, C)"]),
    "axes of w": ("linear", (4, 3), (3,), None, ["(4, 3)", "(3,)"]),
    "bias": ("linear", (4, 3), (3, 2), (3,), ["(3, 2)", "(3,)"]),
    "pointwise channels": ("pointwise_conv2d", (1, 4, 4, 3), (5, 2), None, ["(1, 4, 4, 3)", "(5, 2)"]),
    "pointwise axes of x": ("pointwise_conv2d", (4, 3), (3, 2), None, ["(4, 3)", "(N, H, W, C)"]),
    "pointwise axes of w": ("pointwise_conv2d", (1, 4, 4, 3), (1, 1, 3, 2), None, ["(1, 4, 4, 3)", "(1, 1, 3, 2)"]),
    "pointwise bias": ("pointwise_conv2d", (1, 4, 4, 3), (3, 2), (1, 2), ["(3, 2)", "(1, 2)"]),
}


@pytest.mark.parametrize("misuse", SHAPES)
def test_shapes_that_do_not_fit_are_named(misuse):
    op, x, w, b, named = SHAPES[misuse]
    with pytest.raises(ValueError) as error:
        getattr(ops, f"{op}_forward")(np.zeros(x), np.zeros(w), None if b is None else np.zeros(b))
    for shape in [op, *named]:
        assert shape in str(error.value)


@pytest.mark.parametrize("op, x", [("linear", (4, 3)), ("pointwise_conv2d", (1, 2, 2, 3))])
def test_integers_are_refused(op, x):
    forward = getattr(ops, f"{op}_forward")
    with pytest.raises(ValueError, match=re.escape("int64")):
        forward(np.zeros(x, np.int64), np.zeros((3, 2)))
    with pytest.raises(ValueError, match=re.escape("int64")):
        forward(np.zeros(x), np.zeros((3, 2), np.int64))
