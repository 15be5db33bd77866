"""The figures: that they show what the history holds, on labelled axes, whatever it holds."""

import io
import itertools
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.image import imread

import npnets
from npnets import cost, models, plots
from npnets.profiling import Pass, Row, StepProfile
from npnets.training import History

TRAINING = "training, mean over the epoch"


def history(epochs, *, test=True, steps=20):
    """Return a history as a training leaves it, with falling losses."""
    rng = np.random.default_rng(0)
    records = []
    for k in range(1, epochs + 1):
        record = {"epoch": k, "step": k * steps, "learning_rate": 0.01, "seconds": 30.0 * k, "images_per_second": 1e3}
        record |= {"train_loss": 1 / k, "train_accuracy": 1 - 0.3 / k}
        record |= {"test_loss": 1.1 / k if test else None, "test_accuracy": 1 - 0.2 / k if test else None}
        records.append(record)
    losses = [[step, steps / step * rng.uniform(0.5, 1.5)] for step in range(1, epochs * steps + 1)]
    return History(records, losses)


def lines(ax):
    """Return label -> (x, y) of the lines of an axes."""
    return {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in ax.get_lines()}


@pytest.mark.parametrize("epochs", [0, 1, 2, 40])
@pytest.mark.parametrize("test", [True, False], ids=["test set", "no test set"])
def test_training_curves_have_labelled_axes_and_can_be_drawn(epochs, test):
    figure = plots.training_curves(history(epochs, test=test), title="a net on data")
    assert isinstance(figure, Figure) and len(figure.axes) == 2
    left, right = figure.axes
    assert [ax.get_xlabel() for ax in figure.axes] == ["epoch", "epoch"]
    assert "cross-entropy" in left.get_ylabel() and "nats" in left.get_ylabel()
    assert "wrong" in right.get_ylabel() and "%" in right.get_ylabel()
    picture = imread(io.BytesIO(plots.png(figure)))
    assert picture.shape[0] > 300 and picture.shape[1] > 600


def test_the_curves_are_those_of_the_history():
    shown = history(3)
    left, right = plots.training_curves(shown).axes
    assert lines(left)[TRAINING] == ([0.5, 1.5, 2.5], shown["train_loss"])  # a mean over the epoch: in its middle
    assert lines(left)["test"] == ([1, 2, 3], shown["test_loss"])  # measured at its end
    for label, name, epochs in ((TRAINING, "train_accuracy", [0.5, 1.5, 2.5]), ("test", "test_accuracy", [1, 2, 3])):
        x, y = lines(right)[label]
        assert x == epochs and y == pytest.approx([100 * (1 - a) for a in shown[name]])
    x, y = lines(left)["training, along the way"]
    assert x == pytest.approx([step / 20 for step, _ in shown.losses])
    assert y == [loss for _, loss in shown.losses]
    assert {text.get_text() for text in left.get_legend().get_texts()} == set(lines(left))


def test_the_last_test_error_is_written_beside_its_point():
    _, right = plots.training_curves(history(3)).axes
    assert [text.get_text() for text in right.texts] == ["6.67 %"]


def test_many_losses_are_averaged_to_few_points():
    shown = history(40, steps=50)
    x, y = lines(plots.training_curves(shown).axes[0])["training, along the way"]
    assert 150 <= len(x) == len(y) <= 300
    assert (x[0], x[-1]) == (pytest.approx(7 / 50), 40.0)
    assert y[0] == pytest.approx(np.mean([loss for _, loss in shown.losses[:7]]))


def test_without_a_test_set_there_is_no_test_curve():
    figure = plots.training_curves(history(3, test=False))
    for ax in figure.axes:
        assert "test" not in lines(ax) and TRAINING in lines(ax)
    assert not figure.axes[1].texts


def test_an_empty_history_says_so():
    for ax in plots.training_curves(History([], history(1).losses[:5])).axes:
        assert [text.get_text() for text in ax.texts] == ["no epoch yet"] and not ax.get_lines()


@pytest.mark.parametrize("accuracy", [1.0, 0.0])
def test_an_error_of_zero_can_be_drawn(accuracy):
    shown = history(3)
    for record in shown.epochs[1:]:
        record["train_accuracy"] = record["test_accuracy"] = accuracy
    picture = imread(io.BytesIO(plots.png(plots.training_curves(shown))))
    assert picture.shape[0] > 300


