"""The papers' experiments, run again: one file each, its settings first.

``python -m npnets experiment NAME`` runs one, resumable, and leaves a JSON file for each variant and seed in
``notebooks/results/NAME/``. From Python::

    records = experiments.load("batch_norm")                 # what is recorded
    curve = records.curve("bn_x5", "test_accuracy")          # over all seeds: steps, mean, low, high, each
    records.best("bn_x5"), records.steps_to("bn_x5", 0.7)    # for each seed
    records = experiments.small("batch_norm")                # a few seconds to a minute, nothing is written

To add an experiment: a file with an ``EXPERIMENT`` (see :class:`Experiment`), and its line in ``EXPERIMENTS`` below.
"""

import contextlib
import json
import tempfile
import warnings
from pathlib import Path

from npnets import parallel
from npnets.datasets import SubsetWarning
from npnets.experiments import (
    activations,
    batch_norm,
    expansion,
    factorized,
    linear_bottlenecks,
    low_precision,
    recipe,
    records,
    running,
    shortcuts,
    single,
    staleness,
    width_resolution,
)
from npnets.experiments.experiment import IMAGES, Data, Experiment, check_known, load_data
from npnets.experiments.records import RESULTS, Curve, Record, Records
from npnets.shapes import integer

__all__ = [
    "EXPERIMENTS",
    "RESULTS",
    "Curve",
    "Data",
    "Experiment",
    "Record",
    "Records",
    "describe",
    "get",
    "load",
    "names",
    "run",
    "small",
]

EXPERIMENTS = {
    module.EXPERIMENT.name: module.EXPERIMENT
    for module in (
        activations,
        batch_norm,
        factorized,
        width_resolution,
        staleness,
        linear_bottlenecks,
        shortcuts,
        expansion,
        low_precision,
        recipe,
    )
}
"""In the order of the course."""


def names():
    """Return the names of all experiments."""
    return list(EXPERIMENTS)


def get(name):
    """Return the :class:`Experiment` of that name; a ``ValueError`` suggests similar names if there is none."""
    check_known(name, EXPERIMENTS, "experiment")
    return EXPERIMENTS[name]


def load(name, folder=None):
    """Return the :class:`Records` of an experiment.

    Parameters
    ----------
    name : str
    folder : path, optional
        By default ``notebooks/results`` of the repository.

    Raises
    ------
    ValueError
        If there is no such experiment, nothing of it is recorded there, or a record is damaged.
    """
    found = records.read_all(get(name), folder)
    if not len(found):
        raise ValueError(
            f"no run of {name} is recorded in {RESULTS if folder is None else folder}; "
            f"run it with: python -m npnets experiment {name}"
        )
    return found


