"""Softmax cross-entropy: ``dlogits = dy (p - q) / N`` with the probabilities p and the targets q."""

import numpy as np

from npnets.gradcheck.catalogue import KnownOp, mistake, register

OP = "softmax_cross_entropy"


def probabilities(case):
    """Return the softmax of the logits."""
    powers = np.exp(case.logits - case.logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def one_hot(case):
    """Return 1 at each sample's class."""
    return np.eye(case.logits.shape[1])[np.asarray(case.labels)]


def targets(case):
    """Return q: ``eps / K`` on every class, and the rest on the true one."""
    eps, K = case.label_smoothing, case.logits.shape[1]
    return (1 - eps) * one_hot(case) + eps / K


def gradient(case, p=None, q=None):
    """Return ``dy (p - q) / N``, for other p or q if they are given."""
    p = probabilities(case) if p is None else p
    q = targets(case) if q is None else q
    return {"dlogits": case.dy * (p - q) / len(case.logits)}


@mistake(OP, "1/N missing", "the 1/N of the mean loss is missing", "The loss is the mean over the batch: divide by N.")
def n_missing(case):
    """The sum of the losses."""
    return {"dlogits": gradient(case)["dlogits"] * len(case.logits)}


@mistake(
    OP,
    "divided by N K",
    "the gradient is divided by the number of classes too",
    "The mean is over the N samples, not over the N K logits.",
)
def by_all_logits(case):
    """A mean over every number."""
    return {"dlogits": gradient(case)["dlogits"] / case.logits.shape[1]}


@mistake(
    OP,
    "label smoothing forgotten",
    "label smoothing is forgotten in the backward",
    "The target of the true class is 1 - eps + eps / K, that of every other class eps / K.",
)
def smoothing_forgotten(case):
    """One-hot targets."""
    return gradient(case, q=one_hot(case))


@mistake(
    OP,
    "smoothing without the true class's share",
    "the true class does not get its share eps / K of the label smoothing",
    "eps is spread over all K classes, the true one included.",
)
def true_class_share(case):
    """1 - eps on the true class; on the others eps / K or eps / (K - 1)."""
    eps, K, hot = case.label_smoothing, case.logits.shape[1], one_hot(case)
    return [gradient(case, q=(1 - eps) * hot + (1 - hot) * eps / others) for others in (K, K - 1)]


@mistake(
    OP,
    "target not subtracted",
    "the target is not subtracted: the probabilities alone",
    "dlogits = p - q. Without q every class is pushed down.",
)
def target_not_subtracted(case):
    """p."""
    return gradient(case, q=0.0)


@mistake(OP, "wrong sign", "the sign is wrong: q - p", "The loss falls when the true class's logit grows: p - q.")
def wrong_sign(case):
    """q - p."""
    return {"dlogits": -gradient(case)["dlogits"]}


@mistake(
    OP,
    "softmax forgotten",
    "the logits are used in place of the probabilities",
    "Apply the softmax first: p = exp(z) / sum exp(z).",
)
def softmax_forgotten(case):
    """z - q."""
    return gradient(case, p=case.logits)


@mistake(
    OP,
    "only the true class",
    "only the true class gets a gradient",
    "Every logit is in the denominator of the softmax: the other classes get p.",
)
def only_true_class(case):
    """p - q at the label, 0 elsewhere; or -1/p, the gradient of log p before the softmax."""
    p, hot = probabilities(case), one_hot(case)
    return [gradient(case, p=p * hot, q=targets(case) * hot), gradient(case, p=-hot / p, q=0.0)]


@mistake(
    OP,
    "dy forgotten",
    "dy is forgotten",
    "dy is the gradient of what follows the loss: usually 1, but another number where losses are weighted and added.",
)
def dy_forgotten(case):
    """As for dy = 1."""
    p, q = probabilities(case), targets(case)
    return {"dlogits": (p - q) / len(case.logits)}


def _samples(rng):
    return [
        ((2 * rng.standard_normal((5, 4)), rng.integers(0, 4, 5)), {"label_smoothing": smoothing})
        for smoothing in (0.1, 0.0)
    ]


register(KnownOp(OP, ("logits", "labels"), ("dlogits",), gradient, _samples, {"label_smoothing": 0.0}))
