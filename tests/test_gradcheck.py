"""The checks themselves: right gradients pass, wrong ones do not, and nothing a student passes in is harmed."""

import copy
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npnets import nn, ops
from npnets.gradcheck import (
    central_differences,
    check_everything,
    check_module,
    check_op,
    complex_step,
    names_of_everything,
    relative_error,
)
from npnets.gradcheck.report import Report, Row

# --- Numerical gradients ---------------------------------------------------------------------------------------------


def f(x, w):
    """An analytic function of two inputs, and its gradients for an upstream dy."""
    return np.exp(x) * np.sin(w)


def f_gradients(x, w, dy):
    return dy * np.exp(x) * np.sin(w), dy * np.exp(x) * np.cos(w)


@given(st.integers(0, 2**32 - 1))
def test_both_methods_give_the_derivative_to_their_accuracy(seed):
    x, w, dy = np.random.default_rng(seed).standard_normal((3, 2, 3))
    for numerical, right in zip(complex_step(f, (x, w), dy), f_gradients(x, w, dy)):
        np.testing.assert_allclose(numerical, right, rtol=1e-14)
    for numerical, right in zip(central_differences(f, (x, w), dy), f_gradients(x, w, dy)):
        assert relative_error(numerical, right).max() < 1e-7


def test_differences_have_a_best_step_and_a_complex_step_does_not(rng):
    x, w, dy = rng.standard_normal((3, 4))
    right = f_gradients(x, w, dy)[0]

    def error(method, h):
        return relative_error(method(f, (x, w), dy, h=h)[0], right).max()

    too_long, best, too_short = (error(central_differences, h) for h in (1e-1, 1e-5, 1e-12))
    assert best < 1e-8 < 1e-6 < min(too_long, too_short)
    assert max(error(complex_step, h) for h in (1e-10, 1e-20, 1e-100)) < 1e-14


def test_the_step_is_scaled_to_the_number():
    """At x = 1e12 a step of 1e-6 would be lost to rounding."""
    gradient = central_differences(lambda x: x**2, np.array([1e12]), np.array([1.0]))
    np.testing.assert_allclose(gradient, [2e12], rtol=1e-8)


@pytest.mark.parametrize("method", [complex_step, central_differences])
def test_a_cache_integers_and_settings_are_no_obstacle(method, rng):
    logits, labels = rng.standard_normal((4, 3)), np.array([0, 2, 1, 1])
    (gradient,) = method(ops.softmax_cross_entropy_forward, (logits, labels), 1.5)
    right = ops.softmax_cross_entropy_backward(1.5, ops.softmax_cross_entropy_forward(logits, labels)[1])
    np.testing.assert_allclose(gradient, right, atol=1e-9)
    for two in (2.0, np.array(2.0), np.array([2.0])):
        alone = method(lambda x: x**3, two, np.ones_like(two))
        assert alone == pytest.approx(12, rel=1e-9) and alone.shape == np.shape(two)


@pytest.mark.parametrize("method", [complex_step, central_differences])
def test_wrt_selects_inputs_and_nothing_is_written_into_them(method, rng):
    inputs = batch_norm_inputs(rng)
    x, _, beta, *_ = inputs
    before = copy.deepcopy(inputs)

    def forward(*arrays):
        return ops.batch_norm_forward(*arrays, training=True)

    gradients = method(forward, inputs, rng.standard_normal(x.shape), wrt=(2,))
    assert [g.shape for g in gradients] == [beta.shape]
    for array, old in zip(inputs, before):  # the running statistics too
        np.testing.assert_array_equal(array, old)


