"""One thin shell for each op: it owns the arrays and keeps the cache between forward and backward.

What a layer computes stands in :mod:`npnets.ops`, in the function of the same name. Weights are drawn from a generator
that the constructor is given; each weight gets a stream of its own.
"""

import math

import numpy as np

from npnets import ops
from npnets.nn import init
from npnets.nn.module import Module, Parameter
from npnets.ops.activation import SAME_PASS, UPPER
from npnets.ops.checks import check_array, check_ndim
from npnets.shapes import boolean, choice, geometry, integer, number, pair


class Layer(Module):
    """One op.

    A subclass defines ``apply(x, training) -> (y, cache)`` and ``apply_backward(dy, cache)``, which returns the
    gradients of x and of the arrays in ``own`` in their order, and for the cost ``kind``, ``output_shape`` and
    ``macs``. Layers of a model that :func:`fold_batch_norm` returned are ``inference_only``.
    """

    own = ()
    kind = ""
    inference_only = False

    def __init__(self):
        super().__init__()
        self.cache = None

    def forward(self, x, training=False):
        if training:
            self._check_trainable()
        y, cache = self.apply(x, training)
        if not self.inference_only:  # a cache would keep x in memory, and away from the layers that come next
            self.cache = cache
        return y

    def backward(self, dy):
        self._check_trainable()
        if self.cache is None:
            raise RuntimeError(
                f"{type(self).__name__}: backward was called before forward, and there is nothing to go back through"
            )
        gradients = self.apply_backward(dy, self.cache)
        if not self.own:
            return gradients
        dx, *own_gradients = gradients
        for name, gradient in zip(self.own, own_gradients):
            if getattr(self, name) is not None:
                getattr(self, name).grad = gradient
        return dx

    def _check_trainable(self):
        if self.inference_only:
            raise RuntimeError(
                f"{type(self).__name__}: this model is for inference alone, its batch norms are folded into the "
                "weights and it keeps nothing for a backward; train the model it was made from, and fold that again"
            )

    def apply(self, x, training):
        """Return (y, cache) of the op."""
        raise NotImplementedError

    def apply_backward(self, dy, cache):
        """Return the op's gradients."""
        raise NotImplementedError

    def value(self, name):
        """Return the array of a parameter, or None where the layer has none of that name."""
        parameter = getattr(self, name)
        return None if parameter is None else parameter.value

    def output_shape(self, shape):
        """Return the shape of the output for one image."""
        return shape

    def macs(self, shape):
        """Return the multiply-adds for one image of the given input shape."""
        return 0

    def trace(self, shape, visit, path=""):
        out = self.output_shape(shape)
        visit(path, self, shape, out)
        return out


class _Convolution(Layer):
    """What standard and depthwise convolution share: a window that slides, and its settings."""

    own = ("w", "b")

    def __init__(self, kernel, stride, padding, dilation, activation):
        super().__init__()
        self.kernel = pair(kernel, "kernel")
        self.stride = pair(stride, "stride")
        self.dilation = pair(dilation, "dilation")
        self.padding = padding
        self.activation = _same_pass(self, activation, SAME_PASS)
        _check_window(self, self.kernel)

    @property
    def settings(self):
        return {"stride": self.stride, "padding": self.padding, "dilation": self.dilation}

    def output_shape(self, shape):
        H, W, _ = _check_stride(self, _check_image(self, shape, self.C_in))
        return (*geometry((H, W), self.kernel, **self.settings, name=type(self).__name__).out, self.C_out)

    def macs(self, shape):
        H_out, W_out, _ = self.output_shape(shape)
        return H_out * W_out * math.prod(self.w.shape)

    def describe(self):
        text = f"{self.C_in} -> {self.C_out}, {self.kernel[0]}x{self.kernel[1]}, stride {_short(self.stride)}"
        dilation = "" if self.dilation == (1, 1) else f", dilation {_short(self.dilation)}"
        return text + dilation + f", padding {self.padding!r}" + _bias_and_activation(self)


