"""Softmax and cross-entropy, together: their common gradient is simple and cannot overflow."""

from typing import NamedTuple

import numpy as np

from npnets.ops.checks import check_array, check_floating, check_gradient


class CrossEntropyCache(NamedTuple):
    """The softmax probabilities and the target distribution, both (N, K)."""

    probabilities: np.ndarray
    targets: np.ndarray


def softmax_cross_entropy_forward(logits, labels, *, label_smoothing=0.0):
    """Return the mean cross-entropy between the labels and the softmax of the logits.

    ``p = exp(logits) / sum exp(logits)``, ``loss = -1/N sum over n, k of t[n, k] log p[n, k]``. The target t is one
    for the label and zero elsewhere; label smoothing (Szegedy et al. 2016, section 7) mixes it with the uniform
    distribution, ``t = (1 - eps) onehot + eps / K``, the label's own class included.

    Parameters
    ----------
    logits : ndarray, shape (N, K)
    labels : ndarray of integers, shape (N,)
        Each from 0 to K - 1.
    label_smoothing : float
        eps, 0 <= eps < 1.

    Returns
    -------
    loss : scalar of the logits' dtype, in nats
    cache : CrossEntropyCache

    Raises
    ------
    ValueError
        If the shapes do not fit, the labels are not integers from 0 to K - 1, or the batch is empty.
    """
    _check_loss(logits, labels, label_smoothing)
    N, K = logits.shape
    shifted = logits - logits.real.max(axis=1, keepdims=True)  # exp of numbers up to 0: no overflow
    exponentials = np.exp(shifted)
    sums = exponentials.sum(axis=1, keepdims=True)
    log_probabilities = shifted - np.log(sums)
    targets = np.full((N, K), label_smoothing / K, logits.real.dtype)
    targets[np.arange(N), labels] += 1 - label_smoothing
    loss = -(targets * log_probabilities).sum(axis=1).mean()
    return loss, CrossEntropyCache(exponentials / sums, targets)


def softmax_cross_entropy_backward(dy, cache):
    """Return ``dlogits = dy (p - t) / N`` for the scalar dy that arrives from above (1.0 at the end of a network)."""
    probabilities, targets = cache
    check_gradient("softmax_cross_entropy", np.asarray(dy), ())
    return (probabilities - targets) * probabilities.dtype.type(dy / len(targets))


def _check_loss(logits, labels, label_smoothing):
    check_array("softmax_cross_entropy", logits, "logits")
    check_array("softmax_cross_entropy", labels, "labels")
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or not len(logits):
        raise ValueError(
            f"softmax_cross_entropy: logits must have the shape (N, K) and labels (N,) with N > 0, "
            f"got {logits.shape} and {labels.shape}"
        )
    check_floating("softmax_cross_entropy", logits, "logits")
    if labels.dtype.kind not in "iu":
        raise ValueError(f"softmax_cross_entropy: labels must be integers, got dtype {labels.dtype}")
    K = logits.shape[1]
    if labels.min() < 0 or labels.max() >= K:
        raise ValueError(
            f"softmax_cross_entropy: labels must be from 0 to {K - 1} for logits {logits.shape}, "
            f"got values from {labels.min()} to {labels.max()}"
        )
    if not 0 <= label_smoothing < 1:
        raise ValueError(
            f"softmax_cross_entropy: label_smoothing must be at least 0 and below 1, got {label_smoothing}"
        )
