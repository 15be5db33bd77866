"""The diagnosis: every mistake of the catalogue is recognised, also in code that the catalogue has never seen."""

import copy
import itertools

import numpy as np
import pytest

from npnets import ops
from npnets.gradcheck import check_op, diagnose, known_ops, mistakes
from npnets.gradcheck.catalogue import known_op, make_case
from npnets.gradcheck.describe import describe


def pair_of(op):
    return getattr(ops, f"{op}_forward"), getattr(ops, f"{op}_backward")


class Student:
    """A forward and backward that make one mistake of the catalogue, on whatever inputs they get."""

    def __init__(self, mistake, k):
        self.mistake, self.k = mistake, k
        self.made = False
        self.op = known_op(mistake.op)

    def forward(self, *inputs, **settings):
        def again(*arrays):
            return pair_of(self.op.name)[0](*copy.deepcopy(arrays), **copy.deepcopy(settings))[0]

        inputs = copy.deepcopy(inputs)
        y = again(*inputs)
        return y, (again, inputs, settings, y)

    def backward(self, dy, cache):
        again, inputs, settings, y = cache
        case = make_case(self.op, pair_of(self.op.name)[0], again, inputs, settings, y, dy)
        right, ways = self.op.right(case), self.mistake.wrong(case)
        self.made |= self.k < len(ways)
        wrong = ways[min(self.k, len(ways) - 1)] if ways else {}
        return tuple((right | wrong)[gradient] for gradient in self.op.gradients)


@pytest.mark.parametrize("op", known_ops())
def test_the_right_backward_is_found_right(op):
    """The formulas of the catalogue and the ops were written apart from each other: two oracles agree."""
    diagnosis = diagnose(op, pair_of(op)[1])
    assert diagnosis.right and diagnosis.mistakes == () and str(diagnosis) == f"{op}: no mistake found."


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("mistake", mistakes(), ids=lambda mistake: f"{mistake.op}-{mistake.name}")
def test_every_mistake_is_diagnosed_as_itself(mistake, seed):
    for k in itertools.count():  # every way to make it
        student = Student(mistake, k)
        diagnosis = diagnose(mistake.op, student.backward, forward=student.forward, seed=seed)
        if not student.made:
            break
        assert not diagnosis.right, "the drawn inputs hide it"
        assert diagnosis.mistakes == (mistake.name,), k
        assert all(finding.mistakes == (mistake.name,) for finding in diagnosis.findings)
        assert mistake.sentence in str(diagnosis) and mistake.hint in str(diagnosis)
        assert mistake.cause[:10] in diagnosis._repr_html_()
    assert k > 0, "a mistake that is never made"


@pytest.mark.parametrize("mistake", {m.op: m for m in mistakes()}.values(), ids=lambda m: m.op)
def test_check_op_diagnoses_what_it_finds_wrong(mistake):
    student, known = Student(mistake, 0), known_op(mistake.op)
    for inputs, settings in known.samples(np.random.default_rng(0)):
        report = check_op(student.forward, student.backward, inputs, settings=settings, op=mistake.op)
        if not report.passed:
            assert mistake.name in report.diagnosis.mistakes and mistake.sentence in str(report)
            return
    pytest.fail("check_op let it pass on every sample")


# --- Mistakes in code that the catalogue has never seen --------------------------------------------------------------


def convolution(bug=None, depthwise=False):
    """A convolution's backward in loops, as a student writes it, with a bug on demand."""

    def backward(dy, cache):
        x, w, geo = cache.x, cache.w, cache.geometry
        (K_h, K_w), (s_h, s_w), (d_h, d_w), ((top, _), (left, _)), (H_out, W_out) = geo
        if bug == "symmetric":
            top, left = (d_h * (K_h - 1) + 1) // 2, (d_w * (K_w - 1) + 1) // 2
        if bug == "one more":
            top, left = top + 1, left + 1
        if bug == "no stride":
            s_h = s_w = 1
        if bug == "no dilation":
            d_h = d_w = 1
        N, H, W, C = x.shape
        room = 12
        x_padded = np.zeros((N, H + 2 * room, W + 2 * room, C))
        x_padded[:, top : top + H, left : left + W] = x
        dx_padded, dw = np.zeros_like(x_padded), np.zeros_like(w)
        for k in range(H_out):
            for l in range(W_out):
                for i in range(K_h):
                    for j in range(K_w):
                        row, column = k * s_h + i * d_h, l * s_w + j * d_w
                        pixel, d = x_padded[:, row, column], dy[:, k, l]
                        kernel = w[-1 - i, -1 - j] if bug == "no flip" else w[i, j]
                        if depthwise:
                            dw[i, j] += (pixel * d).sum(axis=0)
                            back = d * kernel
                            if bug == "mixed":
                                back = np.broadcast_to((d @ kernel)[:, None], d.shape)
                        else:
                            dw[i, j] += pixel.T @ d
                            back = d @ (kernel if bug == "channels" and len(kernel) == kernel.shape[1] else kernel.T)
                        if bug == "overwrite":
                            dx_padded[:, row, column] = back
                        else:
                            dx_padded[:, row, column] += back
        dx = dx_padded[:, top : top + H, left : left + W]
        if bug == "corner":
            dx = dx_padded[:, :H, :W]
        db = dy.sum(axis=(0, 1, 2)) if bug != "db over the batch" else dy.sum(axis=0)
        return dx.copy(), dw, dy.mean(axis=(0, 1, 2)) if bug == "db mean" else db

    return backward


