"""What the experiments on small MobileNets share: the recipe, the training, and the table of the results.

An experiment takes ``RECIPE`` into its settings, changes what it must, and calls :func:`train`. The recipe is that of
MobileNetV2, section 6.1 (RMSProp with decay and momentum 0.9, weight decay 0.00004), but for three things. The paper
multiplies the rate by 0.98 after each epoch, of which it must have had hundreds for that to matter; here there are so
few that it would hardly fall, so it falls to nearly zero along half a cosine, after a short rise. The rate is 0.01 with
an epsilon of 0.001, as ``npnets train`` has them; the papers' 0.045 belongs to an epsilon of 1, that of TF-Slim's
training script. And a step has 64 images, not 96.

The accuracy that counts is that of all test images after the last step, not the best along the way: to choose the best
step by the test images would flatter networks whose accuracy jumps.
"""

from typing import NamedTuple

import numpy as np

from npnets import cost, runs
from npnets.cost.tables import text_table
from npnets.datasets import Dataset
from npnets.experiments.experiment import Data
from npnets.experiments.records import duration
from npnets.shapes import integer

RECIPE = {name: runs.SETTINGS[name] for name in (
    "optimizer", "learning_rate", "momentum", "rms_decay", "epsilon", "weight_decay", "schedule", "decay_rate",
    "label_smoothing",
)} | {
    "dataset": "cifar10",
    "epochs": 10,
    "batch_size": 64,
    "warmup": 100,  # steps
    "train_images": None,
    "test_images": None,
}  # fmt: skip
"""Settings with the names and meanings of ``runs.SETTINGS``. The data set says how images are cropped and mirrored."""

SMALL = {"epochs": 2, "warmup": 10, "train_images": 2000, "test_images": 500}
"""What a small form changes at least: 62 steps."""


def for_images(data, **settings):
    """Return the keywords of a network for these images: ``num_classes``, ``in_channels``, and the ``settings``."""
    return {"num_classes": len(data.train.class_names), "in_channels": data.train.images.shape[-1]} | settings


