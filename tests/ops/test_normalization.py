"""Batch norm in both modes, in 2-D and 4-D, and local response normalization."""

import numpy as np
import pytest
from hypothesis import given

from npnets import ops, parallel, reference
from tests.oracles import Case, assert_close, check_against_reference, check_gradients
from tests.strategies import batch_norm_cases, local_response_norm_cases


def batch_norm(case, x=None, **changes):
    """Call the op on fresh copies; return y, the cache and the two running arrays."""
    args, kwargs = case.arguments()
    args = args if x is None else (x, *args[1:])
    y, cache = ops.batch_norm_forward(*args, **{**kwargs, **changes})
    return y, cache, args[3], args[4]


def drawn_case(rng, shape=(5, 3, 4, 2), training=True, **settings):
    """Make one case with channels of different mean and scale."""
    C = shape[-1]
    x = rng.standard_normal(shape) * rng.uniform(0.5, 3, C) + rng.uniform(-5, 5, C)
    gamma, beta, running_mean = rng.standard_normal((3, C))
    settings = {"training": training, "decay": 0.9, "eps": 1e-3, **settings}
    return Case("batch_norm", (x, gamma, beta), (running_mean, rng.uniform(0.5, 3, C)), settings, seed=7)


# With an activation in the same pass


@pytest.mark.parametrize("activation", ["relu", "relu6"])
@given(batch_norm_cases())
def test_an_activation_in_the_same_pass_is_that_of_the_op_after_it(activation, case):
    act_forward, act_backward = (getattr(ops, f"{activation}_{way}") for way in ("forward", "backward"))
    y, cache, *running = batch_norm(case)
    z, act_cache = act_forward(y)
    fused, fused_cache, *fused_running = batch_norm(case, activation=activation)
    np.testing.assert_array_equal(fused, z)
    np.testing.assert_array_equal(fused_running, running)
    dy = np.random.default_rng(case.seed).standard_normal(y.shape)
    dy.flags.writeable = False
    expected = ops.batch_norm_backward(act_backward(dy, act_cache), cache)
    for gradient, wanted in zip(ops.batch_norm_backward(dy, fused_cache), expected):
        np.testing.assert_array_equal(gradient, wanted)


def test_other_activations_are_refused(rng):
    with pytest.raises(ValueError, match=r'batch_norm: activation must be "relu", "relu6" or None, got .swish.'):
        batch_norm(drawn_case(rng), activation="swish")


# By hand


@pytest.mark.parametrize("shape", [(2, 1), (2, 1, 1, 1), (1, 1, 2, 1)])
def test_training_by_hand(shape):
    x = np.array([1.0, 3.0]).reshape(shape)  # mu = 2, var = ((-1)^2 + 1^2) / 2 = 1
    gamma, beta = np.array([4.0]), np.array([10.0])
    running_mean, running_var = np.array([5.0]), np.array([7.0])
    y, cache = ops.batch_norm_forward(
        x, gamma, beta, running_mean, running_var, training=True, decay=0.75, eps=3.0
    )  # sqrt(var + eps) = sqrt(1 + 3) = 2, x_hat = -1/2 and 1/2
    assert y.ravel().tolist() == [10 - 4 / 2, 10 + 4 / 2]
    assert running_mean.tolist() == [0.75 * 5 + 0.25 * 2]
    assert running_var.tolist() == [0.75 * 7 + 0.25 * 2 * 1]  # m / (m - 1) = 2

    dx, dgamma, dbeta = ops.batch_norm_backward(np.array([1.0, 3.0]).reshape(shape), cache)
    assert dbeta.tolist() == [1 + 3]
    assert dgamma.tolist() == [-1 / 2 + 3 / 2]
    # dl/dx_hat = 4, 12.   dl/dvar = (4 (-1) + 12 (1)) (-1/2) 4^(-3/2) = -1/2.   dl/dmu = -(4 + 12) / 2 + 0 = -8.
    assert_close("dx", dx.ravel(), [4 / 2 - 1 / 2 * 2 * -1 / 2 - 8 / 2, 12 / 2 - 1 / 2 * 2 * 1 / 2 - 8 / 2], 1e-15)


