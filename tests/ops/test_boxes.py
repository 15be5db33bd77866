"""Boxes of object detection: by hand, against loops, round trips, and what is refused."""

import numpy as np
import pytest

from npnets.ops import boxes
from tests.oracles import assert_close


def drawn(rng, *shape):
    """Return random boxes of (cx, cy, w, h), all with an area."""
    return np.concatenate([rng.uniform(0, 1, (*shape, 2)), rng.uniform(0.05, 0.6, (*shape, 2))], axis=-1)


# Default boxes


def test_default_boxes_by_hand():
    """A map of 1 x 2 pixels with three boxes each, of the scales 0.1 and 0.2, and one of a single pixel with six."""
    root = np.sqrt(2), np.sqrt(3)
    first = [(0.1, 0.1), (0.2 * root[0], 0.2 / root[0]), (0.2 / root[0], 0.2 * root[0])]
    second = [(0.9, 0.9), (0.9 * root[0], 0.9 / root[0]), (0.9 / root[0], 0.9 * root[0])]
    second += [(0.9 * root[1], 0.9 / root[1]), (0.9 / root[1], 0.9 * root[1]), (np.sqrt(0.9), np.sqrt(0.9))]
    expected = [(cx, 0.5, w, h) for cx in (0.25, 0.75) for w, h in first] + [(0.5, 0.5, w, h) for w, h in second]
    assert_close("boxes", boxes.default_boxes([(1, 2), 1], scales=(0.2, 0.9)), np.array(expected), 1e-15)


def test_the_six_maps_of_320_pixels():
    """The scales are 0.2, 0.35, ... 0.95; the additional square lies between a scale and the next."""
    found = boxes.default_boxes([20, 10, 5, 3, 2, 1])
    assert found.shape == (3 * 400 + 6 * (100 + 25 + 9 + 4 + 1), 4) and found.dtype == np.float64
    starts = 1200 + 6 * np.cumsum([0, 100, 25, 9, 4])
    assert_close("squares", found[starts, 2], np.array([0.35, 0.5, 0.65, 0.8, 0.95]), 1e-15)
    between = np.sqrt([0.35 * 0.5, 0.5 * 0.65, 0.65 * 0.8, 0.8 * 0.95, 0.95])
    assert_close("additional squares", found[starts + 5, 3], between, 1e-15)
    assert_close("areas", np.prod(found[starts + 3, 2:], axis=-1), found[starts, 2] ** 2, 1e-15)
    assert_close("aspect ratios", found[starts + 4, 2] / found[starts + 4, 3], np.full(5, 1 / 3), 1e-14)


def test_pixels_come_row_by_row():
    found = boxes.default_boxes([(2, 3)], aspect_ratios=(2,), smallest=None)
    assert_close("one shape and a square", found[:2, 2:], [[0.2 * 2**0.5, 0.2 / 2**0.5], [0.2**0.5] * 2], 1e-15)
    centres = found[::2, :2]
    assert_close("centres", centres, [[x, y] for y in (1 / 4, 3 / 4) for x in (1 / 6, 3 / 6, 5 / 6)], 1e-15)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"map_sizes": []}, "map_sizes must hold the size of at least one map"),
        ({"map_sizes": [4, 0]}, "map_sizes must be at least 1, got 0"),
        ({"map_sizes": [(4, 4, 4)]}, "map_sizes must be an integer or a pair"),
        ({"map_sizes": [4], "scales": (0, 0.9)}, "scales must be above 0, got 0"),
        ({"map_sizes": [4], "aspect_ratios": (1, -2)}, "aspect_ratios must be above 0, got -2"),
        ({"map_sizes": 4}, "map_sizes must be a list of sizes, got 4"),
        ({"map_sizes": [4], "scales": 0.2}, "scales must be a list of numbers, got 0.2"),
        ({"map_sizes": [4], "scales": (0.2,)}, r"scales must be two numbers, .*, got \[0.2\]"),
        ({"map_sizes": [4], "scales": (0.2, np.nan)}, "scales must be a finite number, got nan"),
        ({"map_sizes": [4], "aspect_ratios": 2}, "aspect_ratios must be a list of numbers, got 2"),
        ({"map_sizes": [4], "aspect_ratios": (1, np.nan)}, "aspect_ratios must be a finite number, got nan"),
        ({"map_sizes": [4], "smallest": "x"}, "smallest must be a finite number, got 'x'"),
        ({"map_sizes": [4], "smallest": 0.0}, "smallest must be above 0, got 0.0"),
    ],
)
def test_default_boxes_refuse(arguments, message):
    with pytest.raises(ValueError, match=message):
        boxes.default_boxes(**arguments)


