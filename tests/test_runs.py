"""From settings to a training: every setting arrives where it should, and every run has its folder."""

import json
import os
from types import SimpleNamespace

import numpy as np
import pytest

from npnets import checkpoint, datasets, models, optim, runs, training
from npnets.datasets import Dataset
from tests import fakes


@pytest.fixture(autouse=True)
def fake_data(monkeypatch, tmp_path):
    """Replace both data sets by images of 8x8 pixels, and work in an empty folder."""

    def load(name, split, root=None):
        loaded.append((name, split, root))
        return fakes.dataset(200 if split == "train" else 70, seed=split == "test", name=name)

    loaded = []
    monkeypatch.setattr(datasets, "load", load)
    monkeypatch.chdir(tmp_path)
    return loaded


def assemble(**given):
    return runs.assemble(runs.settings({"model": "mlp_batch_norm", "batch_size": 32} | given))


# --- Settings --------------------------------------------------------------------------------------------------------


def test_settings_are_complete_and_the_given_ones_win():
    assert set(runs.settings({})) == set(runs.SETTINGS)
    chosen = {name: object() for name in runs.SETTINGS if name not in ("dataset", "recipe")}
    for recipe in (None, *runs.RECIPES):
        own = {"dataset": "cifar10", "recipe": recipe}
        assert runs.settings(chosen | own) == chosen | own


@pytest.mark.parametrize("name", datasets.NAMES)
def test_every_data_set_has_its_defaults(name):
    settings = runs.settings({"dataset": name})
    assert settings["epochs"] == runs.DATASET_SETTINGS[name]["epochs"] >= 1
    assert [key for key, value in settings.items() if value is None] == ["recipe", "data", "images"]
    assert runs.settings({"dataset": name, "epochs": 7})["epochs"] == 7


@pytest.mark.parametrize("dataset", datasets.NAMES)
def test_a_recipe_stands_between_the_given_settings_and_the_defaults(dataset):
    usual = runs.settings({"dataset": dataset})
    for recipe, of_data in runs.RECIPES.items():
        settings = runs.settings({"dataset": dataset, "recipe": recipe})
        assert settings == usual | of_data[dataset] | {"recipe": recipe}
        assert runs.settings({"dataset": dataset, "recipe": recipe, "epochs": 7}) == settings | {"epochs": 7}
    with pytest.raises(ValueError, match="unknown recipe 'worst'; there are paper, best"):
        runs.settings({"recipe": "worst"})


def test_the_recipe_of_the_paper_is_that_of_its_section_6():
    settings = runs.settings({"recipe": "paper"})
    names = ("optimizer", "rms_decay", "momentum", "learning_rate", "decay_rate", "batch_size", "weight_decay")
    assert [settings[name] for name in names] == ["rmsprop", 0.9, 0.9, 0.045, 0.98, 96, 0.00004]
    assert settings["schedule"] == "exponential"
    assert [settings[name] for name in ("epsilon", "warmup", "dropout")] == [1.0, 0, 0.2]  # TF-Slim, none, section 4


def test_a_recipe_shapes_the_network_it_was_made_for_and_no_other():
    best = runs.settings({"dataset": "cifar10", "recipe": "best"})
    assert best["width"] == 1.5 and best["set"]["stem_stride"] == 1
    other = runs.settings({"dataset": "cifar10", "recipe": "best", "model": "mobilenet_v1_small"})
    assert other == best | {"model": "mobilenet_v1_small", "width": 1.0, "set": {}}
    models.build(best["model"], num_classes=10, width_mult=best["width"], **best["set"])


def test_the_best_network_for_cifar10_halves_the_image_in_its_first_block_and_expands_by_three():
    best = runs.settings({"dataset": "cifar10", "recipe": "best"})
    expansion, channels, repeats, strides = zip(*best["set"]["table"])
    assert (expansion, channels) == ((1, 3, 3), (16, 40, 96))
    assert (repeats, strides) == ((1, 3, 4), (2, 1, 2))
    digits = runs.settings({"dataset": "mnist", "recipe": "best"})
    assert (digits["width"], digits["set"]) == (1.0, {})


def test_digits_are_not_mirrored_by_default():
    assert runs.settings({"dataset": "mnist"})["mirror"] is False


