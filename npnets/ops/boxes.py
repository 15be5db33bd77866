"""Boxes of object detection: default boxes, their code, their overlap, and which of many to keep.

These are plain functions of arrays, no pairs of forward and backward: what a detector predicts is compared with the
*code* of a box, which is constant, so no gradient passes through them. Hence ``from npnets.ops import boxes``.

A box is four numbers, ``(cx, cy, w, h)``: the centre, then width and height, in units of the image, whose upper left
corner is (0, 0) and whose lower right corner is (1, 1). Arrays of boxes have the shape (..., 4).

The equations are those of SSD (Liu et al. 2016, section 2.2). The numbers that the paper leaves open, and those in
which MobileNetV2's detectors (section 6.2) differ from it, are those of the TensorFlow Object Detection API.
"""

import numpy as np

from npnets.ops.checks import check_array
from npnets.shapes import integer, number, pair, sequence

ASPECT_RATIOS = (1, 2, 1 / 2, 3, 1 / 3)
"""Width over height of the default boxes; one more square box is added to them."""

CODE_SCALE = (10.0, 10.0, 5.0, 5.0)
"""Factors on a box's code, so that its four numbers vary about as much as a network's outputs."""

LARGEST_LOG = 10.0
"""A decoded box is at most exp(10), 22026 times as large as its default box: a new network may predict anything."""


def default_boxes(map_sizes, *, scales=(0.2, 0.95), aspect_ratios=ASPECT_RATIOS, smallest=0.1):
    """Return the default boxes of SSD: in every pixel of every map, boxes of some sizes and shapes.

    Map k of m has boxes of the scale ``s_k = s_min + (s_max - s_min) (k - 1) / (m - 1)`` (SSD, equation 4). For each
    aspect ratio a there is one with ``w = s_k sqrt(a)`` and ``h = s_k / sqrt(a)``; and there is a square one of the
    scale ``sqrt(s_k s_{k+1})``, where s_{m+1} is 1. The centre of the boxes in row i and column j of a map of H x W
    pixels is ``((j + 1/2) / W, (i + 1/2) / H)``.

    Parameters
    ----------
    map_sizes : list of int or (int, int)
        Height and width of each map, the largest map first.
    scales : (float, float)
        s_min and s_max.
    aspect_ratios : tuple of float
    smallest : float or None
        The first map is so large that it gets three boxes only: a square one of this scale, and those of s_1 with the
        aspect ratios 2 and 1/2. None gives it the boxes of the others.

    Returns
    -------
    ndarray, shape (A, 4), float64
        Map by map, row by row, pixel by pixel, then in the order of the aspect ratios, the additional square last: the
        order of :class:`npnets.nn.Detector`.

    Raises
    ------
    ValueError
        If there is no map, or a size, scale or aspect ratio is not a finite number above 0.

    >>> len(default_boxes([20, 10, 5, 3, 2, 1]))  # 3 in each of 400 pixels, 6 in each of 139
    2034

    Notes
    -----
    The paper has s_max = 0.9; its first map has four boxes, without the ratios 3 and 1/3. Here it is as in the
    TensorFlow Object Detection API, with which the detectors of MobileNetV2 were trained.
    """
    sizes = [pair(size, "map_sizes") for size in sequence(map_sizes, "map_sizes", "sizes")]
    if not sizes:
        raise ValueError("map_sizes must hold the size of at least one map")
    scales, aspect_ratios = _positive(scales, "scales"), _positive(aspect_ratios, "aspect_ratios")
    if len(scales) != 2:
        raise ValueError(f"scales must be two numbers, the smallest and the largest scale, got {scales}")
    if smallest is not None:
        smallest = number(smallest, "smallest", above=0)
    s = [*np.linspace(*scales, len(sizes)), 1.0]
    found = []
    for k, size in enumerate(sizes):
        shapes = [(s[k], a) for a in aspect_ratios] + [(np.sqrt(s[k] * s[k + 1]), 1)]
        if k == 0 and smallest is not None:
            shapes = [(smallest, 1), (s[0], 2), (s[0], 1 / 2)]
        found.append(_in_every_pixel(size, shapes))
    return np.concatenate(found)


def _positive(values, name):
    return [number(value, name, above=0) for value in sequence(values, name, "numbers")]


def _in_every_pixel(size, shapes):
    H, W = size
    widths_and_heights = [(scale * np.sqrt(a), scale / np.sqrt(a)) for scale, a in shapes]
    boxes = np.empty((H, W, len(shapes), 4))
    boxes[..., 0] = ((np.arange(W) + 0.5) / W)[None, :, None]
    boxes[..., 1] = ((np.arange(H) + 0.5) / H)[:, None, None]
    boxes[..., 2:] = widths_and_heights
    return boxes.reshape(-1, 4)  # (H, W, a, 4) -> (H W a, 4)


