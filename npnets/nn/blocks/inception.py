"""The module of BN-Inception: convolutions of several sizes side by side."""

import numpy as np

from npnets.nn import init
from npnets.nn.blocks.conv import ConvAct, ConvBNAct
from npnets.nn.layers import ACTIVATIONS, AvgPool2d, MaxPool2d
from npnets.nn.module import Concat, Parameter, Sequential
from npnets.shapes import boolean, choice, integer, pair

POOLS = {"avg": AvgPool2d, "max": MaxPool2d}


def inception_conv(
    C_in,
    C_out,
    kernel,
    *,
    stride=1,
    batch_norm=True,
    activation="relu",
    init_scale=1.0,
    padding="same",
    bn_decay=0.99,
    bn_eps=1e-3,
    rng,
    dtype=np.float32,
):
    """Return a convolution with its activation, and between the two a batch norm, or else a bias in the convolution.

    With and without batch norm the initial weights are the same for the same rng. They are He's for the fan-in. With
    those for the fan-out, the default elsewhere, activations and gradients would nearly double in every module, since a
    branch reads all of the module's input and writes a part of its output; without batch norm, nothing would stop that.

    Parameters
    ----------
    C_in, C_out, kernel, stride, padding, bn_decay, bn_eps, rng, dtype
        As for :class:`npnets.nn.ConvBNAct`.
    batch_norm : bool
    activation : {"relu", "relu6", "sigmoid", "swish"}
    init_scale : float
        Factor on the initial weights ("increased initial weights", section 4.3 of the batch-norm paper).
    """
    choice(activation, "activation", ACTIVATIONS)
    common = {"stride": stride, "activation": activation, "padding": padding, "rng": rng, "dtype": dtype}
    if boolean(batch_norm, "batch_norm"):
        unit = ConvBNAct(C_in, C_out, kernel, bn_decay=bn_decay, bn_eps=bn_eps, **common)
    else:
        unit = ConvAct(C_in, C_out, kernel, **common)
    he = init.he_normal("fan_in")
    unit.conv.w = Parameter(
        unit.conv.w.shape, lambda shape, rng: init_scale * he(shape, rng), rng.spawn(1)[0], dtype=dtype
    )
    return unit


class Inception(Concat):
    """Four branches side by side: Figure 5 of the batch-norm paper (Ioffe and Szegedy 2015).

    ``conv1x1``; ``conv3x3``, which reduces the channels with a 1x1 first; ``double3x3``, which reduces them too, and
    has two 3x3 in place of GoogLeNet's 5x5; and ``pool``, a 3x3 pooling with stride 1 and a 1x1 projection. A module
    with stride 2 halves the map in the last 3x3 of its branches and in the pooling.

    Parameters
    ----------
    C_in : int
    conv1x1 : int
        Channels of this branch; 0 leaves it out.
    conv3x3, double3x3 : (int, int)
        Channels of a branch: after its reduction, and at its end.
    pool : {"avg", "max"}
    projection : int
        Channels of the 1x1 after the pooling; with 0 the pooled input is passed on as it is.
    stride : int
    **settings
        batch_norm, activation, init_scale, padding, bn_decay, bn_eps, rng, dtype of :func:`inception_conv`.
    """

    def __init__(
        self, C_in, *, conv1x1, conv3x3, double3x3, pool="avg", projection, stride=1, padding="same", **settings
    ):
        choice(pool, "Inception: pool", POOLS)
        if integer(conv1x1, "Inception: conv1x1", 0) and pair(stride, "stride") != (1, 1):
            raise ValueError("Inception: a module with a stride has no 1x1 branch, which would skip pixels unseen")
        settings = settings | {"padding": padding}
        reduced, wide = pair(conv3x3, "Inception: conv3x3")
        double_reduced, double_wide = pair(double3x3, "Inception: double3x3")
        branches = {
            "conv1x1": inception_conv(C_in, conv1x1, 1, **settings) if conv1x1 else None,
            "conv3x3": Sequential(
                reduce=inception_conv(C_in, reduced, 1, **settings),
                conv=inception_conv(reduced, wide, 3, stride=stride, **settings),
            ),
            "double3x3": Sequential(
                reduce=inception_conv(C_in, double_reduced, 1, **settings),
                conv1=inception_conv(double_reduced, double_wide, 3, **settings),
                conv2=inception_conv(double_wide, double_wide, 3, stride=stride, **settings),
            ),
            "pool": POOLS[pool](3, stride=stride, padding=padding),
        }
        if integer(projection, "Inception: projection", 0):
            branches["pool"] = Sequential(
                pool=branches["pool"], project=inception_conv(C_in, projection, 1, **settings)
            )
        super().__init__(**{name: branch for name, branch in branches.items() if branch is not None})
