"""Weight initialisation: each function returns an initializer ``(shape, rng) -> float64 array``.

For a kernel (K_h, K_w, C_in, C_out), an output sums ``fan_in = K_h K_w C_in`` products, and an input takes part in
``fan_out = K_h K_w C_out`` outputs. A depthwise kernel (K_h, K_w, C) keeps channels apart: both fans are ``K_h K_w``.
Counting the channels there, as if it were a dense kernel, would start the filters far too small.
"""

import math

import numpy as np

from npnets.shapes import number


def fans(shape):
    """Return (fan_in, fan_out) of a weight: linear, pointwise, standard or depthwise.

    >>> fans((3, 3, 16, 32)), fans((3, 3, 16)), fans((784, 100))
    ((144, 288), (9, 9), (784, 100))
    """
    if len(shape) == 3:
        return (math.prod(shape[:2]),) * 2
    window = math.prod(shape[:-2])
    return window * shape[-2], window * shape[-1]


def he_normal(mode="fan_out"):
    """Gaussian with variance ``2 / fan`` (He et al. 2015): a ReLU halves the energy, the 2 makes up for it."""
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f'he_normal: mode must be "fan_in" or "fan_out", got {mode!r}')

    def initializer(shape, rng):
        return rng.normal(0.0, math.sqrt(2 / fans(shape)[mode == "fan_out"]), shape)

    return initializer


def glorot_uniform():
    """Uniform with variance ``2 / (fan_in + fan_out)`` (Glorot and Bengio 2010), for linear and sigmoid layers."""

    def initializer(shape, rng):
        limit = math.sqrt(6 / sum(fans(shape)))
        return rng.uniform(-limit, limit, shape)

    return initializer


def gaussian(std):
    """Gaussian with a fixed standard deviation, as section 4.1 of the batch-norm paper ("small random Gaussian")."""

    std = number(std, "weight_std", at_least=0)

    def initializer(shape, rng):
        return rng.normal(0.0, std, shape)

    return initializer


def constant(number):
    """Return the same number everywhere: zeros for biases, ones for gamma."""

    def initializer(shape, rng):
        return np.full(shape, float(number))

    return initializer
