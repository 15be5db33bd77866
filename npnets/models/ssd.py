"""SSD and SSDLite on MobileNetV1 and V2 (Sandler et al. 2018, section 6.2; SSD itself: Liu et al. 2016).

=================================== ============= ===============
network @ pixels                     parameters    multiply-adds
=================================== ============= ===============
ssdlite, mobilenet_v2 @ 320             4,337,013     788,830,144
ssdlite, mobilenet_v1 @ 320             5,100,661   1,309,162,944
ssd, mobilenet_v2 @ 320                17,000,501   1,870,281,472
ssd, mobilenet_v1 @ 320                16,596,149   2,234,863,872
=================================== ============= ===============

That is with 81 classes, the 80 of COCO and the background. Of these, the heads alone take on MobileNetV2:

=================================== ============= ===============
ssdlite, head @ 320                     2,113,141     177,617,344
ssd, head @ 320                        14,776,629   1,259,068,672
=================================== ============= ===============

The paper has 0.35B for the first, which counts multiplications and additions apart.
"""

import numpy as np

from npnets import nn
from npnets.models.mobilenet_v1 import mobilenet_v1_features
from npnets.models.mobilenet_v2 import mobilenet_v2_features
from npnets.shapes import boolean, choice, integers, multiplier, scale_channels

# What the head stands on. The first map is tapped before its path: in V2 "the expansion of layer 15", inside the
# bottleneck that halves it, in V1 after the block that has the same size. The second map is the last of the backbone.
BACKBONES = {
    # backbone: features, path                          first map at 320 pixels; the last
    "mobilenet_v1": (mobilenet_v1_features, "blocks.11"),  # 20 x 20 x 512; 10 x 10 x 1024
    "mobilenet_v2": (mobilenet_v2_features, "blocks.13.depthwise"),  # 20 x 20 x 576; 10 x 10 x 1280
}
EXTRAS = (512, 256, 256, 128)  # channels of the maps that are added: 5 x 5, 3 x 3, 2 x 2 and 1 x 1 pixels
ANCHORS = (3, 6, 6, 6, 6, 6)  # default boxes a pixel of each map


def ssd(
    num_classes=81,
    in_channels=3,
    width_mult=1.0,
    *,
    backbone="mobilenet_v2",
    separable=False,
    extras=EXTRAS,
    dropout=0.0,
    padding="same",
    bn_decay=0.997,
    bn_eps=1e-3,
    seed=0,
    dtype=np.float32,
):
    """Return SSD on a MobileNet, for images of any size from 257 pixels; the paper's are 320 wide.

    Below that size there is nothing left that the last of the extra maps could halve. Fewer ``extras`` take less.

    Parameters
    ----------
    num_classes : int
        Classes with the background, which is one of them.
    in_channels : int
    width_mult : float
        Width multiplier of the backbone, with its own rule; the extra maps have ``max(int(alpha c), 8)`` channels.
    backbone : {"mobilenet_v2", "mobilenet_v1"}
    separable : bool
        Whether the head consists of depthwise separable convolutions: SSDLite.
    extras : tuple of int
        Channels of the extra maps, at most four, before the width multiplier.
    dropout : float
        Rate before the layers that predict the scores.
    padding : {"same", "symmetric"}
        TensorFlow's, or ``k // 2`` on every side as weights trained in PyTorch expect.
    bn_decay, bn_eps : float
        Of batch norm.
    seed : int
        Of the weights and of dropout.
    dtype : numpy dtype

    Returns
    -------
    nn.Detector
        backbone and head. Its forward returns (N, boxes, 4 + classes); see there for the order of the boxes.

    Raises
    ------
    ValueError
        If a setting is out of range.
    """
    features, tap = BACKBONES[choice(backbone, "backbone", BACKBONES)]
    if not isinstance(extras, (tuple, list)) or len(extras) > len(EXTRAS):
        raise ValueError(f"extras must be the channels of at most {len(EXTRAS)} maps, got {extras!r}")
    width = multiplier(width_mult, "width_mult")
    common = {"padding": padding, "bn_decay": bn_decay, "bn_eps": bn_eps, "dtype": dtype}
    return nn.Detector(
        features(in_channels, width_mult, seed=seed, **common),
        taps=(tap,),
        anchors=ANCHORS[: 2 + len(extras)],
        extras=[scale_channels(c, width) for c in integers(extras, "extras")],
        num_classes=num_classes,
        separable=separable,
        dropout=dropout,
        rng=np.random.default_rng([seed, 1]),  # the backbone's weights are those of the classifier with this seed
        **common,
    )


def ssdlite(num_classes=81, in_channels=3, width_mult=1.0, **settings):
    """Return SSDLite on a MobileNet: SSD whose head "replaces all the regular convolutions with separable" ones.

    The parameters are those of :func:`ssd`, but ``separable`` is always True.
    """
    if not boolean(settings.pop("separable", True), "separable"):
        raise ValueError("ssdlite is the network with separable=True; the other one is ssd")
    return ssd(num_classes, in_channels, width_mult, separable=True, **settings)
