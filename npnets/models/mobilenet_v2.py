"""MobileNetV2 (Sandler et al. 2018, section 4): inverted residuals with linear bottlenecks.

===================== ============= =============
width_mult @ pixels    parameters    multiply-adds
===================== ============= =============
1.4 @ 224                6,108,776   582,195,824
1.0 @ 224                3,504,872   300,774,272
0.75 @ 224               2,636,424   209,069,792
0.5 @ 224                1,968,680    97,131,840
0.35 @ 224               1,677,128    59,285,808
1.0 @ 96                 3,504,872    56,289,152
===================== ============= =============
"""

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
    round_channels,
    round_repeats,
    table_rows,
)

# Table 2 of the paper, the bottlenecks. (The text says 19 of them; the table has 17.)
TABLE = [
    # t,  c,  n, s     input
    (1, 16, 1, 1),  # 112 x 112 x 32
    (6, 24, 2, 2),  # 112 x 112 x 16
    (6, 32, 3, 2),  # 56 x 56 x 24
    (6, 64, 4, 2),  # 28 x 28 x 32
    (6, 96, 3, 1),  # 14 x 14 x 64
    (6, 160, 3, 2),  # 14 x 14 x 96
    (6, 320, 1, 1),  # 7 x 7 x 160
]
STEM = 32  # filters of the first layer, a standard 3x3 convolution with stride 2
HEAD = 1280  # filters of the last 1x1 convolution

# For 28 and 32 pixels. The paper halves the image five times, which would leave a single pixel; here it is three times,
# in the stem and where the comments say so. Ten classes need fewer blocks and fewer features than a thousand.
SMALL_TABLE = [
    # t,  c,  n, s     departure from the paper
    (1, 16, 1, 1),  # as many channels as the stem, so that this block gets a residual, which the paper's has not
    (6, 24, 2, 2),  # none: 14 -> 7, or 16 -> 8
    (6, 32, 2, 1),  # stride 1 for 2, and two blocks for three
    (6, 64, 2, 2),  # two blocks for four: 7 -> 4, or 8 -> 4. The three rows below it are left out
]
SMALL_STEM = 16  # with the paper's stride of 2: 28 -> 14, or 32 -> 16
SMALL_HEAD = 256


