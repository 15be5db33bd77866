"""The grids and pictures of kernels: that they show the windows of the ops, and can be drawn whatever the geometry."""

import io
import itertools

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.image import imread
from matplotlib.patches import Rectangle

from npnets import ops, plots
from npnets.plots.grids import PADDING, TARGET, WINDOW


def cells(ax):
    """Return (row, col) -> (colour, whether hatched) of the cells of a grid."""
    found = {}
    for patch in ax.patches:
        if isinstance(patch, Rectangle) and patch.get_width() == patch.get_height() == 1 and patch.get_fill():
            row, col = patch.get_y() + 0.5, patch.get_x() + 0.5
            found[round(row), round(col)] = to_hex(patch.get_facecolor()).upper(), bool(patch.get_hatch())
    return found


def filled(ax, colour=WINDOW):
    return {cell for cell, (ground, _) in cells(ax).items() if ground == colour.upper()}


def numbers(ax, shape):
    """Return the numbers that are written in the cells."""
    values = np.full(shape, np.nan)
    for text in ax.texts:
        col, row = text.get_position()
        values[row, col] = float(text.get_text().replace("\N{MINUS SIGN}", "-"))
    return values


def drawn(figure):
    """Draw the figure, and return how high and wide it is in pixels."""
    return imread(io.BytesIO(plots.png(figure))).shape[:2]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"padding": "valid"},
        {"stride": 2},
        {"stride": (1, 2), "padding": ((2, 0), (0, 1))},
        {"dilation": (1, 2)},
        {"stride": 2, "padding": "symmetric"},
    ],
)
def test_a_step_shows_the_pixels_that_the_op_multiplies(rng, settings):
    """Every filled pixel has an influence on the number, and no other has."""
    x, w = rng.integers(1, 9, (6, 5)), rng.integers(1, 9, (2, 3))
    kernel = w[:, :, None, None].astype(float)
    y, cache = ops.conv2d_forward(x[None, :, :, None].astype(float), kernel, **settings)
    k, l = y.shape[1] - 1, 0
    image, weights, output = plots.convolution_step(x, w, (k, l), **settings).axes
    dy = np.zeros_like(y)
    dy[0, k, l] = 1
    dx, _, _ = ops.conv2d_backward(dy, cache)
    inside = {cell for cell, (_, hatched) in cells(image).items() if not hatched}
    assert inside == set(np.ndindex(x.shape))
    assert filled(image) & inside == set(zip(*np.nonzero(dx[0, :, :, 0]), strict=True))
    assert len(filled(image)) == w.size and filled(weights) == set(np.ndindex(w.shape))
    assert filled(output, TARGET) == {(k, l)}
    assert (numbers(image, x.shape) == x).all() and (numbers(weights, w.shape) == w).all()
    assert numbers(output, y.shape[1:3]) == pytest.approx(y[0, :, :, 0])


@pytest.mark.parametrize(
    "x, w, at, padding, written",
    [
        ([[1, 2], [3, 4]], [[5, -6]], (1, 0), "valid", "G[1, 0]  =  5·3 - 6·4  =  -9"),
        ([[-1, 2]], [[5, 0.5]], (0, 0), "same", "G[0, 0]  =  5·(-1) + 0.5·2  =  -4"),
        ([[-1, 2]], [[5, 0.5]], (0, 1), "same", "G[0, 1]  =  5·2  =  10"),  # the window's second column is padding
    ],
)
def test_the_sum_below_a_step_is_written_out(x, w, at, padding, written):
    figure = plots.convolution_step(x, w, at, padding=padding)
    (found,) = [text.get_text() for text in figure.texts if "=" in text.get_text()]
    assert found.replace("\N{MINUS SIGN}", "-") == written


def test_a_place_outside_the_output_is_refused():
    with pytest.raises(ValueError, match=r"the output has 2x2 pixels, there is no \(0, 2\)"):
        plots.convolution_step(np.ones((4, 4)), np.ones((3, 3)), (0, 2), padding="valid")


def test_there_is_a_dot_for_every_output_and_padding_is_hatched():
    panels = {"SAME": {}, "stride": {"stride": 2, "padding": "valid"}, "dilation": {"dilation": 2, "padding": 2}}
    figure = plots.window_grids((7, 6), 3, panels, at=(1, 1))
    for ax, out, padding in zip(figure.axes, ((7, 6), (3, 2), (7, 6)), (1, 0, 2), strict=True):
        (dots,) = ax.get_lines()
        assert len(dots.get_xdata()) == out[0] * out[1]
        assert ax.get_title().endswith(f"7 x 6 to {out[0]} x {out[1]}")
        hatched = {cell for cell, (_, hatch) in cells(ax).items() if hatch}
        assert len(hatched) == (7 + 2 * padding) * (6 + 2 * padding) - 42
    first, second, third = (filled(ax) for ax in figure.axes)
    assert first == {(row, col) for row in (0, 1, 2) for col in (0, 1, 2)}
    assert second == {(row, col) for row in (2, 3, 4) for col in (2, 3, 4)}
    assert third == {(row, col) for row in (-1, 1, 3) for col in (-1, 1, 3)}


