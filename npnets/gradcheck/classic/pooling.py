"""Pooling: which cells of a window share its gradient, and in which parts."""

import numpy as np

from npnets.gradcheck.catalogue import KnownOp, mistake, register
from npnets.gradcheck.classic.windows import ONE_PIXEL_OFF, add_back, overwrite, shifted, windows
from npnets.shapes import geometry, pair, span

BOTH = "max_pool2d avg_pool2d"


def window_of(case):
    """Return the resolved geometry; the stride is the size of the window unless it is given."""
    size = pair(case.size, "size")
    stride = size if case.stride is None else case.stride
    return geometry(case.x.shape[1:3], size, stride=stride, padding=case.padding, name=case.op)


def is_first_maximum(met):
    """Mark the first largest cell of every window, in row order: the same shape as :func:`windows` gives."""
    cells = met.reshape(-1, *met.shape[2:])  # (K_h, K_w, ...) -> (K_h K_w, ...)
    first = np.arange(len(cells)).reshape(-1, *[1] * (cells.ndim - 1)) == cells.argmax(axis=0)
    return first.reshape(met.shape)


def cells_inside(case):
    """Return how many cells of each window lie inside the image: shape (H_out, W_out, 1)."""
    inside = windows(np.ones((1, *case.x.shape[1:3], 1)), window_of(case))
    return inside.sum(axis=(0, 1))[0]


def shares(case, count=None):
    """Return what each cell of a window gets: shape (K_h, K_w, N, H_out, W_out, C)."""
    geo = window_of(case)
    if case.op == "max_pool2d":
        return is_first_maximum(windows(case.x, geo, fill=-np.inf)) * case.dy
    return np.broadcast_to(case.dy / (cells_inside(case) if count is None else count), (*geo.kernel, *case.dy.shape))


def to_image(case, parts):
    """Add up what every pixel gets from the windows it lies in."""
    return {"dx": add_back(parts, case.x.shape[1:3], window_of(case))}


def right(case):
    """The right gradient of both poolings."""
    return to_image(case, shares(case))


@mistake(
    BOTH,
    "overlapping windows overwritten",
    "overlapping windows overwrite one another: dx[...] = where it should be +=",
    "With a stride smaller than the window, a pixel lies in several windows and collects from each of them.",
)
def overwritten(case):
    """``=`` for ``+=``, in a loop over outputs or over the cells of the window."""
    parts, size, geo = shares(case), case.x.shape[1:3], window_of(case)
    return [{"dx": overwrite(parts, size, geo, window_by_window=order)} for order in (True, False)]


@mistake(
    "max_pool2d",
    "every equal cell gets the gradient",
    "every cell that equals the maximum gets the whole gradient",
    "x == y marks all ties, and dx then sums to more than dy. One cell is the maximum: here the first in row order "
    "(argmax).",
)
def all_maxima(case):
    """x == y as the mask."""
    return to_image(case, (windows(case.x, window_of(case), fill=-np.inf) == case.y) * case.dy)


@mistake(
    "max_pool2d",
    "gradient shared between equal cells",
    "equal cells share the gradient",
    "A reasonable choice at a tie, but not the one made here: the first cell in row order gets it all.",
)
def shared_maxima(case):
    """x == y, divided by the number of ties."""
    ties = windows(case.x, window_of(case), fill=-np.inf) == case.y
    return to_image(case, ties / ties.sum(axis=(0, 1)) * case.dy)


@mistake(
    "max_pool2d",
    "last of equal cells",
    "the last of equal cells gets the gradient",
    "A reasonable choice at a tie, but not the one made here: the first cell in row order gets it.",
)
def last_maximum(case):
    """The first maximum of the windows read backwards."""
    met = windows(case.x, window_of(case), fill=-np.inf)
    return to_image(case, is_first_maximum(met[::-1, ::-1])[::-1, ::-1] * case.dy)


@mistake(
    "max_pool2d",
    "every cell gets the gradient",
    "every cell of the window gets the gradient",
    "Only the largest cell acts on the output.",
)
def every_cell(case):
    """As if the pooling summed, or averaged."""
    whole = np.broadcast_to(case.dy, shares(case).shape)
    return [to_image(case, whole), to_image(case, whole / cells_inside(case))]


