"""The building blocks of the papers, as chains of layers.

A block is a :class:`Sequential` (or a :class:`Residual`, where the paper adds the input), so its forward and backward
are those of its layers. ReLU and ReLU6 are applied by the batch norm before them, in the same pass over the images.
The keywords that all blocks share:

stride : int
    Of the spatial convolution.
padding : "same" or "symmetric"
    Of the spatial convolution; weights trained in PyTorch expect the symmetric one.
bn_decay, bn_eps : float
    Of every batch norm.
rng : numpy.random.Generator
dtype : numpy dtype
"""

import numpy as np

from npnets.nn.layers import BatchNorm, Conv2d, DepthwiseConv2d, PointwiseConv2d, activation_layer
from npnets.nn.module import Residual, Sequential
from npnets.shapes import integer, pair


def _norm_and_activation(name, C, activation, norm):
    """Return the layers of a batch norm and the activation after it: a single one where they share a pass."""
    if activation in (None, "relu", "relu6"):
        return {name: BatchNorm(C, activation=activation, **norm)}
    return {name: BatchNorm(C, **norm), name.replace("bn", "act"): activation_layer(activation)}


class ConvBNAct(Sequential):
    """Standard convolution, batch norm, activation: Figure 3 (left) of MobileNetV1. A 1x1 becomes a pointwise layer.

    Parameters
    ----------
    C_in, C_out : int
    kernel : int or (int, int)
    activation : {"relu", "relu6", "sigmoid", "swish"} or None
    """

    def __init__(
        self,
        C_in,
        C_out,
        kernel=3,
        *,
        stride=1,
        activation="relu6",
        padding="same",
        bn_decay=0.99,
        bn_eps=1e-3,
        rng,
        dtype=np.float32,
    ):
        if pair(kernel, "kernel") == pair(stride, "stride") == (1, 1):
            conv = PointwiseConv2d(C_in, C_out, rng=rng, dtype=dtype)
        else:
            conv = Conv2d(C_in, C_out, kernel, stride=stride, padding=padding, rng=rng, dtype=dtype)
        norm = {"decay": bn_decay, "eps": bn_eps, "dtype": dtype}
        super().__init__(conv=conv, **_norm_and_activation("bn", C_out, activation, norm))


class DepthwiseSeparable(Sequential):
    """Filter, then combine: Figure 3 (right) of MobileNetV1, batch norm and ReLU after each of the two.

    Parameters
    ----------
    C_in, C_out : int
    kernel : int
    activation : str
        ReLU in the paper.
    decay_depthwise : bool
        Whether weight decay applies to the depthwise kernel. The paper found it important to put very little or none
        on it (section 3.2).
    """

    def __init__(
        self,
        C_in,
        C_out,
        kernel=3,
        *,
        stride=1,
        activation="relu",
        decay_depthwise=False,
        padding="same",
        bn_decay=0.99,
        bn_eps=1e-3,
        rng,
        dtype=np.float32,
    ):
        spatial = {"stride": stride, "padding": padding, "decay": decay_depthwise, "rng": rng, "dtype": dtype}
        norm = {"decay": bn_decay, "eps": bn_eps, "dtype": dtype}
        super().__init__(
            depthwise=DepthwiseConv2d(C_in, kernel, **spatial),
            **_norm_and_activation("depthwise_bn", C_in, activation, norm),
            pointwise=PointwiseConv2d(C_in, C_out, rng=rng, dtype=dtype),
            **_norm_and_activation("pointwise_bn", C_out, activation, norm),
        )


class InvertedResidual(Residual):
    """Bottleneck residual block, Table 1 of MobileNetV2: expand to t C_in channels, filter, project to C_out.

    There is no expansion convolution at t = 1. The projection is linear. The input is added to the output where the
    block keeps the shape: stride 1 and C_in = C_out.

    Parameters
    ----------
    C_in, C_out : int
    t : int
        Expansion factor, applied to the input channels.
    kernel : int
    bottleneck : {"linear", "relu6"}
        "relu6" puts a non-linearity on the bottleneck: Figure 5 (a).
    shortcut : {"bottleneck", "expansion", "none"}
        What the residual connection joins: Figure 5 (b). "expansion" adds the expanded tensor before the depthwise
        convolution to the expanded tensor after it, in the same blocks that would have a bottleneck shortcut, so that
        the three variants have equally many parameters and shortcuts. (The weights of such a block are named
        ``filtering.depthwise.w``.)
    """

    def __init__(
        self,
        C_in,
        C_out,
        t=6,
        kernel=3,
        *,
        stride=1,
        bottleneck="linear",
        shortcut="bottleneck",
        padding="same",
        bn_decay=0.99,
        bn_eps=1e-3,
        rng,
        dtype=np.float32,
    ):
        if bottleneck not in ("linear", "relu6"):
            raise ValueError(f'bottleneck must be "linear" or "relu6", got {bottleneck!r}')
        if shortcut not in ("bottleneck", "expansion", "none"):
            raise ValueError(f'shortcut must be "bottleneck", "expansion" or "none", got {shortcut!r}')
        expanded = integer(t, "expansion factor t", 1) * C_in
        keeps_shape = pair(stride, "stride") == (1, 1) and C_in == C_out
        norm = {"decay": bn_decay, "eps": bn_eps, "dtype": dtype}
        weight = {"rng": rng, "dtype": dtype}

        expansion = {}
        if t != 1:
            expansion = {
                "expand": PointwiseConv2d(C_in, expanded, **weight),
                "expand_bn": BatchNorm(expanded, activation="relu6", **norm),
            }
        filtering = {
            "depthwise": DepthwiseConv2d(expanded, kernel, stride=stride, padding=padding, **weight),
            "depthwise_bn": BatchNorm(expanded, activation="relu6", **norm),
        }
        if keeps_shape and shortcut == "expansion":
            filtering = {"filtering": Residual(**filtering)}
        projection = {
            "project": PointwiseConv2d(expanded, C_out, **weight),
            "project_bn": BatchNorm(C_out, activation=None if bottleneck == "linear" else "relu6", **norm),
        }
        super().__init__(**expansion, **filtering, **projection)
        self.adds_input = keeps_shape and shortcut == "bottleneck"

    def describe(self):
        return "adds its input" if self.adds_input else ""
