"""Batch norm accelerates training: sections 4.2 and 4.3 of its paper (Ioffe and Szegedy 2015), on CIFAR-10.

The network is ``models.bn_inception_small`` at half width (85,186 parameters), in place of BN-Inception on ImageNet. As
in the paper: stochastic gradient descent with momentum, 32 images a step, a learning rate that falls exponentially; the
baseline has no batch norm, but local response normalization, dropout of 0.4, an L2 penalty and photometric distortion;
BN-Baseline adds batch norm and nothing else; BN-x5 and BN-x30 have, besides the higher learning rate, all the changes
that section 4.2 makes for batch norm. Each single change is then taken back from BN-x5. Figure 3 of the paper gives

============= ============== ============ =======================
network       steps to 72.2% max accuracy initial learning rate
============= ============== ============ =======================
Inception     31.0e6         72.2%        0.0015
BN-Baseline   13.3e6         72.7%        0.0015
BN-x5         2.1e6          73.0%        0.0075
BN-x30        2.7e6          74.8%        0.045
BN-x5-Sigmoid                69.8%        0.0075
============= ============== ============ =======================

Where this differs from the paper: one machine, so the steps are made one after the other; the baseline's learning rate
was chosen for this network (see ``LEARNING_RATE``); the baseline trains longer than the others, but not 15 times; in
all networks images are shifted by up to 4 pixels and mirrored; hue is not distorted. The test accuracy along the way is
that of 2,000 of the 10,000 test images, since evaluating all would take as long as the training between; ``final`` is
that of all.

Width, epochs and evaluations are chosen so that all 32 runs (143 epochs) should take about an hour and a half on two
cores; ``experiment list`` tells how long the recorded ones took.
"""

from typing import NamedTuple

import numpy as np

from npnets import augment, models, optim
from npnets.augment import normalize
from npnets.cost.tables import text_table
from npnets.experiments.calibration import Scores, average, scores
from npnets.experiments.evaluations import Evaluations
from npnets.experiments.experiment import Experiment
from npnets.runs import first
from npnets.training import Shards

LEARNING_RATE = 0.02
"""The baseline's: the best of 0.01, 0.02 and 0.04 in short trials with one seed."""

SETTINGS = {  # of the baseline
    "dataset": "cifar10",
    "epochs": 10,
    "batch_size": 32,
    "width_mult": 0.5,
    "learning_rate": LEARNING_RATE,
    "times": 1,  # the learning rate: 5 and 30 in BN-x5 and BN-x30
    "momentum": 0.9,
    "decay": 0.86,  # of the learning rate in an epoch
    "decays": 1,  # so many times an epoch
    "batch_norm": False,
    "activation": "relu",
    "dropout": 0.4,
    "local_response_norm": True,
    "weight_decay": 0.001,
    "distortion": 1.0,  # 1: brightness by up to 1/8, contrast and saturation by up to a half
    "shuffle_shards": False,  # whether the images of a shard change places; if not, the same always meet in a batch
    "init_scale": 1.0,
    "evaluate_every": 250,
    "evaluated_images": 2000,
    "keep_probabilities": False,  # of all test images, beside the record
    "train_images": None,
    "test_images": None,
}

BN_BASELINE = {"batch_norm": True, "epochs": 4}
BN_X5 = BN_BASELINE | {
    "times": 5,  # the seven changes of section 4.2, in its order:
    "dropout": 0.0,
    "shuffle_shards": True,
    "weight_decay": 0.0002,
    "decays": 6,
    "local_response_norm": False,
    "distortion": 0.25,
}
BN_X30 = BN_X5 | {"times": 30}
MEMBER = BN_X30 | {"keep_probabilities": True}

