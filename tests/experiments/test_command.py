"""``python -m npnets experiment``: what it prints, what it leaves, and what it says to wrong input."""

import re

import pytest

import tests.experiments as tiny
from npnets.cli import main
from tests import fakes

pytestmark = pytest.mark.usefixtures("tiny_experiment")


def command(*arguments):
    """Return the exit code of ``python -m npnets experiment``."""
    try:
        return main(["experiment", *map(str, arguments)])
    except SystemExit as stop:
        return stop.code


def quick(*arguments):
    return command("tiny", "--jobs", "1", "--quiet", *arguments)


def assert_one_line(capsys, *parts):
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("npnets: ") and err.count("\n") == 1 and "Traceback" not in err, err
    for part in parts:
        assert re.search(part, err), err


def test_help_teaches(capsys):
    assert command("--help") == 0
    text = capsys.readouterr().out
    words = ["activations", "batch_norm", "list", "--seeds", "--variants", "--small", "--jobs", "--again", "Ctrl-C"]
    for word in [*words, "notebooks/results", "NPNETS_DATA", "python -m npnets experiment list"]:
        assert word in text


def test_it_runs_records_and_prints_what_each_variant_reached(here, capsys):
    assert quick("--variants", "slow", "fast", "--seeds", 0, 1) == 0
    out, err = capsys.readouterr()
    assert err == "" and [line.split()[0] for line in out.splitlines()[2:4]] == ["slow", "fast"]
    assert out.splitlines()[-1] == f"in {here / 'results' / 'tiny'}"
    assert sorted(path.stem for path in here.glob("results/tiny/*.json")) == [
        "fast-seed0", "fast-seed1", "slow-seed0", "slow-seed1",
    ]  # fmt: skip
    text = (here / "results/tiny/slow-seed1.json").read_text()
    assert "python -m npnets experiment tiny --jobs 1 --quiet --variants slow fast --seeds 0 1" in text


def test_the_options_arrive(here):
    assert quick("--variants", "slow", "--seeds", 4, "--epochs", 1, "--dataset", "cifar10", "--out", here / "o") == 0
    (record,) = tiny.records_in(here / "o")
    assert (record.settings["epochs"], record.settings["dataset"], record.seed) == (1, "cifar10", 4)


def test_small_runs_one_seed_and_records_nothing(here, capsys):
    assert quick("--small", "--variants", "slow") == 0
    assert "slow" in capsys.readouterr().out and not [path for path in here.rglob("*") if path.is_file()]


def test_list_tells_what_is_recorded(capsys):
    quick("--variants", "endless")
    capsys.readouterr()
    assert command("list") == 0
    out = capsys.readouterr().out
    assert "activations: batch norm, section 4.1" in out and "1 of 4 runs are recorded" in out
    assert "(1 diverged)" in out and "missing: slow (seed 0), fast (seed 0), slow (seed 1)" in out


def test_ctrl_c_says_how_to_go_on(capsys):
    class Stop:
        def after_step(self, step):
            if step == 3:
                fakes.ctrl_c()

    tiny.CALLBACKS.append(Stop())
    assert quick("--variants", "slow", "--seeds", 0, 1) == 130
    expected = "continue with: python -m npnets experiment tiny --jobs 1 --quiet --variants slow --seeds 0 1"
    assert_one_line(capsys, f"interrupted; 0 of 2 runs done, those under way are saved; {expected}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["actvations"], "unknown experiment 'actvations'; did you mean activations"),
        (["tiny", "--variants", "fats"], "unknown variant of tiny 'fats'; did you mean fast"),
        (["tiny", "--epochs", "0"], "expected a whole number from 1"),
        (["tiny", "--seeds", "x"], "expected a whole number from 0"),
        (["activations", "--dataset", "cifar10"], "activations runs on mnist, not on 'cifar10'"),
        (["tiny", "--small", "--out", "here"], "--small records nothing; leave --out away"),
        ([], "NAME"),
    ],
)
def test_wrong_input_is_one_line(arguments, message, capsys):
    assert command(*arguments) == 2
    assert_one_line(capsys, message)


def test_missing_data_are_one_line(here, monkeypatch, capsys):
    monkeypatch.undo()
    monkeypatch.chdir(here)
    assert command("activations", "--data", here / "nowhere", "--out", here / "out") == 2
    assert_one_line(capsys, "MNIST is not in")


def test_a_record_in_the_way_is_one_line(capsys):
    quick("--variants", "slow", "--seeds", 0)
    capsys.readouterr()
    assert quick("--variants", "slow", "--seeds", 0, "--epochs", 1) == 2
    assert_one_line(capsys, "epochs was 2, now 1", "--again")
    assert quick("--variants", "slow", "--seeds", 0, "--epochs", 1, "--again") == 0
