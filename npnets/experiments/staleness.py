"""Asynchronous gradient descent: what stale gradients do to RMSProp and to SGD, on CIFAR-10.

Both MobileNets were trained with "asynchronous gradient descent" (V1, section 3.2), V2 by "16 GPU asynchronous workers"
(section 6.1). Nobody waits: while a worker computes its gradient, the 15 others change the weights for which it
computes it. The papers do not say what that costs. Here 1, 4 and 16 workers are simulated on one machine (see
:class:`npnets.optim.Stale`): they take turns, each gradient is n - 1 updates old, and every run makes the same updates
with the same batches in the same order. So what differs is the age of the gradients alone; that 16 machines are faster
is left out of the account.

RMSProp with the papers' momentum of 0.9, and for 1 and 16 workers SGD with the same. Momentum and delay add up: with
0.9, half of a step comes from gradients that arrived seven and more steps ago, and with 16 workers the weights that
those were computed with are older by another 15. The learning rate is the one that suits a single worker, and it may be
too large for several. So RMSProp is tried at a quarter and at a sixteenth of it, too, and with one worker as well: a
smaller rate has a price of its own. And it is tried without momentum, at ten times the rate, so that a gradient counts
as much in the end.

Recorded besides: ``lag``, the distance between the worker's weights and the server's, ``|w_t - w_s| / |w_t|``, and
``norm``, the length of the weights, ``|w_t|``. Wild steps make them longer, and in front of a batch norm longer weights
turn less: so a network may live with gradients that are too old for its rate. In the end, where the rate falls to
nearly zero, so does the lag. So the networks are tested with weights that hardly move any more, and with running
statistics of batch norm (which are as old as the gradients) that belong to them.

SGD has one rate and one seed, RMSProp three of both: each can be compared with itself, and not which of them bears old
gradients better.

How this differs from the papers: the delays of real machines vary; the recipe is that of
:mod:`npnets.experiments.common`; and the network is ``models.mobilenet_v1_small`` at half its width, as in
:mod:`npnets.experiments.factorized`.

35 runs of 2 epochs took 35 minutes on two cores.
"""

import numpy as np

from npnets import models, optim, runs
from npnets.experiments import common
from npnets.experiments.experiment import Experiment
from npnets.experiments.records import rounded

WORKERS = (1, 4, 16)
RATES = {"": 1, "_quarter": 1 / 4, "_sixteenth": 1 / 16}

SETTINGS = common.RECIPE | {"epochs": 2, "width_mult": 0.5, "workers": 1}
RMSPROP = {
    f"rmsprop_{n}{name}": {"workers": n, "learning_rate": share * SETTINGS["learning_rate"]}
    for name, share in RATES.items()
    for n in WORKERS
}
SGD = {f"sgd_{n}": {"workers": n, "optimizer": "sgd", "learning_rate": 0.05} for n in (1, 16)}
PLAIN = {
    f"rmsprop_{n}_plain": {"workers": n, "momentum": 0.0, "learning_rate": 10 * SETTINGS["learning_rate"]}
    for n in (1, 16)
}
VARIANTS = RMSPROP | PLAIN | SGD
SEEDS = dict.fromkeys(RMSPROP | PLAIN, (0, 1, 2)) | dict.fromkeys(SGD, (0,))
SMALL = common.SMALL | {"batch_size": 16}

LAG_EVERY = 50  # steps


def train(settings, data, fit):
    """Train one network."""
    model = models.mobilenet_v1_small(
        **common.for_images(data, width_mult=settings["width_mult"], seed=settings["seed"])
    )
    optimizer = optim.Stale(runs.optimizer_of(model, settings), settings["workers"])
    turns = Turns(optimizer)
    found = common.train(model, settings, data, fit, optimizer=optimizer, callbacks=[turns])
    return found | {"lag": turns.to_dict()}


class Turns:
    """A callback that lets the workers take turns, and notes how far the weights of each are behind the server's.

    Besides it notes the length of all the server's weights together.

    Parameters
    ----------
    optimizer : optim.Stale
    every : int, optional
        Note it after so many steps; by default ``LAG_EVERY``.
    """

    fields = ("step", "lag", "norm")

    def __init__(self, optimizer, every=None):
        self.optimizer, self.every, self.rows = optimizer, every or LAG_EVERY, []

    def before_step(self, step):
        self.optimizer.fetch()

    def after_step(self, step):
        if (step + 1) % self.every == 0:
            self.rows.append((step + 1, self.optimizer.lag(), self.optimizer.norm()))

    def state_dict(self):
        """Return what was noted so far, for a checkpoint."""
        return {"rows": np.array(self.rows, np.float64).reshape(-1, len(self.fields))}

    def load_state_dict(self, state):
        """Continue from the state of :meth:`state_dict`."""
        self.rows = [(int(step), float(lag), float(norm)) for step, lag, norm in state["rows"]]

    def to_dict(self):
        """Return ``step``, ``lag`` and ``norm``, a list of each for JSON; None for what is not finite."""
        steps, lags, norms = zip(*self.rows) if self.rows else ((), (), ())
        return {"step": list(steps), "lag": rounded(lags), "norm": rounded(norms)}


EXPERIMENT = Experiment(
    name="staleness",
    section="MobileNetV1, section 3.2, and V2, section 6.1: asynchronous gradient descent, simulated",
    train=train,
    settings=SETTINGS,
    variants=VARIANTS,
    seeds=SEEDS,
    small=SMALL,
    datasets=("cifar10", "mnist"),
    summary=common.results_table,
)
