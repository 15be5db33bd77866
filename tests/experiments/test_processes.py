"""Runs side by side, in processes of their own: the same bits, and nothing is lost when they are stopped."""

import io
import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

import tests.experiments as tiny
from npnets import experiments
from npnets.experiments import activations, running
from tests import fakes


@pytest.fixture(autouse=True)
def short(here, monkeypatch):
    """Have the small form of ``activations`` train for 100 steps on real digits."""
    for name, value in {"epochs": 10, "train_images": 600, "test_images": 50}.items():
        monkeypatch.setitem(activations.EXPERIMENT.small, name, value)
    return here


def run(jobs, out, **settings):
    return experiments.run("activations", seeds=[0], small=True, jobs=jobs, threads=1, out=out, **settings)


def test_side_by_side_gives_the_same_records_as_one_by_one(here, capsys):
    tiny.assert_same(run(2, "two"), run(1, "one"))
    assert not list(here.glob("runs/**/*.npz"))
    record = json.loads((here / "two/activations/baseline-seed0.json").read_text())
    assert (record["environment"]["jobs"], record["environment"]["threads"]) == (2, 1)
    assert capsys.readouterr() == ("", "")


def test_ctrl_c_stops_all_runs_and_the_same_command_goes_on_to_the_same_bits(here, monkeypatch):
    monkeypatch.setitem(activations.EXPERIMENT.small, "epochs", 50)
    whole = run(2, "whole")
    tell, workers = running.Progress.tell, []
    start = running._Worker.__init__

    def note(worker, *arguments):
        start(worker, *arguments)
        workers.append(worker)

    monkeypatch.setattr(running._Worker, "__init__", note)
    monkeypatch.setattr(running.Progress, "tell", lambda *_: fakes.ctrl_c())
    with pytest.raises(KeyboardInterrupt, match=r"; \d of 2 runs done, those under way are saved; continue with: this"):
        run(2, "out", command="this")
    assert len(workers) == 2 and all(worker.process.returncode in (0, 130) for worker in workers)
    assert list(here.glob("runs/experiments/activations/*/fit1.npz"))
    monkeypatch.setattr(running.Progress, "tell", tell)
    tiny.assert_same(run(1, "out"), whole)


def test_runs_stop_and_are_saved_when_the_process_that_started_them_is_no_more(here):
    """It held their standard input open; that is all they have of it."""
    settings = activations.EXPERIMENT.settings_of("baseline", 0, small=True, epochs=2000)
    task = running.Task("activations", "baseline", settings, None, str(here / "out"), True, "", 1, 1)
    worker = [sys.executable, "-m", "npnets.experiments.worker", json.dumps(task._asdict())]
    environment = running.environment()
    with subprocess.Popen(worker, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert "done" in json.loads(process.stdout.readline())
        process.stdin.close()
        assert process.wait(timeout=60) == 130
    assert list(here.glob("runs/experiments/activations/*/fit1.npz")) and not (here / "out").exists()


def test_a_run_that_fails_is_named_with_its_reason_and_stops_the_others(here):
    (here / "out").write_text("a file")
    with pytest.raises(ValueError, match=r"the run of \w+, seed 0 failed: NotADirectoryError: .*out"):
        run(2, "out")


def test_a_process_that_dies_is_a_run_that_fails(here, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ValueError, match="the run of baseline, seed 0 failed: exit code 1"):
        run(2, "out")


def test_a_second_ctrl_c_kills_the_runs():
    class Process:
        killed = False
        def kill(self):
            self.killed = True

    class Listener:
        def join(self):
            raise KeyboardInterrupt

    workers = [SimpleNamespace(process=Process(), listener=Listener()) for _ in range(2)]
    for worker in workers:
        worker.process.stdin = io.StringIO()
    running._stop(workers)
    assert all(worker.process.killed for worker in workers)
