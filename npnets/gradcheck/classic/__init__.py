"""The catalogue of classic mistakes, one file for each file of :mod:`npnets.ops`.

Each file gives the right gradients of its ops in plain NumPy, then the wrong ones: the same formula with one term
changed. Importing this package fills the catalogue of :mod:`npnets.gradcheck.catalogue`.
"""

from npnets.gradcheck.classic import (  # noqa: F401
    activation,
    convolution,
    linear,
    loss,
    normalization,
    pooling,
    regularization,
    resize,
    scale,
    sums,
)