def batch_norm(bug=None):
    """The chain rule of the paper, section 3, equation by equation, with a bug on demand."""

    def backward(dy, cache):
        x, gamma, mu, inv_std, training = (getattr(cache, k) for k in ("x", "gamma", "mu", "inv_std", "training"))
        axes = (0,) if bug == "per pixel" else tuple(range(x.ndim - 1))
        m = x.size // x.shape[-1] if axes != (0,) else len(x)
        if bug == "m is N":
            m = len(x)
        x_hat = (x - mu) * inv_std
        dx_hat = dy if bug == "no gamma" else dy * gamma
        power = 1 if bug == "power" else 3
        dvar = (dx_hat * (x - mu)).sum(axis=axes) * (-1 if bug == "half" else -0.5) * inv_std**power
        if bug == "variance":
            dvar = 0 * dvar
        dmu = (-dx_hat * inv_std).sum(axis=axes) + dvar * (-2 * (x - mu)).sum(axis=axes) / m
        if bug == "mean":
            dmu = 0 * dmu
        dx = dx_hat * inv_std
        if training or bug == "always training":
            dx = dx + dvar * 2 * (x - mu) / (1 if bug == "no 1/m" else m) + dmu / (1 if bug == "no 1/m" else m)
        over = tuple(range(x.ndim - 1))
        dgamma = (dy * (x if bug == "dgamma" else x_hat)).sum(axis=over)
        return dx, dgamma, dy if bug == "dbeta" else dy.sum(axis=over)

    return backward


def max_pool(bug=None):
    """Loops over the windows of an image without padding, with a bug on demand; x is kept by the forward."""

    def forward(x, size, stride=None, padding="valid"):
        y, cache = ops.max_pool2d_forward(x, size, stride=stride, padding=padding)
        return y, (x, y, cache.geometry)

    def backward(dy, cache):
        x, y, geo = cache
        (K_h, K_w), (s_h, s_w), _, ((top, bottom), (left, right)), (H_out, W_out) = geo
        pads = ((0, 0), (top, bottom + 9), (left, right + 9), (0, 0))
        padded = np.pad(x, pads, constant_values=-np.inf)
        dx = np.zeros(padded.shape)
        for k, l in np.ndindex(H_out, W_out):
            rows, columns = slice(k * s_h, k * s_h + K_h), slice(l * s_w, l * s_w + K_w)
            window = padded[:, rows, columns]
            mask = window == y[:, k : k + 1, l : l + 1]
            if bug == "shared":
                mask = mask / mask.sum(axis=(1, 2), keepdims=True)
            dx[:, rows, columns] += mask * dy[:, k : k + 1, l : l + 1]
        return dx[:, top : top + x.shape[1], left : left + x.shape[2]].copy()

    return forward, backward


def from_cache(formula):
    return lambda dy, cache: formula(dy, cache)


def dropout_again(dy, cache):
    if cache.mask is None:
        return dy.copy()
    return dy * (np.random.default_rng(99).random(dy.shape) < 1 / cache.scale) * cache.scale