def encode_boxes(boxes, anchors, *, scale=CODE_SCALE):
    """Return boxes as seen from their default boxes: what a detector learns to predict (SSD, equation 2).

    With the default box d: ``t_x = 10 (cx - d_cx) / d_w``, ``t_y = 10 (cy - d_cy) / d_h``, ``t_w = 5 log(w / d_w)``,
    ``t_h = 5 log(h / d_h)``. The factors are not in the paper, but in its code and that of TensorFlow.

    Parameters
    ----------
    boxes, anchors : ndarray, shapes (..., 4) that broadcast
    scale : four floats
        The factors.

    Returns
    -------
    ndarray, shape (..., 4)

    Raises
    ------
    ValueError
        If the last axis is not 4, the shapes do not broadcast, or a width or height is not above 0: it has no
        logarithm.
    """
    boxes, anchors = _boxes(boxes, "boxes", with_area=True), _boxes(anchors, "anchors", with_area=True)
    _check_fit(boxes, "boxes", anchors)
    centres = (boxes[..., :2] - anchors[..., :2]) / anchors[..., 2:]
    sizes = np.log(boxes[..., 2:] / anchors[..., 2:])
    return np.concatenate([centres, sizes], axis=-1) * _factors(scale, centres.dtype)


def decode_boxes(code, anchors, *, scale=CODE_SCALE):
    """Return the boxes of a code: the inverse of :func:`encode_boxes`.

    ``cx = d_cx + d_w t_x / 10``, ``cy = d_cy + d_h t_y / 10``, ``w = d_w exp(t_w / 5)``, ``h = d_h exp(t_h / 5)``.

    Parameters
    ----------
    code, anchors : ndarray, shapes (..., 4) that broadcast
        So that the codes (N, A, 4) of a batch go with anchors (A, 4).
    scale : four floats

    Returns
    -------
    ndarray, shape (..., 4)
        The exponents are cut off at ``LARGEST_LOG``, so that no box is infinite.

    Raises
    ------
    ValueError
        If the last axis is not 4, or the shapes do not broadcast.
    """
    anchors, code = _boxes(anchors, "anchors", with_area=True), _four(code, "code")
    _check_fit(code, "code", anchors)
    code = code / _factors(scale, anchors.dtype)
    centres = anchors[..., :2] + anchors[..., 2:] * code[..., :2]
    sizes = anchors[..., 2:] * np.exp(np.minimum(code[..., 2:], LARGEST_LOG))
    return np.concatenate([centres, sizes], axis=-1)


def corners(boxes):
    """Return ``(left, top, right, bottom)`` of each box.

    >>> corners(np.array([0.5, 0.5, 0.2, 0.4])).round(1).tolist()
    [0.4, 0.3, 0.6, 0.7]
    """
    boxes = _boxes(boxes, "boxes")
    half = boxes[..., 2:] / 2
    return np.concatenate([boxes[..., :2] - half, boxes[..., :2] + half], axis=-1)


def box_iou(a, b):
    """Return intersection over union (the Jaccard overlap) of every box of ``a`` with every box of ``b``.

    Parameters
    ----------
    a : ndarray, shape (A, 4)
    b : ndarray, shape (B, 4)

    Returns
    -------
    ndarray, shape (A, B)
        Between 0 (apart) and 1 (equal). Boxes without an area overlap with nothing.

    Raises
    ------
    ValueError
        If the shapes are others, or a width or height is negative.
    """
    a, b = _list_of_boxes(a, "a"), _list_of_boxes(b, "b")
    corners_a, corners_b = corners(a)[:, None], corners(b)[None]  # (A, 1, 4), (1, B, 4)
    upper_left = np.maximum(corners_a[..., :2], corners_b[..., :2])  # -> (A, B, 2)
    lower_right = np.minimum(corners_a[..., 2:], corners_b[..., 2:])
    shared = np.prod(np.maximum(lower_right - upper_left, 0), axis=-1)  # (A, B, 2) -> (A, B)
    union = np.prod(a[:, 2:], axis=-1)[:, None] + np.prod(b[:, 2:], axis=-1) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def match_boxes(truths, anchors, *, threshold=0.5):
    """Return which object each default box shall find (SSD, section 2.2, "Matching strategy").

    Each object gets the default box that overlaps most with it. Then every other default box gets the object that
    overlaps most with it, if by more than the threshold; the rest are background.

    Parameters
    ----------
    truths : ndarray, shape (G, 4)
        The boxes of the objects in an image; there may be none.
    anchors : ndarray, shape (A, 4)
    threshold : float
        Intersection over union.

    Returns
    -------
    ndarray of int, shape (A,)
        Index of the object, or -1 for background.

    Raises
    ------
    ValueError
        If the shapes are others, or the threshold is not between 0 and 1.

    Notes
    -----
    Where two objects have the same best default box, the one that overlaps more gets it and the other its next best;
    so every object is found by some box, as long as it overlaps with any that is left.
    """
    _check_share(threshold, "threshold")
    overlap = box_iou(truths, anchors)  # (G, A)
    G, A = overlap.shape
    matched = np.full(A, -1)
    if G and A:
        best = overlap.argmax(axis=0)
        enough = overlap.max(axis=0) > threshold
        matched[enough] = best[enough]
    left = overlap.copy()
    for _ in range(min(G, A)):
        g, k = np.unravel_index(left.argmax(), left.shape)
        if left[g, k] <= 0:
            break
        matched[k] = g
        left[g, :], left[:, k] = -1, -1
    return matched


