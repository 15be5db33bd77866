"""RESULTS.md and what is behind it: the goals, the JSON that is kept, the command line, and what is refused."""

import argparse
import json
import os
import subprocess
import sys

import pytest

from npnets import benchmarks
from npnets.benchmarks import figures, goals, machine, measure, networks, report, results, suite

TORCH = measure.Peer("/somewhere/secret/python", "2.13.0")
SETUP = measure.Setup(rounds=2, threads=(2,), torch=TORCH)
LABELS = ("npnets", goals.PYTORCH, goals.CHANNELS_LAST)


def options(*arguments):
    parser = argparse.ArgumentParser()
    benchmarks.add_arguments(parser)
    return parser.parse_args(arguments)


def comparison(cases, threads=2, *, times=(1.0, 2.0, 4.0), peaks=(100, 200, 400), labels=LABELS, facts=None):
    """Return what libraries would have taken for cases; the times are npnets', PyTorch's, channels_last's."""
    found = {
        label: [{"times": {case: [seconds] * 2 for case in cases}, "memory": {"imported": 1, "peak": peak}}]
        for label, seconds, peak in zip(labels, times, peaks)
    }
    return measure.Comparison(threads, found, {"float32": 1e-6, "float64": 1e-12}, facts or {})


def section(title="A title", comparisons=None, notes=("A remark.",)):
    comparisons = [comparison(["a case"])] if comparisons is None else comparisons
    return report.Section(title, tuple(comparisons), (report.time_table(comparisons),), notes)


def page(name, made=None, setup=SETUP):
    return results.page(name, section() if made is None else made, setup, results.begin(setup))


def growth():
    """Return comparisons that the figure of ``scaling`` can be drawn from."""
    facts = {
        f"{width}, {resolution}, {N}": {"width": width, "resolution": resolution, "batch": N, "macs": 1000 * N * width}
        for width, resolution, N in ((0.5, 32, 1), (0.5, 32, 64), (0.25, 32, 64), (0.5, 16, 64))
    }
    return [comparison(list(facts), facts=facts)]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(machine, "busy_cores", lambda: 0.25)


# --- The goals -------------------------------------------------------------------------------------------------------


def verdicts(**records):
    rows = goals.table({name: [c.record() for c in found] for name, found in records.items()}).rows
    return {(work, label): (measured, verdict) for work, label, _, measured, verdict in rows}


def test_goals_are_looked_up_in_what_is_measured():
    small, half = networks.NETWORKS
    steps = [
        comparison([half.name], 2, times=(0.99, 1.0, 1.0)),
        comparison([half.name], 1, times=(0.74, 1.0, 0.7)),
        comparison([small.name], 2, times=(1.2, 1.0, 1.0), peaks=(150, 100, 200)),
    ]
    found = verdicts(train_step=steps)
    two, one = (goals.STEP.format(words) for words in ("two threads", "one thread"))
    assert found[two, goals.CHANNELS_LAST] == ("0.990", "reached")
    assert found[two, goals.PYTORCH] == ("0.990", "**not reached**")
    assert found[one, goals.PYTORCH] == ("0.740", "reached")
    assert found[one, goals.CHANNELS_LAST] == ("1.057", "**not reached**")
    assert found[goals.SMALL_STEP, goals.CHANNELS_LAST] == ("1.200", "reached")
    assert found[goals.SMALL_STEP, goals.PYTORCH] == ("1.200", "**not reached**")
    memory = "peak memory of the training steps, largest"
    assert found[memory, goals.PYTORCH] == ("1.500", "**not reached**")
    assert found[memory, goals.CHANNELS_LAST] == ("0.750", "reached")
    assert found[two, goals.CHAINER] == found[goals.FOLDED, goals.CHANNELS_LAST] == ("-", "not measured")


@pytest.mark.parametrize(("chainer", "cell"), [(12.5, ("1/12.5", "reached")), (9.5, ("1/9.5", "**not reached**"))])
def test_chainer_is_to_be_ten_times_slower(chainer, cell):
    step = comparison([networks.NETWORKS[1].name], times=(1.0, chainer), labels=("npnets", goals.CHAINER))
    assert verdicts(train_step=[step])[goals.STEP.format("two threads"), goals.CHAINER] == cell


def test_the_depthwise_goals_are_the_median_and_the_worst_of_each_direction():
    cases = {"a, forward": 0.1, "b, forward": 0.2, "c, forward": 0.9, "a, backward": 0.4, "b, backward": 0.6}
    one = comparison(list(cases))
    for label in LABELS:
        times = {case: [seconds if label == "npnets" else 1.0] for case, seconds in cases.items()}
        one.results[label][0]["times"] = times
    found = verdicts(depthwise=[one, comparison(["a, forward"], threads=1, times=(9.0, 1.0, 1.0))])

    def cell(direction, name):
        return found[goals.DEPTHWISE.format(f"{direction}, {name}"), goals.CHANNELS_LAST]

    assert cell("forward", "median of the shapes") == ("0.200", "reached")
    assert cell("forward", "worst shape") == ("0.900", "**not reached**")
    assert cell("backward", "median of the shapes") == ("0.500", "reached")
    assert cell("backward", "worst shape") == ("0.600", "reached")