WILD = [
    ("conv2d", convolution("no flip"), "kernel not flipped"),
    ("conv2d", convolution("channels"), "input and output channels swapped"),
    ("conv2d", convolution("symmetric"), "padding always K // 2"),
    ("conv2d", convolution("one more"), "padding off by one"),
    ("conv2d", convolution("no stride"), "stride ignored"),
    ("conv2d", convolution("no dilation"), "dilation ignored"),
    ("conv2d", convolution("overwrite"), "overlapping windows overwritten"),
    ("conv2d", convolution("corner"), "padding ignored"),
    ("conv2d", convolution("db over the batch"), "summed over the batch only"),
    ("conv2d", convolution("db mean"), "mean instead of sum"),
    ("depthwise_conv2d", convolution("no flip", depthwise=True), "kernel not flipped"),
    ("depthwise_conv2d", convolution("mixed", depthwise=True), "channels mixed"),
    ("depthwise_conv2d", convolution("no stride", depthwise=True), "stride ignored"),
    ("batch_norm", batch_norm("variance"), "variance as a constant"),
    ("batch_norm", batch_norm("mean"), "mean as a constant"),
    ("batch_norm", batch_norm("no gamma"), "gamma forgotten"),
    ("batch_norm", batch_norm("half"), "factor in the variance path"),
    ("batch_norm", batch_norm("power"), "power in the variance path"),
    ("batch_norm", batch_norm("no 1/m"), "1/m missing"),
    ("batch_norm", batch_norm("always training"), "training formula in inference"),
    ("batch_norm", batch_norm("dgamma"), "dgamma from x"),
    ("batch_norm", batch_norm("dbeta"), "not summed"),
    ("relu6", from_cache(lambda dy, cache: dy * (dy > 0)), "mask from dy"),
    ("sigmoid", from_cache(lambda dy, cache: dy * cache.y), "s for s (1 - s)"),
    ("sigmoid", from_cache(lambda dy, cache: cache.y * (1 - cache.y)), "dy forgotten"),
    ("swish", from_cache(lambda dy, cache: dy * cache.s * (1 - cache.s)), "s (1 - s)"),
    ("swish", from_cache(lambda dy, cache: dy * cache.s), "gate as a constant"),
    ("linear", from_cache(lambda dy, c: (dy @ c.w.T, dy.T @ c.x, dy.sum(axis=0))), "dw transposed"),
    ("linear", from_cache(lambda dy, c: (dy @ c.w.T, c.x.T @ dy, dy.mean(axis=0))), "divided by the batch size"),
    ("avg_pool2d", from_cache(lambda dy, c: ops.avg_pool2d_backward(dy * c.cells, c)), "not divided by the window"),
    ("dropout", dropout_again, "mask drawn again"),
    ("dropout", from_cache(lambda dy, c: dy if c.mask is None else dy * c.mask), "inverted scaling forgotten"),
    ("dropout", from_cache(lambda dy, c: dy * c.scale), "mask forgotten"),
    ("softmax_cross_entropy", from_cache(lambda dy, c: dy * (c.probabilities - c.targets)), "1/N missing"),
    ("softmax_cross_entropy", from_cache(lambda dy, c: dy * c.probabilities / len(c.targets)), "target not subtracted"),
]


@pytest.mark.parametrize("op, backward, name", WILD, ids=[f"{op}-{name}" for op, _, name in WILD])
def test_a_mistake_in_a_students_own_code_is_named(op, backward, name):
    assert diagnose(op, backward).mistakes == (name,)


@pytest.mark.parametrize(
    "backward, op",
    [(convolution(), "conv2d"), (convolution(depthwise=True), "depthwise_conv2d"), (batch_norm(), "batch_norm")],
)
def test_the_same_code_without_a_bug_is_right(backward, op):
    assert diagnose(op, backward).right


@pytest.mark.parametrize(
    "bug, name", [(None, "every equal cell gets the gradient"), ("shared", "gradient shared between equal cells")]
)
def test_a_students_own_forward_and_cache_work_too(bug, name):
    forward, backward = max_pool(bug)
    assert diagnose("max_pool2d", backward, forward=forward).mistakes == (name,)


def test_per_pixel_statistics_are_named_for_images():
    """On vectors the same code is right; for m = N too."""
    x, C = np.random.default_rng(4).standard_normal((3, 4, 2, 3)), np.ones(3)
    inputs = x, C * 1.5, C, 0 * C, C
    for bug, name in (("per pixel", "statistics per pixel"), ("m is N", "m taken for N")):
        report = check_op(ops.batch_norm_forward, batch_norm(bug), inputs, settings={"training": True})
        assert name in report.diagnosis.mistakes


# --- More than one mistake, and none that is known -------------------------------------------------------------------


def test_two_mistakes_in_two_gradients_are_both_named():
    def backward(dy, cache):
        dx, dgamma, _ = batch_norm("variance")(dy, cache)
        return dx, dgamma, dy.mean(axis=tuple(range(dy.ndim - 1)))

    diagnosis = diagnose("batch_norm", backward)
    # The mean of a vector and of an image: the latter has a name of its own, and the former is 1/m all the same.
    assert [finding.gradient for finding in diagnosis.findings] == ["dx", "dbeta"]
    assert diagnosis.mistakes == ("variance as a constant", "mean instead of sum")


