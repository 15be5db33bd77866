"""Pointwise convolution and the fully connected layer."""

import math

import numpy as np

from npnets import ops
from npnets.nn import init
from npnets.nn.layers.layer import Layer, bias_and_activation, make_bias, make_weight, same_pass
from npnets.ops.activation import SAME_PASS
from npnets.shapes import boolean, integer


class PointwiseConv2d(Layer):
    """Pointwise (1x1) convolution (see :func:`npnets.ops.pointwise_conv2d_forward`).

    Parameters
    ----------
    C_in, C_out : int
    initializer : callable, optional
        Of :mod:`npnets.nn.init`; by default He's, for the fan-out.
    bias, activation, rng, dtype
        As for :class:`Conv2d`.
    """

    own = ("w", "b")
    kind = "pointwise"

    def __init__(self, C_in, C_out, *, bias=False, activation=None, initializer=None, rng, dtype=np.float32):
        super().__init__()
        self.activation = same_pass(self, activation, SAME_PASS)
        self.C_in, self.C_out = integer(C_in, "C_in", 1), integer(C_out, "C_out", 1)
        self.w = make_weight((C_in, C_out), rng, dtype, initializer)
        self.b = make_bias(C_out, dtype) if boolean(bias, "bias") else None

    def apply(self, x, training):
        return ops.pointwise_conv2d_forward(x, self.w.value, self.value("b"), activation=self.activation)

    def apply_backward(self, dy, cache):
        return ops.pointwise_conv2d_backward(dy, cache)

    def output_shape(self, shape):
        if shape[-1] != self.C_in:
            raise ValueError(f"{type(self).__name__}: expects {self.C_in} channels, got the shape {shape}")
        return (*shape[:-1], self.C_out)

    def macs(self, shape):
        return math.prod(shape[:-1]) * self.C_in * self.C_out

    def describe(self):
        return f"{self.C_in} -> {self.C_out}" + bias_and_activation(self)


class Linear(PointwiseConv2d):
    """Fully connected layer (see :func:`npnets.ops.linear_forward`).

    Parameters
    ----------
    C_in, C_out : int
    bias : bool
    initializer : callable, optional
        By default Gaussian with standard deviation 0.01, so that a classifier starts out undecided.
    activation, rng, dtype
        As for :class:`Conv2d`.
    """

    kind = "linear"

    def __init__(self, C_in, C_out, *, bias=True, activation=None, initializer=None, rng, dtype=np.float32):
        settings = {"bias": bias, "activation": activation, "rng": rng, "dtype": dtype}
        super().__init__(C_in, C_out, initializer=initializer or init.gaussian(0.01), **settings)

    def apply(self, x, training):
        return ops.linear_forward(x, self.w.value, self.value("b"), activation=self.activation)

    def apply_backward(self, dy, cache):
        return ops.linear_backward(dy, cache)
