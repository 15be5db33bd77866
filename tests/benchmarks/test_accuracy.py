"""Time to accuracy: what is trained, what the others are given, when it ends, and what is made of it."""

import importlib.util
import json

import numpy as np
import pytest

from npnets import augment, datasets, models, optim, runs, training
from npnets.benchmarks import accuracy, figures, harness, measure, recipe, results
from tests import fakes

SETTINGS = {"images": 256, "batch_size": 64, "epochs": 1, "width": 0.25, "warmup": 2}
PEER = measure.Peer("/a/python", "0.0")


def evaluation(step, accuracy, seconds=None, batch_size=100):
    seconds = step / 10 if seconds is None else seconds
    return {
        "step": step,
        "images": step * batch_size,
        "seconds": seconds,
        "accuracy": accuracy,
        "evaluation_seconds": 2.0,
    }


def trained(label="npnets", seed=0, *accuracies, speed=1.0):
    evaluations = [evaluation(100 * (k + 1), a, speed * 10 * (k + 1)) for k, a in enumerate(accuracies)]
    return accuracy.Training(label, seed, 2, 0.99, evaluations)


# --- When it ends ----------------------------------------------------------------------------------------------------


def test_a_watch_evaluates_now_and_then_and_at_the_end():
    asked = iter([0.5, 0.9, 0.98])
    job = {"every": 10, "steps": 25, "target": 0.99, "batch_size": 4}
    watch = harness.Watch(job, lambda: next(asked))
    assert not any(watch(step, step / 2) for step in range(1, 26))
    assert [(one["step"], one["images"], one["seconds"]) for one in watch.evaluations] == [
        (10, 40, 5.0),
        (20, 80, 10.0),
        (25, 100, 12.5),
    ]
    assert [one["accuracy"] for one in watch.evaluations] == [0.5, 0.9, 0.98]
    assert all(one["evaluation_seconds"] >= 0 for one in watch.evaluations)


def test_a_watch_tells_when_the_target_is_reached():
    asked = iter([0.98, 0.99])
    watch = harness.Watch({"every": 1, "steps": 9, "target": 0.99, "batch_size": 4}, lambda: next(asked))
    assert [watch(1, 0.1), watch(2, 0.2)] == [False, True]


def test_the_first_evaluation_at_the_target_counts():
    assert trained("npnets", 0, 0.9, 0.985).reached is None
    assert trained("npnets", 0, 0.9, 0.99, 0.992).reached["step"] == 200


# --- What is trained -------------------------------------------------------------------------------------------------


def test_the_recipe_is_that_of_the_train_command_but_for_the_padding():
    settings = runs.settings({"images": 256, "seed": 3})
    own, (usual, _) = recipe.arguments(settings), runs.assemble(settings)
    fakes.assert_same_bits(own["model"].state_dict(), usual["model"].state_dict())
    assert repr(own["optimizer"]) == repr(usual["optimizer"]) and repr(own["schedule"]) == repr(usual["schedule"])
    assert repr(own["model"]) == repr(usual["model"]).replace("'same'", "'symmetric'")
    assert "'same'" in repr(usual["model"])
    for name in ("epochs", "batch_size", "seed", "label_smoothing", "average"):
        assert own[name] == usual[name]
    np.testing.assert_array_equal(own["train"].images, usual["train"].images)


def test_the_changed_padding_is_that_of_a_model_built_with_it():
    model = recipe.arguments(runs.settings(SETTINGS | {"width": 1.0}))["model"]
    built = models.build("mobilenet_v2_small", num_classes=10, in_channels=1, padding="symmetric", seed=0)
    x = np.random.default_rng(0).standard_normal((3, 28, 28, 1), np.float32)
    for training_mode in (True, False):
        np.testing.assert_array_equal(model(x, training_mode), built(x, training_mode))
    usual = models.build("mobilenet_v2_small", num_classes=10, in_channels=1, seed=0)
    assert not np.allclose(usual(x, True), model(x, True))


