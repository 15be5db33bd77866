"""Images as long rows, and the sums of their channels."""

import numpy as np
import pytest

from npnets.ops.rows import LONG_ROW, along_row, channel_sums, repeated, rows_of


@pytest.mark.parametrize(
    "shape, expected",
    [
        ((5, 32, 32, 96), (5 * 16, 2 * 32 * 96)),  # two lines are long enough
        ((5, 28, 28, 96), (5 * 7, 4 * 28 * 96)),  # three would be, but do not divide 28
        ((5, 7, 7, 16), (5, 7 * 7 * 16)),  # whole images where these are short: a row stays inside its image
        ((5, 13, 40, 20), (5, 13 * 40 * 20)),  # a prime height
        ((5, 4, 100, 64), (20, 100 * 64)),  # a line is long enough
        ((5, 7, 3), (5, 21)),
        ((5, 3), (5, 3)),
    ],
)
def test_a_row_is_whole_lines_of_one_image(shape, expected):
    assert rows_of(np.empty(shape)).shape == expected


def test_rows_are_a_view():
    x = np.zeros((2, 8, 9, 3))
    rows_of(x)[...] = 1
    assert x.all()


def test_a_vector_meets_its_channel_in_every_pixel(rng):
    x, vector = rng.standard_normal((3, 4, 5, 7)), rng.standard_normal(7)
    rows = rows_of(x)
    np.testing.assert_array_equal((rows * along_row(vector, rows)).reshape(x.shape), x * vector)
    np.testing.assert_array_equal(repeated(vector, 6), np.tile(vector, 6))


@pytest.mark.parametrize("pixels", [1, 7, 12, 784])
def test_channel_sums_add_up_the_pixels_of_each_channel(pixels, rng):
    rows = rng.standard_normal((2, pixels * 3))
    expected = rows.reshape(2, pixels, 3).sum(axis=1)
    np.testing.assert_allclose(channel_sums(rows, 3), expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(channel_sums(rows[0], 3), expected[0], rtol=1e-12, atol=1e-12)


def test_channel_sums_of_many_float32_keep_their_digits():
    """Added one after the other, 3,072 thirds lose a digit more."""
    pixels = LONG_ROW // 2
    row = np.full(pixels * 2, np.float32(1 / 3))
    exact = np.float64(np.float32(1 / 3)) * pixels
    np.testing.assert_allclose(channel_sums(row, 2), exact, rtol=2e-6)
    naive = row.reshape(-1, 2).sum(axis=0)
    assert abs(naive - exact).max() > 5 * abs(channel_sums(row, 2) - exact).max()
