"""The training loop: what it draws, what it computes and remembers, and how it stops.

``test_checkpoint.py`` has what concerns saving and resuming.
"""

import json
import signal
import threading

import numpy as np
import pytest

from npnets import nn, optim, parallel, training
from npnets.augment import channel_statistics, normalize
from npnets.checkpoint import Checkpoint, read
from npnets.datasets import Dataset
from npnets.probes import Probes
from npnets.training import RECORD, Evaluation, History, Interrupted, Shards, TrainingDiverged, evaluate, fit
from tests import fakes

STEPS = 6  # an epoch of 200 images in batches of 32; 8 images are left over


class Recorder:
    """A callback that notes what it is told."""

    def __init__(self):
        self.events = []

    def start(self, run):
        self.events.append(f"start {run.epoch}.{run.step_in_epoch}")

    def before_step(self, step):
        self.events.append(f"before {step}")

    def after_step(self, step):
        self.events.append(f"after {step}")

    def after_epoch(self, run):
        self.events.append(f"epoch {run.epoch}")

    def interrupted(self, run):
        self.events.append(f"interrupted {run.epoch}.{run.step_in_epoch}")


class After:
    """A callback that does something after one of the steps."""

    def __init__(self, step, action):
        self.step, self.action = step, action

    def after_step(self, step):
        if step == self.step:
            self.action()


class RecordedDraws:
    """An augmentation that changes nothing and notes what it is given: images of one grey, and a generator."""

    def __init__(self):
        self.images, self.draws = [], []

    def __call__(self, images, rng):
        self.images.append(images[:, 0, 0, 0].tolist())
        self.draws.append(rng.permutation(200).tolist())
        return images


# --- Learning --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [fakes.net, fakes.mlp])
def test_the_loss_falls_and_the_classes_are_learned(make):
    history = fit(**fakes.plain(make()))
    losses = history["train_loss"]
    assert losses[0] > losses[1] > losses[2]
    assert losses[2] < 0.5 * losses[0]
    assert history["test_accuracy"][-1] > 0.9


@pytest.mark.parametrize("n", [2, 8])
def test_the_same_seed_gives_the_same_bits_on_any_number_of_threads(n, monkeypatch):
    monkeypatch.setattr(parallel, "PIECE_BYTES", 2048)  # so that images of 8x8 pixels are cut into many pieces
    assert len(parallel.cut(32, 8 * 8 * 8 * 4)) == 32
    one, many = fakes.recipe(threads=1), fakes.recipe(threads=n)
    histories = fit(**one), fit(**many)
    fakes.assert_same_bits(fakes.state(many), fakes.state(one))
    assert fakes.without_times(histories[0]) == fakes.without_times(histories[1])


def test_another_seed_gives_other_weights():
    one, other = fakes.plain(), fakes.plain(seed=6)
    fakes.assert_same_bits(fakes.state(one), fakes.state(other))  # the same start, and so
    fit(**one)
    fit(**other)
    assert not np.array_equal(one["model"].stem.conv.w.value, other["model"].stem.conv.w.value)


def test_the_first_training_loss_is_the_smoothed_cross_entropy_of_the_first_batch():
    model = fakes.net()
    model.classifier.w.value = np.random.default_rng(3).normal(size=model.classifier.w.shape)
    train = fakes.dataset(64)
    logits = model(normalize(train.images, *channel_statistics(train.images)), training=True).astype(np.float64)
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    target = 0.8 * np.eye(4)[train.labels] + 0.2 / 4
    expected = -np.mean((target * log_p).sum(axis=1))
    history = fit(**fakes.plain(model, train=train, batch_size=64, epochs=1, label_smoothing=0.2))
    assert history["train_loss"][0] == pytest.approx(expected, rel=1e-5)
    assert history["train_accuracy"][0] == np.mean(logits.argmax(axis=1) == train.labels)


def test_float64_models_are_trained_in_float64():
    model = fakes.mlp(dtype=np.float64)
    fit(**fakes.plain(model, epochs=1))
    assert model.classifier.w.value.dtype == model.classifier.w.grad.dtype == np.float64


