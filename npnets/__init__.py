"""npnets: efficient convolutional networks in plain NumPy, to be read next to the papers.

Every forward and every backward is written out; there is no autograd.

Notation
--------
``x, w, b, y``                 input, weight, bias, output of a layer; ``dy`` is the gradient that arrives from above,
                               ``dx, dw, db, dgamma, dbeta`` are those that go out
``mu, var, inv_std, x_hat``    batch norm: mean, variance, ``1 / sqrt(var + eps)``, the normalized input
``(N, H, W, C)``               images, height, width, channels: activations
``(K_h, K_w, C_in, C_out)``    a kernel, in the papers' index order K[i, j, m, n]; depthwise ``(K_h, K_w, C)``;
                               pointwise and linear ``(C_in, C_out)``
``t, c, n, s``                 expansion, channels, repeats, stride: the columns of MobileNetV2's Table 2
``decay``                      of batch norm: the weight of the old statistic
``width_mult``                 the papers' alpha; the resolution multiplier rho is the size of the input
``macs``                       multiply-adds

In reading order
----------------
=================== ===================================================================================
``shapes``          padding, output sizes, channel rounding: integers only
``parallel``        one layer's work spread over cores, with the same bits for every number of threads
``gradcheck``       numerical gradients, the checks, and the diagnosis of a wrong gradient
``ops``             the mathematics: pure functions, ``<op>_forward`` and ``<op>_backward``
``reference``       the same operations as the papers print them, as loops: slow, the oracle of ``ops``
``nn``              who owns which array: Parameter, Module, layers and blocks
``models``          the networks, each with its paper's table
``cost``            parameters and multiply-adds, from shapes alone
``optim``           RMSProp, SGD, schedules, weight averages
``datasets``        MNIST and CIFAR-10 in their published formats
``augment``         crops, mirror images, photometric distortion, normalization
``probes``          activations and weights over time
``training``        fit, evaluate, History
``profiling``       where the time of a training step goes, layer by layer
``latency``         how long one image takes on one core
``quantization``    weights and activations rounded to a few bits
``manifold``        what a ReLU leaves of a signal in few dimensions
``checkpoint``      save and resume, bit for bit
``plots``           the figures
``course``          exercises that check themselves, for the notebooks
``course_map``      every equation, table and figure, and where it is in the code and the course
``notebooks``       open the notebooks, run them, hand them out without solutions
``runs``            a training in a folder: its settings and files
``publish``         a reference model made of a training
``experiments``     the papers' experiments, run again and recorded
``benchmarks``      speed and memory beside other libraries
``cli``             ``python -m npnets``
=================== ===================================================================================

A file imports only from files above it.
"""

import importlib

from npnets import cost, models, nn, ops, optim
from npnets.parallel import threads

__version__ = "0.1.0"

# Imported when first asked for, so that `import npnets` stays quick: they bring tqdm, matplotlib and others along.
_LATER = (
    "augment", "benchmarks", "checkpoint", "cli", "course", "course_map", "datasets", "experiments", "gradcheck",
    "latency", "manifold", "notebooks", "parallel", "plots", "probes", "profiling", "publish", "quantization",
    "reference", "runs", "shapes", "training",
)  # fmt: skip

__all__ = ["__version__", "cost", "models", "nn", "ops", "optim", "threads", *_LATER]


def __getattr__(name):
    if name in _LATER:
        return importlib.import_module(f"npnets.{name}")
    raise AttributeError(f"npnets has no attribute {name!r}")