def test_complex_step_refuses_what_is_not_analytic(rng):
    x = rng.standard_normal(3)

    def loses_it_with_a_warning(x):
        y = np.zeros(3)
        y[...] = x
        return y

    for function, words in [
        (ops.relu_forward, "complex numbers"),
        (loses_it_with_a_warning, "does not take complex numbers"),
        (lambda x: np.hypot(x, 1.0), "does not take complex numbers"),
        (lambda x: np.abs(x), "drops the imaginary part"),
        (lambda x: x.real, "drops the imaginary part"),
        (lambda x: x * x.real, "not analytic"),
    ]:
        with warnings.catch_warnings(), pytest.raises(ValueError, match=words):
            warnings.simplefilter("ignore")  # outside of these tests, warnings are not errors
            complex_step(function, x, rng.standard_normal(3))


def test_a_strongly_curved_function_is_not_taken_for_one_that_is_not_analytic():
    np.testing.assert_allclose(complex_step(lambda x: x**3, np.array([1e-5]), np.array([1.0])), [3e-10], rtol=1e-12)


def test_a_variance_of_complex_numbers_is_not_believed(rng):
    """np.var takes the modulus: its complex derivative is zero, as if the variance were a constant."""
    x, dy = rng.standard_normal((5, 3)), rng.standard_normal(3)
    with pytest.raises(ValueError, match=r"not analytic.*var of complex"):
        complex_step(lambda x: x * x.var(axis=0), x, rng.standard_normal((5, 3)))
    right = 2 * dy * (x - x.mean(axis=0)) / 5
    gradient = complex_step(lambda x: ((x - x.mean(axis=0)) ** 2).mean(axis=0), x, dy)
    np.testing.assert_allclose(gradient, right, rtol=1e-12)


@pytest.mark.parametrize("h", [1e-1, 1e-3])
def test_a_step_that_is_too_long_is_inaccurate_but_no_error(h, rng):
    """The plot of error against step size needs it."""
    x, w, dy = rng.standard_normal((3, 4))
    assert 1e-9 < relative_error(complex_step(f, (x, w), dy, h=h)[0], f_gradients(x, w, dy)[0]).max() < 1e-1


@pytest.mark.parametrize("method", [complex_step, central_differences])
def test_a_function_may_write_into_what_it_is_given(method):
    def doubled(x):
        x *= 2
        return x

    np.testing.assert_allclose(method(doubled, np.array([1.0, 3.0]), np.array([1.0, 1.0])), [2, 2], rtol=1e-9)


@pytest.mark.parametrize("method", [complex_step, central_differences])
def test_dy_of_another_shape_is_refused(method):
    with pytest.raises(ValueError, match=r"shape of the function's output \(3,\), got \(2, 3\)"):
        method(lambda x: x * x, np.ones(3), np.ones((2, 3)))


def test_relative_error_is_sensible_near_zero():
    numerical = np.array([1.0, 1e-14, 0.0])
    np.testing.assert_allclose(relative_error(numerical + [0, 1e-13, 1e-13], numerical), [0, 1e-11, 1e-11], rtol=1e-3)
    assert relative_error(np.zeros(2), np.zeros(2)).tolist() == [0, 0]
    assert relative_error(-numerical, numerical)[0] == 1


# --- check_op --------------------------------------------------------------------------------------------------------


def batch_norm_inputs(rng, shape=(3, 4, 2, 3)):
    C = shape[-1]
    x = rng.standard_normal(shape) * 2 + 1
    return x, rng.uniform(0.5, 2, C), rng.standard_normal(C), rng.standard_normal(C), rng.uniform(0.5, 2, C)


def cube(x):
    return x**3, x


def cube_backward(dy, x):
    return 3 * x**2 * dy


def test_a_right_backward_passes_and_the_report_says_where_the_largest_error_is(rng):
    report = check_op(cube, cube_backward, rng.standard_normal((2, 3)))
    (row,) = report.rows
    assert report.passed and row.name == "dx" and row.method == "complex step" and row.error < 1e-14
    assert len(row.where) == 2 and row.analytic == pytest.approx(row.numerical, rel=1e-12)