def test_different_mistakes_on_different_inputs_are_told_apart():
    """The student who ignores ``training`` and the variance makes one mistake in each mode."""

    def backward(dy, cache):
        axes = tuple(range(dy.ndim - 1))
        x_hat = (cache.x - cache.mu) * cache.inv_std
        dx = cache.gamma * cache.inv_std * (dy - dy.mean(axis=axes))
        return dx, (dy * x_hat).sum(axis=axes), dy.sum(axis=axes)

    first, second = diagnose("batch_norm", backward).findings
    assert first.mistakes == ("variance as a constant",) and "training=True" in first.text
    assert second.mistakes == ("training formula in inference",) and "training=False" in second.text


def test_inputs_that_cannot_tell_two_mistakes_apart_are_supplemented():
    """Between 0 and 6 a missing mask and a missing upper kink look the same."""
    x = np.array([7.0, 1.0, 2.0])

    def backward(dy, cache):
        return dy * np.ones(dy.shape)

    report = check_op(ops.relu6_forward, backward, x)
    assert report.diagnosis.mistakes == ("dy handed on",)


def test_a_known_mistake_times_a_factor_is_recognised():
    diagnosis = diagnose("swish", lambda dy, cache: -dy * cache.s)
    assert diagnosis.mistakes == ("gate as a constant",) and "-1 times" in str(diagnosis)


def test_a_mistake_that_is_not_known_is_not_guessed(rng):
    def backward(dy, cache):
        return ops.sigmoid_backward(dy, cache) + 1e-3 * rng.standard_normal(dy.shape)

    diagnosis = diagnose("sigmoid", backward)
    assert not diagnosis.right and diagnosis.mistakes == ()
    assert "not one of the mistakes known here" in str(diagnosis) and "the first at [0, 0, 0]" in str(diagnosis)


@pytest.mark.parametrize(
    "backward, expected",
    [
        (lambda dy, cache: None, "returned None"),
        (lambda dy, cache: 1 / 0, "ZeroDivisionError"),
        (lambda dy, cache: "x", "not an array"),
        (lambda dy, cache: dy.fill(0) or dy, "zero everywhere"),
        (lambda dy, cache: dy.fill(0) or dy, "written into"),
        (lambda dy, cache: ops.sigmoid_backward(dy, cache)[None], "(1, 4, 3, 5) where (4, 3, 5) is expected"),
        (lambda dy, cache: ops.sigmoid_backward(dy, cache) * np.nan, "nan"),
        (lambda dy, cache: cache.y + 0, "it is y, unchanged"),
        (lambda dy, cache: ops.sigmoid_backward(dy, cache).astype(np.float32) * 2, "2 times"),
    ],
)
def test_whatever_a_student_returns_is_diagnosed_without_an_exception(backward, expected):
    diagnosis = diagnose("sigmoid", backward)
    assert not diagnosis.right and expected in str(diagnosis), str(diagnosis)


def test_a_missing_gradient_is_named():
    assert "returned one gradient where dx, dw, db are expected" in str(
        diagnose("linear", lambda dy, cache: dy @ cache.w.T)
    )


def test_a_forward_that_computes_something_else_is_mentioned():
    def forward(x):
        return x / (1 + np.exp(-2 * x)), x

    assert "check the forward first" in str(diagnose("swish", lambda dy, x: dy * x, forward=forward))
    assert diagnose("swish", lambda dy, x: dy, forward=lambda x: (x[:1], x)).wrong == ("forward",)


def test_a_backward_for_images_need_not_fit_vectors():
    """The mistake is more interesting than the vectors; without one, the vectors are reported."""

    def for_images(bug):
        return lambda dy, cache: batch_norm(bug)(dy, cache) if dy.shape[3] else None

    diagnosis = diagnose("batch_norm", for_images("variance"))
    assert diagnosis.mistakes == ("variance as a constant",) and "Left out: backward: with x (6, 3)" in str(diagnosis)
    assert diagnose("batch_norm", for_images(None)).wrong == ("backward",)


def test_a_constant_channel_divides_nothing_by_zero(rng):
    x = rng.standard_normal((5, 3))
    x[:, 1] = 4
    inputs = x, np.array([1.0, 2.0, 0.0]), np.zeros(3), np.zeros(3), np.ones(3)
    diagnosis = diagnose("batch_norm", batch_norm("mean"), inputs, settings={"training": True})
    assert diagnosis.mistakes == ("mean as a constant",)