# --- What is drawn ---------------------------------------------------------------------------------------------------


def test_the_schedule_sets_the_learning_rate_of_each_step():
    asked, used = [], []

    def schedule(step):
        asked.append(step)
        return 0.01 / (1 + step)

    class Rates:
        def before_step(self, step):
            used.append(arguments["optimizer"].learning_rate)

    arguments = fakes.plain(schedule=schedule, epochs=2, callbacks=[Rates()])
    history = fit(**arguments)
    assert asked == list(range(2 * STEPS))
    assert used == [0.01 / (1 + step) for step in range(2 * STEPS)]
    assert history["learning_rate"] == [used[STEPS - 1], used[-1]]


def test_without_a_schedule_the_optimizers_own_rate_is_kept():
    model = fakes.mlp()
    assert set(fit(**fakes.plain(model, optimizer=optim.SGD(model.parameters(), 0.03)))["learning_rate"]) == {0.03}


def test_every_epoch_has_another_order_and_leaves_the_few_last_images_out():
    draws = RecordedDraws()
    fit(**fakes.plain(fakes.mlp(), train=fakes.numbered(200), batch_size=32, epochs=3, augment=draws))
    assert [len(batch) for batch in draws.images] == [32] * 3 * STEPS
    epochs = np.reshape(draws.images, (3, STEPS * 32)).tolist()
    assert all(len(set(epoch)) == 192 for epoch in epochs)
    assert epochs[0] != sorted(epochs[0]) and epochs[0] != epochs[1] != epochs[2] != epochs[0]
    left_out = [set(range(200)) - set(epoch) for epoch in epochs]
    assert left_out[0] != left_out[1]  # not the same images each time


def test_shards_that_are_not_shuffled_keep_the_images_of_a_batch_together():
    seen = RecordedDraws()
    arguments = {"epochs": 3, "train": fakes.numbered(200), "augment": seen, "order": Shards(64, shuffled=False)}
    fit(**fakes.plain(fakes.mlp(), **arguments))
    epochs = [seen.images[k * STEPS : (k + 1) * STEPS] for k in range(3)]
    for batches in epochs:
        assert sorted(map(tuple, batches)) == [tuple(range(start, start + 32)) for start in range(0, 192, 32)]
        assert all(batches[k + 1][0] == batches[k][0] + 32 for k in range(0, 6, 2))  # both of a shard, in its order
    assert epochs[0] != epochs[1] != epochs[2]  # but the shards come in a new order


def test_shards_that_are_shuffled_mix_the_images_of_a_shard_and_no_others():
    seen = RecordedDraws()
    arguments = {"epochs": 2, "train": fakes.numbered(200), "augment": seen, "order": Shards(64)}
    fit(**fakes.plain(fakes.mlp(), **arguments))
    shards = [seen.images[k] + seen.images[k + 1] for k in range(0, 2 * STEPS, 2)]
    for images in shards:
        first = min(images)
        assert first % 64 == 0 and sorted(images) == list(range(first, first + 64)) != images
    assert len({tuple(images) for images in shards}) == 6


@pytest.mark.parametrize("shuffled", [False, True])
def test_an_order_by_shards_has_every_image_once_and_those_of_no_whole_shard_last(shuffled):
    order = Shards(30, shuffled)(100, np.random.default_rng(0))
    assert sorted(order) == list(range(100)) and sorted(order[90:]) == list(range(90, 100))
    assert order.tolist() == Shards(30, shuffled)(100, np.random.default_rng(0)).tolist()
    assert Shards(200, shuffled)(3, np.random.default_rng(0)).size == 3
    with pytest.raises(ValueError, match="size of a shard"):
        Shards(0)(3, np.random.default_rng(0))