@pytest.mark.parametrize("relative, verdict", [(1e-12, "ok"), (1e-7, "suspicious"), (1e-3, "WRONG")])
def test_the_verdict_follows_the_size_of_the_error(rng, relative, verdict):
    report = check_op(cube, lambda dy, x: cube_backward(dy, x) * (1 + relative), rng.standard_normal(5))
    assert report.rows[0].verdict == verdict
    assert report.passed == (verdict == "ok")


def test_one_wrong_element_is_found_and_located(rng):
    def backward(dy, x):
        dx = cube_backward(dy, x)
        dx[1, 2] += 1
        return dx

    (row,) = check_op(cube, backward, rng.standard_normal((3, 4))).rows
    assert row.verdict == "WRONG" and row.where == (1, 2) and row.analytic - row.numerical == pytest.approx(1)
    assert "1 of 12" in row.note


@pytest.mark.parametrize(
    "backward, expected",
    [
        (lambda dy, x: cube_backward(dy, x)[:1], "shape"),
        (lambda dy, x: cube_backward(dy, x) * np.nan, "nan"),
        (lambda dy, x: None, "None"),
        (lambda dy, x: ..., "not an array"),
        (lambda dy, x: "dx", "not an array"),
        (lambda dy, x: [[1.0], [1.0, 2.0]], "gradients"),
        (lambda dy, x: cube_backward(dy, x) + 1j, "complex"),
        (lambda dy, x: dy / 0, "it contains inf|it contains -inf"),
        (lambda dy, x: undefined_name, "NameError"),  # noqa: F821
        (lambda dy: dy, "TypeError"),
        (lambda dy, x: cube_backward(dy, x).astype(np.float32), "float32"),
        (lambda dy, x: (), "None"),
    ],
)
def test_any_wrong_answer_gives_a_report_and_no_exception(rng, backward, expected):
    report = check_op(cube, backward, rng.standard_normal((4, 2)))
    assert not report.passed
    assert any(word in str(report) for word in expected.split("|")), str(report)
    assert report._repr_html_()


def test_a_forward_that_fails_gives_a_report_too():
    for forward in (lambda x: 1 / 0, lambda x: x * x, lambda x: (x > 0, x), lambda: None):
        report = check_op(forward, cube_backward, np.ones(3))
        assert not report.passed and report.rows[0].name == "forward"


def test_only_what_is_not_a_function_and_unknown_names_are_refused():
    for arguments, message in [((None, cube_backward), "forward must be"), ((cube, 3), "backward must be")]:
        with pytest.raises(ValueError, match=message):
            check_op(*arguments, np.ones(2))
    with pytest.raises(ValueError, match="method must be"):
        check_op(cube, cube_backward, np.ones(2), method="symbolic")
    with pytest.raises(ValueError, match=r"op must be one of .*depthwise_conv2d"):
        check_op(cube, cube_backward, np.ones(2), op="conv3d")


def test_writing_into_an_input_or_dy_is_reported(rng):
    def writes_dy(dy, x):
        dy *= 3 * x**2
        return dy.copy()

    def writes_x(dy, x):
        x *= x
        return 3 * x * dy

    for backward, name in ((writes_dy, "dy"), (writes_x, "x")):
        report = check_op(cube, backward, rng.standard_normal(3))
        assert not report.passed and {row.name: row.note for row in report.rows}[name].startswith("was written into")


def test_a_gradient_that_shares_memory_is_reported(rng):
    report = check_op(lambda x: (x + 0.0, x), lambda dy, x: dy, rng.standard_normal(3))
    assert report.rows[0].verdict == "suspicious" and "shares memory with dy" in report.rows[0].note


