"""The benchmarks: what they make of measurements, what they refuse to measure, and real runs of npnets alone."""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from npnets import benchmarks
from npnets.benchmarks import harness, machine, measure, networks, report, suite
from npnets.cost import profile
from npnets.models import build

TINY = networks.Network(
    "tiny",
    "mobilenet_v2",
    {"table": [(1, 8, 1, 1), (2, 8, 1, 1), (2, 16, 1, 2)], "stem": 8, "stem_stride": 1, "head": 16},
    image=(6, 6, 3),
    batch=4,
)
ONCE = measure.Setup(rounds=1, steps=1, warmup=0, threads=(2,))
PEER = measure.Peer(sys.executable, "0.0")  # for tests in which no process is started


def options(*arguments):
    parser = argparse.ArgumentParser()
    benchmarks.add_arguments(parser)
    return parser.parse_args(arguments)


@pytest.fixture
def canned(monkeypatch):
    """Replace the processes: each library gets its times from a list; the jobs are written down in order."""
    jobs = []
    times = {
        "npnets": iter([[0.010, 0.012], [0.014, 0.090], [0.011, 0.013]]),
        "PyTorch": iter([[0.020, 0.024], [0.021, 0.025], [0.022, 0.023]]),
        "PyTorch channels_last": iter([[0.008, 0.008], [0.008, 0.009], [0.009, 0.007]]),
    }

    def run_worker(library, job):
        jobs.append((library.label, job["task"]))
        if job["task"] == "write":
            return {}
        if job["task"] == "compare":
            return {"differences": {"float32.logits": 1e-5, "float64.logits": run_worker.error}}
        peak = 300_000_000 if library.label == "npnets" else 400_000_000
        memory = {"imported": 100_000_000, "peak": peak}
        return {"times": {"a case": next(times[library.label])}, "memory": memory, "versions": {}}

    run_worker.error, run_worker.jobs = 1e-12, jobs
    monkeypatch.setattr(measure, "run_worker", run_worker)
    return run_worker


# --- What is computed from measurements ------------------------------------------------------------------------------


def compared(rounds=3):
    setup = measure.Setup(rounds=rounds, steps=2, warmup=0, threads=(2,), torch=PEER)
    (comparison,) = measure.compare(setup, {"benchmark": "train_step"})
    return comparison


def test_the_check_comes_first_and_then_the_processes_take_turns(canned):
    compared(rounds=2)
    turn = [("npnets", "time"), ("PyTorch", "time"), ("PyTorch channels_last", "time")]
    check = [("npnets", "write"), ("PyTorch", "compare"), ("PyTorch channels_last", "compare")]
    assert canned.jobs == check + turn + turn


def test_the_median_is_over_all_steps_of_all_rounds_and_the_ratio_over_medians(canned):
    comparison = compared()
    assert comparison.seconds("npnets", "a case").median == pytest.approx(0.0125)  # of six, one of them an outlier
    assert comparison.seconds("PyTorch", "a case").median == pytest.approx(0.0225)
    assert comparison.ratio("PyTorch", "a case") == pytest.approx(0.0125 / 0.0225)
    assert comparison.ratio("npnets", "a case") == 1
    assert comparison.seconds("PyTorch", "a case") == pytest.approx((0.02125, 0.0225, 0.02375))


def test_a_comparison_can_be_read_back_from_its_record(canned):
    comparison = compared()
    again = measure.Comparison.from_record(json.loads(json.dumps(comparison.record())))
    assert again == comparison and again.ratio("PyTorch", "a case") == comparison.ratio("PyTorch", "a case")


def test_chainer_joins_where_it_is_asked_for_and_gets_fewer_steps(canned, monkeypatch):
    jobs = []
    usual = measure.run_worker

    def run_worker(library, job):
        jobs.append((library.label, job["task"], job.get("steps"), job.get("warmup")))
        if library.label == "Chainer" and job["task"] == "time":
            return {"times": {"a case": [1.0, 1.0]}, "memory": {"imported": 1, "peak": 2}, "versions": {}}
        return usual(library, job)

    monkeypatch.setattr(measure, "run_worker", run_worker)
    setup = measure.Setup(rounds=3, steps=10, warmup=3, threads=(2,), chainer=PEER)
    assert [library.label for library in setup.libraries()] == ["npnets"]
    (comparison,) = measure.compare(setup, {"benchmark": "train_step"}, libraries=setup.libraries(chainer=True))
    own, slow = ("npnets", "time", 10, 3), ("Chainer", "time", 2, 1)
    assert jobs == [("npnets", "write", None, None), ("Chainer", "compare", None, None), own, slow, own, slow, own]
    assert comparison.seconds("Chainer", "a case").median == 1.0


