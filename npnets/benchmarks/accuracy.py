"""How long a training takes to reach an accuracy, in seconds and in images."""

import os
import tempfile
from dataclasses import dataclass

import numpy as np

from npnets import runs
from npnets.benchmarks import measure, recipe
from npnets.benchmarks.report import Section, Table

TARGET = 0.99
EVERY = 100
"""Steps between two evaluations."""


@dataclass(frozen=True)
class Training:
    """One training of one library.

    Attributes
    ----------
    label : str
    seed, threads : int
    target : float
        Accuracy, from 0 to 1.
    evaluations : list of dict
        ``step``, ``images`` (seen), ``seconds`` (of training so far), ``accuracy`` (of the test images) and
        ``evaluation_seconds``; the last one reached the target, or the training ended.
    """

    label: str
    seed: int
    threads: int
    target: float
    evaluations: list

    @property
    def reached(self):
        """The evaluation that found the target reached, or None."""
        return next((one for one in self.evaluations if one["accuracy"] >= self.target), None)

    def record(self):
        """Return everything as a dict for JSON."""
        return dict(vars(self))

    @classmethod
    def from_record(cls, record):
        """Return the training that :meth:`record` described."""
        return cls(**record)


def time_to_accuracy(setup, target=TARGET, every=EVERY, settings=None):
    """Train with each library and seed until the target is reached; the libraries take turns, seed by seed.

    Parameters
    ----------
    setup : measure.Setup
        Its ``seeds``; of its ``threads`` the largest.
    target : float
    every : int
        Steps between two evaluations.
    settings : dict, optional
        Differences from the defaults of ``python -m npnets train``.
    """
    from tqdm import tqdm

    libraries, threads = setup.libraries(), max(setup.threads)
    common = {"benchmark": "time_to_accuracy", "target": target, "every": every, "threads": threads}
    trainings, differences = [], {}
    with (
        tempfile.TemporaryDirectory() as folder,
        tqdm(total=len(libraries) * len(setup.seeds), desc="trainings", leave=False, disable=None) as bar,
    ):
        common |= {name: os.path.join(folder, f"{name}.npz") for name in ("arrays", "drawn")}
        for seed in setup.seeds:
            settings_of_seed = runs.settings((settings or {}) | {"seed": seed})
            job = common | recipe.job(settings_of_seed)
            differences = differences or measure.check_same(libraries, job)
            if len(libraries) > 1:
                recipe.draw(settings_of_seed, common["drawn"])
            for library in libraries:
                bar.set_postfix_str(f"seed {seed}, {library.label}")
                result = measure.run_worker(library, job | {"task": "train"})
                trainings.append(Training(library.label, seed, threads, target, result["evaluations"]))
                bar.update()
                if setup.keep is not None:
                    setup.keep(section(trainings, job, differences, bar.total))
    return section(trainings, job, differences, len(trainings))


def section(trainings, job, differences, planned):
    """Return the table of the trainings that have been made, of so many ``planned``."""
    first, settings = trainings[0], job["settings"]
    notes = [
        f"The recipe is that of `python -m npnets train`: {settings['model']}, {settings['optimizer']}, batches of "
        f"{settings['batch_size']}, at most {settings['epochs']} epochs; only the padding is symmetric, since "
        "PyTorch's strided convolutions pad both sides alike. The test images are evaluated after every "
        f"{job['every']} steps, and the seconds do not count that; a training ends with the first evaluation at the "
        "target.",
    ]
    if len(trainings) < planned:
        notes.append(f"Incomplete: {len(trainings)} of {planned} trainings.")
    if differences:
        notes.append(
            "All libraries start from the same weights of npnets and see the same augmented images in the same order. "
            "npnets draws and shifts them within its time, the others are given them beforehand. Before the clock "
            "started, the libraries agreed on the losses of three steps, in float64 also on the weights after them: "
            f"within {differences['float32']:.0e} in float32 and {differences['float64']:.0e} in float64."
        )
    method = {"seeds": sorted({t.seed for t in trainings}), "threads": [first.threads], "every": job["every"]}
    title = f"Time to accuracy: {settings['dataset']} to {first.target:.0%} of the test images"
    return Section(title, tuple(trainings), (table(trainings),), tuple(notes), method)


def table(trainings):
    """Return a row for each library: seconds and images to the target, median and range over the seeds."""
    labels = list(dict.fromkeys(training.label for training in trainings))
    rows = []
    for label in labels:
        own = [training for training in trainings if training.label == label]
        reached = [training.reached for training in own if training.reached]
        last = [training.evaluations[-1] for training in own]
        speed = [one["images"] / one["seconds"] for one in last]
        evaluation = [one["evaluation_seconds"] for training in own for one in training.evaluations]
        rows.append(
            (
                label,
                str(own[0].threads),
                f"{len(reached)} of {len(own)}",
                _spread([one["seconds"] for one in reached], "{:.0f}"),
                _spread([one["images"] / 1e3 for one in reached], "{:.0f}"),
                f"{np.median(speed):,.0f}",
                f"{np.median(evaluation):.1f}",
            )
        )
    columns = ("", "threads", "seeds that reached it", "seconds", "thousand images", "images/s", "s an evaluation")
    target = trainings[0].target
    return Table(f"To {target:.0%}: median [range] over the seeds", columns, tuple(rows))


def _spread(values, form):
    if not values:
        return "-"
    median, low, high = (form.format(value) for value in (np.median(values), min(values), max(values)))
    return f"{median} [{low}, {high}]"