def test_the_callers_arrays_and_settings_stay_as_they_are(rng):
    inputs, settings = batch_norm_inputs(rng), {"training": True}
    before = copy.deepcopy(inputs)
    check_op(ops.batch_norm_forward, lambda dy, cache: dy.fill(0), inputs, settings=settings)
    for array, old in zip(inputs, before):
        np.testing.assert_array_equal(array, old)
    generator = np.random.default_rng(1)
    state = copy.deepcopy(generator.bit_generator.state)
    dropping = {"rate": 0.5, "training": True, "rng": generator}
    assert check_op(ops.dropout_forward, ops.dropout_backward, np.ones((4, 5)), settings=dropping).passed
    assert generator.bit_generator.state == state


def test_kinks_are_left_out_of_the_comparison_but_not_of_the_diagnosis():
    x = np.array([-1.0, 0.0, 2.0])
    report = check_op(ops.relu_forward, ops.relu_backward, x)
    assert report.passed and "left out: 1 of 3 elements, the first at [1]" in report.rows[0].note
    report = check_op(lambda x: (np.maximum(x, 0), x), lambda dy, x: dy * (x >= 0), x, op="relu")
    assert not report.passed and report.diagnosis.mistakes == ("gradient 1 at the kink",)


def test_differences_are_taken_where_the_complex_step_does_not_apply(rng):
    x = rng.standard_normal(6)
    for forward in (lambda x: (np.abs(x), x), lambda x: (np.hypot(x, 0.0), x)):
        (row,) = check_op(forward, lambda dy, x: dy * np.sign(x), x).rows
        assert row.verdict == "ok" and row.method == "differences"
    # The real part as a number of its own: complex, so it gets past complex_step, but not analytic.
    (row,) = check_op(lambda x: (x * x.real, x), lambda dy, x: 2 * dy * x, x).rows
    assert row.verdict == "ok" and row.method == "differences" and "not analytic" in row.note
    assert not check_op(lambda x: (np.abs(x), x), lambda dy, x: dy, x).passed


@pytest.mark.parametrize("method", ["complex", "differences"])
def test_a_gradient_that_is_zero_is_not_measured_by_its_rounding_errors(rng, method):
    """Like a bias before a batch norm: the mean takes it away again."""

    def forward(x, b):
        y = x + b
        return y - y.mean(axis=0), None

    def backward(dy, _):
        dx = dy - dy.mean(axis=0)
        return dx, dx.sum(axis=0)

    assert check_op(forward, backward, (10 * rng.standard_normal((7, 3)), rng.standard_normal(3)), method=method).passed


def test_single_precision_inputs_are_computed_with_in_double(rng):
    x = rng.standard_normal(4).astype(np.float32)
    assert check_op(cube, cube_backward, x).rows[0].error < 1e-14


def test_an_all_ones_upstream_would_hide_what_a_random_one_shows(rng):
    """Batch norm's output sums to a constant, so with dy = 1 its gradient is zero: for the broken formulas too."""
    inputs = batch_norm_inputs(rng)
    _, cache = ops.batch_norm_forward(*inputs, training=True)

    def broken(dy, cache):
        _, dgamma, dbeta = ops.batch_norm_backward(dy, cache)
        dx = cache.gamma * cache.inv_std * (dy - dy.mean(axis=(0, 1, 2)))  # the path through the variance is missing
        return dx, dgamma, dbeta

    ones = np.ones(inputs[0].shape)
    np.testing.assert_allclose(broken(ones, cache)[0], ops.batch_norm_backward(ones, cache)[0], atol=1e-12)
    report = check_op(ops.batch_norm_forward, broken, inputs, settings={"training": True})
    assert [row.verdict for row in report.rows] == ["WRONG", "ok", "ok"]
    assert report.diagnosis.mistakes == ("variance as a constant",)


@pytest.mark.parametrize("seed", [0, 1])
def test_dy_is_not_what_a_student_draws_with_the_same_seed(seed):
    """With dy = x the gradient of batch norm is nearly zero, whatever the formula."""
    seen = []
    check_op(cube, lambda dy, x: seen.append(dy) or cube_backward(dy, x), np.ones(50), seed=seed)
    assert abs(np.corrcoef(seen[0], np.random.default_rng(seed).standard_normal(50))[0, 1]) < 0.5


