"""Bilinear resizing: by hand, against the loops, and what interpolation must leave alone."""

import numpy as np
import pytest
from hypothesis import given

from npnets import ops
from tests.oracles import assert_close, check_against_reference, check_gradients
from tests.strategies import resize_bilinear_cases


def row(values):
    """Make one image of one row and one channel."""
    return np.array(values, float)[None, None, :, None]


BY_HAND = {
    # what: row of pixels, new width, align_corners, expected row
    "up, centres at -1/4, 1/4, 3/4, 5/4": ([0, 8], 4, False, [0, 2, 6, 8]),
    "up, corners at 0, 1/3, 2/3, 1": ([0, 9], 4, True, [0, 3, 6, 9]),
    "down, centres at 1/2, 5/2": ([0, 1, 2, 3], 2, False, [0.5, 2.5]),
    "down, corners at 0, 3": ([0, 1, 2, 3], 2, True, [0, 3]),
    "to one pixel, the centre": ([0, 1, 5], 1, False, [1]),
    "to one pixel, the first corner": ([4, 1, 5], 1, True, [4]),
    "from one pixel": ([4], 3, False, [4, 4, 4]),
    "from one pixel, corners": ([4], 3, True, [4, 4, 4]),
}


@pytest.mark.parametrize("what", BY_HAND)
def test_by_hand(what):
    values, width, align_corners, expected = BY_HAND[what]
    y, _ = ops.resize_bilinear_forward(row(values), (1, width), align_corners=align_corners)
    assert_close("a row", y, row(expected), 1e-15)
    column = row(values).transpose(0, 2, 1, 3)
    y, _ = ops.resize_bilinear_forward(column, (width, 1), align_corners=align_corners)
    assert_close("a column", y, row(expected).transpose(0, 2, 1, 3), 1e-15)


def test_backward_by_hand():
    _, cache = ops.resize_bilinear_forward(row([0, 8]), (1, 4))  # weights of the two pixels: 1 0, 3/4 1/4, 1/4 3/4, 0 1
    dx = ops.resize_bilinear_backward(row([1, 4, 8, 100]), cache)
    assert np.array_equal(dx, row([1 + 3 + 2, 1 + 6 + 100]))


@given(resize_bilinear_cases())
def test_equals_the_loops(case):
    check_against_reference(case)


@given(resize_bilinear_cases())
def test_gradients_equal_complex_steps(case):
    check_gradients(case)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_same_size_changes_nothing(align_corners, dtype, rng):
    x = rng.standard_normal((2, 5, 7, 3)).astype(dtype)
    y, _ = ops.resize_bilinear_forward(x, (5, 7), align_corners=align_corners)
    assert np.array_equal(y, x)


@given(resize_bilinear_cases())
def test_a_constant_image_stays_constant_and_nothing_leaves_its_range(case):
    (x,), (size,) = case.inputs, case.extra
    y, _ = ops.resize_bilinear_forward(np.full_like(x, 3.0), size, **case.settings)
    assert_close("constant", y, np.full(y.shape, 3.0), 1e-14)
    y, _ = ops.resize_bilinear_forward(x, size, **case.settings)
    assert y.max() <= x.max() + 1e-12 and y.min() >= x.min() - 1e-12


@pytest.mark.parametrize("size", [(3, 17), (9, 4), (33, 33)])
def test_aligned_corners_reproduce_a_plane(size):
    def plane(H, W):
        u, v = np.meshgrid(np.linspace(0, 1, H), np.linspace(0, 1, W), indexing="ij")
        return (2 * u - 3 * v + 1)[None, :, :, None]

    y, _ = ops.resize_bilinear_forward(plane(5, 9), size, align_corners=True)
    assert_close("plane", y, plane(*size), 1e-13)


MISUSES = {
    "axes of x": ((4, 4, 3), 2, ["(4, 4, 3)", "(N, H, W, C)"]),
    "size zero": ((1, 4, 4, 3), (2, 0), ["size", "at least 1", "0"]),
    "fractional size": ((1, 4, 4, 3), 2.5, ["size", "2.5"]),
    "three sizes": ((1, 4, 4, 3), (2, 2, 2), ["size", "(2, 2, 2)"]),
}


@pytest.mark.parametrize("misuse", MISUSES)
def test_misuse_is_named(misuse):
    x, size, named = MISUSES[misuse]
    with pytest.raises(ValueError) as error:
        ops.resize_bilinear_forward(np.zeros(x), size)
    for words in ["resize_bilinear", *named]:
        assert words in str(error.value)
