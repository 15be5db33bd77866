"""Reference models: made of a run, loaded again, and those that come with the project."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from npnets import augment, checkpoint, cost, datasets, models, publish, training
from npnets.cli import main
from npnets.models.pretrained import FOLDER
from tests import fakes

NAMES = models.pretrained_names()
TINY = ("--model", "mlp_batch_norm", "--batch-size", "32", "--epochs", "2", "--warmup", "0", "--threads", "1")


def load_fake(name, split, root=None):
    """Return made-up images in place of those of ``datasets.load``."""
    return fakes.dataset(200 if split == "train" else 70, seed=split == "test", name=name)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Work in an empty folder, with a folder of reference models of its own."""
    monkeypatch.chdir(tmp_path)
    for module in (publish, sys.modules["npnets.models.pretrained"]):
        monkeypatch.setattr(module, "FOLDER", tmp_path / "models")
    return tmp_path


@pytest.fixture
def finished(here, monkeypatch):
    """Return the folder of a training that has ended."""
    monkeypatch.setattr(datasets, "load", load_fake)
    assert run("train", *TINY, "--seed", "3", "--quiet", "--out", "run", "--weight-average", "0.9") == 0
    return here / "run"


def run(*arguments):
    """Return the exit code of a command."""
    return main([str(argument) for argument in arguments])


# --- Made of a run ---------------------------------------------------------------------------------------------------


def test_the_model_is_that_of_the_run(finished):
    facts = publish.publish(finished, "small")
    assert models.pretrained_names() == ["small"] and models.card("small") == facts
    expected, _ = checkpoint.load_model(finished / "checkpoint.npz")
    model = models.pretrained("small")
    fakes.assert_same_bits(model.state_dict(), expected.state_dict())
    test = load_fake("mnist", "test")
    x = augment.normalize(test.images, facts["mean"], facts["std"])
    assert np.mean(model(x).argmax(axis=1) == test.labels) == facts["test"]["accuracy"]


def test_the_card_tells_how_it_came_about(finished):
    facts = publish.publish(finished, "small")
    history = training.History.load(finished / "history.json")
    assert facts["history"] == history.to_dict() == training.History.from_dict(facts["history"]).to_dict()
    assert (facts["seed"], facts["settings"]["epochs"], facts["dataset"]) == (3, 2, "mnist")
    assert facts["command"].startswith("python -m npnets train --model mlp_batch_norm")
    assert {"commit", "cores", "numpy"} <= facts["environment"].keys()
    assert facts["seconds"] == history["seconds"][-1]
    costs = cost.profile(models.pretrained("small"), (8, 8, 1))
    assert (facts["params"], facts["macs"], facts["input"]) == (costs.params, costs.macs, [8, 8, 1])


@pytest.mark.parametrize("folders", ["--out run --data 'my files'", "'--out=my run' --data=files"])
def test_the_card_does_not_tell_where_the_files_were(finished, folders):
    told = "python -m npnets train --model mlp_batch_norm --set 'hidden=(8, 8)' {}--seed 3"
    written = json.loads((finished / "history.json").read_text())
    written["command"] = told.format(f"{folders} ")
    (finished / "history.json").write_text(json.dumps(written))
    assert publish.publish(finished, "small")["command"] == told.format("")


def test_the_card_tells_what_was_taken_for_what(finished):
    facts = publish.publish(finished, "small")
    counts, labels = np.array(facts["test"]["confusion"]), load_fake("mnist", "test").labels
    assert counts.sum(axis=1).tolist() == np.bincount(labels).tolist() and facts["test"]["images"] == 70
    assert counts.trace() / 70 == facts["test"]["accuracy"]
    expected = dict(zip(["rows", "columns", "chess", "grey"], counts.diagonal() / counts.sum(axis=1)))
    assert facts["test"]["per_class"] == expected


def test_the_card_tells_of_the_training_and_not_of_the_machine_that_makes_it(finished):
    history = json.loads((finished / "history.json").read_text())
    there = {"npnets": "0.0", "commit": "1234567", "python": "3.11.0", "numpy": "1.26.0", "cores": 48}
    history["environment"], history["epochs"][-1]["seconds"] = there, 300.0
    (finished / "history.json").write_text(json.dumps(history))
    facts = publish.publish(finished, "small")
    assert facts["environment"] == there
    expected = "2 epochs in 5 minutes with 48 cores, seed 3, commit 1234567, NumPy 1.26.0"
    assert expected in publish.described(facts).splitlines()


