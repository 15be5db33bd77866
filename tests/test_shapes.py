"""Padding, output sizes and channel rounding, against counting and against the papers' numbers; checks of settings."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npnets import shapes

sizes, kernels, strides, dilations = st.integers(1, 40), st.integers(1, 7), st.integers(1, 4), st.integers(1, 3)


def places(size, kernel, stride, pads, dilation):
    """Count by trying: at which starts does every pixel of the window lie inside the padded image?"""
    padded = size + sum(pads)
    return sum(start + (kernel - 1) * dilation < padded for start in range(0, padded, stride))


@given(sizes, kernels, strides, st.tuples(st.integers(0, 4), st.integers(0, 4)), dilations)
def test_output_size_counts_the_windows_that_fit(size, kernel, stride, pads, dilation):
    if size + sum(pads) >= (kernel - 1) * dilation + 1:
        assert shapes.output_size(size, kernel, stride, pads, dilation) == places(size, kernel, stride, pads, dilation)


@given(sizes, kernels, strides, dilations)
def test_same_padding_is_the_least_that_gives_ceil_of_size_over_stride(size, kernel, stride, dilation):
    before, after = shapes.same_padding(size, kernel, stride, dilation)
    out = int(np.ceil(size / stride))
    assert shapes.output_size(size, kernel, stride, (before, after), dilation) == out
    assert after - before in (0, 1)  # the odd pixel goes after
    if before + after:
        least = before + after - 1
        assert size + least < (kernel - 1) * dilation + 1 or places(size, kernel, stride, (0, least), dilation) < out


@pytest.mark.parametrize(
    "size, kernel, stride, pads",
    [
        (224, 3, 2, (0, 1)),
        (224, 5, 2, (1, 2)),
        (224, 3, 1, (1, 1)),
        (225, 3, 2, (1, 1)),
        (7, 3, 2, (1, 1)),
        (4, 1, 2, (0, 0)),
    ],
)
def test_same_padding_of_known_layers(size, kernel, stride, pads):
    assert shapes.same_padding(size, kernel, stride) == pads


def test_a_stride_larger_than_the_kernel_needs_no_padding():
    assert shapes.same_padding(5, kernel=1, stride=3) == (0, 0)


@pytest.mark.parametrize(
    "padding, pads",
    [
        ("same", ((0, 1), (0, 1))),
        ("symmetric", ((1, 1), (2, 2))),
        ("valid", ((0, 0), (0, 0))),
        (2, ((2, 2), (2, 2))),
        (np.int64(2), ((2, 2), (2, 2))),
        (((1, 0), (3, 2)), ((1, 0), (3, 2))),
        ([[1, 0], [3, 2]], ((1, 0), (3, 2))),
    ],
)
def test_every_way_to_write_padding(padding, pads):
    geo = shapes.geometry((8, 8), (3, 4), stride=(2, 3), padding=padding, dilation=1)
    if padding == "same":  # 8 / 2 = 4 rows: (4 - 1) 2 + 3 - 8 = 1; ceil(8 / 3) = 3 columns: (3 - 1) 3 + 4 - 8 = 2
        pads = ((0, 1), (1, 1))
    assert geo.pads == pads


def test_symmetric_padding_follows_the_dilated_kernel():
    assert shapes.geometry((9, 9), (3, 5), padding="symmetric", dilation=2).pads == ((2, 2), (4, 4))


def test_geometry_is_resolved_to_pairs():
    geo = shapes.geometry((10, 7), (3, 2), stride=2, padding=((1, 0), (0, 1)), dilation=(1, 3))
    assert geo == ((3, 2), (2, 2), (1, 3), ((1, 0), (0, 1)), ((10 + 1 - 3) // 2 + 1, (7 + 1 - 4) // 2 + 1))


BAD = {
    "stride 0": ({"stride": 0}, "layer: stride must be at least 1, got 0"),
    "a float": ({"stride": 2.0}, "layer: stride must be an integer, got 2.0"),
    "a triple": ({"dilation": (1, 1, 1)}, "layer: dilation must be an integer or a pair"),
    "a string": ({"dilation": "2"}, "layer: dilation must be an integer, got '2'"),
    "negative": ({"padding": -1}, "padding must be at least 0, got -1"),
    "negative on one side": ({"padding": ((0, 0), (0, -3))}, "padding must be at least 0, got -3"),
    "unknown": ({"padding": "SAME"}, "got 'SAME'"),
    "one pair": ({"padding": (1, 1)}, r"got \(1, 1\)"),
    "too small an image": ({"padding": "valid"}, "layer: a 5x3 kernel .* image of 4x6 pixels"),
    "too small for the dilation": ({"padding": 1, "dilation": (2, 1)}, r"dilation \(2, 1\) does not fit"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_settings_are_named(what):
    settings, message = BAD[what]
    with pytest.raises(ValueError, match=message):
        shapes.geometry((4, 6), (5, 3), name="layer", **settings)


def test_integers_may_be_numpy_integers():
    assert shapes.pair(np.int32(3), "stride") == (3, 3)
    assert shapes.pair((np.uint8(1), 2), "stride") == (1, 2)
    assert shapes.integer(np.int64(0), "padding", 0) == 0


def test_mobilenet_v1_channels():
    """TF-slim's ``max(int(d * alpha), 8)``: no rounding to a multiple of 8."""
    assert [shapes.scale_channels(c, 0.75) for c in (32, 64, 1024)] == [24, 48, 768]
    assert [shapes.scale_channels(c, 0.25) for c in (32, 64, 1024)] == [8, 16, 256]
    assert shapes.scale_channels(32, 0.35) == 11


