"""The loops of ``reference.py``: that they are loops, worked examples of their own, and their numerical gradients.

The ops are tested against these loops; here the loops are tested without the ops.
"""

import ast
import inspect

import numpy as np
import pytest
from hypothesis import given

from npnets import ops, reference
from tests.oracles import RANDOM, as_pair, assert_close, check_gradients
from tests.strategies import ALL_OPS

DETERMINISTIC = [op for op in ALL_OPS if op not in RANDOM]


def image(rows):
    """Make one image with one channel from a list of rows."""
    return np.array(rows, float)[None, :, :, None]


# Independence


def test_the_reference_is_written_in_loops():
    """It takes integers from shapes.py and arrays from NumPy; no sum is left to a fast routine."""
    tree = ast.parse(inspect.getsource(reference))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    assert imported == {"numpy", "npnets.shapes"}
    assert not any(isinstance(node, ast.MatMult) for node in ast.walk(tree))
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    used |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    products = {"einsum", "matmul", "dot", "tensordot", "inner", "vdot", "convolve", "multiply"}
    reductions = {"sum", "mean", "std", "prod", "cumsum", "pad"}
    assert not used & (products | reductions)


def test_every_op_has_its_loops_with_the_same_settings():
    for op in ALL_OPS:
        fast = inspect.signature(getattr(ops, f"{op}_forward")).parameters
        slow = inspect.signature(getattr(reference, op)).parameters
        if op in RANDOM:
            assert list(slow) == [*list(fast)[:2], "mask"]
            continue
        fast = {name: parameter for name, parameter in fast.items() if name != "activation"}  # two ops in one pass
        assert list(fast) == list(slow), op
        assert {n: p.default for n, p in fast.items()} == {n: p.default for n, p in slow.items()}, op
        backward = inspect.signature(getattr(reference, f"{op}_backward")).parameters
        assert list(backward) == ["dy", *slow], op
        assert {n: backward[n].default for n in slow} == {n: p.default for n, p in slow.items()}, op


@pytest.mark.parametrize("op", DETERMINISTIC)
def test_gradients_of_the_loops_equal_numerical_ones(op):
    @given(ALL_OPS[op])
    def run(case):
        check_gradients(case, *as_pair(op))

    run()


# By hand


