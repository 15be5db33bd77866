"""The shares benchmark: turns, medians, the table and the figure, and a real process with a tiny network."""

import json
from dataclasses import replace

import pytest

from npnets import cost, profiling
from npnets.benchmarks import measure, networks, report, shares
from npnets.profiling import Pass, Row, StepProfile

TINY = networks.Network(
    "tiny",
    "mobilenet_v2",
    {"table": [(1, 8, 1, 1), (2, 8, 1, 1)], "stem": 8, "stem_stride": 1, "head": 16},
    image=(6, 6, 3),
    batch=4,
)


def step_profile(pointwise=0.006, update=0.002, step=0.008, threads=1):
    rows = [
        Row("a", "pointwise", (4,), 90, Pass(pointwise, 900, 10), Pass(pointwise, 1800, 20)),
        Row("b", "depthwise", (4,), 10, Pass(0.001, 100, 10), Pass(0.001, 200, 20)),
        Row("update", "update", (), 0, other=update),
    ]
    return StepProfile((2, 4, 4, 3), rows, step, 2 * step, 2.2 * step, threads, 5)


@pytest.fixture
def canned(monkeypatch):
    """Replace the processes; ``jobs`` lists what they were given, and pointwise takes a ms longer each time."""
    jobs = []

    def run_worker(library, job):
        jobs.append((library.command[-1], job["network"]["name"], job["threads"], job["steps"], job["warmup"]))
        return step_profile(pointwise=0.001 * len(jobs), threads=job["threads"]).to_json()

    monkeypatch.setattr(measure, "run_worker", run_worker)
    return jobs


def test_networks_and_threads_take_turns_and_rounds_and_steps_are_few(canned):
    setup = measure.Setup(rounds=7, steps=20, warmup=1, threads=(1, 2))
    section = shares.shares(setup, [TINY, replace(TINY, name="other")])
    turn = [("npnets.benchmarks.shares", name, n, 5, 1) for name in ("tiny", "other") for n in (1, 2)]
    assert canned == 3 * turn
    assert section.method == {"rounds": 3, "steps": 5, "warmup": 1, "threads": [1, 2]}


def test_times_are_medians_over_the_rounds(canned):
    section = shares.shares(measure.Setup(rounds=3, threads=(1,)), [TINY])
    (measured,) = section.comparisons
    assert measured.profile.rows[0].forward == Pass(0.002, 900, 10)  # of 1, 2 and 3 ms
    one, two, nine = (step_profile(update=seconds, step=10 * seconds) for seconds in (0.001, 0.002, 0.009))
    middle = shares.median([nine, one, two])
    assert (middle.rows[-1].other, middle.step_seconds, middle.apart_seconds) == (0.002, 0.02, 0.04)
    assert middle.repeats == 15


def test_the_table_has_shares_and_both_times_of_the_step():
    measured = [shares.Profiled("net", n, (step_profile(pointwise=0.003 * n),)) for n in (1, 2)]
    table = shares._table(measured)
    assert table.title == "net, batch 2"
    assert table.columns == ("", "time, 1 thread", "time, 2 threads", "multiply-adds", "parameters")
    assert table.rows == (
        ("pointwise", "60.0%", "75.0%", "90.00%", "90.00%"),
        ("depthwise", "20.0%", "12.5%", "10.00%", "10.00%"),
        ("update", "20.0%", "12.5%", "", ""),
        ("the step, layer by layer", "16.0 ms", "16.0 ms", "", ""),
        ("the step as it is", "8.00 ms", "8.00 ms", "", ""),
    )


def test_the_figure_is_drawn_from_the_record(canned):
    section = shares.shares(measure.Setup(rounds=1, threads=(1, 2)), [TINY])
    (figure,) = shares.figures(json.loads(json.dumps(section.record()))).values()
    (ax,) = figure.axes
    assert [label.get_text() for label in ax.get_yticklabels()] == [
        "time, 1 thread", "time, 2 threads", "multiply-adds", "parameters",
    ]  # fmt: skip
    assert ax.get_title(loc="left") == "tiny, batch 2"
    assert isinstance(section, report.Section) and "layer by layer" in section.markdown()


def test_a_process_profiles_the_network_it_is_told():
    section = shares.shares(measure.Setup(rounds=1, steps=1, warmup=0, threads=(1,)), [TINY])
    (measured,) = section.comparisons
    expected = cost.profile(networks.build(TINY), TINY.image)
    assert sum(row.forward.macs for row in measured.profile.rows) == 4 * expected.macs
    assert {row.name for row in expected.rows} <= {row.name for row in measured.profile.rows}
    assert (measured.profile.threads, measured.profile.repeats, measured.profile.input_shape) == (1, 1, (4, 6, 6, 3))


def test_the_networks_of_the_papers_are_whole():
    for network, macs in zip(shares.PAPER_NETWORKS, (568_740_352, 300_774_272)):
        assert cost.profile(networks.build(network), network.image).macs == macs


def test_every_kind_of_the_library_is_drawn_under_a_name():
    """A kind that plots.py does not know is drawn as "other": the ones that matter must be known."""
    from npnets import plots

    layers = {"pointwise", "depthwise", "batch norm", "conv", "linear"}
    assert layers | {"residual sum", "update", profiling.BLOCK} < set(plots.KINDS)
