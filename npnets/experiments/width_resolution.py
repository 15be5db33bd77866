"""Width and resolution traded off against each other, for MobileNetV1 and V2 on CIFAR-10.

MobileNetV1, sections 3.3 and 3.4, shrinks a network by two multipliers: alpha thins every layer, to 1, 0.75, 0.5 or
0.25 of its channels, and rho makes the image smaller, 224, 192, 160 or 128 pixels. Both reduce the cost quadratically,
and accuracy falls about linearly with the logarithm of the cost. MobileNetV2, section 4, has the same two, and its
Figure 4 shows accuracy over multiply-adds for both networks. Section 4 ends: for alpha below 1, the last convolution
keeps its width, which "improves performance for smaller models".

Here are 4 widths times 4 resolutions of both small networks. Those at full resolution or at full width have three
seeds, the rest of the grid has one. Then V2 with the last convolution thinned like all others, at two widths, with five
seeds.

How this differs from the papers: ``models.mobilenet_v1_small`` and ``mobilenet_v2_small``; 32, 28, 24 and 20 pixels,
which are rho = 1, 0.875, 0.75 and 0.625; the images of fewer pixels are made from those of 32 (see
:func:`npnets.experiments.common.resized`), where the papers could cut theirs out of larger ones; the recipe is that of
:mod:`npnets.experiments.common`, and short: no network is trained to its end, least of all the large ones.

The cost does not fall with rho^2 exactly: a map is halved with rounding up, so the last maps are 4 x 4 both for 32 and
for 28 pixels, and 3 x 3 for 24 and 20. V1 does most of its work there, and saves only 4 % with 28 pixels. And V2 rounds
channels to multiples of 8, so that at 0.75 its stem and its first two rows are as wide as at 1, and at 0.25 all
bottlenecks before the last row have 8.

V1 beside V2 compares these two networks, not two kinds of blocks. V1 works mostly on maps of 4 x 4, V2 of 8 x 8; V1 has
ReLU and V2 ReLU6; and V2's depthwise filters have weight decay. A thinned last convolution makes the network cheaper
than one that is kept, by 4 and 8 % of the multiply-adds and 12 and 28 % of the parameters at widths 0.5 and 0.25.

74 runs of 3 epochs took 77 minutes on two cores.
"""

from typing import NamedTuple

import numpy as np

from npnets import models
from npnets.experiments import common
from npnets.experiments.experiment import Experiment
from npnets.models.mobilenet_v2 import SMALL_HEAD
from npnets.shapes import choice, round_channels

WIDTHS = (1.0, 0.75, 0.5, 0.25)
RESOLUTIONS = {32: 1.0, 28: 0.875, 24: 0.75, 20: 0.625}
"""Pixels of an image of CIFAR-10, after which the variants are named, and rho."""
NETWORKS = ("v1", "v2")

SETTINGS = common.RECIPE | {
    "epochs": 3,
    "network": "v1",
    "width_mult": 1.0,
    "resolution_mult": 1.0,
    "shrink_head": False,  # V2's last convolution
}
GRID = {
    f"{network}_{width:g}_{pixels}": {"network": network, "width_mult": width, "resolution_mult": rho}
    for network in NETWORKS
    for width in WIDTHS
    for pixels, rho in RESOLUTIONS.items()
}
SHRUNK = {f"v2_{width:g}_32_shrunk": GRID[f"v2_{width:g}_32"] | {"shrink_head": True} for width in (0.5, 0.25)}
VARIANTS = GRID | SHRUNK
SEEDS = {
    variant: (0, 1, 2) if 1.0 in (changes["width_mult"], changes["resolution_mult"]) else (0,)
    for variant, changes in VARIANTS.items()
}
for shrunk in SHRUNK:  # the difference is small: it needs more seeds to be seen
    SEEDS[shrunk] = SEEDS[shrunk.removesuffix("_shrunk")] = (0, 1, 2, 3, 4)
SMALL = common.SMALL | {"epochs": 1, "batch_size": 16, "train_images": 640, "test_images": 200}


def network(settings, data):
    """Return the network of a variant."""
    own = common.for_images(data, width_mult=settings["width_mult"], seed=settings["seed"])
    if choice(settings["network"], "network", NETWORKS) == "v1":
        return models.mobilenet_v1_small(**own)
    head = round_channels(SMALL_HEAD * settings["width_mult"]) if settings["shrink_head"] else SMALL_HEAD
    return models.mobilenet_v2_small(**own, head=head)


def train(settings, data, fit):
    """Train one network on images of one resolution."""
    return common.train(network(settings, data), settings, data, fit, resolution_mult=settings["resolution_mult"])


class LogLinear(NamedTuple):
    """A straight line through points of accuracy over the logarithm of the multiply-adds."""

    per_decade: float  # accuracy gained where the cost is ten times as high
    at_a_million: float  # accuracy at a million multiply-adds
    unexplained: float  # root mean square of the distances from the line, in accuracy


def log_linear(results):
    """Return the :class:`LogLinear` of several :class:`npnets.experiments.common.Result`, by least squares.

    ``accuracy = at_a_million + per_decade log10(macs / 10^6)``

    Raises
    ------
    ValueError
        If there are not two different costs among those that did not diverge.
    """
    points = [(one.macs, one.accuracy) for one in results if not np.isnan(one.accuracy)]
    if len({macs for macs, _ in points}) < 2:
        raise ValueError("a line needs networks of at least two different costs")
    macs, accuracy = np.array(points).T  # (R,) each
    x = np.log10(macs / 1e6)
    per_decade, at_a_million = np.polyfit(x, accuracy, 1)
    distances = accuracy - (at_a_million + per_decade * x)
    return LogLinear(float(per_decade), float(at_a_million), float(np.sqrt(np.mean(distances**2))))


def pareto_front(results):
    """Return those results that no other one beats, by cost: none is at most as costly and more accurate.

    Of two with the same accuracy the cheaper one stays.
    """
    front = []
    for one in sorted(results, key=lambda one: (one.macs, -one.accuracy)):
        if one.accuracy > max((other.accuracy for other in front), default=-np.inf):
            front.append(one)
    return front


def summary(records):
    """Return the table of the results, the straight line of each network, and the front of both."""
    results = common.results(records)
    lines = [common.results_table(records), ""]
    results = [one for one in results if one.variant in GRID]
    for name in NETWORKS:
        own = [one for one in results if GRID[one.variant]["network"] == name]
        if len({one.macs for one in own if not np.isnan(one.accuracy)}) >= 2:
            line = log_linear(own)
            lines.append(
                f"{name}: ten times the multiply-adds bring {line.per_decade:.1%} of accuracy "
                f"(a straight line over their logarithm, off by {line.unexplained:.1%})"
            )
    return "\n".join([*lines, f"on the front: {', '.join(one.variant for one in pareto_front(results))}"])


EXPERIMENT = Experiment(
    name="width_resolution",
    section="MobileNetV1, sections 3.3 and 3.4; MobileNetV2, section 4 and Figure 4: width and resolution",
    train=train,
    settings=SETTINGS,
    variants=VARIANTS,
    seeds=SEEDS,
    small=SMALL,
    datasets=("cifar10", "mnist"),
    summary=summary,
)