def test_mobilenet_v2_channels():
    """Table 2 at width 0.35, as the published weights have it."""
    published = {32: 16, 16: 8, 24: 8, 64: 24, 96: 32, 160: 56, 320: 112}
    assert {c: shapes.round_channels(0.35 * c) for c in published} == published
    assert [shapes.round_channels(1.4 * c) for c in (32, 16, 24, 64, 96, 160, 320)] == [48, 24, 32, 88, 136, 224, 448]


@given(st.floats(1, 3000))
def test_rounded_channels_are_near_and_never_ten_percent_too_few(channels):
    rounded = shapes.round_channels(channels)
    assert rounded % 8 == 0 and rounded >= 8
    assert rounded >= 0.9 * channels
    assert rounded <= channels + 8


def test_efficientnet_repeats():
    """B0's repeats 1 2 2 3 3 4 1 scaled by B1's depth 1.1 and B7's 3.1."""
    assert [shapes.round_repeats(n, 1.1) for n in (1, 2, 2, 3, 3, 4, 1)] == [2, 3, 3, 4, 4, 5, 2]
    assert [shapes.round_repeats(n, 3.1) for n in (1, 2, 2, 3, 3, 4, 1)] == [4, 7, 7, 10, 10, 13, 4]


V2_STRIDES = [2, 1, 2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1]  # stem and 17 bottlenecks


@pytest.mark.parametrize(
    "output_stride, strides, rates",
    [(None, 32, {1}), (32, 32, {1}), (16, 16, {1, 2}), (8, 8, {1, 2, 4})],
)
def test_atrous_strides_stop_at_the_output_stride(output_stride, strides, rates):
    found = shapes.atrous_strides(V2_STRIDES, output_stride)
    assert np.prod([s for s, _ in found]) == strides and {rate for _, rate in found} == rates
    assert len(found) == len(V2_STRIDES)


def test_a_layer_that_lost_its_stride_still_sees_neighbouring_pixels():
    """Its input is not thinned out yet; that of the layers after it would have been."""
    found = shapes.atrous_strides(V2_STRIDES, 16)
    assert found[14:] == [(1, 1), (1, 2), (1, 2), (1, 2)]
    assert shapes.atrous_strides(V2_STRIDES, 8)[7:] == [(1, 1), *[(1, 2)] * 7, *[(1, 4)] * 3]


@pytest.mark.parametrize("value", [4, 12, 0, "16", 16.5, True, -8])
def test_only_three_output_strides_exist(value):
    with pytest.raises(ValueError, match="output_stride must be 8, 16 or 32"):
        shapes.check_output_stride(value)
    assert [shapes.check_output_stride(good) for good in (8, 16, 32, None)] == [8, 16, 32, None]


def test_an_output_stride_must_be_among_the_strides():
    with pytest.raises(ValueError, match="output_stride 8 cannot be reached: the strides go from 6 to 12"):
        shapes.atrous_strides([3, 2, 2, 2], 8)
    with pytest.raises(ValueError, match=r"output_stride 32 cannot be reached: the strides go to 8$"):
        shapes.atrous_strides([2, 2, 2], 32)
    assert shapes.atrous_strides([2, 2, 2], 8) == [(2, 1)] * 3


