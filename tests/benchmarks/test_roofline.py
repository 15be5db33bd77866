"""The roofline benchmark: what is counted, sums and shares of the roof, the figure, and the measuring itself, small."""

import json

import numpy as np
import pytest
from matplotlib.colors import to_hex

from npnets import parallel, plots, profiling
from npnets.benchmarks import harness, measure, networks, roofline
from npnets.benchmarks.roofline import Point, Roofs
from npnets.models import build
from npnets.profiling import BLOCK, Pass, Row, StepProfile
from tests.benchmarks.test_shares import TINY

ROOFS = Roofs(gemm=100e9, l2=80e9, memory=20e9)


def step_profile(rows):
    return StepProfile((2, 4, 4, 8), rows, 0.01, 0.01, 0.01, 1, 5)


LAYERS = step_profile(
    [
        Row("b.expand", "pointwise", (4, 4, 8), 64, Pass(0.001, 1000, 500), Pass(0.002, 2000, 800)),
        Row("b.expand_bn", "batch norm", (4, 4, 8), 16, Pass(0.003, 0, 600), Pass(0.004, 0, 900)),
        Row("b", "residual sum", (4, 4, 8), 0, Pass(0.001, 0, 300), Pass(0.001, 0, 300)),
        Row("bb.conv", "conv", (4, 4, 8), 10, Pass(0.001, 50, 100), Pass(0.001, 100, 100)),
        Row("pool", "pooling", (8,), 0, Pass(0.001, 0, 300), Pass(0.001, 0, 300)),
        Row("update", "update", (), 0, other=0.003),
    ]
)
WHOLE = step_profile([Row("b", BLOCK, (4, 4, 8), 80, Pass(0.002, 1000, 400), Pass(0.003, 2000, 700))])


def test_flop_are_two_a_multiply_add_and_batch_norms_are_counted():
    found = {(point.name, point.way): point for point in roofline.points(LAYERS)}
    numbers = 2 * 4 * 4 * 8
    assert found["b.expand", "forward"].flop == 2000 and found["b.expand", "backward"].flop == 4000
    assert found["b.expand_bn", "forward"].flop == 6 * numbers
    assert found["b.expand_bn", "backward"].flop == 8 * numbers
    assert found["b", "forward"].flop == found["b", "backward"].flop == numbers
    assert {name for name, _ in found} == {"b.expand", "b.expand_bn", "b", "bb.conv"}  # the others do no arithmetic


def test_a_block_has_the_flop_of_its_layers_alone():
    forward, backward = roofline.block_points(WHOLE, roofline.points(LAYERS))
    assert forward == Point("b", BLOCK, "forward", 2000 + 7 * 256, 400, 0.002)
    assert backward.flop == 4000 + 9 * 256


def test_rates_and_the_share_of_the_roof():
    bound_by_memory = Point("", "", "", flop=100, bytes=50, seconds=1e-8)
    assert (bound_by_memory.intensity, bound_by_memory.flop_rate, bound_by_memory.byte_rate) == (2, 1e10, 5e9)
    assert bound_by_memory.of_roof(ROOFS) == pytest.approx(0.25)  # of 2 x 20 GFLOP/s
    bound_by_arithmetic = bound_by_memory._replace(bytes=1)
    assert bound_by_arithmetic.of_roof(ROOFS) == pytest.approx(0.1)


def test_a_kind_is_the_sum_of_its_layers_and_the_slowest_comes_first():
    points = [
        Point("a", "pointwise", "forward", 10, 1, 0.001),
        Point("c", "batch norm", "forward", 5, 5, 0.009),
        Point("b", "pointwise", "forward", 30, 2, 0.002),
        Point("b", "pointwise", "backward", 40, 4, 0.004),
    ]
    assert roofline.by_kind(points) == [
        Point("batch norm", "batch norm", "forward", 5, 5, 0.009),
        Point("pointwise", "pointwise", "forward", 40, 3, 0.003),
        Point("pointwise", "pointwise", "backward", 40, 4, 0.004),
    ]


@pytest.fixture
def section(monkeypatch):
    """A run whose processes are replaced: the second round has the better roofs and is slower."""
    rounds = iter([ROOFS, Roofs(90e9, 90e9, 30e9)])

    def run_worker(library, job):
        assert library.command[-1] == "npnets.benchmarks.roofline"
        result = {"roofs": next(rounds), "layers": LAYERS.to_json(), "whole": WHOLE.to_json()}
        return json.loads(json.dumps(result))

    monkeypatch.setattr(measure, "run_worker", run_worker)
    return roofline.roofline(measure.Setup(rounds=2, threads=(2,)), TINY)