def test_a_run_is_not_resumed_with_another_order_or_other_statistics(tmp_path):
    path = tmp_path / "checkpoint.npz"
    order, statistics = Shards(64), (0, 1)
    fit(**fakes.plain(fakes.mlp(), order=order, statistics=statistics, callbacks=[Checkpoint(path)]))
    again = Checkpoint(path, resume=True)
    fit(**fakes.plain(fakes.mlp(), order=order, statistics=statistics, callbacks=[again]))
    with pytest.raises(ValueError, match=r"order was 'Shards\(size=64, shuffled=True\)', now 'Shards\(size=64, shuf"):
        fit(**fakes.plain(fakes.mlp(), order=Shards(64, False), statistics=statistics, callbacks=[again]))
    with pytest.raises(ValueError, match=r"statistics was \[0.0, 1.0\], now None"):
        fit(**fakes.plain(fakes.mlp(), order=order, callbacks=[again]))


def test_given_statistics_normalize_training_and_test_images_alike():
    train, test, model = fakes.dataset(64), fakes.dataset(70, seed=1), fakes.mlp()
    logits = model(normalize(train.images, 0.25, 0.5), training=True)
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    expected = -log_p[np.arange(64), train.labels].mean()
    arguments = fakes.plain(fakes.mlp(), train=train, test=test, batch_size=64, epochs=1, statistics=(0.25, 0.5))
    history = fit(**arguments)
    assert history["train_loss"][0] == pytest.approx(expected, rel=1e-5)
    found = evaluate(arguments["model"], test, mean=0.25, std=0.5)
    assert history["test_loss"][0] == pytest.approx(found.loss)


def test_augmentation_is_drawn_anew_for_each_step_and_the_same_for_the_same_seed():
    first, again, other = RecordedDraws(), RecordedDraws(), RecordedDraws()
    for draws, seed in ((first, 5), (again, 5), (other, 6)):
        fit(**fakes.plain(fakes.mlp(), train=fakes.numbered(), epochs=2, augment=draws, seed=seed))
    assert len(first.draws) == 2 * STEPS  # of the training images only
    assert len({tuple(draw) for draw in first.draws}) == 2 * STEPS
    assert (again.draws, again.images) == (first.draws, first.images)
    assert not any(draw in first.draws for draw in other.draws)


def test_augmentation_and_order_do_not_share_their_random_numbers():
    draws = RecordedDraws()
    fit(**fakes.plain(fakes.mlp(), train=fakes.numbered(200), epochs=2, augment=draws))
    for images, draw in zip(draws.images, draws.draws):
        assert images != draw[:32]


def test_augmentation_is_applied():
    dark = fit(**fakes.plain(fakes.mlp(), augment=lambda images, rng: np.zeros_like(images)))
    assert dark["test_accuracy"][-1] < 0.6  # nothing could be learned of black images


# --- Evaluation ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained():
    """Return a trained model with dropout, and the arguments of ``fit`` it was trained with."""
    arguments = fakes.plain(fakes.net(dropout=0.5))
    fit(**arguments)
    return arguments["model"], arguments


@pytest.mark.parametrize("batch_size", [1, 7, 35, 69, 70, 500])
def test_evaluation_covers_every_image_whatever_the_batch_size(trained, batch_size):
    model, arguments = trained
    test, statistics = arguments["test"], channel_statistics(arguments["train"].images)
    result = evaluate(model, test, mean=statistics[0], std=statistics[1], batch_size=batch_size)
    logits = np.concatenate([model(normalize(image[None], *statistics)) for image in test.images]).astype(np.float64)
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    assert isinstance(result, Evaluation)
    assert result.predictions.tolist() == logits.argmax(axis=1).tolist()
    assert result.accuracy == np.mean(logits.argmax(axis=1) == test.labels)
    assert result.loss == pytest.approx(-log_p[np.arange(70), test.labels].mean(), rel=1e-5)


def test_evaluation_is_in_inference_mode_and_changes_no_state(trained):
    model, arguments = trained
    before = fakes.state(arguments)
    modes = []
    forward = model.dropout.forward
    model.dropout.forward = lambda x, training=False: modes.append(training) or forward(x, training)
    try:
        results = [evaluate(model, arguments["test"], mean=0.3, std=0.2, batch_size=32) for _ in range(2)]
    finally:
        del model.dropout.forward
    assert modes == [False] * 6
    fakes.assert_same_bits(fakes.state(arguments), before)
    assert results[0].loss == results[1].loss


