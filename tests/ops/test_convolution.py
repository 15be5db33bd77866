"""Standard and depthwise convolution: by hand, against the loops, numerical gradients, and algebra."""

import numpy as np
import pytest
from hypothesis import given

from npnets import ops
from npnets.shapes import geometry
from tests.oracles import assert_close, check_against_reference, check_gradients
from tests.strategies import conv2d_cases, depthwise_conv2d_cases

BOTH = {"conv2d": conv2d_cases(), "depthwise_conv2d": depthwise_conv2d_cases()}


# By hand


def image(rows):
    """Make one image with one channel from a list of rows."""
    return np.array(rows, float)[None, :, :, None]


@pytest.mark.parametrize("op, w_shape", [("conv2d", (2, 2, 1, 1)), ("depthwise_conv2d", (2, 2, 1))])
def test_by_hand(op, w_shape):
    x = image([[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    w = np.array([[1.0, 2.0], [3.0, 4.0]]).reshape(w_shape)
    y, cache = getattr(ops, f"{op}_forward")(x, w, np.array([1000.0]), padding="valid")
    assert np.array_equal(
        y[0, :, :, 0],
        [
            [1000 + 1 * 1 + 2 * 2 + 3 * 4 + 4 * 5, 1000 + 1 * 2 + 2 * 3 + 3 * 5 + 4 * 6],
            [1000 + 1 * 4 + 2 * 5 + 3 * 7 + 4 * 8, 1000 + 1 * 5 + 2 * 6 + 3 * 8 + 4 * 9],
        ],
    )
    dx, dw, db = getattr(ops, f"{op}_backward")(image([[1, 10], [100, 1000]]), cache)
    # Each digit of an entry comes from one output pixel.
    assert np.array_equal(dx[0, :, :, 0], [[1, 12, 20], [103, 1234, 2040], [300, 3400, 4000]])
    assert np.array_equal(dw.reshape(2, 2), [[5421, 6532], [8754, 9865]])
    assert np.array_equal(db, [1111])


@pytest.mark.parametrize("op, w_shape", [("conv2d", (3, 3, 1, 1)), ("depthwise_conv2d", (3, 3, 1))])
def test_same_at_stride_two_pads_below_and_on_the_right(op, w_shape):
    x = image([[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12], [13, 14, 15, 16]])
    forward = getattr(ops, f"{op}_forward")
    same, _ = forward(x, np.ones(w_shape), stride=2, padding="same")
    assert np.array_equal(  # pads (0, 1): the first window starts at the first pixel
        same[0, :, :, 0],
        [
            [1 + 2 + 3 + 5 + 6 + 7 + 9 + 10 + 11, 3 + 4 + 7 + 8 + 11 + 12],
            [9 + 10 + 11 + 13 + 14 + 15, 11 + 12 + 15 + 16],
        ],
    )
    symmetric, _ = forward(x, np.ones(w_shape), stride=2, padding="symmetric")
    assert np.array_equal(  # pads (1, 1): the same size, other windows
        symmetric[0, :, :, 0],
        [
            [1 + 2 + 5 + 6, 2 + 3 + 4 + 6 + 7 + 8],
            [5 + 6 + 9 + 10 + 13 + 14, 6 + 7 + 8 + 10 + 11 + 12 + 14 + 15 + 16],
        ],
    )


@pytest.mark.parametrize("kernel, pads", [(3, (0, 1)), (5, (1, 2))])
@pytest.mark.parametrize("op", BOTH)
def test_same_of_224_pixels_at_stride_two(op, kernel, pads, rng):
    x = rng.standard_normal((1, 224, 224, 1))
    w = rng.standard_normal((kernel, kernel, 1, 1) if op == "conv2d" else (kernel, kernel, 1))
    forward = getattr(ops, f"{op}_forward")
    same, _ = forward(x, w, stride=2, padding="same")
    explicit, _ = forward(x, w, stride=2, padding=(pads, pads))
    assert same.shape == (1, 112, 112, 1)
    assert np.array_equal(same, explicit)


def test_a_stride_that_does_not_divide_drops_the_remainder():
    y, _ = ops.conv2d_forward(np.zeros((1, 224, 224, 1)), np.zeros((3, 3, 1, 1)), stride=2, padding=1)
    assert y.shape == (1, 112, 112, 1)


def test_a_kernel_that_is_not_symmetric_is_not_flipped():
    x, w = np.zeros((1, 3, 3, 1)), np.zeros((3, 3, 1))
    x[0, 1, 1, 0] = 1.0
    w[0, 2, 0] = 1.0  # up and to the right
    y, cache = ops.depthwise_conv2d_forward(x, w)
    assert y[0, 2, 0, 0] == 1.0  # the pixel that sees x[1, 1] above itself, on its right
    dx, _, _ = ops.depthwise_conv2d_backward(y, cache)
    assert np.array_equal(dx, x)


def test_pixels_that_a_stride_skips_get_no_gradient(rng):
    for op, w_shape in (("conv2d", (1, 1, 2, 3)), ("depthwise_conv2d", (1, 1, 2))):
        x, w = rng.standard_normal((2, 5, 7, 2)), rng.standard_normal(w_shape)
        y, cache = getattr(ops, f"{op}_forward")(x, w, stride=3, padding="valid")
        dx, _, _ = getattr(ops, f"{op}_backward")(rng.standard_normal(y.shape), cache)
        reached = np.zeros(x.shape, bool)
        reached[:, ::3, ::3] = True
        assert np.array_equal(dx != 0, reached)


# Loops and numerical gradients


@pytest.mark.parametrize("op", BOTH)
def test_equals_the_loops(op):
    @given(BOTH[op])
    def run(case):
        check_against_reference(case)

    run()


@pytest.mark.parametrize("op", BOTH)
def test_gradients_equal_complex_steps(op):
    @given(BOTH[op])
    def run(case):
        check_gradients(case)

    run()


# Algebra


@pytest.mark.parametrize("op", BOTH)
def test_the_backward_is_the_adjoint_of_the_forward(op):
    """<conv(x), dy> = <x, dx> = <w, dw>, because the convolution is linear in x and in w."""

    @given(BOTH[op])
    def run(case):
        x, w, _ = case.inputs
        y, cache = getattr(ops, f"{op}_forward")(x, w, **case.settings)
        dy = case.upstream(y)
        dx, dw, db = getattr(ops, f"{op}_backward")(dy, cache)
        scale = np.sum(np.abs(y * dy))
        assert db is None
        assert abs(np.sum(y * dy) - np.sum(x * dx)) <= 1e-12 * scale
        assert abs(np.sum(y * dy) - np.sum(w * dw)) <= 1e-12 * scale

    run()


@given(depthwise_conv2d_cases())
def test_depthwise_is_dense_with_a_diagonal_kernel(case):
    x, w, b = case.inputs
    C = x.shape[-1]
    dense_w = w[:, :, :, None] * np.eye(C)  # (K_h, K_w, C) -> (K_h, K_w, C, C), zero off the diagonal
    y, cache = ops.depthwise_conv2d_forward(x, w, b, **case.settings)
    dense_y, dense_cache = ops.conv2d_forward(x, dense_w, b, **case.settings)
    assert_close("y", y, dense_y, 1e-13)
    dy = case.upstream(y)
    dx, dw, _ = ops.depthwise_conv2d_backward(dy, cache)
    dense_dx, dense_dw, _ = ops.conv2d_backward(dy, dense_cache)
    assert_close("dx", dx, dense_dx, 1e-13)
    assert_close("dw", dw, np.einsum("ijmm->ijm", dense_dw), 1e-13)


@given(depthwise_conv2d_cases())
def test_separable_is_dense_with_a_kernel_of_rank_one(case):
    """MobileNetV1 factorizes K[i, j, m, n] into K^[i, j, m] P[m, n]."""
    x, depthwise_w, _ = case.inputs
    pointwise_w = np.random.default_rng(case.seed).standard_normal((x.shape[-1], 3))
    filtered, _ = ops.depthwise_conv2d_forward(x, depthwise_w, **case.settings)
    separable, _ = ops.pointwise_conv2d_forward(filtered, pointwise_w)
    dense, _ = ops.conv2d_forward(x, depthwise_w[:, :, :, None] * pointwise_w, **case.settings)
    assert_close("y", separable, dense, 1e-12)


@pytest.mark.parametrize("op", BOTH)
def test_dilation_is_a_kernel_with_zeros_between(op):
    @given(BOTH[op])
    def run(case):
        x, w, b = case.inputs
        settings = dict(case.settings)
        d_h, d_w = np.broadcast_to(settings.pop("dilation"), 2)
        K_h, K_w = w.shape[:2]
        spread = np.zeros(((K_h - 1) * d_h + 1, (K_w - 1) * d_w + 1, *w.shape[2:]))
        spread[::d_h, ::d_w] = w
        forward, backward = getattr(ops, f"{op}_forward"), getattr(ops, f"{op}_backward")
        y, cache = forward(x, w, b, **case.settings)
        spread_y, spread_cache = forward(x, spread, b, **settings)
        assert_close("y", y, spread_y, 1e-13)
        dy = case.upstream(y)
        dx, dw, _ = backward(dy, cache)
        spread_dx, spread_dw, _ = backward(dy, spread_cache)
        assert_close("dx", dx, spread_dx, 1e-13)
        assert_close("dw", dw, spread_dw[::d_h, ::d_w], 1e-13)

    run()


@pytest.mark.parametrize("op", BOTH)
def test_a_stride_keeps_every_s_th_output_of_stride_one(op):
    @given(BOTH[op])
    def run(case):
        x, w, b = case.inputs
        geo = geometry(x.shape[1:3], w.shape[:2], **case.settings)
        forward, backward = getattr(ops, f"{op}_forward"), getattr(ops, f"{op}_backward")
        y, cache = forward(x, w, b, **case.settings)
        every_y, every_cache = forward(x, w, b, stride=1, padding=geo.pads, dilation=geo.dilation)
        kept = (slice(None), slice(None, None, geo.stride[0]), slice(None, None, geo.stride[1]))
        assert_close("y", y, every_y[kept], 1e-13)
        dy = case.upstream(y)
        every_dy = np.zeros_like(every_y)
        every_dy[kept] = dy
        for gradient, every_gradient in zip(backward(dy, cache)[:2], backward(every_dy, every_cache)[:2]):
            assert_close("gradient", gradient, every_gradient, 1e-12)

    run()


@pytest.mark.parametrize("op", BOTH)
def test_padding_is_a_border_of_zeros(op):
    @given(BOTH[op])
    def run(case):
        x, w, b = case.inputs
        settings = {**case.settings, "padding": "valid"}
        pads = geometry(x.shape[1:3], w.shape[:2], **case.settings).pads
        forward = getattr(ops, f"{op}_forward")
        bordered, _ = forward(np.pad(x, ((0, 0), *pads, (0, 0))), w, b, **settings)
        y, _ = forward(x, w, b, **case.settings)
        # SAME may leave the last rows of the border unused where the stride skips them, never the reverse.
        assert_close("y", y, bordered, 1e-13)

    run()


# Errors


MISUSES = {
    # name of the misuse: x, w, b, settings, what the message must name
    "channels": ((1, 4, 4, 3), (3, 3, 5, 2), None, {}, ["(1, 4, 4, 3)", "(3, 3, 5, 2)"]),
    "axes of x": ((4, 4, 3), (3, 3, 3, 2), None, {}, ["(4, 4, 3)", "(N, H, W, C)"]),
    "axes of w": ((1, 4, 4, 3), (3, 3, 3), None, {}, ["(1, 4, 4, 3)", "(3, 3, 3)"]),
    "bias": ((1, 4, 4, 3), (3, 3, 3, 2), (3,), {}, ["(3, 3, 3, 2)", "(3,)"]),
    "stride zero": ((1, 4, 4, 3), (3, 3, 3, 2), None, {"stride": 0}, ["stride", "at least 1", "0"]),
    "stride of one axis zero": ((1, 4, 4, 3), (3, 3, 3, 2), None, {"stride": (1, 0)}, ["stride", "at least 1", "0"]),
    "fractional stride": ((1, 4, 4, 3), (3, 3, 3, 2), None, {"stride": 1.5}, ["stride", "1.5"]),
    "three strides": ((1, 4, 4, 3), (3, 3, 3, 2), None, {"stride": (1, 1, 1)}, ["stride", "(1, 1, 1)"]),
    "dilation zero": ((1, 4, 4, 3), (3, 3, 3, 2), None, {"dilation": 0}, ["dilation", "at least 1", "0"]),
    "negative padding": ((1, 4, 4, 3), (3, 3, 3, 2), None, {"padding": -1}, ["padding", "-1"]),
    "one negative side": ((1, 4, 4, 3), (3, 3, 3, 2), None, {"padding": ((0, 1), (-2, 0))}, ["padding", "-2"]),
    "unknown padding": ((1, 4, 4, 3), (3, 3, 3, 2), None, {"padding": "full"}, ["padding", "full", "valid"]),
    "padding of one axis": ((1, 4, 4, 3), (3, 3, 3, 2), None, {"padding": (1, 1)}, ["padding", "(1, 1)"]),
    "kernel too large": ((1, 4, 5, 3), (6, 3, 3, 2), None, {"padding": "valid"}, ["6x3", "4x5"]),
    "dilated kernel too large": ((1, 4, 5, 3), (3, 3, 3, 2), None, {"padding": 0, "dilation": 2}, ["3x3", "4x5"]),
    "kernel of size zero": ((1, 4, 4, 3), (0, 3, 3, 2), None, {}, ["0"]),
}


@pytest.mark.parametrize("misuse", MISUSES)
@pytest.mark.parametrize("op", BOTH)
def test_misuse_is_named(op, misuse):
    x, w, b, settings, named = MISUSES[misuse]
    if op == "depthwise_conv2d":  # the same misuses, with w (K_h, K_w, C)
        without = {w: w[:-1]} | {str(w): str(w[:-1])}
        b = b and (w[2] + 1,)
        named = [str(b) if name == "(3,)" and b else without.get(name, name) for name in named]
        w = w[:-1]
    with pytest.raises(ValueError) as error:
        getattr(ops, f"{op}_forward")(np.zeros(x), np.zeros(w), None if b is None else np.zeros(b), **settings)
    for words in [op, *named]:
        assert words in str(error.value)
