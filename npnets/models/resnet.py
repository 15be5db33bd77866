"""ResNet-50, 101 and 152 (He et al. 2016): bottleneck blocks that add their input to their output.

EfficientNet's section 5 scales and compares them, MobileNetV2's section 6.3 puts DeepLabv3 on the 101 layers.

===================== ============= ===============
layers @ pixels        parameters    multiply-adds
===================== ============= ===============
50 @ 224                25,557,032     4,089,184,256
101 @ 224               44,549,160     7,801,405,440
152 @ 224               60,192,808    11,513,626,624
===================== ============= ===============

That is with the stride in the 3x3 convolutions, the variant that EfficientNet's 4.1B for 50 layers belongs to. Its
11.3B for 152 layers is the paper's variant, with the stride in the first 1x1 (``stride_in="1x1"``).
"""

import itertools

import numpy as np

from npnets import nn
from npnets.models.common import layer_settings
from npnets.nn.blocks.residual import EXPANSION
from npnets.shapes import (
    atrous_strides,
    check_output_stride,
    choice,
    integer,
    integers,
    multiplier,
    round_channels,
    round_repeats,
)

# Table 1 of the paper: how often the block of each stage is repeated.
TABLE = {
    # layers: conv2_x, conv3_x, conv4_x, conv5_x
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
CHANNELS = (64, 128, 256, 512)  # of a stage's 1x1 and 3x3; its last 1x1 has four times as many
STRIDES = (1, 2, 2, 2)  # of a stage's first block, on the map that conv1 and the max pooling left: 56 x 56 of 224 x 224

# conv1: (filters, kernel, stride) of its convolutions. DeepLab replaces the 7x7 by three 3x3.
STEMS = {
    "7x7": [(64, 7, 2)],
    "3x3": [(64, 3, 2), (64, 3, 1), (128, 3, 1)],
}
STRIDE_IN = ("3x3", "1x1", "last")


def resnet(
    repeats,
    num_classes=1000,
    in_channels=3,
    width_mult=1.0,
    *,
    depth_mult=1.0,
    stride_in="3x3",
    stem="7x7",
    output_stride=None,
    multi_grid=None,
    dropout=0.0,
    padding="same",
    bn_decay=0.997,
    bn_eps=1e-5,
    seed=0,
    dtype=np.float32,
):
    """Return a ResNet of bottleneck blocks for images of any size; the paper's are 224 pixels wide.

    Parameters
    ----------
    repeats : (int, int, int, int)
        Blocks in each of the four stages: a row of ``TABLE``.
    num_classes, in_channels : int
    width_mult, depth_mult : float
        Factors on the channels, which are rounded to multiples of 8, and on the repeats, which are rounded up
        (EfficientNet, section 5.1).
    stride_in : {"3x3", "1x1", "last"}
        Where a stage halves its map: in the 3x3 of its first block, in the first 1x1 of its first block (the paper), or
        in the 3x3 of its last block, for the next stage (TF-slim and DeepLab; the last stage has nothing to halve for).
    stem : {"7x7", "3x3"}
        One 7x7 convolution, or the three 3x3 of DeepLab.
    output_stride : {8, 16, 32}, optional
        How many times smaller than the image the last map is. Later strides become dilations (see
        :func:`npnets.shapes.atrous_strides`).
    multi_grid : tuple of int, optional
        Rates of the 3x3 convolutions in the last stage's blocks, times the dilation that the output stride asks for;
        DeepLab's are (1, 2, 4).
    dropout : float
        Rate before the classifier.
    padding : {"same", "symmetric"}
        TensorFlow's, or ``k // 2`` on every side as weights trained in PyTorch expect.
    bn_decay, bn_eps : float
        Of batch norm; the defaults are those of TF-slim. For short trainings take 0.9 to 0.99.
    seed : int
        Of the weights and of dropout.
    dtype : numpy dtype

    Returns
    -------
    nn.Sequential
        stem, pool, stages (a list), global_pool, dropout, classifier.

    Raises
    ------
    ValueError
        If a setting is out of range.
    """
    choice(stride_in, "stride_in", STRIDE_IN)
    width, depth = multiplier(width_mult, "width_mult"), multiplier(depth_mult, "depth_mult")
    common = layer_settings(padding=padding, bn_decay=bn_decay, bn_eps=bn_eps, seed=seed, dtype=dtype)
    rng = common["rng"]

    C, first = integer(in_channels, "in_channels", 1), []
    for c, kernel, s in STEMS[choice(stem, "stem", STEMS)]:
        C_out = round_channels(c * width)
        first.append(nn.ConvBNAct(C, C_out, kernel, stride=s, activation="relu", **common))
        C = C_out

    repeats = [round_repeats(n, depth) for n in _four(repeats)]
    strides_and_rates = iter(_strides_and_rates(repeats, stride_in, output_stride, multi_grid))
    convolution = "1x1" if stride_in == "1x1" else "3x3"
    stages = []
    for c, n in zip(CHANNELS, repeats):
        c, blocks = round_channels(c * width), []
        for s, rate in itertools.islice(strides_and_rates, n):
            blocks.append(nn.ResidualBottleneck(C, c, stride=s, stride_in=convolution, dilation=rate, **common))
            C = EXPANSION * c
        stages.append(nn.Sequential(*blocks))
    return nn.Sequential(
        stem=nn.Sequential(*first),
        pool=nn.MaxPool2d(3, stride=2, padding=padding),
        stages=stages,
        global_pool=nn.GlobalAvgPool(),
        dropout=nn.Dropout(dropout, rng=rng),
        classifier=nn.Linear(C, integer(num_classes, "num_classes", 1), rng=rng, dtype=dtype),
    )


def _four(repeats):
    if not isinstance(repeats, (tuple, list)) or len(repeats) != len(CHANNELS):
        raise ValueError(f"repeats must be the number of blocks in each of the four stages, got {repeats!r}")
    return integers(repeats, "repeats")


def _strides_and_rates(repeats, stride_in, output_stride, multi_grid):
    """Return the stride and the dilation of every block, in order."""
    if stride_in == "last":
        strides = [s for n, s in zip(repeats, (*STRIDES[1:], 1)) for s in (*[1] * (n - 1), s)]
    else:
        strides = [s for n, s in zip(repeats, STRIDES) for s in (s, *[1] * (n - 1))]
    before = [2, 2]  # conv1 and the max pooling
    found = atrous_strides(before + strides, check_output_stride(output_stride))[len(before) :]
    if multi_grid is None:
        return found
    if not isinstance(multi_grid, (tuple, list)) or len(multi_grid) != repeats[-1]:
        blocks = f"each of the {repeats[-1]} blocks of the last stage"
        raise ValueError(f"multi_grid must have a rate for {blocks}, got {multi_grid!r}")
    grid = integers(multi_grid, "multi_grid")
    last = [(stride, rate * unit_rate) for (stride, rate), unit_rate in zip(found[-len(grid) :], grid)]
    return found[: -len(grid)] + last


def resnet_features(repeats, in_channels=3, width_mult=1.0, **settings):
    """Return a ResNet without its head: from the image to the map with 2048 channels, for other heads to stand on.

    The parameters are those of :func:`resnet`, and so are the weights for the same seed.

    Returns
    -------
    nn.Sequential
        stem, pool, stages (a list).
    """
    whole = resnet(repeats, in_channels=in_channels, width_mult=width_mult, **settings)
    return nn.Sequential(stem=whole.stem, pool=whole.pool, stages=whole.stages)


def resnet50(num_classes=1000, in_channels=3, width_mult=1.0, **settings):
    """Return ResNet-50; the parameters are those of :func:`resnet`."""
    return resnet(TABLE[50], num_classes, in_channels, width_mult, **settings)


def resnet101(num_classes=1000, in_channels=3, width_mult=1.0, **settings):
    """Return ResNet-101; the parameters are those of :func:`resnet`."""
    return resnet(TABLE[101], num_classes, in_channels, width_mult, **settings)


def resnet152(num_classes=1000, in_channels=3, width_mult=1.0, **settings):
    """Return ResNet-152; the parameters are those of :func:`resnet`."""
    return resnet(TABLE[152], num_classes, in_channels, width_mult, **settings)
