"""Small made-up data sets and networks, and trainings of them with everything switched on that has a state."""

import errno
import io
import json
import os
import signal

import numpy as np

from npnets import models, optim
from npnets.augment import mirror, random_crop
from npnets.datasets import Dataset
from npnets.training import History

CLASSES = 4
TABLE = [
    # t, c, n, s
    (1, 8, 1, 1),
    (2, 8, 2, 2),  # the second repeat has a residual connection
]


def dataset(count=200, *, size=8, channels=1, seed=0, name="fake"):
    """Return images that a small network can learn: stripes, columns, a chessboard or plain grey, under noise."""
    row, column = np.indices((size, size)) % 2
    patterns = np.stack([row, column, row ^ column, 0 * row])[..., None]  # (CLASSES, H, W, 1)
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count)
    images = 100 * patterns[labels] + rng.normal(50, 40, (count, size, size, channels))
    return Dataset(np.clip(images, 0, 255).astype(np.uint8), labels, name, ("rows", "columns", "chess", "grey"))


def numbered(count=200, *, size=8):
    """Return images of one grey each, the number of the image: it can be told which ones were drawn."""
    images = np.empty((count, size, size, 1), np.uint8)
    images[...] = np.arange(count)[:, None, None, None]
    return Dataset(images, np.arange(count) % CLASSES, "numbered", tuple(map(str, range(CLASSES))))


def net(*, seed=0, dropout=0.0, in_channels=1, num_classes=CLASSES):
    """Return a MobileNetV2 of three blocks with 8 channels."""
    settings = {"table": TABLE, "stem": 8, "head": 16, "dropout": dropout, "seed": seed}
    return models.mobilenet_v2_small(num_classes, in_channels, 0.25, **settings)


def mlp(*, seed=0, hidden=(12,), size=8, batch_norm=True, **settings):
    """Return a fully connected network that trains in no time."""
    settings |= {"image_size": size, "hidden": hidden, "seed": seed, "batch_norm": batch_norm}
    return models.mlp_batch_norm(CLASSES, 1, **settings)


def recipe(model=None, **changes):
    """Return arguments of ``fit``: 3 epochs of 6 steps with dropout, augmentation, schedule and weight averages."""
    model = net(dropout=0.3) if model is None else model
    arguments = {
        "model": model,
        "train": dataset(200),
        "test": dataset(70, seed=1),
        "epochs": 3,
        "batch_size": 32,
        "optimizer": optim.RMSProp(model.parameters(), 0.1, weight_decay=4e-5),
        "schedule": optim.warmup(optim.cosine(0.1, 18), 3),
        "seed": 5,
        "augment": shift,
        "label_smoothing": 0.1,
        "average": optim.ExponentialMovingAverage(model.parameters(), 0.9, extra=running_statistics(model)),
        "progress": False,
        "threads": 1,
    }
    return arguments | changes


def plain(model=None, **changes):
    """Return arguments of ``fit`` with nothing but an optimizer."""
    nothing = {"schedule": None, "augment": None, "label_smoothing": 0.0, "average": None}
    return recipe(net() if model is None else model, **(nothing | changes))


def shift(images, rng):
    """Crop and mirror."""
    return mirror(random_crop(images, 1, rng), rng)


def running_statistics(model):
    """Return the arrays of batch norm that an average of the weights has to average too."""
    return {f"{path}.{name}": getattr(m, name) for path, m in model.named_modules() for name in m.running}


def ctrl_c():
    """Do what Ctrl-C does to this process."""
    signal.raise_signal(signal.SIGINT)


class FullDisk(io.FileIO):
    """A file on a disk on which only so many bytes are left; to stand for ``open``."""

    space = 0

    def write(self, data):
        if self.tell() + len(data) > self.space:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(data)


def state(arguments):
    """Return all arrays that decide how a training goes on, and the state of the generators as text."""
    model, average = arguments["model"], arguments["average"]
    owners = {"model": model, "optimizer": arguments["optimizer"]} | ({"average": average} if average else {})
    arrays = {f"{owner}/{name}": a for owner, o in owners.items() for name, a in o.state_dict().items()}
    generators = {path: generator.bit_generator.state for path, generator in model.generators()}
    return arrays | {"generators": np.array(json.dumps(generators))}


def assert_same_bits(got, want):
    """Compare two dicts of arrays, bit for bit."""
    assert list(got) == list(want)
    different = [name for name in want if got[name].dtype != want[name].dtype or got[name].shape != want[name].shape]
    different += [name for name in want if got[name].tobytes() != want[name].tobytes()]
    assert not different


def without_times(history):
    """Return a history as a dict, without what depends on the clock."""
    history = history.to_dict() if isinstance(history, History) else history
    clocks = ("seconds", "images_per_second")
    epochs = [{name: value for name, value in record.items() if name not in clocks} for record in history["epochs"]]
    return {"epochs": epochs, "losses": history["losses"]}
