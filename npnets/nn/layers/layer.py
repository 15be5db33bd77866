"""A layer: it owns the arrays of one op, and keeps the cache between forward and backward. And what layers share."""

from npnets.nn import init
from npnets.nn.module import Module, Parameter
from npnets.ops.checks import check_ndim
from npnets.shapes import geometry


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


def same_pass(layer, activation, known):
    """Return the activation, or raise ``ValueError`` if it is none of the known, which share a pass with the op."""
    if activation is not None and activation not in tuple(known):
        listed = ", ".join(f'"{name}"' for name in known)
        raise ValueError(f"{type(layer).__name__}: activation must be {listed} or None, got {activation!r}")
    return activation


def bias_and_activation(layer):
    """Return what a layer adds to its products, for printing."""
    return (", bias" if layer.b else "") + (f", {layer.activation}" if layer.activation else "")


def check_window(layer, kernel):
    """Raise ``ValueError`` for a wrong setting when the layer is made, not in its first forward."""
    geometry((1 << 20, 1 << 20), kernel, **layer.settings, name=type(layer).__name__)


def check_image(layer, shape, channels=None):
    """Return the shape of an image, or raise ``ValueError`` if it is none, or has other channels."""
    name = type(layer).__name__
    if len(shape) != 3:
        raise ValueError(f"{name}: needs an image (H, W, C), got the shape {shape}")
    if channels not in (None, shape[-1]):
        raise ValueError(f"{name}: expects {channels} channels, got an image of {shape}")
    return shape


def check_images(layer, x):
    """Raise ``ValueError`` unless x holds images (N, H, W, C) that are large enough for the stride."""
    check_ndim(type(layer).__name__, x, 4)
    check_stride(layer, x.shape[1:])


def check_stride(layer, shape):
    """Return the shape of an image, or raise ``ValueError`` if there is nothing left in it for the stride to skip."""
    if any(s > n for s, n in zip(layer.stride, shape)):
        H, W = shape[:2]
        raise ValueError(
            f"{type(layer).__name__}: an image of {H}x{W} pixels is too small for the stride {short(layer.stride)}; "
            "use a higher resolution"
        )
    return shape


def make_weight(shape, rng, dtype, initializer=None, decay=True):
    """Return a weight that is drawn from a stream of its own; He's initializer for the fan-out where none is given."""
    return Parameter(shape, initializer or init.he_normal("fan_out"), rng.spawn(1)[0], dtype=dtype, decay=decay)


def make_bias(C, dtype):
    """Return a bias of zeros, without weight decay."""
    return Parameter((C,), init.constant(0), dtype=dtype, decay=False)


def short(numbers):
    """Return a pair as text: one number where both are equal."""
    return str(numbers[0]) if numbers[0] == numbers[1] else str(numbers)