def test_the_dots_stand_in_the_middle_of_the_windows():
    (dots,) = plots.window_grids((4, 4), 3, {"SAME, stride 2": {"stride": 2}}).axes[0].get_lines()
    assert list(dots.get_xdata()) == [1, 3, 1, 3] and list(dots.get_ydata()) == [1, 1, 3, 3]
    (dots,) = plots.window_grids((4, 4), 2, {"even": {"padding": "valid"}}).axes[0].get_lines()
    assert sorted(set(dots.get_xdata())) == [0.5, 1.5, 2.5]


def test_the_neighbour_of_a_window_is_dashed():
    (ax,) = plots.window_grids((5, 5), 3, {"stride 2": {"stride": 2, "padding": "valid"}}).axes
    (outline,) = [patch for patch in ax.patches if not patch.get_fill()]
    assert (round(outline.get_x() + 0.42), round(outline.get_x() + outline.get_width() - 0.42)) == (2, 4)
    (ax,) = plots.window_grids((3, 3), 3, {"one window": {"padding": "valid"}}, at=(4, 4)).axes  # the last there is
    assert not [patch for patch in ax.patches if not patch.get_fill()] and len(filled(ax)) == 9


def test_rows_of_windows_show_the_odd_pixel_of_same():
    panels = {"SAME": {"stride": 2}, "symmetric": {"stride": 2, "padding": "symmetric"}, "given": {"padding": (0, 3)}}
    same, symmetric, given = plots.window_rows(6, 3, panels).axes
    assert filled(same) == {(k, 2 * k + j) for k in range(3) for j in range(3)}
    assert filled(symmetric) == {(k, 2 * k + j - 1) for k in range(3) for j in range(3)}
    assert [ax.get_title().splitlines()[1] for ax in (same, symmetric, given)] == [
        "pads 0 before, 1 after", "pads 1 before, 1 after", "pads 0 before, 3 after"]  # fmt: skip
    assert max(row for row, _ in filled(given)) == 6
    (dilated,) = plots.window_rows(7, 3, {"d": {"dilation": 2, "padding": "valid"}}).axes
    assert filled(dilated) == {(k, k + 2 * j) for k in range(3) for j in range(3)}


@pytest.mark.parametrize("settings", [{}, {"padding": "same"}, {"stride": 2, "padding": 1}, {"dilation": 2}])
def test_a_window_matrix_times_the_kernel_is_the_convolution(rng, settings):
    x, w = rng.integers(1, 9, (5, 6)), rng.standard_normal((3, 2))
    image, matrix = plots.window_matrix(x, (3, 2), **settings).axes
    settings = {"padding": "valid"} | settings
    y, _ = ops.conv2d_forward(x[None, :, :, None].astype(float), w[:, :, None, None], **settings)
    rows = numbers(matrix, (y[0].size, 6))
    assert (rows @ w.ravel()).reshape(y.shape[1:3]) == pytest.approx(y[0, :, :, 0])
    assert filled(matrix) == {(0, column) for column in range(6)} and len(filled(image)) == 6
    assert [label.get_text() for label in matrix.get_xticklabels()][:3] == ["0, 0", "0, 1", "1, 0"]


def test_larger_numbers_have_darker_cells():
    one, two = plots.number_grids({"a": np.array([[0, 1], [2, 4]]), "b": np.array([[-4, 0]])}).axes
    shade = {cell: plots.style.brightness(colour) for ax in (one,) for cell, (colour, _) in cells(ax).items()}
    assert shade[0, 0] == pytest.approx(1) and shade[0, 0] > shade[0, 1] > shade[1, 0] > shade[1, 1]
    assert cells(two)[0, 0] == cells(one)[1, 1]
    assert [text.get_color() for text in one.texts] == ["black", "black", "black", "white"]
    drawn(plots.number_grids({"zeros": np.zeros((2, 2))}))


