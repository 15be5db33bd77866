"""A training in a folder: from its settings to the arguments of ``fit``, and the files it leaves.

A run's settings are a plain dict of what can be said on the command line. They are kept in its checkpoint, so that
``--resume`` needs no more than the folder.
"""

import os
import platform
import re
import shlex
import subprocess
from pathlib import Path

import numpy as np

import npnets
from npnets import augment, checkpoint, cost, datasets, models, optim, parallel

# Every setting that decides the result of a training, with its default.
SETTINGS = {
    "recipe": None,
    "model": "mobilenet_v2_small",
    "dataset": "mnist",
    "data": None,
    "images": None,
    "width": 1.0,
    "dropout": 0.0,
    "set": {},  # other settings of the model
    "epochs": None,
    "batch_size": None,
    "optimizer": "rmsprop",
    "learning_rate": 0.01,
    "momentum": 0.9,
    "rms_decay": 0.9,
    "epsilon": 1e-3,
    "weight_decay": 4e-5,
    "schedule": "cosine",
    "decay_rate": 0.98,
    "warmup": 100,
    "label_smoothing": 0.0,
    "weight_average": 0.0,
    "crop": None,
    "mirror": None,
    "seed": 0,
    "save_every": 200,
}

# The defaults that depend on the data set.
DATASET_SETTINGS = {
    "mnist": {"epochs": 4, "batch_size": 128, "crop": 2, "mirror": False},  # a mirrored digit is no digit
    "cifar10": {"epochs": 30, "batch_size": 64, "crop": 4, "mirror": True},
}

# MobileNetV2 section 6.1. It names neither epsilon, which is that of TF-Slim's training script, nor the epochs.
PAPER = {
    "learning_rate": 0.045, "schedule": "exponential", "decay_rate": 0.98, "warmup": 0, "epsilon": 1.0,
    "weight_decay": 4e-5, "batch_size": 96, "dropout": 0.2,
}  # fmt: skip

# For the reference models. CIFAR-10 gets a network that halves the image only in its first block, not in the stem
# already, and is one and a half times as wide. It expands by 3, not by 6, and its bottlenecks are wider for it: wide
# bottlenecks take less time than wide expansions, since matrix products are cheap and depthwise convolutions are not.
# (experiments/expansion.py, at equal cost: t = 4, 6 and 10 cannot be told apart, t = 2 is worse; 3 was not compared.)
BEST = {
    "mnist": {"epochs": 15},
    "cifar10": {
        "width": 1.5,
        "set": {"stem_stride": 1, "table": [[1, 16, 1, 2], [3, 40, 3, 1], [3, 96, 4, 2]]},
        "epochs": 20,
        "weight_decay": 1e-4,
        "label_smoothing": 0.1,
    },
}

RECIPES = {"paper": {"mnist": PAPER, "cifar10": PAPER}, "best": BEST}
"""Recipe -> data set -> the settings that differ from the defaults."""


def settings(given):
    """Return all settings of a run: the given ones, then those of the recipe, then the defaults.

    What a recipe says of the network (its width, and ``set``) is for the model that it was made for, the default one.

    Raises
    ------
    ValueError
        If there is no such recipe.
    """
    recipe, dataset = given.get("recipe"), given.get("dataset", SETTINGS["dataset"])
    usual = SETTINGS | DATASET_SETTINGS[dataset]
    if recipe is not None:
        if recipe not in RECIPES:
            raise ValueError(f"unknown recipe {recipe!r}; there are {', '.join(RECIPES)}")
        other = given.get("model", usual["model"]) != usual["model"]
        leave = ("width", "set") if other else ()
        usual |= {name: value for name, value in RECIPES[recipe][dataset].items() if name not in leave}
    return {name: given.get(name, usual[name]) for name in SETTINGS}


