"""What factorized convolutions give up: section 3 of MobileNetV1 (Howard et al. 2017), on CIFAR-10.

Three claims of the paper are tried.

1. Separable against full convolutions at the same depth (sections 3.1 and 3.2): "between 8 to 9 times less computation
   than standard convolutions at only a small reduction in accuracy". On ImageNet they lose one percent: Conv MobileNet
   71.7 %, MobileNet 70.6 % (Table 4). Beyond the paper, a Conv MobileNet is made so thin that it costs as much as the
   separable network.
2. Thinner or shallower (section 3.3): at similar multiply-adds, all layers thinner (0.75 MobileNet, 68.4 %) are better
   than five layers fewer (Shallow MobileNet, 65.3 %; Table 5). Here the two equal layers at the end are left out of
   ``SMALL_TABLE``; they are what it has in place of the paper's five.
3. "It was important to put very little or no weight decay (l2 regularization) on the depthwise filters since their
   [sic] are so few parameters in them" (section 3.2). Weight decay everywhere, or not on the depthwise kernels, at the
   usual strength of 0.00004 and at ten and a hundred times as much; and none at all. After each depthwise convolution
   comes a batch norm, which takes out the scale of its kernel but for its epsilon. So smaller kernels do not make the
   function simpler: at first the same gradient turns them faster, and in the end they are so small that the epsilon
   counts. Therefore the lengths of the filters are recorded along the way, and the angle by which a step turns them
   (see :class:`Kernels`), and in the end the variances that the batch norm behind them has seen.

How this differs from the paper: ``models.mobilenet_v1_small`` at half its width (56,666 parameters, 1.05 million
multiply-adds), images of 32 pixels, and the recipe of :mod:`npnets.experiments.common`. At this width the separable
network costs 7.7 times less (its layers 5.8 to 8.4 times), not 8 to 9: the fewer filters N, the more 1/N counts in
1/N + 1/9. What costs the same has not the same parameters: ``thin`` has a fifth more of them than ``shallow``,
``standard_thin`` a seventh fewer than ``separable``; and no layer has fewer than 8 filters, so the first one is as wide
in them as at half the width. RMSProp divides the weight decay with the rest of the gradient: 0.004 is not that of
gradient descent.

Eleven variants, three seeds and 6 epochs took an hour on two cores, a seventh of it for the Conv MobileNet; therefore
not the whole width.
"""

import numpy as np

from npnets import models
from npnets.experiments import common
from npnets.experiments.experiment import Experiment
from npnets.experiments.records import rounded
from npnets.models.mobilenet_v1 import SMALL_TABLE

SETTINGS = common.RECIPE | {
    "epochs": 6,
    "width_mult": 0.5,
    "convolution": "separable",
    "shallow": False,
    "decay_depthwise": False,
}
VARIANTS = {
    "separable": {},
    "standard": {"convolution": "standard"},
    "standard_thin": {"convolution": "standard", "width_mult": 0.166},  # as many multiply-adds as "separable", to 2 %
    "shallow": {"shallow": True},
    "thin": {"width_mult": 0.32},  # as many multiply-adds as "shallow", to 1 %
    "no_decay": {"weight_decay": 0.0},
    "decay_depthwise": {"decay_depthwise": True},
    "decay_x10": {"weight_decay": 4e-4},
    "decay_x10_depthwise": {"weight_decay": 4e-4, "decay_depthwise": True},
    "decay_x100": {"weight_decay": 4e-3},
    "decay_x100_depthwise": {"weight_decay": 4e-3, "decay_depthwise": True},
}
SEEDS = dict.fromkeys(VARIANTS, (0, 1, 2))
SMALL = common.SMALL | {"batch_size": 16}

SHALLOW_TABLE = SMALL_TABLE[:-2]
"""Without its two last rows, which repeat the one before them."""

QUANTILES = (0, 0.25, 0.5, 0.75, 1)
NOTE_EVERY = 50  # steps


def network(settings, data):
    """Return the network of a variant."""
    return models.mobilenet_v1_small(
        **common.for_images(data, width_mult=settings["width_mult"], seed=settings["seed"]),
        convolution=settings["convolution"],
        table=SHALLOW_TABLE if settings["shallow"] else SMALL_TABLE,
        decay_depthwise=settings["decay_depthwise"],
    )


def train(settings, data, fit):
    """Train one network."""
    model = network(settings, data)
    kernels = Kernels(model)
    return common.train(model, settings, data, fit, callbacks=[kernels]) | {
        "kernels": kernels.to_dict(),
        "depthwise_norms": depthwise_norms(model),
        "depthwise_variances": depthwise_variances(model),
    }