def test_fit_evaluates_after_each_epoch_with_the_statistics_of_the_training_images(trained):
    _, arguments = trained
    arguments = fakes.plain(fakes.net(), test=fakes.dataset(70, seed=4))
    seen = []

    class Evaluate:
        def after_epoch(self, run):
            mean, std = channel_statistics(run.train.images)
            seen.append(evaluate(run.model, run.test, mean=mean, std=std))

    history = fit(**arguments, callbacks=[Evaluate()])
    assert history["test_loss"] == [result.loss for result in seen]
    assert history["test_accuracy"] == [result.accuracy for result in seen]


def test_without_a_test_set_there_is_no_test_result():
    history = fit(**fakes.plain(fakes.mlp(), test=None, epochs=2))
    assert history["test_loss"] == history["test_accuracy"] == [None, None]
    assert "test" not in repr(history)


def test_averaged_weights_are_evaluated_and_the_weights_come_back():
    averaged, raw = fakes.recipe(), fakes.recipe(average=None)
    histories = fit(**averaged), fit(**raw)
    fakes.assert_same_bits(averaged["model"].state_dict(), raw["model"].state_dict())
    assert histories[0]["train_loss"] == histories[1]["train_loss"]
    mean, std = channel_statistics(averaged["train"].images)
    with averaged["average"].applied():
        expected = evaluate(averaged["model"], averaged["test"], mean=mean, std=std)
    assert histories[0]["test_loss"][-1] == expected.loss
    assert histories[0]["test_loss"][-1] != histories[1]["test_loss"][-1]
    assert averaged["average"].updates == 3 * STEPS


@pytest.mark.parametrize("test", [fakes.dataset(70, channels=3), fakes.dataset(70, size=12)])
def test_test_images_that_do_not_fit_are_found_before_the_first_step(test):
    recorder = Recorder()
    with pytest.raises(ValueError, match=r"channels|shape|features|pixels|images"):
        fit(**fakes.plain(fakes.mlp(), test=test, callbacks=[recorder]))
    assert not any(event.startswith("after") for event in recorder.events)


def test_an_empty_test_set_is_refused_by_name():
    empty = Dataset(np.empty((0, 8, 8, 1), np.uint8), np.empty(0, np.int64), "nothing", ("a", "b", "c", "d"))
    with pytest.raises(ValueError, match=r"nothing|empty|no images"):
        evaluate(fakes.mlp(), empty, mean=0.0, std=1.0)
    recorder = Recorder()
    with pytest.raises(ValueError, match=r"nothing|empty|no images"):
        fit(**fakes.plain(fakes.mlp(), test=empty, callbacks=[recorder]))
    assert recorder.events == []


@pytest.mark.parametrize("batch_size", [0, -1, 2.5, "8"])
def test_evaluation_refuses_a_batch_size_that_is_none(batch_size):
    with pytest.raises(ValueError, match="batch_size must be"):
        evaluate(fakes.mlp(), fakes.dataset(8), mean=0.0, std=1.0, batch_size=batch_size)


def test_a_confusion_matrix_counts_each_pair():
    rng = np.random.default_rng(0)
    labels, predictions = rng.integers(0, 5, (2, 300))
    counts = training.confusion_matrix(labels, predictions, 6)
    for k in range(6):
        for j in range(6):
            assert counts[k, j] == np.sum((labels == k) & (predictions == j))


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int32])
def test_a_confusion_matrix_of_small_integers_has_room_for_all_pairs(dtype):
    each = np.arange(100, dtype=dtype)
    assert np.array_equal(training.confusion_matrix(each, each[::-1], 100), np.eye(100)[::-1])


