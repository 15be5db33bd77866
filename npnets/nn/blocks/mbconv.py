"""The block of EfficientNet: MobileNetV2's inverted residual, with squeeze-and-excitation and swish."""

import numpy as np

from npnets import ops
from npnets.nn import init
from npnets.nn.blocks.conv import norm_and_activation
from npnets.nn.layers import (
    BatchNorm,
    DepthwiseConv2d,
    DropPath,
    GlobalAvgPool,
    Linear,
    PointwiseConv2d,
    Sigmoid,
    activation_layer,
)
from npnets.nn.module import Residual, Sequential
from npnets.shapes import integer, multiplier, pair


class SqueezeExcite(Sequential):
    """Weigh the channels of an image by what is in it (Hu et al. 2018, section 3).

    Squeeze: the mean z of each channel over the image (their equation 2). Excite: two fully connected layers give each
    channel a gate between 0 and 1, ``s = sigmoid(w2 g(w1 z + b1) + b2)`` (equation 3). Scale: ``y = x s`` (equation 4;
    see :func:`npnets.ops.channel_scale_forward`).

    Parameters
    ----------
    C : int
        Channels of the image.
    squeezed : int
        Numbers between the two layers.
    activation : {"relu", "relu6", "sigmoid", "swish"}
        g: ReLU in their paper, swish in EfficientNet.
    rng : numpy.random.Generator
    dtype : numpy dtype

    Notes
    -----
    EfficientNet's code writes the two layers as 1x1 convolutions of an image of one pixel: the same numbers. Unlike
    the other convolutions of that network they have biases, for no batch norm follows.
    """

    kind = "scale"  # what it computes itself, for a profile: the chain of its layers gives the gates

    def __init__(self, C, squeezed, activation="swish", *, rng, dtype=np.float32):
        weight = {"initializer": init.he_normal("fan_out"), "rng": rng, "dtype": dtype}
        super().__init__(
            pool=GlobalAvgPool(),
            reduce=Linear(C, integer(squeezed, "squeezed", 1), **weight),
            act=activation_layer(activation),
            expand=Linear(squeezed, C, **weight),
            gate=Sigmoid(),
        )
        self.cache = None

    def forward(self, x, training=False):
        s = super().forward(x, training)  # (N, H, W, C) -> (N, C)
        y, cache = ops.channel_scale_forward(x, s)
        self.cache = None if self.gate.inference_only else cache
        return y

    def backward(self, dy):
        if self.cache is None:
            return super().backward(dy)  # which says why there is nothing to go back through
        dx, ds = ops.channel_scale_backward(dy, self.cache)
        dx += super().backward(ds)
        return dx

    def trace(self, shape, visit, path=""):
        super().trace(shape, visit, path)
        return shape


class MBConv(Residual):
    """Mobile inverted bottleneck: expand to t C_in channels, filter, squeeze and excite, project to C_out.

    The block of EfficientNet's Table 1: Table 1 of MobileNetV2 with squeeze-and-excitation between the depthwise
    convolution and the projection, and swish in the place of ReLU6. There is no expansion convolution at t = 1. The
    projection is linear. The input is added to the output where the block keeps the shape, stride 1 and C_in = C_out;
    there, in training, the whole branch of an image is left out with the probability ``1 - survival_prob``.

    Parameters
    ----------
    C_in, C_out : int
    t : int
        Expansion factor, applied to the input channels.
    kernel : int
    squeeze_ratio : float or None
        Width of the squeeze-and-excitation, relative to the *input* channels of the block and not to the expanded
        ones: ``max(1, int(squeeze_ratio C_in))``. None: without.
    activation : {"relu", "relu6", "sigmoid", "swish"}
    survival_prob : float
        Of drop path (stochastic depth).
    """

    def __init__(
        self,
        C_in,
        C_out,
        t=6,
        kernel=3,
        *,
        stride=1,
        dilation=1,
        squeeze_ratio=0.25,
        activation="swish",
        survival_prob=1.0,
        padding="same",
        bn_decay=0.99,
        bn_eps=1e-3,
        rng,
        dtype=np.float32,
    ):
        expanded = integer(t, "expansion factor t", 1) * integer(C_in, "C_in", 1)
        keeps_shape = pair(stride, "stride") == (1, 1) and C_in == C_out
        weight = {"rng": rng, "dtype": dtype}
        norm = {"decay": bn_decay, "eps": bn_eps, "dtype": dtype}
        spatial = {"stride": stride, "padding": padding, "dilation": dilation}

        layers = {}
        if t != 1:
            layers |= {"expand": PointwiseConv2d(C_in, expanded, **weight)}
            layers |= norm_and_activation("expand_bn", expanded, activation, norm)
        layers |= {"depthwise": DepthwiseConv2d(expanded, kernel, **spatial, **weight)}
        layers |= norm_and_activation("depthwise_bn", expanded, activation, norm)
        if squeeze_ratio is not None:
            squeezed = max(1, int(multiplier(squeeze_ratio, "squeeze_ratio") * C_in))
            layers |= {"squeeze_excite": SqueezeExcite(expanded, squeezed, activation, **weight)}
        layers |= {"project": PointwiseConv2d(expanded, C_out, **weight), "project_bn": BatchNorm(C_out, **norm)}
        drop_path = DropPath(survival_prob, rng=rng)
        if keeps_shape:
            layers |= {"drop_path": drop_path}
        super().__init__(**layers)
        self.adds_input = keeps_shape

    def describe(self):
        return "adds its input" if self.adds_input else ""