def test_the_job_describes_network_and_optimizer():
    job = recipe.job(runs.settings(SETTINGS))
    assert json.loads(json.dumps(job)).keys() == job.keys()
    assert job["steps"] == 4 and job["batch_size"] == 64 and len(job["rates"]) == 3 and min(job["rates"]) > 0
    assert {name: job["optimizer"][name] for name in ("decay", "momentum", "eps", "weight_decay")} == {
        "decay": 0.9,
        "momentum": 0.9,
        "eps": 1e-3,
        "weight_decay": 4e-5,
    }
    decayed = job["optimizer"]["decayed"]
    assert "stem.conv.w" in decayed and not [name for name in decayed if name.endswith(("gamma", "beta", ".b"))]
    assert job["network"]["settings"] == {"width_mult": 0.25}


@pytest.mark.parametrize("unknown", [{"optimizer": "sgd"}, {"label_smoothing": 0.1}, {"weight_average": 0.9}])
def test_what_the_others_do_not_have_is_refused(unknown):
    with pytest.raises(ValueError, match="the peers have RMSProp alone"):
        recipe.job(runs.settings(SETTINGS | unknown))


def test_an_optimizer_is_made_again_for_another_model():
    job = recipe.job(runs.settings(SETTINGS))
    model = fakes.net()
    made = recipe.optimizer(model, job["optimizer"])
    assert repr(made) == repr(optim.RMSProp(model.parameters(), 0.1, weight_decay=4e-5))


def test_the_others_are_given_the_very_batches_that_npnets_draws(tmp_path, monkeypatch):
    train_set = fakes.dataset(200)
    settings = {"train": train_set, "epochs": 2, "batch_size": 32, "label_smoothing": 0.0, "average": None}
    monkeypatch.setattr(
        recipe,
        "arguments",
        lambda _: {k: v for k, v in fakes.recipe(fakes.net(), **settings).items() if k not in ("progress", "threads")},
    )
    recipe.draw(None, tmp_path / "drawn.npz")
    with np.load(tmp_path / "drawn.npz", allow_pickle=False) as file:
        drawn = dict(file)

    seen, labels = [], []
    arguments = fakes.recipe(fakes.net(), **settings)
    model, forward = arguments["model"], arguments["model"].forward

    def spy(x, training=False):
        if training:
            seen.append(x.copy())
        return forward(x, training)

    model.forward = spy
    loss = training.ops.softmax_cross_entropy_forward
    monkeypatch.setattr(
        training.ops,
        "softmax_cross_entropy_forward",
        lambda logits, y, **rest: (labels.append(y), loss(logits, y, **rest))[1],
    )
    training.fit(**arguments | {"test": None})
    assert len(drawn["images"]) == len(seen) == 12
    mean, std = augment.channel_statistics(train_set.images)
    np.testing.assert_array_equal(drawn["mean"], mean)
    for step in range(12):
        np.testing.assert_array_equal(augment.normalize(drawn["images"][step], mean, std), seen[step])
        np.testing.assert_array_equal(drawn["labels"][step], labels[step])
    np.testing.assert_array_equal(drawn["rates"], [arguments["schedule"](step) for step in range(12)])
    np.testing.assert_array_equal(drawn["test_labels"], arguments["test"].labels)
    start = fakes.net().state_dict()
    fakes.assert_same_bits({name: drawn[f"float32.start.{name}"] for name in start}, start)


# --- The comparison --------------------------------------------------------------------------------------------------


@pytest.fixture
def canned(monkeypatch):
    """Replace the processes and the drawing; npnets reaches the target after two evaluations, PyTorch after one."""
    jobs = []

    def run_worker(library, job):
        jobs.append((library.label, job["task"], job["settings"]["seed"]))
        if job["task"] == "compare":
            return {"differences": {"float32.loss 0": 1e-6, "float64.loss 0": 1e-12}}
        reached = [0.9, 0.995] if library.label == "npnets" else [0.99]
        return {"evaluations": [evaluation(100 * (k + 1), a) for k, a in enumerate(reached)]}

    monkeypatch.setattr(measure, "run_worker", run_worker)
    monkeypatch.setattr(recipe, "draw", lambda settings, path: jobs.append(("", "draw", settings["seed"])))
    return jobs


def test_the_check_comes_first_and_the_libraries_take_turns_seed_by_seed(canned):
    setup = measure.Setup(threads=(1, 2), torch=PEER, seeds=(4, 7))
    accuracy.time_to_accuracy(setup, settings=SETTINGS)
    labels = ["npnets", "PyTorch", "PyTorch channels_last"]
    check = [("npnets", "write", 4), ("PyTorch", "compare", 4), ("PyTorch channels_last", "compare", 4)]
    turns = [[("", "draw", seed), *((label, "train", seed) for label in labels)] for seed in (4, 7)]
    assert canned == check + turns[0] + turns[1]


