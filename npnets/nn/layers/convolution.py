"""Standard and depthwise convolution."""

import math

import numpy as np

from npnets import ops
from npnets.nn.layers.layer import (
    Layer,
    bias_and_activation,
    check_image,
    check_images,
    check_stride,
    check_window,
    make_bias,
    make_weight,
    same_pass,
    short,
)
from npnets.ops.activation import SAME_PASS
from npnets.shapes import boolean, geometry, integer, pair


class _Convolution(Layer):
    """What standard and depthwise convolution share: a window that slides, and its settings."""

    own = ("w", "b")

    def __init__(self, kernel, stride, padding, dilation, activation):
        super().__init__()
        self.kernel = pair(kernel, "kernel")
        self.stride = pair(stride, "stride")
        self.dilation = pair(dilation, "dilation")
        self.padding = padding
        self.activation = same_pass(self, activation, SAME_PASS)
        check_window(self, self.kernel)

    @property
    def settings(self):
        return {"stride": self.stride, "padding": self.padding, "dilation": self.dilation}

    def output_shape(self, shape):
        H, W, _ = check_stride(self, check_image(self, shape, self.C_in))
        return (*geometry((H, W), self.kernel, **self.settings, name=type(self).__name__).out, self.C_out)

    def macs(self, shape):
        H_out, W_out, _ = self.output_shape(shape)
        return H_out * W_out * math.prod(self.w.shape)

    def describe(self):
        text = f"{self.C_in} -> {self.C_out}, {self.kernel[0]}x{self.kernel[1]}, stride {short(self.stride)}"
        dilation = "" if self.dilation == (1, 1) else f", dilation {short(self.dilation)}"
        return text + dilation + f", padding {self.padding!r}" + bias_and_activation(self)


class Conv2d(_Convolution):
    """Standard convolution (see :func:`npnets.ops.conv2d_forward`).

    Parameters
    ----------
    C_in, C_out : int
    kernel, stride, dilation : int or (int, int)
    padding : {"same", "valid", "symmetric"}, int, or ((top, bottom), (left, right))
    bias : bool
        No bias by default: before a batch norm its gradient is exactly zero.
    activation : {None, "relu", "relu6", "swish"}
        Applied in the same pass over the images. Meant for inference (see :func:`fold_batch_norm`): the backward
        computes the convolution once more.
    rng : numpy.random.Generator
    dtype : numpy dtype
    """

    kind = "conv"

    def __init__(
        self,
        C_in,
        C_out,
        kernel,
        *,
        stride=1,
        padding="same",
        dilation=1,
        bias=False,
        activation=None,
        rng,
        dtype=np.float32,
    ):
        super().__init__(kernel, stride, padding, dilation, activation)
        self.C_in, self.C_out = integer(C_in, "C_in", 1), integer(C_out, "C_out", 1)
        self.w = make_weight((*self.kernel, C_in, C_out), rng, dtype)
        self.b = make_bias(C_out, dtype) if boolean(bias, "bias") else None

    def apply(self, x, training):
        check_images(self, x)
        return ops.conv2d_forward(x, self.w.value, self.value("b"), **self.settings, activation=self.activation)

    def apply_backward(self, dy, cache):
        return ops.conv2d_backward(dy, cache)


class DepthwiseConv2d(_Convolution):
    """Depthwise convolution (see :func:`npnets.ops.depthwise_conv2d_forward`).

    Parameters
    ----------
    C : int
    kernel, stride, dilation, padding, bias, activation, rng, dtype
        As for :class:`Conv2d`.
    decay : bool
        Whether weight decay applies to the kernel; MobileNetV1 leaves it out (section 3.2).
    """

    kind = "depthwise"

    def __init__(
        self,
        C,
        kernel,
        *,
        stride=1,
        padding="same",
        dilation=1,
        bias=False,
        activation=None,
        decay=True,
        rng,
        dtype=np.float32,
    ):
        super().__init__(kernel, stride, padding, dilation, activation)
        self.C_in = self.C_out = integer(C, "C", 1)
        self.w = make_weight((*self.kernel, C), rng, dtype, decay=boolean(decay, "decay"))
        self.b = make_bias(C, dtype) if boolean(bias, "bias") else None

    def apply(self, x, training):
        check_images(self, x)
        arrays = x, self.w.value, self.value("b")
        return ops.depthwise_conv2d_forward(*arrays, **self.settings, activation=self.activation)

    def apply_backward(self, dy, cache):
        return ops.depthwise_conv2d_backward(dy, cache)