def test_a_net_without_mistakes_still_shows_its_points():
    shown = history(3)
    for record in shown.epochs:
        record["train_accuracy"] = 1.0
    figure = plots.training_curves(shown)
    _, right = figure.axes
    plots.png(figure)
    _, y = lines(right)[TRAINING]
    low, _ = right.get_ylim()
    assert all(low <= value for value in y)  # zero has no place on a logarithmic axis


def test_few_epochs_have_whole_ticks():
    for epochs in (1, 2, 3):
        figure = plots.training_curves(history(epochs))
        plots.png(figure)
        for ax in figure.axes:
            low, high = ax.get_xlim()
            ticks = [tick for tick in ax.get_xticks() if low <= tick <= high]
            assert all(tick == round(tick) for tick in ticks), ticks


def tick_labels(axis):
    """Return the labels of an axis that are in its range, as drawn."""
    low, high = sorted(axis.get_view_interval())
    ticks = [tick for minor in (False, True) for tick in (axis.get_minor_ticks() if minor else axis.get_major_ticks())]
    return [t.label1.get_text() for t in ticks if low <= t.get_loc() <= high and t.label1.get_text()]


@pytest.mark.parametrize(("low", "high"), [(0.5, 90), (0.8, 1.9), (0.52, 0.97), (2.1, 4.9), (41, 49), (6, 19)])
def test_the_error_axis_has_at_least_two_plain_numbers(low, high):
    shown = history(6)
    for record, error in zip(shown.epochs, np.linspace(high, low, 6)):
        record["train_accuracy"] = record["test_accuracy"] = 1 - error / 100
    figure = plots.training_curves(shown)
    plots.png(figure)
    for ax in figure.axes:
        labels = tick_labels(ax.yaxis)
        assert len(labels) >= 2
        assert not [label for label in labels if not re.fullmatch(r"\d+(\.\d+)?", label)]  # not 6e-01 beside 2


def test_the_same_history_is_drawn_to_the_same_bytes():
    assert plots.png(plots.training_curves(history(3))) == plots.png(plots.training_curves(history(3)))


def test_drawing_uses_no_global_state():
    import matplotlib

    before = dict(matplotlib.rcParams)
    plots.png(plots.training_curves(history(2)))
    assert dict(matplotlib.rcParams) == before