def test_a_library_never_gets_more_steps_than_were_asked_for():
    slow = measure.Setup(rounds=1, steps=1, warmup=0, chainer=PEER).libraries(chainer=True)[-1]
    assert slow.share(measure.Setup(rounds=1, steps=1, warmup=0)) == {"rounds": 1, "steps": 1, "warmup": 0}


def test_weights_go_to_the_other_index_order_and_back():
    for shape, there in {(3, 5, 4, 7): (7, 4, 3, 5), (3, 5, 7): (7, 1, 3, 5), (4, 7): (7, 4), (7,): (7,)}.items():
        w = np.random.default_rng(0).standard_normal(shape)
        moved = harness.to_channels_first(w, there)
        assert moved.shape == there and moved.flags.c_contiguous
        np.testing.assert_array_equal(harness.from_channels_first(moved, shape), w)
    pointwise = np.arange(28.0).reshape(4, 7)
    assert harness.to_channels_first(pointwise, (7, 4, 1, 1))[6, 3, 0, 0] == pointwise[3, 6]


def test_memory_is_the_peak_and_what_came_after_the_imports(canned):
    assert compared().memory("npnets") == (300_000_000, 200_000_000)


def test_nothing_is_timed_when_the_libraries_do_not_agree(canned):
    canned.error = 1e-3  # enough for float32, far too much for float64
    with pytest.raises(ValueError, match=r"PyTorch does not compute what npnets does.*float64\.logits.*1\.0e-03"):
        compared()
    assert all(task != "time" for _, task in canned.jobs)


def test_a_difference_is_relative_to_the_largest_number_and_never_nan():
    b = np.array([1.0, -200.0])
    assert harness.difference(b + [0.1, 0.0], b) == pytest.approx(0.1 / 200)
    assert harness.difference(b * np.nan, b) == np.inf
    assert harness.difference(np.full(2, 1e-15), np.zeros(2)) < 1e-8  # rounding where the truth is zero
    with pytest.raises(ValueError, match="shapes"):
        harness.difference(b[:1], b)


def test_the_tables_show_medians_quartiles_and_ratios(canned):
    comparison = compared()
    assert report.time_table([comparison]).text().splitlines() == [
        "Time in ms: median [quartiles]; ratio: npnets over the library to its left",
        "        threads             npnets            PyTorch  ratio  PyTorch channels_last  ratio",
        "------  -------  -----------------  -----------------  -----  ---------------------  -----",
        "a case        2  12.5 [11.2, 13.8]  22.5 [21.2, 23.8]   0.56      8.00 [8.00, 8.75]   1.56",
    ]
    assert report.memory_table([comparison]).markdown().splitlines()[-1] == (
        "| a case | 2 | 300 [200] | 400 [300] | 0.75 | 400 [300] | 0.75 |"
    )


def test_the_memory_table_is_left_out_where_the_system_does_not_tell(canned):
    comparison = compared(rounds=1)
    comparison.results["PyTorch"][0]["memory"]["peak"] = None
    assert report.memory_table([comparison]) is None


def test_the_markdown_of_a_section_has_as_many_cells_in_each_line(canned):
    section = report.Section("Title", (), (report.time_table([compared()]),), ("A remark.",))
    lines = section.markdown().splitlines()
    assert lines[0] == "## Title" and lines[-1] == "A remark."
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1


def test_the_record_holds_every_time_and_is_json(canned):
    record = json.loads(json.dumps(compared().record()))
    assert [result["times"]["a case"] for result in record["rounds"]["npnets"]][1] == [0.014, 0.090]
    assert record["summary"]["a case"]["PyTorch"]["npnets_ratio"] == pytest.approx(0.0125 / 0.0225)
    assert record["differences"]["float64"] == 1e-12


# --- What is measured ------------------------------------------------------------------------------------------------


def test_every_benchmark_has_a_name_and_a_workload():
    from npnets.benchmarks import worker

    assert list(benchmarks.NAMES) == list(suite.BENCHMARKS)
    assert set(worker.WORKLOADS) <= set(benchmarks.NAMES)


def test_the_networks_are_those_of_the_benchmark():
    small, half = networks.NETWORKS
    assert small.batch == half.batch == 64
    own = build("mobilenet_v2_small", in_channels=1)
    assert profile(networks.build(small), small.image).macs == profile(own, (28, 28, 1)).macs
    assert profile(networks.build(half), half.image).params == 590_410  # summed by hand from the table
    assert [block["C_out"] for block in networks.plan(half)["blocks"]] == (
        [8] + [16] * 2 + [16] * 3 + [32] * 4 + [48] * 3 + [80] * 3 + [160]
    )


