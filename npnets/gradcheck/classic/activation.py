"""Activations: the derivative at x, times dy, element by element."""

import numpy as np

from npnets.gradcheck.catalogue import KnownOp, mistake, register


def sigmoid(x):
    """Return 1 / (1 + exp(-x)) without overflow."""
    return np.exp(-np.logaddexp(0, -x))


DERIVATIVES = {
    "relu": lambda x: (x > 0) * 1.0,
    "relu6": lambda x: ((x > 0) & (x < 6)) * 1.0,
    "sigmoid": lambda x: sigmoid(x) * (1 - sigmoid(x)),
    "swish": lambda x: sigmoid(x) * (1 + x * (1 - sigmoid(x))),
}


def right(case):
    """The right gradient of all four."""
    return {"dx": case.dy * DERIVATIVES[case.op](case.x)}


def times_dy(case, *derivatives):
    """Return one variant for each wrong derivative."""
    return [{"dx": case.dy * derivative} for derivative in derivatives]


@mistake(
    "relu relu6 sigmoid swish",
    "dy forgotten",
    "the derivative is returned without multiplying it by dy",
    "Chain rule: dx = dy f'(x). With an all-ones dy nobody notices.",
)
def dy_forgotten(case):
    """f'(x)."""
    return {"dx": DERIVATIVES[case.op](case.x)}


@mistake(
    "relu relu6 sigmoid swish",
    "dy handed on",
    "dy is handed on unchanged, as if the activation were not there",
    "dx = dy f'(x): the derivative is missing.",
)
def dy_handed_on(case):
    """dy."""
    return {"dx": case.dy}


@mistake(
    "relu relu6",
    "gradient 1 at the kink",
    "the gradient is 1 at the kink itself",
    "A kink has no derivative; the convention here is 0, at 0 and at 6: strict inequalities, y > 0 (and y < 6).",
)
def one_at_the_kink(case):
    """>= for >, at either kink or at both."""
    x = case.x
    if case.op == "relu":
        return times_dy(case, x >= 0)
    return times_dy(case, (x >= 0) & (x <= 6), (x >= 0) & (x < 6), (x > 0) & (x <= 6))


@mistake(
    "relu relu6",
    "wrong sign",
    "the gradient passes where x is negative",
    "y = x where x > 0, so that is where the gradient passes.",
)
def wrong_sign(case):
    """x < 0."""
    return times_dy(case, case.x < 0, case.x <= 0)


@mistake(
    "relu relu6",
    "mask from dy",
    "the mask is made from dy instead of x",
    "Whether a unit was active was decided in the forward: compare x (or y) with 0, not dy.",
)
def mask_from_dy(case):
    """dy > 0."""
    masks = [case.dy > 0] if case.op == "relu" else [case.dy > 0, (case.dy > 0) & (case.dy < 6)]
    return times_dy(case, *masks)


@mistake(
    "relu6",
    "upper kink missing",
    "ReLU6 is differentiated as ReLU: its upper kink is missing",
    "Above 6 the output is constant, so the gradient is 0 there too.",
)
def upper_kink_missing(case):
    """x > 0."""
    return times_dy(case, case.x > 0, case.x >= 0)


@mistake(
    "relu6",
    "lower kink missing",
    "the lower kink of ReLU6 is missing",
    "Below 0 the output is constant, so the gradient is 0 there too.",
)
def lower_kink_missing(case):
    """x < 6."""
    return times_dy(case, case.x < 6, case.x <= 6)


@mistake(
    "sigmoid",
    "s for s (1 - s)",
    "s itself is taken for the derivative of the sigmoid",
    "ds/dx = s (1 - s).",
)
def s_alone(case):
    """s, or the other factor alone."""
    return times_dy(case, sigmoid(case.x), 1 - sigmoid(case.x))


@mistake(
    "sigmoid",
    "s (1 - s) of the wrong number",
    "y (1 - y) is computed with x in place of y, or with the sigmoid of y",
    "s is the output of the forward. Applied to x, the formula takes x for s; applied twice, the sigmoid of y.",
)
def s_of_the_wrong_number(case):
    """x (1 - x), or s(y) (1 - s(y))."""
    return times_dy(case, case.x * (1 - case.x), DERIVATIVES["sigmoid"](case.y))


@mistake(
    "sigmoid",
    "derivative of tanh",
    "the derivative of tanh, 1 - s^2, is used",
    "For the sigmoid it is s (1 - s) = s - s^2.",
)
def tanh_derivative(case):
    """1 - s^2."""
    return times_dy(case, 1 - sigmoid(case.x) ** 2)


@mistake(
    "swish",
    "s (1 - s)",
    "swish is differentiated as a sigmoid: s (1 - s)",
    "swish is x s(x). Product rule: s + x s (1 - s).",
)
def as_sigmoid(case):
    """s (1 - s)."""
    return times_dy(case, DERIVATIVES["sigmoid"](case.x))


@mistake(
    "swish",
    "gate as a constant",
    "the gate s is treated as a constant",
    "swish is x s(x), and s depends on x as well. Product rule: s + x s (1 - s).",
)
def gate_constant(case):
    """s."""
    return times_dy(case, sigmoid(case.x))


@mistake(
    "swish",
    "first term of the product rule missing",
    "only the gate is differentiated: x s (1 - s)",
    "The product rule has two terms: s + x s (1 - s).",
)
def only_the_gate(case):
    """x s (1 - s)."""
    return times_dy(case, case.x * DERIVATIVES["sigmoid"](case.x))


@mistake(
    "swish",
    "x forgotten in the second term",
    "x is forgotten in the second term of the product rule",
    "s + x s (1 - s).",
)
def x_forgotten(case):
    """s + s (1 - s)."""
    return times_dy(case, sigmoid(case.x) + DERIVATIVES["sigmoid"](case.x))


def _samples(rng):
    x = 4 * rng.standard_normal((4, 3, 5))
    x[0, 0, :3] = 0.0, 6.0, -1.0  # the kinks themselves, and numbers on every side of them
    x[1, 0, :3] = 7.5, 3.0, -6.5
    return [((x,), {})]


def _samples_smooth(rng):
    return [((2 * rng.standard_normal((4, 3, 5)),), {})]


for _name in DERIVATIVES:
    _kinked = _name.startswith("relu")
    register(KnownOp(_name, ("x",), ("dx",), right, _samples if _kinked else _samples_smooth, kinked=_kinked))
