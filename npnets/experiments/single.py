"""One run of an experiment: one variant, one seed."""

import hashlib
import json
import time
import warnings
from pathlib import Path

import numpy as np

from npnets import checkpoint, runs, training
from npnets.datasets import SubsetWarning
from npnets.experiments.experiment import load_data

CHECKPOINTS = Path("runs") / "experiments"
SAVE_EVERY = 500
TELL_EVERY = 0.5  # seconds


def run(experiment, variant, settings, *, data=None, resumable=True, threads=None, tell=None):
    """Train one variant with one seed and return (record, arrays).

    Parameters
    ----------
    experiment : Experiment
    variant : str
    settings : dict
        From :meth:`Experiment.settings_of`.
    data : path, optional
        Folder of the data sets.
    resumable : bool
        Keep checkpoints in ``runs/experiments/``, and continue from one that is there. Its name holds a digest of the
        settings: only a run with the same ones continues it.
    threads : int, optional
    tell : callable (dict), optional
        Told ``{"done": share of the run, "loss": ..., "accuracy": ...}`` now and then.

    Returns
    -------
    record : dict
        ``experiment``, ``variant``, ``seed``, ``settings``, what the experiment returned, ``seconds`` (all of them: of
        training and evaluation, and of earlier parts of an interrupted run).
    arrays : dict name -> array

    Raises
    ------
    KeyboardInterrupt
        After Ctrl-C; where ``resumable``, the run is saved.
    """
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SubsetWarning)  # whoever started the runs has said it
        sets = load_data(settings, data)
    folder = checkpoint_folder(experiment, variant, settings) if resumable else None
    fit = Fit(settings, folder, threads, tell or (lambda message: None), began)
    with training.parallel.threads(threads):  # what is computed beside the training, too
        found = experiment.train(settings, sets, fit)
    arrays = found.pop("arrays", {})
    about = {"experiment": experiment.name, "variant": variant, "seed": settings["seed"], "settings": settings}
    return about | found | {"seconds": round(fit.seconds(), 2)}, arrays


def forget(experiment, variant, settings):
    """Remove the checkpoints of a run that is recorded."""
    folder = checkpoint_folder(experiment, variant, settings)
    for path in folder.glob("fit*.npz"):
        path.unlink()
    if folder.exists() and not any(folder.iterdir()):
        folder.rmdir()


def checkpoint_folder(experiment, variant, settings):
    """Return where the checkpoints of a run are kept, below the current folder."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
    return CHECKPOINTS / experiment.name / f"{variant}-seed{settings['seed']}-{digest}"


class Fit:
    """``training.fit`` as an experiment calls it.

    It is given what ``training.fit`` is given, but ``progress`` and ``threads``, and returns ``(history, diverged)``:
    the History up to the end or to the step at which the loss was not finite, and None or ``{"step", "message"}``. A
    training that diverges is a result of the experiment.

    An interrupted run continues where it stopped, if the experiment makes its calls in the same order again.
    """

    def __init__(self, settings, folder, threads, tell, began):
        self.settings, self.folder, self.threads, self.tell = settings, folder, threads, tell
        self.began, self.earlier, self.calls = began, 0.0, 0

    def __call__(self, model, train, test=None, *, callbacks=(), **arguments):
        self.calls += 1
        callbacks = [self, *callbacks]
        if self.folder is not None:
            path = self.folder / f"fit{self.calls}.npz"
            saver = checkpoint.Checkpoint(
                path, every=SAVE_EVERY, resume=path.exists(), about={"settings": self.settings}
            )
            callbacks.append(saver)
        try:
            history = training.fit(
                model, train, test, callbacks=callbacks, progress=False, threads=self.threads, **arguments
            )
            return history, None
        except training.TrainingDiverged as error:
            return self.run.history, {"step": self.run.steps, "message": str(error)}

    def seconds(self):
        """Return how long the run has taken so far, with what it took before it was interrupted."""
        return self.earlier + time.perf_counter() - self.began

    # --- It is a callback of its own: it tells the progress, and its clock is kept in the checkpoint.

    def start(self, run):
        self.run, self.told = run, 0.0

    def after_step(self, step):
        now = time.perf_counter()
        if now - self.told >= TELL_EVERY:
            self.told = now
            loss, accuracy = self.run.recent()
            steps = self.run.epochs * self.run.steps_per_epoch
            self.tell({"done": self.run.steps / steps, "loss": float(loss), "accuracy": float(accuracy)})

    def state_dict(self):
        return {"seconds": np.array(self.seconds())}

    def load_state_dict(self, state):
        self.earlier = float(state["seconds"]) - (time.perf_counter() - self.began)


def write(folder, record, arrays, command, how):
    """Write a record below ``folder``, and its arrays beside it; ``how`` many ``jobs`` and ``threads`` it was run with.

    The arrays come first: where a record is, its arrays are.
    """
    path = record_path(folder, record["experiment"], record["variant"], record["seed"])
    if arrays:
        checkpoint.write_arrays(path.with_suffix(".npz"), arrays)
    checkpoint.write_json(path, record | {"command": command, "environment": runs.environment() | how})


def record_path(folder, name, variant, seed):
    """Return the path of the record of one run."""
    return Path(folder) / name / f"{variant}-seed{seed}.json"