# Code


def test_code_by_hand():
    anchor = np.array([0.5, 0.4, 0.2, 0.1])
    box = np.array([0.52, 0.39, 0.2 * np.e, 0.1 / np.e])
    assert_close("code", boxes.encode_boxes(box, anchor), [10 * 0.1, 10 * -0.1, 5, -5], 1e-14)
    assert_close("without factors", boxes.encode_boxes(box, anchor, scale=(1, 1, 1, 1)), [0.1, -0.1, 1, -1], 1e-14)
    assert_close("no code is the default box", boxes.decode_boxes(np.zeros(4), anchor), anchor, 1e-15)


@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 1e-6), (np.float64, 1e-14)])
def test_decoding_undoes_encoding(dtype, tolerance, rng):
    truth, anchors = drawn(rng, 2, 7).astype(dtype), drawn(rng, 7).astype(dtype)  # a batch of two, the same anchors
    for scale in (boxes.CODE_SCALE, (3, 1, 7, 2)):
        code = boxes.encode_boxes(truth, anchors, scale=scale)
        assert code.dtype == dtype and code.shape == (2, 7, 4)
        again = boxes.decode_boxes(code, anchors, scale=scale)
        assert again.dtype == dtype
        assert_close("boxes", again, truth, tolerance)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_wild_prediction_gives_a_box_that_is_finite(dtype):
    anchor = np.array([0.5, 0.5, 0.2, 0.1], dtype)
    found = boxes.decode_boxes(np.array([0, 0, 1e4, -1e4], dtype), anchor)
    assert np.all(np.isfinite(found)) and found[2] == pytest.approx(0.2 * np.exp(10)) and found[3] == 0


# Overlap


IOU = {
    # what: two boxes, their intersection over union
    "the same": ((0.5, 0.5, 0.4, 0.2), (0.5, 0.5, 0.4, 0.2), 1),
    "apart": ((0.2, 0.2, 0.1, 0.1), (0.8, 0.8, 0.1, 0.1), 0),
    "apart in one direction": ((0.2, 0.5, 0.1, 0.9), (0.8, 0.5, 0.1, 0.9), 0),
    "side by side": ((0.25, 0.5, 0.5, 1), (0.75, 0.5, 0.5, 1), 0),
    "a quarter inside": ((0.5, 0.5, 1, 1), (0.5, 0.5, 0.5, 0.5), 1 / 4),
    "half shared": ((0.5, 0.5, 1, 1), (1, 0.5, 1, 1), 0.5 / 1.5),
    "shared along both": ((0, 0, 2, 2), (1, 0.5, 2, 2), 1.5 / 6.5),
    "a line": ((0.5, 0.5, 0, 1), (0.5, 0.5, 1, 1), 0),
    "two points": ((0.5, 0.5, 0, 0), (0.5, 0.5, 0, 0), 0),
}


@pytest.mark.parametrize("what", IOU)
def test_iou_by_hand(what):
    a, b, expected = (np.array(value, float) for value in IOU[what])
    for one, other in ((a, b), (b, a)):
        assert_close("iou", boxes.box_iou(one[None], other[None]), [[expected]], 1e-15)


def test_iou_of_all_pairs_equals_the_loops(rng):
    a, b = drawn(rng, 5), drawn(rng, 8)
    expected = np.zeros((5, 8))
    for i, (cx, cy, w, h) in enumerate(a):
        for j, (x, y, v, g) in enumerate(b):
            width = max(0, min(cx + w / 2, x + v / 2) - max(cx - w / 2, x - v / 2))
            height = max(0, min(cy + h / 2, y + g / 2) - max(cy - h / 2, y - g / 2))
            expected[i, j] = width * height / (w * h + v * g - width * height)
    assert_close("iou", boxes.box_iou(a, b), expected, 1e-14)
    assert boxes.box_iou(a[:0], b).shape == (0, 8) and boxes.box_iou(a, b[:0]).shape == (5, 0)