def test_the_defaults_are_not_changed_by_a_run():
    before = json.dumps([runs.SETTINGS, runs.DATASET_SETTINGS])
    assemble(width=1.0, epochs=9, seed=3)
    assert json.dumps([runs.SETTINGS, runs.DATASET_SETTINGS]) == before


def test_settings_survive_json():
    settings = runs.settings({"data": "here", "images": 5})
    assert json.loads(json.dumps(settings)) == settings


# --- Assembling ------------------------------------------------------------------------------------------------------


def test_the_model_is_built_as_told_and_can_be_built_again():
    arguments, about = runs.assemble(
        runs.settings({"model": "mobilenet_v2_small", "width": 0.5, "dropout": 0.25, "seed": 9, "batch_size": 32})
    )
    expected = models.mobilenet_v2_small(4, 1, 0.5, dropout=0.25, seed=9)
    fakes.assert_same_bits(arguments["model"].state_dict(), expected.state_dict())
    assert arguments["model"].dropout.rate == 0.25
    again = models.build(about["model"], **json.loads(json.dumps(about["model_settings"])))
    fakes.assert_same_bits(again.state_dict(), expected.state_dict())


def test_other_settings_of_the_model_are_passed_on():
    table = [[1, 16, 1, 1], [2, 8, 1, 2]]
    given = {"model": "mobilenet_v2_small", "set": {"table": table, "bottleneck": "relu6"}, "batch_size": 32}
    arguments, about = runs.assemble(runs.settings(given))
    assert [block.project.C_out for block in arguments["model"].blocks] == [16, 8]
    assert about["model_settings"]["table"] == table and about["model_settings"]["bottleneck"] == "relu6"
    with pytest.raises(ValueError, match="--set cannot change dropout, num_classes: that follows from"):
        assemble(model="mobilenet_v2_small", set={"num_classes": 3, "dropout": 0.1})
    with pytest.raises(ValueError, match="mobilenet_v2_small has no setting 'colour'"):
        assemble(model="mobilenet_v2_small", set={"colour": 3})


def test_rmsprop_gets_its_settings():
    arguments, _ = assemble(learning_rate=0.3, rms_decay=0.8, momentum=0.7, epsilon=0.5, weight_decay=0.1)
    optimizer = arguments["optimizer"]
    assert isinstance(optimizer, optim.RMSProp)
    got = optimizer.learning_rate, optimizer.decay, optimizer.momentum, optimizer.eps, optimizer.weight_decay
    assert got == (0.3, 0.8, 0.7, 0.5, 0.1)
    assert {p.name for p in optimizer.parameters} == {p.name for p in arguments["model"].parameters()}


def test_sgd_gets_its_settings():
    optimizer = assemble(optimizer="sgd", learning_rate=0.3, momentum=0.7, weight_decay=0.1)[0]["optimizer"]
    assert isinstance(optimizer, optim.SGD)
    assert (optimizer.learning_rate, optimizer.momentum, optimizer.weight_decay) == (0.3, 0.7, 0.1)


@pytest.mark.parametrize(
    ("given", "rates"),
    [
        ({"schedule": "cosine", "warmup": 0}, {0: 0.1, 9: 0.05, 18: 0.0}),  # 3 epochs of 6 steps
        ({"schedule": "constant", "warmup": 0}, {0: 0.1, 17: 0.1}),
        ({"schedule": "constant", "warmup": 4}, {0: 0.025, 1: 0.05, 3: 0.1, 4: 0.1}),
        ({"schedule": "exponential", "decay_rate": 0.5, "warmup": 0}, {0: 0.1, 5: 0.1, 6: 0.05, 12: 0.025}),
    ],
    ids=lambda given: given.get("schedule", ""),
)
def test_the_schedule_is_counted_in_steps_of_this_training(given, rates):
    schedule = assemble(learning_rate=0.1, epochs=3, **given)[0]["schedule"]
    assert {step: schedule(step) for step in rates} == pytest.approx(rates, abs=1e-12)


def test_the_images_are_the_first_ones_and_the_name_says_so(fake_data):
    arguments, about = assemble(images=50, dataset="cifar10", data="some/folder", crop=0, mirror=False)
    assert fake_data == [("cifar10", "train", "some/folder"), ("cifar10", "test", "some/folder")]
    whole = fakes.dataset(200)
    np.testing.assert_array_equal(arguments["train"].images, whole.images[:50])
    np.testing.assert_array_equal(arguments["train"].labels, whole.labels[:50])
    assert arguments["train"].name == "cifar10-first-50" and len(arguments["test"]) == 70
    assert about["dataset"] == "cifar10" and about["trained_on"] == "cifar10-first-50"


