"""A convolution with what follows it: batch norm and activation."""

import numpy as np

from npnets.nn.layers import BatchNorm, Conv2d, PointwiseConv2d, activation_layer
from npnets.nn.module import Sequential
from npnets.shapes import pair


def norm_and_activation(name, C, activation, norm):
    """Return the layers of a batch norm and the activation after it: a single one where they share a pass.

    Parameters
    ----------
    name : str
        Of the batch norm, with "bn" in it; that of a separate activation has "act" there.
    C : int
    activation : str or None
    norm : dict
        Keywords of :class:`BatchNorm`.
    """
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
        dilation=1,
        activation="relu6",
        padding="same",
        bn_decay=0.99,
        bn_eps=1e-3,
        rng,
        dtype=np.float32,
    ):
        conv = convolution(C_in, C_out, kernel, stride=stride, dilation=dilation, padding=padding, rng=rng, dtype=dtype)
        norm = {"decay": bn_decay, "eps": bn_eps, "dtype": dtype}
        super().__init__(conv=conv, **norm_and_activation("bn", C_out, activation, norm))


class ConvAct(Sequential):
    """Convolution with a bias, activation: the same layer before there was batch norm.

    Parameters
    ----------
    C_in, C_out, kernel, activation
        As for :class:`ConvBNAct`.
    """

    def __init__(
        self,
        C_in,
        C_out,
        kernel=3,
        *,
        stride=1,
        dilation=1,
        activation="relu",
        padding="same",
        rng,
        dtype=np.float32,
    ):
        spatial = {"stride": stride, "dilation": dilation, "padding": padding}
        conv = convolution(C_in, C_out, kernel, bias=True, **spatial, rng=rng, dtype=dtype)
        super().__init__(conv=conv, act=activation_layer(activation))


def convolution(C_in, C_out, kernel, *, stride, dilation, padding, **settings):
    """Return a standard convolution: a pointwise one where the kernel is a single pixel that does not skip any."""
    if pair(kernel, "kernel") == pair(stride, "stride") == (1, 1):
        return PointwiseConv2d(C_in, C_out, **settings)
    return Conv2d(C_in, C_out, kernel, stride=stride, dilation=dilation, padding=padding, **settings)
