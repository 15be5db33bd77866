"""Scaling channels: by hand, against the loops, and as the product that it is."""

import numpy as np
import pytest
from hypothesis import given

from npnets import ops
from tests.oracles import assert_close, check_against_reference, check_gradients
from tests.strategies import channel_scale_cases


def test_by_hand():
    x = np.array([[[[1.0, 10.0], [2.0, 20.0]]], [[[3.0, 30.0], [4.0, 40.0]]]])  # two images of 1x2 pixels
    s = np.array([[2.0, 0.5], [-1.0, 0.0]])
    y, cache = ops.channel_scale_forward(x, s)
    assert y.tolist() == [[[[2, 5], [4, 10]]], [[[-3, 0], [-4, 0]]]]
    dy = np.array([[[[1.0, 1.0], [100.0, 2.0]]], [[[5.0, 0.0], [0.0, 7.0]]]])
    dx, ds = ops.channel_scale_backward(dy, cache)
    assert dx.tolist() == [[[[2, 0.5], [200, 1]]], [[[-5, 0], [0, 0]]]]
    assert ds.tolist() == [[1 + 200, 10 + 40], [15, 280]]


@given(channel_scale_cases())
def test_equals_the_loops(case):
    check_against_reference(case)


@given(channel_scale_cases())
def test_gradients_equal_complex_steps(case):
    check_gradients(case)


@given(channel_scale_cases())
def test_it_is_a_depthwise_convolution_of_1x1_with_a_kernel_for_each_image(case):
    x, s = case.inputs
    y, cache = ops.channel_scale_forward(x, s)
    dy = case.upstream(y)
    dx, ds = ops.channel_scale_backward(dy, cache)
    for n in range(len(x)):
        expected, of_image = ops.depthwise_conv2d_forward(x[n : n + 1], s[n].reshape(1, 1, -1))
        assert_close("y", y[n : n + 1], expected, 1e-14)
        dx_of_image, dw, _ = ops.depthwise_conv2d_backward(dy[n : n + 1], of_image)
        assert_close("dx", dx[n : n + 1], dx_of_image, 1e-14)
        assert_close("ds", ds[n], dw[0, 0], 1e-12)


def test_factors_of_one_change_nothing(rng):
    x = rng.standard_normal((2, 3, 4, 5)).astype(np.float32)
    assert np.array_equal(ops.channel_scale_forward(x, np.ones((2, 5), np.float32))[0], x)


@pytest.mark.parametrize("pixels, C", [(112, 32), (7, 1152), (1, 3), (31, 4)])
def test_images_of_many_rows_and_of_few(pixels, C, rng):
    """Large images are cut into rows, whose sums are added up again; several small ones are one piece of work."""
    x, s = rng.standard_normal((2, pixels, pixels, C)), rng.standard_normal((2, C))
    dy = rng.standard_normal(x.shape)
    y, cache = ops.channel_scale_forward(x, s)
    dx, ds = ops.channel_scale_backward(dy, cache)
    assert np.array_equal(y, x * s[:, None, None]) and np.array_equal(dx, dy * s[:, None, None])
    assert_close("ds", ds, np.einsum("nklc,nklc->nc", dy, x), 1e-12)


MISUSES = {
    # shapes of x and s, and what the error names
    "axes of x": ((4, 3), (4, 3), ["(4, 3)", "(N, H, W, C)"]),
    "another batch": ((2, 4, 5, 3), (1, 3), ["(2, 4, 5, 3)", "(2, 3)", "(1, 3)"]),
    "another number of channels": ((2, 4, 5, 3), (2, 4), ["(2, 4, 5, 3)", "(2, 3)", "(2, 4)"]),
    "factors for every pixel": ((2, 4, 5, 3), (2, 1, 1, 3), ["(2, 4, 5, 3)", "(2, 3)", "(2, 1, 1, 3)"]),
}


@pytest.mark.parametrize("misuse", MISUSES)
def test_misuse_is_named(misuse):
    x, s, named = MISUSES[misuse]
    with pytest.raises(ValueError) as error:
        ops.channel_scale_forward(np.zeros(x), np.zeros(s))
    for words in ["channel_scale", *named]:
        assert words in str(error.value)
    with pytest.raises(ValueError, match=r"channel_scale: s must hold floating-point numbers, got dtype int64"):
        ops.channel_scale_forward(np.zeros((2, 4, 5, 3)), np.zeros((2, 3), int))


@pytest.mark.parametrize("x, s, dy", [(np.float64, np.float32, np.float32), (np.complex128, np.float64, np.float64)])
def test_the_gradients_hold_what_they_are_products_of(x, s, dy):
    """dx is a product with s, ds one with x: neither is rounded to the dtype of dy."""
    draw = np.random.default_rng(0).standard_normal
    x_array = draw((2, 2, 3, 4)).astype(x)
    _, cache = ops.channel_scale_forward(x_array, draw((2, 4)).astype(s))
    dx, ds = ops.channel_scale_backward(draw((2, 2, 3, 4)).astype(dy), cache)
    assert (dx.dtype, ds.dtype) == (np.result_type(dy, s), np.result_type(dy, x))
