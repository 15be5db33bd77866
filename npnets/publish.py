"""Make a reference model of a finished training: its weights alone, and a card that tells how they came about.

What it writes is read by ``models.pretrained`` and ``models.card``.
"""

import hashlib
import json
import re
import shlex
from pathlib import Path

import numpy as np

from npnets import checkpoint, cost, datasets, models, training
from npnets.cost.tables import text_table
from npnets.models.pretrained import FOLDER, FORMAT

LARGEST = 4_000_000
"""Bytes of weights: they are kept beside the code."""


def publish(run, name, *, data=None, root=None, overwrite=False):
    """Write ``<name>.npz`` and ``<name>.json`` from the folder of a run; return the card.

    Parameters
    ----------
    run : str or Path
        Of a training that has ended, on a whole data set.
    name : str
        Of the reference model.
    data : str or Path, optional
        Folder of the data sets, as for ``datasets.load``.
    root : str or Path, optional
        Another folder than ``data/pretrained/``.
    overwrite : bool
        Replace a reference model of this name.

    Returns
    -------
    dict
        As :func:`npnets.models.card`.

    Raises
    ------
    FileNotFoundError
        If there is no run, or the data set is not here.
    ValueError
        If the run is not complete, was not made with whole data sets, or its files contradict each other; if the name
        is none, or taken; or if the weights are not in float32, or have more than 4 MB.
    """
    run, root = Path(run), Path(root or FOLDER)
    if not re.fullmatch(r"[a-z0-9][a-z0-9_.-]*", name):
        raise ValueError(f"a reference model is named with a-z, 0-9, '-', '_' and '.', not {name!r}")
    if (root / f"{name}.json").exists() and not overwrite:
        raise ValueError(f"{root / name}.json exists; replace it with --overwrite, or choose another name")
    model, numbers = checkpoint.load_model(run / "checkpoint.npz")
    dtypes = {array.dtype.name for array in model.state_dict().values()}
    if dtypes != {"float32"}:
        raise ValueError(f"a reference model is in float32, the weights in {run} are in {', '.join(sorted(dtypes))}")
    history, about = _history(run), numbers["about"]
    asked, there = history["settings"]["epochs"], len(history["epochs"])
    if there < asked:
        raise ValueError(f"the training in {run} is not complete: {there} of {asked} epochs; continue with --resume")
    if there > asked:
        raise ValueError(f"{run}/history.json has {there} epochs, its settings ask for {asked}: which is right?")
    if about.get("dataset") not in datasets.NAMES:
        raise ValueError(f"{run}/checkpoint.npz does not name its data set: it was not written by `npnets train`")
    test = datasets.load(about["dataset"], "test", data)
    for part in (about.get("trained_on"), test.name):
        if part != about["dataset"]:
            raise ValueError(f"a reference model needs the whole of {about['dataset']}, not {part}")
    found = training.evaluate(model, test, mean=np.array(numbers["mean"]), std=np.array(numbers["std"]))
    if found.accuracy != history["epochs"][-1]["test_accuracy"]:
        told = history["epochs"][-1]["test_accuracy"]
        raise ValueError(f"{run}: the weights give {found.accuracy:.2%}, its history tells {told:.2%}")

    facts = _card(model, numbers, history, test, found)
    weights = root / f"{name}.npz"
    checkpoint.save_weights(weights, model, largest=LARGEST)
    facts["sha256"] = hashlib.sha256(weights.read_bytes()).hexdigest()
    checkpoint.write_json(root / f"{name}.json", facts)
    return facts


def _history(run):
    path = run / "history.json"
    try:
        history = json.loads(path.read_text(encoding="utf-8"))
        training.History.from_dict(history)
        told = {"settings": {"epochs", "seed"}, "environment": {"commit", "cores", "numpy"}}
        told_all = all(names <= set(history.get(part, ())) for part, names in told.items())
        if not told_all or not isinstance(history.get("command"), str):
            raise ValueError("it does not tell how it came about")
        return history
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not the history of a training: {error}") from error


def _without_folders(command):
    """Return a command without ``--out`` and ``--data``: where somebody keeps files does not decide the result."""
    words = iter(shlex.split(command))
    kept = []
    for word in words:
        if word in ("--out", "--data"):
            next(words, None)  # the folder
        elif not word.startswith(("--out=", "--data=")):
            kept.append(word)
    return shlex.join(kept)


def _card(model, numbers, history, test, found):
    """Return the card but for the checksum of the weights."""
    shape = test.images.shape[1:]
    costs = cost.profile(model, shape)
    counts = training.confusion_matrix(test.labels, found.predictions, len(test.class_names))
    each = counts.diagonal() / counts.sum(axis=1)
    return {
        "format": FORMAT,
        "model": numbers["about"]["model"],
        "model_settings": numbers["about"]["model_settings"],
        "params": costs.params,
        "macs": costs.macs,
        "dataset": test.name,
        "class_names": list(test.class_names),
        "input": list(shape),
        "mean": numbers["mean"],
        "std": numbers["std"],
        "command": _without_folders(history["command"]),
        "settings": history["settings"],
        "seed": history["settings"]["seed"],
        "environment": history["environment"],
        "seconds": history["epochs"][-1]["seconds"],
        "history": {"epochs": history["epochs"], "losses": history["losses"]},
        "test": {
            "images": len(test),
            "loss": found.loss,
            "accuracy": found.accuracy,
            "per_class": dict(zip(test.class_names, each.tolist())),
            "confusion": counts.tolist(),
        },
    }


def listed(root=None):
    """Return a table of the reference models that are here."""
    if not models.pretrained_names(root):
        return f"there are no reference models in {root or FOLDER}"
    lines = [("name", "data set", "parameters", "multiply-adds", "test accuracy", "epochs")]
    for name in models.pretrained_names(root):
        facts = models.card(name, root)
        numbers = (f"{facts['params']:,}", f"{facts['macs']:,}", f"{facts['test']['accuracy']:.2%}")
        lines.append((name, facts["dataset"], *numbers, str(len(facts["history"]["epochs"]))))
    return text_table(lines, 2, total=False)


def described(facts):
    """Return a card as a text: where it comes from, and what it takes for what."""
    there, test = facts["environment"], facts["test"]
    settings = ", ".join(f"{name}={value}" for name, value in facts["model_settings"].items())
    lines = [
        f"{facts['model']}({settings})",
        f"{facts['params']:,} parameters, {facts['macs']:,} multiply-adds",
        f"on {facts['dataset']}: {test['accuracy']:.2%} of {test['images']:,} test images, loss {test['loss']:.4f}",
        f"{len(facts['history']['epochs'])} epochs in {facts['seconds'] / 60:.0f} minutes with {there['cores']} cores, "
        f"seed {facts['seed']}, commit {there['commit']}, NumPy {there['numpy']}",
        facts["command"],
    ]
    return "\n".join([*lines, "", confusion_table(facts["class_names"], test["confusion"])])


def confusion_table(class_names, counts):
    """Return a table: for each class its images, the share that was recognized, and what the others were taken for."""
    lines = [("class", "images", "right", "taken for")]
    for k, (name, row) in enumerate(zip(class_names, counts)):
        others = sorted((-count, other) for other, count in enumerate(row) if other != k and count)
        mistakes = ", ".join(f"{-count} as {class_names[other]}" for count, other in others)
        lines.append((name, f"{sum(row):,}", f"{row[k] / sum(row):.2%}" if sum(row) else "", mistakes))
    return text_table(lines, (0, 3), total=False)
