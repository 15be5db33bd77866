"""The mathematics: pure functions on arrays, no state.

Each op is a pair. ``<op>_forward(inputs..., settings) -> (y, cache)`` computes the output and keeps what the gradient
needs; ``<op>_backward(dy, cache)`` takes the gradient of the loss with respect to y and returns those with respect to
the inputs, in their order. Ops never write into their inputs and keep the dtype.

``bottleneck.py`` and ``folded.py`` hold a whole block of MobileNetV1 and V2 as one op, for training and for inference:
the same numbers as its layers, computed slice by slice in the core's cache. The blocks of ``nn`` use them.

``boxes.py`` and ``separable.py`` hold no ops but plain functions: the boxes of object detection, through which no
gradient passes, and kernels as sums of separable ones.
"""

from npnets.ops.activation import (
    relu6_backward,
    relu6_forward,
    relu_backward,
    relu_forward,
    sigmoid_backward,
    sigmoid_forward,
    swish_backward,
    swish_forward,
)
from npnets.ops.convolution import (
    conv2d_backward,
    conv2d_forward,
    depthwise_conv2d_backward,
    depthwise_conv2d_forward,
)
from npnets.ops.linear import (
    linear_backward,
    linear_forward,
    pointwise_conv2d_backward,
    pointwise_conv2d_forward,
)
from npnets.ops.loss import softmax_cross_entropy_backward, softmax_cross_entropy_forward
from npnets.ops.normalization import (
    batch_norm_backward,
    batch_norm_forward,
    local_response_norm_backward,
    local_response_norm_forward,
)
from npnets.ops.pooling import (
    avg_pool2d_backward,
    avg_pool2d_forward,
    global_avg_pool_backward,
    global_avg_pool_forward,
    max_pool2d_backward,
    max_pool2d_forward,
)
from npnets.ops.regularization import (
    drop_path_backward,
    drop_path_forward,
    dropout_backward,
    dropout_forward,
)
from npnets.ops.resize import resize_bilinear_backward, resize_bilinear_forward
from npnets.ops.scale import channel_scale_backward, channel_scale_forward

__all__ = [
    "avg_pool2d_backward",
    "avg_pool2d_forward",
    "batch_norm_backward",
    "batch_norm_forward",
    "channel_scale_backward",
    "channel_scale_forward",
    "conv2d_backward",
    "conv2d_forward",
    "depthwise_conv2d_backward",
    "depthwise_conv2d_forward",
    "drop_path_backward",
    "drop_path_forward",
    "dropout_backward",
    "dropout_forward",
    "global_avg_pool_backward",
    "global_avg_pool_forward",
    "linear_backward",
    "linear_forward",
    "local_response_norm_backward",
    "local_response_norm_forward",
    "max_pool2d_backward",
    "max_pool2d_forward",
    "pointwise_conv2d_backward",
    "pointwise_conv2d_forward",
    "relu6_backward",
    "relu6_forward",
    "relu_backward",
    "relu_forward",
    "resize_bilinear_backward",
    "resize_bilinear_forward",
    "sigmoid_backward",
    "sigmoid_forward",
    "softmax_cross_entropy_backward",
    "softmax_cross_entropy_forward",
    "swish_backward",
    "swish_forward",
]