@pytest.mark.parametrize("count", [0, 201])
def test_more_images_than_there_are_are_refused(count):
    with pytest.raises(ValueError, match=f"images must be from 1 to 200 for mnist, got {count}"):
        assemble(images=count)


@pytest.mark.parametrize("mirrors", [False, True])
def test_augmentation_is_what_the_settings_say(mirrors):
    augmentation = assemble(crop=4, mirror=mirrors)[0]["augment"]
    images = np.zeros((200, 11, 11, 1), np.uint8)
    images[:, 5, 5] = 255  # in the middle: moved by a crop, not by a mirror
    images[:, 5, 6] = 100
    changed = augmentation(images, np.random.default_rng(0))
    n, row, column, _ = np.nonzero(changed == 255)
    assert n.tolist() == list(range(200))
    assert (set(row), set(column)) == (set(range(1, 10)), set(range(1, 10)))  # up to 4 pixels each way
    neighbour = np.nonzero(changed == 100)
    shift = dict(zip(neighbour[0], neighbour[2]))
    sides = {int(shift[k] - column[k]) for k in range(200) if k in shift}
    assert sides == ({1, -1} if mirrors else {1})


def test_no_augmentation_is_none():
    assert assemble(crop=0, mirror=False)[0]["augment"] is None


def test_the_average_takes_the_running_statistics_along():
    assert assemble()[0]["average"] is None
    arguments, _ = assemble(weight_average=0.75)
    average = arguments["average"]
    assert average.decay == 0.75
    assert set(average.names) == set(arguments["model"].state_dict())
    arguments["model"].hidden[0].bn.running_mean += 1.0  # they must be the model's own arrays
    average.update()
    assert average.averages["hidden.0.bn.running_mean"].min() > 0


def test_the_other_settings_are_handed_on():
    arguments, about = assemble(epochs=4, batch_size=17, seed=3, label_smoothing=0.1)
    assert [arguments[name] for name in ("epochs", "batch_size", "seed", "label_smoothing")] == [4, 17, 3, 0.1]
    assert about["command"] == runs.settings(
        {"model": "mlp_batch_norm", "epochs": 4, "batch_size": 17, "seed": 3, "label_smoothing": 0.1}
    )
    assert about["model_settings"]["image_size"] == 8


def test_the_arguments_are_those_of_fit():
    arguments, _ = assemble(epochs=1)
    history = training.fit(**arguments, progress=False, threads=1)
    assert len(history) == 1


def test_images_that_do_not_fit_the_model_are_found_before_the_training(monkeypatch):
    flat = Dataset(np.zeros((8, 1, 9, 1), np.uint8), np.zeros(8, np.int64), "flat", ("a", "b"))
    monkeypatch.setattr(datasets, "load", lambda *rest: flat)
    with pytest.raises(ValueError, match=r"hidden\.0|Linear|shape"):
        assemble()


# --- Folders ---------------------------------------------------------------------------------------------------------


def saved_run(path, when):
    path.mkdir(parents=True)
    (path / "checkpoint.npz").write_bytes(b"")
    os.utime(path / "checkpoint.npz", (when, when))
    return path


def test_folders_are_numbered(tmp_path):
    settings = runs.settings({})
    names = []
    for _ in range(3):
        folder = runs.free_folder(settings)
        folder.mkdir(parents=True)
        names.append(str(folder))
    usual = os.path.join("runs", "mnist-mobilenet_v2_small")
    assert names == [usual, f"{usual}-2", f"{usual}-3"]


def test_the_latest_run_is_the_one_saved_last(tmp_path):
    settings = runs.settings({})
    for name, when in (("", 100), ("-2", 300), ("-3", 200)):
        saved_run(tmp_path / "runs" / f"mnist-mobilenet_v2_small{name}", when)
    (tmp_path / "runs" / "mnist-mobilenet_v2_small-4").mkdir()  # nothing was saved here
    assert runs.latest_folder(settings).name == "mnist-mobilenet_v2_small-2"


