"""Resizing, and flattening images to vectors."""

import math

from npnets import ops
from npnets.nn.layers.layer import Layer, check_image
from npnets.ops.checks import check_array
from npnets.shapes import boolean, pair


class ResizeBilinear(Layer):
    """Bilinear resizing (see :func:`npnets.ops.resize_bilinear_forward`).

    Parameters
    ----------
    size : int or (int, int)
    align_corners : bool
    """

    kind = "resize"

    def __init__(self, size, *, align_corners=False):
        super().__init__()
        self.size, self.align_corners = pair(size, "size"), boolean(align_corners, "align_corners")

    def apply(self, x, training):
        return ops.resize_bilinear_forward(x, self.size, align_corners=self.align_corners)

    def apply_backward(self, dy, cache):
        return ops.resize_bilinear_backward(dy, cache)

    def output_shape(self, shape):
        return (*self.size, check_image(self, shape)[-1])


class Flatten(Layer):
    """Images to vectors: (N, H, W, C) -> (N, H W C)."""

    kind = "reshape"

    def apply(self, x, training):
        check_array("Flatten", x, "x")
        return x.reshape(len(x), -1).copy(), x.shape

    def apply_backward(self, dy, cache):
        return dy.reshape(cache).copy()

    def output_shape(self, shape):
        return (math.prod(shape),)
