"""What an experiment is: the settings of its baseline, and variants, of which each tells what differs from it."""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from npnets import datasets, runs
from npnets.shapes import integer

IMAGES = ("train_images", "test_images")


class Data(NamedTuple):
    """The images that a run trains on, and those that it is tested on."""

    train: datasets.Dataset
    test: datasets.Dataset


@dataclass(frozen=True)
class Experiment:
    """A comparison of networks that are trained under different settings, or of trainings of one network.

    Attributes
    ----------
    name : str
        That of its file.
    section : str
        Of which paper, and what it is about: one line for ``experiment list``.
    train : callable (settings, data, fit) -> dict
        Trains one network and returns what is to be recorded: anything that JSON can hold, and under ``arrays`` a dict
        of arrays, if there are any. ``settings`` are those of one variant, with its ``seed``, on which every random
        number must depend; ``data`` is a :class:`Data`; ``fit`` is ``training.fit``, except that it can be resumed,
        tells its progress, takes no ``progress`` and ``threads``, and returns ``(history, diverged)``: see
        :class:`npnets.experiments.single.Fit`.
    settings : dict
        Those of the baseline; at least ``dataset`` and ``epochs``. All values must be what JSON can hold.
    variants : dict of dict
        Name -> the settings that differ from the baseline's.
    seeds : dict of tuple
        Variant -> the seeds that are run where nothing else is asked for.
    small : dict
        The settings that differ in the small form, which a notebook cell can run. ``train_images`` and ``test_images``
        keep the first so many images.
    datasets : tuple of str
        Those that it can use.
    summary : callable (Records) -> str, optional
        A text that tells the result on the command line; by default what each variant reached.
    """

    name: str
    section: str
    train: Callable
    settings: Mapping
    variants: Mapping
    seeds: Mapping
    small: Mapping
    datasets: tuple[str, ...] = ("cifar10",)
    summary: Callable | None = None

    def chosen(self, variants=None, seeds=None):
        """Return the (variant, seed) pairs of a call: seed by seed, so that what is there first can be compared.

        Raises
        ------
        ValueError
            For an unknown variant, a seed that is none, or one given twice.
        """
        variants = list(self.variants) if variants is None else list(variants)
        for variant in variants:
            check_known(variant, self.variants, f"variant of {self.name}")
        for values in (variants, seeds or ()):
            if len(set(values)) < len(values):
                raise ValueError(f"{self.name}: a variant or a seed stands twice in {', '.join(map(str, values))}")
        own = {variant: self.seeds[variant] if seeds is None else seeds for variant in variants}
        every = sorted({integer(seed, "seed", 0) for seeds in own.values() for seed in seeds})
        return [(variant, seed) for seed in every for variant in variants if seed in own[variant]]

    def settings_of(self, variant, seed, *, small=False, **given):
        """Return the settings of one run; those ``given`` that are not None win.

        Raises
        ------
        ValueError
            For an unknown variant or setting, a data set that the experiment cannot use, or an epoch too few.
        """
        check_known(variant, self.variants, f"variant of {self.name}")
        settings = dict(self.settings) | dict(self.variants[variant]) | (dict(self.small) if small else {})
        given = {name: value for name, value in given.items() if value is not None}
        for name in given:
            check_known(name, self.settings, f"setting of {self.name}")
        settings |= given | {"seed": integer(seed, "seed", 0)}
        integer(settings["epochs"], "epochs", 1)
        if settings["dataset"] not in self.datasets:
            raise ValueError(f"{self.name} runs on {' or '.join(self.datasets)}, not on {settings['dataset']!r}")
        return settings

    def report(self, records):
        """Return the result of some runs as a text."""
        return records.to_text() if self.summary is None else self.summary(records)


def load_data(settings, root=None):
    """Return the :class:`Data` of a run's settings: the data set, or the first so many images of it.

    Raises
    ------
    FileNotFoundError, ValueError
        As ``datasets.load``.
    """
    sets = [datasets.load(settings["dataset"], split, root) for split in ("train", "test")]
    counts = [settings.get(name) for name in IMAGES]
    return Data(*(one if count is None else runs.first(one, min(count, len(one))) for one, count in zip(sets, counts)))


def check_known(name, known, what):
    """Raise a ``ValueError`` with the closest names unless ``name`` is among the ``known`` ones."""
    if name not in known:
        close = difflib.get_close_matches(str(name), list(known), n=2)
        hint = f"did you mean {' or '.join(close)}? " if close else ""
        raise ValueError(f"unknown {what} {name!r}; {hint}there are {', '.join(known)}")