def test_standard_convolution_by_hand():
    x = image([[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    w = np.array([[1.0, 2.0], [3.0, 4.0]]).reshape(2, 2, 1, 1)
    assert reference.conv2d(x, w, padding="valid").ravel().tolist() == [37, 47, 67, 77]
    dx, dw, db = reference.conv2d_backward(image([[1, 10], [100, 1000]]), x, w, np.zeros(1), padding="valid")
    assert np.array_equal(dx[0, :, :, 0], [[1, 12, 20], [103, 1234, 2040], [300, 3400, 4000]])
    assert dw.ravel().tolist() == [5421, 6532, 8754, 9865]
    assert db.tolist() == [1111]


def test_standard_convolution_combines_channels_and_depthwise_does_not():
    x = np.array([[[[1.0, 10.0]]]])
    w = np.array([[[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]]])  # (1, 1, C_in 2, C_out 3)
    assert reference.conv2d(x, w).ravel().tolist() == [1 + 40, 2 + 50, 3 + 60]
    assert reference.depthwise_conv2d(x, w[..., 0]).ravel().tolist() == [1, 40]


def test_same_padding_puts_the_odd_pixel_below_and_on_the_right():
    x = image([[1, 2], [3, 4]])
    w = np.arange(1.0, 5.0).reshape(2, 2, 1)
    y = reference.depthwise_conv2d(x, w, padding="same")  # pads (0, 1) on both axes
    assert y[0, :, :, 0].tolist() == [[1 + 4 + 9 + 16, 2 + 4 * 3], [3 + 4 * 2, 4]]


def test_stride_and_dilation_by_hand():
    x = image([[1, 2, 3, 4, 5, 6, 7]])
    w = np.array([[1.0, 10.0]]).reshape(1, 2, 1)
    y = reference.depthwise_conv2d(x, w, padding="valid", stride=(1, 2), dilation=(1, 3))
    assert y.ravel().tolist() == [1 + 40, 3 + 60]


def test_batch_norm_by_hand():
    x = np.array([[1.0], [3.0]])
    gamma, beta, mean, var = np.array([4.0]), np.array([10.0]), np.array([5.0]), np.array([7.0])
    y = reference.batch_norm(x, gamma, beta, mean, var, training=True, decay=0.75, eps=3.0)
    assert y.ravel().tolist() == [8, 12]
    assert (mean.tolist(), var.tolist()) == ([4.25], [5.75])
    dy = np.array([[1.0], [3.0]])
    dx, dgamma, dbeta = reference.batch_norm_backward(dy, x, gamma, beta, mean, var, training=True, eps=3.0)
    assert_close("dx", dx, [[-1.5], [1.5]], 1e-15)
    assert (dgamma.tolist(), dbeta.tolist()) == ([1], [4])


def test_batch_norm_in_inference_uses_the_running_statistics_and_keeps_them():
    x, ones, mean, var = np.array([[1.0], [3.0]]), np.ones(1), np.array([5.0]), np.array([1.0])
    y = reference.batch_norm(x, 2 * ones, ones, mean, var, training=False, eps=3.0)
    assert y.ravel().tolist() == [1 - 4, 1 - 2]
    assert (mean.tolist(), var.tolist()) == ([5], [1])
    dy = np.array([[3.0], [7.0]])
    dx, _, _ = reference.batch_norm_backward(dy, x, 2 * ones, ones, mean, var, training=False, eps=3.0)
    assert dx.ravel().tolist() == [3, 7]


def test_the_masks_of_dropout_and_drop_path():
    x, dy = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[5.0, 6.0], [7.0, 8.0]])
    mask = np.array([[True, False], [True, True]])
    assert_close("y", reference.dropout(x, 0.2, mask=mask), [[1 / 0.8, 0], [3 / 0.8, 4 / 0.8]], 1e-15)
    assert_close("dx", reference.dropout_backward(dy, x, 0.2, mask=mask), [[5 / 0.8, 0], [7 / 0.8, 8 / 0.8]], 1e-15)
    mask = np.array([False, True])
    assert_close("y", reference.drop_path(x, 0.8, mask=mask), [[0, 0], [3 / 0.8, 4 / 0.8]], 1e-15)
    assert_close("dx", reference.drop_path_backward(dy, x, 0.8, mask=mask), [[0, 0], [7 / 0.8, 8 / 0.8]], 1e-15)


def test_float32_is_computed_in_float64():
    x = np.full((1, 1, 1000, 1), 0.1, np.float32)
    y = reference.conv2d(x, np.ones((1, 1000, 1, 1), np.float32), padding="valid")
    assert y.dtype == np.float64
    assert_close("y", y.item(), 1000 * float(np.float32(0.1)), 1e-13)


# Errors


def test_shapes_that_do_not_fit_are_named():
    x = np.zeros((1, 4, 4, 3))
    with pytest.raises(ValueError, match=r"\(1, 4, 4, 3\).*\(3, 3, 5, 2\)"):
        reference.conv2d(x, np.zeros((3, 3, 5, 2)))
    with pytest.raises(ValueError, match=r"b must have the shape \(2,\), got \(3,\)"):
        reference.conv2d(x, np.zeros((3, 3, 3, 2)), np.zeros(3))
    with pytest.raises(ValueError, match="stride"):
        reference.conv2d(x, np.zeros((3, 3, 3, 2)), stride=0)
    with pytest.raises(ValueError, match=r"dy must have the shape \(1, 4, 4, 2\), got \(1, 4, 4, 3\)"):
        reference.conv2d_backward(x, x, np.zeros((3, 3, 3, 2)))
    with pytest.raises(ValueError, match="single value"):
        reference.batch_norm(np.zeros((1, 3)), *np.ones((4, 3)), training=True)
    with pytest.raises(ValueError, match="outside the image"):
        reference.avg_pool2d(x, 2, padding=2)
