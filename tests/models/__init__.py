"""What the tests of models share: gradients of whole networks, and the tables in the models' docstrings."""

import re

import numpy as np

from npnets import models


def smallest_classifiers():
    """Return the names of the classifiers, of each family only the smallest: the others are the same, with more blocks.

    For tests that run the networks. A deep one with random running statistics is no good for comparing digits either:
    rounding errors grow from block to block, in EfficientNet-B7 by a factor of millions.
    """
    return [name for name in models.classifiers() if not re.fullmatch(r"efficientnet_b[1-7]|resnet1\d\d", name)]


def gradient_errors(model, x, *, training, directions=5, h=2e-8, seed=0, names=None):
    """Return the relative errors of the backward along random directions.

    Along a direction v in all parameters and the input, ``<gradient, v>`` is compared with the central difference
    ``(loss(+h v) - loss(-h v)) / 2h`` of ``loss = sum(dy y)``. The step is small, since thousands of activations must
    stay on their side of a kink. Where one does not, that direction is far off: hence several, and their median.

    With ``names``, only those parameters move.
    """
    rng = np.random.default_rng(seed)
    parameters = model.parameters()
    masks = [(generator, generator.bit_generator.state) for _, generator in model.generators()]

    def forward(x):
        for generator, state in masks:
            generator.bit_generator.state = state  # the same dropout mask every time
        return model(x, training)

    dy = rng.standard_normal(forward(x).shape)
    moved = [p for p in parameters if names is None or p.name in names]
    points = [x, *(p.value.copy() for p in moved)]
    gradients = [model.backward(dy), *(p.grad for p in moved)]
    errors = []
    for _ in range(directions):
        steps = [rng.standard_normal(point.shape) * (point.std() or 1) for point in points]
        if names is not None:
            steps[0] = np.zeros_like(x)
        analytic = sum(np.vdot(gradient, step) for gradient, step in zip(gradients, steps))
        sides = []
        for sign in (h, -h):
            for parameter, point, step in zip(moved, points[1:], steps[1:]):
                parameter.value = point + sign * step
            sides.append(forward(points[0] + sign * steps[0]))
        numerical = np.sum(dy * (sides[0] - sides[1])) / (2 * h)
        errors.append(abs(analytic - numerical) / max(abs(analytic), abs(numerical)))
    for parameter, point in zip(moved, points[1:]):
        parameter.value = point
    return errors


def atrous_difference(strided, atrous, x, s):
    """Return the largest relative difference between the features of two networks where both have some.

    The second gets the weights of the first. Its last map is s times as large, since its later strides became
    dilations; at every s-th pixel it shall have the same features.
    """
    atrous.load_state_dict(strided.state_dict())
    expected, dense = strided(x), atrous(x)
    return np.abs(dense[:, ::s, ::s] - expected).max() / np.abs(expected).max()


def docstring_rows(module):
    """Return the rows ``width_mult @ pixels, parameters, multiply-adds`` of a model file's docstring, as numbers."""
    rows = re.findall(r"^B?([\d.]+) @ (\d+) +([\d,]+) +([\d,]+)$", module.__doc__, re.MULTILINE)
    return [(float(a), int(r), *(int(n.replace(",", "")) for n in counts)) for a, r, *counts in rows]
