"""What the ops are checked against: the loops of the reference, and numerical gradients.

A :class:`Case` is one call of one op. Each check takes a case, calls the op's pair of functions and compares. The pair
can be replaced, which is how ``test_mutants.py`` shows that the checks notice a wrong one.
"""

from dataclasses import dataclass, field

import numpy as np

from npnets import ops, reference

KINKED = {"relu", "relu6", "max_pool2d"}
"""Ops that are not analytic: their gradients are checked by central differences instead of complex steps."""

RANDOM = {"dropout", "drop_path"}
"""Ops that draw a mask: the op gets a generator, the reference gets the mask."""


@dataclass(eq=False)
class Case:
    """The arguments of one call: ``op(*inputs, *extra, **settings)``; gradients are those of ``inputs``."""

    op: str
    inputs: tuple
    extra: tuple = ()
    settings: dict = field(default_factory=dict)
    seed: int = 0

    def arguments(self, inputs=None):
        """Return fresh ``(args, kwargs)`` for the op: an array that the op may update is never shared by two calls."""
        inputs = self.inputs if inputs is None else inputs
        extra = [_like(inputs[0], value) if isinstance(value, np.ndarray) else value for value in self.extra]
        kwargs = dict(self.settings)
        if self.op in RANDOM:
            kwargs["rng"] = np.random.default_rng(self.seed)
        return (*inputs, *extra), kwargs

    def reference_arguments(self):
        """Return fresh ``(args, kwargs)`` for the reference."""
        args, kwargs = self.arguments()
        if self.op in RANDOM:
            kept, _ = getattr(ops, f"{self.op}_forward")(np.ones_like(self.inputs[0]), *self.extra, **kwargs)
            mask = kept != 0
            kwargs = {"mask": mask if self.op == "dropout" else mask.reshape(len(mask), -1)[:, 0]}
        return args, kwargs

    def upstream(self, y):
        """Return random numbers in the shape of y. Never ones: with ones, batch norm's gradient is identically zero."""
        return np.random.default_rng([self.seed, 1]).standard_normal(np.shape(y))

    def as_type(self, dtype):
        """Return the case with its inputs in another dtype."""
        return Case(self.op, tuple(_cast(dtype, x) for x in self.inputs), self.extra, self.settings, self.seed)


def pair_of(case, forward=None, backward=None):
    """Return the op's two functions, or those that were given in their places."""
    return forward or getattr(ops, f"{case.op}_forward"), backward or getattr(ops, f"{case.op}_backward")


def as_pair(op, forward=None, backward=None):
    """Return a pair of op form made of functions of the reference's form; the reference stands in for a missing one."""
    forward = forward or getattr(reference, op)
    backward = backward or getattr(reference, f"{op}_backward")
    return (
        lambda *args, **kwargs: (forward(*args, **kwargs), (args, kwargs)),
        lambda dy, cache: backward(dy, *cache[0], **cache[1]),
    )


def check_against_reference(case, forward=None, backward=None, tolerance=1e-12):
    """Assert that the op and its gradients equal the loops of ``reference.py``."""
    forward, backward = pair_of(case, forward, backward)
    args, kwargs = case.arguments()
    y, cache = forward(*args, **kwargs)
    expected_args, expected_kwargs = case.reference_arguments()
    expected = getattr(reference, case.op)(*expected_args, **expected_kwargs)
    assert_close("y", y, expected, tolerance)
    for k, (value, expected_value) in enumerate(zip(args, expected_args)):  # batch norm's running statistics
        if isinstance(value, np.ndarray):
            assert_close(f"argument {k} after the forward", value, expected_value, tolerance)

    dy = case.upstream(expected)
    gradients = as_tuple(backward(_cast(np.asarray(y).dtype, dy), cache))
    reference_backward = getattr(reference, f"{case.op}_backward")
    expected_gradients = as_tuple(reference_backward(dy, *expected_args, **expected_kwargs))
    assert len(gradients) == len(expected_gradients)
    for k, (gradient, expected_gradient) in enumerate(zip(gradients, expected_gradients)):
        assert (gradient is None) == (expected_gradient is None), f"gradient of input {k}"
        if gradient is not None:
            assert_close(f"gradient of input {k}", gradient, expected_gradient, tolerance)