def test_the_card_has_the_last_result_of_the_history(finished):
    last, test = training.History.load(finished / "history.json").epochs[-1], publish.publish(finished, "small")["test"]
    assert (test["loss"], test["accuracy"]) == (last["test_loss"], last["test_accuracy"])


def test_what_exists_is_replaced_only_when_asked(finished):
    publish.publish(finished, "small")
    before = {path: path.read_bytes() for path in Path("models").iterdir()}
    with pytest.raises(ValueError, match=r"small.json exists; replace it with --overwrite"):
        publish.publish(finished, "small")
    publish.publish(finished, "small", overwrite=True)
    assert {path: path.read_bytes() for path in Path("models").iterdir()} == before


def test_a_card_that_cannot_be_written_leaves_the_old_one(finished, monkeypatch):
    publish.publish(finished, "small")
    before = {path: path.read_bytes() for path in Path("models").iterdir()}

    def full_for_cards(path, mode):
        return fakes.FullDisk(path, mode) if ".json" in str(path) else open(path, mode)

    monkeypatch.setattr(checkpoint, "open", full_for_cards, raising=False)
    with pytest.raises(OSError, match="what was there before is untouched"):
        publish.publish(finished, "small", overwrite=True)
    assert {path: path.read_bytes() for path in Path("models").iterdir()} == before


@pytest.mark.parametrize("name", ["", "Über", "a/b", "../x", "-x", "A"])
def test_a_name_is_one_for_a_file(name, finished):
    with pytest.raises(ValueError, match="a reference model is named with"):
        publish.publish(finished, name)


def test_a_training_that_has_not_ended_is_refused(finished):
    history = json.loads((finished / "history.json").read_text())
    (finished / "history.json").write_text(json.dumps(history | {"epochs": history["epochs"][:1]}))
    with pytest.raises(ValueError, match="not complete: 1 of 2 epochs; continue with --resume"):
        publish.publish(finished, "small")
    assert not Path("models").exists()


def test_a_history_longer_than_its_settings_is_refused(finished):
    history = json.loads((finished / "history.json").read_text())
    (finished / "history.json").write_text(json.dumps(history | {"epochs": 2 * history["epochs"]}))
    with pytest.raises(ValueError, match=r"history.json has 4 epochs, its settings ask for 2"):
        publish.publish(finished, "small")


def test_a_checkpoint_that_does_not_name_its_data_set_is_refused(finished):
    arrays, numbers = checkpoint.read(finished / "checkpoint.npz")
    del numbers["about"]["dataset"]
    checkpoint.write(finished / "checkpoint.npz", arrays, numbers)
    with pytest.raises(ValueError, match="does not name its data set"):
        publish.publish(finished, "small")


def test_a_part_of_a_data_set_is_refused(finished, monkeypatch):
    assert run("train", *TINY, "--quiet", "--out", "part", "--images", "150") == 0
    with pytest.raises(ValueError, match="needs the whole of mnist, not mnist-first-150"):
        publish.publish("part", "small")
    subset = fakes.dataset(70, seed=1, name="mnist-subset-70")
    monkeypatch.setattr(datasets, "load", lambda *_: subset)
    with pytest.raises(ValueError, match="needs the whole of mnist, not mnist-subset-70"):
        publish.publish(finished, "small")


def test_weights_of_another_run_than_the_history_are_refused(finished):
    assert run("train", *TINY, "--quiet", "--out", "other", "--seed", "9", "--learning-rate", "0") == 0
    (finished / "checkpoint.npz").write_bytes(Path("other/checkpoint.npz").read_bytes())
    with pytest.raises(ValueError, match=r"run: the weights give [\d.]+%, its history tells [\d.]+%"):
        publish.publish(finished, "small")


@pytest.mark.parametrize("content", ["", "{}", '{"epochs": [], "losses": []}', "[1]"])
def test_a_folder_without_a_history_is_refused(content, finished):
    (finished / "history.json").write_text(content)
    with pytest.raises(ValueError, match=r"history.json is not the history of a training"):
        publish.publish(finished, "small")


