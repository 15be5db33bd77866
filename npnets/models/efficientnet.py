"""EfficientNet (Tan and Le 2019): a small network found by search, and that network scaled in depth, width, resolution.

===================== ============= ===============
network @ pixels       parameters    multiply-adds
===================== ============= ===============
B0 @ 224                 5,288,548     385,814,752
B1 @ 240                 7,794,184     686,802,832
B2 @ 260                 9,109,994     993,561,872
B3 @ 300                12,233,232   1,827,141,392
B4 @ 380                19,341,616   4,393,771,024
B5 @ 456                30,389,784  10,266,384,752
B6 @ 528                43,040,704  19,067,593,536
B7 @ 600                66,347,960  37,745,884,192
===================== ============= ===============

The paper's tables print 0.70B, 4.2B and 9.9B for B1, B4 and B5: more, less and less than the layers give. Its 9.2M
parameters of B2 count the running statistics of batch norm.
"""

import numpy as np

from npnets import nn
from npnets.models.common import layer_settings
from npnets.shapes import integer, multiplier, number, round_channels, round_repeats, table_rows

# Table 1 of the paper, the stages of EfficientNet-B0: "MBConv6, k5x5" is an MBConv with t = 6 and k = 5.
TABLE = [
    # t, k,   c, n, s     input
    (1, 3, 16, 1, 1),  # 112 x 112 x 32
    (6, 3, 24, 2, 2),  # 112 x 112 x 16
    (6, 5, 40, 2, 2),  # 56 x 56 x 24
    (6, 3, 80, 3, 2),  # 28 x 28 x 40
    (6, 5, 112, 3, 1),  # 14 x 14 x 80
    (6, 5, 192, 4, 2),  # 14 x 14 x 112
    (6, 3, 320, 1, 1),  # 7 x 7 x 192
]
STEM = 32  # filters of the first layer, a standard 3x3 convolution with stride 2
HEAD = 1280  # filters of the last 1x1 convolution

# B0 to B7: equation 3 of the paper for growing phi, as its authors rounded it (see scaling.py).
VARIANTS = {
    # name: width, depth, resolution, dropout
    "efficientnet_b0": (1.0, 1.0, 224, 0.2),
    "efficientnet_b1": (1.0, 1.1, 240, 0.2),
    "efficientnet_b2": (1.1, 1.2, 260, 0.3),
    "efficientnet_b3": (1.2, 1.4, 300, 0.3),
    "efficientnet_b4": (1.4, 1.8, 380, 0.4),
    "efficientnet_b5": (1.6, 2.2, 456, 0.4),
    "efficientnet_b6": (1.8, 2.6, 528, 0.5),
    "efficientnet_b7": (2.0, 3.1, 600, 0.5),
}


def efficientnet(
    num_classes=1000,
    in_channels=3,
    width_mult=1.0,
    *,
    depth_mult=1.0,
    dropout=0.2,
    survival_prob=0.8,
    padding="same",
    bn_decay=0.99,
    bn_eps=1e-3,
    seed=0,
    dtype=np.float32,
    table=TABLE,
    stem=STEM,
    stem_stride=2,
    head=HEAD,
):
    """Return an EfficientNet for images of any size: B0, or B0 scaled.

    Parameters
    ----------
    num_classes, in_channels : int
    width_mult : float
        Factor on all channels, those of the stem and the head included, which are then rounded to multiples of 8. (Of
        B1 to B7 it is a factor besides that of the network.)
    depth_mult : float
        Factor on the repeats of each stage, which are then rounded up. (Of B1 to B7 likewise.)
    dropout : float
        Rate before the classifier; B0 to B7 have the rates of ``VARIANTS``.
    survival_prob : float
        Of drop path (stochastic depth, section 5.2). It falls linearly with the depth: of ``blocks`` blocks, block k =
        0, 1, ... has ``1 - (1 - survival_prob) k / blocks``. So this number itself is that of a block after the last.
    padding : {"same", "symmetric"}
        TensorFlow's, or ``k // 2`` on every side as weights trained in PyTorch expect.
    bn_decay, bn_eps : float
        Of batch norm. The decay is what section 5.2 calls momentum.
    seed : int
        Of the weights, of dropout and drop path.
    dtype : numpy dtype
    table : rows of (t, k, c, n, s)
        Expansion factor, kernel, output channels, repeats, stride of the first of the repeats.
    stem, stem_stride, head : int
        First and last convolution, channels before the width multiplier.

    Returns
    -------
    nn.Sequential
        stem, blocks, head, pool, dropout, classifier.

    Raises
    ------
    ValueError
        If a setting is out of range.
    """
    width, depth = multiplier(width_mult, "width_mult"), multiplier(depth_mult, "depth_mult")
    in_channels, stem, head = (
        integer(value, name, 1) for name, value in {"in_channels": in_channels, "stem": stem, "head": head}.items()
    )
    survival_prob = number(survival_prob, "survival_prob", above=0, at_most=1)
    stem_stride = integer(stem_stride, "stem_stride", 1)
    common = layer_settings(padding=padding, bn_decay=bn_decay, bn_eps=bn_eps, seed=seed, dtype=dtype)
    rng = common["rng"]
    rows = [(t, k, c, round_repeats(n, depth), s) for t, k, c, n, s in table_rows(table, "t, k, c, n, s")]
    all_blocks = sum(n for _, _, _, n, _ in rows)

    C = round_channels(stem * width)
    first = nn.ConvBNAct(in_channels, C, 3, stride=stem_stride, activation="swish", **common)
    blocks = []
    for t, k, c, n, s in rows:
        C_out = round_channels(c * width)
        for repeat in range(n):
            survival = 1 - (1 - survival_prob) * len(blocks) / all_blocks
            stride = s if repeat == 0 else 1
            blocks.append(nn.MBConv(C, C_out, t, k, stride=stride, survival_prob=survival, **common))
            C = C_out
    features = round_channels(head * width)
    return nn.Sequential(
        stem=first,
        blocks=blocks,
        head=nn.ConvBNAct(C, features, 1, activation="swish", **common),
        pool=nn.GlobalAvgPool(),
        dropout=nn.Dropout(dropout, rng=rng),
        classifier=nn.Linear(features, integer(num_classes, "num_classes", 1), rng=rng, dtype=dtype),
    )


def _variant(name):
    """Return the function that builds a network of ``VARIANTS``; the multipliers are factors besides its own."""
    width, depth, pixels, dropout = VARIANTS[name]

    def build(num_classes=1000, in_channels=3, width_mult=1.0, *, depth_mult=1.0, **settings):
        scaled = {"depth_mult": depth * multiplier(depth_mult, "depth_mult"), "dropout": dropout}
        return efficientnet(num_classes, in_channels, width * multiplier(width_mult, "width_mult"), **scaled | settings)

    build.__name__ = build.__qualname__ = name
    build.__doc__ = f"""Return EfficientNet-{name[-2:].upper()}, for images of {pixels} pixels; parameters as for
    :func:`efficientnet`."""
    return build


efficientnet_b0 = _variant("efficientnet_b0")
efficientnet_b1 = _variant("efficientnet_b1")
efficientnet_b2 = _variant("efficientnet_b2")
efficientnet_b3 = _variant("efficientnet_b3")
efficientnet_b4 = _variant("efficientnet_b4")
efficientnet_b5 = _variant("efficientnet_b5")
efficientnet_b6 = _variant("efficientnet_b6")
efficientnet_b7 = _variant("efficientnet_b7")
