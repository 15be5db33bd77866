"""BN-Inception (Ioffe and Szegedy 2015, section 4.2 and Figure 5), with and without batch norm.

===================== ============= =============
width_mult @ pixels    parameters    multiply-adds
===================== ============= =============
1.0 @ 224               11,194,984   2,018,851,840
===================== ============= =============

Section 4.2 speaks of 13.6 million parameters; the network of Figure 5 has fewer.
"""

import numpy as np

from npnets import nn
from npnets.models.common import layer_settings
from npnets.nn.blocks.inception import inception_conv
from npnets.shapes import boolean, checked_rows, integer, multiplier, round_channels

# Figure 5 of the paper, the modules. 0 stands for a branch or a projection that is not there. The paper prints a
# projection of 128 for 4c and 4d, but also outputs of 576 channels, for which it has to be 96.
COLUMNS = "type, s, 1x1, 3x3 reduce, 3x3, double 3x3 reduce, double 3x3, pool, projection"
TABLE = [
    # type, s, 1x1, 3x3 reduce and 3x3, double 3x3 reduce and double 3x3, pool and projection    input
    ("3a", 1, 64, 64, 64, 64, 96, "avg", 32),  # 28 x 28 x 192
    ("3b", 1, 64, 64, 96, 64, 96, "avg", 64),  # 28 x 28 x 256
    ("3c", 2, 0, 128, 160, 64, 96, "max", 0),  # 28 x 28 x 320
    ("4a", 1, 224, 64, 96, 96, 128, "avg", 128),  # 14 x 14 x 576
    ("4b", 1, 192, 96, 128, 96, 128, "avg", 128),  # 14 x 14 x 576
    ("4c", 1, 160, 128, 160, 128, 160, "avg", 96),  # 14 x 14 x 576
    ("4d", 1, 96, 128, 192, 160, 192, "avg", 96),  # 14 x 14 x 576
    ("4e", 2, 0, 128, 192, 192, 256, "max", 0),  # 14 x 14 x 576
    ("5a", 1, 352, 192, 320, 160, 224, "avg", 128),  # 7 x 7 x 1024
    ("5b", 1, 352, 192, 320, 192, 224, "max", 128),  # 7 x 7 x 1024
]
STEM = (64, 64, 192)  # filters of a 7x7 with stride 2, and after a pooling of a 1x1 and a 3x3; then a second pooling

# For 28 and 32 pixels. The paper halves the image five times, which would leave a single pixel; here it is three times:
# the first convolution is a 3x3 with stride 1, and no second pooling follows the stem. Ten classes need fewer filters,
# a quarter everywhere, and fewer modules than a thousand: of each kind the paper has after 3b, one.
SMALL_TABLE = [
    # type, s, 1x1, 3x3 reduce and 3x3, double 3x3 reduce and double 3x3, pool and projection    input
    ("3c", 2, 0, 32, 40, 16, 24, "max", 0),  # 16 x 16 x 48
    ("4a", 1, 56, 16, 24, 24, 32, "avg", 32),  # 8 x 8 x 112
    ("4e", 2, 0, 32, 48, 48, 64, "max", 0),  # 8 x 8 x 144
    ("5b", 1, 88, 48, 80, 48, 56, "max", 32),  # 4 x 4 x 256
]
SMALL_STEM = (16, 16, 48)


