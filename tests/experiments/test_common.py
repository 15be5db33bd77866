"""What the experiments on small MobileNets share: images of another size, the recipe, and the table."""

import numpy as np
import pytest

from npnets import cost, datasets, experiments, models, optim, runs, training
from npnets.experiments import common
from npnets.experiments.records import Record, Records
from tests import fakes
from tests.experiments import TINY, fake_record

SETTINGS = common.RECIPE | {"seed": 3, "epochs": 2, "batch_size": 16, "warmup": 2}


def data(size=16, channels=3):
    train, test = (fakes.dataset(64, size=size, channels=channels, seed=seed, name="cifar10") for seed in (0, 1))
    return experiments.Data(train, test)


def trained(fit, sets=None, **changes):
    """Return what ``common.train`` returns with this ``fit``, for a small network."""
    sets = sets or data()
    model = models.mobilenet_v1_small(**common.for_images(sets, width_mult=0.25, seed=1))
    more = {name: changes.pop(name) for name in ("optimizer", "schedule", "resolution_mult") if name in changes}
    return common.train(model, SETTINGS | changes, sets, fit, **more)


def returning(history, diverged=None, calls=None):
    """Return a ``fit`` that does nothing and returns this."""

    def fit(*arguments, **keywords):
        if calls is not None:
            calls.append((arguments, keywords))
        return history, diverged

    return fit


def history_of(*accuracies):
    epochs = [dict.fromkeys(training.RECORD, 0.5) | {"test_accuracy": a, "test_loss": 1 - a} for a in accuracies]
    return fakes.History(epochs)


# --- Images of another size ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size, out", [(32, 28), (32, 20), (28, 18), (5, 5), (3, 7), (1, 4), (6, 1)])
def test_area_weights_are_the_means_of_pixels_cut_into_equal_pieces(size, out):
    x = np.random.default_rng(size).normal(size=size)
    pieces = np.repeat(x, out).reshape(out, size)  # each pixel in ``out`` pieces, of which ``size`` make a new one
    assert common.area_weights(size, out) @ x == pytest.approx(pieces.mean(axis=1), rel=1e-12)


@pytest.mark.parametrize("rho, size", [(0.875, 28), (0.75, 24), (0.625, 20)])
def test_a_smaller_image_has_the_mean_of_the_area_under_each_pixel(rho, size):
    large = fakes.dataset(3, size=32, channels=3)
    small = common.resized(large, rho)
    assert small.images.shape == (3, size, size, 3) and small.images.dtype == np.uint8
    assert small.name == f"fake-{size}x{size}" and np.array_equal(small.labels, large.labels)
    pieces = np.repeat(np.repeat(large.images, size, axis=1), size, axis=2)  # (3, 32 size, 32 size, 3)
    expected = pieces.reshape(3, size, 32, size, 32, 3).mean(axis=(2, 4))
    assert np.abs(small.images - expected).max() <= 0.5 + 1e-4  # but for rounding


def test_height_and_width_are_not_confused_and_no_image_is_left_out():
    images = np.random.default_rng(0).integers(0, 256, (1003, 4, 8, 1)).astype(np.uint8)
    tall = common.resized(datasets.Dataset(images, np.zeros(1003, int), "tall", ("a",)), 0.5)
    expected = images.reshape(1003, 2, 2, 4, 2, 1).mean(axis=(2, 4))
    assert tall.images.shape == (1003, 2, 4, 1) and np.abs(tall.images - expected).max() <= 0.5 + 1e-4


def test_at_full_resolution_nothing_is_done():
    one = fakes.dataset(3)
    assert common.resized(one, 1.0) is one
    with pytest.raises(ValueError, match="pixels of a resized image must be at least 1"):
        common.resized(one, 0.01)


@pytest.mark.parametrize(
    "dataset, size, rho, shift, mirrored",
    [("cifar10", 32, 1.0, 4, True), ("cifar10", 20, 0.625, 3, True), ("cifar10", 24, 0.75, 3, True),
     ("mnist", 28, 1.0, 2, False)],
)  # fmt: skip
def test_images_are_shifted_and_mirrored_as_their_data_set_wants_it(dataset, size, rho, shift, mirrored):
    images = np.zeros((4000, size, size, 1), np.uint8)
    images[:, 10, 10] = 255  # one bright pixel, not in the middle
    found = common.crop_and_mirror(dataset, rho)(images, np.random.default_rng(0))
    _, row, column, _ = np.nonzero(found)
    there = set(range(10 - shift, 10 + shift + 1))
    assert set(row) == there
    assert set(column) == there | ({size - 1 - k for k in there} if mirrored else set())