@pytest.mark.parametrize(
    ("labels", "predictions", "words"),
    [
        ([0, 1], [0], "must be as many"),
        ([[0], [1]], [[0], [1]], "must be as many"),
        ([0, 3], [0, 1], "from 0 to 2, got 0 to 3"),
        ([0], [-1], "got -1 to 0"),
    ],
)
def test_a_confusion_matrix_of_what_does_not_fit_is_refused(labels, predictions, words):
    with pytest.raises(ValueError, match=words):
        training.confusion_matrix(labels, predictions, 3)


# --- Callbacks -------------------------------------------------------------------------------------------------------


def test_callbacks_are_told_in_order():
    recorder, order = Recorder(), []

    class Second:  # has one of the methods only
        def after_step(self, step):
            order.append(len(recorder.events))

    fit(**fakes.plain(fakes.mlp(), epochs=2, batch_size=100, callbacks=[recorder, Second(), object()]))
    expected = ["start 0.0", "before 0", "after 0", "before 1", "after 1", "epoch 1"]
    expected += ["before 2", "after 2", "before 3", "after 3", "epoch 2"]
    assert recorder.events == expected
    assert order == [3, 5, 8, 10]  # told after the first


def test_after_step_sees_the_updated_weights_and_after_epoch_the_record():
    model, seen, records = fakes.mlp(), [], []

    class Look:
        def before_step(self, step):
            seen.append(model.classifier.w.value.copy())

        def after_step(self, step):
            assert not np.array_equal(model.classifier.w.value, seen[-1])

        def after_epoch(self, run):
            records.append((run.epoch, run.step_in_epoch, len(run.history)))

    fit(**fakes.plain(model, epochs=2, callbacks=[Look()]))
    assert len(seen) == 2 * STEPS
    assert records == [(1, 0, 1), (2, 0, 2)]


def test_probes_change_no_bit_of_a_training():
    watched, unwatched = fakes.recipe(), fakes.recipe()
    names = ["blocks.1", "stem.conv.w", "classifier.w.grad"]
    probes = Probes(watched["model"], names, every=5, bins=(-1, 1, 4))
    histories = fit(**watched, callbacks=[probes]), fit(**unwatched)
    fakes.assert_same_bits(fakes.state(watched), fakes.state(unwatched))
    assert fakes.without_times(histories[0]) == fakes.without_times(histories[1])
    assert probes.steps.tolist() == [0, 5, 10, 15]
    assert not any(module.observers for _, module in watched["model"].named_modules())


# --- Bad settings ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 201}, "batch_size 201 is larger than the training set, which has 200 images"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"batch_size": 2.0}, "batch_size must be an integer"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"threads": 0}, "threads must be at least 1"),
        ({"label_smoothing": 1.5}, "label_smoothing"),
        ({"label_smoothing": -0.1}, "label_smoothing"),
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused_before_anything_happens(change, message, tmp_path):
    arguments = fakes.plain(fakes.mlp(), **change)
    before = fakes.state(arguments)
    with pytest.raises(ValueError, match=message):
        fit(**arguments, callbacks=[Checkpoint(tmp_path / "run" / "checkpoint.npz")])
    assert not (tmp_path / "run").exists()
    fakes.assert_same_bits(fakes.state(arguments), before)


def test_a_batch_may_be_the_whole_set():
    history = fit(**fakes.plain(fakes.mlp(), batch_size=200, epochs=1))
    assert history["step"] == [1]


# --- A loss that is not finite ---------------------------------------------------------------------------------------


def too_fast(learning_rate=1e30, **changes):
    """Return arguments of a training that diverges: SGD with an absurd learning rate and no batch norm."""
    model = fakes.mlp(batch_norm=False, activation="relu")
    return fakes.plain(model, optimizer=optim.SGD(model.parameters(), learning_rate, momentum=0.9), **changes)


def finite(path):
    """Return whether all arrays of a checkpoint are finite."""
    arrays, _ = read(path)
    return all(np.isfinite(array).all() for array in arrays.values() if array.dtype.kind == "f")


