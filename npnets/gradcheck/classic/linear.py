"""Linear and pointwise layers: ``y = x w + b``, so ``dx = dy w^T`` and ``dw = x^T dy``, summed over all rows."""

import numpy as np

from npnets.gradcheck.catalogue import KnownOp, mistake, register

BOTH = "linear pointwise_conv2d"


def rows(array):
    """(..., C) -> (rows, C): a pixel of a pointwise convolution is a row."""
    return array.reshape(-1, array.shape[-1])


def right(case):
    """The right gradients of both layers."""
    return {
        "dx": case.dy @ case.w.T,
        "dw": rows(case.x).T @ rows(case.dy),
        "db": None if case.b is None else rows(case.dy).sum(axis=0),
    }


@mistake(
    BOTH,
    "w not transposed",
    "w is not transposed in dx = dy w^T",
    "dy has C_out columns and w has C_in rows. With C_in = C_out the product works out all the same.",
)
def w_not_transposed(case):
    """dy w."""
    return {"dx": case.dy @ case.w} if case.w.shape[0] == case.w.shape[1] else {}


@mistake(
    BOTH,
    "dw transposed",
    "the weight gradient is transposed: dy^T x where it should be x^T dy",
    "dw has the shape of w, (C_in, C_out).",
)
def dw_transposed(case):
    """dy^T x."""
    return {"dw": right(case)["dw"].T}


@mistake(
    BOTH,
    "x and w swapped",
    "x and w are swapped: the two gradients are returned in each other's place",
    "The backward returns the gradients in the order of the inputs: dx, dw, db.",
)
def gradients_swapped(case):
    """(dw, dx, db)."""
    gradients = right(case)
    return {"dx": gradients["dw"], "dw": gradients["dx"]}


@mistake(
    BOTH,
    "w left out",
    "dy is handed on as it is, without w",
    "dx = dy w^T: an input gets the share that its weights give it.",
)
def w_left_out(case):
    """dy."""
    return {"dx": case.dy}


@mistake(
    "pointwise_conv2d",
    "weight gradient not summed over the pixels",
    "the weight gradient is summed over the batch only, not over the pixels",
    "The same w acts on every pixel of every image; flatten (N, H, W, C) to (N H W, C) first.",
)
def pixels_kept(case):
    """dw of shape (H, W, C_in, C_out)."""
    return {"dw": np.einsum("nklm,nklo->klmo", case.x, case.dy)}


def _samples_linear(rng):
    normal = rng.standard_normal
    return [((normal((5, m)), normal((m, o)), normal(o)), {}) for m, o in ((3, 4), (4, 4))]


def _samples_pointwise(rng):
    normal = rng.standard_normal
    return [((normal((2, 3, 4, m)), normal((m, o)), normal(o)), {}) for m, o in ((3, 5), (4, 4))]


register(KnownOp("linear", ("x", "w", "b"), ("dx", "dw", "db"), right, _samples_linear, {"b": None}))
register(KnownOp("pointwise_conv2d", ("x", "w", "b"), ("dx", "dw", "db"), right, _samples_pointwise, {"b": None}))