@pytest.mark.parametrize(
    "change",
    [
        {"settings": {}}, {"settings": []}, {"settings": None}, {"settings": {"epochs": 2}}, {"environment": {}},
        {"environment": None}, {"command": None},
    ],
    ids=str,
)  # fmt: skip
def test_a_history_that_does_not_tell_how_it_came_about_is_refused(change, finished):
    history = json.loads((finished / "history.json").read_text())
    (finished / "history.json").write_text(json.dumps(history | change))
    with pytest.raises(ValueError, match=r"history.json is not the history of a training"):
        publish.publish(finished, "small")
    assert not Path("models").exists()


def test_weights_in_another_precision_are_refused(finished):
    assert run("train", *TINY, "--quiet", "--out", "double", "--set", "dtype=float64") == 0
    with pytest.raises(ValueError, match="a reference model is in float32, the weights in double are in float64"):
        publish.publish("double", "small")
    assert not Path("models").exists()


def test_weights_that_are_too_large_are_not_written(finished, monkeypatch):
    monkeypatch.setattr(publish, "LARGEST", 1000)
    with pytest.raises(ValueError, match=r"small.npz would have [\d,]+ bytes, and at most 1,000 are wanted"):
        publish.publish(finished, "small")
    assert not Path("models").exists()


# --- Loaded again ----------------------------------------------------------------------------------------------------


def test_an_unknown_name_gets_the_nearest_one(finished):
    with pytest.raises(ValueError, match="unknown reference model 'smal'; there are none"):
        models.pretrained("smal")
    publish.publish(finished, "small")
    with pytest.raises(ValueError, match=r"unknown reference model 'smal'; did you mean small\? there are small"):
        models.card("smal")


def test_damaged_files_are_refused_by_name(finished):
    publish.publish(finished, "small")
    weights, text = Path("models/small.npz").read_bytes(), Path("models/small.json").read_text()
    Path("models/small.npz").write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    with pytest.raises(ValueError, match=r"small.npz is damaged, or of another card; get it again"):
        models.pretrained("small")
    Path("models/small.npz").unlink()
    with pytest.raises(ValueError, match=r"small.npz is missing; get it again"):
        models.pretrained("small")
    for damaged in ("", text[:100], "[1]", "{}", text.replace("card 1", "card 0")):
        Path("models/small.json").write_text(damaged)
        with pytest.raises(ValueError, match=r"small.json is damaged or no card"):
            models.card("small")


def test_another_folder_has_reference_models_of_its_own(finished):
    facts = publish.publish(finished, "small", root="there")
    assert not Path("models").exists() and models.pretrained_names() == []
    assert models.pretrained_names("there") == ["small"] and models.card("small", "there") == facts
    expected, _ = checkpoint.load_model(finished / "checkpoint.npz")
    fakes.assert_same_bits(models.pretrained("small", Path("there")).state_dict(), expected.state_dict())
    assert publish.listed("there").splitlines()[-1].startswith("small")
    assert publish.listed().startswith("there are no reference models in")


def test_names_are_sorted(here):
    for name in ("e", "b", "d", "a", "c", "f"):
        (here / f"{name}.json").touch()
    assert models.pretrained_names(here) == ["a", "b", "c", "d", "e", "f"]


# --- The commands ----------------------------------------------------------------------------------------------------


def test_the_command_makes_one_tells_of_it_and_lists_it(finished, capsys):
    capsys.readouterr()
    assert run("pretrained") == 0
    assert re.fullmatch("there are no reference models in .*models\n", capsys.readouterr().out)
    assert run("pretrained", "small", "--from-run", finished) == 0
    made = capsys.readouterr().out
    assert run("pretrained", "small") == 0
    assert capsys.readouterr().out == made
    facts = models.card("small")
    assert f"on mnist: {facts['test']['accuracy']:.2%} of 70 test images" in made
    assert "2 epochs in 0 minutes" in made and facts["command"] in made
    assert run("pretrained") == 0
    listed = capsys.readouterr().out.splitlines()[-1].split()
    assert listed[:2] == ["small", "mnist"] and listed[-1] == "2"


def test_the_list_has_each_number_under_its_heading(finished):
    facts = publish.publish(finished, "small")
    cells = [re.split(r" {2,}", line.strip()) for line in publish.listed().splitlines()]
    assert dict(zip(cells[0], cells[-1])) == {
        "name": "small",
        "data set": "mnist",
        "parameters": f"{facts['params']:,}",
        "multiply-adds": f"{facts['macs']:,}",
        "test accuracy": f"{facts['test']['accuracy']:.2%}",
        "epochs": "2",
    }