# --- The recipe ------------------------------------------------------------------------------------------------------


def test_the_recipe_is_that_of_the_paper_but_for_the_learning_rate():
    assert {"rms_decay": 0.9, "momentum": 0.9, "weight_decay": 4e-5, "optimizer": "rmsprop"}.items() <= (
        common.RECIPE.items()
    )
    assert common.RECIPE.keys() - runs.SETTINGS.keys() == {"train_images", "test_images"}
    assert common.SMALL.keys() <= common.RECIPE.keys()


def test_the_settings_arrive_in_the_training():
    calls, sets = [], data()
    trained(returning(history_of(0.5), calls=calls), sets, optimizer=None)
    (model, train, test), given = calls[0]
    assert (train, test) == (sets.train, sets.test)
    assert (given["epochs"], given["batch_size"], given["seed"]) == (2, 16, 3)
    schedule = optim.warmup(optim.cosine(0.01, 8), 2)  # 64 images, 16 a step, 2 epochs
    assert [given["schedule"](step) for step in range(9)] == [schedule(step) for step in range(9)]
    expected = optim.RMSProp(model.parameters(), 0.01, decay=0.9, momentum=0.9, eps=1e-3, weight_decay=4e-5)
    assert repr(given["optimizer"]) == repr(expected) and given["optimizer"].names == expected.names
    assert given["label_smoothing"] == 0.0 and given["augment"] is not None


def test_an_experiment_may_bring_its_own_optimizer_schedule_and_resolution():
    calls, own = [], object()
    found = trained(returning(history_of(0.5), calls=calls), optimizer=own, schedule=own, resolution_mult=0.625)
    (model, train, test), given = calls[0]
    assert given["optimizer"] is own and given["schedule"] is own
    assert train.images.shape[1:] == test.images.shape[1:] == (10, 10, 3)
    assert found["cost"] == {
        "input": [10, 10, 3],
        "params": cost.profile(model, (10, 10, 3)).params,
        "macs": cost.profile(model, (10, 10, 3)).macs,
    }


def test_the_last_accuracy_counts_and_not_the_best():
    found = trained(returning(history_of(0.25, 0.75, 0.5)))
    assert found["final"] == {"loss": 0.5, "accuracy": 0.5} and found["diverged"] is None
    assert [epoch["test_accuracy"] for epoch in found["history"]["epochs"]] == [0.25, 0.75, 0.5]


def test_a_training_that_diverged_has_no_last_accuracy():
    diverged = {"step": 7, "message": "the loss is nan"}
    found = trained(returning(history_of(0.25), diverged))
    assert found["final"] is None and found["diverged"] == diverged


def test_the_network_is_for_the_images():
    assert common.for_images(data(channels=1), seed=5) == {"num_classes": 4, "in_channels": 1, "seed": 5}


# --- The table -------------------------------------------------------------------------------------------------------


def some_records():
    def record(variant, seed, accuracy, seconds):
        final = None if accuracy is None else {"accuracy": accuracy, "loss": 1.0}
        costs = {"input": [32, 32, 3], "params": 1234, "macs": 56789}
        return Record(fake_record(variant, seed, final=final, cost=costs, seconds=seconds))

    finals = [("slow", 0, 0.5, 10), ("slow", 1, 0.7, 30), ("slow", 2, 0.6, 20), ("fast", 0, None, 1)]
    finals += [("endless", 0, None, 1), ("endless", 1, 0.4, 3)]
    return Records(TINY, [record(*one) for one in finals])


def test_results_are_over_the_seeds_that_did_not_diverge():
    slow, fast, endless = common.results(some_records())
    assert slow[:4] == ("slow", 3, 1234, 56789) and slow[7:] == (0, 20.0)
    assert (slow.accuracy, slow.lowest, slow.highest) == (pytest.approx(0.6), 0.5, 0.7)
    assert np.isnan([fast.accuracy, fast.lowest, fast.highest]).all() and fast.diverged == 1
    assert (endless.accuracy, endless.lowest, endless.highest, endless.diverged) == (0.4, 0.4, 0.4, 1)
    assert common.final_accuracies(some_records(), "endless") == pytest.approx([np.nan, 0.4], nan_ok=True)


def test_the_table_has_a_line_for_each_variant():
    slow, fast, endless = common.results_table(some_records()).splitlines()[2:]
    assert slow.split() == ["slow", "3", "1,234", "56,789", "60.00%", "50.00%", "70.00%", "20", "s"]
    assert "(1 diverged)" in fast and "%" not in fast
    assert "40.00% (1 diverged)" in endless
