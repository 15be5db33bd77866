"""Printed numbers: what they say, and when a computed one gives them."""

import pytest

from npnets.cost.printed import WAYS, difference, is_close, parse


def fits(way, number, text):
    return WAYS[way].fits(number, parse(text))


@pytest.mark.parametrize(
    "text, value, last_digit",
    [("569M", 569e6, 1e6), ("4.2M", 4.2e6, 1e5), ("1.25B", 1.25e9, 1e7), ("94.86%", 0.9486, 1e-4), ("12K", 12e3, 1e3)],
)
def test_a_printed_number_has_a_value_and_a_last_digit(text, value, last_digit):
    number = parse(text)
    assert (number.value, number.last_digit) == (pytest.approx(value), pytest.approx(last_digit))
    assert number.text == text


@pytest.mark.parametrize("text", ["", "M", "4,2M", "4.M", ".5B", "569 M", "5e6", "-3M", "12G"])
def test_what_is_no_printed_number_is_refused(text):
    with pytest.raises(ValueError, match="is not a printed number"):
        parse(text)


def test_rounding_reaches_half_a_digit_to_both_sides():
    assert all(fits("", number, "4.2M") for number in (4.15e6, 4.2e6, 4.25e6))
    assert not any(fits("", number, "4.2M") for number in (4.1499e6, 4.2501e6))


def test_cutting_off_reaches_a_whole_digit_up():
    assert all(fits("cut_off", number, "300M") for number in (300e6, 300.77e6, 300.999e6))
    assert not any(fits("cut_off", number, "300M") for number in (299.9e6, 301e6))


def test_rounding_twice_takes_up_what_rounding_once_leaves():
    assert fits("rounded_twice", 149.497e6, "150M") and not fits("", 149.497e6, "150M")
    assert not fits("rounded_twice", 149.44e6, "150M") and not fits("rounded_twice", 150.6e6, "150M")


def test_close_is_0_4_percent_to_both_sides():
    assert is_close(1003.9, parse("1000")) and is_close(996.1, parse("1000"))
    assert not is_close(1004.1, parse("1000")) and not is_close(995.9, parse("1000"))


def test_the_difference_is_relative_to_the_printed_number():
    assert difference(582.2e6, parse("585M")) == pytest.approx(-0.00479, abs=1e-5)


@pytest.mark.parametrize(
    "printed, number, shown",
    [
        ("4.2M", 4231976, "4.232M"),
        ("569M", 568740352, "568.74M"),
        ("1.25B", 1252456960, "1.2525B"),
        ("0.02%", 0.000204, "0.0204%"),
        ("4870.6B", 4870.61234e9, "4,870.612B"),
    ],
)
def test_a_computed_number_is_shown_in_the_printed_unit_with_two_more_digits(printed, number, shown):
    assert parse(printed).in_its_unit(number) == shown
