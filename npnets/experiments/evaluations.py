"""Test accuracy along the way, not only after each epoch."""

import numpy as np

from npnets import training
from npnets.shapes import integer


class Evaluations:
    """A callback of ``fit`` that evaluates the network in inference mode at chosen steps.

    Parameters
    ----------
    dataset : datasets.Dataset
    every : int, optional
        Evaluate after so many steps.
    steps : iterable of int, optional
        Or after these numbers of steps. Give one of both.
    batch_size : int
    """

    fields = ("step", "test_loss", "test_accuracy")

    def __init__(self, dataset, *, every=None, steps=None, batch_size=100):
        if (every is None) == (steps is None):
            raise ValueError("give either every=N or steps=[...], to say after which steps to evaluate")
        self.dataset, self.batch_size = dataset, batch_size
        self.every = None if every is None else integer(every, "every", 1)
        self.chosen = None if steps is None else {integer(step, "steps", 1) for step in steps}
        self.rows = []

    def start(self, run):
        self.run = run

    def after_step(self, step):
        done = step + 1
        if done % self.every == 0 if self.chosen is None else done in self.chosen:
            run = self.run
            found = training.evaluate(
                run.model, self.dataset, mean=run.mean, std=run.std, batch_size=self.batch_size
            )
            self.rows.append((done, found.loss, found.accuracy))

    def state_dict(self):
        """Return what was found so far, for a checkpoint."""
        return {"rows": np.array(self.rows, np.float64).reshape(-1, len(self.fields))}

    def load_state_dict(self, state):
        """Continue from the state of :meth:`state_dict`."""
        self.rows = [(int(step), float(loss), float(accuracy)) for step, loss, accuracy in state["rows"]]

    def to_dict(self):
        """Return ``data`` (name), ``images``, ``step``, ``test_loss`` and ``test_accuracy``; a list of each for JSON.

        A loss that is not finite becomes None.
        """
        columns = {name: [row[k] for row in self.rows] for k, name in enumerate(self.fields)}
        columns["test_loss"] = [loss if np.isfinite(loss) else None for loss in columns["test_loss"]]
        return {"data": self.dataset.name, "images": len(self.dataset)} | columns
