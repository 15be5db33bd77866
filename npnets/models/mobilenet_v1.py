"""MobileNetV1 (Howard et al. 2017, section 3): a stack of depthwise separable convolutions.

===================== ============= =============
width_mult @ pixels    parameters    multiply-adds
===================== ============= =============
1.0 @ 224                4,231,976   568,740,352
0.75 @ 224               2,585,560   325,400,448
0.5 @ 224                1,331,592   149,497,088
0.25 @ 224                 470,072    41,030,272
===================== ============= =============
"""

import numpy as np

from npnets import nn
from npnets.shapes import integer, multiplier, scale_channels, table_rows

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


def mobilenet_v1(
    num_classes=1000,
    in_channels=3,
    width_mult=1.0,
    *,
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
        stem, blocks, pool, dropout, classifier. The depthwise kernels have no weight decay (section 3.2).
    """
    width = multiplier(width_mult, "width_mult")
    in_channels, stem = integer(in_channels, "in_channels", 1), integer(stem, "stem", 1)
    rng = np.random.default_rng(seed)
    common = {"padding": padding, "bn_decay": bn_decay, "bn_eps": bn_eps, "rng": rng, "dtype": dtype}
    C = scale_channels(stem, width)
    first = nn.ConvBNAct(in_channels, C, 3, stride=stem_stride, activation="relu", **common)
    blocks = []
    for s, c in table_rows(table, "s, c"):
        C_out = scale_channels(c, width)
        blocks.append(nn.DepthwiseSeparable(C, C_out, stride=s, **common))
        C = C_out
    return nn.Sequential(
        stem=first,
        blocks=blocks,
        pool=nn.GlobalAvgPool(),
        dropout=nn.Dropout(dropout, rng=rng),
        classifier=nn.Linear(C, integer(num_classes, "num_classes", 1), rng=rng, dtype=dtype),
    )


def mobilenet_v1_small(num_classes=10, in_channels=3, width_mult=1.0, *, dropout=0.0, bn_decay=0.9, **settings):
    """Return a MobileNetV1 for images of 28 or 32 pixels; ``SMALL_TABLE`` tells how it departs from the paper.

    The parameters are those of :func:`mobilenet_v1`. ``bn_decay`` is lower, since trainings on small images are short.
    """
    small = {"table": SMALL_TABLE, "stem": SMALL_STEM}
    return mobilenet_v1(num_classes, in_channels, width_mult, dropout=dropout, bn_decay=bn_decay, **(small | settings))
