"""Kernels as sums of separable ones: the identities, that the sum is the best one, and what is refused."""

import numpy as np
import pytest

from npnets import ops
from npnets.ops import separable


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_a_kernel_worked_by_hand():
    """Two outputs with patterns at right angles: two terms, of the lengths of the patterns."""
    w = np.zeros((1, 2, 1, 2))
    w[0, :, 0, 0] = 3, 4  # length 5
    w[0, :, 0, 1] = -8, 6  # length 10
    assert separable.singular_values(w) == pytest.approx(np.array([[10.0, 5.0]]))
    depthwise, pointwise = separable.best_terms(w)
    assert depthwise[:, 0, :, 0] == pytest.approx(np.array([[0.8, -0.6], [0.6, 0.8]]))
    assert pointwise[:, 0] == pytest.approx(np.array([[0.0, -10.0], [5.0, 0.0]]))


@pytest.mark.parametrize("shape", [(3, 3, 4, 5), (3, 3, 2, 12), (1, 3, 2, 7), (5, 2, 1, 1)])
def test_all_terms_together_are_the_kernel(rng, shape):
    w = rng.standard_normal(shape)
    depthwise, pointwise = separable.best_terms(w)
    most = min(shape[0] * shape[1], shape[3])
    assert depthwise.shape == (most, *shape[:3]) and pointwise.shape == (most, *shape[2:])
    np.testing.assert_allclose(separable.kernel_of(depthwise, pointwise), w, atol=1e-12)
    np.testing.assert_allclose((depthwise**2).sum(axis=(1, 2)), 1)


def test_one_term_is_a_depthwise_and_a_pointwise_convolution(rng):
    x, depthwise, pointwise = (rng.standard_normal(shape) for shape in ((2, 6, 5, 3), (3, 3, 3), (3, 4)))
    settings = {"stride": (2, 1), "dilation": (1, 2)}
    filtered, _ = ops.depthwise_conv2d_forward(x, depthwise, **settings)
    combined, _ = ops.pointwise_conv2d_forward(filtered, pointwise)
    w = separable.kernel_of(depthwise[None], pointwise[None])
    np.testing.assert_allclose(ops.conv2d_forward(x, w, **settings)[0], combined, atol=1e-12)
    values = separable.singular_values(w)
    np.testing.assert_allclose(values[:, 1:], 0, atol=1e-12)
    found = separable.kernel_of(*separable.best_terms(w, 1))
    np.testing.assert_allclose(found, w, atol=1e-12)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_what_is_missing_is_what_the_singular_values_say(rng, count):
    w = rng.standard_normal((3, 3, 4, 6))
    missing = w - separable.kernel_of(*separable.best_terms(w, count))
    values = separable.singular_values(w)
    np.testing.assert_allclose((missing**2).sum(axis=(0, 1, 3)), (values[:, count:] ** 2).sum(axis=1))
    assert (values**2).sum() == pytest.approx((w**2).sum())


def test_no_step_away_from_the_best_terms_comes_nearer(rng):
    """The slope of the squared error is zero there, and kernels farther away are worse."""
    w = rng.standard_normal((3, 3, 3, 5))
    depthwise, pointwise = separable.best_terms(w, 2)

    def error(d, p):
        return ((w - separable.kernel_of(d, p)) ** 2).sum()

    best = error(depthwise, pointwise)
    for _ in range(20):
        d, p = rng.standard_normal(depthwise.shape), rng.standard_normal(pointwise.shape)
        slope = error(depthwise + 1e-5 * d, pointwise + 1e-5 * p) - error(depthwise - 1e-5 * d, pointwise - 1e-5 * p)
        assert abs(slope) / 2e-5 < 1e-6
        assert error(depthwise + 0.3 * d, pointwise + 0.3 * p) > best


def test_the_sign_of_a_term_is_settled(rng):
    for w in (rng.standard_normal((3, 3, 2, 4)), -rng.standard_normal((3, 3, 2, 4))):
        depthwise, _ = separable.best_terms(w)
        flat = depthwise.reshape(len(depthwise), 9, 2)
        assert (flat.max(axis=1) == np.abs(flat).max(axis=1)).all()


def test_float32_stays_float32_and_the_kernel_is_not_written_to(rng):
    w = rng.standard_normal((3, 3, 2, 4)).astype(np.float32)
    w.flags.writeable = False
    for array in separable.best_terms(w, 2):
        assert array.dtype == np.float32 and array.flags.c_contiguous
    assert separable.singular_values(w).dtype == np.float64


def test_a_kernel_of_zeros_has_terms_of_zeros():
    depthwise, pointwise = separable.best_terms(np.zeros((3, 3, 2, 4)))
    assert np.isfinite(depthwise).all() and not pointwise.any()


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: separable.singular_values(np.zeros((3, 3, 4))), r"\(K_h, K_w, C_in, C_out\), got \(3, 3, 4\)"),
        (lambda: separable.singular_values(np.zeros((3, 3, 0, 4))), r"got \(3, 3, 0, 4\)"),
        (lambda: separable.singular_values(np.zeros((3, 3, 2, 4), int)), "real floating-point numbers.*int64"),
        (lambda: separable.singular_values(np.zeros((3, 3, 2, 4), complex)), "complex128"),
        (lambda: separable.singular_values([1.0]), "NumPy array"),
        (lambda: separable.best_terms(np.zeros((3, 3, 2, 4)), 5), "has 4 separable terms in each channel, not 5"),
        (lambda: separable.best_terms(np.zeros((3, 3, 2, 4)), 0), "count must be at least 1"),
        (lambda: separable.best_terms(np.zeros((3, 3, 2, 4)), 1.5), "count must be an integer"),
        (lambda: separable.kernel_of(np.zeros((1, 3, 3, 2)), np.zeros((2, 2, 4))), r"\(1, 3, 3, 2\) and \(2, 2, 4\)"),
        (lambda: separable.kernel_of(np.zeros((1, 3, 3, 2)), np.zeros((1, 3, 4))), r"\(1, 3, 3, 2\) and \(1, 3, 4\)"),
        (lambda: separable.kernel_of(np.zeros((3, 3, 2)), np.zeros((2, 4))), r"\(3, 3, 2\) and \(2, 4\)"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(call, words):
    with pytest.raises(ValueError, match=words):
        call()
