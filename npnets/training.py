"""Training and evaluation: the loop, and what it remembers.

One step is four lines of :meth:`Run.step`: forward, loss, backward, update. The rest of this file draws the batches,
keeps the history, shows progress, and can stop between any two steps.

All randomness of a run comes from ``(seed, epoch, step)``, so that a resumed run draws what the uninterrupted one would
have drawn.
"""

import contextlib
import json
import math
import signal
import sys
import threading
import time
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from npnets import ops, parallel
from npnets.augment import channel_statistics, normalize
from npnets.shapes import integer

# The last number of a seed says what is drawn: two generators for two purposes must not give the same numbers.
_ORDER, _AUGMENTATION = 1, 2


RECORD = (
    "epoch", "step", "learning_rate", "train_loss", "train_accuracy", "test_loss", "test_accuracy", "seconds",
    "images_per_second",
)  # fmt: skip


class Evaluation(NamedTuple):
    """Mean loss (nats), accuracy (0 to 1) and the predicted class of each image."""

    loss: float
    accuracy: float
    predictions: np.ndarray


class TrainingDiverged(FloatingPointError):
    """The loss was not finite."""


class Shards(NamedTuple):
    """An ``order`` for ``fit``: the images lie in shards, as files of them do, and the shards are shuffled.

    In each epoch the shards come in a new order; in a shard the images come in a new order too, or always in the same.
    Then, if ``size`` is a multiple of the batch size, the same images always meet in a batch: what section 4.2 of the
    batch-norm paper (Ioffe and Szegedy 2015) changes. The images that fill no shard come last.

    >>> Shards(2, shuffled=False)(5, np.random.default_rng(3)).tolist()
    [2, 3, 0, 1, 4]
    """

    size: int
    shuffled: bool = True

    def __call__(self, count, rng):
        """Return the order (count,) of an epoch: the indices of the images, each once."""
        integer(self.size, "the size of a shard", 1)
        whole, rest = np.split(np.arange(count), [count - count % self.size])
        shards = [*rng.permutation(whole.reshape(-1, self.size)), rest]  # (shards, size): rows change places
        return np.concatenate([rng.permutation(shard) for shard in shards] if self.shuffled else shards)


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, taken note of where the state of the run is whole."""


class History:
    """What happened in a training: a record for each epoch, and the loss along the way.

    Attributes
    ----------
    epochs : list of dict
        ``epoch`` (from 1), ``step``, ``learning_rate``, ``train_loss``, ``train_accuracy``, ``test_loss``,
        ``test_accuracy`` (the last two without a test set: None), ``seconds`` (of training so far, without evaluation)
        and ``images_per_second``.
    losses : list of [step, loss]
        The mean training loss of the steps up to ``step`` since the entry before.
    """

    def __init__(self, epochs=(), losses=()):
        self.epochs = [dict(record) for record in epochs]
        self.losses = [list(entry) for entry in losses]

    def __getitem__(self, name):
        """Return one quantity over the epochs, such as ``history["test_accuracy"]``."""
        return [record[name] for record in self.epochs]

    def __len__(self):
        return len(self.epochs)

    def to_dict(self):
        """Return plain lists and dicts for JSON."""
        return {"epochs": self.epochs, "losses": self.losses}

    @classmethod
    def from_dict(cls, data):
        """Return the history that :meth:`to_dict` described; raise ``ValueError`` if it is none."""
        history = cls(data["epochs"], data["losses"])
        for record in history.epochs:
            if set(record) != set(RECORD):
                raise ValueError(f"the record of an epoch must have {', '.join(RECORD)}; got {', '.join(record)}")
        if any(len(entry) != 2 for entry in history.losses):
            raise ValueError("the losses must be pairs of a step and a loss")
        _check_numbers([value for record in history.epochs for value in record.values() if value is not None])
        _check_numbers([value for entry in history.losses for value in entry])
        return history

    @classmethod
    def load(cls, path):
        """Return the history of a ``history.json``; raise ``ValueError`` if the file is none."""
        try:
            with open(path, encoding="utf-8") as file:
                return cls.from_dict(json.load(file))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is not the history of a training: {error}") from error

    def __repr__(self):
        last = f": {_sentence(self.epochs[-1], None)}" if self.epochs else ""
        return f"History({len(self)} epochs{last})"


def evaluate(model, dataset, *, mean, std, batch_size=100, should_stop=None):
    """Return loss and accuracy of a model in inference mode, over every image of a data set.

    Parameters
    ----------
    model : nn.Module
    dataset : datasets.Dataset
    mean, std : arrays (C,)
        For :func:`npnets.augment.normalize`; those of the training images.
    batch_size : int
        Does not change the result beyond rounding: in inference the images of a batch do not meet. Every layer keeps
        what its backward would need, so memory grows with it.
    should_stop : callable, optional
        Asked after each batch; if true, the evaluation is given up.

    Returns
    -------
    Evaluation

    Raises
    ------
    Interrupted
        If ``should_stop`` said so.
    """
    integer(batch_size, "batch_size", 1)
    if len(dataset) == 0:
        raise ValueError(f"{dataset.name} has no images to evaluate")
    loss, predictions = 0.0, []
    dtype = _dtype(model)
    for start in range(0, len(dataset), batch_size):
        batch = slice(start, start + batch_size)  # the last one may be smaller
        logits = model(normalize(dataset.images[batch], mean, std, dtype))
        batch_loss, _ = ops.softmax_cross_entropy_forward(logits, dataset.labels[batch])
        loss += float(batch_loss) * len(logits)
        predictions.append(logits.argmax(axis=1))
        if should_stop is not None and should_stop():
            raise Interrupted
    predictions = np.concatenate(predictions)
    return Evaluation(loss / len(dataset), float(np.mean(predictions == dataset.labels)), predictions)


def confusion_matrix(labels, predictions, classes):
    """Return how many images of each class were taken for each class, int64 (classes, classes).

    ``counts[k, j]``: so many images of class k were taken for class j. The diagonal is what is right.

    >>> confusion_matrix(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 1]), 3)
    array([[1, 1, 0],
           [0, 1, 0],
           [0, 1, 0]])

    Parameters
    ----------
    labels, predictions : int arrays (N,)
        Classes from 0.
    classes : int

    Raises
    ------
    ValueError
        If the lengths differ, or a class is not below ``classes``.
    """
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    if labels.shape != predictions.shape or labels.ndim != 1:
        raise ValueError(f"labels and predictions must be as many, got shapes {labels.shape}, {predictions.shape}")
    both = np.concatenate([labels, predictions])
    if both.size and not 0 <= both.min() <= both.max() < classes:
        raise ValueError(f"classes must be from 0 to {classes - 1}, got {both.min()} to {both.max()}")
    pairs = np.multiply(labels, classes, dtype=np.int64) + predictions  # in uint8, it would overflow
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def fit(
    model,
    train,
    test=None,
    *,
    epochs,
    batch_size=128,
    optimizer,
    schedule=None,
    seed=0,
    augment=None,
    order=None,
    statistics=None,
    label_smoothing=0.0,
    average=None,
    callbacks=(),
    progress=True,
    threads=None,
):
    """Train a model and return the history.

    Each epoch visits the training images in a new order, in batches of ``batch_size``; the few that are left over at
    the end wait for the next epoch, since batch statistics of a handful of images would be poor. Then the test images
    are evaluated, all of them. Pixels are normalized with the channel statistics of the training images.

    Parameters
    ----------
    model : nn.Module
    train, test : datasets.Dataset
    epochs, batch_size : int
    optimizer : optim.RMSProp or optim.SGD
        Made of ``model.parameters()``.
    schedule : callable step -> learning rate, optional
        See :mod:`npnets.optim`; without it the optimizer's own rate is kept.
    seed : int
        Of the order of the images and of their augmentation.
    augment : callable (images, rng) -> images, optional
        See :mod:`npnets.augment`.
    order : callable (count, rng) -> indices (count,), optional
        In which order an epoch visits the training images, such as :class:`Shards`; by default in one drawn anew.
    statistics : (mean, std), optional
        What pixels are normalized with; by default the channel statistics of the training images. (0, 1) leaves them
        between 0 and 1.
    label_smoothing : float
    average : optim.ExponentialMovingAverage, optional
        Updated after each step; the test images are evaluated with the averaged weights.
    callbacks : objects with any of these methods
        ``start(run)``, ``before_step(step)``, ``after_step(step)``, ``after_epoch(run)``, ``interrupted(run)``, and in
        the end, whatever happened, ``detach()``. See :class:`npnets.probes.Probes` and
        :class:`npnets.checkpoint.Checkpoint`.
    progress : bool
        A bar with loss, accuracy, images a second and time left, and a line after each epoch, on stderr.
    threads : int, optional
        By default the cores this process may use. The result has the same bits for every number.

    Returns
    -------
    History

    Raises
    ------
    ValueError
        For settings out of range, such as a batch larger than the training set.
    TrainingDiverged
        If the loss is not finite.
    Interrupted
        A KeyboardInterrupt, after Ctrl-C, between two steps, when the callbacks have been told. A second Ctrl-C stops
        at once, and nothing is saved.
    """
    run = Run(
        model=model,
        train=train,
        test=test,
        epochs=integer(epochs, "epochs", 1),
        batch_size=integer(batch_size, "batch_size", 1),
        optimizer=optimizer,
        schedule=schedule,
        seed=integer(seed, "seed", 0),
        augment=augment,
        order=order,
        statistics=statistics,
        label_smoothing=label_smoothing,
        average=average,
        callbacks=tuple(callbacks),
    )
    # Overflow and NaN are caught as a loss that is not finite, with a better message than NumPy's warning.
    quiet = np.errstate(over="ignore", invalid="ignore", divide="ignore")
    with parallel.threads(threads), quiet, _Interrupts() as interrupts:
        run.start()
        with _Progress(run, progress) as bar:
            try:
                while run.epoch < run.epochs:
                    while run.step_in_epoch < run.steps_per_epoch:
                        run.step()
                        bar.update()
                        if interrupts.requested:
                            raise Interrupted
                    record = run.end_epoch(should_stop=lambda: interrupts.requested)
                    bar.say(_sentence(record, run.epochs))
            except Interrupted:
                run.tell("interrupted", run)
                raise
            finally:
                run.tell("detach")
    return run.history


class Run:
    """A training between two steps: everything that decides how it goes on.

    Attributes
    ----------
    epoch, step_in_epoch : int
        How many epochs, and how many steps of the current one, are done.
    history : History
    """

    def __init__(self, *, model, train, test, epochs, batch_size, optimizer, schedule, seed, augment, label_smoothing,
                 average, callbacks, order=None, statistics=None):  # fmt: skip
        if batch_size > len(train):
            raise ValueError(f"batch_size {batch_size} is larger than the training set, which has {len(train)} images")
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must be at least 0 and below 1, got {label_smoothing}")
        if test is not None and len(test) == 0:
            raise ValueError(f"{test.name} has no images to evaluate")
        if test is not None and test.images.shape[1:] != train.images.shape[1:]:
            raise ValueError(
                f"the test images of {test.name} are {test.images.shape[1:]}, but the training images of {train.name} "
                f"{train.images.shape[1:]} (height, width, channels)"
            )
        self.model, self.optimizer, self.schedule, self.average = model, optimizer, schedule, average
        self.train, self.test, self.augment, self.order = train, test, augment, order
        self.epochs, self.batch_size, self.seed, self.label_smoothing = epochs, batch_size, seed, label_smoothing
        self.callbacks = callbacks
        self.steps_per_epoch = len(train) // batch_size
        self.log_every = max(1, self.steps_per_epoch // 50)  # 50 points an epoch draw a curve
        self.statistics = None if statistics is None else np.array(statistics, np.float64)  # (2,) or (2, C)
        self.mean, self.std = channel_statistics(train.images) if statistics is None else self.statistics
        self.dtype = _dtype(model)
        self.epoch = self.step_in_epoch = 0
        self.seconds = 0.0
        self.history = History()
        self._order = (None, None)
        self._sums = np.zeros(2)  # loss and correct answers of the epoch so far
        self._loss_since = 0.0  # and the loss since the last entry of history.losses

    @property
    def steps(self):
        """How many steps have been made altogether."""
        return self.epoch * self.steps_per_epoch + self.step_in_epoch

    def tell(self, event, *arguments):
        """Call the method ``event`` of every callback that has one."""
        for callback in self.callbacks:
            if hasattr(callback, event):
                getattr(callback, event)(*arguments)

    def start(self):
        """Tell the callbacks; one of them may load a state."""
        self.tell("start", self)

    def step(self):
        """Draw a batch, go forward and backward, and update the weights."""
        began = time.perf_counter()
        step = self.steps
        if self.schedule is not None:
            self.optimizer.learning_rate = self.schedule(step)
        self.tell("before_step", step)
        x, labels = self._batch()

        logits = self.model(x, training=True)
        loss, cache = ops.softmax_cross_entropy_forward(logits, labels, label_smoothing=self.label_smoothing)
        self._check_finite(loss, "loss", step)
        self.model.backward(ops.softmax_cross_entropy_backward(1.0, cache))
        self.optimizer.step()

        if self.average is not None:
            self.average.update()
        self.step_in_epoch += 1
        self._remember(float(loss), int((logits.argmax(axis=1) == labels).sum()))
        self.seconds += time.perf_counter() - began
        self.tell("after_step", step)

    def end_epoch(self, should_stop=None):
        """Evaluate the test images, append the epoch's record to the history, and return it."""
        evaluation = None
        if self.test is not None:
            with self.average.applied() if self.average is not None else contextlib.nullcontext():
                evaluation = evaluate(self.model, self.test, mean=self.mean, std=self.std, should_stop=should_stop)
            self._check_finite(evaluation.loss, "test loss", self.steps)
        images = self.steps_per_epoch * self.batch_size
        earlier = self.history.epochs[-1]["seconds"] if self.history.epochs else 0.0
        record = {
            "epoch": self.epoch + 1,
            "step": self.steps,
            "learning_rate": float(self.optimizer.learning_rate),
            "train_loss": float(self._sums[0]) / self.steps_per_epoch,
            "train_accuracy": float(self._sums[1]) / images,
            "test_loss": evaluation and evaluation.loss,
            "test_accuracy": evaluation and evaluation.accuracy,
            "seconds": self.seconds,
            "images_per_second": images / max(self.seconds - earlier, 1e-9),
        }
        self.history.epochs.append(record)
        self.epoch, self.step_in_epoch = self.epoch + 1, 0
        self._sums[:] = 0
        self.tell("after_epoch", self)
        return record

    def recent(self):
        """Return mean loss and accuracy of the epoch so far."""
        done = max(self.step_in_epoch, 1)
        return self._sums[0] / done, self._sums[1] / (done * self.batch_size)

    def state_dict(self):
        """Return (arrays, numbers): all that decides how the run goes on, for a checkpoint.

        Raises
        ------
        TrainingDiverged
            If a weight is not finite: such a state must not take the place of a good one.
        """
        arrays = {f"model/{name}": array for name, array in self.model.state_dict().items()}
        for name, array in arrays.items():
            if not np.isfinite(array).all():
                self._check_finite(math.nan, f"largest of {name}", self.steps)
        for owner, name in self._stateful():
            arrays |= {f"{name}/{key}": array for key, array in owner.state_dict().items()}
        numbers = {
            "settings": self._settings(),
            "generators": {path: generator.bit_generator.state for path, generator in self.model.generators()},
            "epoch": self.epoch,
            "step_in_epoch": self.step_in_epoch,
            "seconds": self.seconds,
            "sums": self._sums.tolist(),
            "loss_since": self._loss_since,
            "history": self.history.to_dict(),
            "mean": self.mean.tolist(),
            "std": self.std.tolist(),
        }
        return arrays, numbers

    def load_state_dict(self, arrays, numbers):
        """Continue where :meth:`state_dict` was taken.

        Raises
        ------
        ValueError
            If the run had other settings, or the arrays belong to another model or optimizer.
        """
        own = self._settings()
        differences = [
            f"{name} was {numbers['settings'].get(name)!r}, now {value!r}"
            for name, value in own.items()
            if numbers["settings"].get(name) != value
        ]
        if differences:
            raise ValueError("the run was started with other settings:\n  " + "\n  ".join(differences))
        history = History.from_dict(numbers["history"])
        epoch, step_in_epoch = (integer(numbers[name], name, 0) for name in ("epoch", "step_in_epoch"))
        steps_left = self.steps_per_epoch if epoch < self.epochs else 0
        if epoch > self.epochs or step_in_epoch > steps_left or len(history) != epoch:
            raise ValueError(f"there is no step {step_in_epoch} of epoch {epoch + 1} after {len(history)} recorded")
        first_sum, second_sum = numbers["sums"]
        _check_numbers([numbers["seconds"], numbers["loss_since"], first_sum, second_sum])
        self.model.load_state_dict(_below("model/", arrays))
        for owner, name in self._stateful():
            owner.load_state_dict(_below(f"{name}/", arrays))
        for path, generator in self.model.generators():
            if path not in numbers["generators"]:
                raise ValueError(f"the state of the random generator {path} is missing")
            generator.bit_generator.state = numbers["generators"][path]
        self.epoch, self.step_in_epoch = epoch, step_in_epoch
        self.seconds, self._loss_since = numbers["seconds"], numbers["loss_since"]
        self._sums[:] = numbers["sums"]
        self.history.epochs[:], self.history.losses[:] = history.epochs, history.losses

    def _stateful(self):
        """Yield (object, name in the checkpoint) for what has a state beside the model."""
        yield self.optimizer, "optimizer"
        if self.average is not None:
            yield self.average, "average"
        for k, callback in enumerate(self.callbacks):
            if hasattr(callback, "state_dict"):
                yield callback, f"callback{k}"

    def _settings(self):
        return {
            "train": self.train.name,
            "images": len(self.train),
            "test": None if self.test is None else self.test.name,
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "seed": self.seed,
            "schedule": self._rates(),
            "label_smoothing": self.label_smoothing,
            "average": self.average is not None and self.average.decay,
            "augmented": self.augment is not None,
            "order": self.order and repr(self.order),
            "statistics": None if self.statistics is None else self.statistics.tolist(),
            "optimizer": repr(self.optimizer),
        }

    def _rates(self):
        """Return the learning rates at some steps, by which two schedules can be told apart."""
        last = self.epochs * self.steps_per_epoch - 1
        return self.schedule and [float(self.schedule(step)) for step in sorted({0, 1, last // 3, last // 2, last})]

    def _batch(self):
        """Return the next batch: normalized images (N, H, W, C) and labels (N,)."""
        if self._order[0] != self.epoch:
            rng = np.random.default_rng([self.seed, self.epoch, _ORDER])
            draw = self.order or (lambda count, rng: rng.permutation(count))
            self._order = (self.epoch, draw(len(self.train), rng))
        start = self.step_in_epoch * self.batch_size
        chosen = self._order[1][start : start + self.batch_size]
        images = self.train.images[chosen]
        if self.augment is not None:
            rng = np.random.default_rng([self.seed, self.epoch, self.step_in_epoch, _AUGMENTATION])
            images = self.augment(images, rng)
        return normalize(images, self.mean, self.std, self.dtype), self.train.labels[chosen]

    def _remember(self, loss, correct):
        self._sums += loss, correct
        self._loss_since += loss
        if self.steps % self.log_every == 0:
            self.history.losses.append([self.steps, self._loss_since / self.log_every])
            self._loss_since = 0.0

    def _check_finite(self, loss, name, step):
        if not math.isfinite(loss):
            raise TrainingDiverged(
                f"the {name} is {loss} at step {step} (epoch {self.epoch + 1}), with learning rate "
                f"{self.optimizer.learning_rate:.4g}; try a learning rate three to ten times smaller, a longer "
                "warm-up, or batch norm where there is none"
            )


def _check_numbers(values):
    for value in values:
        if not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ValueError(f"a number of the history is {value!r}")


def _below(prefix, arrays):
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _dtype(model):
    return next((parameter.dtype for parameter in model.parameters()), np.dtype(np.float32))


def _sentence(record, epochs):
    """Tell an epoch in one line."""
    text = f"epoch {record['epoch']}" + (f"/{epochs}" if epochs else "")
    text += f": training loss {record['train_loss']:.4f}, accuracy {record['train_accuracy']:.2%}"
    if record["test_accuracy"] is not None:
        text += f"; test loss {record['test_loss']:.4f}, accuracy {record['test_accuracy']:.2%}"
    return text + f"; {record['images_per_second']:,.0f} images/s"


class _Progress:
    """A tqdm bar over the images of the whole run."""

    def __init__(self, run, shown):
        self.run, self.shown = run, shown

    def __enter__(self):
        size = self.run.batch_size
        self.bar = tqdm(
            total=self.run.epochs * self.run.steps_per_epoch * size,
            initial=self.run.steps * size,
            unit=" images",
            unit_scale=True,
            disable=not self.shown,
            mininterval=0.2 if sys.stderr.isatty() else 10,  # a log file does not need five lines a second
            dynamic_ncols=True,
        )
        return self

    def __exit__(self, *exception):
        self.bar.close()

    def update(self):
        if not self.shown:  # a network of three layers has no time for texts that nobody reads
            return
        loss, accuracy = self.run.recent()
        self.bar.set_description(f"epoch {self.run.epoch + 1}/{self.run.epochs}", refresh=False)
        self.bar.set_postfix_str(f"loss {loss:.3f}, accuracy {accuracy:.1%}", refresh=False)
        self.bar.update(self.run.batch_size)

    def say(self, sentence):
        if self.shown:
            self.bar.write(sentence, file=sys.stderr)


class _Interrupts:
    """Hold the first Ctrl-C back until a step is done: weights and optimizer must not be left half updated."""

    def __enter__(self):
        self.requested = False
        # Signals can be handled in the main thread only; and where the shell has Ctrl-C ignored, it stays ignored.
        in_main_thread = threading.current_thread() is threading.main_thread()
        self.ours = in_main_thread and signal.getsignal(signal.SIGINT) != signal.SIG_IGN
        if self.ours:
            self.before = signal.signal(signal.SIGINT, self._note)
        return self

    def _note(self, number, frame):
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True

    def __exit__(self, *exception):
        if self.ours:
            signal.signal(signal.SIGINT, self.before)