HEADLINE = {  # Figure 2
    "baseline": {},
    "baseline_x5": {"times": 5, "epochs": 4},
    "bn_baseline": BN_BASELINE,
    "bn_x5": BN_X5,
    "bn_x30": BN_X30,
    "bn_x5_sigmoid": BN_X5 | {"activation": "sigmoid"},
}
SINGLE = {  # one change of section 4.2 taken back, or taken further
    "baseline_sigmoid": {"activation": "sigmoid", "epochs": 1},
    "bn_x5_dropout": BN_X5 | {"dropout": 0.4},
    "bn_x5_unshuffled": BN_X5 | {"shuffle_shards": False},
    "bn_x5_full_l2": BN_X5 | {"weight_decay": 0.001},
    "bn_x5_no_l2": BN_X5 | {"weight_decay": 0.0},
    "bn_x5_slow_decay": BN_X5 | {"decays": 1},
    "bn_x5_lrn": BN_X5 | {"local_response_norm": True},
    "bn_x5_full_distortion": BN_X5 | {"distortion": 1.0},
}
ENSEMBLE = {  # section 4.3: BN-x30, each modified in its own way, and with its own seed
    "ensemble_1": MEMBER,
    "ensemble_2": MEMBER | {"dropout": 0.05},
    "ensemble_3": MEMBER | {"dropout": 0.1},
    "ensemble_4": MEMBER | {"init_scale": 2.0},
    "ensemble_5": MEMBER | {"init_scale": 2.0, "dropout": 0.05},
    "ensemble_6": MEMBER | {"init_scale": 2.0, "dropout": 0.1},
}
SEEDS = (
    dict.fromkeys(HEADLINE, (0, 1, 2))
    | dict.fromkeys(SINGLE, (0,))
    | {variant: (k,) for k, variant in enumerate(ENSEMBLE, 11)}
)
VARIANTS = HEADLINE | SINGLE | ENSEMBLE
SHARD = 1600  # images, 50 batches; the paper does not say
SMALL = {"epochs": 2, "width_mult": 0.25, "train_images": 4000, "test_images": 500, "evaluate_every": 25}


def train(settings, data, fit):
    """Train one network."""
    model = models.bn_inception_small(
        num_classes=len(data.train.class_names),
        width_mult=settings["width_mult"],
        batch_norm=settings["batch_norm"],
        activation=settings["activation"],
        local_response_norm=settings["local_response_norm"],
        dropout=settings["dropout"],
        init_scale=settings["init_scale"],
        seed=settings["seed"],
    )
    rate = settings["learning_rate"] * settings["times"]
    steps_per_epoch = len(data.train) // settings["batch_size"]
    steps_per_decay = steps_per_epoch / settings["decays"]
    evaluations = Evaluations(
        first(data.test, min(settings["evaluated_images"], len(data.test))), every=settings["evaluate_every"]
    )
    history, diverged = fit(
        model,
        data.train,
        epochs=settings["epochs"],
        batch_size=settings["batch_size"],
        optimizer=optim.SGD(
            model.parameters(), rate, momentum=settings["momentum"], weight_decay=settings["weight_decay"]
        ),
        schedule=optim.exponential(
            rate, decay_rate=settings["decay"], steps_per_decay=steps_per_decay, staircase=False
        ),
        seed=settings["seed"],
        augment=augment.compose(shifted, augment.mirror, distorted(settings["distortion"])),
        order=Shards(SHARD, shuffled=settings["shuffle_shards"]),
        callbacks=[evaluations],
    )
    found = {"history": history.to_dict(), "diverged": diverged, "evaluations": evaluations.to_dict(), "final": None}
    if diverged is None:
        log_p = log_probabilities(model, data.test, *augment.channel_statistics(data.train.images))
        found["final"] = scores(np.exp(log_p), data.test.labels)._asdict() | {"images": len(data.test)}
        if settings["keep_probabilities"]:
            labels = data.test.labels.astype(np.uint8)
            found["arrays"] = {"log_probabilities": log_p.astype(np.float16), "labels": labels}
    return found


def shifted(images, rng):
    """Shift each image by up to 4 pixels."""
    return augment.random_crop(images, 4, rng)


def distorted(strength):
    """Return the photometric distortion of this strength, without hue; 0 changes nothing."""
    strengths = {"brightness": 0.125 * strength, "contrast": 0.5 * strength, "saturation": 0.5 * strength, "hue": 0.0}
    return lambda images, rng: augment.photometric_distortion(images, rng, **strengths)


def log_probabilities(model, dataset, mean, std, batch_size=100):
    """Return the logarithms of the class probabilities of all images in inference mode, (N, K)."""
    batches = [slice(start, start + batch_size) for start in range(0, len(dataset), batch_size)]
    logits = np.concatenate([model(normalize(dataset.images[batch], mean, std)) for batch in batches])
    logits = logits.astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


class Row(NamedTuple):
    """A line of the paper's Figure 3, which its text calls a table: what one variant reached, over its seeds."""

    variant: str
    seeds: int
    reached: int  # how many of the seeds reached the accuracy
    steps: float | None  # to this accuracy, mean over the seeds; None unless all reached it
    speed_up: float | None  # the baseline's steps over these
    best: float  # highest test accuracy along the way, mean over the seeds
    lowest: float  # of the seeds
    highest: float
    final: float | None  # accuracy on all test images in the end, mean over the seeds; None if one diverged
    diverged: int  # how many of the seeds


