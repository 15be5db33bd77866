"""Low precision: weights and activations rounded to a few bits, at inference.

MobileNetV2 (section 4) takes ReLU6 "because of its robustness when used with low-precision computation": its output
stays between 0 and 6, whatever comes. To see what that is worth, a trained network is computed with numbers that could
be stored in ``bits`` bits each; the arithmetic itself stays in floating point, which gives the same results as that of
integers would, but for rounding (Jacob et al. 2018, "Quantization and training of neural networks for efficient
integer-arithmetic-only inference")::

    folded = nn.fold_batch_norm(model)
    ranges = output_ranges(folded, batches)                      # as seen on training images
    small = quantized(folded, weights=8, activations=8, ranges=ranges)
    training.evaluate(small, test, mean=mean, std=std)

What is rounded: the weights of all convolutions and of the classifier, and what an inference keeps in memory between
its steps, the output of each convolution (after its activation) and of each sum with a shortcut. The image has 8 bits
anyway; biases, the mean over the pixels and the logits keep full precision, as there are few of them.
"""

import numpy as np

from npnets.nn import Conv2d, DepthwiseConv2d, Linear, Module, PointwiseConv2d, Residual, fold_batch_norm
from npnets.nn.folding import put_child
from npnets.ops.checks import check_floating
from npnets.parallel import cut, run
from npnets.shapes import integer, number

MOST_BITS = 16
"""So many a float32 can hold, and the distance to the next number is still small beside a step."""

CONVOLUTIONS = (Conv2d, DepthwiseConv2d, PointwiseConv2d)


def quantize(x, bits, low, high):
    """Return x rounded to the nearest of 2^bits equally distant numbers from ``low`` to ``high``.

    Jacob et al. 2018, equation (12): with ``n = 2^bits`` and ``S = (high - low) / (n - 1)``,

    ``y = S (clip(round(x / S) + Z, 0, n - 1) - Z)``,    ``Z = round(-low / S)``.

    The whole number Z stands for zero. So zero is one of the numbers, whatever the range: padding adds zeros, and ReLUs
    leave many. For that the range is shifted, by at most half a step, after it was extended to zero if it did not reach
    it. What lies outside is cut off. Halves are rounded to the even number.

    Parameters
    ----------
    x : ndarray, any shape, real
    bits : int
        From 1 to 16.
    low, high : float
        Where they are equal (and so zero), y is zero.

    Returns
    -------
    y : ndarray, shape and dtype of x

    Raises
    ------
    ValueError
        If ``bits`` or the range is none.

    >>> quantize(np.array([-9.0, 0.9, 2.9, 3.1, 99.0]), 2, 0, 6)
    array([0., 0., 2., 4., 6.])
    """
    check_floating("quantize", x, "x")
    steps = 2 ** _bits(bits, 1) - 1
    low, high = number(low, "low"), number(high, "high")
    if low > high:
        raise ValueError(f"quantize: the range must go from a lower to a higher number, got {low} to {high}")
    low, high = min(low, 0.0), max(high, 0.0)
    S = (high - low) / steps
    Z = round(-low / S) if S else 0
    return _rounded(x, S, -Z, steps - Z)


def quantize_weights(w, bits, *, per_channel=False):
    """Return weights rounded to the nearest of 2^bits - 1 equally distant numbers around zero.

    With ``m = 2^(bits - 1) - 1`` steps on each side and ``S = max|w| / m``: ``y = S round(w / S)``. The range is
    symmetric, so Z = 0, and one of the 2^bits whole numbers is not used: -127 to 127 for 8 bits.

    Parameters
    ----------
    w : ndarray, shape (..., C)
        Of a convolution, depthwise ones included, or a linear layer.
    bits : int
        From 2 to 16.
    per_channel : bool
        Whether each output channel has an S of its own, instead of one for the whole array. Once batch norm is folded
        in, the channels of a depthwise convolution can differ by orders of magnitude (Krishnamoorthi 2018, "Quantizing
        deep convolutional networks for efficient inference", section 3.1.3).

    Returns
    -------
    y : ndarray, shape and dtype of w

    Raises
    ------
    ValueError
        If ``bits`` is out of range.

    >>> quantize_weights(np.array([[-6.0, 0.2], [1.1, 0.1]]), 3)
    array([[-6.,  0.],
           [ 2.,  0.]])
    >>> quantize_weights(np.array([[-6.0, 0.2], [1.1, 0.1]]), 3, per_channel=True).round(3)
    array([[-6.   ,  0.2  ],
           [ 2.   ,  0.133]])
    """
    check_floating("quantize_weights", w, "w")
    m = 2 ** (_bits(bits, 2) - 1) - 1
    if per_channel:
        channels = np.moveaxis(w, -1, 0)
        return np.stack([quantize_weights(channel, bits) for channel in channels], axis=-1)
    return _rounded(w, float(np.abs(w).max()) / m, -m, m)