def non_max_suppression(boxes, scores, *, threshold=0.45, limit=200):
    """Return which boxes to keep: the best ones, without those that overlap too much with a better one.

    Greedy: take the box with the highest score, drop all that overlap with it by more than the threshold, repeat. Do it
    for each class apart.

    Parameters
    ----------
    boxes : ndarray, shape (B, 4)
    scores : ndarray, shape (B,)
    threshold : float
        Intersection over union; 0.45 in SSD (section 2.2), 0.6 in the TensorFlow Object Detection API.
    limit : int
        Keep at most so many; 200 in SSD.

    Returns
    -------
    ndarray of int
        Indices of the boxes that are kept, the best one first. Among equal scores the first box is the better one.

    Raises
    ------
    ValueError
        If the shapes do not fit, a score is not a number, or a setting is out of range.
    """
    boxes = _list_of_boxes(boxes, "boxes")
    check_array("boxes", scores, "scores")
    if scores.shape != boxes.shape[:1]:
        raise ValueError(f"boxes: scores must have the shape {boxes.shape[:1]}, got {scores.shape}")
    scores = _real(scores, "scores")
    if np.isnan(scores).any():
        raise ValueError("boxes: scores hold a NaN, which is neither better nor worse than another")
    _check_share(threshold, "threshold")
    limit = integer(limit, "limit", 1)
    candidates, kept = np.argsort(-scores, kind="stable"), []
    while len(candidates) and len(kept) < limit:
        best, others = candidates[0], candidates[1:]
        kept.append(best)
        candidates = others[box_iou(boxes[best : best + 1], boxes[others])[0] <= threshold]
    return np.array(kept, int)


def _four(array, name):
    """Return numbers with a last axis of 4 as floating-point numbers, or raise ``ValueError``."""
    array = _real(array, name)
    if array.ndim == 0 or array.shape[-1] != 4:
        raise ValueError(f"boxes: {name} must have the shape (..., 4), got {array.shape}")
    return array


def _real(array, name):
    """Return real numbers as floating-point numbers, or raise ``ValueError``: minus an unsigned integer is large."""
    check_array("boxes", array, name)
    if array.dtype.kind not in "fiub":
        raise ValueError(f"boxes: {name} must hold real numbers, got dtype {array.dtype}")
    return array if array.dtype.kind == "f" else array.astype(np.float64)


def _factors(scale, dtype):
    factors = _positive(scale, "scale")
    if len(factors) != 4:
        raise ValueError(f"scale must be four numbers, a factor for each of a code, got {scale}")
    return np.array(factors, dtype)


def _check_fit(array, name, anchors):
    try:
        np.broadcast_shapes(array.shape, anchors.shape)
    except ValueError:
        raise ValueError(f"boxes: {name} {array.shape} and anchors {anchors.shape} do not fit together") from None


def _boxes(array, name, with_area=False):
    """Return boxes, or raise ``ValueError`` if one has a width or height below 0, or 0 where an area is needed."""
    array = _four(array, name)
    sizes = array[..., 2:]
    if not np.all(sizes > 0 if with_area else sizes >= 0):
        raise ValueError(f"boxes: width and height of {name} must be {'above' if with_area else 'at least'} 0")
    return array


def _list_of_boxes(array, name):
    array = _boxes(array, name)
    if array.ndim != 2:
        raise ValueError(f"boxes: {name} must have the shape (boxes, 4), got {array.shape}")
    return array


def _check_share(value, name):
    number(value, f"boxes: {name}", at_least=0, at_most=1)
