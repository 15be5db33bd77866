"""The checks that several ops share. An error names the op and both shapes, and says what was expected."""

import numpy as np


def check_ndim(op, x, x_ndim, w=None, w_ndim=0):
    """Raise a ``ValueError`` unless ``x`` and ``w`` have the given numbers of axes and floating-point numbers."""
    layouts = {2: "(N, C)", 4: "(N, H, W, C)"}
    check_array(op, x, "x")
    if x.ndim != x_ndim:
        raise ValueError(f"{op}: x must have the shape {layouts[x_ndim]}, got {x.shape}")
    check_floating(op, x, "x")
    check_not_empty(op, x)
    if w is not None:
        check_array(op, w, "w")
        if w.ndim != w_ndim:
            raise ValueError(f"{op}: w must have {w_ndim} axes, got {w.shape} for x {x.shape}")
        check_floating(op, w, "w")


def check_floating(op, array, name):
    """Raise a ``ValueError`` unless it is an array of floating-point numbers: a layer must not silently round."""
    check_array(op, array, name)
    if array.dtype.kind not in "fc":
        raise ValueError(f"{op}: {name} must hold floating-point numbers, got dtype {array.dtype}; use {name}.astype")


def check_array(op, array, name):
    """Raise a ``ValueError`` unless it is a NumPy array."""
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{op}: {name} must be a NumPy array, got {type(array).__name__}; use np.asarray")


def check_not_empty(op, x):
    """Raise a ``ValueError`` if an axis of x has length 0."""
    if x.size == 0:
        raise ValueError(f"{op}: x has the shape {x.shape}; there is nothing in it")


def check_bias(op, b, w):
    """Raise a ``ValueError`` unless ``b`` is None or has one entry for each output channel of ``w``."""
    if b is not None and b.shape != w.shape[-1:]:
        raise ValueError(f"{op}: b must have the shape ({w.shape[-1]},) for w {w.shape}, got {b.shape}")


def check_block(op, x, expand, depthwise, project, out, shortcut):
    """Raise a ``ValueError`` unless the weights of a block fit x and each other, and a shortcut the output.

    ``expand`` may be None; ``out`` is the size (H_out, W_out) of what the depthwise convolution leaves.
    """
    C_in, C_mid, C_out = x.shape[-1], depthwise.shape[-1], project.shape[-1]
    wanted = {
        "expand": (expand, (C_in, C_mid)),
        "depthwise": (depthwise, (*depthwise.shape[:2], C_in if expand is None else C_mid)),
        "project": (project, (C_mid, C_out)),
    }
    for name, (w, shape) in wanted.items():
        if w is not None and w.shape != shape:
            raise ValueError(f"{op}: {name}.w must have the shape {shape} for x {x.shape}, got {w.shape}")
    y_shape = (len(x), *out, C_out)
    if shortcut and y_shape != x.shape:
        raise ValueError(f"{op}: a shortcut adds x to the output, but x is {x.shape} and the output {y_shape}")


def check_gradient(op, dy, shape):
    """Raise a ``ValueError`` unless ``dy`` has the shape of the forward's output."""
    if dy.shape != tuple(shape):
        raise ValueError(f"{op}: dy has the shape {dy.shape}, but the forward returned {tuple(shape)}")
