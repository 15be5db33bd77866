"""Activations over time: section 4.1 and Figure 1 of the batch-norm paper (Ioffe and Szegedy 2015).

784 - 100 - 100 - 100 - 10, sigmoids, weights from a narrow Gaussian, binary 28x28 images, 60 examples a step, 50,000
steps; without and with batch norm. Recorded are Figure 1: the test accuracy over the steps (a), and the {15, 50, 85}th
percentiles of the inputs to the last hidden sigmoid (b, c), of all hundred and not only of a typical one. Beyond the
paper: the gradient's norm in each layer, and how far the running statistics of Algorithm 2 are from those of the
population, and inference from training.

What the paper does not say: the optimizer (here plain gradient descent with a constant rate, the same for both), the
width of the Gaussian (``weight_std``), what is "binary" (here a pixel is on if it is 128 or more), and over which
examples the percentiles are taken (here the mini-batch of the step, N_BN^tr of Algorithm 2). The rate matters: a
larger one brings the baseline much nearer to the other.
"""

import numpy as np

from npnets import datasets, models, ops, optim
from npnets.augment import normalize
from npnets.experiments.evaluations import Evaluations
from npnets.experiments.experiment import Experiment
from npnets.experiments.records import rounded
from npnets.probes import Probes

SETTINGS = {
    "dataset": "mnist",
    "batch_norm": False,
    "epochs": 50,  # of 1,000 steps: 60,000 images, 60 a step
    "batch_size": 60,
    "learning_rate": 0.1,
    "weight_std": 0.1,
    "bn_decay": 0.99,
    "train_images": None,
    "test_images": None,
}
VARIANTS = {
    "baseline": {},
    "batch_norm": {"batch_norm": True},
}
SMALL = {"epochs": 20, "train_images": 6000, "test_images": 2000}

LAYERS = ("hidden.0", "hidden.1", "hidden.2")
_POPULATION = 3  # the last number of a seed: training.fit has 1 and 2
POPULATION_BATCHES = 20
"""How many batches stand for the population when the running statistics are compared with it."""


