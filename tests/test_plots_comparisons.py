"""Trainings beside each other: the figures show every seed, the mean and the range, in percent."""

import io

import numpy as np
import pytest
from matplotlib.image import imread

from npnets import plots
from npnets.experiments import Curve

STYLES = {"one": ("#000000", "--", "o"), "other": ("#0072B2", "-", "s")}


def curve(each, steps=(10, 20, 30)):
    each = np.array(each, float)
    return Curve(np.array(steps), each, each.mean(axis=0), each.min(axis=0), each.max(axis=0))


@pytest.fixture
def curves():
    return {"one": curve([[0.1, 0.2, 0.6], [0.3, 0.2, 0.2]]), "other": curve([[0.5, 0.6, np.nan]])}


def test_a_curve_is_the_mean_and_its_band_the_range(curves):
    (ax,) = plots.curves_with_spread({"panel": curves}, STYLES).axes
    one, other = ax.get_lines()
    assert one.get_xdata().tolist() == [10, 20, 30]
    assert one.get_ydata() == pytest.approx([20, 20, 40]) and other.get_ydata()[:2] == pytest.approx([50, 60])
    band = ax.collections[0].get_paths()[0].vertices
    assert {(10, 10), (10, 30), (20, 20), (30, 60), (30, 20)} <= {tuple(map(round, point)) for point in band}
    assert (one.get_color(), one.get_linestyle()) == ("#000000", "--")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["one", "other"]


def test_panels_share_the_axis_and_the_level_is_drawn_in_each(curves):
    panels = {"a": curves, "b": {"one": curve([[0.3, 0.3, 0.3]])}}
    figure = plots.curves_with_spread(panels, {}, level=(0.25, "the level"))
    left, right = figure.axes
    assert [ax.get_title() for ax in figure.axes] == ["a", "b"] and left.get_ylim() == right.get_ylim()
    for ax in figure.axes:
        assert ax.get_lines()[-1].get_ydata() == [25, 25] and ax.texts[0].get_text() == "the level"
        assert ax.get_xlabel() == "step"
    assert "%" in left.get_ylabel()
    assert imread(io.BytesIO(plots.png(figure))).shape[0] > 300  # a style that is missing is no error


def test_a_quantity_that_is_no_share_is_not_scaled(curves):
    (ax,) = plots.curves_with_spread({"": curves}, STYLES, scale=1, ylabel="loss (nats)").axes
    assert ax.get_lines()[0].get_ydata() == pytest.approx([0.2, 0.2, 0.4]) and ax.get_ylabel() == "loss (nats)"


def test_each_seed_has_a_mark_and_the_mean_a_bar():
    (ax,) = plots.seed_ranges({"one": [0.5, 0.7], "third": [0.9]}, STYLES, reference="one").axes
    marks, bars = ax.get_lines()[::2], ax.get_lines()[1::2]
    assert [line.get_xdata().tolist() for line in marks] == [[50, 70], [90]]
    assert [set(line.get_xdata()) for line in bars] == [{60.0}, {90.0}]
    assert marks[0].get_marker() == "o" and marks[1].get_marker() == "o"  # the one of what has no style
    assert [label.get_text() for label in ax.get_yticklabels()] == ["one", "third"]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first row on top
    shaded = ax.patches[0]
    assert (shaded.get_x(), shaded.get_width()) == pytest.approx((50, 20))
    (ax,) = plots.seed_ranges({"one": [2.5]}, STYLES, scale=1, xlabel="loss (nats)").axes
    assert ax.get_lines()[0].get_xdata() == [2.5] and ax.get_xlabel() == "loss (nats)"