# Checks of settings

NOT_NUMBERS = ["x", None, True, [1], np.nan, np.inf, -np.inf, 1j, 10**400]
REFUSED = {
    "a word for a yes": (lambda: shapes.boolean("off", "flag"), "flag must be True or False, got 'off'"),
    "a number for a yes": (lambda: shapes.boolean(1, "flag"), "flag must be True or False, got 1"),
    "a yes for a number": (lambda: shapes.integer(True, "stem", 1), "stem must be an integer, got True"),
    "too low": (lambda: shapes.number(-1, "eps", at_least=0), "eps must be at least 0, got -1"),
    "the excluded end": (lambda: shapes.number(0, "p", above=0, at_most=1), "p must be above 0 and at most 1, got 0"),
    "the other one": (lambda: shapes.number(1, "p", at_least=0, below=1), "p must be at least 0 and below 1, got 1"),
    "a word": (lambda: shapes.choice("d", "way", ("a", "b", "c")), """way must be "a", "b" or "c", got 'd'"""),
    "a list of words": (lambda: shapes.choice(["a"], "way", {"a": 1, "b": 2}), """way must be "a" or "b", got ['a']"""),
    "an array": (lambda: shapes.choice(np.arange(2), "way", ("a", "b")), 'way must be "a" or "b", got array([0, 1])'),
    "too wide": (lambda: shapes.multiplier(1e30, "width"), "width must be at most 1000, got 1e+30"),
    "an infinite width": (lambda: shapes.multiplier(np.inf, "w"), "w must be a finite number above 0, got inf"),
    "a number for several": (lambda: shapes.integers(5, "rates"), "rates must be a list of integers, got 5"),
    "letters": (lambda: shapes.sequence("blocks.3", "taps", "paths"), "taps must be a list of paths, got 'blocks.3'"),
    "one of several": (lambda: shapes.integers((1, 2.5), "rates"), "rates must be an integer, got 2.5"),
    "no table": (lambda: shapes.table_rows(None, "s, c"), "table must be a list of rows (s, c), got None"),
    "an empty table": (lambda: shapes.table_rows([], "s, c"), "table must have at least one row (s, c)"),
    "a row too short": (lambda: shapes.table_rows([(1,)], "s, c"), "table: every row must be (s, c), got (1,)"),
    "a column": (lambda: shapes.table_rows([(1, 0)], "s, c"), "table: c must be at least 1, got 0"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused_is_told_in_one_sentence(what):
    call, message = REFUSED[what]
    with pytest.raises(ValueError) as error:
        call()
    assert str(error.value) == message


@pytest.mark.parametrize("value", NOT_NUMBERS)
def test_a_number_is_finite_and_no_boolean(value):
    for check in (shapes.number, shapes.multiplier):
        with pytest.raises(ValueError, match=r"^p must be a finite number"):
            check(value, "p")


def test_what_is_accepted():
    assert shapes.boolean(np.bool_(False), "flag") is False and shapes.boolean(True, "flag") is True
    found = [shapes.number(value, "p", at_least=0, at_most=1) for value in (0, 1, np.float32(0.5), np.int64(1))]
    assert found == [0, 1, 0.5, 1] and {type(value) for value in found} == {float}
    assert shapes.multiplier(1000, "width") == 1000 and shapes.choice("a", "way", "ab") == "a"
    assert shapes.integers(np.array([1, 2]), "rates") == shapes.integers(iter((1, 2)), "rates") == (1, 2)
    assert shapes.integers((), "rates") == ()


NOT_DTYPES = ["foo", "int8", int, str, "complex64", None, np.float16, ">f4", "f4,,", 3, [("a", "f4")]]


@pytest.mark.parametrize("dtype", NOT_DTYPES)
def test_two_dtypes_exist(dtype):
    with pytest.raises(ValueError, match=r"^dtype must be float32 or float64, got "):
        shapes.floating(dtype)
    accepted = ("float32", np.float64, float, np.dtype("f4"))
    assert [str(shapes.floating(good)) for good in accepted] == ["float32", "float64", "float64", "float32"]


def test_a_table_may_be_an_iterator():
    assert shapes.table_rows(iter([(1, 2), [3, 4]]), "s, c") == [(1, 2), (3, 4)]
