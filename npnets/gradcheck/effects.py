"""What a check can see: by how much each classic mistake changes the gradients of one particular call."""

import numpy as np

from npnets.gradcheck.catalogue import known_op, make_case, mistakes
from npnets.gradcheck.running import as_inputs, frozen


def effects(op: str, inputs, dy, *, settings: dict | None = None) -> dict[str, float]:
    """Return by how much each known mistake changes the gradients of one call of an op.

    A check that compares gradients for these inputs and this upstream gradient misses the mistakes whose effect is
    zero. With ``dy`` all ones, for instance, the gradient of batch norm is zero with and without most of its terms.

    Parameters
    ----------
    op : str
        One of :func:`npnets.gradcheck.known_ops`.
    inputs : tuple
        Arguments of the op's forward in ``npnets.ops``.
    dy : ndarray, or callable
        The upstream gradient, or a function of y that returns it.
    settings : dict, optional
        Keyword arguments of the forward.

    Returns
    -------
    dict
        Name of the mistake -> largest difference between the wrong gradient and the right one, in units of the largest
        number that any of the formulas, right or wrong, gives for that gradient; of several ways to make the mistake,
        that with the largest difference. Infinite where the shapes differ, so that it cannot be missed. Mistakes that
        have no fixed numbers (a mask drawn again) are left out.

    Raises
    ------
    ValueError
        If the op is not known.

    >>> x = np.array([[-1.0, 2.0, 7.0]])
    >>> found = effects("relu6", (x,), np.ones_like(x))
    >>> found["upper kink missing"], found["gradient 1 at the kink"]
    (1.0, 0.0)
    """
    # Imported here, not at the top: ops stands below gradcheck in the reading order.
    from npnets import ops

    known, inputs, settings = known_op(op), as_inputs(inputs), settings or {}
    forward = getattr(ops, f"{known.name}_forward")
    call = frozen(forward, settings)
    y = np.asarray(call(*(x.copy() if isinstance(x, np.ndarray) else x for x in inputs))[0])
    upstream = np.asarray(dy(y) if callable(dy) else dy, np.float64)
    case = make_case(known, forward, lambda *arrays: np.asarray(call(*arrays)[0]), inputs, settings, y, upstream)
    right = {name: np.asarray(gradient) for name, gradient in known.right(case).items() if gradient is not None}
    ways = {mistake.name: _fitting(mistake.wrong(case), right) for mistake in mistakes(op) if mistake.recognise is None}
    largest = {name: np.max(np.abs(gradient), initial=0.0) for name, gradient in right.items()}
    for wrong in (wrong for way in ways.values() for wrong in way):
        for name, gradient in wrong.items():
            if gradient.shape == right[name].shape:
                largest[name] = max(largest[name], np.max(np.abs(gradient), initial=0.0))
    return {name: max((_effect(wrong, right, largest) for wrong in way), default=0.0) for name, way in ways.items()}


def _fitting(ways, right):
    """Return the wrong gradients as arrays, without those that are no numbers on this call."""
    ways = [{name: np.asarray(gradient) for name, gradient in way.items() if name in right} for way in ways]
    return [{name: array for name, array in way.items() if np.all(np.isfinite(array))} for way in ways]


def _effect(wrong, right, largest):
    found = [0.0]
    for name, gradient in wrong.items():
        if gradient.shape != right[name].shape:
            return np.inf
        difference = np.max(np.abs(gradient - right[name]), initial=0.0)
        found.append(float(difference / largest[name]) if difference else 0.0)
    return max(found)
