"""Figure 1 of MobileNetV2: every point is drawn where it is, and in the same colour everywhere."""

import numpy as np
from matplotlib.figure import Figure

from npnets import manifold, plots

X = manifold.spiral(50)


def drawn(ax):
    """Return the points of a panel, and their colours."""
    (dots,) = ax.collections
    return np.asarray(dots.get_offsets()), np.asarray(dots.get_array())


def test_each_row_has_the_input_and_what_came_back():
    rows = {"ReLU": {"n = 2": X + 1, "n = 3": -X}, "ReLU6": {"n = 2": 2 * X}}
    figure = plots.recovered_curves(X, rows, title="a spiral")
    assert isinstance(figure, Figure) and figure.get_suptitle() == "a spiral"
    *panels, bar = figure.axes
    assert [ax.get_title() for ax in panels if ax.axison] == ["input", "n = 2", "n = 3", "input", "n = 2"]
    assert [panels[0].get_ylabel(), panels[3].get_ylabel()] == ["ReLU", "ReLU6"]
    for ax, points in zip(panels, [X, X + 1, -X, X, 2 * X]):
        where, colours = drawn(ax)
        np.testing.assert_allclose(where, points)
        np.testing.assert_allclose(colours, np.linspace(0, 1, 50))
        assert ax.get_aspect() == 1.0
    assert not panels[5].axison
    assert bar.get_ylabel() == "place along the curve"
    assert len(plots.png(figure)) > 1000