def test_settings_are_read_from_a_students_own_forward(rng):
    """Its eps is not the one of the op, and it takes other arguments."""

    def forward(x, gamma, beta, eps=1e-5):
        mu, inv_std = x.mean(axis=0), 1 / np.sqrt(x.var(axis=0) + eps)
        return gamma * (x - mu) * inv_std + beta, (x, gamma, mu, inv_std)

    def backward(dy, cache):
        x, gamma, mu, inv_std = cache
        dx = gamma * inv_std * (dy - dy.mean(axis=0))
        return dx, (dy * (x - mu) * inv_std).sum(axis=0), dy.sum(axis=0)

    x, gamma, beta = rng.standard_normal((6, 3)), rng.uniform(0.5, 2, 3), rng.standard_normal(3)
    for inputs in ((x, gamma, beta), (x, gamma, beta, 1e-2)):
        report = check_op(forward, backward, inputs, op="batch_norm")
        assert [row.verdict for row in report.rows] == ["WRONG", "ok", "ok"]
        assert report.diagnosis.mistakes == ("variance as a constant",)


# --- General patterns ------------------------------------------------------------------------------------------------


@pytest.fixture
def right(rng):
    return rng.standard_normal((3, 5, 4, 2))


@pytest.mark.parametrize(
    "change, expected",
    [
        (lambda a: 3 * a, "3 times the right gradient: a factor N too much"),
        (lambda a: a / 20, "0.05 times the right gradient: a factor 1/(H W) too much"),
        (lambda a: -a, "wrong sign"),
        (lambda a: 0.7 * a, "0.7 times the right gradient"),
        (lambda a: a[:, ::-1], "flipped along the axes (1,)"),
        (lambda a: a[:, ::-1, ::-1], "flipped along the axes (1, 2)"),
        (lambda a: np.roll(a, 1, axis=2), "shifted by one along axis 2"),
        (lambda a: a.transpose(0, 2, 1, 3), "transposed"),
        (lambda a: a.sum(axis=0), "(5, 4, 2) where (3, 5, 4, 2) is expected"),
        (lambda a: a + 0.5, "off by the constant 0.5"),
        (lambda a: a + np.array([0.5, 1]), "each channel is off by a constant of its own"),
        (lambda a: a * np.array([0.5, 2]), "each channel is off by a factor of its own, gamma"),
        (lambda a: a / np.array([0.5, 2]), "each channel is off by a factor of its own, 1/gamma"),
        (lambda a: a * np.arange(1, 4).reshape(-1, 1, 1, 1), "each sample is off by a factor"),
        (lambda a: with_change(a, (slice(None), 0)), "wrong at its border"),
        (lambda a: with_change(a, 1), "wrong only in the samples 1"),
        (lambda a: with_change(a, (..., 1)), "wrong only in the channels 1"),
    ],
)
def test_a_general_pattern_is_described(right, change, expected):
    arrays = {"gamma": np.array([0.5, 2])}
    assert expected in describe(change(right), right, arrays=arrays, numbers={"N": 3, "H W": 20})


def with_change(array, where):
    array = array.copy()
    array[where] += np.random.default_rng(0).standard_normal(array[where].shape)
    return array


def test_an_unsummed_axis_is_named(right):
    assert "not summed over the axes (0, 1, 2)" in describe(right, right.sum(axis=(0, 1, 2)))
    square = right[0, :4, :, 0]
    assert "transpose(1, 0) of it is right" in describe(square.T.copy(), square)


def test_another_gradients_numbers_are_recognised(right):
    assert "it is dbeta, unchanged" in describe(right, right + 1, arrays={"dbeta": right})


# --- The catalogue ---------------------------------------------------------------------------------------------------


def test_the_catalogue_covers_every_op_and_reads_well():
    pairs = {name.removesuffix("_forward") for name in ops.__all__ if name.endswith("_forward")}
    assert set(known_ops()) == pairs
    assert len({m.name for m in mistakes()}) >= 60
    for op in known_ops():
        own = mistakes(op)
        assert own and len({m.name for m in own}) == len(own)
        for mistake in own:
            assert str(mistake) == f"{op}: {mistake.name}: this is the gradient you get when {mistake.cause}"
            assert not mistake.cause.endswith(".") and mistake.hint and not mistake.hint.endswith(" ")


def test_an_unknown_op_is_refused_with_the_known_ones():
    for call in (lambda: mistakes("conv9d"), lambda: diagnose("conv9d", lambda dy, cache: dy)):
        with pytest.raises(ValueError, match=r"op must be one of .*batch_norm.*; got 'conv9d'"):
            call()
    with pytest.raises(ValueError, match="backward must be a function"):
        diagnose("relu", 3)
