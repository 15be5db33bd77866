"""Which shortcuts: section 6.4 and Figure 5 (b) of MobileNetV2 (Sandler et al. 2018), on CIFAR-10.

"The new result reported in this paper is that the shortcut connecting bottleneck perform better than shortcuts
connecting the expanded layers." The residual connections of the three networks join bottlenecks, or the expanded
tensors before and after the depthwise convolution (see :class:`npnets.nn.InvertedResidual`), or there are none. The
first two have as many of them, and all three the same weights in the beginning, for the same seed.

The network is that of :mod:`npnets.experiments.linear_bottlenecks`: about as deep as the paper's. Two of the variants
are there, too; here they are trained longer, since Figure 5 (b) compares them to the end.

Three variants, three seeds and 8 epochs took 58 minutes on two cores, some of them beside other work. (The blocks with
a shortcut between the expansions are not computed as one op and take longer.)
"""

from npnets.experiments import common
from npnets.experiments.experiment import Experiment
from npnets.experiments.linear_bottlenecks import SETTINGS as LINEAR_BOTTLENECKS
from npnets.experiments.linear_bottlenecks import network

SETTINGS = {name: value for name, value in LINEAR_BOTTLENECKS.items() if name != "measured_images"} | {"epochs": 8}
VARIANTS = {
    "bottleneck": {},
    "expansion": {"shortcut": "expansion"},
    "none": {"shortcut": "none"},
}
SEEDS = dict.fromkeys(VARIANTS, (0, 1, 2))
SMALL = common.SMALL | {"depth_mult": 1.0}


def train(settings, data, fit):
    """Train one network."""
    return common.train(network(settings, data), settings, data, fit)


EXPERIMENT = Experiment(
    name="shortcuts",
    section="MobileNetV2, section 6.4 and Figure 5 (b): shortcuts between bottlenecks, between expansions, or none",
    train=train,
    settings=SETTINGS,
    variants=VARIANTS,
    seeds=SEEDS,
    small=SMALL,
    datasets=("cifar10", "mnist"),
    summary=common.results_table,
)