class Kernels:
    """A callback that notes how long the filters of the blocks are, and by which angle a step turns them.

    In front of a batch norm only the direction of a filter counts, so the angle is what a step changes in the function;
    it falls as the filter becomes longer. A filter is what makes one output channel, which is what batch norm
    normalizes: all of a kernel but its last axis.

    Parameters
    ----------
    model : nn.Module
        With ``blocks``.
    every : int, optional
        Look at one step in so many; by default ``NOTE_EVERY``.
    """

    kinds = ("depthwise", "combining")
    """The second are the pointwise convolutions, or the full ones in their place."""
    fields = ("step", *(f"{kind}_{what}" for kind in kinds for what in ("norm", "degrees")))

    def __init__(self, model, every=None):
        self.every, self.rows = every or NOTE_EVERY, []
        weights = [p for p in model.parameters() if p.name.startswith("blocks.") and p.name.endswith(".w")]
        self.weights = {kind: [] for kind in self.kinds}
        for p in weights:
            self.weights["depthwise" if p.name.endswith("depthwise.w") else "combining"].append(p)

    def before_step(self, step):
        if (step + 1) % self.every == 0:
            self.before = {kind: _filters(weights) for kind, weights in self.weights.items()}

    def after_step(self, step):
        if (step + 1) % self.every == 0:
            row = [step + 1]
            for kind, weights in self.weights.items():
                norms, turns = [], []
                for old, new in zip(self.before[kind], _filters(weights)):
                    norms.append(np.linalg.norm(new, axis=0))  # (D, C) -> (C,)
                    turns.append(degrees_between(old, new))
                row += [np.median(np.concatenate(part)) if part else np.nan for part in (norms, turns)]
            self.rows.append(row)

    def state_dict(self):
        """Return what was noted so far, for a checkpoint."""
        return {"rows": np.array(self.rows, np.float64).reshape(-1, len(self.fields))}

    def load_state_dict(self, state):
        """Continue from the state of :meth:`state_dict`."""
        self.rows = [[int(step), *rest] for step, *rest in state["rows"]]

    def to_dict(self):
        """Return ``step``, and the median over all filters of a kind of their ``norm`` and turn in ``degrees``.

        Lists for JSON; None where a number is not finite, or the network has no such filters.
        """
        steps, *columns = zip(*self.rows) if self.rows else [()] * len(self.fields)
        return {"step": list(steps)} | {name: rounded(column) for name, column in zip(self.fields[1:], columns)}


def _filters(weights):
    """Return the kernels in float64, (D, C) each: a column for each filter."""
    return [p.value.reshape(-1, p.value.shape[-1]).astype(np.float64) for p in weights]


def degrees_between(old, new):
    """Return the angle between two filters, column by column, (D, C) -> (C,); 90 degrees to one that is zero.

    The arc cosine of their product would be inaccurate for small angles, at which the cosine is flat. For unit vectors
    u and v, ``|u - v|`` is twice the sine of half the angle and ``|u + v|`` twice its cosine.
    """
    u, v = (w / np.maximum(np.linalg.norm(w, axis=0), 1e-300) for w in (old, new))
    return np.degrees(2 * np.arctan2(np.linalg.norm(u - v, axis=0), np.linalg.norm(u + v, axis=0)))


def depthwise_norms(model):
    """Return name -> the ``QUANTILES`` of the Euclidean norms of a depthwise layer's filters, one for each channel."""
    kernels = {p.name: p.value for p in model.parameters() if p.name.endswith("depthwise.w")}
    norms = {name: np.sqrt(np.square(w, dtype=np.float64).sum(axis=(0, 1))) for name, w in kernels.items()}  # (C,) each
    return {name: rounded(np.quantile(norm, QUANTILES)) for name, norm in norms.items()}


def depthwise_variances(model):
    """Return name -> for each channel the running variance of the batch norm behind a depthwise convolution.

    Where it is below the epsilon that is added to it, the batch norm does not make up for short filters any more.
    """
    norms = {name: norm for name, norm in model.named_modules() if name.endswith("depthwise_bn")}
    return {name: rounded(norm.running_var) for name, norm in norms.items()}


EXPERIMENT = Experiment(
    name="factorized",
    section="MobileNetV1, section 3: separable or full convolutions, thinner or shallower, weight decay",
    train=train,
    settings=SETTINGS,
    variants=VARIANTS,
    seeds=SEEDS,
    small=SMALL,
    datasets=("cifar10", "mnist"),
    summary=common.results_table,
)
