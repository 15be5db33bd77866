"""Max, average and global average pooling."""

from npnets import ops
from npnets.nn.layers.layer import Layer, check_image, check_images, check_stride, check_window, short
from npnets.shapes import geometry, pair


class _Pool2d(Layer):
    kind = "pooling"

    def __init__(self, size, *, stride=None, padding="valid"):
        super().__init__()
        self.size = pair(size, "size")
        self.stride = self.size if stride is None else pair(stride, "stride")
        self.padding = padding
        check_window(self, self.size)

    @property
    def settings(self):
        return {"stride": self.stride, "padding": self.padding}

    def output_shape(self, shape):
        H, W, C = check_stride(self, check_image(self, shape))
        return (*geometry((H, W), self.size, **self.settings, name=type(self).__name__).out, C)

    def describe(self):
        return f"{self.size[0]}x{self.size[1]}, stride {short(self.stride)}, padding {self.padding!r}"


class MaxPool2d(_Pool2d):
    """Max pooling (see :func:`npnets.ops.max_pool2d_forward`).

    Parameters
    ----------
    size : int or (int, int)
    stride : int or (int, int), optional
        By default the size.
    padding
        As for :class:`Conv2d`.
    """

    def apply(self, x, training):
        check_images(self, x)
        return ops.max_pool2d_forward(x, self.size, **self.settings)

    def apply_backward(self, dy, cache):
        return ops.max_pool2d_backward(dy, cache)


class AvgPool2d(_Pool2d):
    """Average pooling over the cells inside the image (see :func:`npnets.ops.avg_pool2d_forward`).

    Parameters
    ----------
    size, stride, padding
        As for :class:`MaxPool2d`.
    """

    def apply(self, x, training):
        check_images(self, x)
        return ops.avg_pool2d_forward(x, self.size, **self.settings)

    def apply_backward(self, dy, cache):
        return ops.avg_pool2d_backward(dy, cache)


class GlobalAvgPool(Layer):
    """Mean over all pixels (see :func:`npnets.ops.global_avg_pool_forward`)."""

    kind = "pooling"

    def apply(self, x, training):
        return ops.global_avg_pool_forward(x)

    def apply_backward(self, dy, cache):
        return ops.global_avg_pool_backward(dy, cache)

    def output_shape(self, shape):
        return check_image(self, shape)[-1:]