def train(model, settings, data, fit, *, optimizer=None, schedule=None, resolution_mult=1.0, **arguments):
    """Train a network by the recipe and return what every experiment records.

    Parameters
    ----------
    model : nn.Module
    settings : dict
        With those of ``RECIPE`` and a ``seed``.
    data : Data
    fit : callable
        As an experiment gets it.
    optimizer, schedule : optional
        In place of those that the settings describe.
    resolution_mult : float
        rho of MobileNetV1, section 3.4: training and test images are made smaller first (see :func:`resized`), and
        shifted by fewer pixels.
    arguments
        Other keywords of ``fit``, such as ``callbacks``.

    Returns
    -------
    dict
        ``history`` and ``diverged``; ``cost``: ``input`` (H, W, C), ``params`` and ``macs``; ``final``: ``loss`` and
        ``accuracy`` on all test images after the last step, None if the training diverged.
    """
    data = Data(*(resized(one, resolution_mult) for one in data))
    shape = data.train.images.shape[1:]
    costs = cost.profile(model, shape)
    if optimizer is None:
        optimizer = runs.optimizer_of(model, settings)
    if schedule is None:
        schedule = runs.schedule_of(settings, max(1, len(data.train) // settings["batch_size"]))
    history, diverged = fit(
        model,
        data.train,
        data.test,
        epochs=settings["epochs"],
        batch_size=settings["batch_size"],
        optimizer=optimizer,
        schedule=schedule,
        seed=settings["seed"],
        augment=crop_and_mirror(settings["dataset"], resolution_mult),
        label_smoothing=settings["label_smoothing"],
        **arguments,
    )
    last = history.epochs[-1] if diverged is None else None
    return {
        "history": history.to_dict(),
        "diverged": diverged,
        "cost": {"input": list(shape), "params": costs.params, "macs": costs.macs},
        "final": last and {"loss": last["test_loss"], "accuracy": last["test_accuracy"]},
    }


def crop_and_mirror(dataset, resolution_mult=1.0):
    """Return the augmentation for a data set: CIFAR-10 is shifted by up to 4 pixels and mirrored, MNIST only by 2.

    On smaller images it is as many times fewer pixels, rounded up.
    """
    usual = runs.DATASET_SETTINGS[dataset]
    return runs.augmentation_of(usual | {"crop": int(np.ceil(usual["crop"] * resolution_mult))})


def resized(dataset, resolution_mult):
    """Return the data set with images of round(rho H) x round(rho W) pixels: 32 become 28 at 0.875.

    Each new pixel is the mean of the area that it covers, as a camera with fewer pixels would have it::

        y[k] = 1/s sum_j |[k s, (k + 1) s] and [j, j + 1]| x[j],    s = H / H_out

    along the height and then along the width. The bilinear interpolation of ``ops.resize_bilinear_forward`` looks at
    two pixels along each axis however many there are, and between them some would hardly count.

    Parameters
    ----------
    dataset : Dataset
        At 1 it is returned as it is.
    resolution_mult : float
        rho, above 0; above 1 the images become larger.
    """
    if resolution_mult == 1:
        return dataset
    _, H, W, C = dataset.images.shape
    size = [integer(round(resolution_mult * n), "the pixels of a resized image", 1) for n in (H, W)]
    images = np.empty((len(dataset), *size, C), np.uint8)
    rows, columns = (area_weights(n, out).astype(np.float32) for n, out in zip((H, W), size))
    for part in range(0, len(dataset), 1000):  # in floating point, all of them would not fit into memory
        batch = slice(part, part + 1000)
        means = np.einsum("hi,wj,nijc->nhwc", rows, columns, dataset.images[batch].astype(np.float32), optimize=True)
        images[batch] = np.rint(means)
    name = f"{dataset.name}-{size[0]}x{size[1]}"
    return Dataset(images, dataset.labels, name, dataset.class_names)


def area_weights(size, out):
    """Return the matrix (out, size) that averages ``size`` pixels to ``out`` ones; its rows sum to one.

    >>> area_weights(3, 2) * 3
    array([[2., 1., 0.],
           [0., 1., 2.]])
    """
    s = size / out
    k, j = np.arange(out)[:, None], np.arange(size)
    return np.maximum(np.minimum((k + 1) * s, j + 1) - np.maximum(k * s, j), 0) / s  # (out, size)


# --- Results ---------------------------------------------------------------------------------------------------------


class Result(NamedTuple):
    """What one variant reached, over its seeds."""

    variant: str
    seeds: int
    params: int
    macs: int
    accuracy: float  # after the last step, mean over the seeds that did not diverge; NaN if all did
    lowest: float  # of the seeds
    highest: float
    diverged: int  # how many of the seeds
    seconds: float  # of a run, the median


def final_accuracies(records, variant):
    """Return the test accuracy of each seed after the last step, (S,); NaN where the training diverged."""
    finals = [record["final"] for record in records.of(variant)]
    return np.array([np.nan if final is None else final["accuracy"] for final in finals])


def results(records):
    """Return a :class:`Result` for each recorded variant, in the order of the experiment."""
    return [_result(records, variant) for variant in records.variants]


def _result(records, variant):
    each = final_accuracies(records, variant)
    there = each[~np.isnan(each)]
    own = records.of(variant)
    return Result(
        variant=variant,
        seeds=len(each),
        params=own[0]["cost"]["params"],
        macs=own[0]["cost"]["macs"],
        accuracy=float(there.mean()) if there.size else np.nan,
        lowest=float(there.min(initial=np.inf)) if there.size else np.nan,
        highest=float(there.max(initial=-np.inf)) if there.size else np.nan,
        diverged=len(each) - there.size,
        seconds=float(np.median([record["seconds"] for record in own])),
    )


def results_table(records):
    """Return the results as a table for the command line; the ``summary`` of an experiment."""
    lines = [("variant", "seeds", "parameters", "multiply-adds", "accuracy", "lowest", "highest", "a run takes")]
    for one in results(records):
        accuracies = [percent(value) for value in (one.accuracy, one.lowest, one.highest)]
        accuracies[0] += f" ({one.diverged} diverged)" * bool(one.diverged)
        numbers = (str(one.seeds), f"{one.params:,}", f"{one.macs:,}", *accuracies, duration(one.seconds))
        lines.append((one.variant, *numbers))
    return text_table(lines, 1, total=False)


def percent(value):
    """Return a share as text, empty if it is not a number."""
    return "" if np.isnan(value) else f"{value:.2%}"