def test_the_best_of_all_rounds_is_the_roof(section):
    (measured,) = section.comparisons
    assert measured.roofs == Roofs(100e9, 90e9, 30e9)
    roofs, kinds = section.tables
    assert roofs.rows == (("2 threads", "100", "90.0", "30.0"),)
    assert kinds.rows[0][:2] == ("batch norm, forward", "2")
    assert (f"{BLOCK}, forward", "2") in [row[:2] for row in kinds.rows]


def test_the_figure_has_a_marker_for_each_point_and_the_roofs(section):
    records = json.loads(json.dumps(section.record()))
    (figure,) = roofline.figures(records).values()
    (ax,) = figure.axes
    points = section.comparisons[0].points
    marks = [line for line in ax.get_lines() if line.get_linestyle() == "None"]
    assert [line.get_xdata()[0] for line in marks] == pytest.approx([point.intensity for point in points])
    assert [line.get_ydata()[0] for line in marks] == pytest.approx([point.flop_rate / 1e9 for point in points])
    for line, point in zip(marks, points):
        assert to_hex(line.get_color()).upper() == plots.KINDS[point.kind][0]
        assert (line.get_markerfacecolor() == "none") == (point.way == "backward")
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert {text.get_text() for text in ax.texts} == {
        "matrix product 100 GFLOP/s", "copy in L2 90 GB/s", "copy in memory 30 GB/s",
    }  # fmt: skip
    slopes = [line for line in ax.get_lines() if len(line.get_xdata()) == 2 and line.get_xdata()[0] < 0.2]
    for line, rate in zip(slopes, (90, 30)):
        assert np.divide(line.get_ydata(), line.get_xdata()) == pytest.approx([rate, rate])
        assert line.get_ydata()[1] == pytest.approx(100)  # where the roof begins
    assert plots.png(figure)


def test_roofs_are_measured_with_npnets_threads_and_real_numbers(monkeypatch):
    calls = []
    real = parallel.run
    monkeypatch.setattr(parallel, "run", lambda work, pieces: (calls.append(len(pieces)), real(work, pieces))[1])
    monkeypatch.setattr(roofline, "cache_sizes", lambda: {1: 2**10, 2: 2**14})
    roofs = roofline.measure_roofs(2, sizes=(8,), repeats=1, memory_bytes=2**16)
    assert set(calls) == {2}
    assert all(0 < rate < float("inf") for rate in roofs)


def test_the_copy_copies(monkeypatch):
    pairs = []
    monkeypatch.setattr(roofline, "_best", lambda work, pieces, repeats: (pairs.extend(pieces), 1.0)[1])
    assert roofline._copy_rate(3, 400, 1) == 2 * 400 * (2**26 // 400) * 3
    for x, y in pairs:
        assert x.shape == y.shape == (2**26 // 400, 100) and not np.shares_memory(x, y)
        np.multiply(x[:2], np.float32(1), out=y[:2])
        assert (y[-1] == 1).all()  # every row is the same memory


def test_the_process_prints_one_line_of_json(monkeypatch, capsys):
    from dataclasses import asdict

    job = {"network": asdict(TINY), "threads": 1, "steps": 1, "warmup": 0}
    monkeypatch.setattr(harness, "read_job", lambda: json.loads(json.dumps(job)))
    monkeypatch.setattr(roofline, "measure_roofs", lambda threads: ROOFS)
    roofline.main()
    result = json.loads(capsys.readouterr().out)
    assert Roofs(*result["roofs"]) == ROOFS
    kinds = {name: {row["kind"] for row in result[name]["rows"]} for name in ("layers", "whole")}
    assert BLOCK in kinds["whole"] and BLOCK not in kinds["layers"] and "depthwise" in kinds["layers"]


def test_caches_are_read_or_assumed():
    sizes = roofline.cache_sizes()
    assert {2, 3} <= set(sizes) and all(size >= 2**10 for size in sizes.values())


def test_the_network_is_the_one_of_the_goals():
    assert roofline.NETWORK is networks.NETWORKS[1] and roofline.NETWORK.settings["width_mult"] == 0.5
    found = profiling.profile_step(build("mobilenet_v2_small"), (2, 28, 28, 3), repeats=1, warmup=0, threads=1)
    kinds = {point.kind for point in roofline.points(found)}
    assert kinds == {"conv", "depthwise", "pointwise", "batch norm", "residual sum", "linear"}