def mobilenet_v2(
    num_classes=1000,
    in_channels=3,
    width_mult=1.0,
    *,
    depth_mult=1.0,
    output_stride=None,
    dropout=0.2,
    padding="same",
    bn_decay=0.997,
    bn_eps=1e-3,
    seed=0,
    dtype=np.float32,
    table=TABLE,
    stem=STEM,
    stem_stride=2,
    head=HEAD,
    activation="relu6",
    bottleneck="linear",
    shortcut="bottleneck",
    multiple=8,
):
    """Return MobileNetV2 for images of any size; the paper's are 96 to 224 pixels wide.

    Parameters
    ----------
    num_classes, in_channels : int
    width_mult : float
        Width multiplier: channels are rounded to multiples of 8 (``multiple``). The head is never shrunk (the last
        remark of section 4), and above 1 it grows with the rest.
    depth_mult : float
        EfficientNet's depth coefficient (its section 5.1): a row of the table is repeated ``ceil(depth n)`` times.
    output_stride : {8, 16, 32}, optional
        How many times smaller than the image the last map is. Later strides become dilations (see
        :func:`npnets.shapes.atrous_strides`).
    dropout : float
        Rate before the classifier.
    padding : {"same", "symmetric"}
        TensorFlow's, or ``k // 2`` on every side as weights trained in PyTorch expect.
    bn_decay, bn_eps : float
        Of batch norm; the defaults are those of the original code. For short trainings take 0.9 to 0.99.
    seed : int
        Of the weights and of dropout.
    dtype : numpy dtype
    table : rows of (t, c, n, s)
        Expansion factor, output channels, repeats, stride of the first of the repeats, as in Table 2.
    stem, stem_stride, head : int
        First and last convolution, channels before the width multiplier.
    activation : {"relu6", "relu"}
        Of all layers but the projections. The paper takes ReLU6 "because of its robustness when used with low-precision
        computation".
    bottleneck : {"linear", "relu6"}
        Figure 5 (a): whether a non-linearity follows the projection.
    shortcut : {"bottleneck", "expansion", "none"}
        Figure 5 (b): what the residual connections join (see :class:`npnets.nn.InvertedResidual`).
    multiple : int
        The channels are multiples of it; 1 for networks whose cost must be met closely.

    Returns
    -------
    nn.Sequential
        stem, blocks, head, pool, dropout, classifier.

    Raises
    ------
    ValueError
        If a setting is out of range.
    """
    width_mult, depth_mult = multiplier(width_mult, "width_mult"), multiplier(depth_mult, "depth_mult")
    in_channels, stem, head = (
        integer(value, name, 1) for name, value in {"in_channels": in_channels, "stem": stem, "head": head}.items()
    )
    common = layer_settings(padding=padding, bn_decay=bn_decay, bn_eps=bn_eps, seed=seed, dtype=dtype)
    rng = common["rng"]
    choice(activation, "activation", ("relu6", "relu"))
    inside = {"activation": activation, "bottleneck": bottleneck, "shortcut": shortcut}

    rows = [(t, c, round_repeats(n, depth_mult), s) for t, c, n, s in table_rows(table, "t, c, n, s")]
    strides = [integer(stem_stride, "stem_stride", 1), *(s if k == 0 else 1 for *_, n, s in rows for k in range(n))]
    strides_and_rates = iter(atrous_strides(strides, check_output_stride(output_stride)))
    multiple = integer(multiple, "multiple", 1)
    C = round_channels(stem * width_mult, multiple)
    first = nn.ConvBNAct(in_channels, C, 3, stride=next(strides_and_rates)[0], activation=activation, **common)
    blocks = []
    for t, c, n, _ in rows:
        C_out = round_channels(c * width_mult, multiple)
        for _ in range(n):
            stride, dilation = next(strides_and_rates)
            blocks.append(nn.InvertedResidual(C, C_out, t, stride=stride, dilation=dilation, **inside, **common))
            C = C_out
    features = round_channels(head * width_mult, multiple) if width_mult > 1 else head
    return nn.Sequential(
        stem=first,
        blocks=blocks,
        head=nn.ConvBNAct(C, features, 1, activation=activation, **common),
        pool=nn.GlobalAvgPool(),
        dropout=nn.Dropout(dropout, rng=rng),
        classifier=nn.Linear(features, integer(num_classes, "num_classes", 1), rng=rng, dtype=dtype),
    )


def mobilenet_v2_features(in_channels=3, width_mult=1.0, *, with_head=True, **settings):
    """Return MobileNetV2 without what follows its last map, for other heads to stand on.

    The parameters are those of :func:`mobilenet_v2`, and so are the weights for the same seed.

    Parameters
    ----------
    with_head : bool
        Whether the last 1x1 convolution belongs to it. Without it the last map is that of the last bottleneck, with 320
        channels: "the second last feature map" of section 6.3, MNet V2* in its table.

    Returns
    -------
    nn.Sequential
        stem, blocks, and perhaps head.
    """
    whole = mobilenet_v2(in_channels=in_channels, width_mult=width_mult, **settings)
    head = {"head": whole.head} if boolean(with_head, "with_head") else {}
    return nn.Sequential(stem=whole.stem, blocks=whole.blocks, **head)


def mobilenet_v2_small(num_classes=10, in_channels=3, width_mult=1.0, *, dropout=0.0, bn_decay=0.9, **settings):
    """Return a MobileNetV2 for images of 28 or 32 pixels; ``SMALL_TABLE`` tells how it departs from the paper.

    The parameters are those of :func:`mobilenet_v2`. ``bn_decay`` is lower, since trainings on small images are short.
    """
    small = {"table": SMALL_TABLE, "stem": SMALL_STEM, "head": SMALL_HEAD}
    return mobilenet_v2(num_classes, in_channels, width_mult, dropout=dropout, bn_decay=bn_decay, **(small | settings))