def test_a_multiple_just_above_its_bound_does_not_look_as_if_it_were_at_it():
    step = comparison([networks.NETWORKS[1].name], times=(1.004, 1.0, 1.0))
    assert verdicts(train_step=[step])[goals.STEP.format("two threads"), goals.CHANNELS_LAST] == (
        "1.004",
        "**not reached**",
    )


def test_every_goal_names_a_benchmark_and_a_network_of_it():
    assert {goal.benchmark for goal in goals.GOALS} <= set(benchmarks.NAMES)
    assert goals.HALF in networks.NETWORKS and list(networks.INFERENCE) == [goals.HALF, goals.FULL]
    assert (goals.FULL.image, goals.FULL.batch) == ((224, 224, 3), 1)


# --- RESULTS.md ------------------------------------------------------------------------------------------------------


def test_results_say_what_was_run_where_and_when(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "commit", lambda: "abc1234 + changes")
    results.save(tmp_path, page("depthwise"))
    text = (tmp_path / "RESULTS.md").read_text()
    for words in (
        "## A title",
        "`python -m npnets benchmark depthwise --rounds 2 --threads 2 --torch-python PATH`: rounds 2, steps 10",
        "commit abc1234 + changes, 20",
        "UTC",
        "PyTorch 2.13.0",
        "NumPy ",
        "cores busy with other work 0.25",
        "| a case | 2 | 1000 [1000, 1000] |",
        "A remark.",
        "## What was to be reached",
    ):
        assert words in text
    assert "secret" not in text and "secret" not in (tmp_path / "results" / "depthwise.json").read_text()


def test_a_section_is_renewed_and_the_others_stay(tmp_path):
    results.save(tmp_path, page("inference", section("Inference")))
    results.save(tmp_path, page("train_step", section("Training step, old")))
    results.save(tmp_path, page("train_step", section("Training step, new")))
    headings = [line for line in (tmp_path / "RESULTS.md").read_text().splitlines() if line.startswith("## ")]
    assert headings == ["## What was to be reached", "## Training step, new", "## Inference"]


def test_the_same_file_comes_from_json_without_measuring(tmp_path, capsys):
    results.save(tmp_path, page("scaling", section(comparisons=growth())))
    first = (tmp_path / "RESULTS.md").read_bytes()
    (tmp_path / "RESULTS.md").unlink()
    (tmp_path / "results" / "scaling.png").unlink()
    assert benchmarks.main(options("--results", "--from-json", "--out", str(tmp_path))) == 0
    assert (tmp_path / "RESULTS.md").read_bytes() == first
    assert b"![A title](results/scaling.png)" in first
    assert (tmp_path / "results" / "scaling.png").read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out.strip() == str(tmp_path / "RESULTS.md")


def test_figures_are_those_of_benchmarks():
    assert set(figures.FIGURES) <= set(benchmarks.NAMES)


def test_times_are_kept_with_six_digits_and_differences_too(tmp_path):
    made = section(comparisons=[comparison(["a case"], times=(0.123456789, 1.0, 1.0))])
    results.save(tmp_path, page("depthwise", made))
    (record,) = json.loads((tmp_path / "results" / "depthwise.json").read_text())["records"]
    assert record["rounds"]["npnets"][0]["times"]["a case"] == [0.123457] * 2
    assert record["differences"] == {"float32": 1e-6, "float64": 1e-12}


def test_the_command_names_only_what_differs_from_the_defaults():
    assert results.command("train_step", measure.Setup()) == "python -m npnets benchmark train_step"
    here = measure.Setup(torch=measure.Peer(sys.executable, "2"), chainer=TORCH, seeds=(5,), steps=3)
    assert results.command("train_step", here) == (
        "python -m npnets benchmark train_step --steps 3 --seeds 5 --chainer-python PATH"
    )


def test_the_commit_is_that_of_the_repository_without_the_results(monkeypatch):
    said = {"rev-parse": "abc1234", "status": ""}
    asked = []

    def git(folder, *arguments):
        asked.append(arguments)
        return said[arguments[0]]

    monkeypatch.setattr(results, "_git", git)
    assert results.commit() == "abc1234"
    assert {":(exclude)RESULTS.md", ":(exclude)results"} <= set(asked[-1])
    said["status"] = " M npnets/ops/linear.py"
    assert results.commit() == "abc1234 + changes"


def test_results_being_written_are_no_changes(tmp_path, monkeypatch):
    """With a real git: the folder of the benchmarks in a repository of its own."""
    folder = tmp_path / "npnets" / "benchmarks"
    folder.mkdir(parents=True)
    (folder / "code.py").write_text("1\n")
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    for arguments in (["init", "-q"], ["add", "."], [*who, "commit", "-q", "-m", "one"]):
        try:
            subprocess.run(["git", *arguments], cwd=tmp_path, check=True, capture_output=True)
        except OSError:
            pytest.skip("there is no git")
    monkeypatch.setattr(results, "__file__", str(folder / "results.py"))
    clean = results.commit()
    results.save(folder, page("depthwise"))
    assert results.commit() == clean and " " not in clean
    (tmp_path / "npnets" / "new.py").write_text("1\n")
    assert results.commit() == f"{clean} + changes"