def _bits(bits, at_least):
    bits = integer(bits, "bits", at_least)
    if bits > MOST_BITS:
        raise ValueError(f"bits must be at most {MOST_BITS}, got {bits}")
    return bits


def _rounded(x, S, lowest, highest):
    """Return ``S clip(round(x / S), lowest, highest)``."""
    if S == 0:
        return np.zeros_like(x)
    flat = x.reshape(-1)
    y = np.empty_like(flat)

    def work(piece):
        part = np.divide(flat[piece], S, out=y[piece])
        np.rint(part, out=part)
        np.clip(part, lowest, highest, out=part)
        part *= S

    run(work, cut(flat.size, flat.itemsize))
    return y.reshape(x.shape)


class Rounded(Module):
    """A layer or block whose output is rounded to so many ``bits``, from ``low`` to ``high``."""

    def __init__(self, of, bits, low, high):
        super().__init__()
        self.of, self.bits, self.low, self.high = of, bits, low, high

    def forward(self, x, training=False):
        return quantize(self.of(x, training), self.bits, self.low, self.high)

    def backward(self, dy):
        raise RuntimeError("Rounded: a rounded network is for inference alone; train the one it was made from")

    def trace(self, shape, visit, path=""):
        return self.of.trace(shape, visit, f"{path}.of" if path else "of")

    def describe(self):
        return f"{self.bits} bits from {self.low:.4g} to {self.high:.4g}"


def is_kept(module):
    """Return whether the output of a module is one that an inference keeps: of a convolution, or a sum."""
    return type(module) in CONVOLUTIONS or (isinstance(module, Residual) and module.adds_input)


def output_ranges(model, batches):
    """Return the smallest and the largest number of each output that :func:`quantized` rounds, on some images.

    This is what is called calibration: take images of the training set, not of the test set.

    Parameters
    ----------
    model : Module
        Its batch norms are folded first (see :func:`npnets.nn.fold_batch_norm`); it is not changed.
    batches : iterable of arrays (N, H, W, C)

    Returns
    -------
    dict path of the module -> (low, high)
    """
    folded, found = fold_batch_norm(model), {}

    def note(path, y):
        low, high = found.get(path, (np.inf, -np.inf))
        found[path] = min(low, float(y.min())), max(high, float(y.max()))

    for path, module in folded.named_modules():
        if is_kept(module):
            module.observers.append(lambda y, path=path: note(path, y))
    for x in batches:
        folded(x)
    return found


def with_relu6_ranges(model, ranges):
    """Return the ranges with (0, 6) in place of that of each output that ReLU6 bounds: it needs no images."""
    ends = {path: getattr(module, "activation", None) for path, module in fold_batch_norm(model).named_modules()}
    return {path: (0.0, 6.0) if ends.get(path) == "relu6" else found for path, found in ranges.items()}


def quantized(model, *, weights=None, activations=None, ranges=None, per_channel=False):
    """Return a copy of a model for inference, in which weights and activations have a few bits.

    Parameters
    ----------
    model : Module
        Its batch norms are folded first (see :func:`npnets.nn.fold_batch_norm`); it is not changed.
    weights, activations : int, optional
        Bits of each; None leaves them as they are.
    ranges : dict path -> (low, high), optional
        Of the activations, from :func:`output_ranges`; needed for ``activations``.
    per_channel : bool
        See :func:`quantize_weights`.

    Returns
    -------
    Module
        What is rounded is a :class:`Rounded`, with the layer or block ``of`` it.

    Raises
    ------
    ValueError
        If ``bits`` are out of range, or the range of an output is missing.
    """
    folded = fold_batch_norm(model)
    if weights is not None:
        for _, module in folded.named_modules():
            if type(module) in (*CONVOLUTIONS, Linear):
                module.w.value = quantize_weights(module.w.value, weights, per_channel=per_channel)
    if activations is None:
        return folded
    missing = [path for path, module in folded.named_modules() if is_kept(module) and path not in (ranges or {})]
    if missing:
        raise ValueError(f"quantized: there is no range for {', '.join(missing)}; take those of output_ranges()")
    return _with_rounded_outputs(folded, _bits(activations, 1), ranges)


def _with_rounded_outputs(module, bits, ranges, path=""):
    """Return the module with every output that is kept rounded, its own included."""
    for name, child in list(module.children()):
        below = f"{path}.{name}" if path else name
        put_child(module, name, _with_rounded_outputs(child, bits, ranges, below))
    return Rounded(module, bits, *ranges[path]) if is_kept(module) else module