def test_what_there_is_so_far_is_kept_after_each_training(canned):
    kept = []
    setup = measure.Setup(threads=(1, 2), torch=PEER, seeds=(0, 1), keep=kept.append)
    section = accuracy.time_to_accuracy(setup, settings=SETTINGS)
    assert [len(one.comparisons) for one in kept] == [1, 2, 3, 4, 5, 6]
    assert kept[-1] == section and section.method == {"seeds": [0, 1], "threads": [2], "every": 100}


def test_the_section_goes_into_the_results_with_its_figure(canned, tmp_path):
    setup = measure.Setup(threads=(2,), torch=PEER, seeds=(0,))
    section = accuracy.time_to_accuracy(setup, settings=SETTINGS)
    results.save(tmp_path, results.page("time_to_accuracy", section, setup, results.begin(setup)))
    text = (tmp_path / "RESULTS.md").read_text()
    assert "seeds 0, threads 2, every 100" in text and "(results/time_to_accuracy.png)" in text
    assert "99% of the test images" in text and "| npnets | 2 | 1 of 1 | 20 [20, 20] | 20 [20, 20] |" in text


def test_alone_npnets_needs_no_batches_drawn(canned):
    accuracy.time_to_accuracy(measure.Setup(seeds=(0,)), settings=SETTINGS)
    assert canned == [("npnets", "train", 0)]


def test_the_table_shows_median_and_range_and_who_did_not_get_there():
    trainings = [
        trained("npnets", 0, 0.9, 0.99),
        trained("npnets", 1, 0.991),
        trained("npnets", 2, 0.5, 0.6, 0.99),
        trained("PyTorch", 0, 0.9, 0.98, speed=2.0),
    ]
    rows = accuracy.table(trainings).rows
    assert rows[0] == ("npnets", "2", "3 of 3", "20 [10, 30]", "20 [10, 30]", "1,000", "2.0")
    assert rows[1] == ("PyTorch", "2", "0 of 1", "-", "-", "500", "2.0")


def test_the_figure_is_drawn_from_json_and_has_a_line_for_each_training():
    trainings = [trained("npnets", 0, 0.9, 0.99), trained("npnets", 1, 0.95, 1.0), trained("PyTorch", 0, 0.9, 0.98)]
    drawn = figures.time_to_accuracy(json.loads(json.dumps([one.record() for one in trainings])))
    (figure,) = drawn.values()
    over_seconds, over_images = figure.axes
    lines = [line for line in over_images.lines if len(line.get_xdata()) == 2 and line.get_marker() == "."]
    assert [line.get_color() for line in lines] == [figures.COLOURS[name] for name in ("npnets", "npnets", "PyTorch")]
    np.testing.assert_allclose(lines[0].get_xdata(), [10, 20])  # thousands
    np.testing.assert_allclose(lines[0].get_ydata(), [10, 1])
    assert over_seconds.get_yscale() == "log" and {"npnets", "PyTorch"} <= {t.get_text() for t in over_seconds.texts}


def test_npnets_trains_for_real_until_it_is_told_to_stop():
    (npnets_library,) = measure.Setup().libraries()
    job = recipe.job(runs.settings(SETTINGS)) | {
        "benchmark": "time_to_accuracy",
        "task": "train",
        "threads": 2,
        "every": 3,
        "target": 0.0,
    }
    (one,) = measure.run_worker(npnets_library, job)["evaluations"]
    assert (one["step"], one["images"]) == (3, 192) and one["seconds"] > 0 and 0 < one["accuracy"] < 1
    assert len(datasets.load("mnist", "test")) * one["accuracy"] == pytest.approx(round(10_000 * one["accuracy"]))


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")
def test_pytorch_takes_the_same_steps_and_trains():
    setup = measure.Setup(threads=(2,), torch=measure.find_torch(), seeds=(0,))
    section = accuracy.time_to_accuracy(setup, every=4, settings=SETTINGS)
    own, *others = (training.evaluations[-1] for training in section.comparisons)
    assert len(others) == 2 and all(one["images"] == own["images"] for one in others)
    assert all(abs(one["accuracy"] - own["accuracy"]) < 0.02 for one in others)