def test_without_a_repository_the_commit_is_unknown(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "__file__", str(tmp_path / "results.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert results.commit() is None
    results.save(tmp_path, page("depthwise"))
    assert "commit unknown, 20" in (tmp_path / "RESULTS.md").read_text()


def test_busy_cores_are_between_none_and_all(monkeypatch):
    monkeypatch.undo()
    ticks = iter([[100, 0, 0, 100, 0, 0, 0, 0], [150, 0, 20, 120, 10, 0, 0, 0]])  # 30 of 100 ticks are idle
    monkeypatch.setattr(machine, "_ticks", lambda: next(ticks))
    assert machine.busy_cores(0) == pytest.approx(0.7 * os.cpu_count())

    def missing():
        raise FileNotFoundError

    monkeypatch.setattr(machine, "_ticks", missing)
    assert machine.busy_cores(0) is None


# --- The command line ------------------------------------------------------------------------------------------------


@pytest.fixture
def fake_suite(monkeypatch):
    """Two benchmarks that measure nothing; the second tells what it has so far, then fails if asked to."""

    def long_one(setup):
        setup.keep(section("So far"))
        if long_one.fails:
            raise measure.WorkerFailed("the process of PyTorch failed")
        return section("Whole")

    long_one.fails = False
    monkeypatch.setitem(suite.BENCHMARKS, "depthwise", lambda setup: section("Quick"))
    monkeypatch.setitem(suite.BENCHMARKS, "inference", long_one)
    monkeypatch.setattr(measure, "find_torch", lambda python: None)
    return long_one


def test_results_are_written_beside_the_json_and_the_tables(fake_suite, tmp_path, capsys):
    arguments = ["depthwise", "inference", "--results", "--out", str(tmp_path), "--json", str(tmp_path / "all.json")]
    assert benchmarks.main(options(*arguments)) == 0
    text = (tmp_path / "RESULTS.md").read_text()
    assert "## Quick" in text and "## Whole" in text and "So far" not in text
    assert set(json.loads((tmp_path / "all.json").read_text())["benchmarks"]) == {"depthwise", "inference"}
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == ["depthwise.json", "inference.json"]
    printed = capsys.readouterr().out
    assert "Quick" in printed and str(tmp_path / "RESULTS.md") in printed


def test_what_a_long_benchmark_has_so_far_survives_its_failure(fake_suite, tmp_path, capsys):
    fake_suite.fails = True
    assert benchmarks.main(options("inference", "--results", "--out", str(tmp_path))) == 1
    assert "## So far" in (tmp_path / "RESULTS.md").read_text()
    assert "PyTorch failed" in capsys.readouterr().err


def test_nothing_is_written_without_results(fake_suite, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(results, "save", lambda *_: pytest.fail("it was written"))
    assert benchmarks.main(options("depthwise")) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--from-json"], "--from-json and --out go with --results"),
        (["--out", "."], "--from-json and --out go with --results"),
        (["depthwise", "--results", "--from-json"], "name no benchmark"),
        (["--results", "--out", "/no/such/folder"], r"--results: /no/such/folder/RESULTS\.md cannot be written"),
    ],
)
def test_options_that_do_not_go_together_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        benchmarks.main(options(*arguments))


def test_there_must_be_json_to_write_results_from(tmp_path):
    with pytest.raises(ValueError, match="holds no JSON of a benchmark: measure first"):
        benchmarks.main(options("--results", "--from-json", "--out", str(tmp_path)))


@pytest.mark.parametrize("content", ["{", "[1]", '{"name": "inference"}', '{"name": "depthwise", "records": [3]}'])
def test_a_damaged_page_is_named_and_the_results_stay(content, tmp_path):
    results.save(tmp_path, page("depthwise"))
    before = (tmp_path / "RESULTS.md").read_bytes()
    (tmp_path / "results" / "depthwise.json").write_text(content)
    with pytest.raises(ValueError, match=r"results/depthwise\.json is not .*measure it again, or remove it"):
        results.write(tmp_path)
    assert (tmp_path / "RESULTS.md").read_bytes() == before


def test_a_damaged_page_is_found_before_anything_is_measured(fake_suite, tmp_path, monkeypatch):
    results.save(tmp_path, page("inference"))
    damaged = tmp_path / "results" / "inference.json"
    damaged.write_text('{"name": "inference", "title": 3}')
    monkeypatch.setitem(suite.BENCHMARKS, "depthwise", lambda setup: pytest.fail("it was measured"))
    with pytest.raises(ValueError, match=r"results/inference\.json is not what npnets writes"):
        benchmarks.main(options("depthwise", "--results", "--out", str(tmp_path)))
    damaged.write_text("{")
    assert benchmarks.main(options("inference", "--results", "--out", str(tmp_path))) == 0  # measured again
    assert "## Whole" in (tmp_path / "RESULTS.md").read_text()
