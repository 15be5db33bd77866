"""Drawn cases for every op.

hypothesis draws the geometry and a seed; the numbers come from a seeded generator. (Drawn floats make constant channels
and zeros, on which a wrong gradient looks right.) Sizes differ wherever a swap of two axes should show.
"""

import numpy as np
from hypothesis import strategies as st

from npnets.shapes import pair, resolve_padding, span
from tests.oracles import Case

seeds = st.integers(0, 2**32 - 1)


def ints_or_pairs(low, high):
    """Draw an int or a pair of ints, as stride and dilation are written."""
    number = st.integers(low, high)
    return number | st.tuples(number, number)


def paddings(largest):
    """Draw padding in each way to write it. ``largest`` bounds the explicit numbers."""
    number = st.integers(0, largest)
    side = st.tuples(number, number)
    return st.sampled_from(["same", "valid", "symmetric"]) | number | st.tuples(side, side)


@st.composite
def window_settings(draw, *, max_kernel, max_dilation, max_stride=3, max_padding=None):
    """Draw a kernel, the settings of a window and an image (H, W), unequal, that at least one window fits into."""
    kernel = draw(st.tuples(*[st.integers(1, max_kernel)] * 2))
    stride, dilation = draw(ints_or_pairs(1, max_stride)), draw(ints_or_pairs(1, max_dilation))
    padding = draw(paddings(min(kernel) - 1 if max_padding is None else max_padding))
    if padding == "same":  # fits into every image
        smallest = 1, 1
    else:
        spans = [span(*axis) for axis in zip(kernel, pair(dilation, "dilation"))]
        pads = resolve_padding(padding, (1, 1), kernel, (1, 1), pair(dilation, "dilation"))
        smallest = [max(1, n - sum(p)) for n, p in zip(spans, pads)]
    H, W = (n + draw(st.integers(0, 6 if padding == "same" else 4)) for n in smallest)
    return kernel, (H, W + (H == W)), {"stride": stride, "padding": padding, "dilation": dilation}


@st.composite
def conv2d_cases(draw):
    """Draw a standard convolution: rectangular kernels 1 to 7, strides and dilations 1 to 3, all paddings."""
    kernel, size, settings = draw(window_settings(max_kernel=7, max_dilation=3, max_padding=3))
    N, C_in, C_out = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    seed = draw(seeds)
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((N, *size, C_in))
    w = rng.standard_normal((*kernel, C_in, C_out + (C_out == C_in)))
    return Case("conv2d", (x, w, maybe_bias(draw, rng, w)), settings=settings, seed=seed)


@st.composite
def depthwise_conv2d_cases(draw):
    """Draw a depthwise convolution, over the same geometries."""
    kernel, size, settings = draw(window_settings(max_kernel=7, max_dilation=3, max_padding=3))
    N, C, seed = draw(st.integers(1, 4)), draw(st.integers(1, 5)), draw(seeds)
    rng = np.random.default_rng(seed)
    x, w = rng.standard_normal((N, *size, C)), rng.standard_normal((*kernel, C))
    return Case("depthwise_conv2d", (x, w, maybe_bias(draw, rng, w)), settings=settings, seed=seed)


@st.composite
def linear_cases(draw, op="linear"):
    """Draw a linear or a pointwise layer."""
    shape = [draw(st.integers(1, 4)) for _ in range({"linear": 1, "pointwise_conv2d": 3}[op])]
    C_in, C_out, seed = draw(st.integers(1, 5)), draw(st.integers(1, 5)), draw(seeds)
    rng = np.random.default_rng(seed)
    x, w = rng.standard_normal((*shape, C_in)), rng.standard_normal((C_in, C_out + (C_out == C_in)))
    return Case(op, (x, w, maybe_bias(draw, rng, w)), seed=seed)


@st.composite
def batch_norm_cases(draw, training=None):
    """Draw batch norm in 2-D and 4-D, both modes, with channels of different mean and scale.

    At least three values a channel: with two, x_hat is close to +-1 whatever x is, and dx close to zero.
    """
    if draw(st.booleans()):
        shape = [draw(st.integers(3, 9))]
    else:
        shape = [draw(st.integers(1, 4)), draw(st.integers(2, 4)), draw(st.integers(2, 5))]
    C, seed = draw(st.integers(1, 4)), draw(seeds)
    settings = {
        "training": draw(st.booleans()) if training is None else training,
        "decay": draw(st.sampled_from([0.0, 0.9, 0.99])),
        "eps": draw(st.sampled_from([1e-3, 1e-5])),
    }
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((*shape, C)) * rng.uniform(0.5, 3, C) + rng.uniform(-5, 5, C)
    gamma, beta, running_mean = rng.standard_normal((3, C))
    running_var = rng.uniform(0.5, 3, C)
    return Case("batch_norm", (x, gamma, beta), (running_mean, running_var), settings, seed)


@st.composite
def local_response_norm_cases(draw):
    """Draw local response normalization with an alpha that can be seen, and windows wider than the channels."""
    shape = [draw(st.integers(1, n)) for n in (2, 3, 3, 9)]
    settings = {
        "size": draw(st.sampled_from([1, 3, 5, 7])),
        "alpha": draw(st.floats(0.1, 1)),
        "beta": draw(st.floats(0.5, 1)),
        "k": draw(st.floats(1, 2)),
    }
    seed = draw(seeds)
    x = np.random.default_rng(seed).standard_normal(shape)
    return Case("local_response_norm", (x,), settings=settings, seed=seed)