class Conv2d(_Convolution):
    """Standard convolution (see :func:`npnets.ops.conv2d_forward`).

    Parameters
    ----------
    C_in, C_out : int
    kernel, stride, dilation : int or (int, int)
    padding : {"same", "valid", "symmetric"}, int, or ((top, bottom), (left, right))
    bias : bool
        No bias by default: before a batch norm its gradient is exactly zero.
    activation : {None, "relu", "relu6", "swish"}
        Applied in the same pass over the images. Meant for inference (see :func:`fold_batch_norm`): the backward
        computes the convolution once more.
    rng : numpy.random.Generator
    dtype : numpy dtype
    """

    kind = "conv"

    def __init__(
        self,
        C_in,
        C_out,
        kernel,
        *,
        stride=1,
        padding="same",
        dilation=1,
        bias=False,
        activation=None,
        rng,
        dtype=np.float32,
    ):
        super().__init__(kernel, stride, padding, dilation, activation)
        self.C_in, self.C_out = integer(C_in, "C_in", 1), integer(C_out, "C_out", 1)
        self.w = _weight((*self.kernel, C_in, C_out), rng, dtype)
        self.b = _bias(C_out, dtype) if boolean(bias, "bias") else None

    def apply(self, x, training):
        _check_images(self, x)
        return ops.conv2d_forward(x, self.w.value, self.value("b"), **self.settings, activation=self.activation)

    def apply_backward(self, dy, cache):
        return ops.conv2d_backward(dy, cache)


class DepthwiseConv2d(_Convolution):
    """Depthwise convolution (see :func:`npnets.ops.depthwise_conv2d_forward`).

    Parameters
    ----------
    C : int
    kernel, stride, dilation, padding, bias, activation, rng, dtype
        As for :class:`Conv2d`.
    decay : bool
        Whether weight decay applies to the kernel; MobileNetV1 leaves it out (section 3.2).
    """

    kind = "depthwise"

    def __init__(
        self,
        C,
        kernel,
        *,
        stride=1,
        padding="same",
        dilation=1,
        bias=False,
        activation=None,
        decay=True,
        rng,
        dtype=np.float32,
    ):
        super().__init__(kernel, stride, padding, dilation, activation)
        self.C_in = self.C_out = integer(C, "C", 1)
        self.w = _weight((*self.kernel, C), rng, dtype, decay=boolean(decay, "decay"))
        self.b = _bias(C, dtype) if boolean(bias, "bias") else None

    def apply(self, x, training):
        _check_images(self, x)
        arrays = x, self.w.value, self.value("b")
        return ops.depthwise_conv2d_forward(*arrays, **self.settings, activation=self.activation)

    def apply_backward(self, dy, cache):
        return ops.depthwise_conv2d_backward(dy, cache)


class PointwiseConv2d(Layer):
    """Pointwise (1x1) convolution (see :func:`npnets.ops.pointwise_conv2d_forward`).

    Parameters
    ----------
    C_in, C_out : int
    initializer : callable, optional
        Of :mod:`npnets.nn.init`; by default He's, for the fan-out.
    bias, activation, rng, dtype
        As for :class:`Conv2d`.
    """

    own = ("w", "b")
    kind = "pointwise"

    def __init__(self, C_in, C_out, *, bias=False, activation=None, initializer=None, rng, dtype=np.float32):
        super().__init__()
        self.activation = _same_pass(self, activation, SAME_PASS)
        self.C_in, self.C_out = integer(C_in, "C_in", 1), integer(C_out, "C_out", 1)
        self.w = _weight((C_in, C_out), rng, dtype, initializer)
        self.b = _bias(C_out, dtype) if boolean(bias, "bias") else None

    def apply(self, x, training):
        return ops.pointwise_conv2d_forward(x, self.w.value, self.value("b"), activation=self.activation)

    def apply_backward(self, dy, cache):
        return ops.pointwise_conv2d_backward(dy, cache)

    def output_shape(self, shape):
        if shape[-1] != self.C_in:
            raise ValueError(f"{type(self).__name__}: expects {self.C_in} channels, got the shape {shape}")
        return (*shape[:-1], self.C_out)

    def macs(self, shape):
        return math.prod(shape[:-1]) * self.C_in * self.C_out

    def describe(self):
        return f"{self.C_in} -> {self.C_out}" + _bias_and_activation(self)


class Linear(PointwiseConv2d):
    """Fully connected layer (see :func:`npnets.ops.linear_forward`).

    Parameters
    ----------
    C_in, C_out : int
    bias : bool
    initializer : callable, optional
        By default Gaussian with standard deviation 0.01, so that a classifier starts out undecided.
    activation, rng, dtype
        As for :class:`Conv2d`.
    """

    kind = "linear"

    def __init__(self, C_in, C_out, *, bias=True, activation=None, initializer=None, rng, dtype=np.float32):
        settings = {"bias": bias, "activation": activation, "rng": rng, "dtype": dtype}
        super().__init__(C_in, C_out, initializer=initializer or init.gaussian(0.01), **settings)

    def apply(self, x, training):
        return ops.linear_forward(x, self.w.value, self.value("b"), activation=self.activation)

    def apply_backward(self, dy, cache):
        return ops.linear_backward(dy, cache)