def test_known_ops_need_no_settings_to_be_aligned(rng):
    """Labels have no gradient, running statistics neither, a bias may be missing."""
    loss = ops.softmax_cross_entropy_forward, ops.softmax_cross_entropy_backward
    assert [r.name for r in check_op(*loss, (rng.standard_normal((3, 4)), np.array([0, 3, 1]))).rows] == ["dlogits"]
    conv = ops.conv2d_forward, ops.conv2d_backward
    report = check_op(*conv, (rng.standard_normal((1, 4, 3, 2)), rng.standard_normal((2, 3, 2, 3))))
    assert report.passed and [row.name for row in report.rows] == ["dx", "dw"]
    report = check_op(*conv, (rng.standard_normal((1, 4, 3, 2)), rng.standard_normal((2, 3, 2, 3))), names=["F", "K"])
    assert report.passed and [row.name for row in report.rows] == ["dF", "dK"]


def test_several_inputs_of_an_unknown_op_are_taken_in_order(rng):
    def forward(a, b):
        return a * b, (a, b)

    a, b = rng.standard_normal((2, 3))
    assert check_op(forward, lambda dy, c: (dy * c[1], dy * c[0]), (a, b)).passed
    report = check_op(forward, lambda dy, c: dy * c[1], (a, b))
    assert [(row.name, row.verdict) for row in report.rows] == [("da", "ok"), ("db", "WRONG")]
    assert "3 gradients" in str(check_op(forward, lambda dy, c: (dy * c[1], dy * c[0], dy + 0), (a, b)))
    assert check_op(forward, lambda dy, c: dy * c[0], (a, b), wrt=[1]).passed

    def pick(k, x):
        return x[k], (k, x)

    def pick_backward(dy, cache):
        dx = np.zeros_like(cache[1])
        np.add.at(dx, cache[0], dy)
        return None, dx

    assert check_op(pick, pick_backward, (np.array([1, 0, 1]), a)).passed


# --- check_module ----------------------------------------------------------------------------------------------------


def small_network(dtype=np.float64, **wrong):
    rng = np.random.default_rng(3)
    settings = {"rng": rng, "dtype": dtype}
    return nn.Sequential(
        conv=nn.Conv2d(2, 3, 3, bias=True, **settings),
        bn=wrong.get("bn", nn.BatchNorm)(3, dtype=dtype),
        act=nn.ReLU6(),
        pool=nn.GlobalAvgPool(),
        drop=nn.Dropout(0.3, rng=rng),
        fc=wrong.get("fc", nn.Linear)(3, 4, **settings),
    )


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_right_network_passes_in_both_modes_and_precisions(rng, training, dtype):
    report = check_module(small_network(dtype), rng.standard_normal((4, 5, 4, 2)).astype(dtype), training=training)
    assert report.passed, str(report)
    names = ["everything together", "x", "conv.w", "conv.b", "bn.gamma", "bn.beta", "fc.w", "fc.b"]
    assert [row.name for row in report.rows] == names


class GammaForgotten(nn.BatchNorm):
    def apply_backward(self, dy, cache):
        dx, dgamma, dbeta = ops.batch_norm_backward(dy, cache)
        return dx / cache.gamma, dgamma, dbeta


class BiasNotTrained(nn.Linear):
    def backward(self, dy):
        dx = super().backward(dy)
        self.b.grad = None
        return dx


class WeightTransposed(nn.Linear):
    def apply_backward(self, dy, cache):
        dx, dw, db = ops.linear_backward(dy, cache)
        return dx, dw.T, db


