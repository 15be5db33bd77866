"""How MobileNetV2 is trained: section 6.1 of its paper (Sandler et al. 2018), tried out on CIFAR-10.

"We use the standard RMSPropOptimizer with both decay and momentum set to 0.9. We use batch normalization after every
layer, and the standard weight decay is set to 0.00004. Following MobileNetV1 setup we use initial learning rate of
0.045, and learning rate decay rate of 0.98 per epoch. We use 16 GPU asynchronous workers, and a batch size of 96."
Dropout is named in section 4; the original code keeps 0.8 of the features.

The paper does not say epsilon. TF-Slim's training script, which was used for these networks, has 1.0, inside the root.
There g / sqrt(ms + 1) is nearly g, as long as gradients are small against one: RMSProp is then little else than
gradient descent with momentum, and 0.045 a rate for that. With an epsilon of 1e-3, the same gradient is divided by as
little as 0.03, with 1e-8 by its own size, and 0.045 may be far too much. So each epsilon is tried at 0.045, and at a
rate of its own.

================= ==================================================================================================
variants          what they compare
================= ==================================================================================================
paper, cosine     0.98 an epoch: in a few epochs the rate hardly falls, over some hundreds it does; and
                  half a cosine, down to zero. Whatever follows differs from ``cosine`` in one thing, or in the rate too
no_dropout        without dropout
epsilon_...       RMSProp's epsilon, at 0.045 and at the rate ``OWN_RATES``
sgd...            gradient descent with a momentum of 0.9, at 0.045 and at ``OWN_RATES``
range_...         learning rate range tests (Smith 2017, "Cyclical learning rates for training neural networks"): one
                  epoch, in which the rate grows exponentially, and the loss of each step
================= ==================================================================================================

How this differs from the paper: one worker (see :mod:`npnets.experiments` ``staleness`` for 16),
``models.mobilenet_v2_small`` at half its width (47,306 parameters), 2 epochs of CIFAR-10. A network that small does not
overfit in so few, and dropout has little to prevent.

Recorded besides: how large ``sqrt(ms)`` is in the end, to which epsilon must be compared (see
:func:`root_mean_squares`).

Eight variants with three seeds, one with a single seed (it is far off) and 2 epochs, and four range tests, took 35
minutes on two cores.
"""

import numpy as np

from npnets import models, optim, runs
from npnets.experiments import common
from npnets.experiments.experiment import Experiment
from npnets.experiments.records import Records, rounded
from npnets.shapes import number

OWN_RATES = {"epsilon_1e-3": 0.01, "epsilon_1e-8": 0.002, "sgd": 0.1}
"""For epsilon 1e-3 that of :mod:`npnets.experiments.common`; for the others one below where the smoothed loss of a
range test stops falling (the variants ``range_epsilon_1e-8`` and ``range_sgd``). They were not tuned equally, nor
finely: a difference between two of these variants is one between two rates, too."""

SETTINGS = common.RECIPE | {  # the paper's, and what it leaves open
    "epochs": 2,
    "batch_size": 96,
    "learning_rate": 0.045,
    "schedule": "exponential",
    "decay_rate": 0.98,
    "warmup": 0,
    "epsilon": 1.0,
    "dropout": 0.2,
    "width_mult": 0.5,
    "rates": None,  # of a range test: the first and the last
}

COSINE = {"schedule": "cosine"}
CHANGES = {  # of the optimizer
    "epsilon_1e-3": {"epsilon": 1e-3},
    "epsilon_1e-8": {"epsilon": 1e-8},
    "sgd": {"optimizer": "sgd"},
}
COMPARED = (
    {"paper": {}, "cosine": COSINE, "no_dropout": COSINE | {"dropout": 0.0}}
    | {name: COSINE | change for name, change in CHANGES.items()}
    | {f"{name}_own_rate": COSINE | CHANGES.get(name, {}) | {"learning_rate": rate} for name, rate in OWN_RATES.items()}
)
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)

RANGE = {"epochs": 1, "schedule": "range", "rates": (1e-5, 10.0)}
RANGE_TESTS = {"range_epsilon_1": RANGE} | {f"range_{name}": RANGE | change for name, change in CHANGES.items()}
VARIANTS = COMPARED | RANGE_TESTS
SEEDS = dict.fromkeys(COMPARED, (0, 1, 2)) | dict.fromkeys((*RANGE_TESTS, "epsilon_1e-8"), (0,))
SMALL = common.SMALL | {"warmup": 0}


