"""MobileNetV1 (Howard et al. 2017, section 3): a stack of depthwise separable convolutions.

===================== ============= ===============
width_mult @ pixels    parameters    multiply-adds
===================== ============= ===============
1.0 @ 224                 4,231,976     568,740,352
0.75 @ 224                2,585,560     325,400,448
0.5 @ 224                 1,331,592     149,497,088
0.25 @ 224                  470,072      41,030,272
shallow @ 224             2,887,976     307,323,392
standard @ 224           29,294,088   4,867,293,184
===================== ============= ===============

"shallow" is the network of Table 5 of the paper, without the five equal layers in its middle. "standard" is the Conv
MobileNet of its Table 4, whose separable convolutions are full ones.
"""

import itertools

import numpy as np

from npnets import nn
from npnets.models.common import layer_settings
from npnets.shapes import (
    atrous_strides,
    boolean,
    check_output_stride,
    choice,
    integer,
    multiplier,
    round_repeats,
    scale_channels,
    table_rows,
)

# Table 1 of the paper, the body: each row is a depthwise convolution with stride s and a pointwise one with c filters.
# The paper prints stride 2 for the last depthwise convolution, but its next row still has 7x7 pixels: it is 1.
TABLE = [
    # s,   c     input of the depthwise convolution
    (1, 64),  # 112 x 112 x 32
    (2, 128),  # 112 x 112 x 64
    (1, 128),  # 56 x 56 x 128
    (2, 256),  # 56 x 56 x 128
    (1, 256),  # 28 x 28 x 256
    (2, 512),  # 28 x 28 x 256
    (1, 512),  # 14 x 14 x 512, five times
    (1, 512),
    (1, 512),
    (1, 512),
    (1, 512),
    (2, 1024),  # 14 x 14 x 512
    (1, 1024),  # 7 x 7 x 1024
]
STEM = 32  # filters of the first layer, a standard 3x3 convolution with stride 2

# The shallow MobileNet: "the 5 layers of separable filters with feature size 14 x 14 x 512 in Table 1 are removed".
SHALLOW_TABLE = [
    # s,   c     input of the depthwise convolution
    (1, 64),  # 112 x 112 x 32
    (2, 128),  # 112 x 112 x 64
    (1, 128),  # 56 x 56 x 128
    (2, 256),  # 56 x 56 x 128
    (1, 256),  # 28 x 28 x 256
    (2, 512),  # 28 x 28 x 256
    (2, 1024),  # 14 x 14 x 512
    (1, 1024),  # 7 x 7 x 1024
]

# For 28 and 32 pixels. The paper halves the image five times, which would leave a single pixel; here it is three times,
# in the stem and where the comments say so. Ten classes need half as many filters, and fewer layers, than a thousand.
SMALL_TABLE = [
    # s,   c     departure from the paper, besides the halved c
    (1, 32),
    (2, 64),  # none: 14 -> 7, or 16 -> 8
    (1, 64),
    (2, 128),  # none: 7 -> 4, or 8 -> 4
    (1, 128),
    (1, 256),  # stride 1 for 2
    (1, 256),  # two of the five repeated rows; the last two (1024 filters) are left out
    (1, 256),
]
SMALL_STEM = 16  # with the paper's stride of 2: 28 -> 14, or 32 -> 16

BLOCKS = {"separable": nn.DepthwiseSeparable, "standard": nn.ConvBNAct}


