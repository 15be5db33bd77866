"""Linear bottlenecks: section 6.4 and Figure 5 (a) of MobileNetV2 (Sandler et al. 2018), on CIFAR-10.

The paper: "linear bottlenecks improve performance, providing support that non-linearity destroys information in
low-dimensional space. We note that in the presence of shortcuts the information loss is actually less strong." Its
figure compares a network with a ReLU6 after each projection with one without, both with shortcuts. Here are all four
cells: linear or ReLU6, with shortcuts between the bottlenecks or without, so that the remark can be tested.

After the training, :func:`measures` looks at the bottlenecks themselves, on test images: how many dimensions of each
are used, how many channels are the same for every pixel, and how much of what goes into the ReLU6 could be told from
what comes out.

How this differs from the paper: ``models.mobilenet_v2_small`` at half its width, with all its rows repeated twice as
often: 14 blocks, 12 of them with a shortcut (the paper's 17 have 10), and bottlenecks of 8 to 32 channels. That is few,
as the argument is about few dimensions; and the network is about as deep as the paper's, since without shortcuts all
that is lost stays lost. It has 94,578 parameters and 3.03 million multiply-adds. All four have the same weights in the
beginning, for the same seed. The recipe is that of :mod:`npnets.experiments.common`.

Four variants, three seeds and 6 epochs took 70 minutes on two cores, beside other work.
"""

import numpy as np

from npnets import manifold, models, ops
from npnets.augment import channel_statistics, normalize
from npnets.cost.tables import text_table
from npnets.experiments import common
from npnets.experiments.experiment import Experiment
from npnets.experiments.records import rounded

SETTINGS = common.RECIPE | {
    "epochs": 6,
    "width_mult": 0.5,
    "depth_mult": 2.0,
    "bottleneck": "linear",
    "shortcut": "bottleneck",
    "measured_images": 256,  # the first ones of the test set
}
VARIANTS = {
    "linear": {},
    "relu6": {"bottleneck": "relu6"},
    "linear_no_shortcut": {"shortcut": "none"},
    "relu6_no_shortcut": {"bottleneck": "relu6", "shortcut": "none"},
}
SEEDS = dict.fromkeys(VARIANTS, (0, 1, 2))
SMALL = common.SMALL | {"depth_mult": 1.0, "measured_images": 64}


def network(settings, data):
    """Return the network of a variant."""
    names = ("width_mult", "depth_mult", "bottleneck", "shortcut", "seed")
    return models.mobilenet_v2_small(**common.for_images(data, **{name: settings[name] for name in names}))


def train(settings, data, fit):
    """Train one network, and measure its bottlenecks."""
    model = network(settings, data)
    found = common.train(model, settings, data, fit)
    if found["diverged"] is None:
        images = data.test.images[: settings["measured_images"]]
        found["bottlenecks"] = measures(model, normalize(images, *channel_statistics(data.train.images)))
    return found


def measures(model, x):
    """Return what each bottleneck of a trained network does with some images, in inference mode.

    Parameters
    ----------
    model : nn.Module
        A MobileNetV2.
    x : array (N, H, W, C)
        Normalized images.

    Returns
    -------
    list of dict
        For each block: ``name``, ``adds_input`` (whether it has a shortcut), and of three tensors, ``before`` the
        non-linearity of the bottleneck, ``branch`` after it (the same where the bottleneck is linear), and ``output``
        after the sum with the shortcut (the same where there is none), what :func:`measures_of` tells. ``recovered``:
        the share of the variance of ``before`` that an affine map finds back in ``branch`` (see
        :func:`npnets.manifold.regression`).
    """
    seen = {}
    blocks = {f"blocks.{k}": block for k, block in enumerate(model.blocks)}
    watched = {}
    for name, block in blocks.items():
        watched |= {(name, "convolution"): block.project, (name, "branch"): block.project_bn, (name, "output"): block}
    for key, module in watched.items():
        module.observers.append(lambda y, key=key: seen.update({key: y}))
    try:
        model(x)
    finally:
        for module in watched.values():
            module.observers.pop()
    return [_measures_of_block(name, block, seen) for name, block in blocks.items()]


def _measures_of_block(name, block, seen):
    bn = block.project_bn
    norm = (bn.gamma.value, bn.beta.value, bn.running_mean, bn.running_var)
    before, _ = ops.batch_norm_forward(seen[name, "convolution"], *norm, training=False, eps=bn.eps)
    tensors = {"before": before, "branch": seen[name, "branch"], "output": seen[name, "output"]}
    tensors = {key: y.reshape(-1, y.shape[-1]) for key, y in tensors.items()}  # (N, H, W, C) -> (pixels, C)
    recovered = manifold.explained(tensors["before"], manifold.regression(tensors["before"], tensors["branch"]))
    found = {"name": name, "adds_input": block.adds_input, "recovered": rounded([recovered])[0]}
    return found | {key: measures_of(y) for key, y in tensors.items()}


def measures_of(y):
    """Return how a matrix of activations (pixels, C) fills its C dimensions.

    ``singular_values`` (of the pixels without their mean), ``effective_rank`` (see
    :func:`npnets.manifold.effective_rank`), ``rank`` (how many of them are above 1 % of the largest), and three shares:
    ``dead`` of the channels, those that are the same for all pixels; ``zero`` and ``six`` of all numbers.
    """
    s = manifold.singular_values(y)
    shares = (manifold.effective_rank(s), manifold.dead(y).mean(), np.mean(y == 0), np.mean(y == 6))
    names = ("effective_rank", "dead", "zero", "six")
    return {"singular_values": rounded(s), "rank": manifold.rank_above(s)} | dict(zip(names, rounded(shares)))


def per_block(records, variant, measure, tensor=None):
    """Return a measure of each block for each seed, (S, blocks).

    Parameters
    ----------
    records : Records
    variant : str
    measure : str
        ``"recovered"``, or with a ``tensor`` one of :func:`measures_of`; ``"channels"`` is how many there are.
    tensor : {"before", "branch", "output"}, optional
    """
    rows = []
    for record in records.of(variant):
        if record.diverged is None:
            blocks = [block if tensor is None else block[tensor] for block in record["bottlenecks"]]
            rows.append([len(b["singular_values"]) if measure == "channels" else b[measure] for b in blocks])
    return np.array(rows, np.float64)


def summary(records):
    """Return the accuracies as a table, and one of the bottlenecks: means over blocks and seeds."""
    lines = [("bottlenecks", "effective rank", "share of C", "above 1 %, of C", "dead channels", "recovered")]
    for variant in records.variants:
        channels, effective, rank, dead = (
            per_block(records, variant, measure, "branch") for measure in ("channels", "effective_rank", "rank", "dead")
        )
        shares = (effective / channels, rank / channels, dead, per_block(records, variant, "recovered"))
        shares = [share[~np.isnan(share)] for share in shares]
        means = [share.mean() if share.size else np.nan for share in shares]
        lines.append((variant, f"{effective.mean():.2f}" * bool(effective.size), *map(common.percent, means)))
    return f"{common.results_table(records)}\n\n{text_table(lines, 1, total=False)}"


EXPERIMENT = Experiment(
    name="linear_bottlenecks",
    section="MobileNetV2, section 6.4 and Figure 5 (a): linear or ReLU6 bottlenecks, with shortcuts and without",
    train=train,
    settings=SETTINGS,
    variants=VARIANTS,
    seeds=SEEDS,
    small=SMALL,
    datasets=("cifar10", "mnist"),
    summary=summary,
)
