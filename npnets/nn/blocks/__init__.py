"""The building blocks of the papers, as chains of layers.

A block is a :class:`Sequential` (or a :class:`Residual`, where the paper adds the input), so its forward and backward
are those of its layers. ReLU and ReLU6 are applied by the batch norm before them, in the same pass over the images.
The keywords that all blocks share:

stride, dilation : int
    Of the spatial convolution.
padding : "same" or "symmetric"
    Of the spatial convolution; weights trained in PyTorch expect the symmetric one.
bn_decay, bn_eps : float
    Of every batch norm.
rng : numpy.random.Generator
dtype : numpy dtype
"""

from npnets.nn.blocks.conv import ConvAct, ConvBNAct
from npnets.nn.blocks.mobile import Bottleneck, DepthwiseSeparable, InvertedResidual

__all__ = ["Bottleneck", "ConvAct", "ConvBNAct", "DepthwiseSeparable", "InvertedResidual"]
