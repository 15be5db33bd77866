"""The blocks of MobileNetV1 and V2.

In training each computes what its layers do in one op, faster (see :class:`Bottleneck`).
"""

import numpy as np

from npnets.nn.blocks.conv import norm_and_activation
from npnets.nn.layers import BatchNorm, DepthwiseConv2d, PointwiseConv2d
from npnets.nn.module import Residual, Sequential
from npnets.ops.bottleneck import ConvNorm, bottleneck_backward, bottleneck_forward
from npnets.ops.folded import FoldedConv, folded_bottleneck
from npnets.shapes import choice, integer, pair


class Bottleneck(Residual):
    """What the blocks of MobileNetV1 and V2 share: expand, filter, project, each with a batch norm.

    V1's block is the case without expansion and without shortcut. In training they are one op,
    :func:`npnets.ops.bottleneck.bottleneck_forward`: the numbers of the layers but for rounding, faster for V2, and in
    less memory. So they are in inference once batch norm is folded into the weights (see
    :func:`npnets.nn.fold_batch_norm`), by :func:`npnets.ops.folded.folded_bottleneck`.

    Attributes
    ----------
    stages : tuple of str
        The names that its convolutions may have, in order. The batch norm of ``name`` is ``name_bn``.
    as_one_op : bool
        Set it to False to go layer by layer, for example to time the layers.
    """

    stages = ("expand", "depthwise", "project")
    as_one_op = True

    def __init__(self, adds_input, **layers):
        super().__init__(**layers)
        self.adds_input = adds_input
        self.cache = None

    def forward(self, x, training=False):
        self.cache = None
        layers = dict(self.chain())
        convolutions = {name: layers[name] for name in self.stages if name in layers}
        if self.as_one_op and self._are_a_bottleneck(convolutions, x):
            settings = self.depthwise.settings | {"shortcut": self.adds_input}
            if training and _are_trained_together(convolutions, layers, x.dtype):
                self._show(layers, x)
                for layer in layers.values():
                    layer.cache = None  # of an earlier inference, or of the show: nobody will go back through it
                y, self.cache = bottleneck_forward(x, *self._stages(_conv_norm, layers), **settings)
                return y
            if not training and _are_folded(convolutions, layers):
                return folded_bottleneck(x, *self._stages(_folded_conv, layers), **settings)
        return super().forward(x, training)

    def backward(self, dy):
        if self.cache is None:
            return super().backward(dy)
        dx, *gradients = bottleneck_backward(dy, self.cache)
        for name, of_stage in zip(self.stages[::-1], gradients[::-1]):
            if of_stage is not None:
                norm = getattr(self, f"{name}_bn")
                getattr(self, name).w.grad, norm.gamma.grad, norm.beta.grad = of_stage
        return dx

    def _are_a_bottleneck(self, convolutions, x):
        """Tell whether these are the convolutions that the ops know, and x is what they take."""
        layers = list(convolutions.values())
        return (
            list(map(type, layers)) == [PointwiseConv2d, DepthwiseConv2d, PointwiseConv2d][-len(layers) :]
            and len(layers) >= 2
            and self.shortcut is None
            and isinstance(x, np.ndarray)
            and x.ndim == 4
            and x.shape[-1] == layers[0].C_in
            and all(s <= n for s, n in zip(self.depthwise.stride, x.shape[1:3]))
            and all(layer.w.dtype == x.dtype for layer in layers)
        )

    def _stages(self, stage_of, layers):
        """Return the three stages for the op, None where there is no expansion."""
        stages = [stage_of(name, layers) for name in self.stages if name in layers]
        return [None] * (3 - len(stages)) + stages

    def _show(self, layers, x):
        """Call the observers of the layers inside, which the op does not pass: go through them once more, for show."""
        if not any(layer.observers for layer in layers.values()):
            return
        running = [getattr(layer, name) for layer in layers.values() for name in layer.running]
        before = [array.copy() for array in running]
        try:
            super().forward(x, training=True)
        finally:
            for array, old in zip(running, before):
                array[...] = old


CHAINS = (Sequential.forward, Residual.forward, Bottleneck.forward)
"""The forwards that compute what their layers do one after the other (a Residual adds its input to that)."""


def _are_trained_together(convolutions, layers, dtype):
    """Tell whether each convolution is followed by its batch norm, and the op computes what they do."""
    norms = [layers.get(f"{name}_bn") for name in convolutions]
    return (
        list(layers) == [part for name in convolutions for part in (name, f"{name}_bn")]
        and all(type(norm) is BatchNorm for norm in norms)
        and all(norm.activation is not None for norm in norms[:-1])
        and all(layer.C_out == norm.C for norm, layer in zip(norms, convolutions.values()))
        and all(norm.gamma.dtype == norm.beta.dtype == norm.running_mean.dtype == dtype for norm in norms)
        and all(layer.b is None and layer.activation is None for layer in convolutions.values())
        and not any(layer.inference_only for layer in layers.values())
    )


