"""Figure 1 of MobileNetV2: every point is drawn where it is, and in the same colour everywhere."""

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Wedge

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


def sectors(ax):
    return [patch for patch in ax.patches if isinstance(patch, Wedge)]


def test_every_point_lies_in_a_sector_with_its_number_of_active_coordinates():
    rng = np.random.default_rng(2)
    matrices = {f"n = {n}": manifold.random_matrix(2, n, rng) for n in (1, 2, 5)}
    figure = plots.active_sectors(X, matrices, title="sectors")
    assert isinstance(figure, Figure) and figure.get_suptitle() == "sectors"
    assert [ax.get_title() for ax in figure.axes] == list(matrices)
    for ax, T in zip(figure.axes, matrices.values()):
        assert len(sectors(ax)) == 2 * T.shape[1]
        assert sum(sector.theta2 - sector.theta1 for sector in sectors(ax)) == 360
        angles = np.degrees(np.arctan2(*X.T[::-1]))[1:]  # the first point is the origin
        colours = [plots.spirals.SECTORS[min(count, 2)][0] for count in np.sum(X[1:] @ T > 0, axis=1)]
        for angle, colour in zip(angles, colours):
            (own,) = (s for s in sectors(ax) if (angle - s.theta1) % 360 < s.theta2 - s.theta1)
            assert to_hex(own.get_facecolor()).upper() == colour


def test_the_number_in_a_sector_and_the_arrows_are_those_of_the_matrix():
    T = np.array([[3.0, 0.0], [0.0, 1.0]])  # active to the right, and above
    (ax,) = plots.active_sectors(X, {"n = 2": T}).axes
    numbers = {tuple(np.sign(text.get_position()).astype(int)): text.get_text() for text in ax.texts if text.get_text()}
    assert numbers == {(1, 1): "2", (-1, 1): "1", (-1, -1): "0", (1, -1): "1"}
    assert all(abs(x) == pytest.approx(abs(y)) for x, y in (t.get_position() for t in ax.texts if t.get_text()))
    tips = np.array([text.xy for text in ax.texts if not text.get_text()])  # arrows
    np.testing.assert_allclose(tips / np.abs(tips).max(), np.eye(2), atol=1e-12)
    np.testing.assert_allclose(ax.lines[0].get_xydata(), X)


def test_an_arrow_points_where_its_column_does():
    T = np.array([[-3.0, 1.0, 0.0], [0.0, -1.0, 2.0]])
    (ax,) = plots.active_sectors(X, {"n = 3": T}).axes
    tips = np.array([text.xy for text in ax.texts if not text.get_text()])
    np.testing.assert_allclose(tips / np.hypot(*tips.T)[:, None], (T / np.hypot(*T)).T, atol=1e-12)


def test_a_number_stands_in_every_sector_that_has_room_for_it():
    for degrees, numbers in [(20, ["0", "1", "1", "2"]), (2, ["0", "2"])]:  # between two columns
        angles = np.radians([0, degrees])
        (ax,) = plots.active_sectors(X, {"n = 2": np.array([np.cos(angles), np.sin(angles)])}).axes
        assert len(sectors(ax)) == 4
        assert sorted(text.get_text() for text in ax.texts if text.get_text()) == numbers


def test_the_whole_curve_lies_in_the_sectors_and_in_the_panel():
    (ax,) = plots.active_sectors(3 * X, {"n = 1": np.array([[1.0], [0.0]])}).axes
    farthest = np.hypot(*(3 * X).T).max()
    assert all(sector.r > farthest for sector in sectors(ax))
    assert min(*ax.get_xlim()[1:], *ax.get_ylim()[1:], -ax.get_xlim()[0], -ax.get_ylim()[0]) > farthest


def test_the_legend_has_the_colours_of_the_sectors():
    figure = plots.active_sectors(X, {"n = 2": np.eye(2)})
    (legend,) = figure.legends
    of_label = {
        text.get_text().partition(":")[0]: to_hex(patch.get_facecolor())
        for text, patch in zip(legend.get_texts(), legend.get_patches())
    }
    first, *_ = sectors(figure.axes[0])  # from 0 to 90 degrees, where both are active
    assert list(of_label) == ["none active", "one", "two or more"] and len(set(of_label.values())) == 3
    assert to_hex(first.get_facecolor()) == of_label["two or more"]
    assert {to_hex(sector.get_facecolor()) for sector in sectors(figure.axes[0])} == set(of_label.values())


def test_two_columns_in_one_direction_make_no_empty_sector():
    (ax,) = plots.active_sectors(X, {"n = 2": np.array([[1.0, 2.0], [1.0, 2.0]])}).axes
    assert len(sectors(ax)) == 2 and [text.get_text() for text in ax.texts if text.get_text()] == ["0", "2"]