def test_a_diverged_training_tells_step_learning_rate_and_what_to_try():
    with pytest.raises(TrainingDiverged) as caught:
        fit(**too_fast(schedule=optim.warmup(optim.constant(1e30), 4)))
    message = str(caught.value)
    assert "\n" not in message
    for part in ("nan", "step", "learning rate", "try", "smaller", "warm-up"):
        assert part in message
    assert "e+2" in message or "e+30" in message  # the learning rate of that step


def test_the_step_of_divergence_is_the_one_whose_loss_is_not_finite():
    recorder = Recorder()
    with pytest.raises(TrainingDiverged) as caught:
        fit(**too_fast(callbacks=[recorder]))
    step = int(str(caught.value).split("at step ")[1].split()[0])
    assert recorder.events[-1] == f"before {step}"  # and it was not done


def test_a_diverged_training_keeps_the_checkpoint_before_it(tmp_path):
    path = tmp_path / "checkpoint.npz"
    schedule = lambda step: 0.1 if step < 8 else 1e30  # noqa: E731
    with pytest.raises(TrainingDiverged):
        fit(**too_fast(schedule=schedule), callbacks=[Checkpoint(path, every=4)])
    assert read(path)[1]["step_in_epoch"] == 2 and finite(path)  # of the eighth step, the second of epoch 2


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    path = tmp_path / "checkpoint.npz"
    schedule = lambda step: 0.1 if step < 8 else 1e39  # noqa: E731
    with pytest.raises(TrainingDiverged):
        fit(**too_fast(schedule=schedule), callbacks=[Checkpoint(path, every=1)])
    assert finite(path)


def spoiled_at_the_end(**changes):
    """Return arguments of a training whose very last step makes weights that are not finite."""
    return too_fast(schedule=lambda step: 0.1 if step < 3 * STEPS - 1 else 1e39, **changes)


def test_a_test_loss_that_is_not_finite_stops_the_training():
    with pytest.raises(TrainingDiverged, match=f"test loss is .* step {3 * STEPS}"):
        fit(**spoiled_at_the_end())


@pytest.mark.parametrize("test", [None, fakes.dataset(70, seed=1)], ids=["no test set", "test set"])
def test_weights_that_the_last_step_spoiled_do_not_end_a_training_well(test, tmp_path):
    path = tmp_path / "checkpoint.npz"
    with pytest.raises(TrainingDiverged):
        fit(**spoiled_at_the_end(test=test), callbacks=[Checkpoint(path, every=4)])
    assert finite(path)


def test_divergence_in_a_helper_thread_says_nothing_but_its_own_message():
    # A thread has NumPy's default error state, which warns, unless it is given the caller's.
    class Overflows(nn.Module):
        def forward(self, x, training=False):
            both = threading.Barrier(2)  # so that the helper gets one of the two pieces
            parallel.run(lambda k: both.wait(60) + np.exp(np.float32(1000)), range(2))
            return np.full((len(x), 4), np.nan)

    model = nn.Sequential(net=fakes.mlp(), overflow=Overflows())
    with pytest.raises(TrainingDiverged):
        fit(**fakes.plain(model, threads=2))


def test_a_diverged_training_leaves_no_probe_on_the_model():
    arguments = too_fast()
    probes = Probes(arguments["model"], "hidden.0", every=1)
    with pytest.raises(TrainingDiverged):
        fit(**arguments, callbacks=[probes])
    assert not any(module.observers for _, module in arguments["model"].named_modules())


# --- The history -----------------------------------------------------------------------------------------------------


def test_the_history_tells_what_happened():
    history = fit(**fakes.recipe(fakes.mlp()))
    assert len(history) == 3 and history["epoch"] == [1, 2, 3]
    assert history["step"] == [STEPS, 2 * STEPS, 3 * STEPS]
    for name in ("train_accuracy", "test_accuracy"):
        assert all(0 <= value <= 1 for value in history[name])
    for name in ("train_loss", "test_loss"):
        assert all(0 < value < 10 for value in history[name])
    seconds = history["seconds"]
    assert 0 < seconds[0] < seconds[1] < seconds[2]
    for record, before in zip(history.epochs, [0, *seconds]):
        assert record["images_per_second"] == pytest.approx(192 / (record["seconds"] - before))
    assert [step for step, _ in history.losses] == list(range(1, 3 * STEPS + 1))
    assert history["train_loss"][1] == pytest.approx(np.mean([loss for _, loss in history.losses[STEPS : 2 * STEPS]]))


