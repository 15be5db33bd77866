"""Experiments: the framework on a tiny one, the real ones in a tiny form."""

import numpy as np

from npnets import optim
from npnets.datasets import Dataset
from npnets.experiments import records
from npnets.experiments.evaluations import Evaluations
from npnets.experiments.experiment import Data, Experiment
from tests import fakes

CLOCKS = ("seconds", "command", "environment")


def load_fake(name, split, root=None):
    """Return made-up images in place of those of ``datasets.load``: 6 batches of 32 for training."""
    return fakes.dataset(200 if split == "train" else 70, seed=split == "test", name=name)


def train(settings, data, fit):
    """Train a fully connected network, with everything in it that a seed decides."""
    model = fakes.mlp(seed=settings["seed"], dropout=0.2)
    evaluations = Evaluations(data.test, every=4)
    history, diverged = fit(
        model,
        data.train,
        data.test,
        epochs=settings["epochs"],
        batch_size=32,
        optimizer=optim.SGD(model.parameters(), settings["learning_rate"], momentum=0.9),
        seed=settings["seed"],
        augment=fakes.shift,
        callbacks=[evaluations, *CALLBACKS],
    )
    found = {"history": history.to_dict(), "diverged": diverged, "evaluations": evaluations.to_dict()}
    return found | {"arrays": dict(model.state_dict())}


CALLBACKS = []
"""What a test adds to the callbacks of every fit."""

TINY = Experiment(
    name="tiny",
    section="no paper: a network of one hidden layer",
    train=train,
    settings={"dataset": "mnist", "epochs": 2, "learning_rate": 0.1, "train_images": None, "test_images": None},
    variants={"slow": {}, "fast": {"learning_rate": 0.3}, "endless": {"learning_rate": 1e30}},
    seeds={"slow": (0, 1), "fast": (0,), "endless": (3,)},
    small={"epochs": 1, "train_images": 64},
    datasets=("mnist", "cifar10"),
)


def fake_record(variant="slow", seed=0, accuracy=(0.1, 0.5, 0.4), steps=(4, 8, 12), **more):
    """Return the content of a record with these evaluations."""
    evaluations = {"data": "mnist", "images": 70, "step": list(steps), "test_accuracy": list(accuracy)}
    evaluations["test_loss"] = [1.0] * len(accuracy)
    content = {"experiment": "tiny", "variant": variant, "seed": seed, "settings": {"epochs": 2, "train": "mnist"}}
    return content | {"history": {"epochs": [], "losses": []}, "evaluations": evaluations, "seconds": 60.0} | more


def records_in(folder):
    """Return the records of ``tiny`` in a folder."""
    return records.read_all(TINY, folder)


def without_clocks(record):
    """Return what of a record does not depend on when and where it was made."""
    content = {name: value for name, value in record.content.items() if name not in CLOCKS}
    return content | {"history": fakes.without_times(content["history"])}


def assert_same(records, others):
    """Check that two sequences of records are the same, bit for bit."""
    for one, other in zip(records, others, strict=True):
        assert without_clocks(one) == without_clocks(other)
        fakes.assert_same_bits(one.arrays, other.arrays)


def numbers(images=20, classes=3, seed=0):
    """Return random class probabilities (images, classes) and labels."""
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.ones(classes), images), rng.integers(0, classes, images)


class Captured(Exception):
    """The arguments of ``fit``."""


def captured(experiment, variant, data=None, **changes):
    """Return what a variant of an experiment gives to ``fit``; by default for images of ten classes."""

    def fit(model, train, test=None, **rest):
        raise Captured({"model": model, "train": train, "test": test, **rest})

    images = fakes.dataset(64, size=32, channels=3)
    ten = Dataset(images.images, images.labels, "cifar10", tuple("0123456789"))
    data = data or Data(ten, ten)
    try:
        experiment.train(experiment.settings_of(variant, 0) | changes, data, fit)
    except Captured as found:
        return found.args[0]
    raise AssertionError(f"{experiment.name} has not called fit")


def changed(experiment, variant, base):
    """Return the settings in which a variant differs from another one."""
    one, other = (experiment.settings_of(name, 0) for name in (variant, base))
    return {name: value for name, value in one.items() if value != other[name]}