def test_the_command_passes_on_the_data_folder_and_overwrites_when_asked(finished, monkeypatch, capsys):
    roots = []

    def load(name, split, root=None):
        roots.append(str(root))
        return load_fake(name, split)

    monkeypatch.setattr(datasets, "load", load)
    make = "pretrained", "small", "--from-run", finished, "--data", "elsewhere"
    assert run(*make) == 0 and run(*make) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert run(*make, "--overwrite") == 0
    assert roots == ["elsewhere", "elsewhere"]


def test_evaluate_prefers_a_run_here_to_a_reference_model_of_its_name(finished, capsys):
    publish.publish(finished, "small")
    Path("small").mkdir()
    assert run("evaluate", "small") == 2
    assert re.search("there is no checkpoint small.checkpoint.npz", capsys.readouterr().err)


def test_evaluate_takes_the_name_of_a_reference_model(finished, capsys):
    publish.publish(finished, "small")
    capsys.readouterr()
    assert run("evaluate", "small") == 0
    by_name = capsys.readouterr().out
    assert run("evaluate", "run") == 0
    assert capsys.readouterr().out == by_name


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--from-run", "run"], "--from-run: name the reference model"),
        (["--data", "here"], "--data: name the reference model"),
        (["x", "--overwrite"], "--overwrite: goes with --from-run"),
        (["x", "--data", "here"], "--data: goes with --from-run"),
        (["x"], "unknown reference model 'x'"),
        (["x", "--from-run", "nowhere"], "there is no checkpoint nowhere"),
    ],
)
def test_wrong_options_are_told_in_a_line(arguments, words, capsys):
    assert run("pretrained", *arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and words in err and err.count("\n") == 1


def test_the_table_tells_the_mistakes_by_their_number():
    table = publish.confusion_table(("cat", "dog", "bird"), [[7, 2, 3], [0, 4, 0], [0, 0, 0]]).splitlines()
    assert re.split(r" {2,}", table[2]) == ["cat", "12", "58.33%", "3 as bird, 2 as dog"]
    assert table[3].split() == ["dog", "4", "100.00%"] and table[4].split() == ["bird", "0"]


# --- Those that come with the project --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_reference_model_is_complete_and_small(name):
    facts = models.card(name, FOLDER)
    model = models.pretrained(name, FOLDER)
    assert (FOLDER / f"{name}.npz").stat().st_size < publish.LARGEST
    assert {array.dtype for array in model.state_dict().values()} == {np.dtype(np.float32)}
    assert re.fullmatch(r"[0-9a-f]{7,}", facts["environment"]["commit"])  # with nothing uncommitted
    assert cost.profile(model, tuple(facts["input"])).params == facts["params"]
    counts, each = np.array(facts["test"]["confusion"]), list(facts["test"]["per_class"].values())
    assert counts.sum() == facts["test"]["images"] == 10_000
    assert counts.trace() / counts.sum() == pytest.approx(facts["test"]["accuracy"], abs=1e-12)
    assert np.allclose(counts.diagonal() / counts.sum(axis=1), each)
    assert facts["history"]["epochs"][-1]["test_accuracy"] == facts["test"]["accuracy"]


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("mnist")])
def test_a_reference_model_of_mnist_does_what_its_card_says(name, monkeypatch):
    facts, test = models.card(name, FOLDER), datasets.load("mnist", "test", FOLDER.parent)
    model = models.pretrained(name, FOLDER)
    found = training.evaluate(model, test, mean=facts["mean"], std=facts["std"])
    counts = training.confusion_matrix(test.labels, found.predictions, 10)
    assert np.abs(counts - facts["test"]["confusion"]).sum() <= 4  # rounding may move an image on another processor


def test_the_readme_tells_what_comes_trained():
    readme = (FOLDER.parents[1] / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `((?:mnist|cifar10)-[^`]*)` \|(.*)\|$", readme, re.MULTILINE)
    assert sorted(name for name, _ in rows) == NAMES
    for name, cells in rows:
        facts = models.card(name, FOLDER)
        minutes, accuracy = facts["seconds"] / 60, f"{facts['test']['accuracy']:.2%}".replace("%", " %")
        epochs = str(len(facts["history"]["epochs"]))
        expected = [f"{facts['params']:,}", f"{facts['macs']:,}", epochs, f"{minutes:.0f} minutes", accuracy]
        assert [cell.strip() for cell in cells.split("|")] == expected
