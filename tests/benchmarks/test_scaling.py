"""Scaling: the lines that are fitted, the cases that are chosen, the figure, and a real run of npnets alone."""

import importlib.util
import json

import numpy as np
import pytest

from npnets.benchmarks import figures, harness, measure, networks, scaling
from npnets.cost import profile

TINY = {"batches": (1, 2, 4), "widths": (0.25, 0.5), "resolutions": (8, 32), "batch": 4}
PEER = measure.Peer("/a/python", "0.0")


@pytest.fixture
def law(monkeypatch):
    """Replace the processes: a step takes 4 ms and 1 ms for each million multiply-adds, in PyTorch twice that."""
    jobs = []

    def run_worker(library, job):
        jobs.append((library.label, job))
        if job["task"] == "write":
            return {}
        if job["task"] == "compare":
            return {"differences": {"float32.logits": 1e-6, "float64.logits": 1e-12}}
        factor = 1 if library.label == "npnets" else 2
        times = {}
        for entry in job["networks"]:
            network = networks.Network(**entry["network"])
            macs = profile(networks.build(network), network.image).macs
            for N in entry["batches"]:
                times[f"{network.name}, batch {N}"] = [factor * (4e-3 + 1e-9 * N * macs)] * job["steps"]
        return {"times": times, "memory": {"imported": 1_000_000, "peak": 5_000_000}, "versions": {}}

    monkeypatch.setattr(measure, "run_worker", run_worker)
    run_worker.jobs = jobs
    return run_worker


def measured(threads=(1, 2), **sizes):
    setup = measure.Setup(rounds=5, steps=10, threads=threads, torch=PEER)
    return scaling.scaling(setup, **(sizes or TINY))


def test_each_thing_grows_alone(law):
    (comparison,) = measured(threads=(1,)).comparisons
    assert set(comparison.facts) == set(comparison.cases)
    grown = [(fact["width"], fact["resolution"], fact["batch"]) for fact in comparison.facts.values()]
    assert sorted(grown) == [(0.25, 32, 4), (0.5, 8, 4), (0.5, 32, 1), (0.5, 32, 2), (0.5, 32, 4)]


def test_by_default_the_issue_is_covered(law):
    (comparison,) = measured(threads=(1,), batch=64).comparisons
    assert scaling.line(comparison, "npnets", "batch").names == [1, 2, 4, 8, 16, 32, 64, 128, 256]
    assert scaling.line(comparison, "npnets", "width").names == [0.25, 0.5, 0.75, 1.0]
    assert scaling.line(comparison, "npnets", "resolution").names == [16, 24, 32, 48, 64]


def test_multiply_adds_are_those_of_all_images_of_the_step(law):
    (comparison,) = measured(threads=(1,)).comparisons
    half = networks.NETWORKS[1]
    assert comparison.facts["width 0.5, 32x32, batch 4"]["macs"] == 4 * profile(networks.build(half), half.image).macs


def test_the_check_is_made_with_four_images_and_the_rounds_are_few(law):
    measured(threads=(2,))
    checked = [job for _, job in law.jobs if job["task"] in ("write", "compare")]
    timed = [job for _, job in law.jobs if job["task"] == "time"]
    assert all(entry["network"]["batch"] == 4 for job in checked for entry in job["networks"])
    assert len(timed) == 3 * 2 and {(job["steps"], job["warmup"]) for job in timed} == {(2, 1)}


def test_a_line_knows_its_reference_and_is_in_order(law):
    (comparison,) = measured(threads=(1,)).comparisons
    line = scaling.line(comparison, "npnets", "width")
    assert line.names == [0.25, 0.5] and line.reference == 1
    np.testing.assert_allclose(line.seconds, 4e-3 + 1e-9 * line.macs)
    assert (line.images == 4).all()


def test_a_straight_line_is_recovered_and_a_deviation_found():
    x = np.array([1.0, 2, 4, 8, 16])
    fixed, each, deviation = scaling.straight(x, 5 + 3 * x)
    assert (fixed, each) == pytest.approx((5, 3)) and deviation < 1e-9
    bent = 3 * x
    bent[-1] *= 1.5
    assert scaling.straight(x, bent)[2] > 0.1