@mistake(
    "avg_pool2d",
    "not divided by the window",
    "the gradient is not divided by the number of cells",
    "Each cell acts on the mean with 1 / (K_h K_w), and gets that share of dy.",
)
def not_divided(case):
    """A sum for the mean."""
    return to_image(case, shares(case, count=1.0))


@mistake(
    "avg_pool2d",
    "full window at the border",
    "the gradient is divided by the full window at the border too",
    "Padding is not averaged over here: a window at the border is divided by its cells inside the image.",
)
def full_window(case):
    """K_h K_w everywhere."""
    return to_image(case, shares(case, count=float(np.prod(window_of(case).kernel))))


@mistake(
    "avg_pool2d",
    "padding off by one",
    "the padding is off by one pixel",
    "Output k covers the pixels from stride * k - top on.",
)
def padding_off_by_one(case):
    """One pixel more or less at the top, on the left, or both."""
    geo = window_of(case)
    return [{"dx": add_back(shares(case), case.x.shape[1:3], shifted(geo, *step))} for step in ONE_PIXEL_OFF]


@mistake(
    "avg_pool2d",
    "SAME taken as symmetric",
    "SAME padding is taken as symmetric",
    "SAME of TensorFlow puts the odd pixel at the bottom and on the right. Use npnets.shapes.same_padding.",
)
def same_as_symmetric(case):
    """K // 2 on every side instead of SAME."""
    geo = window_of(case)
    symmetric = tuple((span(k, 1) // 2,) * 2 for k in geo.kernel)
    if case.padding != "same":
        return {}
    return {"dx": add_back(shares(case), case.x.shape[1:3], geo._replace(pads=symmetric))}


@mistake(
    BOTH,
    "stride ignored",
    "the stride is ignored in the backward",
    "Output k covers the pixels from stride * k - top on.",
)
def stride_ignored(case):
    """The windows of the outputs lie next to one another."""
    return {"dx": add_back(shares(case), case.x.shape[1:3], window_of(case)._replace(stride=(1, 1)))}


def _samples(rng):
    # Small whole numbers: many ties, which max pooling must resolve.
    x = rng.integers(0, 4, (2, 8, 7, 3)).astype(float)
    return [
        ((x, (3, 2)), {"stride": 1, "padding": "symmetric"}),
        ((x, 3), {"stride": 2, "padding": "same"}),
        ((x, 2), {}),
    ]


for _name in ("max_pool2d", "avg_pool2d"):
    register(
        KnownOp(
            _name,
            ("x", "size"),
            ("dx",),
            right,
            _samples,
            {"stride": None, "padding": "valid"},
            kinked=_name == "max_pool2d",
        )
    )


def right_global(case):
    """Each pixel acts on the mean with 1 / (H W)."""
    return {"dx": spread(case) / np.prod(case.x.shape[1:3])}


def spread(case):
    """Return dy at every pixel: (N, C) -> (N, H, W, C)."""
    return np.broadcast_to(case.dy[:, None, None], case.x.shape)


@mistake(
    "global_avg_pool",
    "not divided by H W",
    "the gradient is not divided by H W",
    "Each of the H W pixels acts on the mean with 1 / (H W).",
)
def pixels_not_counted(case):
    """A sum for the mean."""
    return {"dx": spread(case).copy()}


@mistake(
    "global_avg_pool",
    "not spread over the pixels",
    "the gradient is not spread over the pixels",
    "dx has the shape of x: every pixel of a channel gets the same dy / (H W).",
)
def not_spread(case):
    """(N, C)."""
    return {"dx": case.dy / np.prod(case.x.shape[1:3])}


@mistake(
    "global_avg_pool",
    "divided by one side",
    "the gradient is divided by the height (or the width) only",
    "The mean is over H W pixels.",
)
def one_side(case):
    """1 / H or 1 / W."""
    return [{"dx": spread(case) / side} for side in case.x.shape[1:3]]


@mistake(
    "global_avg_pool",
    "divided by the batch size",
    "the gradient is divided by the batch size too",
    "The pooling averages over the pixels of one image. The 1/N of the loss arrives with dy.",
)
def by_the_batch(case):
    """1 / (N H W)."""
    return {"dx": spread(case) / np.prod(case.x.shape[:3])}


def _samples_global(rng):
    return [((rng.standard_normal((3, 4, 5, 2)),), {})]


register(KnownOp("global_avg_pool", ("x",), ("dx",), right_global, _samples_global))