def chosen_steps(steps):
    """Return the step numbers at which things are recorded: 1, 2, 5, 10, 20, 50, ..., and every fiftieth part.

    >>> chosen_steps(500)[:10], len(chosen_steps(50_000))
    ([1, 2, 5, 10, 20, 30, 40, 50, 60, 70], 59)
    """
    first = {n * 10**k for n in (1, 2, 5) for k in range(len(str(steps)))}
    return sorted({step for step in first if step <= steps} | set(range(0, steps + 1, max(1, steps // 50))) - {0})


def binary(dataset):
    """Return the data set with each pixel black or white: 0, or 255 if it was 128 or more."""
    images = np.where(dataset.images >= 128, np.uint8(255), np.uint8(0))
    return datasets.Dataset(images, dataset.labels, f"{dataset.name}-binary", dataset.class_names)


def train(settings, data, fit):
    """Train one of both networks."""
    train_set, test_set = binary(data.train), binary(data.test)
    model = models.mlp_batch_norm(
        batch_norm=settings["batch_norm"],
        weight_std=settings["weight_std"],
        bn_decay=settings["bn_decay"],
        seed=settings["seed"],
    )
    steps = settings["epochs"] * (len(train_set) // settings["batch_size"])
    recorded = chosen_steps(steps)
    in_steps = [step - 1 for step in recorded]  # probes count steps from 0

    last = f"hidden.2.{'bn' if settings['batch_norm'] else 'linear'}"  # whose output goes into the last sigmoid
    activations = Probes(model, [last], steps=in_steps, unit="each")
    weights = [f"{layer}.linear.w" for layer in LAYERS] + ["classifier.w"]
    gradients = Probes(model, [f"{name}.grad" for name in weights], steps=in_steps, quantiles=())
    evaluations = Evaluations(test_set, steps=recorded, batch_size=500)
    callbacks = [activations, gradients, evaluations]
    if settings["batch_norm"]:
        statistics = RunningStatistics(train_set, recorded, settings["batch_size"], settings["seed"])
        callbacks.append(statistics)

    history, diverged = fit(
        model,
        train_set,
        epochs=settings["epochs"],
        batch_size=settings["batch_size"],
        optimizer=optim.SGD(model.parameters(), settings["learning_rate"]),
        seed=settings["seed"],
        statistics=(0, 1),  # pixels are 0 or 1
        callbacks=callbacks,
    )
    series, norms = activations[last], [gradients[f"{name}.grad"].norm for name in weights]
    found = {
        "data": {"train": train_set.name, "test": test_set.name},
        "history": history.to_dict(),
        "diverged": diverged,
        "evaluations": evaluations.to_dict(),
        "steps": recorded[: len(activations.steps)],
        "gradient_norms": {name: rounded(norm) for name, norm in zip(weights, norms)},
        "arrays": {  # T steps, 100 inputs of the last sigmoid
            "quantiles": _half(series.quantiles),  # (T, 3, 100): the 15th, 50th and 85th percentile
            "mean": _half(series.mean),  # (T, 100)
            "variance": _half(series.variance),  # (T, 100)
        },
    }
    return found | ({"statistics": statistics.to_dict()} if settings["batch_norm"] else {})


class RunningStatistics:
    """A callback that compares what batch norm uses in inference with what it would use if it knew the population.

    The population is that of Algorithm 2 (lines 10 and 11), over the last hidden layer: with mu_B and var_B of many
    training batches, E[x] is the mean of mu_B, and Var[x] is m / (m - 1) times the mean of var_B. The network's own
    running averages are weighted ones over the last steps, in which the weights have changed.

    After each of the ``steps`` it notes, over the hundred inputs of the last batch norm, the root mean square of
    (running mean - E[x]) / sqrt(Var[x]) and the mean of running variance / Var[x]; and over the images of these
    batches, which share in training and in inference mode is classified correctly, and the root mean square of the
    difference between the class probabilities of both modes.
    """

    fields = ("step", "mean_error", "variance_ratio", "training_accuracy", "inference_accuracy", "difference")

    def __init__(self, train_set, steps, batch_size, seed):
        self.steps, self.rows = set(steps), []
        count = min(POPULATION_BATCHES, len(train_set) // batch_size)
        chosen = np.random.default_rng([seed, _POPULATION]).permutation(len(train_set))[: count * batch_size]
        self.batches = np.split(normalize(train_set.images[chosen], 0, 1), count)
        self.labels = train_set.labels[chosen]

    def start(self, run):
        self.model = run.model

    def after_step(self, step):
        if step + 1 in self.steps:
            self.rows.append([step + 1, *map(float, self._compare())])

    def _compare(self):
        bn, m = self.model.hidden[2].bn, len(self.batches[0])
        means, variances, in_training = self._in_training_mode()
        mean, variance = np.mean(means, axis=0), m / (m - 1) * np.mean(variances, axis=0)  # (100,) each
        mean_error = np.sqrt(np.mean((bn.running_mean - mean) ** 2 / variance))
        in_inference = self._probabilities(np.concatenate([self.model(batch) for batch in self.batches]))
        right = [np.mean(p.argmax(axis=1) == self.labels) for p in (in_training, in_inference)]
        difference = np.sqrt(np.mean((in_training - in_inference) ** 2))
        return mean_error, np.mean(bn.running_var / variance), *right, difference

    def _in_training_mode(self):
        """Return mu_B and var_B of each batch, and the class probabilities; leave the running averages as they were."""
        kept = [(getattr(layer, name), getattr(layer, name).copy())
                for _, layer in self.model.named_modules() for name in layer.running]  # fmt: skip
        inputs = []
        self.model.hidden[2].linear.observers.append(inputs.append)
        try:
            logits = np.concatenate([self.model(batch, training=True) for batch in self.batches])
        finally:
            self.model.hidden[2].linear.observers.pop()
            for array, before in kept:
                array[...] = before
        return [x.mean(axis=0) for x in inputs], [x.var(axis=0) for x in inputs], self._probabilities(logits)

    def _probabilities(self, logits):
        return ops.softmax_cross_entropy_forward(logits, self.labels)[1].probabilities

    def state_dict(self):
        return {"rows": np.array(self.rows, np.float64).reshape(-1, len(self.fields))}

    def load_state_dict(self, state):
        self.rows = [[int(step), *map(float, rest)] for step, *rest in state["rows"]]

    def to_dict(self):
        """Return a list for each of the ``fields``."""
        return {name: rounded(row[k] for row in self.rows) for k, name in enumerate(self.fields)}


def _half(array):
    """Return an array in half precision: three significant digits, which is what a figure needs."""
    with np.errstate(over="ignore"):  # of a training that diverged
        return array.astype(np.float16)


EXPERIMENT = Experiment(
    name="activations",
    section="batch norm, section 4.1 and Figure 1: activations over time on MNIST",
    train=train,
    settings=SETTINGS,
    variants=VARIANTS,
    seeds=dict.fromkeys(VARIANTS, (0, 1, 2)),
    small=SMALL,
    datasets=("mnist",),
)