def test_a_fixed_cost_is_never_negative():
    x = np.array([1.0, 2, 4, 8])
    fixed, each, deviation = scaling.straight(x, x**1.2)
    assert fixed == 0
    np.testing.assert_allclose(each, (x**-0.2).sum() / (x**-0.4).sum())  # least squares of each * x / seconds - 1
    assert deviation > 0.05


def test_a_power_is_recovered():
    x = np.array([1.0, 3, 10, 40])
    slope, deviation = scaling.power(x, 7 * x**0.8)
    assert slope == pytest.approx(0.8) and deviation < 1e-9


def test_the_tables_say_how_far_from_linear_it_is(law):
    batch, growth, fits, memory = measured(threads=(1,)).tables
    macs = profile(networks.build(networks.NETWORKS[1]), (32, 32, 3)).macs
    one, four = 4e-3 + 1e-9 * macs, 4e-3 / 4 + 1e-9 * macs
    assert batch.rows[0][:4] == ("batch 1", "1", f"{1e3 * one:.2f}", f"{one / four:.2f}")
    assert batch.rows[2][3] == "1.00"
    assert [row[0].split(":")[0] for row in growth.rows] == ["width 0.25", "width 0.5", "resolution 8", "resolution 32"]
    assert growth.rows[1][3] == growth.rows[3][3] == "1.00" and float(growth.rows[0][3]) > 1
    assert fits.rows[0][2:4] == (f"4.0 + {1e-6 * macs:.2f} N", "0%")
    assert fits.rows[0][4] == f"8.0 + {2e-6 * macs:.2f} N"  # PyTorch
    assert len(memory.rows) == 1
    for table in (batch, growth, fits, memory):
        assert {len(row) for row in table.rows} == {len(table.columns)}


def test_the_figure_has_a_panel_for_each_thing_and_thread_count_and_names_the_lines(law):
    section = measured()
    drawn = figures.scaling(json.loads(json.dumps(section.record())))
    (figure,) = drawn.values()
    assert list(drawn) == ["scaling.png"] and len(figure.axes) == 6
    for ax in figure.axes:
        assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
        assert len(ax.lines) == 4  # three libraries, and linear growth
        texts = {text.get_text(): text.get_color() for text in ax.texts}
        assert texts["npnets"] == figures.COLOURS["npnets"]
        assert set(texts) == {"npnets", "PyTorch", "channels_last", "linear"}
    ideal = figure.axes[0].lines[1]
    ratio = ideal.get_ydata() / ideal.get_xdata()
    np.testing.assert_allclose(ratio, ratio[0])
    npnets_line = figure.axes[0].lines[0]
    assert npnets_line.get_ydata()[-1] == pytest.approx(ideal.get_ydata()[-1])  # they meet at the usual batch


def test_names_at_the_ends_of_lines_do_not_overlap_and_keep_their_order():
    heights = [50.0, 10.0, 51.0, 49.0]
    placed = figures._spread(heights, 10)
    assert np.argsort(placed).tolist() == np.argsort(heights).tolist()
    assert np.diff(sorted(placed)).min() >= 10 - 1e-9
    assert placed[1] == 10 and np.mean([placed[k] for k in (0, 2, 3)]) == pytest.approx(50)


def test_a_fast_case_gets_more_steps():
    clock = iter(range(100))
    assert len(harness.seconds(lambda: next(clock), 0, 2)) == 2
    long = harness.seconds(lambda: None, 0, 2, least=0.01)
    assert len(long) > 2 and sum(long) >= 0.01


def test_npnets_alone_is_measured_for_real():
    setup = measure.Setup(rounds=1, steps=1, warmup=0, threads=(2,))
    section = scaling.scaling(setup, batches=(1, 2), widths=(0.25, 0.5), resolutions=(8, 32), batch=2)
    (comparison,) = section.comparisons
    assert len(comparison.cases) == 4 and all(
        comparison.seconds("npnets", case).median > 0 for case in comparison.cases
    )
    assert comparison.differences == {}


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")
def test_pytorch_scales_the_same_networks():
    setup = measure.Setup(rounds=1, steps=1, warmup=0, threads=(2,), torch=measure.find_torch())
    (comparison,) = scaling.scaling(setup, **TINY).comparisons
    assert len(comparison.labels) == 3 and comparison.differences["float64"] < measure.TOLERANCES["float64"]