# Matching


def in_a_row(*lefts, width=1.0):
    """Return boxes of one width and height 1, by their left sides."""
    return np.array([(left + width / 2, 0.5, width, 1) for left in lefts], float).reshape(-1, 4)


def test_matching_by_hand():
    anchors = in_a_row(0.0, 0.5, 0.75, 3.0, 9.0)
    truths = in_a_row(0.25, 3.875)  # 3 / 5 with two and 1 / 3 with the third; 1 / 15 with the fourth
    assert boxes.match_boxes(truths, anchors).tolist() == [0, 0, -1, 1, -1]
    assert boxes.match_boxes(truths, anchors, threshold=0.3).tolist() == [0, 0, 0, 1, -1]
    assert boxes.match_boxes(truths, anchors, threshold=1.0).tolist() == [0, -1, -1, 1, -1]  # the first of the best


def test_a_default_box_with_two_objects_takes_the_one_that_overlaps_more():
    anchors = in_a_row(0.0)
    assert boxes.match_boxes(in_a_row(0.3, 0.1, 0.2), anchors, threshold=0.1).tolist() == [1]


def test_two_objects_with_the_same_best_box_are_both_found():
    anchors = in_a_row(0.0, 0.6, 5.0)
    truths = in_a_row(0.1, 0.05)  # both overlap most with the first; the second more so
    assert boxes.match_boxes(truths, anchors).tolist() == [1, 0, -1]


def test_the_threshold_itself_is_not_enough():
    anchors, truths = in_a_row(0.0, 0.0), in_a_row(0.0, width=0.5)  # overlap 1 / 2 with both
    assert boxes.match_boxes(truths, anchors, threshold=0.5).tolist() == [0, -1]


def test_without_objects_all_is_background_and_an_object_far_from_everything_is_found_by_none():
    anchors = in_a_row(0.0, 1.0)
    assert boxes.match_boxes(np.zeros((0, 4)), anchors).tolist() == [-1, -1]
    assert boxes.match_boxes(in_a_row(7.0), anchors).tolist() == [-1, -1]
    assert boxes.match_boxes(in_a_row(7.0), np.zeros((0, 4))).tolist() == []


# Non-maximum suppression


def test_suppression_by_hand():
    found = in_a_row(0.0, 0.2, 0.5, 3.0)
    scores = np.array([0.6, 0.9, 0.7, 0.1])  # the second: 0.8 / 1.2 with the first, 0.7 / 1.3 with the third
    assert boxes.non_max_suppression(found, scores).tolist() == [1, 3]
    assert boxes.non_max_suppression(found, scores, threshold=0.6).tolist() == [1, 2, 3]
    assert boxes.non_max_suppression(found, scores, threshold=0.6, limit=2).tolist() == [1, 2]
    assert boxes.non_max_suppression(found, scores, threshold=1.0).tolist() == [1, 2, 0, 3]
    assert boxes.non_max_suppression(in_a_row(0, 0, 0), np.ones(3)).tolist() == [0]  # among equals the first
    assert boxes.non_max_suppression(in_a_row(0, 0), np.ones(2), threshold=1.0).tolist() == [0, 1]
    assert boxes.non_max_suppression(np.zeros((0, 4)), np.zeros(0)).tolist() == []


def test_among_equal_scores_the_first_box_comes_first():
    scores = np.tile([0.25, 0.5], 100)
    kept = boxes.non_max_suppression(in_a_row(*range(200)), scores)
    assert kept.tolist() == [*range(1, 200, 2), *range(0, 200, 2)]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint64, np.int64, np.int8, np.float32])
def test_scores_may_have_any_dtype(dtype):
    """Of unsigned integers, minus 1 is the largest."""
    scores = np.array([0, 3, 1, 2], dtype)
    assert boxes.non_max_suppression(in_a_row(0, 2, 4, 6), scores).tolist() == [1, 3, 2, 0]
    assert boxes.non_max_suppression(in_a_row(0, 2), np.array([False, True])).tolist() == [1, 0]
    lowest = np.array([np.iinfo(np.int64).min, 0])
    assert boxes.non_max_suppression(in_a_row(0, 2), lowest).tolist() == [1, 0]