def bn_inception(
    num_classes=1000,
    in_channels=3,
    width_mult=1.0,
    *,
    batch_norm=True,
    local_response_norm=None,
    dropout=None,
    activation="relu",
    init_scale=1.0,
    padding="same",
    bn_decay=0.9997,
    bn_eps=1e-3,
    seed=0,
    dtype=np.float32,
    table=TABLE,
    stem=STEM,
    stem_kernel=7,
    stem_stride=2,
    stem_pools=2,
):
    """Return BN-Inception for images of any size; the paper's are 224 pixels wide.

    ``batch_norm=False`` gives the Inception that section 4.2 starts from, the baseline: with local response
    normalization and dropout.

    Parameters
    ----------
    num_classes, in_channels : int
    width_mult : float
        Factor on all channels, which are rounded to multiples of 8.
    batch_norm : bool
        Whether a batch norm stands before every nonlinearity; if not, convolutions have biases. The initial weights are
        the same.
    local_response_norm : bool, optional
        After the first pooling and after the 3x3 of the stem, where GoogLeNet has it; by default where there is no
        batch norm (section 4.2.6).
    dropout : float, optional
        Rate before the classifier; by default 0 with batch norm (section 4.2.2), and GoogLeNet's 0.4 without.
    activation : {"relu", "sigmoid", "relu6", "swish"}
        "sigmoid" for BN-x5-Sigmoid.
    init_scale : float
        Factor on the initial weights of the convolutions (section 4.3).
    padding : {"same", "symmetric"}
        TensorFlow's, or ``k // 2`` on every side as weights trained in PyTorch expect.
    bn_decay, bn_eps : float
        Of batch norm; the defaults are those of TF-slim. For short trainings take 0.9 to 0.99.
    seed : int
        Of the weights and of dropout.
    dtype : numpy dtype
    table : rows as in ``TABLE``
    stem : (int, int, int)
        Filters of the stem's convolutions.
    stem_kernel, stem_stride : int
        Of its first convolution.
    stem_pools : {1, 2}
        Whether a second pooling follows the last.

    Returns
    -------
    nn.Sequential
        stem, blocks (their names are the paper's: ``blocks.3a``), pool, dropout, classifier.

    Raises
    ------
    ValueError
        If a setting is out of range.
    """
    width = multiplier(width_mult, "width_mult")
    if not isinstance(stem, (tuple, list)) or len(stem) != len(STEM):
        raise ValueError(f"stem must be the filters of its three convolutions, got {stem!r}")
    if integer(stem_pools, "stem_pools", 1) > 2:
        raise ValueError(f"stem_pools must be 1 or 2, got {stem_pools}")
    layers = layer_settings(padding=padding, bn_decay=bn_decay, bn_eps=bn_eps, seed=seed, dtype=dtype)
    rng, batch_norm = layers["rng"], boolean(batch_norm, "batch_norm")
    weights = {"batch_norm": batch_norm, "activation": activation, "init_scale": multiplier(init_scale, "init_scale")}
    common = weights | layers
    if local_response_norm is None:
        local_response_norm = not batch_norm
    if dropout is None:
        dropout = 0.0 if batch_norm else 0.4

    lrn = boolean(local_response_norm, "local_response_norm")
    stem_kernel, stem_stride = integer(stem_kernel, "stem_kernel", 1), integer(stem_stride, "stem_stride", 1)
    C1, C_reduced, C = (_scaled(c, width) for c in stem)
    first = {
        "conv1": inception_conv(integer(in_channels, "in_channels", 1), C1, stem_kernel, stride=stem_stride, **common),
        "pool1": nn.MaxPool2d(3, stride=2, padding=padding),
        "norm1": nn.LocalResponseNorm() if lrn else None,
        "conv2_reduce": inception_conv(C1, C_reduced, 1, **common),
        "conv2": inception_conv(C_reduced, C, 3, **common),
        "norm2": nn.LocalResponseNorm() if lrn else None,
        "pool2": nn.MaxPool2d(3, stride=2, padding=padding) if stem_pools == 2 else None,
    }
    blocks = {}
    for name, s, *channels, pool, projection in checked_rows(table, COLUMNS):
        if not isinstance(name, str) or not name or "." in name or name in blocks:
            raise ValueError(f"table: type must be the name of a module, without a dot and only once, got {name!r}")
        c1x1, reduced, c3x3, double_reduced, double3x3 = (_scaled(c, width) for c in channels)
        branches = {"conv1x1": c1x1, "conv3x3": (reduced, c3x3), "double3x3": (double_reduced, double3x3)}
        branches["projection"] = _scaled(projection, width)
        blocks[name] = nn.Inception(C, **branches, pool=pool, stride=s, **common)
        C = c1x1 + c3x3 + double3x3 + (branches["projection"] or C)
    return nn.Sequential(
        stem=nn.Sequential(**{name: layer for name, layer in first.items() if layer is not None}),
        blocks=nn.Sequential(**blocks),
        pool=nn.GlobalAvgPool(),
        dropout=nn.Dropout(dropout, rng=rng),
        classifier=nn.Linear(C, integer(num_classes, "num_classes", 1), rng=rng, dtype=dtype),
    )


def _scaled(channels, width):
    """Return a number of channels times the width multiplier; 0 stays 0."""
    channels = integer(channels, "channels", 0)
    return round_channels(channels * width) if channels else 0


def bn_inception_small(num_classes=10, in_channels=3, width_mult=1.0, *, bn_decay=0.9, **settings):
    """Return a BN-Inception for images of 28 or 32 pixels; ``SMALL_TABLE`` tells how it departs from the paper.

    It has 300,874 parameters, and at 32 pixels takes 12,588,544 multiply-adds.
    The parameters are those of :func:`bn_inception`. ``bn_decay`` is lower, since trainings on small images are short.
    """
    small = {"table": SMALL_TABLE, "stem": SMALL_STEM, "stem_kernel": 3, "stem_stride": 1, "stem_pools": 1}
    return bn_inception(num_classes, in_channels, width_mult, bn_decay=bn_decay, **(small | settings))