def _are_folded(convolutions, layers):
    """Tell whether nothing but the convolutions of a folded model is left, and nobody looks at them."""
    return list(layers) == list(convolutions) and all(
        layer.inference_only and not layer.observers for layer in layers.values()
    )


def _conv_norm(name, layers):
    norm = layers[f"{name}_bn"]
    arrays = (layers[name].w.value, norm.gamma.value, norm.beta.value, norm.running_mean, norm.running_var)
    return ConvNorm(*arrays, norm.decay, norm.eps, norm.activation)


def _folded_conv(name, layers):
    return FoldedConv(layers[name].w.value, layers[name].value("b"), layers[name].activation)


class DepthwiseSeparable(Bottleneck):
    """Filter, then combine: Figure 3 (right) of MobileNetV1, batch norm and ReLU after each of the two.

    Parameters
    ----------
    C_in, C_out : int
    kernel : int
    activation : str
        ReLU in the paper.
    decay_depthwise : bool
        Whether weight decay applies to the depthwise kernel. The paper found it important to put very little or none
        on it (section 3.2).
    """

    stages = ("depthwise", "pointwise")

    def __init__(
        self,
        C_in,
        C_out,
        kernel=3,
        *,
        stride=1,
        dilation=1,
        activation="relu",
        decay_depthwise=False,
        padding="same",
        bn_decay=0.99,
        bn_eps=1e-3,
        rng,
        dtype=np.float32,
    ):
        spatial = {"stride": stride, "padding": padding, "dilation": dilation, "rng": rng, "dtype": dtype}
        norm = {"decay": bn_decay, "eps": bn_eps, "dtype": dtype}
        super().__init__(
            adds_input=False,
            depthwise=DepthwiseConv2d(C_in, kernel, decay=decay_depthwise, **spatial),
            **norm_and_activation("depthwise_bn", C_in, activation, norm),
            pointwise=PointwiseConv2d(C_in, C_out, rng=rng, dtype=dtype),
            **norm_and_activation("pointwise_bn", C_out, activation, norm),
        )


class InvertedResidual(Bottleneck):
    """Bottleneck residual block, Table 1 of MobileNetV2: expand to t C_in channels, filter, project to C_out.

    There is no expansion convolution at t = 1. The projection is linear. The input is added to the output where the
    block keeps the shape: stride 1 and C_in = C_out.

    Parameters
    ----------
    C_in, C_out : int
    t : int
        Expansion factor, applied to the input channels.
    kernel : int
    activation : {"relu6", "relu"}
        After the expansion and after the filter. ReLU6 in the paper, "because of its robustness when used with
        low-precision computation".
    bottleneck : {"linear", "relu6"}
        "relu6" puts a non-linearity on the bottleneck: Figure 5 (a).
    shortcut : {"bottleneck", "expansion", "none"}
        What the residual connection joins: Figure 5 (b). "expansion" adds the expanded tensor before the depthwise
        convolution to the expanded tensor after it, in the same blocks that would have a bottleneck shortcut, so that
        the three variants have equally many parameters and shortcuts. (The weights of such a block are named
        ``filtering.depthwise.w``.)
    """

    def __init__(
        self,
        C_in,
        C_out,
        t=6,
        kernel=3,
        *,
        stride=1,
        dilation=1,
        activation="relu6",
        bottleneck="linear",
        shortcut="bottleneck",
        padding="same",
        bn_decay=0.99,
        bn_eps=1e-3,
        rng,
        dtype=np.float32,
    ):
        choice(activation, "activation", ("relu6", "relu"))
        choice(bottleneck, "bottleneck", ("linear", "relu6"))
        choice(shortcut, "shortcut", ("bottleneck", "expansion", "none"))
        expanded = integer(t, "expansion factor t", 1) * C_in
        keeps_shape = pair(stride, "stride") == (1, 1) and C_in == C_out
        norm = {"decay": bn_decay, "eps": bn_eps, "dtype": dtype}
        weight = {"rng": rng, "dtype": dtype}
        spatial = {"stride": stride, "padding": padding, "dilation": dilation}

        expansion = {}
        if t != 1:
            expansion = {
                "expand": PointwiseConv2d(C_in, expanded, **weight),
                "expand_bn": BatchNorm(expanded, activation=activation, **norm),
            }
        filtering = {
            "depthwise": DepthwiseConv2d(expanded, kernel, **spatial, **weight),
            "depthwise_bn": BatchNorm(expanded, activation=activation, **norm),
        }
        if keeps_shape and shortcut == "expansion":
            filtering = {"filtering": Residual(**filtering)}
        projection = {
            "project": PointwiseConv2d(expanded, C_out, **weight),
            "project_bn": BatchNorm(C_out, activation=None if bottleneck == "linear" else "relu6", **norm),
        }
        super().__init__(keeps_shape and shortcut == "bottleneck", **expansion, **filtering, **projection)

    def describe(self):
        return "adds its input" if self.adds_input else ""
