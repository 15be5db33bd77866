"""Bilinear resizing is linear: ``y = A x B^T`` along height and width, so ``dx = A^T dy B``."""

import numpy as np

from npnets.gradcheck.catalogue import KnownOp, mistake, register
from npnets.shapes import pair

OP = "resize_bilinear"


def weights(n_out, n_in, align_corners):
    """Return A (n_out, n_in): the parts of the two nearest input pixels in each output pixel."""
    k = np.arange(n_out)
    if align_corners:
        position = k * (n_in - 1) / max(n_out - 1, 1)
    else:
        position = (k + 0.5) * n_in / n_out - 0.5
    position = np.clip(position, 0, n_in - 1)
    below = np.minimum(position.astype(int), max(n_in - 2, 0))
    above = np.minimum(below + 1, n_in - 1)
    matrix = np.zeros((n_out, n_in))
    np.add.at(matrix, (k, below), 1 - (position - below))
    np.add.at(matrix, (k, above), position - below)
    return matrix


def back(case, align_corners):
    """Return A^T dy B."""
    size, image = pair(case.size, "size"), case.x.shape[1:3]
    A, B = (weights(out, n, align_corners) for out, n in zip(size, image))
    return {"dx": np.einsum("kp,nklc,lq->npqc", A, case.dy, B)}


def right(case):
    """The right gradient."""
    return back(case, case.align_corners)


@mistake(
    OP,
    "other alignment",
    "the other alignment of the corners is used in the backward",
    "The positions of the forward, half-pixel centres or aligned corners, hold for the backward too.",
)
def other_alignment(case):
    """align_corners the other way round."""
    return back(case, not case.align_corners)


@mistake(
    OP,
    "resized back",
    "dy is resized to the size of x",
    "The backward is the transpose of the interpolation, not another interpolation: every output pixel hands its dy "
    "back to the (up to four) pixels it was mixed from, with the same weights.",
)
def resized_back(case):
    """The forward, applied to dy."""
    size, image = pair(case.size, "size"), case.x.shape[1:3]
    A, B = (weights(n, out, case.align_corners) for out, n in zip(size, image))
    return {"dx": np.einsum("pk,nklc,ql->npqc", A, case.dy, B)}


def _samples(rng):
    x = rng.standard_normal((2, 4, 5, 2))
    return [((x, (7, 6)), {}), ((x, (3, 9)), {"align_corners": True})]


register(KnownOp(OP, ("x", "size"), ("dx",), right, _samples, {"align_corners": False}))
