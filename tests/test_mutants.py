"""The checks are checked: classic mistakes, each written out, must be noticed.

Every mutant is a forward or a backward as somebody once wrote it. It has the form of the reference's functions, takes
the place of the right one, and goes through the very checks that the ops go through in ``tests/ops``. A wrong backward
must be noticed by both oracles, the loops and the numerical gradients; a wrong forward by the loops at least, since a
numerical gradient can only say that a pair does not fit together.
"""

from dataclasses import dataclass

import numpy as np
import pytest

from npnets import ops, reference
from npnets.shapes import geometry
from tests.oracles import Case, as_pair, check_against_reference, check_contract, check_gradients

RNG = np.random.default_rng(24)


def normal(*shape):
    """Draw standard normal numbers."""
    return RNG.standard_normal(shape)


# The kernel is square and C_in equals C_out where a swap of two axes would otherwise be noticed by its shape alone.
CONV = Case("conv2d", (normal(2, 7, 6, 3), normal(3, 3, 3, 3), normal(3)))
STRIDED = Case("conv2d", (normal(2, 8, 6, 2), normal(3, 5, 2, 4), normal(4)), settings={"stride": 2})
DILATED = Case("conv2d", (normal(2, 7, 6, 2), normal(3, 3, 2, 3), normal(3)), settings={"dilation": 2})
DEPTHWISE = Case("depthwise_conv2d", (normal(2, 8, 6, 3), normal(3, 3, 3), normal(3)), settings={"stride": (2, 1)})
LINEAR = Case("linear", (normal(5, 3), normal(3, 3), normal(3)))
TRAINING = Case(
    "batch_norm",
    (2 * normal(3, 2, 4, 3) + [1, -2, 0], normal(3), normal(3)),
    (normal(3), RNG.uniform(0.5, 2, 3)),
    {"training": True, "decay": 0.9, "eps": 1e-2},
)
INFERENCE = Case("batch_norm", TRAINING.inputs, TRAINING.extra, {**TRAINING.settings, "training": False})
FAR_FROM_ZERO = Case(  # float32: checked with a tolerance that float32 allows
    "batch_norm",
    (1000 + normal(200, 2), normal(2), normal(2)),
    (np.zeros(2), np.ones(2)),
    {"training": True},
).as_type(np.float32)
LRN = Case("local_response_norm", (normal(2, 2, 3, 6),), settings={"size": 3, "alpha": 0.5, "beta": 0.75, "k": 1.0})
RELU6 = Case("relu6", (RNG.uniform(-4, 10, (4, 5)) // 0.5 * 0.5 + 0.25,))
AT_THE_KINKS = Case("relu6", (np.array([-1.0, 0.0, 3.0, 6.0, 7.0]),))
SIGMOID = Case("sigmoid", (normal(4, 5),))
SWISH = Case("swish", (normal(4, 5),))
EXTREME = Case("sigmoid", (np.array([-800.0, 0.5, 800.0]),))
NEGATIVE = RNG.permutation(80).reshape(2, 5, 4, 2) * 0.1 - 9
MAX_POOL = Case("max_pool2d", (NEGATIVE,), (3,), {"stride": 1, "padding": "same"})
TIES = Case("max_pool2d", (np.zeros((1, 2, 2, 1)),), (2,))
AVG_POOL = Case("avg_pool2d", (normal(2, 5, 4, 2),), (3,), {"stride": 2, "padding": "same"})
GLOBAL_POOL = Case("global_avg_pool", (normal(2, 5, 4, 3),))
DROPOUT = Case("dropout", (normal(4, 6),), (0.4,), {"training": True})
DROP_PATH = Case("drop_path", (normal(16, 2),), (0.6,), {"training": True})
RESIZE = Case("resize_bilinear", (normal(2, 3, 4, 2),), ((5, 7),))
SCALE = Case("channel_scale", (normal(3, 4, 5, 2), normal(3, 2)))
LOSS = Case("softmax_cross_entropy", (normal(4, 5),), (np.array([0, 4, 2, 2]),), {"label_smoothing": 0.1})
HUGE_LOGITS = Case("softmax_cross_entropy", (1e4 * normal(4, 5),), (np.array([0, 4, 2, 2]),))

CASES = {name: value for name, value in list(globals().items()) if isinstance(value, Case)}


# Convolution


def flipped_kernel(x, w, b, **settings):
    """True convolution instead of cross-correlation."""
    return reference.conv2d(x, w[::-1, ::-1], b, **settings)


def swapped_kernel_axes(x, w, b, **settings):
    """K_h and K_w exchanged."""
    return reference.conv2d(x, w.transpose(1, 0, 2, 3), b, **settings)


def swapped_channels(x, w, b, **settings):
    """C_in and C_out exchanged."""
    return reference.conv2d(x, w.transpose(0, 1, 3, 2), b, **settings)


def same_taken_as_symmetric(x, w, b, **settings):
    """The odd pixel of SAME on the wrong side: the shapes agree, the values are shifted."""
    (top, bottom), (left, right) = geometry(x.shape[1:3], w.shape[:2], **settings).pads
    return reference.conv2d(x, w, b, **{**settings, "padding": ((bottom, top), (right, left))})


def dilation_ignored(x, w, b, **settings):
    """The kernel is not spread out."""
    return reference.conv2d(x, w, b, padding="same")


def kernel_not_flipped_in_dx(dy, x, w, b, **settings):
    """The input gradient as another cross-correlation."""
    _, dw, db = reference.conv2d_backward(dy, x, w, b, **settings)
    return reference.conv2d_backward(dy, x, w[::-1, ::-1], b, **settings)[0], dw, db


def channels_not_swapped_in_dx(dy, x, w, b, **settings):
    """The input gradient without exchanging C_in and C_out."""
    _, dw, db = reference.conv2d_backward(dy, x, w, b, **settings)
    return reference.conv2d_backward(dy, x, w.transpose(0, 1, 3, 2), b, **settings)[0], dw, db


def padding_off_by_one_in_backward(dy, x, w, b, **settings):
    """dx cut out of its padded image one row too early."""
    dx, dw, db = reference.conv2d_backward(dy, x, w, b, **settings)
    shifted = np.zeros_like(dx)
    shifted[:, 1:] = dx[:, :-1]
    return shifted, dw, db


def stride_ignored_in_backward(dy, x, w, b, **settings):
    """dy laid out as if its pixels had been neighbours."""
    geo = geometry(x.shape[1:3], w.shape[:2], **settings)
    unstrided = {"stride": 1, "padding": geo.pads, "dilation": geo.dilation}
    wide = np.zeros_like(reference.conv2d(x, w, b, **unstrided))
    wide[:, : geo.out[0], : geo.out[1]] = dy
    return reference.conv2d_backward(wide, x, w, b, **unstrided)


def dilation_ignored_in_backward(dy, x, w, b, **settings):
    """The gradients of the same layer without dilation."""
    return reference.conv2d_backward(dy, x, w, b)


def bias_gradient_of_one_image(dy, x, w, b, **settings):
    """db summed over the pixels but not over the batch."""
    dx, dw, _ = reference.conv2d_backward(dy, x, w, b, **settings)
    return dx, dw, dy[0].sum(axis=(0, 1))


def bias_gradient_averaged(dy, x, w, b, **settings):
    """db as a mean."""
    dx, dw, _ = reference.conv2d_backward(dy, x, w, b, **settings)
    return dx, dw, dy.mean(axis=(0, 1, 2))


def kernel_gradient_averaged(dy, x, w, b, **settings):
    """dw divided by the batch size, which the mean loss has already done."""
    dx, dw, db = reference.depthwise_conv2d_backward(dy, x, w, b, **settings)
    return dx, dw / len(x), db


def depthwise_kernel_reversed_channels(x, w, b, **settings):
    """Each channel filtered with another channel's kernel."""
    return reference.depthwise_conv2d(x, w[:, :, ::-1], b, **settings)


def weights_not_transposed(dy, x, w, b):
    """``dx = dy w``: with equal widths the shapes agree."""
    _, dw, db = reference.linear_backward(dy, x, w, b)
    return dy @ w, dw, db


def weight_gradient_transposed(dy, x, w, b):
    """``dw = dy^T x``."""
    dx, dw, db = reference.linear_backward(dy, x, w, b)
    return dx, dw.T, db


# Batch norm


def statistics(x, eps):
    """Return (mu, inv_std, x_hat) of a batch."""
    axes = tuple(range(x.ndim - 1))
    mu, inv_std = x.mean(axis=axes), 1 / np.sqrt(x.var(axis=axes) + eps)
    return mu, inv_std, (x - mu) * inv_std


def batch_norm_backward_without(dropped):
    """Make a backward that leaves out one of the terms of dx, or a division by m."""

    def backward(dy, x, gamma, beta, running_mean, running_var, *, training, decay, eps):
        _, inv_std, x_hat = statistics(x, eps)
        axes = tuple(range(x.ndim - 1))
        m = x.size // len(gamma)
        dgamma, dbeta = (dy * x_hat).sum(axis=axes), dy.sum(axis=axes)
        through_mean = 0 if dropped == "mean" else dbeta / m
        through_variance = 0 if dropped == "variance" else x_hat * dgamma / (1 if dropped == "1/m" else m)
        return gamma * inv_std * (dy - through_mean - through_variance), dgamma, dbeta

    return backward


def everything_constant(dy, x, gamma, beta, running_mean, running_var, *, training, decay, eps):
    """The inference formula in training."""
    _, dgamma, dbeta = reference.batch_norm_backward(
        dy, x, gamma, beta, running_mean, running_var, training=training, eps=eps
    )
    return dy * gamma * statistics(x, eps)[1], dgamma, dbeta


def gamma_forgotten_in_dx(dy, x, gamma, beta, *running, **settings):
    """dl/dx_hat taken for dl/dy."""
    dx, dgamma, dbeta = reference.batch_norm_backward(dy, x, gamma, beta, *running, **settings)
    return dx / gamma, dgamma, dbeta


def gamma_gradient_from_x(dy, x, gamma, beta, *running, **settings):
    """dgamma with x instead of x_hat."""
    dx, _, dbeta = reference.batch_norm_backward(dy, x, gamma, beta, *running, **settings)
    return dx, (dy * x).sum(axis=tuple(range(x.ndim - 1))), dbeta


def gamma_gradient_of_one_pixel(dy, x, gamma, beta, *running, **settings):
    """dgamma and dbeta summed over the batch only; broadcasting would hide it from an optimizer."""
    dx, _, _ = reference.batch_norm_backward(dy, x, gamma, beta, *running, **settings)
    x_hat = statistics(x, settings["eps"])[2]
    return dx, (dy * x_hat).sum(axis=0)[0, 0], dy.sum(axis=0)[0, 0]


def training_gradient_in_inference(dy, x, gamma, beta, *running, **settings):
    """The batch's gradient where the running statistics were used."""
    return reference.batch_norm_backward(dy, x, gamma, beta, *running, **{**settings, "training": True})


def batch_norm_with(mu=None, var=None, epsilon=None, statistics_axes=None, new_weight=None, unbiased=True):
    """Make a batch norm forward in which one thing is wrong."""

    def forward(x, gamma, beta, running_mean, running_var, *, training, decay=0.99, eps=1e-3):
        axes = tuple(range(x.ndim - 1)) if statistics_axes is None else statistics_axes
        m = x.size // x.shape[-1]
        batch_mean = x.mean(axis=axes)
        batch_var = x.var(axis=axes) if var is None else var(x, m)
        weight = 1 - decay if new_weight is None else new_weight(decay)
        running_mean += weight * (batch_mean.reshape(-1, len(gamma))[0] - running_mean)
        stored = batch_var * (m / (m - 1) if unbiased else 1)
        running_var += weight * (stored.reshape(-1, len(gamma))[0] - running_var)
        divisor = np.sqrt(batch_var + eps) if epsilon is None else epsilon(batch_var, eps)
        return gamma * (x - batch_mean) / divisor + beta

    return forward


RIGHT_BATCH_NORM = batch_norm_with()  # a control: with nothing wrong, it must pass
PER_PIXEL = batch_norm_with(statistics_axes=0)
MOMENTUM_OF_THE_NEW = batch_norm_with(new_weight=lambda decay: decay)
BIASED_STORED_VARIANCE = batch_norm_with(unbiased=False)
UNBIASED_NORMALIZATION = batch_norm_with(var=lambda x, m: x.var(axis=(0, 1, 2), ddof=1))
EPSILON_OUTSIDE_THE_ROOT = batch_norm_with(epsilon=lambda var, eps: np.sqrt(var) + eps)
CANCELLING_VARIANCE = batch_norm_with(var=lambda x, m: abs((x * x).mean(axis=0) - x.mean(axis=0) ** 2))


def running_statistics_changed_in_inference(x, gamma, beta, running_mean, running_var, *, training, **settings):
    """Evaluation that learns from the test set."""
    y = reference.batch_norm(x, gamma, beta, running_mean, running_var, training=False, **settings)
    reference.batch_norm(x, gamma, beta, running_mean, running_var, training=True, **settings)
    return y


def alpha_divided_by_size(x, *, alpha, size, **settings):
    """PyTorch's convention instead of the paper's."""
    return reference.local_response_norm(x, alpha=alpha / size, size=size, **settings)


def neighbours_forgotten_in_backward(dy, x, **settings):
    """Only the numerator's gradient."""
    y = reference.local_response_norm(x, **settings)
    return dy * y / x


# Activations, pooling, regularization, resize, scale, loss


def relu6_without_its_upper_kink(dy, x):
    """The gradient of a plain ReLU."""
    return dy * (x > 0)


def relu6_with_gradient_at_the_kinks(dy, x):
    """Slope one at 0 and at 6."""
    return dy * ((x >= 0) & (x <= 6))


def relu6_writing_into_dy(dy, x):
    """Right numbers, but the other branch of a residual block sees them too."""
    dy[(x <= 0) | (x >= 6)] = 0
    return dy


def sigmoid_gradient_of_its_input(dy, x):
    """``x (1 - x)``, with the input in place of the output."""
    return dy * x * (1 - x)


def overflowing_sigmoid(x):
    """exp(800) is infinite, and NumPy warns."""
    return 1 / (1 + np.exp(-x))


def swish_gradient_of_a_sigmoid(dy, x):
    """Without the product rule."""
    return reference.sigmoid_backward(dy, x)


def padding_wins_the_maximum(x, size, *, stride, padding):
    """Zeros around the image take part."""
    return reference.max_pool2d(np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), size, stride=stride, padding="valid")


def every_maximum_gets_the_gradient(dy, x, size, *, stride=None, padding="valid"):
    """dy handed to all equal cells: more goes out than came in."""
    return dy * (x == x.max(axis=(1, 2), keepdims=True))


def average_over_the_full_window(x, size, *, stride, padding):
    """The border divided by nine, too."""
    w = np.full((size, size, x.shape[-1]), 1 / size**2)
    return reference.depthwise_conv2d(x, w, stride=stride, padding=padding)


def average_not_shared(dy, x):
    """Every pixel gets all of dy."""
    return np.broadcast_to(dy[:, None, None], x.shape).copy()


def align_corners_by_default(x, size):
    """The other convention."""
    return reference.resize_bilinear(x, size, align_corners=True)


def nearest_in_the_backward(dy, x, size):
    """dy given to one pixel instead of four."""
    dx = np.zeros_like(x)
    for k, l in np.ndindex(dy.shape[1:3]):
        dx[:, k * x.shape[1] // size[0], l * x.shape[2] // size[1]] += dy[:, k, l]
    return dx


def factors_of_another_image(x, s):
    """The batch mirrored."""
    return reference.channel_scale(x, s[::-1])


def factors_left_out(dy, x, s):
    """dx without s."""
    return dy.copy(), reference.channel_scale_backward(dy, x, s)[1]


def factor_gradient_averaged(dy, x, s):
    """The mean over the pixels for the sum."""
    dx, ds = reference.channel_scale_backward(dy, x, s)
    return dx, ds / (x.shape[1] * x.shape[2])


def summed_gradient_of_a_mean_loss(dy, logits, labels, **settings):
    """1/N missing."""
    return len(logits) * reference.softmax_cross_entropy_backward(dy, logits, labels, **settings)


def smoothing_forgotten_in_backward(dy, logits, labels, *, label_smoothing):
    """p minus a one-hot vector."""
    return reference.softmax_cross_entropy_backward(dy, logits, labels)


def true_class_without_its_share(logits, labels, *, label_smoothing):
    """``1 - eps`` for the true class and ``eps / (K - 1)`` for the others."""
    K = logits.shape[1]
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    q = np.full(logits.shape, label_smoothing / (K - 1))
    q[np.arange(len(labels)), labels] = 1 - label_smoothing
    return -(q * log_p).sum() / len(labels)


def overflowing_softmax(logits, labels):
    """Without subtracting the maximum."""
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return -log_p[np.arange(len(labels)), labels].mean()


def summed_loss(logits, labels, **settings):
    """A sum over the batch; the learning rate is then off by the batch size."""
    return len(logits) * reference.softmax_cross_entropy(logits, labels, **settings)


def upstream_ignored(dy, logits, labels, **settings):
    """dy taken to be one."""
    return reference.softmax_cross_entropy_backward(1.0, logits, labels, **settings)


# Dropout draws its mask itself, so these are pairs in the form of the ops.


def not_scaled(x, rate, *, training, rng):
    """The paper's dropout, which scales at test time: half of a pair."""
    y, cache = ops.dropout_forward(x, rate, training=training, rng=rng)
    return y * (1 - rate), cache


def mask_drawn_again(dy, cache):
    """Another mask in the backward."""
    return ops.dropout_forward(dy, 0.4, training=True, rng=np.random.default_rng(99))[0]


def scale_forgotten_in_backward(dy, cache):
    """dy times the mask alone."""
    return 0.6 * ops.dropout_backward(dy, cache)


def drop_path_of_the_batch(x, survival_prob, *, training, rng):
    """One draw for all samples."""
    _, cache = ops.drop_path_forward(x, survival_prob, training=training, rng=rng)
    return x * (rng.random() < survival_prob) / survival_prob, cache


@dataclass
class Mutant:
    """A wrong forward or backward, the case that it is run on, and the checks that must notice it."""

    name: str
    case: Case
    forward: object = None
    backward: object = None
    op_form: bool = False
    noticed_by: tuple = ()

    def pair(self):
        """Return the pair of functions with one of them wrong."""
        if self.op_form:
            forward = self.forward or getattr(ops, f"{self.case.op}_forward")
            return forward, self.backward or getattr(ops, f"{self.case.op}_backward")
        return as_pair(self.case.op, self.forward, self.backward)


def wrong_forward(case, function, name=None, op_form=False):
    """A wrong forward: noticed by the loops."""
    return Mutant(name or function.__name__, case, forward=function, op_form=op_form, noticed_by=("loops",))


def wrong_backward(case, function, name=None, op_form=False, noticed_by=("loops", "numerical gradients")):
    """A wrong backward: noticed by both oracles, where nothing else is said."""
    return Mutant(name or function.__name__, case, backward=function, op_form=op_form, noticed_by=noticed_by)


MUTANTS = [
    wrong_forward(CONV, flipped_kernel),
    wrong_forward(CONV, swapped_kernel_axes),
    wrong_forward(CONV, swapped_channels),
    wrong_forward(STRIDED, same_taken_as_symmetric),
    wrong_forward(DILATED, dilation_ignored),
    wrong_forward(DEPTHWISE, depthwise_kernel_reversed_channels),
    wrong_backward(CONV, kernel_not_flipped_in_dx),
    wrong_backward(CONV, channels_not_swapped_in_dx),
    wrong_backward(CONV, padding_off_by_one_in_backward),
    wrong_backward(STRIDED, stride_ignored_in_backward),
    wrong_backward(DILATED, dilation_ignored_in_backward),
    wrong_backward(CONV, bias_gradient_of_one_image),
    wrong_backward(CONV, bias_gradient_averaged),
    wrong_backward(DEPTHWISE, kernel_gradient_averaged),
    wrong_backward(LINEAR, weights_not_transposed),
    wrong_backward(LINEAR, weight_gradient_transposed),
    wrong_forward(TRAINING, PER_PIXEL, "statistics_per_pixel"),
    wrong_forward(TRAINING, MOMENTUM_OF_THE_NEW, "decay_as_the_weight_of_the_new"),
    wrong_forward(TRAINING, BIASED_STORED_VARIANCE, "running_variance_without_m_over_m_minus_1"),
    wrong_forward(TRAINING, UNBIASED_NORMALIZATION, "normalized_with_the_unbiased_variance"),
    wrong_forward(TRAINING, EPSILON_OUTSIDE_THE_ROOT, "epsilon_outside_the_root"),
    wrong_forward(FAR_FROM_ZERO, CANCELLING_VARIANCE, "variance_as_a_difference_of_squares"),
    wrong_forward(INFERENCE, running_statistics_changed_in_inference),
    wrong_backward(TRAINING, batch_norm_backward_without("mean"), "mean_taken_as_a_constant"),
    wrong_backward(TRAINING, batch_norm_backward_without("variance"), "variance_taken_as_a_constant"),
    wrong_backward(TRAINING, batch_norm_backward_without("1/m"), "one_over_m_forgotten"),
    wrong_backward(TRAINING, everything_constant),
    wrong_backward(TRAINING, gamma_forgotten_in_dx),
    wrong_backward(TRAINING, gamma_gradient_from_x),
    wrong_backward(TRAINING, gamma_gradient_of_one_pixel),
    wrong_backward(INFERENCE, training_gradient_in_inference),
    wrong_forward(LRN, alpha_divided_by_size),
    wrong_backward(LRN, neighbours_forgotten_in_backward),
    wrong_backward(RELU6, relu6_without_its_upper_kink),
    wrong_backward(AT_THE_KINKS, relu6_with_gradient_at_the_kinks, noticed_by=("loops",)),
    wrong_backward(RELU6, relu6_writing_into_dy, noticed_by=("contract",)),
    wrong_backward(SIGMOID, sigmoid_gradient_of_its_input),
    wrong_forward(EXTREME, overflowing_sigmoid),
    wrong_backward(SWISH, swish_gradient_of_a_sigmoid),
    wrong_forward(MAX_POOL, padding_wins_the_maximum),
    wrong_backward(TIES, every_maximum_gets_the_gradient, noticed_by=("loops",)),
    wrong_forward(AVG_POOL, average_over_the_full_window),
    wrong_backward(GLOBAL_POOL, average_not_shared),
    wrong_forward(RESIZE, align_corners_by_default),
    wrong_backward(RESIZE, nearest_in_the_backward),
    wrong_forward(SCALE, factors_of_another_image),
    wrong_backward(SCALE, factors_left_out),
    wrong_backward(SCALE, factor_gradient_averaged),
    wrong_forward(LOSS, summed_loss),
    wrong_forward(LOSS, true_class_without_its_share),
    wrong_forward(HUGE_LOGITS, overflowing_softmax),
    wrong_backward(LOSS, summed_gradient_of_a_mean_loss),
    wrong_backward(LOSS, smoothing_forgotten_in_backward),
    wrong_backward(LOSS, upstream_ignored),
    wrong_forward(DROPOUT, not_scaled, op_form=True),
    wrong_backward(DROPOUT, mask_drawn_again, op_form=True),
    wrong_backward(DROPOUT, scale_forgotten_in_backward, op_form=True),
    wrong_forward(DROP_PATH, drop_path_of_the_batch, op_form=True),
]

CHECKS = {"loops": check_against_reference, "numerical gradients": check_gradients, "contract": check_contract}


def run_check(name, case, *pair):
    """Run one of the checks; the loops are compared in the precision of the case."""
    if name == "loops":
        tolerance = 1e-12 if case.inputs[0].dtype == np.float64 else 1e-3
        check_against_reference(case, *pair, tolerance=tolerance)
    else:
        CHECKS[name](case, *pair)


NOTICED = r"relative error|gradient of input \d at|gradient of input \d, direction|wrote into|overflow"
"""What a check says about wrong numbers: a mutant that merely has the wrong shape would prove less."""

WITHOUT_DERIVATIVE = ["AT_THE_KINKS", "TIES", "EXTREME", "HUGE_LOGITS", "FAR_FROM_ZERO"]
"""Cases at a kink, or whose derivatives have no digits left, or in float32."""


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_classic_mistake_is_noticed(mutant):
    for check in mutant.noticed_by:
        with pytest.raises((AssertionError, RuntimeWarning), match=NOTICED):
            run_check(check, mutant.case, *mutant.pair())


@pytest.mark.parametrize("name", CASES)
def test_the_right_functions_pass_the_same_checks(name):
    """Otherwise the checks would notice everything, and the mutants would prove nothing."""
    run_check("loops", CASES[name])
    run_check("contract", CASES[name])
    if name not in WITHOUT_DERIVATIVE:
        run_check("numerical gradients", CASES[name])


def test_the_maker_of_wrong_batch_norms_can_make_a_right_one():
    run_check("loops", TRAINING, *as_pair("batch_norm", RIGHT_BATCH_NORM))
    run_check("loops", TRAINING, *as_pair("batch_norm", None, batch_norm_backward_without("nothing")))


# Why the upstream gradient is random, and kernels are not symmetric


@pytest.mark.parametrize("name", ["variance_taken_as_a_constant", "one_over_m_forgotten"])
def test_an_upstream_of_ones_lets_a_broken_batch_norm_pass(name):
    """The sum of all outputs does not depend on x: its gradient is zero, and so is the broken one."""
    broken = next(mutant for mutant in MUTANTS if mutant.name == name)
    x, gamma, _ = TRAINING.inputs
    dx, _, _ = reference.batch_norm_backward(np.ones_like(x), x, gamma, gamma, *TRAINING.extra, **TRAINING.settings)
    assert np.abs(dx).max() < 1e-14
    check_gradients_up_to_rounding(broken, np.ones_like(x))
    with pytest.raises(AssertionError):
        check_gradients_up_to_rounding(broken, RNG.standard_normal(x.shape))


def check_gradients_up_to_rounding(mutant, dy):
    """Compare dx with complex steps in absolute numbers: an upstream of ones leaves no scale to compare with."""
    forward, backward = mutant.pair()
    args, kwargs = mutant.case.arguments()
    dx, _, _ = backward(dy, forward(*args, **kwargs)[1])
    x = mutant.case.inputs[0]
    for position in np.ndindex(x.shape):
        step = x.astype(complex)
        step[position] += 1e-30j
        args, kwargs = mutant.case.arguments([step, *(v.astype(complex) for v in mutant.case.inputs[1:])])
        expected = np.sum(dy * forward(*args, **kwargs)[0]).imag / 1e-30
        assert abs(dx[position] - expected) < 1e-9


def test_a_symmetric_kernel_lets_a_missing_flip_pass():
    w = CONV.inputs[1]
    symmetric = (w + w[::-1, ::-1]) / 2
    case = Case("conv2d", (CONV.inputs[0], symmetric, CONV.inputs[2]))
    check_gradients(case, *as_pair("conv2d", None, kernel_not_flipped_in_dx))