def test_the_plan_describes_the_model():
    plan = networks.plan(TINY)
    assert plan["stem"] == {"C_in": 3, "C_out": 8, "stride": (1, 1)}
    assert plan["blocks"] == [
        {"C_in": 8, "expanded": 8, "C_out": 8, "stride": (1, 1)},
        {"C_in": 8, "expanded": 16, "C_out": 8, "stride": (1, 1)},
        {"C_in": 8, "expanded": 16, "C_out": 16, "stride": (2, 2)},
    ]


def test_the_depthwise_shapes_are_all_that_the_network_has():
    assert networks.depthwise_shapes(networks.NETWORKS[1]) == [
        (32, 32, 16, 1),
        (32, 32, 48, 1),
        (32, 32, 96, 1),
        (32, 32, 96, 2),
        (16, 16, 96, 1),
        (16, 16, 96, 2),
        (8, 8, 192, 1),
        (8, 8, 288, 1),
        (8, 8, 288, 2),
        (4, 4, 480, 1),
    ]


def test_no_parameter_of_the_measured_network_is_constant():
    """A peer that left out a shift, or mixed two arrays of ones up, must not pass the check."""
    for parameter in networks.build(TINY).parameters():
        assert np.unique(parameter.value).size == parameter.size, parameter.name


def test_a_worker_is_not_given_the_thread_limits_of_its_parent(monkeypatch):
    for name in measure.THREAD_VARIABLES:
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    own, other = measure._environment(sys.executable), measure._environment("/other/python")
    assert not set(measure.THREAD_VARIABLES) & (set(own) | set(other))
    assert own["PYTHONPATH"].split(os.pathsep)[-1] == "/elsewhere" and "PYTHONPATH" not in other


def test_warm_up_steps_do_not_count():
    calls = []
    assert len(harness.seconds(lambda: calls.append(1), warmup=3, steps=2)) == 2
    assert len(calls) == 5


def test_a_process_does_not_report_the_memory_of_the_one_that_started_it():
    ballast = np.ones(40_000_000)  # 320 MB
    program = "import sys; sys.path.insert(0, sys.argv[1]); import harness; print(harness.peak_memory())"
    folder = str(Path(harness.__file__).parent)
    finished = subprocess.run([sys.executable, "-c", program, folder], capture_output=True, text=True, check=True)
    if not Path("/proc/self/status").exists():
        pytest.skip("only Linux tells it")
    assert 1_000_000 < int(finished.stdout) < ballast.nbytes


# --- Whole runs ------------------------------------------------------------------------------------------------------


@pytest.fixture
def tiny_suite(monkeypatch):
    """Measure a tiny network instead of the real ones, without PyTorch even where it is installed."""
    monkeypatch.setitem(suite.BENCHMARKS, "train_step", lambda setup: suite.train_step(setup, [TINY]))
    monkeypatch.setattr(measure.importlib.util, "find_spec", lambda name: None)


def test_npnets_alone_is_timed_in_a_process_and_recorded(tiny_suite, tmp_path, capsys):
    out = tmp_path / "times.json"
    arguments = ["train_step", "--rounds", "2", "--steps", "1", "--warmup", "0", "--threads", "1", "--json", str(out)]
    assert benchmarks.main(options(*arguments)) == 0
    printed = capsys.readouterr().out
    assert "Training step" in printed and "tiny" in printed and "ratio" not in printed
    assert printed.count("pip install -e") == 1 and printed.count("--chainer-python") == 1
    (record,) = json.loads(out.read_text())["benchmarks"]["train_step"]
    assert [len(result["times"]["tiny"]) for result in record["rounds"]["npnets"]] == [1, 1]
    assert [path.name for path in tmp_path.iterdir()] == ["times.json"]


def test_the_depthwise_benchmark_times_both_passes_of_each_shape():
    section = suite.depthwise(ONCE, shapes=[(4, 4, 8, 1), (5, 4, 8, 2)], batch=2)
    (comparison,) = section.comparisons
    assert comparison.cases == [
        f"{shape}, {direction}"
        for shape in ("4x4x8, stride 1", "5x4x8, stride 2")
        for direction in ("forward", "backward")
    ]