def test_losses_are_means_since_the_entry_before_across_the_epochs():
    batches = []

    class Losses:
        def after_step(self, step):
            batches.append(self.run._sums[0])

        def start(self, run):
            self.run = run

    history = fit(**fakes.plain(fakes.mlp(), train=fakes.dataset(208), batch_size=2, epochs=2, callbacks=[Losses()]))
    sums = np.array(batches).reshape(2, 104)  # of the epoch so far
    losses = np.diff(sums, axis=1, prepend=0).ravel()
    assert [step for step, _ in history.losses] == list(range(2, 209, 2))
    np.testing.assert_allclose([loss for _, loss in history.losses], losses.reshape(-1, 2).mean(axis=1), rtol=1e-10)


def test_a_history_survives_json(tmp_path):
    history = fit(**fakes.plain(fakes.mlp(), test=None, epochs=2))
    text = json.dumps(history.to_dict(), allow_nan=False)
    again = History.from_dict(json.loads(text))
    assert again.epochs == history.epochs and again.losses == history.losses
    assert len(again.losses) == 2 * STEPS
    path = tmp_path / "history.json"
    path.write_text(json.dumps({"settings": {}} | history.to_dict()))
    assert History.load(path)["train_loss"] == history["train_loss"]
    assert all(type(value) in (int, float, type(None)) for record in history.epochs for value in record.values())


def test_a_history_made_from_another_does_not_share_its_records():
    record = dict.fromkeys(RECORD, 1)
    data = {"epochs": [dict(record)], "losses": [[1, 2.0]]}
    history = History.from_dict(data)
    history.epochs[0]["epoch"] = 7
    history.losses[0][1] = 7.0
    assert data == {"epochs": [record], "losses": [[1, 2.0]]}


def test_an_empty_history_prints():
    assert repr(History()) == "History(0 epochs)"
    assert History()["train_loss"] == []


@pytest.mark.parametrize("content", ["", "{}", "[1, 2]", '{"epochs": 3}', "not json"])
def test_a_file_that_is_no_history_is_refused_by_name(content, tmp_path):
    path = tmp_path / "history.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"history\.json"):
        History.load(path)


# --- Ctrl-C ----------------------------------------------------------------------------------------------------------


def test_ctrl_c_stops_between_two_steps_and_tells_the_callbacks():
    recorder = Recorder()
    with pytest.raises(Interrupted):
        fit(**fakes.plain(fakes.mlp(), callbacks=[After(7, fakes.ctrl_c), recorder]))
    assert recorder.events[-2:] == ["after 7", "interrupted 1.2"]


def test_ctrl_c_within_a_step_lets_the_step_finish():
    def schedule(step):
        if step == 7:
            fakes.ctrl_c()
        return 0.1

    recorder = Recorder()
    with pytest.raises(Interrupted):
        fit(**fakes.plain(fakes.mlp(), schedule=schedule, callbacks=[recorder]))
    assert recorder.events[-2:] == ["after 7", "interrupted 1.2"]


def test_ctrl_c_during_the_evaluation_gives_the_evaluation_up():
    arguments = fakes.recipe(test=fakes.dataset(1030, seed=1))
    passes = []

    def at_second_batch(logits):
        if len(logits) > 32:  # not a training batch
            passes.append(len(logits))
            if len(passes) == 2:
                weights.append(arguments["model"].stem.conv.w.value.copy())
                fakes.ctrl_c()

    weights, recorder = [], Recorder()
    arguments["model"].observers.append(at_second_batch)
    with pytest.raises(Interrupted):
        fit(**arguments, callbacks=[recorder])
    assert len(passes) == 2 and sum(passes) < 1030  # and no third
    assert recorder.events[-1] == f"interrupted 0.{STEPS}"
    assert not np.array_equal(arguments["model"].stem.conv.w.value, weights[0])  # the averages were taken out again


