"""Pooling: by hand, against the loops, numerical gradients, and identities with other ops."""

import numpy as np
import pytest
from hypothesis import given

from npnets import ops
from tests.oracles import assert_close, check_against_reference, check_gradients
from tests.strategies import global_avg_pool_cases, pool_cases

POOLS = {
    "max_pool2d": pool_cases("max_pool2d"),
    "avg_pool2d": pool_cases("avg_pool2d"),
    "global_avg_pool": global_avg_pool_cases(),
}
WINDOWED = ["max_pool2d", "avg_pool2d"]


def image(rows):
    """Make one image with one channel from a list of rows."""
    return np.array(rows, float)[None, :, :, None]


def test_max_pool_by_hand():
    x = image([[1, 5, 2, 0], [3, 4, 8, 7], [9, 1, 1, 2]])
    y, cache = ops.max_pool2d_forward(x, 2, stride=1)
    assert np.array_equal(y[0, :, :, 0], [[5, 8, 8], [9, 8, 8]])
    dx = ops.max_pool2d_backward(image([[1, 20, 300], [4000, 50000, 600000]]), cache)
    assert np.array_equal(dx[0, :, :, 0], [[0, 1, 0, 0], [0, 0, 20 + 300 + 50000 + 600000, 0], [4000, 0, 0, 0]])


def test_avg_pool_by_hand():
    x = image([[1, 2, 3, 4], [5, 6, 7, 8]])
    y, cache = ops.avg_pool2d_forward(x, 2)
    assert np.array_equal(y[0, :, :, 0], [[(1 + 2 + 5 + 6) / 4, (3 + 4 + 7 + 8) / 4]])
    dx = ops.avg_pool2d_backward(image([[4, 80]]), cache)
    assert np.array_equal(dx[0, :, :, 0], [[1, 1, 20, 20], [1, 1, 20, 20]])


