"""Class probabilities of one network and of several: are they right as often as they claim?"""

from typing import NamedTuple

import numpy as np

BINS = 15  # as is usual since Guo et al., "On calibration of modern neural networks" (2017)


class Scores(NamedTuple):
    """How good class probabilities are: ``accuracy`` (0 to 1), mean negative log likelihood in nats, and the ECE."""

    accuracy: float
    negative_log_likelihood: float
    calibration_error: float


class Reliability(NamedTuple):
    """What happened where the network was so sure, bin by bin of its confidence; (B,) each, NaN in an empty bin."""

    confidence: np.ndarray  # mean probability of the predicted class
    accuracy: np.ndarray  # share of right predictions
    count: np.ndarray  # how many images


def average(probabilities):
    """Return the arithmetic mean of the class probabilities of several networks (section 4.3), (N, K).

    Parameters
    ----------
    probabilities : sequence of arrays (N, K)
    """
    return np.mean(np.asarray(probabilities, np.float64), axis=0)


def reliability(probabilities, labels, bins=BINS):
    """Return the :class:`Reliability` of class probabilities: the points of a reliability diagram.

    A prediction is the class with the highest probability, and that probability is its confidence. The bins are equal
    parts of (0, 1]; a confidence on a border belongs to the lower one.

    Parameters
    ----------
    probabilities : array (N, K)
    labels : integer array (N,)
    bins : int
    """
    probabilities = np.asarray(probabilities, np.float64)
    confidence = probabilities.max(axis=1)  # (N, K) -> (N,)
    right = probabilities.argmax(axis=1) == labels
    bin_of = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    count = np.bincount(bin_of, minlength=bins)
    nothing = np.full(bins, np.nan)
    sums = (np.bincount(bin_of, weights, bins) for weights in (confidence, right))
    return Reliability(*(np.divide(s, count, out=nothing.copy(), where=count > 0) for s in sums), count)


def scores(probabilities, labels, bins=BINS):
    """Return the :class:`Scores` of class probabilities.

    The expected calibration error (Guo et al. 2017, equation 3) is the mean distance between confidence and accuracy,
    ``sum over bins of count / N |accuracy - confidence|``. A probability below 1e-12 counts as 1e-12 in the logarithm.

    Parameters
    ----------
    probabilities : array (N, K)
    labels : integer array (N,)
    bins : int
    """
    probabilities = np.asarray(probabilities, np.float64)
    confidence, accuracy, count = reliability(probabilities, labels, bins)
    gaps = np.abs(accuracy - confidence)[count > 0]
    of_label = probabilities[np.arange(len(labels)), labels]
    return Scores(
        accuracy=float(np.mean(probabilities.argmax(axis=1) == labels)),
        negative_log_likelihood=float(-np.log(np.maximum(of_label, 1e-12)).mean()),
        calibration_error=float((gaps * count[count > 0]).sum() / len(labels)),
    )
