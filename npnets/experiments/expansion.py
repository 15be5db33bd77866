"""How far to expand: section 4 of MobileNetV2 (Sandler et al. 2018), on CIFAR-10.

"In our experiments we find that expansion rates between 5 and 10 result in nearly identical performance curves, with
smaller networks being better off with slightly smaller expansion rates and larger networks having slightly better
performance with larger expansion rates."

Networks with expansion t = 1, 2, 4, 6 and 10 that all cost the same: the more a block expands, the fewer channels
its bottlenecks have. Once at the cost of ``models.mobilenet_v2_small`` (4,554,240 multiply-adds for an image of 32
pixels), once at a quarter of it. As in the paper the first block always has t = 1. At t = 1 no block has an expansion:
what is left is a separable convolution with a linear output and a shortcut.

For each t the width is searched whose cost is nearest (see :func:`matched_width`). For that, channels are rounded to
whole numbers and not to multiples of 8, which would miss the cost by a tenth and more; so all networks meet it to 1 %.
Only what t changes is scaled: the blocks from the second on. The stem and the first block have 16 channels in the large
networks and 8 in the small ones. Were they thinned with the rest, t = 10 would have to look at the image through six
filters, and to expand would seem worse than it is.

Some things are not equal. The last convolution has always 256 channels (below width 1 it is not thinned in the paper,
either), and it costs the more, the wider the bottleneck in front of it: with the stem a fifth of the multiply-adds of
the large network at t = 1, a fifteenth at t = 10; of the small ones two fifths and an eighth. It also gives those of t
= 1 more parameters, by a third of those of t = 6; from t = 2 to 10 they fall by a sixth and by a fifth. And time and
memory grow with t: there is more for the depthwise convolutions, batch norm and ReLU6 to do, which move many numbers
and multiply little. Finally, the fixed first block throttles t = 1, whose second block filters only those 16 or 8
channels before it widens them. On the other hand its blocks have one convolution, one batch norm and one ReLU6 less,
and in a short training that may help. So what is said of expansion should rest on t = 2 to 10.

How this differs from the paper: it shows curves over many widths, these are two points of them; and the recipe is that
of :mod:`npnets.experiments.common`.

30 runs of 2 epochs took 49 minutes on two cores.
"""

from npnets import cost, models
from npnets.experiments import common
from npnets.experiments.experiment import Experiment
from npnets.models.mobilenet_v2 import SMALL_STEM, SMALL_TABLE
from npnets.shapes import round_channels

EXPANSIONS = (1, 2, 4, 6, 10)
SIZES = {"large": {"cost_share": 1.0, "stem": SMALL_STEM}, "small": {"cost_share": 0.25, "stem": SMALL_STEM // 2}}
"""Cost, as a share of that of ``mobilenet_v2_small``, and channels of the stem."""

SETTINGS = common.RECIPE | {"epochs": 2, "t": 6, **SIZES["large"]}
VARIANTS = {f"{size}_t{t}": {"t": t, **own} for size, own in SIZES.items() for t in EXPANSIONS}
SEEDS = dict.fromkeys(VARIANTS, (0, 1, 2))
SMALL = common.SMALL | {"batch_size": 16, "train_images": 1000}

NARROWEST, WIDEST = 1 / 16, 16
"""Between these widths the right one is searched."""


def network(t, width, stem=SMALL_STEM, **settings):
    """Return MobileNetV2 small with expansion ``t``, its bottlenecks ``width`` times as wide.

    Parameters
    ----------
    t : int
        Of all blocks but the first.
    width : float
        Factor on the channels of all blocks but the first; they are rounded to whole numbers.
    stem : int
        Channels of the stem and of the first block.
    settings
        Others of ``models.mobilenet_v2_small``.
    """
    (_, _, *first), *rest = SMALL_TABLE
    table = [(1, stem, *first), *((t, round_channels(c * width, 1), n, s) for _, c, n, s in rest)]
    return models.mobilenet_v2_small(table=table, stem=stem, multiple=1, **settings)


def matched_width(t, macs, shape, stem=SMALL_STEM):
    """Return the width of the network with expansion ``t`` whose cost is nearest to ``macs``.

    The cost grows with the width in steps, one for each channel more. Halving the interval finds the two widths between
    which it goes past ``macs``, and the nearer of both costs wins.

    Parameters
    ----------
    t : int
    macs : int
        Multiply-adds for one image.
    shape : (H, W, C)
        Of the image.
    stem : int
        As for :func:`network`.

    Raises
    ------
    ValueError
        If the cost is that of no width from 1/16 to 16.
    """

    def cost_of(width):
        return cost.profile(network(t, width, stem, in_channels=shape[-1]), shape).macs

    low, high = NARROWEST, WIDEST
    if not cost_of(low) <= macs < cost_of(high):
        raise ValueError(f"no network with t = {t} and a width from {low} to {high} costs {macs:,} multiply-adds")
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if cost_of(middle) <= macs else (low, middle)
    return min(low, high, key=lambda width: abs(cost_of(width) - macs))


def target(share, shape):
    """Return the multiply-adds of ``share`` of ``models.mobilenet_v2_small`` for images of this shape (H, W, C)."""
    return round(share * cost.profile(models.mobilenet_v2_small(in_channels=shape[-1]), shape).macs)


def train(settings, data, fit):
    """Train one network."""
    shape = data.train.images.shape[1:]
    macs = target(settings["cost_share"], shape)
    t, stem = settings["t"], settings["stem"]
    width = matched_width(t, macs, shape, stem)
    model = network(t, width, stem, **common.for_images(data, seed=settings["seed"]))
    found = {
        "target_macs": macs,
        "width": width,
        "channels": [block.project.C_out for block in model.blocks],
        "expanded": [block.depthwise.C_in for block in model.blocks],
    }
    return found | common.train(model, settings, data, fit)


def best_expansion(records, size):
    """Return the t with the highest mean accuracy among the recorded networks of a size, ``"large"`` or ``"small"``."""
    results = [one for one in common.results(records) if one.variant.startswith(f"{size}_t") and one.accuracy >= 0]
    if not results:
        raise ValueError(f"no network of the size {size!r} is recorded")
    return int(max(results, key=lambda one: one.accuracy).variant.removeprefix(f"{size}_t"))


EXPERIMENT = Experiment(
    name="expansion",
    section="MobileNetV2, section 4: expansion factors 1 to 10 at equal cost",
    train=train,
    settings=SETTINGS,
    variants=VARIANTS,
    seeds=SEEDS,
    small=SMALL,
    datasets=("cifar10", "mnist"),
    summary=common.results_table,
)
