"""The command line as a user meets it: what it prints, what it leaves, and what it says to wrong input.

Most tests call ``main`` in this process, with a made-up data set. Where a process is killed, it is a real one on MNIST.
"""

import json
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

import npnets
from npnets import checkpoint, cost, datasets, models, profiling, training
from npnets.cli import main
from npnets.cli.values import setting
from npnets.runs import SETTINGS
from tests import fakes

ROOT = Path(npnets.__file__).parents[1]
COMMANDS = (
    "train", "evaluate", "pretrained", "cost", "profile", "latency", "gradcheck", "data", "experiment", "benchmark",
    "notebooks",
)  # fmt: skip
TINY = ("--model", "mlp_batch_norm", "--batch-size", "32", "--epochs", "2", "--warmup", "0", "--threads", "1")


def run(*arguments):
    """Return the exit code of a command."""
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return stop.code


def train(*arguments):
    """Return the exit code of a quick training without progress."""
    return run("train", *TINY, "--quiet", *arguments)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Work in an empty folder, and without the user's own data folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NPNETS_DATA", raising=False)
    return tmp_path


def load_fake(name, split, root=None):
    """Return made-up images in place of those of ``datasets.load``."""
    return fakes.dataset(200 if split == "train" else 70, seed=split == "test", name=name)


@pytest.fixture
def fake_data(monkeypatch):
    """Replace both data sets by images of 8x8 pixels."""
    monkeypatch.setattr(datasets, "load", load_fake)


def contents(folder):
    """Return path -> bytes of all files below a folder."""
    return {path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def assert_one_line(capsys, *parts):
    """Check that nothing was printed but one line on stderr, with these parts."""
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("npnets: ") and err.count("\n") == 1 and err.endswith("\n"), err
    assert "Traceback" not in err and "Errno" not in err, err
    for part in parts:
        assert re.search(part, err), err


# --- Help ------------------------------------------------------------------------------------------------------------


def help_text(capsys, *command):
    assert run(*command, "--help") == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def test_help_lists_the_commands(capsys):
    text = help_text(capsys)
    for command in COMMANDS:
        assert command in text


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_a_line_that_can_be_pasted(command, capsys):
    assert help_text(capsys, command).startswith(f"usage: python -m npnets {command}")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("train", ["runs/", "checkpoint.npz", "history.json", "curves.png", "Ctrl-C", "examples:", "default: 128"]),
        ("train", ["0.9", "4e-05", "cosine", "4 for mnist", "--resume", "--out", "--threads", "--quiet"]),
        ("train", ["--recipe {paper,best}", "stem_stride=1 bottleneck=relu6"]),
        ("train", models.classifiers()),
        ("evaluate", ["checkpoint", "--split", "--dataset", "--batch-size", "example"]),
        ("cost", ["--width", "--resolution", "--markdown", "multiply-adds", *models.names()]),
        ("profile", ["--width", "--resolution", "--batch-size", "--inference", "--by", "examples:", *models.names()]),
        ("gradcheck", ["--samples", "--mistakes", "complex-step", "examples:"]),
        ("data", ["cifar10", "NPNETS_DATA", "--root"]),
        ("benchmark", ["PyTorch", "train_step"]),
    ],
)
def test_help_teaches(command, words, capsys):
    text = help_text(capsys, command)
    for word in words:
        assert word in text


def test_help_of_train_explains_every_setting(capsys):
    text = help_text(capsys, "train")
    for name in SETTINGS:
        assert f"--{name.replace('_', '-')}" in text


def test_version(capsys):
    assert run("--version") == 0
    assert capsys.readouterr().out.strip() == npnets.__version__


