"""DeepLabv3 on MobileNetV1, V2 and ResNet-101 (Sandler et al. 2018, section 6.3; DeepLabv3 itself: Chen et al. 2017).

=========================== ============= ================= =================
backbone @ pixels            parameters    OS 16             OS 8
=========================== ============= ================= =================
mobilenet_v1 @ 513             11,145,301    12,760,886,976    46,400,483,008
mobilenet_v2 @ 513              4,523,541     5,363,508,928    19,001,546,432
mobilenet_v2, no ASPP @ 513     2,113,557     2,740,709,056     8,825,853,632
resnet101 @ 513                58,164,437    76,052,470,720   252,252,117,952
=========================== ============= ================= =================

The columns on the right are multiply-adds at the output strides 16 and 8, counted over output pixels. Where there is
ASPP the paper counts 6 to 15 % more: see ``atrous="space_to_batch"`` of :func:`npnets.cost.profile`.
"""

import numpy as np

from npnets import nn
from npnets.models.mobilenet_v1 import mobilenet_v1_features
from npnets.models.mobilenet_v2 import mobilenet_v2_features
from npnets.models.resnet import TABLE, resnet_features
from npnets.shapes import boolean, check_output_stride, choice, integer


def _resnet101_features(in_channels, width_mult, **settings):
    """Return the ResNet-101 of DeepLab, which is not that of its paper."""
    deeplab = {"stem": "3x3", "stride_in": "last", "multi_grid": (1, 2, 4)}
    return resnet_features(TABLE[101], in_channels, width_mult, **deeplab, **settings)


def _mobilenet_v2_star(in_channels, width_mult, **settings):
    """Return MNet V2*, up to the map with 320 channels."""
    return mobilenet_v2_features(in_channels, width_mult, with_head=False, **settings)


BACKBONES = {
    # backbone: features                       the last map, of a 513 x 513 image at output stride 16
    "mobilenet_v1": mobilenet_v1_features,  # 33 x 33 x 1024
    "mobilenet_v2": _mobilenet_v2_star,  # 33 x 33 x 320
    "resnet101": _resnet101_features,  # 33 x 33 x 2048
}
RATES = {8: (12, 24, 36), 16: (6, 12, 18), 32: (3, 6, 9)}  # output stride: dilations of ASPP, equally far in the image
HEAD = 256  # channels of every layer of the head but the last


def deeplab_v3(
    num_classes=21,
    in_channels=3,
    width_mult=1.0,
    *,
    backbone="mobilenet_v2",
    output_stride=16,
    aspp=True,
    head=HEAD,
    dropout=0.1,
    padding="same",
    bn_decay=0.9997,
    bn_eps=1e-3,
    seed=0,
    dtype=np.float32,
):
    """Return DeepLabv3, which gives each pixel of an image a class, for images of any size; the paper's are 513 wide.

    Parameters
    ----------
    num_classes : int
        Classes with the background: 21 in PASCAL VOC.
    in_channels : int
    width_mult : float
        Width multiplier of the backbone.
    backbone : {"mobilenet_v2", "mobilenet_v1", "resnet101"}
        "mobilenet_v2" is MNet V2* of section 6.3, without V2's last convolution.
    output_stride : {16, 8, 32}
        How many times smaller than the image the map is that the head stands on.
    aspp : bool
        Whether the head has the three atrous convolutions; without them it is the network in bold face.
    head : int
        Channels of the head's layers.
    dropout : float
        Rate before the classifier.
    padding : {"same", "symmetric"}
        TensorFlow's, or ``k // 2`` on every side as weights trained in PyTorch expect. They are the same for sizes like
        513 = 32 * 16 + 1, of which every half is odd again.
    bn_decay, bn_eps : float
        Of batch norm. For short trainings take 0.9 to 0.99.
    seed : int
        Of the weights and of dropout.
    dtype : numpy dtype

    Returns
    -------
    nn.ResizedToInput
        backbone and head. Its forward returns scores (N, H, W, classes), as many pixels as the image has.

    Raises
    ------
    ValueError
        If a setting is out of range.
    """
    make_features = BACKBONES[choice(backbone, "backbone", BACKBONES)]
    if check_output_stride(output_stride) is None:
        raise ValueError("output_stride must be 8, 16 or 32: the rates of the head depend on it")
    common = {"padding": padding, "bn_decay": bn_decay, "bn_eps": bn_eps, "dtype": dtype}
    features = make_features(in_channels, width_mult, output_stride=output_stride, seed=seed, **common)
    *_, C = features.trace((513, 513, in_channels), lambda *layer: None)
    rng = np.random.default_rng([seed, 1])  # a MobileNet's weights are those of the classifier with this seed
    head = integer(head, "head", 1)
    return nn.ResizedToInput(
        backbone=features,
        head=nn.Sequential(
            aspp=nn.ASPP(C, head, RATES[output_stride] if boolean(aspp, "aspp") else (), rng=rng, **common),
            dropout=nn.Dropout(dropout, rng=rng),
            classifier=nn.PointwiseConv2d(
                head,
                integer(num_classes, "num_classes", 1),
                bias=True,
                initializer=nn.init.gaussian(0.01),
                rng=rng,
                dtype=dtype,
            ),
        ),
    )
