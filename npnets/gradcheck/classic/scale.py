"""Scaling channels is a product, ``y = x s`` with s repeated over the pixels: ``dx = dy s``, ``ds = sum of dy x``."""

from npnets.gradcheck.catalogue import KnownOp, mistake, register

OP = "channel_scale"
PIXELS = (1, 2)


def right(case):
    """The right gradients."""
    return {"dx": case.dy * case.s[:, None, None], "ds": (case.dy * case.x).sum(axis=PIXELS)}


@mistake(
    OP,
    "s left out",
    "dy is handed on as it is, without s",
    "y = x s: an input counts as much as its factor lets through, dx = dy s.",
)
def s_left_out(case):
    """dy."""
    return {"dx": case.dy}


@mistake(
    OP,
    "x left out",
    "dy is summed without x",
    "y = x s: what s does to y is as large as the pixel it acts on.",
)
def x_left_out(case):
    """The sum of dy."""
    return {"ds": case.dy.sum(axis=PIXELS)}


@mistake(
    OP,
    "y in place of x",
    "dy is multiplied by y = x s, where it should be x",
    "The derivative of x s with respect to s is x; s is a factor too much.",
)
def y_for_x(case):
    """The sum of dy y."""
    return {"ds": (case.dy * case.y).sum(axis=PIXELS)}


@mistake(
    OP,
    "not summed over the pixels",
    "nothing is summed: every pixel keeps its own gradient of s",
    "ds has the shape of s, (N, C): one number scales all pixels of a channel, and collects from all of them.",
)
def pixels_kept(case):
    """(N, H, W, C)."""
    return {"ds": case.dy * case.x}


@mistake(
    OP,
    "mean instead of sum",
    "the mean over the pixels is taken where the sum belongs",
    "s multiplies every pixel of its channel, and their gradients add up. A mean belongs to the pooling before it.",
)
def mean_for_sum(case):
    """1 / (H W) too small."""
    return {"ds": (case.dy * case.x).mean(axis=PIXELS)}


@mistake(
    OP,
    "summed over the batch too",
    "the sum runs over the batch too",
    "Every image has factors of its own: sum over H and W alone.",
)
def summed_over_batch(case):
    """(C,)."""
    return {"ds": (case.dy * case.x).sum(axis=(0, *PIXELS))}


def _samples(rng):
    normal = rng.standard_normal
    return [((normal((3, 4, 5, 2)), normal((3, 2))), {})]


register(KnownOp(OP, ("x", "s"), ("dx", "ds"), right, _samples))
