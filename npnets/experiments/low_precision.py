"""ReLU or ReLU6 in low precision: section 4 of MobileNetV2 (Sandler et al. 2018), on CIFAR-10.

"We use ReLU6 as the non-linearity because of its robustness when used with low-precision computation." The paper shows
no numbers for it. Here two networks are trained in float32 that differ in this alone, batch norm is folded into their
weights as it would be where they are used, and then the test images are evaluated again with weights, activations, or
both rounded to a few bits (see :mod:`npnets.quantization`).

Rounding needs to know from where to where numbers go. For activations it is the range seen on some training images;
for what ReLU6 bounds it can also be 0 to 6, without any images. Weights have one range for each layer, or one for each
of its channels: folding multiplies each channel by a factor of its own, and where these differ, the small ones drown,
whatever the activation. So ``per_channel`` tells what the activation has to do with it and what has not.

A range goes from the smallest to the largest number seen. One outlier makes it wide, which ReLU6 cannot have and ReLU
can; ranges that leave out the outermost thousandth would bring the two closer. The input, the biases, the mean over the
last map and the logits are not rounded.

======================= ==================== ================================
mode                    weights              activations
======================= ==================== ================================
weights                 a range for each     as they are
weights_per_channel     ... for each channel as they are
activations             as they are          as seen on training images
activations_fixed       as they are          0 to 6 where ReLU6 bounds them
both                    a range for each     as seen on training images
both_fixed              a range for each     0 to 6 where ReLU6 bounds them
both_per_channel        ... for each channel as seen on training images
======================= ==================== ================================

The network is ``models.mobilenet_v2_small`` at half its width (47,306 parameters), the recipe that of
:mod:`npnets.experiments.common`. Two variants, three seeds and 3 epochs took 19 minutes on two cores, two
fifths of it for the evaluations in low precision.
"""

import numpy as np

from npnets import models, nn, training
from npnets.augment import channel_statistics, normalize
from npnets.cost.tables import text_table
from npnets.experiments import common
from npnets.experiments.experiment import Experiment
from npnets.experiments.records import rounded
from npnets.quantization import output_ranges, quantized, with_relu6_ranges
from npnets.runs import first

SETTINGS = common.RECIPE | {
    "epochs": 3,
    "width_mult": 0.5,
    "activation": "relu6",
    "bits": (8, 6, 5, 4, 3),
    "calibration_images": 1000,  # of the training set
    "evaluated_images": 10_000,
}
VARIANTS = {
    "relu6": {},
    "relu": {"activation": "relu"},
}
SEEDS = dict.fromkeys(VARIANTS, (0, 1, 2))
SMALL = common.SMALL | {"bits": (8, 5, 3), "calibration_images": 200, "evaluated_images": 500}

MODES = {
    "weights": {"weights": True},
    "weights_per_channel": {"weights": True, "per_channel": True},
    "activations": {"ranges": "seen"},
    "activations_fixed": {"ranges": "fixed"},
    "both": {"weights": True, "ranges": "seen"},
    "both_fixed": {"weights": True, "ranges": "fixed"},
    "both_per_channel": {"weights": True, "per_channel": True, "ranges": "seen"},
}
"""What is rounded, and how. Those with fixed ranges need ReLU6."""


def train(settings, data, fit):
    """Train one network, and evaluate it in low precision."""
    names = ("width_mult", "activation", "seed")
    model = models.mobilenet_v2_small(**common.for_images(data, **{name: settings[name] for name in names}))
    found = common.train(model, settings, data, fit)
    if found["diverged"] is None:
        found["low_precision"] = in_low_precision(model, settings, data)
    return found


def in_low_precision(model, settings, data):
    """Return what a trained network does with few bits.

    Returns
    -------
    dict
        ``float``: ``accuracy`` and ``loss`` on the evaluated images before rounding; ``bits``: of the setting;
        ``modes``: for each of ``MODES`` the ``accuracy`` and the ``loss`` for each number of bits; ``ranges``: path ->
        smallest and largest activation on the calibration images; ``weights``: path -> the ``largest`` weight, and the
        largest in the channel where it is the smallest, the median and the largest (``channels``).
    """
    mean, std = channel_statistics(data.train.images)
    test = first(data.test, min(settings["evaluated_images"], len(data.test)))
    folded = nn.fold_batch_norm(model)
    ranges = output_ranges(folded, _batches(data.train.images[: settings["calibration_images"]], mean, std))
    known = {"seen": ranges, "fixed": with_relu6_ranges(folded, ranges)}

    def evaluated(network):
        found = training.evaluate(network, test, mean=mean, std=std)
        return {"accuracy": found.accuracy, "loss": rounded([found.loss])[0]}

    modes = {}
    for name, mode in MODES.items():
        if mode.get("ranges") != "fixed" or settings["activation"] == "relu6":
            each = [evaluated(_in_mode(folded, bits, known, **mode)) for bits in settings["bits"]]
            modes[name] = {key: [one[key] for one in each] for key in ("accuracy", "loss")}
    return {
        "float": evaluated(folded),
        "bits": list(settings["bits"]),
        "modes": modes,
        "ranges": {path: rounded(one) for path, one in ranges.items()},
        "weights": {name: _spread(w) for name, w in folded.state_dict().items() if name.endswith(".w")},
    }


def _in_mode(folded, bits, known, weights=False, per_channel=False, ranges=None):
    """Return the network with so many bits in one of the modes."""
    activations = {} if ranges is None else {"activations": bits, "ranges": known[ranges]}
    return quantized(folded, weights=bits if weights else None, per_channel=per_channel, **activations)


def _batches(images, mean, std, size=100):
    return (normalize(images[start : start + size], mean, std) for start in range(0, len(images), size))


def _spread(w):
    """Tell how different the channels of a layer's weights (..., C) are."""
    largest = np.abs(w).reshape(-1, w.shape[-1]).max(axis=0)  # (C,)
    return {"largest": rounded([largest.max()])[0], "channels": rounded(np.quantile(largest, (0, 0.5, 1)))}


def accuracies(records, variant, mode):
    """Return (bits, accuracies): the numbers of bits, and the test accuracy for each seed and each of them, (S, B)."""
    found = [record["low_precision"] for record in records.of(variant) if record.diverged is None]
    return list(found[0]["bits"]) if found else [], np.array([one["modes"][mode]["accuracy"] for one in found])


def summary(records):
    """Return the accuracies in float32 as a table, and those in low precision: means over the seeds."""
    parts = [common.results_table(records)]
    for variant in records.variants:
        found = [record["low_precision"] for record in records.of(variant) if record.diverged is None]
        if found:
            whole = np.mean([one["float"]["accuracy"] for one in found])
            bits, _ = accuracies(records, variant, "weights")
            lines = [(variant, f"{whole:.2%} in float32", *(f"{one} bits" for one in bits))]
            for mode in found[0]["modes"]:
                _, each = accuracies(records, variant, mode)  # (S, B)
                lines.append((mode, "", *(f"{share:.2%}" for share in each.mean(axis=0))))
            parts.append(text_table(lines, 1, total=False))
    return "\n\n".join(parts)


EXPERIMENT = Experiment(
    name="low_precision",
    section="MobileNetV2, section 4: ReLU or ReLU6, with weights and activations of a few bits",
    train=train,
    settings=SETTINGS,
    variants=VARIANTS,
    seeds=SEEDS,
    small=SMALL,
    datasets=("cifar10", "mnist"),
    summary=summary,
)
