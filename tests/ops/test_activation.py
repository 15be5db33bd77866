"""Activations: by hand, against the loops, their identities, and what happens at and far from the kinks."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npnets import ops, parallel
from npnets.ops.activation import finish_of
from tests.oracles import assert_close, check_against_reference, check_gradients
from tests.strategies import ALL_OPS, activation_cases, seeds

ACTIVATIONS = ["relu", "relu6", "sigmoid", "swish"]
LOG_3 = math.log(3.0)  # exp(-log 3) = 1/3, so sigmoid(log 3) = 3/4 and sigmoid(-log 3) = 1/4

BY_HAND = {
    # op: x, y, dy, dx
    "relu": ([-2.0, 0.0, 3.0, 7.0], [0, 0, 3, 7], [10.0, 20.0, 30.0, 40.0], [0, 0, 30, 40]),
    "relu6": ([-2.0, 0.0, 3.0, 6.0, 7.0], [0, 0, 3, 6, 6], [10.0, 20.0, 30.0, 40.0, 50.0], [0, 0, 30, 0, 0]),
    "sigmoid": ([LOG_3, 0.0, -LOG_3], [3 / 4, 1 / 2, 1 / 4], [16.0, 4.0, -16.0], [16 * 3 / 16, 4 / 4, -16 * 3 / 16]),
    "swish": (
        [LOG_3, 0.0, -LOG_3],
        [LOG_3 * 3 / 4, 0, -LOG_3 / 4],
        [1.0, 2.0, 1.0],
        [3 / 4 + LOG_3 * 3 / 16, 2 * 1 / 2, 1 / 4 - LOG_3 * 3 / 16],
    ),
}


@pytest.mark.parametrize("op", ACTIVATIONS)
def test_by_hand(op):
    x, y, dy, dx = (np.array(values, float) for values in BY_HAND[op])
    actual, cache = getattr(ops, f"{op}_forward")(x)
    assert_close("y", actual, y, 1e-15)
    assert_close("dx", getattr(ops, f"{op}_backward")(dy, cache), dx, 1e-15)


@pytest.mark.parametrize("op", ACTIVATIONS)
def test_equals_the_loops(op):
    @given(activation_cases(op))
    def run(case):
        check_against_reference(case)

    run()


@pytest.mark.parametrize("op", ACTIVATIONS)
def test_gradients_equal_numerical_ones(op):
    @given(activation_cases(op))
    def run(case):
        check_gradients(case)

    run()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("op, kinks", [("relu", [0.0]), ("relu6", [0.0, 6.0])])
def test_the_gradient_is_zero_exactly_at_a_kink_and_one_beside_it(op, kinks, dtype):
    for kink in kinks:
        inside = np.nextafter(dtype(kink), dtype(3))
        x = np.array([kink, -kink, inside], dtype)
        _, cache = getattr(ops, f"{op}_forward")(x)
        dx = getattr(ops, f"{op}_backward")(np.array([5.0, 5.0, 5.0], dtype), cache)
        assert dx.tolist() == [0.0, 0.0, 5.0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sigmoid_and_swish_stay_finite_far_from_zero(dtype):
    """The naive 1 / (1 + exp(-x)) overflows at -800; a warning here is an error."""
    x = np.array([-800.0, -90.0, 90.0, 800.0], dtype)
    y, cache = ops.sigmoid_forward(x)
    assert y.tolist()[0] == 0.0 and y.tolist()[2:] == [1.0, 1.0]
    assert np.all(ops.sigmoid_backward(np.ones_like(x), cache)[[0, 3]] == 0)
    y, cache = ops.swish_forward(x)
    assert y.tolist()[0] == 0.0 and y.tolist()[2:] == [90.0, 800.0]
    dx = ops.swish_backward(np.ones_like(x), cache)
    assert abs(dx[0]) == 0.0 and dx.tolist()[2:] == [1.0, 1.0]


@pytest.mark.parametrize("dtype, low, high", [(np.float32, -87, 90), (np.float64, -700, 800)])
def test_sigmoid_and_swish_have_all_their_digits_wherever_x_is(dtype, low, high):
    """Also for x of -80, where ``1 - sigmoid(-x)`` or ``(1 + tanh(x / 2)) / 2`` would have none left."""
    x = np.linspace(low, high, 10_001).astype(dtype)
    wide = x.astype(np.longdouble)
    expected = 1 / (1 + np.exp(-wide))
    nonzero = x != 0
    for op, exact in (("sigmoid", expected), ("swish", wide * expected)):
        y, _ = getattr(ops, f"{op}_forward")(x)
        relative = np.abs(y - exact)[nonzero] / np.abs(exact)[nonzero]
        assert y.dtype == dtype and relative.max() < 4 * np.finfo(dtype).eps, op


def test_sigmoid_underflows_gradually_and_knows_infinity():
    tiny, _ = ops.sigmoid_forward(np.array([-95.0, -np.inf, np.inf, np.nan], np.float32))
    assert tiny[0] == pytest.approx(np.exp(-95), rel=1e-3) and tiny[1:3].tolist() == [0, 1] and np.isnan(tiny[3])


@pytest.mark.parametrize("op", ["sigmoid", "swish"])
def test_complex_steps_agree_with_the_backward_also_far_from_zero(op):
    x = np.array([-800.0, -30.0, -1.0, 2.0, 709.5, 800.0])
    y, _ = getattr(ops, f"{op}_forward")(x + 1e-30j)
    _, cache = getattr(ops, f"{op}_forward")(x)
    assert_close("dx", getattr(ops, f"{op}_backward")(np.ones_like(x), cache), y.imag / 1e-30, 1e-12)


@pytest.mark.parametrize("op", ACTIVATIONS)
def test_a_complex_gradient_keeps_both_parts(op, rng):
    """The backward is linear in dy."""
    x, (a, b) = rng.uniform(-3, 7, 20), rng.standard_normal((2, 20))
    _, cache = getattr(ops, f"{op}_forward")(x)
    backward = getattr(ops, f"{op}_backward")
    assert_close("dx", backward(a + 1j * b, cache), backward(a, cache) + 1j * backward(b, cache), 1e-15)


@given(seeds, st.integers(1, 50))
def test_identities(seed, n):
    x = np.random.default_rng(seed).uniform(-20, 20, n)
    forward = {op: getattr(ops, f"{op}_forward") for op in ACTIVATIONS}
    assert_close("s(x) + s(-x) = 1", forward["sigmoid"](x)[0] + forward["sigmoid"](-x)[0], np.ones(n), 1e-14)
    assert_close("swish(x) - swish(-x) = x", forward["swish"](x)[0] - forward["swish"](-x)[0], x, 1e-14)
    assert_close("relu(x) - relu(-x) = x", forward["relu"](x)[0] - forward["relu"](-x)[0], x, 0)
    between = forward["relu"](x)[0] - forward["relu"](x - 6)[0]
    assert_close("relu(x) - relu(x - 6) = relu6(x)", between, forward["relu6"](x)[0], 1e-14)


@pytest.mark.parametrize("op", ACTIVATIONS)
def test_integers_are_refused(op):
    with pytest.raises(ValueError, match=f"{op}.*int64"):
        getattr(ops, f"{op}_forward")(np.arange(3))


@pytest.mark.parametrize("op", ["relu", "relu6"])
def test_a_kinked_activation_refuses_complex_numbers(op):
    with pytest.raises(ValueError, match=op):
        getattr(ops, f"{op}_forward")(np.zeros(3, np.complex128))


# In the same pass as another op


LAYERS = ["conv2d", "depthwise_conv2d", "pointwise_conv2d", "linear"]


@pytest.mark.parametrize("activation, tolerance", [("relu", 0), ("relu6", 0), ("swish", 1e-14)])
@pytest.mark.parametrize("op", LAYERS)
def test_an_activation_in_the_same_pass_is_that_of_the_op_after_it(op, activation, tolerance):
    forward, backward = getattr(ops, f"{op}_forward"), getattr(ops, f"{op}_backward")
    after_forward, after_backward = getattr(ops, f"{activation}_forward"), getattr(ops, f"{activation}_backward")

    @given(ALL_OPS[op])
    def run(case):
        x, w, b = case.inputs
        x = 3 * x  # beyond 6 too
        y, cache = forward(x, w, b, **case.settings)
        z, after_cache = after_forward(y)
        fused, fused_cache = forward(x, w, b, **case.settings, activation=activation)
        np.testing.assert_allclose(fused, z, rtol=tolerance, atol=0)
        dy = case.upstream(y)
        dy.flags.writeable = False
        fused[...] = np.nan  # the cache is not what was given away
        expected = backward(after_backward(dy, after_cache), cache)
        for gradient, wanted in zip(backward(dy, fused_cache), expected, strict=True):
            assert (gradient is None) == (wanted is None)
            assert gradient is None or np.array_equal(gradient, wanted)

    run()


@pytest.mark.parametrize("op", LAYERS)
def test_the_kinks_of_an_activation_in_the_same_pass_have_no_gradient(op):
    x = np.array([-1.0, 0.0, 3.0, 6.0, 7.0]).reshape((5, 1) if op == "linear" else (5, 1, 1, 1))
    w = np.ones({"conv2d": (1, 1, 1, 1), "depthwise_conv2d": (1, 1, 1)}.get(op, (1, 1)))
    for activation, y, dx in (("relu", [0, 0, 3, 6, 7], [0, 0, 1, 1, 1]), ("relu6", [0, 0, 3, 6, 6], [0, 0, 1, 0, 0])):
        actual, cache = getattr(ops, f"{op}_forward")(x, w, activation=activation)
        assert actual.ravel().tolist() == y
        assert getattr(ops, f"{op}_backward")(np.ones_like(x), cache)[0].ravel().tolist() == dx


@pytest.mark.parametrize("pixels, C", [(2517, 7), (5, 9000), (8192, 1), (3, 2)])
def test_every_pixel_gets_the_bias(pixels, C, rng):
    """Several pixels at a time, and those that are left over at the end."""
    x, w, b = rng.standard_normal((pixels, 2)), rng.standard_normal((2, C)), rng.standard_normal(C)
    y, _ = ops.linear_forward(x, w, b, activation="relu6")
    assert_close("y", y, np.clip(x @ w + b, 0, 6), 1e-13)


@pytest.mark.parametrize("shape", [(40, 3), (2, 20, 1, 3), (1, 7, 9, 3)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_swish_in_the_same_pass_overflows_nowhere(dtype, shape, rng, monkeypatch):
    monkeypatch.setattr(parallel, "PIECE_BYTES", 200)  # some lines at a time
    y = (10 ** rng.uniform(-3, 4, shape) * rng.choice([-1, 1], shape)).astype(dtype)
    expected = ops.swish_forward(y)[0]
    finish_of("op", None, "swish", y)(y)
    assert y.min() < 0 and y.dtype == dtype
    nothing = 1e4 * np.finfo(dtype).tiny  # where exp(-x) is too large for the dtype, or nearly so
    np.testing.assert_allclose(y, expected, rtol=10 * np.finfo(dtype).eps, atol=nothing)


@pytest.mark.parametrize("op", LAYERS)
def test_an_activation_in_the_same_pass_is_relu_relu6_or_swish(op):
    x = np.ones((2, 1) if op == "linear" else (2, 1, 1, 1))
    w = np.ones({"conv2d": (1, 1, 1, 1), "depthwise_conv2d": (1, 1, 1)}.get(op, (1, 1)))
    forward = getattr(ops, f"{op}_forward")
    for other in ("sigmoid", ["relu"]):
        with pytest.raises(ValueError, match=f'{op}: activation must be "relu", "relu6", "swish" or None, got '):
            forward(x, w, activation=other)
    with pytest.raises(ValueError, match=f"{op}: has a kink"):
        forward(x + 0j, w, activation="relu")