def test_a_run_of_a_model_whose_name_is_longer_is_not_taken(tmp_path):
    saved_run(tmp_path / "runs" / "mnist-mobilenet_v2", 100)
    saved_run(tmp_path / "runs" / "mnist-mobilenet_v2_small", 200)
    saved_run(tmp_path / "runs" / "mnist-mobilenet_v2-my-own", 300)
    assert runs.latest_folder(runs.settings({"model": "mobilenet_v2"})).name == "mnist-mobilenet_v2"


def test_no_run_to_resume_is_told_with_what_to_do():
    with pytest.raises(ValueError, match=r"no run to resume in runs.mnist-mobilenet_v2_small.*--out"):
        runs.latest_folder(runs.settings({}))


# --- Saved settings --------------------------------------------------------------------------------------------------


def save_settings(folder, about):
    checkpoint.write(folder / "checkpoint.npz", {}, {"about": about})


def test_saved_settings_come_back_and_differences_are_all_named(tmp_path):
    settings = runs.settings({"epochs": 5, "seed": 1})
    save_settings(tmp_path / "run", {"command": settings})
    assert runs.saved_settings(tmp_path / "run", {}) == settings
    assert runs.saved_settings(tmp_path / "run", {"epochs": 5, "width": 1.0}) == settings
    with pytest.raises(ValueError, match=r"epochs was 5, now 6; seed was 1, now 2") as caught:
        runs.saved_settings(tmp_path / "run", {"epochs": 6, "seed": 2, "width": 1.0})
    assert str(tmp_path / "run") in str(caught.value)


def test_a_run_is_not_resumed_with_another_recipe(tmp_path):
    save_settings(tmp_path / "run", {"command": runs.settings({"recipe": "paper"})})
    assert runs.saved_settings(tmp_path / "run", {"recipe": "paper"})["learning_rate"] == 0.045
    with pytest.raises(ValueError, match="recipe was paper, now best"):
        runs.saved_settings(tmp_path / "run", {"recipe": "best"})


@pytest.mark.parametrize("about", [{}, {"command": None}, {"command": {}}, {"command": [1]}, None, "text"], ids=str)
def test_a_checkpoint_without_settings_is_refused_by_name(about, tmp_path):
    save_settings(tmp_path / "run", about)
    with pytest.raises(ValueError, match=r"not written by `python -m npnets train`"):
        runs.saved_settings(tmp_path / "run", {"epochs": 3})
    with pytest.raises(ValueError, match=r"not written by `python -m npnets train`"):
        runs.saved_settings(tmp_path / "run", {})


# --- Files -----------------------------------------------------------------------------------------------------------


def one_epoch():
    epochs = [{"epoch": 1, "step": 4, "learning_rate": 0.1, "train_loss": 1.0, "train_accuracy": 0.5}]
    epochs[0] |= {"test_loss": 1.1, "test_accuracy": 0.4, "seconds": 2.0, "images_per_second": 64.0}
    return training.History(epochs, [[4, 1.0]])


def test_the_history_is_written_after_each_epoch_and_curves_at_an_interruption(tmp_path):
    settings = runs.settings({})
    files = runs.RunFiles(tmp_path, settings, ["train", "--out", tmp_path / "a b"])
    run = SimpleNamespace(history=training.History())
    files.interrupted(run)
    assert not list(tmp_path.iterdir())  # nothing to draw yet
    run.history = one_epoch()
    files.after_epoch(run)
    recorded = json.loads((tmp_path / "history.json").read_text())
    assert recorded["settings"] == settings
    assert recorded["command"] == f"python -m npnets train --out '{tmp_path}/a b'"
    assert {"epochs": recorded["epochs"], "losses": recorded["losses"]} == run.history.to_dict()
    files.interrupted(run)
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG\r\n")
    assert {path.name for path in tmp_path.iterdir()} == {"history.json", "curves.png"}


def test_the_environment_names_what_a_result_depends_on(monkeypatch):
    here = runs.environment()
    assert here["numpy"] == np.__version__ and here["cores"] >= 1
    assert set(here) == {"npnets", "commit", "python", "numpy", "cores"}
    json.dumps(here)
    monkeypatch.setenv("PATH", "")  # no git
    assert runs.environment() == here | {"commit": None}