def test_inference_by_hand():
    x = np.array([[1.0, 0.0], [3.0, 2.0]])
    gamma, beta = np.array([4.0, 3.0]), np.array([10.0, -1.0])
    running_mean, running_var = np.array([5.0, 1.0]), np.array([1.0, 6.0])
    y, cache = ops.batch_norm_forward(x, gamma, beta, running_mean, running_var, training=False, eps=3.0)
    # x_hat = (x - 5) / 2 and (x - 1) / 3
    assert_close("y", y, [[4 * -2 + 10, 3 * -1 / 3 - 1], [4 * -1 + 10, 3 * 1 / 3 - 1]], 1e-15)
    dx, dgamma, dbeta = ops.batch_norm_backward(np.array([[1.0, 2.0], [10.0, 5.0]]), cache)
    assert_close("dx", dx, [[4 / 2 * 1, 3 / 3 * 2], [4 / 2 * 10, 3 / 3 * 5]], 1e-15)
    assert_close("dgamma", dgamma, [-2 * 1 + -1 * 10, -1 / 3 * 2 + 1 / 3 * 5], 1e-15)
    assert_close("dbeta", dbeta, [11, 7], 1e-15)


# Loops and numerical gradients


@given(batch_norm_cases())
def test_equals_the_loops(case):
    check_against_reference(case)


@pytest.mark.parametrize("training", [True, False])
def test_gradients_equal_complex_steps(training):
    @given(batch_norm_cases(training))
    def run(case):
        check_gradients(case)

    run()


@given(local_response_norm_cases())
def test_local_response_norm_equals_the_loops(case):
    check_against_reference(case)


@given(local_response_norm_cases())
def test_local_response_norm_gradients_equal_complex_steps(case):
    check_gradients(case)


# Algebra


@given(batch_norm_cases(training=False))
def test_inference_is_an_affine_map(case):
    """y = scale x + shift: a pointwise convolution with a diagonal matrix and a bias."""
    x, gamma, beta = case.inputs
    running_mean, running_var = case.extra
    scale = gamma / np.sqrt(running_var + case.settings["eps"])
    shift = beta - scale * running_mean
    y, cache, *_ = batch_norm(case)
    rows, rows_cache = ops.linear_forward(x.reshape(-1, len(gamma)), np.diag(scale), shift)
    assert_close("y", y.reshape(rows.shape), rows, 1e-12)
    dy = case.upstream(y)
    dx, _, _ = ops.batch_norm_backward(dy, cache)
    assert_close("dx", dx.reshape(rows.shape), ops.linear_backward(dy.reshape(rows.shape), rows_cache)[0], 1e-12)


@given(batch_norm_cases(training=True))
def test_training_gives_mean_beta_and_variance_gamma_squared(case):
    x, gamma, beta = case.inputs
    axes = tuple(range(x.ndim - 1))
    y, *_ = batch_norm(case)
    var = x.var(axis=axes)
    assert_close("mean", y.mean(axis=axes), beta, 1e-11)
    assert_close("variance", y.var(axis=axes), gamma**2 * var / (var + case.settings["eps"]), 1e-11)


@given(batch_norm_cases(training=True))
def test_training_does_not_see_a_shift_of_a_channel(case):
    """So the gradient has no component along it: dx sums to zero in every channel (nor does a bias before it learn)."""
    x, gamma, _ = case.inputs
    shift = 10 * np.random.default_rng(case.seed).standard_normal(len(gamma))
    y, cache, *_ = batch_norm(case)
    shifted, *_ = batch_norm(case, x=x + shift)
    assert_close("y", shifted, y, 1e-10)
    dx, _, _ = ops.batch_norm_backward(case.upstream(y), cache)
    axes = tuple(range(x.ndim - 1))
    assert np.all(np.abs(dx.sum(axis=axes)) <= 1e-12 * np.abs(dx).sum(axis=axes) + 1e-14)


@given(batch_norm_cases())
def test_images_are_normalized_over_all_their_pixels(case):
    """(N, H, W, C) is the same as (N H W, C): statistics per channel, not per pixel."""
    x = case.inputs[0]
    rows = Case("batch_norm", (x.reshape(-1, x.shape[-1]), *case.inputs[1:]), case.extra, case.settings, case.seed)
    y, cache, *running = batch_norm(case)
    rows_y, rows_cache, *rows_running = batch_norm(rows)
    assert_close("y", y.reshape(rows_y.shape), rows_y, 1e-12)
    assert_close("running statistics", running, rows_running, 1e-12)
    dy = case.upstream(y)
    for gradient, expected in zip(
        ops.batch_norm_backward(dy, cache), ops.batch_norm_backward(dy.reshape(rows_y.shape), rows_cache)
    ):
        assert_close("gradient", gradient.reshape(expected.shape), expected, 1e-11)


# Running statistics


def test_decay_weighs_the_old_statistic(rng):
    """decay 0.99 is PyTorch's momentum 0.01. Taken the other way round, one batch would replace the whole history."""
    case = drawn_case(rng, decay=0.99)
    x, (old_mean, old_var) = case.inputs[0], case.extra
    axes, m = (0, 1, 2), 5 * 3 * 4
    _, _, running_mean, running_var = batch_norm(case)
    assert_close("mean", running_mean, 0.99 * old_mean + 0.01 * x.mean(axis=axes), 1e-13)
    assert_close("variance", running_var, 0.99 * old_var + 0.01 * m / (m - 1) * x.var(axis=axes), 1e-13)


