"""The bottleneck block of ResNet."""

import numpy as np

from npnets.nn.blocks.conv import ConvBNAct, convolution
from npnets.nn.layers import BatchNorm, MaxPool2d, ReLU
from npnets.nn.module import Residual, Sequential
from npnets.shapes import choice, integer, pair

EXPANSION = 4
"""How many times as many channels the last convolution of a block has as the other two (He et al. 2016, Table 1)."""

STRIDE_IN = ("3x3", "1x1")


class ResidualBottleneck(Sequential):
    """Reduce with a 1x1, filter with a 3x3, restore with a 1x1, add the input; then ReLU (He et al. 2016, Figure 5).

    ``y = relu(shortcut(x) + branch(x))``. Each convolution has a batch norm, and a ReLU but for the last, whose ReLU
    comes after the sum: so a block is the :class:`Residual` named ``residual``, and the activation ``act`` after it.

    The shortcut is the input itself. Where the number of channels changes it is a 1x1 convolution with batch norm
    (option B of the paper's section 3.3); where only the stride does, it keeps every s-th pixel, which is a max pooling
    of one pixel.

    Parameters
    ----------
    C_in : int
    C : int
        Channels of the first two convolutions; the block has ``4 C`` at its end.
    stride_in : {"3x3", "1x1"}
        Which convolution has the stride. In the paper it is the first 1x1, which drops three of four pixels unseen;
        later code has it in the 3x3, which costs more and is more accurate.
    """

    def __init__(
        self,
        C_in,
        C,
        *,
        stride=1,
        stride_in="3x3",
        dilation=1,
        padding="same",
        bn_decay=0.99,
        bn_eps=1e-3,
        rng,
        dtype=np.float32,
    ):
        choice(stride_in, "stride_in", STRIDE_IN)
        C_in, C, stride = integer(C_in, "C_in", 1), integer(C, "C", 1), pair(stride, "stride")
        C_out = EXPANSION * C
        in_1x1, in_3x3 = (stride, 1) if stride_in == "1x1" else (1, stride)
        common = {"padding": padding, "rng": rng, "dtype": dtype}
        norm = {"decay": bn_decay, "eps": bn_eps, "dtype": dtype}
        branch = {
            "reduce": convolution(C_in, C, 1, stride=in_1x1, dilation=1, **common),
            "reduce_bn": BatchNorm(C, activation="relu", **norm),
            "conv": convolution(C, C, 3, stride=in_3x3, dilation=dilation, **common),
            "conv_bn": BatchNorm(C, activation="relu", **norm),
            "restore": convolution(C, C_out, 1, stride=1, dilation=1, **common),
            "restore_bn": BatchNorm(C_out, **norm),
        }
        shortcut = None
        if C_in != C_out:
            settings = common | {"bn_decay": bn_decay, "bn_eps": bn_eps}
            shortcut = ConvBNAct(C_in, C_out, 1, stride=stride, activation=None, **settings)
        elif stride != (1, 1):
            shortcut = MaxPool2d(1, stride=stride, padding=padding)
        super().__init__(residual=Residual(**branch, shortcut=shortcut), act=ReLU())