def small(name, variants=None, seeds=(0,), **arguments):
    """Run the small form of an experiment, on what is in the repository, and return its :class:`Records`.

    Nothing is written. The other parameters are those of :func:`run`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SubsetWarning)  # every record names its data
        return run(name, variants, seeds, small=True, **arguments)


def run(
    name,
    variants=None,
    seeds=None,
    *,
    epochs=None,
    dataset=None,
    settings=None,
    data=None,
    small=False,
    jobs=None,
    threads=None,
    out=None,
    again=False,
    progress=False,
    command=None,
):
    """Run an experiment and return the :class:`Records` of these variants and seeds.

    Parameters
    ----------
    name : str
    variants : sequence of str, optional
        By default all.
    seeds : sequence of int, optional
        Of every variant. By default those that the experiment names for each.
    epochs, dataset : optional
        In place of the experiment's own.
    settings : dict, optional
        The same for any other setting, such as ``{"learning_rate": 2.0}``, of all variants.
    data : path, optional
        Folder of the data sets; as for ``datasets.load``.
    small : bool
        The small form.
    jobs : int, optional
        How many runs at a time; by default the cores. More than one are processes of their own.
    threads : int, optional
        Of each run; by default its share of the cores. The results have the same bits for every number.
    out : path, optional
        Folder of the records, ``<name>/<variant>-seed<k>.json`` below it. What is recorded there with the same settings
        is not run again, and an interrupted run is continued from its checkpoint in ``runs/experiments/``. Without it
        nothing is kept.
    again : bool
        Run again what is recorded with other settings, instead of refusing to.
    progress : bool
        Tell on stderr.
    command : str, optional
        What the records name as the command that made them.

    Raises
    ------
    ValueError
        For unknown names and settings out of range, if a record in the way was made with other settings, or if a run
        fails.
    FileNotFoundError
        If the data set is not there.
    KeyboardInterrupt
        After Ctrl-C; with ``out``, every run is saved where it was.
    """
    experiment = get(name)
    chosen = experiment.chosen(variants, seeds)
    given = {"epochs": epochs, "dataset": dataset}
    given = dict(settings or {}) | {name: value for name, value in given.items() if value is not None}
    for setting in given:
        check_known(setting, experiment.settings, f"setting of {name}")
    settings = [experiment.settings_of(*one, small=small, **given) for one in chosen]
    settings = _with_data_names(settings, data)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()) if out is None else out)
        left = [one for one in zip(chosen, settings) if not _recorded(folder, name, *one, again)]
        cores = parallel.available_cores()
        jobs = max(1, min(integer(jobs, "jobs", 1) if jobs else cores, len(left)))
        threads = integer(threads, "threads", 1) if threads else max(1, cores // jobs)
        about = {"data": data and str(data), "out": str(folder), "resumable": out is not None}
        about |= {"command": command or f"npnets.experiments.run({name!r})", "jobs": jobs, "threads": threads}
        tasks = [running.Task(name, variant, own, **about) for (variant, _), own in left]
        show = running.Progress(name, tasks, progress and tasks)
        try:
            if jobs == 1:
                running.one_by_one(tasks, experiment, show)
            else:
                running.side_by_side(tasks, jobs, show)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"; {show.ended} of {show.runs} runs done{_how_to_go_on(out, command)}") from None
        finally:
            show.close()
        paths = [single.record_path(folder, name, *one) for one in chosen]
        return Records(experiment, [records.read(path) for path in paths])


def _with_data_names(settings, root):
    """Return the settings with the names of the data that are there, such as cifar10 or cifar10-subset-5000."""
    found = {}
    for one in settings:
        key = (one["dataset"], *(one.get(count) for count in IMAGES))
        if key not in found:
            sets = load_data(one, root)
            found[key] = {"train": sets.train.name, "test": sets.test.name}
        one |= found[key]
    return [json.loads(json.dumps(one)) for one in settings]  # as they come back from a record


def _recorded(folder, name, chosen, settings, again):
    """Tell whether a run is recorded with these settings; refuse if it is with others, but for ``again``."""
    path = single.record_path(folder, name, *chosen)
    if not path.exists():
        return False
    before = records.read(path).settings
    if before == settings or again:
        return before == settings
    names = sorted(name for name in before.keys() | settings if before.get(name) != settings.get(name))
    differences = "; ".join(f"{name} was {before.get(name)!r}, now {settings.get(name)!r}" for name in names)
    raise ValueError(
        f"{path} was recorded with other settings ({differences}); replace it with --again, or choose another --out"
    )


def _how_to_go_on(out, command):
    if out is None:
        return ""
    return f", those under way are saved; continue with: {command or 'the same call'}"


def describe(folder=None):
    """Return lines that tell which experiments there are, what is recorded of each, and how long it took."""
    lines = []
    for name, experiment in EXPERIMENTS.items():
        found = records.read_all(experiment, folder)
        asked = experiment.chosen()
        have = {(record.variant, record.seed) for record in found}
        missing = [f"{variant} (seed {seed})" for variant, seed in asked if (variant, seed) not in have]
        lines += [f"{name}: {experiment.section}", f"  {len(asked) - len(missing)} of {len(asked)} runs are recorded"]
        if len(found):
            data = sorted({record.settings["train"] for record in found})
            lines[-1] += f", {records.duration(found.seconds())} of computing on {', '.join(data)}"
            lines += [f"    {line}" for line in found.to_text().splitlines()]
            lines += [f"  missing: {', '.join(missing)}"] * bool(missing)
        else:
            seeds = [f"{variant} ({len(experiment.seeds[variant])})" for variant in experiment.variants]
            lines.append(f"  variants (how many seeds): {', '.join(seeds)}")
        lines.append("")
    return lines[:-1]
