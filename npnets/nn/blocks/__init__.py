"""The building blocks of the papers, as chains of layers.

A block is a :class:`Sequential` (or a :class:`Residual`, where the paper adds the input, or a :class:`Concat` of
branches), so its forward and backward are those of its layers. Some have their own: :class:`SqueezeExcite`, the
:class:`Bottleneck`, which is one op in training, and those of detection and segmentation. ReLU and ReLU6 are applied by
the batch norm before them, in the same pass over the images. The keywords that all blocks share:

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
from npnets.nn.blocks.detection import DetectionHead, Detector, ExtraMap, Predictor
from npnets.nn.blocks.inception import Inception
from npnets.nn.blocks.mbconv import MBConv, SqueezeExcite
from npnets.nn.blocks.mobile import Bottleneck, DepthwiseSeparable, InvertedResidual
from npnets.nn.blocks.residual import ResidualBottleneck
from npnets.nn.blocks.segmentation import ASPP, ImagePooling, ResizedToInput

__all__ = [
    "ASPP",
    "Bottleneck",
    "ConvAct",
    "ConvBNAct",
    "DepthwiseSeparable",
    "DetectionHead",
    "Detector",
    "ExtraMap",
    "ImagePooling",
    "Inception",
    "InvertedResidual",
    "MBConv",
    "Predictor",
    "ResidualBottleneck",
    "ResizedToInput",
    "SqueezeExcite",
]