def test_same_average_divides_by_the_cells_inside_the_image():
    x = image([[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    y, cache = ops.avg_pool2d_forward(x, 3, stride=1, padding="same")
    assert y[0, 0, 0, 0] == (1 + 2 + 4 + 5) / 4  # a corner: four cells, not nine
    assert y[0, 0, 1, 0] == (1 + 2 + 3 + 4 + 5 + 6) / 6
    assert y[0, 1, 1, 0] == 45 / 9
    dy = np.zeros_like(y)
    dy[0, 2, 2, 0] = 8.0
    dx = ops.avg_pool2d_backward(dy, cache)
    assert np.array_equal(dx[0, :, :, 0], [[0, 0, 0], [0, 2, 2], [0, 2, 2]])


@pytest.mark.parametrize("padding", ["same", "symmetric", 1, ((0, 1), (1, 0))])
def test_a_constant_image_stays_constant_under_average_pooling(padding):
    y, _ = ops.avg_pool2d_forward(np.full((2, 5, 4, 3), 7.0), 3, stride=2, padding=padding)
    assert_close("y", y, np.full(y.shape, 7.0), 1e-15)


def test_padding_never_wins_a_maximum():
    x = image([[-3, -1], [-4, -2]])
    y, cache = ops.max_pool2d_forward(x, 3, stride=1, padding="same")
    assert np.array_equal(y[0, :, :, 0], [[-1, -1], [-1, -1]])
    dx = ops.max_pool2d_backward(image([[1, 2], [3, 4]]), cache)
    assert np.array_equal(dx[0, :, :, 0], [[0, 10], [0, 0]])


def test_among_equal_cells_the_first_in_row_order_gets_the_gradient():
    x = image([[0, 7, 7], [7, 7, 0]])
    _, cache = ops.max_pool2d_forward(x, (2, 3))
    dx = ops.max_pool2d_backward(image([[5]]), cache)
    assert np.array_equal(dx[0, :, :, 0], [[0, 5, 0], [0, 0, 0]])
    _, cache = ops.max_pool2d_forward(np.zeros((1, 2, 2, 1)), 3, stride=1, padding=1)  # the first inside the image
    assert ops.max_pool2d_backward(np.full((1, 2, 2, 1), 3.0), cache)[0, :, :, 0].tolist() == [[12, 0], [0, 0]]


def test_global_average_by_hand():
    x = np.array([[[[1.0, 10.0], [2.0, 20.0]], [[3.0, 30.0], [6.0, 60.0]]]])  # (1, 2, 2, 2)
    y, cache = ops.global_avg_pool_forward(x)
    assert np.array_equal(y, [[(1 + 2 + 3 + 6) / 4, (10 + 20 + 30 + 60) / 4]])
    dx = ops.global_avg_pool_backward(np.array([[4.0, 8.0]]), cache)
    assert np.array_equal(dx, np.broadcast_to([1.0, 2.0], x.shape))


@pytest.mark.parametrize("op", POOLS)
def test_equals_the_loops(op):
    @given(POOLS[op])
    def run(case):
        check_against_reference(case)

    run()


@pytest.mark.parametrize("op", POOLS)
def test_gradients_equal_numerical_ones(op):
    @given(POOLS[op])
    def run(case):
        check_gradients(case)

    run()


@given(pool_cases("avg_pool2d"))
def test_valid_average_pooling_is_depthwise_with_a_constant_kernel(case):
    (x,), (size,) = case.inputs, case.extra
    size = tuple(np.broadcast_to(size, 2).tolist())
    stride = case.settings["stride"] or size
    x = np.pad(x, ((0, 0), (3, 3), (3, 3), (0, 0)), mode="edge")  # so that a valid window fits
    y, cache = ops.avg_pool2d_forward(x, size, stride=stride, padding="valid")
    w = np.full((*size, x.shape[-1]), 1 / (size[0] * size[1]))
    filtered, filtered_cache = ops.depthwise_conv2d_forward(x, w, stride=stride, padding="valid")
    assert_close("y", y, filtered, 1e-12)
    dy = case.upstream(y)
    dx, filtered_dx = ops.avg_pool2d_backward(dy, cache), ops.depthwise_conv2d_backward(dy, filtered_cache)[0]
    assert_close("dx", dx, filtered_dx, 1e-12)


@given(global_avg_pool_cases())
def test_global_pooling_is_one_window_of_the_whole_image(case):
    (x,) = case.inputs
    y, cache = ops.global_avg_pool_forward(x)
    assert_close("y", y, x.mean(axis=(1, 2)), 1e-13)
    window, window_cache = ops.avg_pool2d_forward(x, x.shape[1:3])
    assert_close("y", window[:, 0, 0], y, 1e-12)
    dy = case.upstream(y)
    dx = ops.avg_pool2d_backward(dy[:, None, None], window_cache)
    assert_close("dx", dx, ops.global_avg_pool_backward(dy, cache), 1e-13)


@pytest.mark.parametrize("op", POOLS)
def test_the_gradient_is_handed_on_whole(op):
    """Every window gives away exactly what it received: dx sums to dy, image by image and channel by channel."""

    @given(POOLS[op])
    def run(case):
        args, kwargs = case.arguments()
        y, cache = getattr(ops, f"{op}_forward")(*args, **kwargs)
        dy = np.abs(case.upstream(y))  # no cancellation
        dx = getattr(ops, f"{op}_backward")(dy, cache)
        assert_close("sum", dx.sum(axis=(1, 2)), dy.sum(axis=(1, 2)) if dy.ndim == 4 else dy, 1e-12)

    run()


@given(pool_cases("max_pool2d"))
def test_max_pooling_commutes_with_increasing_functions(case):
    (x,), (size,) = case.inputs, case.extra
    doubled, _ = ops.max_pool2d_forward(2 * x - 5, size, **case.settings)
    y, _ = ops.max_pool2d_forward(x, size, **case.settings)
    assert_close("y", doubled, 2 * y - 5, 1e-13)


MISUSES = {
    # name of the misuse: x, size, settings, what the message must name
    "axes of x": ((4, 4, 3), 2, {}, ["(4, 4, 3)", "(N, H, W, C)"]),
    "size zero": ((1, 4, 4, 3), 0, {}, ["size", "at least 1", "0"]),
    "fractional size": ((1, 4, 4, 3), 2.5, {}, ["size", "2.5"]),
    "stride zero": ((1, 4, 4, 3), 2, {"stride": 0}, ["stride", "at least 1", "0"]),
    "negative padding": ((1, 4, 4, 3), 2, {"padding": -1}, ["padding", "-1"]),
    "unknown padding": ((1, 4, 4, 3), 2, {"padding": "SAME"}, ["padding", "SAME", "valid"]),
    "window too large": ((1, 4, 5, 3), (5, 2), {}, ["5x2", "4x5"]),
    "windows without a pixel": ((1, 4, 5, 3), 2, {"padding": 2}, ["padding", "(2, 2)"]),
}


@pytest.mark.parametrize("misuse", MISUSES)
@pytest.mark.parametrize("op", WINDOWED)
def test_misuse_is_named(op, misuse):
    x, size, settings, named = MISUSES[misuse]
    with pytest.raises(ValueError) as error:
        getattr(ops, f"{op}_forward")(np.zeros(x), size, **settings)
    for words in [op, *named]:
        assert words in str(error.value)


def test_global_pooling_names_a_wrong_shape():
    with pytest.raises(ValueError, match=r"global_avg_pool.*\(4, 3\)"):
        ops.global_avg_pool_forward(np.zeros((4, 3)))


@pytest.mark.parametrize("op", POOLS)
def test_integers_are_refused(op):
    x = np.zeros((1, 4, 4, 1), np.uint8)
    with pytest.raises(ValueError, match="uint8"):
        getattr(ops, f"{op}_forward")(x, *([2] if op in WINDOWED else []))
