"""One thin shell for each op: it owns the arrays and keeps the cache between forward and backward.

What a layer computes stands in :mod:`npnets.ops`, in the function of the same name. Weights are drawn from a generator
that the constructor is given; each weight gets a stream of its own. The files are called as those of :mod:`npnets.ops`;
``layer.py`` holds what all layers share.
"""

from npnets.nn.layers.activation import ACTIVATIONS, ReLU, ReLU6, Sigmoid, Swish, activation_layer
from npnets.nn.layers.convolution import Conv2d, DepthwiseConv2d
from npnets.nn.layers.layer import Layer
from npnets.nn.layers.linear import Linear, PointwiseConv2d
from npnets.nn.layers.normalization import BatchNorm, LocalResponseNorm
from npnets.nn.layers.pooling import AvgPool2d, GlobalAvgPool, MaxPool2d
from npnets.nn.layers.regularization import Dropout, DropPath
from npnets.nn.layers.resize import Flatten, ResizeBilinear

__all__ = [
    "ACTIVATIONS",
    "AvgPool2d",
    "BatchNorm",
    "Conv2d",
    "DepthwiseConv2d",
    "DropPath",
    "Dropout",
    "Flatten",
    "GlobalAvgPool",
    "Layer",
    "Linear",
    "LocalResponseNorm",
    "MaxPool2d",
    "PointwiseConv2d",
    "ReLU",
    "ReLU6",
    "ResizeBilinear",
    "Sigmoid",
    "Swish",
    "activation_layer",
]
