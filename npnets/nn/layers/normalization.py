"""Batch norm and local response normalization."""

import numpy as np

from npnets import ops
from npnets.nn import init
from npnets.nn.layers.layer import Layer, same_pass
from npnets.nn.module import Parameter
from npnets.ops.activation import UPPER
from npnets.shapes import integer, number


class BatchNorm(Layer):
    """Batch normalization (see :func:`npnets.ops.batch_norm_forward`); gamma starts at one, beta at zero.

    Parameters
    ----------
    C : int
    decay : float
        The weight of the old running statistic, 0 <= decay < 1. (Not weight decay, which never touches batch norm.)
    eps : float
    activation : {None, "relu", "relu6"}
        Applied in the same pass over the images, which is faster than a layer of its own.
    dtype : numpy dtype
    """

    own = ("gamma", "beta")
    kind = "batch norm"
    running = ("running_mean", "running_var")

    def __init__(self, C, *, decay=0.99, eps=1e-3, activation=None, dtype=np.float32):
        super().__init__()
        self.C = integer(C, "C", 1)
        self.decay = number(decay, "BatchNorm: decay (the weight of the old statistic)", at_least=0, below=1)
        self.eps = number(eps, "BatchNorm: eps", at_least=0)
        self.activation = same_pass(self, activation, UPPER)
        self.gamma = Parameter((C,), init.constant(1), dtype=dtype, decay=False)
        self.beta = Parameter((C,), init.constant(0), dtype=dtype, decay=False)
        self.running_mean, self.running_var = np.zeros(C, dtype), np.ones(C, dtype)

    def apply(self, x, training):
        statistics = self.running_mean, self.running_var
        settings = {"training": training, "decay": self.decay, "eps": self.eps, "activation": self.activation}
        return ops.batch_norm_forward(x, self.gamma.value, self.beta.value, *statistics, **settings)

    def apply_backward(self, dy, cache):
        return ops.batch_norm_backward(dy, cache)

    def output_shape(self, shape):
        if shape[-1] != self.C:
            raise ValueError(f"BatchNorm: expects {self.C} channels, got the shape {shape}")
        return shape

    def describe(self):
        return f"{self.C}, decay {self.decay}, eps {self.eps}" + (f", {self.activation}" if self.activation else "")


class LocalResponseNorm(Layer):
    """Local response normalization (see :func:`npnets.ops.local_response_norm_forward`)."""

    kind = "normalization"

    def __init__(self, *, size=5, alpha=1e-4, beta=0.75, k=2.0):
        super().__init__()
        if integer(size, "LocalResponseNorm: size", 1) % 2 == 0:
            raise ValueError(f"LocalResponseNorm: size must be odd, so that the window is centred, got {size}")
        self.settings = {"size": size, "alpha": alpha, "beta": beta, "k": k}

    def apply(self, x, training):
        return ops.local_response_norm_forward(x, **self.settings)

    def apply_backward(self, dy, cache):
        return ops.local_response_norm_backward(dy, cache)