def test_a_wrong_layer_is_seen_by_everything_in_front_of_it(rng):
    """gamma is one everywhere at the start: the check must not let that hide a forgotten gamma."""
    report = check_module(small_network(bn=GammaForgotten), rng.standard_normal((4, 5, 4, 2)))
    wrong = [row.name for row in report.rows if row.verdict != "ok"]
    assert wrong == ["everything together", "x", "conv.w"]  # conv.b stands before a batch norm: its gradient is zero


@pytest.mark.parametrize(
    "fc, name, words", [(BiasNotTrained, "fc.b", "no gradient"), (WeightTransposed, "fc.w", "shape")]
)
def test_missing_and_misshaped_gradients_are_named(rng, fc, name, words):
    report = check_module(small_network(fc=fc), rng.standard_normal((4, 5, 4, 2)))
    assert words in {row.name: row.note for row in report.rows}[name]


@given(st.integers(0, 2**32 - 1))
def test_crossing_a_kink_raises_no_false_alarm(seed):
    """Some numbers are nearer to the kink than the first step."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((5, 6))
    x[:2] *= 1e-7 / np.abs(x[:2])
    report = check_module(nn.Sequential(nn.ReLU()), x, seed=seed)
    assert report.passed and "crossed a kink" in report.rows[0].note, str(report)


def test_a_number_exactly_at_a_kink_is_suspicious_and_explained(rng):
    x = rng.standard_normal((5, 6))
    x[0] = 0
    (row,) = check_module(nn.ReLU(), x).rows
    assert row.verdict == "suspicious" and "exactly at a kink" in row.note


def test_the_module_is_left_exactly_as_it_was(rng):
    module = small_network(np.float32)
    x = rng.standard_normal((4, 5, 4, 2)).astype(np.float32)
    module.backward(module.forward(x, training=True))
    before = {name: value.tobytes() for name, value in module.state_dict().items()}
    arrays = [(p.value, p.grad) for p in module.parameters()]
    states = [copy.deepcopy(g.bit_generator.state) for _, g in module.generators()]
    x_before = x.copy()
    check_module(module, x)
    assert {name: value.tobytes() for name, value in module.state_dict().items()} == before
    assert all(p.value is value and p.grad is grad for p, (value, grad) in zip(module.parameters(), arrays))
    assert states and [g.bit_generator.state for _, g in module.generators()] == states
    np.testing.assert_array_equal(x, x_before)


class Noisy(nn.Sequential):
    """Draws random numbers and does not tell."""

    def generators(self):
        return iter(())


def test_hidden_randomness_is_reported(rng):
    report = check_module(Noisy(nn.Dropout(0.5, rng=rng)), rng.standard_normal((5, 6)))
    assert not report.passed and "another output the second time" in str(report)


def test_a_module_that_fails_gives_a_report():
    report = check_module(small_network(), np.ones((2, 5, 4, 7)))
    assert not report.passed and report.rows[0].name == "forward" and "channels" in report.rows[0].note


class Counting(nn.Layer):
    """Another output at each forward: it multiplies by how often it was used."""

    running = ("count",)

    def __init__(self):
        super().__init__()
        self.count = np.array([1.0, 2.0])

    def apply(self, x, training):
        self.count += 1
        return x * self.count, self.count.copy()

    def apply_backward(self, dy, cache):
        return dy * cache


def test_every_evaluation_starts_from_the_same_state(rng):
    assert check_module(Counting(), rng.standard_normal((4, 2))).passed


def test_a_single_outlier_does_not_decide(rng):
    """One number is so near to a kink that some directions cross it even with the shortest step."""
    x = rng.standard_normal((5, 6))
    x[2, 3] = 1.5e-8
    reports = [check_module(nn.ReLU(), x, seed=seed) for seed in range(10)]
    told = [report for report in reports if "even with the shortest step" in report.rows[0].note]
    assert told and all(report.passed and report.rows[0].error <= 1e-6 for report in told)


class NothingComesBack(nn.Linear):
    def apply_backward(self, dy, cache):
        return tuple(np.zeros_like(array) for array in cache)


def test_a_gradient_of_zeros_is_wrong(rng):
    report = check_module(NothingComesBack(3, 4, rng=rng, dtype=np.float64), rng.standard_normal((5, 3)))
    assert {row.verdict for row in report.rows} == {"WRONG"}


def test_what_is_no_module_is_refused():
    with pytest.raises(ValueError, match="has no forward"):
        check_module(object(), np.ones(3))
    with pytest.raises(ValueError, match="directions"):
        check_module(small_network(), np.ones((2, 5, 4, 2)), directions=0)


# --- Reports ---------------------------------------------------------------------------------------------------------


def test_a_report_reads_as_a_table():
    rows = (
        Row("dx", "ok", "complex step", 1e-15, (0, 1), 1.0, 1.0),
        Row("d<w>", "WRONG", note="the shape is (3,) where (2,) is expected"),
    )
    report = Report("check of f", rows, 1e-9, notes=("a remark",))
    lines = str(report).splitlines()
    assert lines[0] == "check of f: look at d<w>"
    assert lines[2].split() == ["gradient", "method", "largest", "error", "at", "backward", "numerical", "verdict"]
    assert lines[4].split() == ["dx", "complex", "step", "1.0e-15", "(0,", "1)", "1", "1", "ok"]
    assert lines[5].split() == ["d<w>", "-", "-", "-", "-", "-", "WRONG"]
    assert "d<w>: the shape is (3,) where (2,) is expected" in lines and lines[-1] == "a remark"
    assert "d&lt;w&gt;" in report._repr_html_() and "<w>" not in report._repr_html_()
    assert not report.passed and report.error == np.inf


def test_an_empty_report_has_not_passed():
    assert not Report("nothing", (), 1e-9).passed
    assert not check_op(lambda k: (k * 1.0, k), lambda dy, k: None, (np.arange(3),)).passed


# --- Everything ------------------------------------------------------------------------------------------------------


def test_every_op_and_layer_is_right():
    calls = []
    report = check_everything(samples=4, progress=lambda *call: calls.append(call))
    assert report.passed, str(report)
    assert max(row.error for row in report.rows if row.method == "complex step") < 1e-9
    assert calls == [(name, k, len(report.rows)) for k, name in enumerate(names_of_everything())]


def test_nothing_is_forgotten():
    names = set(names_of_everything())
    pairs = {name.removesuffix("_forward") for name in ops.__all__ if name.endswith("_forward")}
    assert pairs <= names
    abstract = {nn.Module, nn.Layer}
    modules = {
        name
        for name in nn.__all__
        if isinstance(thing := getattr(nn, name), type) and issubclass(thing, nn.Module) and thing not in abstract
    }
    assert modules <= names, f"add to LAYERS of npnets/gradcheck/everything.py: {sorted(modules - names)}"


def test_the_same_seed_draws_the_same():
    a, b = ([row.error for row in check_everything(seed=5, samples=2, ops=["conv2d", "Residual"]).rows] for _ in "ab")
    c = [row.error for row in check_everything(seed=6, samples=2, ops=["conv2d", "Residual"]).rows]
    assert a == b != c


def test_a_broken_op_shows_up_with_the_sample_to_repeat(monkeypatch):
    monkeypatch.setattr(ops, "avg_pool2d_backward", lambda dy, cache: 2 * right(dy, cache))
    right = ops.pooling.avg_pool2d_backward
    report = check_everything(samples=2, ops=["avg_pool2d", "AvgPool2d", "relu"])
    assert [row.verdict for row in report.rows] == ["WRONG", "WRONG", "ok"]
    assert "sample 0 of seed 0, inputs" in report.rows[0].note


def test_unknown_names_and_no_samples_are_refused():
    with pytest.raises(ValueError, match="'conv9d' is neither an op nor a layer"):
        check_everything(ops=["conv9d"])
    with pytest.raises(ValueError, match="samples"):
        check_everything(samples=0)