def check_gradients(case, forward=None, backward=None, upstream=None):
    """Assert that the backward agrees with numerical derivatives of the forward, in float64.

    ``loss = sum(dy y)`` is differentiated along some single coordinates of each input (which pixel is wrong?) and along
    two random directions (which see every element). Relative errors stay under 1e-9 by complex step and under 1e-6 by
    central differences.
    """
    forward, backward = pair_of(case, forward, backward)
    derivative, tolerance = (central_difference, 1e-6) if case.op in KINKED else (complex_step, 1e-9)
    args, kwargs = case.arguments()
    y, cache = forward(*args, **kwargs)
    dy = case.upstream(y) if upstream is None else upstream
    gradients = as_tuple(backward(dy, cache))
    assert len(gradients) == len(case.inputs)
    rng = np.random.default_rng([case.seed, 2])
    for k, (x, gradient) in enumerate(zip(case.inputs, gradients)):
        if x is None:
            assert gradient is None
            continue
        assert gradient.shape == x.shape, f"gradient of input {k} has the shape {gradient.shape}, the input {x.shape}"

        def loss(x_k, k=k):
            args, kwargs = case.arguments([x_k if n == k else _like(x_k, x) for n, x in enumerate(case.inputs)])
            return np.sum(dy * forward(*args, **kwargs)[0])

        for position in rng.permutation(x.size)[:8]:
            e = np.zeros(x.size)
            e[position] = 1
            expected, got = derivative(loss, x, e.reshape(x.shape)), gradient.flat[position]
            scale = max(abs(expected), np.abs(gradient).max())
            where = np.unravel_index(position, x.shape)
            assert abs(got - expected) <= tolerance * scale, f"gradient of input {k} at {where}: {got}, not {expected}"
        for _ in range(2):
            v = rng.standard_normal(x.shape)
            expected, got = derivative(loss, x, v), np.sum(gradient * v)
            scale = max(abs(expected), np.sum(np.abs(gradient * v)))
            assert abs(got - expected) <= tolerance * scale, f"gradient of input {k}, direction: {got}, not {expected}"


def check_contract(case, forward=None, backward=None):
    """Assert what holds for every op: nothing that was given is written to or given back, and the dtype is kept."""
    forward, backward = pair_of(case, forward, backward)
    args, kwargs = case.arguments()
    given = [x for x in args[: len(case.inputs)] if x is not None]
    before = [x.copy() for x in given]
    y, cache = forward(*args, **kwargs)
    dy = np.asarray(case.upstream(y), case.inputs[0].dtype)
    dy_before = dy.copy()
    gradients = as_tuple(backward(dy, cache))

    for x, x_before in zip(given, before):
        assert np.array_equal(x, x_before), f"{case.op} wrote into an input"
    assert np.array_equal(dy, dy_before), f"{case.op} wrote into dy"
    outputs = [np.asarray(y), *(gradient for gradient in gradients if gradient is not None)]
    for k, output in enumerate(outputs):
        assert output.dtype == case.inputs[0].dtype, f"{case.op} returned {output.dtype} for {case.inputs[0].dtype}"
        assert output.flags.writeable, f"{case.op} returned a read-only view"
        for other in (*given, dy, *outputs[:k]):
            assert not np.may_share_memory(output, other), f"{case.op} returned memory that it was given, or twice"
    assert len(gradients) == len(case.inputs)
    for x, gradient in zip(case.inputs, gradients):
        assert (x is None) == (gradient is None)
        assert x is None or gradient.shape == x.shape, f"{case.op}: gradient {gradient.shape} of an input {x.shape}"

    # Whoever got y and the gradients may overwrite them: a second backward still finds its cache as it was.
    copies = [output.copy() for output in outputs[1:]]
    for output in outputs:
        output[...] = np.nan
    again = [gradient for gradient in as_tuple(backward(dy, cache)) if gradient is not None]
    for first, second in zip(copies, again):
        assert np.array_equal(first, second), f"{case.op}: the cache shares memory with what was returned"


def complex_step(f, x, v, h=1e-30):
    """Return the derivative of f at x along v: ``Im f(x + i h v) / h``. No subtraction, hence no rounding error."""
    return f(x + 1j * h * v).imag / h


def central_difference(f, x, v, h=1e-4):
    """Return ``(f(x + h v) - f(x - h v)) / 2h``: exact for piecewise linear f, as long as no kink is crossed."""
    return (f(x + h * v) - f(x - h * v)) / (2 * h)


def relative_error(actual, expected):
    """Return the largest difference as a share of the largest expected value."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    difference = np.abs(actual - expected).max(initial=0.0)
    scale = np.abs(expected).max(initial=0.0)
    return 0.0 if difference == 0 else np.inf if scale == 0 else difference / scale


def assert_close(what, actual, expected, tolerance):
    """Assert equal shapes and a small relative error (also fails on NaN)."""
    assert np.shape(actual) == np.shape(expected), f"{what}: shape {np.shape(actual)}, not {np.shape(expected)}"
    error = relative_error(actual, expected)
    assert error <= tolerance, f"{what}: relative error {error:.2e} is over {tolerance:.0e}"


def as_tuple(value):
    """Return what a backward returned as a tuple: an op of one input returns its gradient alone."""
    return tuple(value) if isinstance(value, tuple) else (value,)


def _cast(dtype, array):
    return None if array is None else np.asarray(array).astype(dtype)


def _like(x, array):
    """Return a copy of array in the dtype of x (integers, such as labels, stay integers)."""
    return None if array is None else array.astype(x.dtype if array.dtype.kind in "fc" else array.dtype)
