"""Activations."""

from npnets import ops
from npnets.nn.layers.layer import Layer
from npnets.shapes import choice


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


ACTIVATIONS = {"relu": ReLU, "relu6": ReLU6, "sigmoid": Sigmoid, "swish": Swish}


def activation_layer(name):
    """Return a new activation layer: ``"relu"``, ``"relu6"``, ``"sigmoid"`` or ``"swish"``.

    Raises
    ------
    ValueError
        If there is no activation of that name.
    """
    return ACTIVATIONS[choice(name, "activation", ACTIVATIONS)]()