def test_pyplot_is_never_imported():
    code = """
import subprocess
import sys
from pathlib import Path
import npnets
from npnets import cost, models, plots
from npnets.training import History
plots.png(plots.training_curves(History()))
sys.exit("matplotlib.pyplot" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(npnets.__file__).parents[1]).returncode == 0


def test_both_curves_have_the_colours_of_the_style():
    for ax in plots.training_curves(history(2)).axes:
        colours = {line.get_label(): line.get_color() for line in ax.get_lines()}
        assert (colours[TRAINING], colours["test"]) == (plots.COLOURS["train"], plots.COLOURS["test"])


# The profile of a step


def step_profile(inference=False):
    backward = Pass() if inference else Pass(0.002, 20, 4)
    rows = [
        Row("blocks.0.pointwise", "pointwise", (4,), 90, Pass(0.001, 10, 2), backward),
        Row("blocks.0.bn", "batch norm", (4,), 10, Pass(0.003, 0, 2), backward),
        Row("classifier", "linear", (4,), 0, Pass(0.004, 10, 2), backward),
        Row("odd", "an odd kind", (4,), 0, Pass(0.001, 10, 2), backward),
        Row("update", "update", (), 0, other=0.005),
    ]
    return StepProfile((2, 4), rows, 0.02, 0.02, 0.02, 1, 5, inference)


def bars(ax):
    """Return tick label -> list of (ms, colour, hatch) from left to right, without the empty ones."""
    found = {label.get_text(): [] for label in ax.get_yticklabels()}
    names = list(found)
    for bar in sorted(ax.patches, key=lambda bar: bar.get_x()):
        if bar.get_width() > 0:
            name = names[round(bar.get_y() + bar.get_height() / 2)]
            found[name].append((round(bar.get_width(), 6), to_hex(bar.get_facecolor()).upper(), bar.get_hatch() or ""))
    return found


def colour(kind):
    return plots.KINDS[kind][0]


def test_a_layer_is_a_bar_of_forward_and_backward_in_the_colour_of_its_kind():
    found = bars(plots.step_times(step_profile()).axes[0])
    assert list(found) == ["blocks.0.pointwise", "blocks.0.bn", "classifier", "odd", "update"]
    assert found["blocks.0.bn"] == [(3, colour("batch norm"), ""), (2, colour("batch norm"), "////")]
    assert found["odd"][0] == (1, colour("other"), "")
    assert found["update"] == [(5, colour("update"), "")]


def test_a_block_is_a_bar_of_its_kinds():
    found = bars(plots.step_times(step_profile(), by="block").axes[0])
    assert found["blocks.0"] == [(3, colour("pointwise"), ""), (5, colour("batch norm"), "")]


def test_the_bars_are_in_the_order_that_was_asked_for():
    ax = plots.step_times(step_profile(), by="kind", sort="time").axes[0]
    assert list(bars(ax)) == ["linear", "batch norm", "update", "pointwise", "an odd kind"]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first is at the top


def test_inference_has_no_backward_in_the_legend():
    for inference in (False, True):
        (legend,) = plots.step_times(step_profile(inference)).legends
        assert ("backward" in [text.get_text() for text in legend.get_texts()]) != inference


def test_shares_fill_their_bars_and_small_kinds_are_joined():
    whole = {"pointwise": 0.6, "batch norm": 0.385, "pooling": 0.01, "linear": 0.005}
    figure = plots.shares_by_kind({"a net": {"time": whole, "parameters": {"linear": 1.0}}, "other": {"time": whole}})
    first, second = figure.axes
    found = bars(first)
    assert found["time"] == [(60, colour("pointwise"), ""), (38.5, colour("batch norm"), ""),
                             (0.5, colour("linear"), ""), (1, colour("other"), "")]  # fmt: skip
    assert [text.get_text() for text in first.texts] == ["60", "38", "100"]
    assert [label.get_text() for label in second.get_yticklabels()] == ["time"]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["pointwise", "batch norm", "linear", "other"]


def test_the_shares_of_a_step_are_time_multiply_adds_and_parameters():
    (ax,) = plots.step_shares(step_profile()).axes
    assert list(bars(ax)) == ["time", "multiply-adds", "parameters"]
    assert bars(ax)["parameters"] == [(90, colour("pointwise"), ""), (10, colour("batch norm"), "")]


def test_neighbouring_kinds_differ_in_brightness_too():
    """For readers of a print in grey, and for the colour-blind."""
    brightness = [plots.style.brightness(colour) for colour, _ in plots.KINDS.values()]
    assert all(abs(a - b) > 0.1 for a, b in itertools.pairwise(brightness))
    assert len({marker for _, marker in plots.KINDS.values()}) == len(plots.KINDS)


@pytest.mark.parametrize(
    "names",
    [
        ("baseline", "batch_norm"),
        ("linear", "relu", "relu6"),
        ("none", "bottleneck", "expansion"),
        ("large", "small"),
        ("sgd", "epsilon_1", "epsilon_1e-3", "epsilon_1e-8"),
    ],
    ids=lambda names: names[0],
)
def test_variants_that_are_drawn_together_differ_in_line_and_in_brightness(names):
    colours, lines = zip(*(plots.VARIANTS[name] for name in names))
    assert len(set(lines)) == len(names)
    brightness = [plots.style.brightness(colour) for colour in colours]
    assert all(light > dark + 0.1 for dark, light in itertools.pairwise(brightness))


def test_linear_bottlenecks_with_shortcuts_look_alike_in_both_halves_of_figure_5():
    assert plots.VARIANTS["linear"] == plots.VARIANTS["bottleneck"]


# --- What networks cost ----------------------------------------------------------------------------------------------


def test_a_bar_for_every_layer_that_multiplies():
    profile = cost.profile(models.mobilenet_v2_small(), (28, 28, 3))
    top, bottom = plots.layer_costs(profile, title="small").axes
    rows = [row for row in profile.rows if row.macs]
    assert [bar.get_height() for bar in top.patches] == pytest.approx([row.macs / 1e6 for row in rows])
    assert [bar.get_height() for bar in bottom.patches] == pytest.approx([row.params / 1e3 for row in rows])
    assert [to_hex(bar.get_facecolor()).upper() for bar in top.patches] == [plots.KINDS[row.kind][0] for row in rows]
    assert top.get_title(loc="right") == f"{profile.macs:,} multiply-adds"
    assert bottom.get_title(loc="right") == f"{profile.params:,} parameters"
    names = [label.get_text() for label in bottom.get_xticklabels()]
    assert names[:3] == ["stem", "blocks.0", "blocks.1"] and names[-1] == "classifier"
    assert list(bottom.get_xticks())[:4] == [0, 1, 3, 6]


def test_limits_make_figures_comparable():
    profile = cost.profile(models.mobilenet_v2_small(), (28, 28, 3))
    top, bottom = plots.layer_costs(profile, macs_limit=5e6, params_limit=2e5).axes
    assert (top.get_ylim(), bottom.get_ylim()) == ((0, 5), (0, 200))


def test_a_deep_network_has_no_more_names_than_fit():
    profile = cost.profile(models.resnet152(), (224, 224, 3))
    _, bottom = plots.layer_costs(profile).axes
    assert 20 <= len(bottom.get_xticks()) <= 40 and len(bottom.patches) > 150


SERIES = [
    ("MobileNetV2", [("a", 60.0, 2e6, 1e8), ("", 70.0, 2e6, 3e8)]),
    ("quoted", [("no multiply-adds", 75.0, 5e8, None), ("both", 60.1, 2.1e6, 1.02e8)]),
]


def test_accuracy_over_both_costs():
    left, right = plots.accuracy_over_cost(SERIES, title="t").axes
    (v2, quoted), (v2_right, quoted_right) = left.get_lines(), right.get_lines()
    assert (list(v2.get_xdata()), list(v2.get_ydata())) == ([0.1, 0.3], [60, 70])
    assert list(v2_right.get_xdata()) == [2, 2]
    assert list(quoted.get_xdata()) == [pytest.approx(0.102)] and list(quoted_right.get_xdata()) == [500, 2.1]
    assert v2.get_linestyle() == "-" and quoted.get_linestyle() == "None"
    assert (left.get_xscale(), right.get_xscale()) == ("log", "log")
    assert left.get_xlabel() == "multiply-adds (billions)" and right.get_xlabel() == "parameters (millions)"
    assert sorted(text.get_text() for text in left.texts) == ["a", "both"]


def test_a_pareto_front_is_a_staircase_that_goes_on_to_the_dearest_network():
    lines_of = {"MobileNetV2": [[(2.0, 60.0), (1.0, 50.0)], [(4.0, 55.0)]], "MobileNetV1": [[(3.0, 40.0)]]}
    fronts = {"here": [(2.0, 60.0), (1.0, 50.0)], "there": [(1.0, 50.0)]}
    figure = plots.pareto_fronts({"here": lines_of, "there": lines_of}, fronts, title="fronts")
    here, there = figure.axes
    assert figure.get_suptitle() == "fronts"
    front, joined, alone, v1 = here.get_lines()
    assert (list(front.get_xdata()), list(front.get_ydata())) == ([1, 2, 4], [50, 60, 60])
    assert front.get_drawstyle() == "steps-post"
    assert (list(joined.get_xdata()), list(joined.get_ydata())) == ([1, 2], [50, 60])
    assert joined.get_color() == alone.get_color() != v1.get_color() and joined.get_marker() != v1.get_marker()
    assert [text.get_text() for text in here.get_legend().get_texts()] == ["front", "MobileNetV2", "MobileNetV1"]
    assert list(there.get_lines()[0].get_ydata()) == [50, 50] and there.get_title() == "there"
    assert here.get_xscale() == "log" and "millions" in here.get_xlabel() and "%" in here.get_ylabel()


def test_labels_cover_neither_each_other_nor_markers():
    points = [(f"network {k}", 60 + 0.3 * k, 2e6, 1e8 * (1 + 0.02 * k)) for k in range(5)]
    points.append(("far", 70.0, 2e6, 3e8))
    for ax in plots.accuracy_over_cost([("quoted", points)]).axes:
        ax.figure.draw_without_rendering()
        boxes = [text.get_window_extent() for text in ax.texts]
        assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
        places = ax.transData.transform(np.column_stack([line.get_data() for line in ax.get_lines()]).T)
        assert not any(box.contains(*place) for box in boxes for place in places)