def test_suppression_equals_the_loops(rng):
    found, scores = drawn(rng, 40), rng.permutation(40) / 40
    for threshold in (0.0, 0.2, 0.5):
        kept = []
        for k in sorted(range(40), key=lambda k: -scores[k]):
            if all(boxes.box_iou(found[[k]], found[[better]])[0, 0] <= threshold for better in kept):
                kept.append(k)
        assert boxes.non_max_suppression(found, scores, threshold=threshold).tolist() == kept
        assert 1 < len(kept) < 40


# Misuse

FOUR, LIST = np.full((3, 4), 0.5), np.full((2, 4), 0.3)
NEGATIVE = np.array([[0.5, 0.5, -0.1, 0.2]])
MISUSES = {
    "a list": (lambda: boxes.box_iou([[0, 0, 1, 1]], FOUR), "a must be a NumPy array, got list"),
    "five numbers": (lambda: boxes.box_iou(FOUR, np.zeros((2, 5))), r"b must have the shape \(..., 4\), got \(2, 5\)"),
    "one box": (lambda: boxes.box_iou(FOUR[0], FOUR), r"a must have the shape \(boxes, 4\), got \(4,\)"),
    "a negative width": (lambda: boxes.box_iou(NEGATIVE, FOUR), "width and height of a must be at least 0"),
    "a box without an area": (lambda: boxes.encode_boxes(np.zeros(4), FOUR), "of boxes must be above 0"),
    "an anchor without an area": (lambda: boxes.decode_boxes(FOUR, np.zeros(4)), "of anchors must be above 0"),
    "a code of three": (lambda: boxes.decode_boxes(np.zeros(3), FOUR), r"code must have the shape \(..., 4\)"),
    "a threshold in percent": (lambda: boxes.match_boxes(FOUR, LIST, threshold=50), "threshold .* got 50"),
    "fewer scores": (lambda: boxes.non_max_suppression(FOUR, np.ones(2)), r"have the shape \(3,\), got \(2,\)"),
    "a word for a score": (
        lambda: boxes.non_max_suppression(FOUR, np.array(["a", "b", "c"])),
        "scores must hold real numbers, got dtype <U1",
    ),
    "complex boxes": (lambda: boxes.box_iou(FOUR + 0j, FOUR), "a must hold real numbers, got dtype complex128"),
    "other anchors": (
        lambda: boxes.encode_boxes(FOUR, LIST),
        r"boxes: boxes \(3, 4\) and anchors \(2, 4\) do not fit together",
    ),
    "a code for others": (
        lambda: boxes.decode_boxes(FOUR, LIST),
        r"boxes: code \(3, 4\) and anchors \(2, 4\) do not fit together",
    ),
    "two factors": (lambda: boxes.encode_boxes(FOUR, FOUR, scale=(10, 5)), r"scale must be four numbers, .*\(10, 5\)"),
    "one factor": (lambda: boxes.decode_boxes(FOUR, FOUR, scale=10), "scale must be a list of numbers, got 10"),
    "a threshold that is none": (lambda: boxes.match_boxes(FOUR, LIST, threshold="x"), "threshold must be a finite"),
    "no score": (lambda: boxes.non_max_suppression(FOUR, np.full(3, np.nan)), "scores hold a NaN"),
    "keep none": (lambda: boxes.non_max_suppression(FOUR, np.ones(3), limit=0), "limit must be at least 1, got 0"),
}


@pytest.mark.parametrize("misuse", MISUSES)
def test_misuse_is_named(misuse):
    call, message = MISUSES[misuse]
    with pytest.raises(ValueError, match=message):
        call()


def test_whole_numbers_are_taken_for_boxes_too():
    unit = np.array([[1, 1, 2, 2]])
    assert boxes.box_iou(unit, unit) == 1 and boxes.corners(unit).tolist() == [[0, 0, 2, 2]]
    assert boxes.encode_boxes(unit, unit).tolist() == [[0, 0, 0, 0]]