@st.composite
def activation_cases(draw, op):
    """Draw an activation of 2-D or 4-D x, on both sides of every kink and never within 0.05 of one.

    Nor of where a gradient is next to nothing, and has lost digits by subtraction: that of a sigmoid, ``y (1 - y)``,
    where y is close to 1, and that of swish at its minimum.
    """
    shape = [draw(st.integers(1, 4)) for _ in range(draw(st.sampled_from([2, 4])))]
    seed = draw(seeds)
    x = np.random.default_rng(seed).uniform(-6, 12, shape)
    for avoided in (0, 6, *([-1.2785] if op == "swish" else [])):
        x = np.where(np.abs(x - avoided) < 0.05, avoided + 0.1, x)
    if op == "sigmoid":
        x = -x
    return Case(op, (x,), seed=seed)


@st.composite
def pool_cases(draw, op):
    """Draw max or average pooling; for max pooling, all values differ by more than a difference step."""
    size, image, settings = draw(window_settings(max_kernel=4, max_dilation=1))
    del settings["dilation"]
    if draw(st.booleans()):
        settings["stride"] = None
    N, C, seed = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(seeds)
    rng = np.random.default_rng(seed)
    shape = (N, *image, C)
    x = rng.permutation(int(np.prod(shape))).reshape(shape) * 0.1 - 3.0
    if op == "avg_pool2d":
        x = rng.standard_normal(shape)
    return Case(op, (x,), (draw(st.sampled_from([size, size[0]])) if size[0] == size[1] else size,), settings, seed)


@st.composite
def global_avg_pool_cases(draw):
    """Draw global average pooling."""
    shape, seed = [draw(st.integers(1, 5)) for _ in range(4)], draw(seeds)
    return Case("global_avg_pool", (np.random.default_rng(seed).standard_normal(shape),), seed=seed)


@st.composite
def dropout_cases(draw, op="dropout"):
    """Draw dropout or drop path in training."""
    shape = [draw(st.integers(1, 5)) for _ in range(draw(st.sampled_from([2, 4])))]
    probability = draw(st.floats(0, 0.9))
    seed = draw(seeds)
    x = np.random.default_rng([seed, 3]).standard_normal(shape)
    return Case(op, (x,), (probability if op == "dropout" else 1 - probability,), {"training": True}, seed)


@st.composite
def resize_bilinear_cases(draw):
    """Draw a resize up, down, or one each; with both conventions, from and to single pixels too."""
    shape, seed = [draw(st.integers(1, n)) for n in (2, 6, 6, 3)], draw(seeds)
    size = draw(ints_or_pairs(1, 9))
    x = np.random.default_rng(seed).standard_normal(shape)
    return Case("resize_bilinear", (x,), (size,), {"align_corners": draw(st.booleans())}, seed)


@st.composite
def channel_scale_cases(draw):
    """Draw images and a factor for each of their channels."""
    N, H, W, C = (draw(st.integers(1, n)) for n in (4, 5, 5, 4))
    seed = draw(seeds)
    rng = np.random.default_rng(seed)
    return Case("channel_scale", (rng.standard_normal((N, H, W, C)), rng.standard_normal((N, C))), seed=seed)


@st.composite
def softmax_cross_entropy_cases(draw):
    """Draw logits, labels and a smoothing."""
    N, K, seed = draw(st.integers(1, 5)), draw(st.integers(2, 7)), draw(seeds)
    rng = np.random.default_rng(seed)
    logits, labels = 3 * rng.standard_normal((N, K)), rng.integers(0, K, N)
    settings = {"label_smoothing": draw(st.sampled_from([0.0, 0.1, 0.3]))}
    return Case("softmax_cross_entropy", (logits,), (labels,), settings, seed)


def maybe_bias(draw, rng, w):
    """Draw whether there is a bias, one number for each output channel of w."""
    return rng.standard_normal(w.shape[-1]) if draw(st.booleans()) else None


ALL_OPS = {
    "conv2d": conv2d_cases(),
    "depthwise_conv2d": depthwise_conv2d_cases(),
    "pointwise_conv2d": linear_cases("pointwise_conv2d"),
    "linear": linear_cases("linear"),
    "batch_norm": batch_norm_cases(),
    "local_response_norm": local_response_norm_cases(),
    "relu": activation_cases("relu"),
    "relu6": activation_cases("relu6"),
    "sigmoid": activation_cases("sigmoid"),
    "swish": activation_cases("swish"),
    "max_pool2d": pool_cases("max_pool2d"),
    "avg_pool2d": pool_cases("avg_pool2d"),
    "global_avg_pool": global_avg_pool_cases(),
    "dropout": dropout_cases("dropout"),
    "drop_path": dropout_cases("drop_path"),
    "resize_bilinear": resize_bilinear_cases(),
    "channel_scale": channel_scale_cases(),
    "softmax_cross_entropy": softmax_cross_entropy_cases(),
}
"""One strategy an op, by the op's name."""