# --- train -----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("fake_data")
def test_train_leaves_a_checkpoint_a_history_and_curves(here, capsys):
    arguments = ["train", *TINY, "--images", "150", "--out", "runs/a b", "--quiet"]
    assert run(*arguments) == 0
    out, err = capsys.readouterr()
    assert err == "" and out.count("\n") == 1
    folder = here / "runs" / "a b"
    assert {path.name for path in folder.iterdir()} == {"checkpoint.npz", "history.json", "curves.png"}

    recorded = json.loads((folder / "history.json").read_text())
    assert recorded["settings"]["model"] == "mlp_batch_norm" and set(recorded["settings"]) == set(SETTINGS)
    assert {"npnets", "commit", "python", "numpy", "cores"} <= set(recorded["environment"])
    assert [record["epoch"] for record in recorded["epochs"]] == [1, 2]
    assert recorded["epochs"][-1]["step"] == 2 * (150 // 32)
    history = training.History.load(folder / "history.json")
    assert f"test accuracy {history['test_accuracy'][-1]:.2%} after 2 epochs" in out

    _, numbers = checkpoint.read(folder / "checkpoint.npz")
    assert numbers["epoch"] == 2 and numbers["history"] == history.to_dict()
    picture = imread(folder / "curves.png")
    assert picture.ndim == 3 and picture.shape[0] > 300 and picture.shape[1] > 600
    assert picture[..., :3].std() > 0.01  # something is drawn


@pytest.mark.usefixtures("fake_data")
def test_the_history_tells_the_command_that_was_given(here):
    arguments = ["train", *TINY, "--quiet", "--out", "a b"]
    assert run(*arguments) == 0
    recorded = json.loads((here / "a b" / "history.json").read_text())
    assert shlex.split(recorded["command"]) == ["python", "-m", "npnets", *arguments]


@pytest.mark.usefixtures("fake_data")
def test_train_shows_progress_on_stderr_and_the_result_on_stdout(capsys):
    assert run("train", *TINY) == 0
    out, err = capsys.readouterr()
    assert out.startswith("test accuracy ") and out.count("\n") == 1 and "runs/mnist-mlp_batch_norm" in out
    assert re.search(r"mlp_batch_norm on mnist: [\d,]+ parameters, in runs/mnist-mlp_batch_norm", err)
    assert "epoch 1/2: training loss" in err and "epoch 2/2: training loss" in err


@pytest.mark.usefixtures("fake_data")
def test_runs_are_numbered_and_resume_takes_the_one_saved_last(here, capsys):
    for _ in range(3):
        assert train() == 0
    names = ["mnist-mlp_batch_norm", "mnist-mlp_batch_norm-2", "mnist-mlp_batch_norm-3"]
    assert sorted(path.name for path in (here / "runs").iterdir()) == names
    os.utime(here / "runs" / names[1] / "checkpoint.npz", (2e9, 2e9))
    capsys.readouterr()
    assert train("--resume") == 0
    assert f"runs/{names[1]}/" in capsys.readouterr().out


def interrupt_after(monkeypatch, steps):
    """Press Ctrl-C when so many more steps are done."""
    after_step, done = checkpoint.Checkpoint.after_step, []

    def count(self, step):
        after_step(self, step)
        done.append(step)
        if len(done) == steps:
            fakes.ctrl_c()

    monkeypatch.setattr(checkpoint.Checkpoint, "after_step", count)


@pytest.mark.usefixtures("fake_data")
def test_resume_continues_to_the_same_bits(here, monkeypatch):
    options = "--save-every", "4", "--weight-average", "0.9", "--crop", "2", "--dropout", "0.2"
    assert train(*options, "--out", "whole") == 0
    with monkeypatch.context() as patch:
        interrupt_after(patch, 5)
        assert train(*options, "--out", "parts") == 130
    with monkeypatch.context() as patch:
        interrupt_after(patch, 3)
        assert run("train", "--resume", "--out", "parts", "--quiet", "--threads", "2") == 130
    assert run("train", "--resume", "--out", "parts", "--quiet") == 0
    assert_same_run(here / "parts", here / "whole")


def assert_same_run(got, want):
    """Compare the checkpoints of two runs bit for bit, and what their histories tell besides the time."""
    got_arrays, got_numbers = checkpoint.read(got / "checkpoint.npz")
    want_arrays, want_numbers = checkpoint.read(want / "checkpoint.npz")
    fakes.assert_same_bits(got_arrays, want_arrays)
    for numbers in (got_numbers, want_numbers):
        numbers["history"] = fakes.without_times(numbers["history"])
        del numbers["seconds"]
    assert got_numbers == want_numbers
    histories = [fakes.without_times(training.History.load(folder / "history.json")) for folder in (got, want)]
    assert histories[0] == histories[1]


@pytest.mark.usefixtures("fake_data")
def test_ctrl_c_saves_and_says_how_to_go_on(here, capsys, monkeypatch):
    interrupt_after(monkeypatch, 9)
    assert train("--out", "my run") == 130
    assert_one_line(capsys, "interrupted", "saved", re.escape("python -m npnets train --resume --out 'my run'"))
    assert checkpoint.read(here / "my run" / "checkpoint.npz")[1]["step_in_epoch"] == 3
    assert (here / "my run" / "curves.png").exists()  # of the first epoch


def test_ctrl_c_before_the_training_is_one_line(capsys, monkeypatch):
    def load(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(datasets, "load", load)
    assert train() == 130
    assert_one_line(capsys, "interrupted")


def test_memory_that_is_not_enough_is_one_line(capsys, monkeypatch):
    def load(*arguments):
        raise MemoryError

    monkeypatch.setattr(datasets, "load", load)
    assert train() == 2
    assert_one_line(capsys, "memory", "smaller")


@pytest.mark.usefixtures("fake_data")
def test_a_finished_run_can_be_resumed_and_does_not_change(here, capsys):
    assert train("--out", "run") == 0
    before, out = contents("run"), capsys.readouterr().out
    assert run("train", "--resume", "--out", "run", "--quiet") == 0
    assert capsys.readouterr().out == out
    assert contents("run")[Path("run/checkpoint.npz")] == before[Path("run/checkpoint.npz")]


@pytest.mark.usefixtures("fake_data")
def test_resume_takes_the_same_settings_again_and_no_others(capsys):
    assert train("--out", "run") == 0
    assert train("--out", "run", "--resume") == 0
    before = contents(".")
    capsys.readouterr()
    assert train("--out", "run", "--resume", "--epochs", "3", "--seed", "7") == 2
    assert_one_line(capsys, "epochs was 2, now 3", "seed was 0, now 7")
    assert contents(".") == before


@pytest.mark.usefixtures("fake_data")
def test_train_takes_a_recipe_and_any_setting_of_the_model_and_resumes_with_them(capsys):
    settings = ["--recipe", "paper", "--batch-size", "32", "--epochs", "1", "--model", "mobilenet_v2_small"]
    network = ["--width", "0.25", "--set", "stem_stride=1", "table=((1,8,1,1),(2,8,1,2))"]
    assert run("train", *settings, *network, "--out", "run", "--quiet") == 0
    model, numbers = checkpoint.load_model("run/checkpoint.npz")
    assert len(model.blocks) == 2 and model.stem.conv.stride == (1, 1)
    assert numbers["about"]["command"]["learning_rate"] == 0.045 and numbers["about"]["command"]["epochs"] == 1
    assert run("train", "--out", "run", "--resume", "--quiet", *network, "--recipe", "paper") == 0
    capsys.readouterr()
    assert run("train", "--out", "run", "--resume", "--set", "stem_stride=2") == 2
    assert_one_line(capsys, "set was .'stem_stride': 1, 'table': .*, now .'stem_stride': 2")
    for wrong, words in [("a=1 a=2", "a is set twice"), ("width_mult=2", "no setting|cannot change")]:
        assert run("train", *settings, *network[:2], "--out", "other", "--set", *wrong.split()) == 2
        assert_one_line(capsys, words)
    assert not Path("other").exists()


@pytest.mark.usefixtures("fake_data")
def test_train_adds_up_what_is_set_in_several_places(capsys):
    assert train("--set", "hidden=(8,)", "--epochs", "1", "--set", "batch_norm=false", "--out", "run") == 0
    assert checkpoint.read("run/checkpoint.npz")[1]["about"]["command"]["set"] == {"hidden": [8], "batch_norm": False}
    capsys.readouterr()
    assert train("--set", "hidden=(8,)", "--set", "hidden=(9,)", "--out", "other") == 2
    assert_one_line(capsys, "hidden is set twice")


@pytest.mark.usefixtures("fake_data")
def test_what_does_not_decide_the_result_may_change_on_resume(capsys):
    assert train("--out", "run", "--save-every", "4") == 0
    assert run("train", "--resume", "--out", "run", "--quiet", "--save-every", "7", "--threads", "2") == 0


@pytest.mark.usefixtures("fake_data")
def test_a_folder_with_a_run_is_not_written_to_without_resume(capsys):
    assert train("--out", "run") == 0
    before = contents(".")
    capsys.readouterr()
    assert train("--out", "run") == 2
    assert_one_line(capsys, "run", "--resume", "--out")
    assert contents(".") == before


@pytest.mark.usefixtures("fake_data")
def test_a_diverged_training_ends_with_1_and_keeps_its_checkpoint(here, capsys):
    assert train("--out", "run", "--optimizer", "sgd", "--learning-rate", "1e37", "--save-every", "1") == 1
    assert_one_line(capsys, "training stopped", "step", "learning rate", "try")
    arrays, _ = checkpoint.read(here / "run" / "checkpoint.npz")
    assert all(np.isfinite(array).all() for array in arrays.values())


@pytest.mark.parametrize("model", ["mobilenet_v1_small", "mobilenet_v2_small"])
@pytest.mark.usefixtures("fake_data")
def test_both_mobilenets_train_with_everything_switched_on(model, here):
    given = f"""--model {model} --width 0.25 --dropout 0.2 --crop 4 --mirror --epochs 1 --batch-size 50
        --optimizer sgd --schedule exponential --warmup 2 --label-smoothing 0.1 --weight-average 0.9
        --threads 1 --quiet --out run"""
    assert run("train", *given.split()) == 0
    assert run("evaluate", "run") == 0


# --- evaluate --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("average", ["0", "0.9"])
@pytest.mark.usefixtures("fake_data")
def test_evaluate_gives_the_last_result_of_the_history(average, here, capsys):
    assert train("--out", "run", "--weight-average", average, "--dropout", "0.5") == 0
    last = training.History.load("run/history.json").epochs[-1]
    for path in ("run", "run/checkpoint.npz"):
        capsys.readouterr()
        assert run("evaluate", path) == 0
        out, err = capsys.readouterr()
        assert err == ""
        lines = out.splitlines()
        assert lines[0] == "mlp_batch_norm on mnist (test, 70 images)"
        assert lines[1] == f"loss {last['test_loss']:.4f}, accuracy {last['test_accuracy']:.2%}"
        counts = np.bincount(fakes.dataset(70, seed=1).labels)
        table = [line.split() for line in lines[5:]]
        assert lines[3].split() == ["class", "images", "right", "taken", "for"]
        assert [line[0] for line in table] == ["rows", "columns", "chess", "grey"]
        assert [int(line[1]) for line in table] == counts.tolist()
        shares = [float(line[2].rstrip("%")) / 100 for line in table]
        assert np.dot(shares, counts) / 70 == pytest.approx(last["test_accuracy"], abs=1e-4)


@pytest.mark.usefixtures("fake_data")
def test_evaluate_can_take_the_training_images(capsys):
    assert train("--out", "run") == 0
    capsys.readouterr()
    assert run("evaluate", "run", "--split", "train", "--batch-size", "7", "--threads", "2") == 0
    assert "(train, 200 images)" in capsys.readouterr().out


def test_evaluate_finds_the_data_folder_of_the_run(here, monkeypatch, capsys):
    roots = []

    def load(name, split, root=None):
        roots.append(root)
        return load_fake(name, split)

    monkeypatch.setattr(datasets, "load", load)
    assert train("--out", "run", "--data", "elsewhere") == 0
    assert set(map(str, roots)) == {"elsewhere"}
    roots.clear()
    assert run("evaluate", "run") == 0
    assert set(map(str, roots)) == {"elsewhere"}


def test_evaluate_takes_another_data_set_and_another_folder_than_the_run(monkeypatch, capsys):
    loaded = []

    def load(name, split, root=None):
        loaded.append((name, split, str(root)))
        return load_fake(name, split)

    monkeypatch.setattr(datasets, "load", load)
    assert train("--out", "run", "--data", "elsewhere") == 0
    loaded.clear()
    assert run("evaluate", "run", "--dataset", "cifar10", "--data", "there") == 0
    assert loaded == [("cifar10", "test", "there")]
    assert "mlp_batch_norm on cifar10 (test, 70 images)" in capsys.readouterr().out


def test_a_run_on_mnist_is_evaluated_to_the_accuracy_of_its_history(here, capsys):
    assert train("--images", "600", "--out", "run", "--seed", "3") == 0
    assert run("evaluate", "run") == 0
    out = capsys.readouterr().out
    last = training.History.load("run/history.json").epochs[-1]
    assert last["test_accuracy"] > 0.15
    assert f"loss {last['test_loss']:.4f}, accuracy {last['test_accuracy']:.2%}" in out
    assert out.splitlines()[1].startswith("mlp_batch_norm on mnist (test, 10,000 images)")


@pytest.mark.usefixtures("fake_data")
def test_a_model_for_other_images_is_refused_in_words(capsys, monkeypatch):
    assert train("--out", "run") == 0
    monkeypatch.setattr(datasets, "load", lambda *rest: fakes.dataset(20, channels=3))
    capsys.readouterr()
    assert run("evaluate", "run", "--dataset", "cifar10") == 2
    assert_one_line(capsys, "channels|images|shape")


# --- cost, gradcheck, data -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", models.names())
def test_cost_prints_every_model(name, capsys):
    assert run("cost", name) == 0
    out, err = capsys.readouterr()
    pixels = models.resolution(name)
    profile = cost.profile(models.build(name), (pixels, pixels, models.in_channels(name)))
    assert err == "" and f"{profile.params:,}" in out and f"{profile.macs:,}" in out
    assert f"{profile.params_without_bn:,}" in out


@pytest.mark.parametrize(
    ("options", "params", "macs"),
    [
        ([], "3,504,872", "300,774,272"),
        (["--width", "0.5"], "1,968,680", "97,131,840"),
        (["--resolution", "96"], "3,504,872", "56,289,152"),
        (["--width", "0.35", "--resolution", "224"], "1,677,128", "59,285,808"),
    ],
)
def test_cost_knows_width_and_resolution(options, params, macs, capsys):
    assert run("cost", "mobilenet_v2", *options) == 0
    out = capsys.readouterr().out
    assert params in out and macs in out


@pytest.mark.parametrize("name", models.names())
def test_cost_takes_any_resolution_channels_and_classes(name, capsys):
    pixels = 32 if name in models.classifiers() else 257  # four maps after one of 9 x 9 pixels: none can be left out
    assert run("cost", name, "--resolution", str(pixels), "--channels", "3", "--classes", "7", "--markdown") == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert all(line.startswith("| ") and line.endswith(" |") for line in lines)
    assert re.fullmatch(r"\| (:?-+:? \| )+", lines[1] + " ")
    assert len({line.count("|") for line in lines}) == 1
    settings = {"image_size": pixels} if name == "mlp_batch_norm" else {}
    profile = cost.profile(models.build(name, num_classes=7, in_channels=3, **settings), (pixels, pixels, 3))
    assert f"{profile.params:,}" in lines[-1] and f"{profile.macs:,}" in lines[-1]


SIZES = ("--width", "0.25", "--resolution", "12", "--channels", "1", "--classes", "3", "--batch", "2")
PROFILE = ("profile", "mobilenet_v2_small", *SIZES, "--repeats", "1")


def test_profile_prints_layers_and_kinds(capsys):
    assert run(*PROFILE, "--threads", "1") == 0
    out, err = capsys.readouterr()
    assert err == "" and "mobilenet_v2_small: training step, batch 2 x 12 x 12 x 1, 1 thread:" in out
    model = models.build("mobilenet_v2_small", width_mult=0.25, in_channels=1, num_classes=3)
    total = cost.profile(model, (12, 12, 1))
    layers, kinds = re.findall(r"^-{20,}\n(.*?)\n-{20,}$", out, re.MULTILINE | re.DOTALL)
    assert {row.name for row in total.rows} <= {line.split()[0] for line in layers.splitlines()}
    shares = dict(re.findall(r"^(pointwise|depthwise) +[\d.]+% +([\d.]+%)", kinds, re.MULTILINE))
    assert shares == {kind: f"{total.shares()[kind][0]:.2%}" for kind in shares} and len(shares) == 2


def test_profile_of_kinds_has_the_longest_first(capsys):
    assert run(*PROFILE, "--by", "kind", "--markdown") == 0
    out = capsys.readouterr().out
    table = next(part for part in out.split("\n\n") if part.startswith("| kind | forward ms"))
    shares = [float(line.split("|")[5].strip(" %")) for line in table.splitlines()[2:-1]]
    assert shares == sorted(shares, reverse=True) and len(shares) >= 6


def test_profile_of_inference_has_no_batch_norm(capsys):
    assert run(*PROFILE, "--inference", "--by", "kind") == 0
    out = capsys.readouterr().out
    assert "inference, batch norm folded" in out and "\nbatch norm" not in out and "backward ms" not in out


@pytest.mark.parametrize("by", ["layer", "block", "kind"])
def test_profile_leaves_json_and_a_picture(by, here):
    assert run(*PROFILE, "--by", by, "--whole-blocks", "--json", "step.json", "--plot", "step.png") == 0
    data = json.loads((here / "step.json").read_text())
    found = profiling.StepProfile.from_json(data["profile"])
    assert (found.name, found.input_shape) == ("mobilenet_v2_small", (2, 12, 12, 1)) and data["machine"]["numpy"]
    assert profiling.BLOCK in {row.kind for row in found.rows}
    assert imread(here / "step.png").shape[1] > 1000
    assert len(list(here.iterdir())) == 2


def test_profile_takes_the_paper_size_and_a_batch_that_fits(monkeypatch):
    asked = []

    def stop(model, shape, **settings):
        asked.append(shape)
        raise ValueError("enough")

    monkeypatch.setattr(profiling, "profile_step", stop)
    assert [run("profile", name) for name in ("mobilenet_v1", "mobilenet_v2_small", "mlp_batch_norm")] == [2, 2, 2]
    assert asked == [(8, 224, 224, 3), (64, 28, 28, 3), (64, 28, 28, 1)]


def test_gradcheck_prints_a_table(capsys):
    assert run("gradcheck", "relu", "linear", "--samples", "2") == 0
    out, err = capsys.readouterr()
    assert err == "" and "relu" in out and "linear" in out and "conv2d" not in out
    assert out.count(" ok") == 2


def test_gradcheck_ends_with_1_if_a_gradient_is_wrong(capsys, monkeypatch):
    from npnets import ops

    monkeypatch.setattr(ops, "relu_backward", lambda dy, cache: 1.01 * dy)
    monkeypatch.setattr("npnets.ops.activation.relu_backward", lambda dy, cache: 1.01 * dy)
    assert run("gradcheck", "relu") == 1
    assert "WRONG" in capsys.readouterr().out


def test_gradcheck_lists_the_mistakes_it_knows(capsys):
    assert run("gradcheck", "--mistakes") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) >= 15 and any("batch_norm" in line for line in lines)


def test_data_tells_what_is_there(capsys):
    assert run("data") == 0
    out, err = capsys.readouterr()
    assert err == "" and re.search(r"mnist +complete: 60,000 training and 10,000 test images", out)
    assert re.search(r"cifar10 +(complete|a subset): [\d,]+ training and [\d,]+ test images", out)


def test_data_tells_what_is_missing(here, capsys):
    (here / "mine").mkdir()
    assert run("data", "--root", here / "mine") == 0
    assert capsys.readouterr().out.count("missing") >= 2


# --- Wrong input -----------------------------------------------------------------------------------------------------

WRONG = {
    "": ["COMMAND"],
    "fly": ["fly", "train"],
    "train --fast": ["--fast", "--help"],
    "train extra": ["extra"],
    "train --model resnet": ["resnet", "mobilenet_v2_small"],
    "train --model ssd": ["ssd", "mobilenet_v2_small"],
    "train --dataset imagenet": ["imagenet", "mnist"],
    "train --epochs 0": ["--epochs", "whole number from 1", "'0'"],
    "train --epochs two": ["--epochs", "'two'"],
    "train --epochs": ["--epochs"],
    "train --batch-size -3": ["--batch-size"],
    "train --batch-size 2.5": ["--batch-size", "'2.5'"],
    "train --batch-size 201": ["201", "200 images"],
    "train --images 0": ["--images"],
    "train --images 201": ["images", "201", "200"],
    "train --width -1": ["--width", "'-1'|argument"],
    "train --width=-1": ["--width", "'-1'"],
    "train --width nan": ["--width", "'nan'"],
    "train --width 0": ["width"],
    "train --model mlp_batch_norm --width 0.5": ["mlp_batch_norm", "width"],
    "train --dropout 1": ["[Dd]ropout", "1"],
    "train --learning-rate inf": ["--learning-rate"],
    "train --optimizer adam": ["adam", "rmsprop"],
    "train --momentum 1": ["momentum"],
    "train --rms-decay 1": ["decay"],
    "train --epsilon 0": ["eps"],
    "train --schedule exponential --decay-rate 0": ["decay_rate"],
    "train --label-smoothing 2": ["label_smoothing|label-smoothing", "2"],
    "train --weight-average 1": ["decay|average"],
    "train --seed -1": ["--seed"],
    "train --threads 0": ["--threads"],
    "train --save-every 0": ["--save-every"],
    "train --resume": ["no run", "--out"],
    "train --resume --out nowhere": ["no checkpoint", "nowhere"],
    "train --resume --out junk": ["junk", "not a checkpoint"],
    "train --out taken": ["taken", "folder|directory|exists"],
    "train --out taken/run": ["taken", "folder|[Dd]irectory|exists"],
    "evaluate": ["checkpoint"],
    "evaluate nowhere": ["no checkpoint", "nowhere"],
    "evaluate taken": ["taken", "not a checkpoint"],
    "evaluate junk": ["junk", "not a checkpoint"],
    "evaluate empty": ["no checkpoint", "empty"],
    "evaluate other.npz": ["other.npz", "not a checkpoint"],
    "evaluate nowhere --split validation": ["validation", "test"],
    "evaluate nowhere --batch-size 0": ["--batch-size"],
    "cost": ["MODEL|model"],
    "cost mobilenet_v9": ["mobilenet_v9", "mobilenet_v2"],
    "cost mobilenet_v2 --width 0": ["width"],
    "cost mobilenet_v2 --resolution 0": ["--resolution"],
    "cost mobilenet_v2 --resolution 22.4": ["--resolution"],
    "cost mlp_batch_norm --width 2": ["mlp_batch_norm", "width"],
    "profile": ["MODEL|model"],
    "profile mobilenet_v9": ["mobilenet_v9", "mobilenet_v2"],
    "profile mobilenet_v2_small --batch 0": ["--batch", "'0'"],
    "profile mobilenet_v2_small --repeats 0": ["--repeats"],
    "profile mobilenet_v2_small --width 0": ["width"],
    "profile mobilenet_v2_small --resolution 0": ["--resolution"],
    "profile mobilenet_v2_small --by colour": ["--by", "colour", "layer"],
    "profile mobilenet_v2_small --sort name": ["--sort", "name", "time"],
    "profile mobilenet_v2_small --threads 0": ["--threads"],
    "profile mobilenet_v2_small --threads 100000": ["threads", "100000"],
    "profile mobilenet_v2_small --plot out.pdf": [r"--plot", r"\.png", r"out\.pdf"],
    "profile mobilenet_v2_small --plot nowhere/out.png": ["--plot", "nowhere", "existing folder"],
    "profile mobilenet_v2_small --json empty": ["--json", "empty"],
    "profile mlp_batch_norm --width 2": ["mlp_batch_norm", "width"],
    "gradcheck nothing_such": ["nothing_such", "conv2d"],
    "gradcheck relu --samples 0": ["--samples"],
    "gradcheck relu --seed -1": ["--seed"],
    "gradcheck --mistakes nothing_such": ["nothing_such", "conv2d"],
    "data --url http://localhost/x": ["--url", "cifar10"],
    "train --threads 100000": ["threads", "100000"],
    "data imagenet": ["imagenet", "cifar10"],
    "benchmark nothing_such": ["nothing_such"],
}


@pytest.mark.parametrize("command", WRONG)
@pytest.mark.usefixtures("fake_data")
def test_wrong_input_is_one_line_and_exit_code_2(command, here, capsys):
    (here / "taken").write_text("a file of the user")
    (here / "empty").mkdir()
    (here / "junk").mkdir()
    (here / "junk" / "checkpoint.npz").write_bytes(b"junk")
    np.savez(here / "other.npz", a=np.zeros(3))
    before = contents(here)
    extra = ["--quiet"] if command.startswith("train ") else []
    assert run(*command.split(), *extra) == 2
    assert_one_line(capsys, *WRONG[command])
    assert contents(here) == before
    assert sorted(path.name for path in here.iterdir()) == ["empty", "junk", "other.npz", "taken"]


@pytest.mark.parametrize("dataset", ["mnist", "cifar10"])
def test_a_missing_data_folder_is_one_line(dataset, here, capsys):
    assert train("--dataset", dataset, "--data", "nowhere") == 2
    assert_one_line(capsys, "nowhere", "missing|not in|neither")
    assert not list(here.iterdir())


def test_the_data_folder_of_the_environment_is_named_too(monkeypatch, capsys):
    monkeypatch.setenv("NPNETS_DATA", "/nowhere/at/all")
    assert train() == 2
    assert_one_line(capsys, "/nowhere/at/all", "NPNETS_DATA")


@pytest.mark.usefixtures("fake_data")
def test_a_damaged_checkpoint_is_not_resumed_and_not_touched(here, capsys):
    assert train("--out", "run") == 0
    path = here / "run" / "checkpoint.npz"
    path.write_bytes(path.read_bytes()[:-100])
    before = contents(".")
    for arguments in (["train", "--resume", "--out", "run", "--quiet"], ["evaluate", "run"]):
        capsys.readouterr()
        assert run(*arguments) == 2
        assert_one_line(capsys, "checkpoint.npz", "damaged")
    assert contents(".") == before


@pytest.mark.usefixtures("fake_data")
def test_a_checkpoint_that_the_command_line_did_not_write_is_told_so(here, capsys):
    arguments = fakes.plain(fakes.mlp(), epochs=1)
    training.fit(**arguments, callbacks=[checkpoint.Checkpoint(here / "run" / "checkpoint.npz")])
    assert run("train", "--resume", "--out", "run", "--quiet") == 2
    assert_one_line(capsys, "not written by `python -m npnets train`")
    assert run("evaluate", "run") == 2
    assert_one_line(capsys, "which model")


@pytest.mark.usefixtures("fake_data")
def test_a_checkpoint_with_settings_of_another_version_is_one_line(here, capsys):
    assert train("--out", "run") == 0
    arrays, numbers = checkpoint.read(here / "run" / "checkpoint.npz")
    del numbers["about"]["command"]["weight_decay"]
    checkpoint.write(here / "run" / "checkpoint.npz", arrays, numbers)
    capsys.readouterr()
    assert run("train", "--resume", "--out", "run", "--quiet") == 2
    assert_one_line(capsys, "weight_decay|not written by")


def altered(value):
    """Yield values that may stand for another in a hostile file."""
    yield from (None, "x", -1, 10**30, [], {}, [[1]], {"a": 1})
    if isinstance(value, dict):
        yield from (dict.fromkeys(value), {key: v for key, v in value.items() if key != next(iter(value))})
    if isinstance(value, list):
        yield from ([None, *value[1:]], value[:-1], value + value)


@pytest.mark.usefixtures("fake_data")
def test_a_hostile_checkpoint_is_one_line_whatever_it_says(here, capsys, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt_after(patch, 8)
        assert train("--out", "run") == 130
    arrays, numbers = checkpoint.read(here / "run" / "checkpoint.npz")
    for name in numbers:
        for value in altered(numbers[name]):
            checkpoint.write(here / "run" / "checkpoint.npz", arrays, numbers | {name: value})
            for command in (["evaluate", "run"], ["train", "--resume", "--out", "run", "--quiet", "--threads", "1"]):
                capsys.readouterr()
                try:
                    code = run(*command)
                except Exception as error:
                    pytest.fail(f"{name} = {value!r}, {command[0]}: {error!r}")
                err = capsys.readouterr().err
                assert code == 0 or (code == 2 and err.count("\n") == 1), (name, value, command[0], code, err)
                if code == 0 and command[0] == "train":  # it went on, and must not have gone on forever or nowhere
                    assert checkpoint.read(here / "run" / "checkpoint.npz")[1]["epoch"] == 2, (name, value)


@pytest.mark.usefixtures("fake_data")
def test_a_disk_that_fills_up_leaves_the_last_checkpoint(here, capsys, monkeypatch):
    assert train("--out", "whole", "--epochs", "1", "--save-every", "100") == 0
    # As much as the first checkpoint needs; later ones have a longer history.
    monkeypatch.setattr(fakes.FullDisk, "space", first_size(here))
    monkeypatch.setattr(checkpoint, "open", fakes.FullDisk, raising=False)
    capsys.readouterr()
    assert train("--out", "run", "--save-every", "2") == 2
    assert_one_line(capsys, "No space left", "run")
    assert [path.name for path in (here / "run").iterdir()] == ["checkpoint.npz"]
    assert checkpoint.read(here / "run" / "checkpoint.npz")[1]["step_in_epoch"] == 0


def first_size(here):
    """Return the size of the checkpoint that a run writes before its first step, and a little more."""
    arrays, numbers = checkpoint.read(here / "whole" / "checkpoint.npz")
    numbers["history"] = {"epochs": [], "losses": []}
    checkpoint.write(here / "size.npz", arrays, numbers)
    size = (here / "size.npz").stat().st_size
    (here / "size.npz").unlink()
    return size + 100


# --- Real processes --------------------------------------------------------------------------------------------------

REAL = ("train", "--model", "mlp_batch_norm", "--images", "600", "--batch-size", "16", "--epochs", "2", "--warmup", "0")


# A shell that starts the tests in the background may have switched Ctrl-C off for its children.
CODE = """
import runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv[0] = "npnets"
runpy.run_module("npnets", run_name="__main__")
"""


def start(*arguments):
    """Start ``python -m npnets`` as a process of its own."""
    command = [sys.executable, "-c", CODE, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def finish(*arguments):
    """Run a process to its end and return (exit code, stdout, stderr)."""
    with start(*arguments) as process:
        out, err = process.communicate(timeout=120)
    return process.returncode, out, err


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    """Return the folder of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    code, out, err = finish(*REAL, "--save-every", "3", "--out", folder, "--quiet", "--threads", "1")
    assert (code, err) == (0, "") and "test accuracy" in out
    return folder


def wait_for(happened, process):
    """Wait until ``happened()``, or the process is at its end."""
    give_up = time.monotonic() + 60
    while not happened() and process.poll() is None:
        assert time.monotonic() < give_up
        time.sleep(0.0002)


def last_saved(folder):
    """Return when the checkpoint of a run was saved."""
    path = folder / "checkpoint.npz"
    return path.stat().st_mtime_ns if path.exists() else None


def kill_at_some_moment(folder, process, *, while_writing, delay):
    """Let a process save once, then kill it: as soon as it writes again, or some seconds later."""
    before = last_saved(folder)
    wait_for(lambda: last_saved(folder) != before, process)
    if while_writing:
        wait_for(lambda: any(folder.glob(".*")), process)
    else:
        time.sleep(delay)
    process.kill()
    process.communicate()
    return process.returncode == -signal.SIGKILL


def test_a_run_killed_at_any_moment_ends_in_the_same_bits(here, whole_run):
    folder = here / "run"
    first, again = (*REAL, "--save-every", "3"), ("train", "--resume")
    kills, moments = 0, random.Random(8)
    for attempt in range(5):
        command = again if (folder / "checkpoint.npz").exists() else first
        process = start(*command, "--out", folder, "--quiet", "--threads", "1")
        kills += kill_at_some_moment(folder, process, while_writing=attempt % 2, delay=moments.uniform(0, 0.05))
        checkpoint.read(folder / "checkpoint.npz")  # always whole
    assert kills >= 2
    code, _, err = finish("train", "--resume", "--out", folder, "--quiet", "--threads", "2")
    assert (code, err) == (0, "")
    assert_same_run(folder, whole_run)
    assert {path.name for path in folder.iterdir()} == {"checkpoint.npz", "history.json", "curves.png"}


def test_ctrl_c_in_a_real_process_saves_and_says_how_to_go_on(here, whole_run):
    folder = here / "run"
    with start(*REAL, "--save-every", "3", "--out", folder, "--quiet") as process:
        wait_for(lambda: last_saved(folder), process)
        at_start = last_saved(folder)
        wait_for(lambda: last_saved(folder) != at_start, process)  # now the training is going on
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and out == ""
    assert err == f"npnets: interrupted; saved, continue with: python -m npnets train --resume --out {folder}\n"
    command = err.strip().split("python -m npnets ")[1]
    assert finish(*shlex.split(command), "--quiet")[0] == 0
    assert_same_run(folder, whole_run)


def test_a_reader_that_goes_away_gets_no_traceback():
    with start("cost", "mobilenet_v2") as process:
        process.stdout.close()  # as `| head -1` does
        err = process.stderr.read()
    assert "Traceback" not in err and "Exception" not in err


def test_wrong_input_in_a_real_process_is_one_line():
    code, out, err = finish("train", "--epochs", "0")
    assert (code, out) == (2, "") and err.count("\n") == 1 and "Traceback" not in err


def test_the_cifar10_subset_says_that_it_is_one(here):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", datasets.SubsetWarning)
        whole = datasets.load("cifar10", "test")
    if whole.name == "cifar10":
        pytest.skip("the whole CIFAR-10 is here")
    arguments = ["--model", "mlp_batch_norm", "--dataset", "cifar10", "--images", "64", "--batch-size", "64"]
    code, out, err = finish("train", *arguments, "--epochs", "1", "--quiet", "--out", here / "run")
    assert code == 0 and "test accuracy" in out
    assert "npnets: " in err and "subset" in err and "Traceback" not in err
    assert all(line.startswith("npnets: ") for line in err.splitlines())
    _, numbers = checkpoint.read(here / "run" / "checkpoint.npz")
    assert numbers["settings"]["train"] == "cifar10-subset-5000-first-64"


# --- latency ---------------------------------------------------------------------------------------------------------

LATENCY = ("latency", "mobilenet_v2_small", "mlp_batch_norm", "--resolution", "12", "--channels", "1", "--repeats", "2")


def test_latency_has_a_line_for_each_model_after_the_machine(capsys):
    assert run(*LATENCY, "--classes", "4") == 0
    out, err = capsys.readouterr()
    assert err == "" and "NumPy" in out and "1 thread, batch norm folded: median of 2" in out
    (small, mlp) = [line for line in out.splitlines() if "12 x 12 x 1" in line]
    assert small.startswith("mobilenet_v2_small ") and mlp.startswith("mlp_batch_norm ")
    model = models.build("mobilenet_v2_small", num_classes=4, in_channels=1)
    assert f"{cost.profile(model, (12, 12, 1)).params / 1e6:.3f}" in small


def test_latency_as_markdown_and_json(here, capsys):
    assert run(*LATENCY, "--threads", "2", "--no-fold", "--markdown", "--json", "latency.json") == 0
    out = capsys.readouterr().out
    assert "**Inference of one image, 2 threads, batch norm as it is trained: median of 2**" in out
    assert out.count("\n| ") == 2 + 2
    data = json.loads((here / "latency.json").read_text())
    assert [len(one["seconds"]) for one in data["latency"]] == [2, 2] and data["machine"]["numpy"]
    assert [(one["name"], one["threads"], one["folded"]) for one in data["latency"]] == [
        ("mobilenet_v2_small", 2, False),
        ("mlp_batch_norm", 2, False),
    ]


@pytest.mark.parametrize(
    ("command", "parts"),
    [
        ("latency", ["MODEL|model"]),
        ("latency mobilenet_v2_small mobilenet_v9", ["mobilenet_v9", "mobilenet_v2"]),
        ("latency mobilenet_v2_small mobilenet_v2 --resolution 16", ["mobilenet_v2 with images of 16x16", "too small"]),
        ("latency mobilenet_v2 --width 0", ["width"]),
        ("latency mobilenet_v2_small --repeats 0", ["--repeats"]),
        ("latency mobilenet_v2_small --warmup -1", ["--warmup"]),
        ("latency mobilenet_v2_small --threads 0", ["--threads"]),
        ("latency mobilenet_v2_small --classes 0", ["--classes"]),
        ("latency mobilenet_v2_small --json nowhere/out.json", ["--json", "nowhere", "existing folder"]),
        ("latency mobilenet_v2_small mlp_batch_norm --width 2", ["mlp_batch_norm", "width"]),
    ],
)
def test_wrong_input_of_latency_is_one_line_before_anything_is_timed(command, parts, capsys, monkeypatch):
    monkeypatch.setattr("npnets.latency.measure_latency", None)
    assert run(*command.split()) == 2
    assert_one_line(capsys, *parts)


def test_ctrl_c_in_a_latency_is_one_line(capsys, monkeypatch):
    def stop(self, x, training=False):
        raise KeyboardInterrupt

    monkeypatch.setattr("npnets.nn.GlobalAvgPool.forward", stop)
    assert run(*LATENCY) == 130
    assert_one_line(capsys, "npnets: interrupted")


# --- Settings of a model ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, value",
    [
        ("x=16", 16), ("x=0.5", 0.5), ("x=false", False), ("x=None", None), ("x=7x7", "7x7"), ("x=off", "off"),
        ("x=(1,2,4)", (1, 2, 4)), ("x=[(1, 64), (2, 128)]", [(1, 64), (2, 128)]), ("x=()", ()),
        ("x=(1,2", "(1,2"), ("x=(exit(),)", "(exit(),)"), ("x=a=b", "a=b"),
    ],
)  # fmt: skip
def test_a_setting_is_a_literal_or_a_word(text, value):
    assert setting(text) == ("x", value)


def test_a_setting_may_be_a_tuple(capsys):
    assert run("cost", "resnet50", "--set", "multi_grid=(1,2,4)", "output_stride=16") == 0
    assert run("cost", "mobilenet_v1", "--set", "table=[(1,64),(2,128)]") == 0
    text = capsys.readouterr().out.rpartition("stem.conv")[2]
    assert "blocks.1.pointwise" in text and "blocks.2" not in text


@pytest.mark.parametrize(
    "setting, message",
    [
        ("batch_norm=off", "batch_norm must be True or False, got 'off'"),
        ("bn_decay=x", "bn_decay must be a finite number, got 'x'"),
        ("seed=1.5", "seed must be an integer, got 1.5"),
        ("dtype=int8", "dtype must be float32 or float64, got 'int8'"),
        ("table=5", "table must be a list of rows"),
        ("width_mult=1e30", r"width_mult must be at most 1000, got 1e\+30"),
    ],
)
def test_a_bad_setting_is_one_line(setting, message, capsys):
    assert run("cost", "bn_inception", "--set", setting) == 2
    assert_one_line(capsys, message)


def test_channels_may_be_set_too(capsys):
    assert run("cost", "mobilenet_v2", "--set", "in_channels=1") == 0
    one_way = capsys.readouterr().out
    assert run("cost", "mobilenet_v2", "--channels", "1") == 0
    assert capsys.readouterr().out == one_way