def test_the_stored_variance_is_unbiased_and_the_one_that_normalizes_is_not():
    x = np.array([[1.0], [2.0], [3.0], [6.0]])  # mu = 3, squares 4 + 1 + 0 + 9 = 14
    running_mean, running_var = np.zeros(1), np.zeros(1)
    y, _ = ops.batch_norm_forward(
        x, np.ones(1), np.zeros(1), running_mean, running_var, training=True, decay=0.0, eps=1e-12
    )
    assert_close("stored", running_var, [14 / 3], 1e-15)
    assert_close("y", y[:, 0], np.array([-2, -1, 0, 3]) / np.sqrt(14 / 4), 1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_running_arrays_change_in_place_and_only_in_training(dtype, rng):
    case = drawn_case(rng).as_type(dtype)
    args, kwargs = case.arguments()
    running_mean, running_var = args[3], args[4]
    before = running_mean.copy(), running_var.copy()
    ops.batch_norm_forward(*args, **{**kwargs, "training": False})
    assert np.array_equal(running_mean, before[0]) and np.array_equal(running_var, before[1])
    _, cache = ops.batch_norm_forward(*args, **kwargs)
    assert np.all(running_mean != before[0]) and np.all(running_var != before[1])
    after = running_mean.copy(), running_var.copy()
    ops.batch_norm_backward(rng.standard_normal(args[0].shape).astype(dtype), cache)
    assert np.array_equal(running_mean, after[0]) and np.array_equal(running_var, after[1])
    assert running_mean.dtype == running_var.dtype == dtype


def test_a_later_training_step_does_not_reach_into_the_cache_of_an_inference(rng):
    case = drawn_case(rng, training=False)
    args, kwargs = case.arguments()
    y, cache = ops.batch_norm_forward(*args, **kwargs)
    dy = case.upstream(y)
    expected = ops.batch_norm_backward(dy, cache)
    args[3][...] = 100.0
    args[4][...] = 0.01
    for gradient, expected_gradient in zip(ops.batch_norm_backward(dy, cache), expected):
        assert np.array_equal(gradient, expected_gradient)


# Precision


@pytest.mark.parametrize("piece_bytes", [1 << 20, 2000])
@pytest.mark.parametrize("shape", [(4000, 2), (4, 30, 40, 2)])
def test_float32_variance_far_from_zero(shape, piece_bytes, rng, monkeypatch):
    """At mean 1000 and variance 1, E[x^2] - E[x]^2 is 10 % wrong in float32; so could be the joining of pieces."""
    monkeypatch.setattr(parallel, "PIECE_BYTES", piece_bytes)
    x = (1000 + rng.standard_normal(shape)).astype(np.float32)
    case = Case(
        "batch_norm",
        (x, np.array([1.5, -0.5], np.float32), np.array([0.3, 2.0], np.float32)),
        (np.zeros(2), np.zeros(2)),
        {"training": True, "decay": 0.0},
        seed=3,
    )
    y, cache, running_mean, running_var = batch_norm(case)
    exact = x.astype(np.float64).reshape(-1, 2)
    assert_close("mean", running_mean, exact.mean(axis=0), 1e-6)
    assert_close("variance", running_var, exact.var(axis=0, ddof=1), 1e-4)
    (x_, gamma, beta, *running), kwargs = case.as_type(np.float64).arguments()
    assert_close("y", y, reference.batch_norm(x_, gamma, beta, *running, **kwargs), 1e-4)
    dy = case.upstream(y).astype(np.float32)
    expected = reference.batch_norm_backward(dy, x_, gamma, beta, *running, **kwargs)
    for k, gradient in enumerate(ops.batch_norm_backward(dy, cache)):
        assert_close(["dx", "dgamma", "dbeta"][k], gradient, expected[k], 1e-3)


@pytest.mark.parametrize("single", ["x", "dy"])
def test_sums_are_kept_in_the_wider_dtype_of_x_and_dy(single, rng):
    case = drawn_case(rng)
    args, kwargs = case.arguments()
    x = args[0].astype(np.float32 if single == "x" else np.float64)
    dy = rng.standard_normal(x.shape).astype(np.float32 if single == "dy" else np.float64)
    _, cache = ops.batch_norm_forward(x, *args[1:], **kwargs)
    expected = ops.batch_norm_backward(dy.astype(np.float64), cache)
    for name, gradient, wanted in zip(("dx", "dgamma", "dbeta"), ops.batch_norm_backward(dy, cache), expected):
        assert gradient.dtype == np.float64, name
        assert_close(name, gradient, wanted, 1e-13)


def test_a_constant_channel_gives_beta(rng):
    x = np.full((8, 2, 2, 1), 0.1, np.float32)
    beta, running = np.array([2.5], np.float32), np.ones((2, 1), np.float32)
    y, cache = ops.batch_norm_forward(x, np.array([3.0], np.float32), beta, *running, training=True)
    assert_close("y", y, np.full(x.shape, 2.5), 1e-5)
    dx, _, _ = ops.batch_norm_backward(rng.standard_normal(x.shape).astype(np.float32), cache)
    assert np.all(np.isfinite(dx))


# Errors


@pytest.mark.parametrize("shape", [(1, 3), (1, 1, 1, 3)])
def test_one_value_a_channel_cannot_be_normalized_in_training(shape):
    vectors = [np.ones(3) for _ in range(4)]
    with pytest.raises(ValueError, match=r"batch_norm.*at least 2 .*; use a larger batch"):
        ops.batch_norm_forward(np.ones(shape), *vectors, training=True)
    assert all(np.array_equal(v, np.ones(3)) for v in vectors)  # and nothing was updated before it noticed
    y, _ = ops.batch_norm_forward(np.ones(shape), *vectors, training=False)  # inference does not mind
    assert y.shape == shape


@pytest.mark.parametrize("name", ["gamma", "beta", "running_mean", "running_var"])
@pytest.mark.parametrize("wrong", [(2,), (1, 3), ()])
def test_a_vector_of_the_wrong_shape_is_named(name, wrong):
    names = ["gamma", "beta", "running_mean", "running_var"]
    vectors = [np.ones(wrong if n == name else 3) for n in names]
    with pytest.raises(ValueError) as error:
        ops.batch_norm_forward(np.ones((4, 5, 6, 3)), *vectors, training=True)
    for words in ["batch_norm", name, str(wrong), "(4, 5, 6, 3)"]:
        assert words in str(error.value)


def test_other_misuses_of_batch_norm_are_named():
    vectors = [np.ones(3) for _ in range(4)]
    with pytest.raises(ValueError, match=r"batch_norm.*\(3,\)"):
        ops.batch_norm_forward(np.ones(3), *vectors, training=True)
    with pytest.raises(ValueError, match=r"batch_norm.*int64"):
        ops.batch_norm_forward(np.ones((4, 3), np.int64), *vectors, training=True)


# Local response normalization


def test_local_response_norm_by_hand():
    x = np.array([[1.0, 2.0, 3.0]])
    y, cache = ops.local_response_norm_forward(x, size=3, alpha=2.0, beta=1.0, k=1.0)
    s = [1 + 2 * (1 + 4), 1 + 2 * (1 + 4 + 9), 1 + 2 * (4 + 9)]  # 11, 29, 27: alpha is not divided by the size
    assert_close("y", y, [[1 / s[0], 2 / s[1], 3 / s[2]]], 1e-15)
    dx = ops.local_response_norm_backward(np.array([[121.0, 0.0, 0.0]]), cache)
    # dy/dx_0 = 1 / s_0 - x_0 2 alpha x_0 / s_0^2,   dy/dx_1 = - x_0 2 alpha x_1 / s_0^2,   channel 2 is no neighbour
    assert_close("dx", dx, [[121 / 11 - 1 * 4 * 1, -1 * 4 * 2, 0.0]], 1e-14)


def test_local_response_norm_of_alexnet_by_default(rng):
    x = rng.standard_normal((2, 3, 3, 7))
    y, _ = ops.local_response_norm_forward(x)
    assert_close("y", y, reference.local_response_norm(x, size=5, alpha=1e-4, beta=0.75, k=2.0), 1e-13)


@given(local_response_norm_cases())
def test_local_response_norm_of_all_channels_is_one_common_factor(case):
    (x,) = case.inputs
    settings = {**case.settings, "size": 2 * x.shape[-1] + 1}
    y, _ = ops.local_response_norm_forward(x, **settings)
    s = settings["k"] + settings["alpha"] * (x**2).sum(axis=-1, keepdims=True)
    assert_close("y", y, x / s ** settings["beta"], 1e-13)


@pytest.mark.parametrize("size", [0, -1, 2, 4, 2.5])
def test_local_response_norm_needs_an_odd_size(size):
    with pytest.raises(ValueError, match=f"local_response_norm.*size.*{size}"):
        ops.local_response_norm_forward(np.ones((1, 2, 2, 3)), size=size)
