"""The checks that several ops share. An error names the op and both shapes, and says what was expected."""


def check_ndim(op, x, x_ndim, w=None, w_ndim=0):
    """Raise a ``ValueError`` unless ``x`` and ``w`` have the given numbers of axes and floating-point numbers."""
    layouts = {
        2: "(N, C)",
        4: "(N, H, W, C)",
    }
    if x.ndim != x_ndim:
        raise ValueError(f"{op}: x must have the shape {layouts[x_ndim]}, got {x.shape}")
    check_floating(op, x, "x")
    if w is not None:
        if w.ndim != w_ndim:
            raise ValueError(f"{op}: w must have {w_ndim} axes, got {w.shape} for x {x.shape}")
        check_floating(op, w, "w")


def check_floating(op, array, name):
    """Raise a ``ValueError`` for integers and booleans: a layer would silently round its results."""
    if array.dtype.kind not in "fc":
        raise ValueError(f"{op}: {name} must hold floating-point numbers, got dtype {array.dtype}; use {name}.astype")


def check_bias(op, b, w):
    """Raise a ``ValueError`` unless ``b`` is None or has one entry for each output channel of ``w``."""
    if b is not None and b.shape != w.shape[-1:]:
        raise ValueError(f"{op}: b must have the shape ({w.shape[-1]},) for w {w.shape}, got {b.shape}")


def check_gradient(op, dy, shape):
    """Raise a ``ValueError`` unless ``dy`` has the shape of the forward's output."""
    if dy.shape != tuple(shape):
        raise ValueError(f"{op}: dy has the shape {dy.shape}, but the forward returned {tuple(shape)}")