def assemble(settings):
    """Return the arguments of ``fit`` for these settings, and what a checkpoint must tell to build the model again."""
    name = settings["dataset"]
    train_set, test_set = (datasets.load(name, split, settings["data"]) for split in ("train", "test"))
    if settings["images"] is not None:
        train_set = first(train_set, settings["images"])
    model_settings = {
        "num_classes": len(train_set.class_names),
        "in_channels": train_set.images.shape[-1],
        "dropout": settings["dropout"],
        "seed": settings["seed"],
    }
    if settings["width"] != 1.0:
        model_settings["width_mult"] = settings["width"]
    if models.has_setting(settings["model"], "image_size"):
        model_settings["image_size"] = train_set.images.shape[1]
    twice = sorted(model_settings.keys() & settings["set"].keys())
    if twice:
        raise ValueError(f"--set cannot change {', '.join(twice)}: that follows from the other options or the data set")
    model_settings |= settings["set"]
    model = models.build(settings["model"], **model_settings)
    cost.profile(model, train_set.images.shape)  # images that do not fit the model are found here
    optimizer = optimizer_of(model, settings)
    steps_per_epoch = max(1, len(train_set) // settings["batch_size"])
    average = None
    if settings["weight_average"]:
        average = optim.ExponentialMovingAverage(
            model.parameters(), settings["weight_average"], extra=_running_statistics(model)
        )
    arguments = {
        "model": model,
        "train": train_set,
        "test": test_set,
        "epochs": settings["epochs"],
        "batch_size": settings["batch_size"],
        "optimizer": optimizer,
        "schedule": schedule_of(settings, steps_per_epoch),
        "seed": settings["seed"],
        "augment": augmentation_of(settings),
        "label_smoothing": settings["label_smoothing"],
        "average": average,
    }
    about = {"model": settings["model"], "model_settings": model_settings, "dataset": name, "command": settings}
    about["trained_on"] = train_set.name  # a subset says so in its name
    return arguments, about


def optimizer_of(model, settings):
    """Return the optimizer that the settings name, for all parameters of a model."""
    common = {"momentum": settings["momentum"], "weight_decay": settings["weight_decay"]}
    if settings["optimizer"] == "sgd":
        return optim.SGD(model.parameters(), settings["learning_rate"], **common)
    rms = {"decay": settings["rms_decay"], "eps": settings["epsilon"]}
    return optim.RMSProp(model.parameters(), settings["learning_rate"], **rms, **common)


def schedule_of(settings, steps_per_epoch):
    """Return the learning rate as a function of the step."""
    rate = settings["learning_rate"]
    if settings["schedule"] == "cosine":
        schedule = optim.cosine(rate, settings["epochs"] * steps_per_epoch)
    elif settings["schedule"] == "exponential":
        schedule = optim.exponential(rate, decay_rate=settings["decay_rate"], steps_per_decay=steps_per_epoch)
    else:
        schedule = optim.constant(rate)
    return optim.warmup(schedule, settings["warmup"]) if settings["warmup"] else schedule


def augmentation_of(settings):
    """Return the augmentation of ``crop`` (pixels) and ``mirror``, or None without both."""
    steps = []
    if settings["crop"]:
        steps.append(lambda images, rng: augment.random_crop(images, settings["crop"], rng))
    if settings["mirror"]:
        steps.append(augment.mirror)
    return augment.compose(*steps) if steps else None


def first(dataset, count):
    """Return the first ``count`` images of a data set; its name says how many."""
    if not 1 <= count <= len(dataset):
        raise ValueError(f"--images must be from 1 to {len(dataset)} for {dataset.name}, got {count}")
    name = f"{dataset.name}-first-{count}"
    return datasets.Dataset(dataset.images[:count], dataset.labels[:count], name, dataset.class_names)


def _running_statistics(model):
    return {f"{path}.{name}": getattr(m, name) for path, m in model.named_modules() for name in m.running}


class RunFiles:
    """A callback that writes ``history.json`` after each epoch and ``curves.png`` at the end."""

    def __init__(self, folder, settings, arguments):
        self.folder = folder
        self.settings = settings
        self.command = shlex.join(["python", "-m", "npnets", *map(str, arguments)])

    def after_epoch(self, run):
        about = {"settings": self.settings, "command": self.command, "environment": environment()}
        checkpoint.write_json(self.folder / "history.json", about | run.history.to_dict())

    def interrupted(self, run):
        if run.history.epochs:
            self.write_curves(run.history)

    def write_curves(self, history):
        from npnets import plots  # matplotlib takes longer to import than the command line to answer

        title = f"{self.settings['model']} on {self.settings['dataset']}"
        with checkpoint.replacing(self.folder / "curves.png") as file:
            file.write(plots.png(plots.training_curves(history, title=title)))


def environment():
    """Return what a recorded result must name: versions, cores, and the commit where there is one."""
    try:
        here = Path(__file__).parent
        git = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=here, capture_output=True, text=True)
        commit = git.stdout.strip() or None
    except OSError:
        commit = None
    return {
        "npnets": npnets.__version__,
        "commit": commit,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "cores": parallel.available_cores(),
    }


def free_folder(settings):
    """Return runs/<dataset>-<model>, or the first of its numbered siblings in which there is no run."""
    usual = _usual_folder(settings)
    number, folder = 1, usual
    while folder.exists():
        number += 1
        folder = usual.with_name(f"{usual.name}-{number}")
    return folder


def latest_folder(settings):
    """Return the run that was saved last among runs/<dataset>-<model> and its numbered siblings."""
    usual = _usual_folder(settings)
    saved = [
        path
        for path in usual.parent.glob(f"{usual.name}*/checkpoint.npz")
        if re.fullmatch(rf"{re.escape(usual.name)}(-\d+)?", path.parent.name)
    ]
    if not saved:
        raise ValueError(f"there is no run to resume in {usual}; name its folder with --out")
    return max(saved, key=os.path.getmtime).parent


def saved_settings(folder, given):
    """Return the settings of the run in a folder.

    Raises
    ------
    ValueError
        If one of the ``given`` differs from the run's and matters to the result: a run is resumed as it was started.
    """
    _, numbers = checkpoint.read(folder / "checkpoint.npz")
    about = numbers.get("about")
    saved = about.get("command") if isinstance(about, dict) else None
    if not isinstance(saved, dict) or set(saved) != set(SETTINGS):
        raise ValueError(f"{folder}/checkpoint.npz was not written by `python -m npnets train`, or by another version")
    free = {name: given[name] for name in ("data", "save_every") if name in given}
    differences = [
        f"{name} was {saved[name]}, now {value}"
        for name, value in given.items()
        if name not in free and saved[name] != value
    ]
    if differences:
        raise ValueError(f"{folder} was started with other settings ({'; '.join(differences)}); leave them out")
    return saved | free


def _usual_folder(settings):
    return Path("runs") / f"{settings['dataset']}-{settings['model']}"