def mobilenet_v1(
    num_classes=1000,
    in_channels=3,
    width_mult=1.0,
    *,
    depth_mult=1.0,
    convolution="separable",
    shallow=False,
    decay_depthwise=False,
    output_stride=None,
    dropout=0.001,
    padding="same",
    bn_decay=0.9997,
    bn_eps=1e-3,
    seed=0,
    dtype=np.float32,
    table=TABLE,
    stem=STEM,
    stem_stride=2,
):
    """Return MobileNetV1 for images of any size; the paper's are 224, 192, 160 or 128 pixels wide.

    Parameters
    ----------
    num_classes, in_channels : int
    width_mult : float
        alpha of section 3.3: a layer of d channels gets ``max(int(alpha d), 8)``.
    depth_mult : float
        EfficientNet's depth coefficient (section 5.1); see :func:`deepened`.
    convolution : {"separable", "standard"}
        "standard" replaces each depthwise and pointwise pair by one 3x3 convolution with batch norm and ReLU: the Conv
        MobileNet, with which the paper compares.
    shallow : bool
        Take ``SHALLOW_TABLE``, the other network with which it compares.
    decay_depthwise : bool
        Whether weight decay applies to the depthwise kernels, too; the paper puts little or none on them (section 3.2).
    output_stride : {8, 16, 32}, optional
        How many times smaller than the image the last map is. Later strides become dilations (see
        :func:`npnets.shapes.atrous_strides`).
    dropout : float
        Rate before the classifier.
    padding : {"same", "symmetric"}
        TensorFlow's, or ``k // 2`` on every side as weights trained in PyTorch expect.
    bn_decay, bn_eps : float
        Of batch norm; the defaults are those of the original code. For short trainings take 0.9 to 0.99: with 0.9997
        the running statistics need thousands of steps.
    seed : int
        Of the weights and of dropout.
    dtype : numpy dtype
    table, stem, stem_stride
        The body's rows (s, c), and the first layer.

    Returns
    -------
    nn.Sequential
        stem, blocks, pool, dropout, classifier.

    Raises
    ------
    ValueError
        If a setting is out of range.
    """
    block = BLOCKS[choice(convolution, "convolution", BLOCKS)]
    if boolean(shallow, "shallow") and table is not TABLE:
        raise ValueError("shallow=True is for SHALLOW_TABLE; it goes with no other table, nor with the small network")
    own = {}
    if boolean(decay_depthwise, "decay_depthwise"):
        if convolution != "separable":
            raise ValueError(f'decay_depthwise=True needs depthwise kernels; convolution="{convolution}" has none')
        own = {"decay_depthwise": True}
    width = multiplier(width_mult, "width_mult")
    in_channels, stem = integer(in_channels, "in_channels", 1), integer(stem, "stem", 1)
    common = layer_settings(padding=padding, bn_decay=bn_decay, bn_eps=bn_eps, seed=seed, dtype=dtype)
    rng = common["rng"]

    rows = deepened(table_rows(SHALLOW_TABLE if shallow else table, "s, c"), multiplier(depth_mult, "depth_mult"))
    strides = [integer(stem_stride, "stem_stride", 1), *(s for s, _ in rows)]
    (stride, _), *strides = atrous_strides(strides, check_output_stride(output_stride))
    C = scale_channels(stem, width)
    first = nn.ConvBNAct(in_channels, C, 3, stride=stride, activation="relu", **common)
    blocks = []
    for (_, c), (stride, dilation) in zip(rows, strides):
        C_out = scale_channels(c, width)
        blocks.append(block(C, C_out, 3, stride=stride, dilation=dilation, activation="relu", **own, **common))
        C = C_out
    return nn.Sequential(
        stem=first,
        blocks=blocks,
        pool=nn.GlobalAvgPool(),
        dropout=nn.Dropout(dropout, rng=rng),
        classifier=nn.Linear(C, integer(num_classes, "num_classes", 1), rng=rng, dtype=dtype),
    )


def mobilenet_v1_features(in_channels=3, width_mult=1.0, **settings):
    """Return MobileNetV1 without its head: from the image to the map with 1024 channels, for other heads to stand on.

    The parameters are those of :func:`mobilenet_v1`, and so are the weights for the same seed.

    Returns
    -------
    nn.Sequential
        stem, blocks.
    """
    whole = mobilenet_v1(in_channels=in_channels, width_mult=width_mult, **settings)
    return nn.Sequential(stem=whole.stem, blocks=whole.blocks)


def deepened(rows, depth_mult):
    """Return the rows (s, c) of a network that is ``depth_mult`` times as deep.

    The table has no column n of repeats. Consecutive rows with equally many filters count as one row of MobileNetV2's
    Table 2: c = 64 once, 128 and 256 twice, 512 six times, 1024 twice. Each n becomes ``ceil(depth n)``; the first of
    a group keeps its stride, and rows that are added have stride 1.

    >>> deepened([(1, 64), (2, 128), (1, 128)], 1.4)
    [(1, 64), (1, 64), (2, 128), (1, 128), (1, 128)]
    """
    found = []
    for c, group in itertools.groupby(rows, key=lambda row: row[1]):
        group = list(group)
        n = round_repeats(len(group), depth_mult)
        found += (group + n * [(1, c)])[:n]
    return found


def mobilenet_v1_small(num_classes=10, in_channels=3, width_mult=1.0, *, dropout=0.0, bn_decay=0.9, **settings):
    """Return a MobileNetV1 for images of 28 or 32 pixels; ``SMALL_TABLE`` tells how it departs from the paper.

    The parameters are those of :func:`mobilenet_v1`. ``bn_decay`` is lower, since trainings on small images are short.
    """
    small = {"table": SMALL_TABLE, "stem": SMALL_STEM}
    return mobilenet_v1(num_classes, in_channels, width_mult, dropout=dropout, bn_decay=bn_decay, **(small | settings))