class BatchNorm(Layer):
    """Batch normalization (see :func:`npnets.ops.batch_norm_forward`); gamma starts at one, beta at zero.

    Parameters
    ----------
    C : int
    decay : float
        The weight of the old running statistic, 0 <= decay < 1. (Not weight decay, which never touches batch norm.)
    eps : float
    activation : {None, "relu", "relu6"}
        Applied in the same pass over the images, which is faster than a layer of its own.
    dtype : numpy dtype
    """

    own = ("gamma", "beta")
    kind = "batch norm"
    running = ("running_mean", "running_var")

    def __init__(self, C, *, decay=0.99, eps=1e-3, activation=None, dtype=np.float32):
        super().__init__()
        self.C = integer(C, "C", 1)
        self.decay = number(decay, "BatchNorm: decay (the weight of the old statistic)", at_least=0, below=1)
        self.eps = number(eps, "BatchNorm: eps", at_least=0)
        self.activation = _same_pass(self, activation, UPPER)
        self.gamma = Parameter((C,), init.constant(1), dtype=dtype, decay=False)
        self.beta = Parameter((C,), init.constant(0), dtype=dtype, decay=False)
        self.running_mean, self.running_var = np.zeros(C, dtype), np.ones(C, dtype)

    def apply(self, x, training):
        statistics = self.running_mean, self.running_var
        settings = {"training": training, "decay": self.decay, "eps": self.eps, "activation": self.activation}
        return ops.batch_norm_forward(x, self.gamma.value, self.beta.value, *statistics, **settings)

    def apply_backward(self, dy, cache):
        return ops.batch_norm_backward(dy, cache)

    def output_shape(self, shape):
        if shape[-1] != self.C:
            raise ValueError(f"BatchNorm: expects {self.C} channels, got the shape {shape}")
        return shape

    def describe(self):
        return f"{self.C}, decay {self.decay}, eps {self.eps}" + (f", {self.activation}" if self.activation else "")


class ReLU(Layer):
    """``max(x, 0)`` (see :func:`npnets.ops.relu_forward`)."""

    kind = "activation"

    def apply(self, x, training):
        return ops.relu_forward(x)

    def apply_backward(self, dy, cache):
        return ops.relu_backward(dy, cache)


class ReLU6(Layer):
    """``min(max(x, 0), 6)`` (see :func:`npnets.ops.relu6_forward`)."""

    kind = "activation"

    def apply(self, x, training):
        return ops.relu6_forward(x)

    def apply_backward(self, dy, cache):
        return ops.relu6_backward(dy, cache)


class Sigmoid(Layer):
    """``1 / (1 + exp(-x))`` (see :func:`npnets.ops.sigmoid_forward`)."""

    kind = "activation"

    def apply(self, x, training):
        return ops.sigmoid_forward(x)

    def apply_backward(self, dy, cache):
        return ops.sigmoid_backward(dy, cache)


class Swish(Layer):
    """``x sigmoid(x)`` (see :func:`npnets.ops.swish_forward`)."""

    kind = "activation"

    def apply(self, x, training):
        return ops.swish_forward(x)

    def apply_backward(self, dy, cache):
        return ops.swish_backward(dy, cache)


class _Pool2d(Layer):
    kind = "pooling"

    def __init__(self, size, *, stride=None, padding="valid"):
        super().__init__()
        self.size = pair(size, "size")
        self.stride = self.size if stride is None else pair(stride, "stride")
        self.padding = padding
        _check_window(self, self.size)

    @property
    def settings(self):
        return {"stride": self.stride, "padding": self.padding}

    def output_shape(self, shape):
        H, W, C = _check_stride(self, _check_image(self, shape))
        return (*geometry((H, W), self.size, **self.settings, name=type(self).__name__).out, C)

    def describe(self):
        return f"{self.size[0]}x{self.size[1]}, stride {_short(self.stride)}, padding {self.padding!r}"


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
        _check_images(self, x)
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
        _check_images(self, x)
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
        return _check_image(self, shape)[-1:]


class Dropout(Layer):
    """Dropout (see :func:`npnets.ops.dropout_forward`).

    Parameters
    ----------
    rate : float
        Probability of being dropped, 0 <= rate < 1.
    rng : numpy.random.Generator
        Its state is saved in checkpoints, so that a resumed run draws the same masks.
    """

    kind = "dropout"

    def __init__(self, rate, *, rng):
        super().__init__()
        self.rate = number(rate, "Dropout: rate", at_least=0, below=1)
        self.rng = rng.spawn(1)[0]

    def apply(self, x, training):
        return ops.dropout_forward(x, self.rate, training=training, rng=self.rng)

    def apply_backward(self, dy, cache):
        return ops.dropout_backward(dy, cache)

    def describe(self):
        return f"{self.rate}"