def test_cells_have_one_size_and_axes_have_names(rng):
    figures = [
        plots.convolution_step(rng.integers(0, 9, (5, 5)), np.ones((3, 3)), (0, 0)),
        plots.window_grids((7, 7), 3, {f"dilation {d}": {"dilation": d} for d in (1, 2, 3)}),
        plots.window_rows(9, 3, {"SAME": {}, "valid": {"padding": "valid"}}, title="a title"),
        plots.window_matrix(np.arange(16).reshape(4, 4), 3),
    ]
    for figure in figures:
        height, width = drawn(figure)
        assert width <= 12.5 * 150 and height > 150
        sizes = []
        for ax in figure.axes:
            assert ax.get_xlabel() and ax.get_ylabel() and ax.get_title()
            box = ax.get_window_extent()
            sizes += [box.width / abs(np.diff(ax.get_xlim())[0]), box.height / abs(np.diff(ax.get_ylim())[0])]
        assert sizes == pytest.approx(sizes[:1] * len(sizes))
        assert_apart(figure)


def assert_apart(figure):
    """The axes stand beside each other, with their names between them, and inside the figure."""
    boxes = [ax.get_tightbbox() for ax in figure.axes]
    assert all(one.x1 < other.x0 for one, other in itertools.pairwise(boxes))
    width, height = figure.get_size_inches() * figure.dpi
    assert boxes[0].x0 >= 0 and boxes[-1].x1 <= width
    assert all(0 <= box.y0 < box.y1 <= height for box in boxes)


def test_padding_and_windows_differ_in_grey_too():
    brightness = [plots.style.brightness(colour) for colour in ("white", PADDING, WINDOW)]
    assert brightness[0] > brightness[1] > brightness[2] + 0.2


# --- Kernels and matrices ---------------------------------------------------------------------------------------------


def images(figure):
    return [image for ax in figure.axes for image in ax.get_images()]


def test_tiles_share_a_symmetric_scale(rng):
    rows = {"a": rng.standard_normal((4, 3, 3)), "b": 5 * rng.standard_normal((2, 3, 3))}
    figure = plots.kernel_tiles(rows, label="weight of the kernel")
    largest = np.abs(rows["b"]).max()
    tiles = [image for image in images(figure) if image.get_array().shape == (3, 3)]
    assert {image.get_clim() for image in tiles} == {(-largest, largest)} and len(tiles) == 6
    assert (tiles[4].get_array() == rows["b"][0]).all()
    assert [ax.get_ylabel() for ax in figure.axes if ax.get_ylabel()] == ["a", "b", "weight of the kernel"]
    assert drawn(figure)[1] > 500


def test_tiles_can_have_scales_of_their_own_and_colours(rng):
    photograph = rng.uniform(0, 1, (8, 8, 3))
    figure = plots.kernel_tiles({"x": [photograph, np.zeros((4, 4))], "y": [rng.uniform(0, 9, (4, 4))]}, shared=False)
    first, zeros, last = images(figure)
    assert (first.get_array() == photograph).all() and zeros.get_clim() == (-1, 1)
    assert last.get_clim()[1] == last.get_array().max()
    assert not [ax for ax in figure.axes if ax.get_label() == "<colorbar>"]
    drawn(figure)


def test_an_equation_of_matrices_has_cells_of_one_size(rng):
    left, right = rng.standard_normal((6, 3)), rng.standard_normal((3, 4))
    left[:3, 1:] = np.nan
    product, names = np.nan_to_num(left) @ right, ("rows", "columns")
    parts = [("W", product, names), "=", ("B", left, names), "·", ("P", right, names)]
    figure = plots.matrix_equation(parts, title="a product")
    assert [ax.get_title() for ax in figure.axes] == ["W", "B", "P"]
    assert {"=", "·"} <= {text.get_text() for text in figure.texts}
    drawn(figure)
    boxes = [ax.get_position(original=True).transformed(figure.transFigure) for ax in figure.axes]  # before the aspect
    sizes = [box.width / width for box, width in zip(boxes, (4, 3, 4), strict=True)]
    sizes += [box.height / height for box, height in zip(boxes, (6, 6, 3), strict=True)]
    assert sizes == pytest.approx(sizes[:1] * 6)
    assert_apart(figure)
    missing, shown = figure.axes[1].get_images()
    assert (missing.get_array() == np.isnan(left)).all() and shown.get_array().mask.sum() == 6
    assert len({image.get_clim() for ax in figure.axes for image in ax.get_images()[1:]}) == 1


def test_the_figures_use_no_global_state(rng):
    import matplotlib

    before = dict(matplotlib.rcParams)
    drawn(plots.window_grids((5, 5), 3, {"SAME": {}}))
    drawn(plots.kernel_tiles({"a": rng.standard_normal((2, 3, 3))}))
    drawn(plots.matrix_equation([("W", np.eye(3), ("m", "n"))]))
    assert dict(matplotlib.rcParams) == before
