"""What the runs of an experiment left: read back, put in order, and summarised over seeds."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from npnets.cost.tables import text_table
from npnets.experiments.experiment import check_known
from npnets.nn.weights import read_npz

RESULTS = Path(__file__).resolve().parents[2] / "notebooks" / "results"
"""Where the recorded results are, and where new ones go if nothing else is said."""


class Record:
    """One run: ``record["seconds"]`` and whatever else stands in its JSON file, and its ``arrays`` by name.

    Attributes
    ----------
    variant : str
    seed : int
    settings : dict
    diverged : dict or None
        ``step`` and ``message`` of a training whose loss was not finite in the end.
    content : dict
        The whole record.
    arrays : dict name -> ndarray
    """

    def __init__(self, content, arrays=None):
        self.content, self.arrays = content, arrays or {}
        self.variant, self.seed, self.settings = content["variant"], content["seed"], content["settings"]
        self.diverged = content.get("diverged")

    def __getitem__(self, name):
        check_known(name, self.content, "part of the record")
        return self.content[name]

    def curve(self, quantity):
        """Return (steps, values) of a quantity, as int64 and float64 arrays (T,); NaN where there is no number.

        ``"test_accuracy"`` and ``"test_loss"`` are those of the evaluations along the way where there are any, else of
        the epochs; ``"train_loss"`` is the mean over the steps since the point before; everything else that
        ``training.History`` has for an epoch can be named too.
        """
        history, evaluations = self["history"], self.content.get("evaluations", {})
        if quantity == "train_loss":
            pairs = history["losses"]
        elif quantity != "step" and quantity in evaluations:
            pairs = zip(evaluations["step"], evaluations[quantity])
        else:
            pairs = [(epoch["step"], epoch[quantity]) for epoch in self._epochs(quantity)]
        pairs = [(step, np.nan if value is None else value) for step, value in pairs]
        steps, values = zip(*pairs) if pairs else ((), ())
        return np.array(steps, np.int64), np.array(values, np.float64)

    def _epochs(self, quantity):
        epochs = self["history"]["epochs"]
        if epochs:
            check_known(quantity, epochs[0], "quantity")
        return epochs

    def best(self):
        """Return the highest test accuracy along the way, from 0 to 1; 0 where none was ever measured."""
        _, accuracy = self.curve("test_accuracy")
        return float(accuracy[~np.isnan(accuracy)].max(initial=0.0))

    def last(self):
        """Return the test accuracy in the end, from 0 to 1; NaN if the training diverged or none was ever measured."""
        _, accuracy = self.curve("test_accuracy")
        return float(accuracy[-1]) if self.diverged is None and accuracy.size else np.nan

    def steps_to(self, accuracy):
        """Return the first step after which the test accuracy was at least ``accuracy``; None if it never was."""
        steps, reached = self.curve("test_accuracy")
        found = np.flatnonzero(reached >= accuracy)
        return int(steps[found[0]]) if found.size else None

    def __repr__(self):
        return f"Record({self.variant}, seed {self.seed}, test accuracy {self.last():.2%})"


class Curve(NamedTuple):
    """A quantity over the steps of a training, for several seeds. S seeds, T steps; NaN where a run has ended."""

    steps: np.ndarray  # (T,)
    each: np.ndarray  # (S, T)
    mean: np.ndarray  # (T,)
    low: np.ndarray  # (T,) the smallest of the seeds
    high: np.ndarray  # (T,) the largest


class Records:
    """The records of an experiment: a sequence of :class:`Record`, by variant and seed.

    Attributes
    ----------
    experiment : str
    variants : list of str
        Those that there are records of, in the order of the experiment.
    """

    def __init__(self, experiment, records):
        order = list(experiment.variants)
        records = [record for record in records if record.variant in order]
        self.experiment = experiment.name
        self._records = sorted(records, key=lambda record: (order.index(record.variant), record.seed))
        self.variants = list(dict.fromkeys(record.variant for record in self._records))

    def __len__(self):
        return len(self._records)

    def __iter__(self):
        return iter(self._records)

    def of(self, variant):
        """Return the records of a variant, by seed.

        Raises
        ------
        ValueError
            If there is none.
        """
        check_known(variant, self.variants, f"or not recorded variant of {self.experiment}")
        return [record for record in self if record.variant == variant]

    def curve(self, variant, quantity="test_accuracy"):
        """Return the :class:`Curve` of a quantity, such as ``"test_accuracy"`` or ``"train_loss"``, over all seeds."""
        curves = [record.curve(quantity) for record in self.of(variant)]
        steps = np.unique(np.concatenate([steps for steps, _ in curves]))  # (T,)
        each = np.full((len(curves), len(steps)), np.nan)
        for row, (own, values) in zip(each, curves):
            row[np.searchsorted(steps, own)] = values
        return Curve(steps, each, each.mean(axis=0), each.min(axis=0), each.max(axis=0))

    def best(self, variant):
        """Return the highest test accuracy of each seed, (S,)."""
        return np.array([record.best() for record in self.of(variant)])

    def steps_to(self, variant, accuracy):
        """Return for each seed the first step with at least this test accuracy, or None."""
        return [record.steps_to(accuracy) for record in self.of(variant)]

    def seconds(self):
        """Return how long all runs took together."""
        return sum(record["seconds"] for record in self)

    def to_text(self):
        """Return a table for a terminal: what each variant reached."""
        heading = ("variant", "seeds", "epochs", "accuracy in the end", "lowest", "highest", "best on the way")
        lines = [(*heading, "a run takes")]
        for variant in self.variants:
            found = self.of(variant)
            epochs = sorted({record.settings["epochs"] for record in found})
            last = np.array([record.last() for record in found])  # (S,)
            there = last[~np.isnan(last)]
            accuracies = [f"{measure(there):.2%}" if there.size else "" for measure in (np.mean, np.min, np.max)]
            diverged = sum(record.diverged is not None for record in found)
            accuracies[0] += f" ({diverged} diverged)" * bool(diverged)
            accuracies.append(f"{self.best(variant).mean():.2%}")
            seconds = duration(float(np.median([record["seconds"] for record in found])))
            lines.append((variant, str(len(found)), ", ".join(map(str, epochs)), *accuracies, seconds))
        return text_table(lines, 1, total=False)

    def __repr__(self):
        return f"Records({self.experiment}: {', '.join(f'{v} x {len(self.of(v))}' for v in self.variants) or 'none'})"


def duration(seconds):
    """Return a time in words: seconds, minutes or hours.

    >>> duration(45.2), duration(600), duration(9000)
    ('45 s', '10 min', '2.5 h')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def rounded(values):
    """Return numbers with five significant digits for JSON; None for what is not finite.

    >>> rounded(np.array([1 / 3, 2e9, np.nan]))
    [0.33333, 2000000000.0, None]
    """
    return [float(f"{value:.5g}") if np.isfinite(value) else None for value in values]


def read(path):
    """Return the :class:`Record` in a file, with its arrays.

    Raises
    ------
    ValueError
        If it is none, or its arrays are damaged.
    """
    path = Path(path)
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
        arrays = {}
        if path.with_suffix(".npz").exists():
            with open(path.with_suffix(".npz"), "rb") as file:
                arrays = read_npz(file)
        return Record(content, arrays)
    except Exception as error:  # what a damaged file provokes is no closed list
        raise ValueError(f"{path} is not the record of a run: {error}; move it away, and run it again") from error


def read_all(experiment, folder=None):
    """Return the :class:`Records` of an experiment below ``folder``, by default ``notebooks/results``."""
    folder = RESULTS if folder is None else Path(folder)
    return Records(experiment, [read(path) for path in sorted((folder / experiment.name).glob("*-seed*.json"))])