def train(settings, data, fit):
    """Train one network, or make a range test."""
    names = ("width_mult", "dropout", "seed")
    model = models.mobilenet_v2_small(**common.for_images(data, **{name: settings[name] for name in names}))
    if settings["rates"] is None:
        optimizer = runs.optimizer_of(model, settings)
        found = common.train(model, settings, data, fit, optimizer=optimizer)
        return found | {"root_mean_squares": root_mean_squares(optimizer)}
    steps = settings["epochs"] * (len(data.train) // settings["batch_size"])
    losses = Losses()
    found = common.train(model, settings, data, fit, schedule=growing(*settings["rates"], steps), callbacks=[losses])
    return found | {"range_test": losses.to_dict()}


def root_mean_squares(optimizer):
    """Return the ``QUANTILES`` of ``sqrt(ms)`` over all weights, RMSProp's running mean square of each one's gradient.

    Where it is far below ``sqrt(epsilon)``, RMSProp divides by that and is gradient descent with momentum; where it is
    far above, a step does not depend on the size of the gradient. None for an optimizer that has no mean squares.
    """
    squares = [value.ravel() for name, value in optimizer.state_dict().items() if name.startswith("mean_square.")]
    return rounded(np.quantile(np.sqrt(np.concatenate(squares, dtype=np.float64)), QUANTILES)) if squares else None


def growing(initial, final, steps):
    """Return the schedule that grows exponentially from ``initial`` at step 0 to ``final`` at the last of ``steps``.

    >>> schedule = growing(1e-4, 1e2, steps=7)
    >>> [round(schedule(step), 6) for step in (0, 1, 3, 6)]
    [0.0001, 0.001, 0.1, 100.0]
    """
    initial, final = number(initial, "initial", above=0), number(final, "final", above=0)
    return optim.exponential(initial, decay_rate=final / initial, steps_per_decay=max(1, steps - 1), staircase=False)


class Losses:
    """A callback of ``fit`` that notes the learning rate and the loss of each step."""

    fields = ("rate", "loss")

    def __init__(self):
        self.rows, self.total = [], 0.0

    def start(self, run):
        self.run = run

    def before_step(self, step):
        if self.run.step_in_epoch == 0:
            self.total = 0.0

    def after_step(self, step):
        mean, _ = self.run.recent()  # since the beginning of the epoch
        total = float(mean) * self.run.step_in_epoch
        self.rows.append((self.run.optimizer.learning_rate, total - self.total))
        self.total = total

    def state_dict(self):
        """Return what was noted so far, for a checkpoint."""
        return {"rows": np.array(self.rows, np.float64).reshape(-1, 2), "total": np.array(self.total)}

    def load_state_dict(self, state):
        """Continue from the state of :meth:`state_dict`."""
        self.rows, self.total = [tuple(map(float, row)) for row in state["rows"]], float(state["total"])

    def to_dict(self):
        """Return a list for each of the ``fields``."""
        return {name: rounded(row[k] for row in self.rows) for k, name in enumerate(self.fields)}


def smoothed(losses, weight=0.95):
    """Return the running average of some losses, (T,): ``m_t = weight m_(t-1) + (1 - weight) loss_t``, from zero.

    It is divided by ``1 - weight^t``, the sum of the weights, as in Adam (Kingma and Ba 2015, section 3).
    """
    average, found = 0.0, []
    for t, loss in enumerate(losses, 1):
        average = weight * average + (1 - weight) * loss
        found.append(average / (1 - weight**t))
    return np.array(found)


def range_of(record):
    """Return (rates, losses, smoothed losses) of a range test, up to where the loss is no number or four times the
    lowest; (T,) each.

    Parameters
    ----------
    record : Record
    """
    test = record["range_test"]
    rates, losses = (np.array(test[name], np.float64) for name in Losses.fields)  # None becomes NaN
    losses = losses[: np.argmax(np.isnan(losses))] if np.isnan(losses).any() else losses
    smooth = smoothed(losses)
    too_much = np.flatnonzero(smooth > 4 * np.minimum.accumulate(smooth))
    end = too_much[0] if too_much.size else len(losses)
    return rates[:end], losses[:end], smooth[:end]


def summary(records):
    """Return the accuracies as a table, and for each range test the rate at which the smoothed loss was the lowest."""
    compared = Records(EXPERIMENT, [record for record in records if record.variant not in RANGE_TESTS])
    lines = [common.results_table(compared)] * bool(len(compared))
    for record in records:
        if record.variant in RANGE_TESTS:
            rates, _, smooth = range_of(record)
            best = smooth.argmin()
            lines.append(f"{record.variant}: the loss is lowest, {smooth[best]:.3f}, at a rate of {rates[best]:.3g}")
    return "\n".join(lines)


EXPERIMENT = Experiment(
    name="recipe",
    section="MobileNetV2, section 6.1: RMSProp and its epsilon, schedule, dropout, against SGD; range tests",
    train=train,
    settings=SETTINGS,
    variants=VARIANTS,
    seeds=SEEDS,
    small=SMALL,
    datasets=("cifar10", "mnist"),
    summary=summary,
)