def test_inference_is_timed_folded_and_compared_with_the_statistics_that_were_folded():
    from npnets.benchmarks import worker

    job = {"network": asdict(TINY), "dtype": "float64"}
    workload = worker.inference(job)
    outputs = workload.outputs()
    model = networks.build(TINY, "float64")
    model.load_state_dict({name.removeprefix("start."): array for name, array in outputs.items() if "start." in name})
    x, _ = harness.batch(asdict(TINY), "float64")
    assert harness.difference(outputs["logits"], model(x)) < 1e-12
    assert all(np.ptp(array) > 0 for name, array in outputs.items() if "running" in name)
    ((name, step),) = workload.cases()
    assert name == TINY.name and np.array_equal(step(), outputs["logits"])

    (comparison,) = suite.inference(ONCE, [TINY]).comparisons
    assert comparison.cases == [TINY.name]


def test_npnets_agrees_with_itself_and_a_changed_output_is_found(tmp_path):
    (npnets_library,) = ONCE.libraries()
    job = {"benchmark": "train_step", "network": asdict(TINY), "threads": 1, "arrays": str(tmp_path / "arrays.npz")}
    measure.run_worker(npnets_library, job | {"task": "write"})
    differences = measure.run_worker(npnets_library, job | {"task": "compare"})["differences"]
    assert "float64.gradient.blocks.2.depthwise.w" in differences and max(differences.values()) == 0

    with np.load(job["arrays"]) as arrays:
        changed = dict(arrays)
    changed["float32.logits"] = changed["float32.logits"] * 1.01
    np.savez(job["arrays"], **changed)
    differences = measure.run_worker(npnets_library, job | {"task": "compare"})["differences"]
    assert [name for name, error in differences.items() if error] == ["float32.logits"]


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")
def test_pytorch_builds_the_same_network_and_convolution():
    setup = measure.Setup(rounds=1, steps=1, warmup=0, threads=(1,), torch=measure.find_torch())
    for section in (
        suite.train_step(setup, [TINY]),
        suite.inference(setup, [TINY]),
        suite.depthwise(setup, shapes=[(5, 4, 8, 2)], batch=2),
    ):
        (comparison,) = section.comparisons
        assert comparison.differences["float64"] < measure.TOLERANCES["float64"]
        assert len(comparison.labels) == 3


# --- Wrong input -----------------------------------------------------------------------------------------------------


def test_an_unknown_benchmark_is_named_and_a_similar_one_suggested():
    with pytest.raises(ValueError, match="unknown benchmark 'trian_step'; did you mean train_step"):
        benchmarks.main(options("trian_step"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rounds", "0"], "rounds must be at least 1"),
        (["--steps", "0"], "steps must be at least 1"),
        (["--warmup", "-1"], "warmup must be at least 0"),
        (["--threads", "1", "0"], "threads must be at least 1"),
        (["--seeds", "-1"], "seeds must be at least 0"),
    ],
)
def test_numbers_out_of_range_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        benchmarks.main(options(*arguments))


@pytest.mark.parametrize("option", ["--torch-python", "--chainer-python"])
def test_a_missing_python_is_named(option):
    with pytest.raises(ValueError, match=rf"{option} /no/such/python cannot be run"):
        benchmarks.main(options(option, "/no/such/python"))


def test_a_python_without_torch_is_named_with_its_reason(tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho \"ModuleNotFoundError: No module named 'torch'\" >&2\nexit 1\n")
    python.chmod(0o755)
    with pytest.raises(ValueError, match=r"tmp.*cannot import numpy and torch: ModuleNotFoundError.*--torch-python"):
        measure.find_torch(python)
    with pytest.raises(
        ValueError, match=r"tmp.*cannot import numpy and chainer: .*name a Python that can with --chain"
    ):
        measure.find_chainer(python)


@pytest.mark.parametrize("name", ["missing/times.json", "."])
def test_a_file_that_cannot_be_written_is_refused_before_anything_is_measured(canned, tmp_path, name):
    with pytest.raises(ValueError, match=r"--json .* cannot be written"):
        benchmarks.main(options("--json", str(tmp_path / name)))
    assert canned.jobs == []


def test_a_worker_that_fails_ends_in_one_line(tiny_suite, monkeypatch, capsys):
    command = (sys.executable, "-c", "raise SystemExit('no memory left')")
    monkeypatch.setattr(measure.Setup, "libraries", lambda setup, **_: [measure.Library("npnets", command, {})])
    assert benchmarks.main(options("train_step", "--threads", "1")) == 1
    assert capsys.readouterr().err == "npnets: the process of npnets failed (exit code 1): no memory left\n"


def test_the_machine_is_described_and_a_busy_one_is_told():
    about = machine.describe("2.13.0")
    idle, busy = machine.lines(about | {"load": 0.0}), machine.lines(about | {"load": 3.0})
    assert "NumPy " + np.__version__ in idle[1] and "PyTorch 2.13.0" in idle[1]
    assert len(busy) == len(idle) + 1 and "load average is 3.0" in busy[-1]