def target(records):
    """Return the baseline's accuracy: the highest along the way that each of its seeds reached."""
    return float(records.best("baseline").min())


def compare(records, accuracy=None):
    """Return a :class:`Row` for each recorded variant, as Figure 3 has them: steps to an accuracy, and the highest one.

    Parameters
    ----------
    records : Records
    accuracy : float, optional
        From 0 to 1; by default that of the baseline, :func:`target`.

    Raises
    ------
    ValueError
        If not every seed of the baseline reached this accuracy: there is nothing to compare with.
    """
    accuracy = target(records) if accuracy is None else accuracy
    to_beat = records.steps_to("baseline", accuracy)
    if None in to_beat:
        raise ValueError(f"not every baseline reached {accuracy:.1%}; all of them reached {target(records):.1%}")
    return [_row(records, variant, accuracy, np.mean(to_beat)) for variant in records.variants]


def _row(records, variant, accuracy, to_beat):
    steps = records.steps_to(variant, accuracy)
    mean = float(np.mean(steps)) if None not in steps else None
    finals = [record["final"] and record["final"]["accuracy"] for record in records.of(variant)]
    best = records.best(variant)
    return Row(
        variant=variant,
        seeds=len(steps),
        reached=len(steps) - steps.count(None),
        steps=mean,
        speed_up=float(to_beat) / mean if mean else None,
        best=float(best.mean()),
        lowest=float(best.min()),
        highest=float(best.max()),
        final=float(np.mean(finals)) if None not in finals else None,
        diverged=finals.count(None),
    )


class Ensemble(NamedTuple):
    """Section 4.3: several networks, and their averaged class probabilities."""

    members: dict  # variant -> Scores
    average: Scores
    probabilities: np.ndarray  # (M, N, K): of each member
    labels: np.ndarray  # (N,)


def ensemble(records):
    """Return the :class:`Ensemble` of all recorded networks that kept their class probabilities.

    Raises
    ------
    ValueError
        If there is none, or they were not tested on the same images.
    """
    members = [record for record in records if record.arrays]
    if not members:
        raise ValueError(f"no record has class probabilities; run {', '.join(ENSEMBLE)}")
    labels = members[0].arrays["labels"]
    if any(not np.array_equal(record.arrays["labels"], labels) for record in members):
        raise ValueError("the networks were tested on different images")
    each = np.exp([record.arrays["log_probabilities"].astype(np.float64) for record in members])  # (M, N, K)
    each /= each.sum(axis=-1, keepdims=True)  # half precision is off by a few thousandths
    alone = {f"{record.variant}": scores(p, labels) for record, p in zip(members, each)}
    return Ensemble(alone, scores(average(each), labels), each, labels)


def summary(records):
    """Return the results as text: the table of :func:`compare`, or without a baseline a plain one; and the ensemble."""
    if "baseline" not in records.variants:
        parts = [records.to_text()]
    else:
        lines = [("network", "seeds", f"steps to {target(records):.1%}", "speed-up", "best accuracy", "in the end")]
        lines += [_line(row) for row in compare(records)]
        parts = [text_table(lines, 1, total=False)]
    if any(record.arrays for record in records):
        found = ensemble(records)
        lines = [("network", "accuracy", "negative log likelihood", "calibration error")]
        for name, one in [*found.members.items(), ("their average", found.average)]:
            numbers = (f"{one.accuracy:.2%}", f"{one.negative_log_likelihood:.4f}", f"{one.calibration_error:.2%}")
            lines.append((name, *numbers))
        parts.append(text_table(lines, 1))
    return "\n\n".join(parts)


def _line(row):
    steps = f"{row.steps:,.0f}" if row.steps else f"{row.reached} of {row.seeds}" if row.reached else "never"
    best = f"{row.best:.2%} ({row.lowest:.2%} to {row.highest:.2%})"
    final = f"{row.diverged} diverged" if row.diverged else f"{row.final:.2%}"
    return row.variant, str(row.seeds), steps, f"{row.speed_up:.1f}" if row.speed_up else "", best, final


EXPERIMENT = Experiment(
    name="batch_norm",
    section="batch norm, sections 4.2 and 4.3: Inception with it and without, and six networks averaged",
    train=train,
    settings=SETTINGS,
    variants=VARIANTS,
    seeds=SEEDS,
    small=SMALL,
    summary=summary,
)
