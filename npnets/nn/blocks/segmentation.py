"""What DeepLabv3 puts on a backbone (Chen et al. 2017, section 3.3): image pooling, and atrous spatial pyramids."""

import numpy as np

from npnets import ops
from npnets.nn.blocks.conv import ConvBNAct
from npnets.nn.layers import GlobalAvgPool
from npnets.nn.module import Concat, Sequential
from npnets.shapes import integers


class ResizedToInput(Sequential):
    """A chain whose output is resized to the height and width of its input.

    Bilinear interpolation, corners aligned as in DeepLab (see :func:`npnets.ops.resize_bilinear_forward`).
    """

    kind = "resize"

    def __init__(self, *layers, **named_layers):
        super().__init__(*layers, **named_layers)
        self.cache = None

    def forward(self, x, training=False):
        y = super().forward(x, training)
        y, self.cache = ops.resize_bilinear_forward(y, x.shape[1:3], align_corners=True)
        return y

    def backward(self, dy):
        if self.cache is None:
            name = type(self).__name__
            raise RuntimeError(f"{name}: backward was called before forward, and there is nothing to go back through")
        return super().backward(ops.resize_bilinear_backward(dy, self.cache))

    def trace(self, shape, visit, path=""):
        out = super().trace(shape, visit, path)
        if len(out) != 3:
            raise ValueError(f"{type(self).__name__}: only an image (H, W, C) can be resized, got the shape {out}")
        return *shape[:2], out[-1]


class _ImageMean(GlobalAvgPool):
    """The mean over all pixels, as an image of one pixel."""

    def apply(self, x, training):
        y, cache = super().apply(x, training)
        return y[:, None, None], cache  # (N, C) -> (N, 1, 1, C)

    def apply_backward(self, dy, cache):
        return super().apply_backward(dy[:, 0, 0], cache)

    def output_shape(self, shape):
        return 1, 1, *super().output_shape(shape)


class ImagePooling(ResizedToInput):
    """Features of the image as a whole, for every pixel: global mean, 1x1 with batch norm and ReLU, resized to the map.

    In training its batch norm sees one value a channel and image, so a batch must have two images at least.

    Parameters
    ----------
    C_in, C_out : int
    """

    def __init__(self, C_in, C_out, **common):
        super().__init__(pool=_ImageMean(), project=ConvBNAct(C_in, C_out, 1, activation="relu", **common))


class ASPP(Sequential):
    """Atrous spatial pyramid pooling: the same map seen at several scales, side by side.

    The branches are :class:`ImagePooling`, a 1x1 convolution, and a full 3x3 convolution for each rate. A 1x1 joins
    them. All have batch norm and ReLU.

    Parameters
    ----------
    C_in, C_out : int
        Channels of the map; of every branch and of the result.
    rates : tuple of int
        Dilations of the 3x3 convolutions. There may be none, which MobileNetV2 recommends (section 6.3).
    """

    def __init__(self, C_in, C_out, rates, *, padding="same", bn_decay=0.99, bn_eps=1e-3, rng, dtype=np.float32):
        common = {"padding": padding, "bn_decay": bn_decay, "bn_eps": bn_eps, "rng": rng, "dtype": dtype}
        relu = {"activation": "relu", **common}
        rates = integers(rates, "rates")
        branches = {
            "image_pooling": ImagePooling(C_in, C_out, **common),
            "pointwise": ConvBNAct(C_in, C_out, 1, **relu),
            "atrous": [ConvBNAct(C_in, C_out, 3, dilation=rate, **relu) for rate in rates],
        }
        project = ConvBNAct((2 + len(branches["atrous"])) * C_out, C_out, 1, **relu)
        super().__init__(branches=Concat(**branches), project=project)