class DropPath(Layer):
    """Stochastic depth, one draw for each image (see :func:`npnets.ops.drop_path_forward`).

    Parameters
    ----------
    survival_prob : float
        Probability that a branch is kept, 0 < survival_prob <= 1.
    rng : numpy.random.Generator
    """

    kind = "dropout"

    def __init__(self, survival_prob, *, rng):
        super().__init__()
        self.survival_prob = number(survival_prob, "DropPath: survival_prob", above=0, at_most=1)
        self.rng = rng.spawn(1)[0]

    def apply(self, x, training):
        return ops.drop_path_forward(x, self.survival_prob, training=training, rng=self.rng)

    def apply_backward(self, dy, cache):
        return ops.drop_path_backward(dy, cache)

    def describe(self):
        return f"{self.survival_prob}"


class LocalResponseNorm(Layer):
    """Local response normalization (see :func:`npnets.ops.local_response_norm_forward`)."""

    kind = "normalization"

    def __init__(self, *, size=5, alpha=1e-4, beta=0.75, k=2.0):
        super().__init__()
        if integer(size, "LocalResponseNorm: size", 1) % 2 == 0:
            raise ValueError(f"LocalResponseNorm: size must be odd, so that the window is centred, got {size}")
        self.settings = {"size": size, "alpha": alpha, "beta": beta, "k": k}

    def apply(self, x, training):
        return ops.local_response_norm_forward(x, **self.settings)

    def apply_backward(self, dy, cache):
        return ops.local_response_norm_backward(dy, cache)


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
        return (*self.size, _check_image(self, shape)[-1])


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


ACTIVATIONS = {"relu": ReLU, "relu6": ReLU6, "sigmoid": Sigmoid, "swish": Swish}


def activation_layer(name):
    """Return a new activation layer: ``"relu"``, ``"relu6"``, ``"sigmoid"`` or ``"swish"``.

    Raises
    ------
    ValueError
        If there is no activation of that name.
    """
    return ACTIVATIONS[choice(name, "activation", ACTIVATIONS)]()


def _same_pass(layer, activation, known):
    """Return the activation, or raise ``ValueError`` if it is none of the known, which share a pass with the op."""
    if activation is not None and activation not in tuple(known):
        listed = ", ".join(f'"{name}"' for name in known)
        raise ValueError(f"{type(layer).__name__}: activation must be {listed} or None, got {activation!r}")
    return activation


def _bias_and_activation(layer):
    return (", bias" if layer.b else "") + (f", {layer.activation}" if layer.activation else "")


def _check_window(layer, kernel):
    """Raise ``ValueError`` for a wrong setting when the layer is made, not in its first forward."""
    geometry((1 << 20, 1 << 20), kernel, **layer.settings, name=type(layer).__name__)


def _check_image(layer, shape, channels=None):
    """Return the shape of an image, or raise ``ValueError`` if it is none, or has other channels."""
    name = type(layer).__name__
    if len(shape) != 3:
        raise ValueError(f"{name}: needs an image (H, W, C), got the shape {shape}")
    if channels not in (None, shape[-1]):
        raise ValueError(f"{name}: expects {channels} channels, got an image of {shape}")
    return shape


def _check_images(layer, x):
    """Raise ``ValueError`` unless x holds images (N, H, W, C) that are large enough for the stride."""
    check_ndim(type(layer).__name__, x, 4)
    _check_stride(layer, x.shape[1:])


def _check_stride(layer, shape):
    """Return the shape of an image, or raise ``ValueError`` if there is nothing left in it for the stride to skip."""
    if any(s > n for s, n in zip(layer.stride, shape)):
        H, W = shape[:2]
        raise ValueError(
            f"{type(layer).__name__}: an image of {H}x{W} pixels is too small for the stride {_short(layer.stride)}; "
            "use a higher resolution"
        )
    return shape


def _weight(shape, rng, dtype, initializer=None, decay=True):
    return Parameter(shape, initializer or init.he_normal("fan_out"), rng.spawn(1)[0], dtype=dtype, decay=decay)


def _bias(C, dtype):
    return Parameter((C,), init.constant(0), dtype=dtype, decay=False)


def _short(numbers):
    return str(numbers[0]) if numbers[0] == numbers[1] else str(numbers)