def test_a_second_ctrl_c_stops_at_once_and_saves_nothing(tmp_path):
    path = tmp_path / "checkpoint.npz"
    saved = []

    def schedule(step):
        if step == 7:
            saved.append(path.read_bytes())
            fakes.ctrl_c()
            fakes.ctrl_c()
        return 0.1

    recorder = Recorder()
    with pytest.raises(KeyboardInterrupt) as caught:
        fit(**fakes.plain(fakes.mlp(), schedule=schedule, callbacks=[recorder, Checkpoint(path, every=5)]))
    assert not isinstance(caught.value, Interrupted)
    assert recorder.events[-1] == "after 6"
    assert path.read_bytes() == saved[0]
    assert list(tmp_path.iterdir()) == [path]


def test_a_second_ctrl_c_while_saving_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.npz"
    before = []

    class Impatient(Checkpoint):
        def interrupted(self, run):
            before.append(path.read_bytes())
            monkeypatch.setattr("os.replace", lambda *names: fakes.ctrl_c())
            super().interrupted(run)

    with pytest.raises(KeyboardInterrupt):
        fit(**fakes.plain(fakes.mlp(), callbacks=[After(7, fakes.ctrl_c), Impatient(path, every=5)]))
    assert path.read_bytes() == before[0]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("end", ["well", "interrupted", "diverged", "error"])
def test_the_handler_of_ctrl_c_is_put_back(end):
    before = signal.getsignal(signal.SIGINT)
    arguments = fakes.plain(fakes.mlp(), epochs=1)
    expected = {"interrupted": Interrupted, "diverged": TrainingDiverged, "error": ZeroDivisionError}
    if end == "interrupted":
        arguments["callbacks"] = [After(1, fakes.ctrl_c)]
    elif end == "error":
        arguments["callbacks"] = [After(1, lambda: 1 / 0)]
    elif end == "diverged":
        arguments = too_fast()
    if end == "well":
        fit(**arguments)
    else:
        with pytest.raises(expected[end]):
            fit(**arguments)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_training_may_run_in_another_thread():
    arguments, want = fakes.recipe(), fakes.recipe()
    worker = threading.Thread(target=lambda: fit(**arguments))
    worker.start()
    worker.join()
    fit(**want)
    fakes.assert_same_bits(fakes.state(arguments), fakes.state(want))


# --- Progress --------------------------------------------------------------------------------------------------------


def test_progress_tells_loss_accuracy_speed_and_the_result_of_each_epoch(capsys):
    history = fit(**fakes.plain(fakes.mlp(), progress=True))
    out, err = capsys.readouterr()
    assert out == ""
    for record in history.epochs:
        text = f"epoch {record['epoch']}/3: training loss {record['train_loss']:.4f}"
        assert text in err
        assert f"test loss {record['test_loss']:.4f}, accuracy {record['test_accuracy']:.2%}" in err
    assert "images/s" in err and "loss " in err and "accuracy " in err
    assert "576/576" in err  # 3 epochs of 192 images: the bar ended full


def test_the_progress_of_a_resumed_training_starts_where_it_stopped(tmp_path, capsys):
    path = tmp_path / "checkpoint.npz"
    with pytest.raises(Interrupted):
        fit(**fakes.plain(fakes.mlp(), callbacks=[After(7, fakes.ctrl_c), Checkpoint(path)]))
    capsys.readouterr()
    fit(**fakes.plain(fakes.mlp(), progress=True, callbacks=[Checkpoint(path, resume=True)]))
    err = capsys.readouterr().err
    assert "256/576" in err and "576/576" in err  # 8 of 18 batches of 32 were done
    assert "epoch 1/3" not in err


def test_without_progress_nothing_is_printed(capsys):
    fit(**fakes.plain(fakes.mlp()))
    assert capsys.readouterr() == ("", "")
