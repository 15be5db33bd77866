"""Parameters and multiply-adds against the papers' numbers and against a count of one's own.

Totals are exact. Tables are printed in millions: where a printed number does not reproduce, the test says why.
"""

import math
import tracemalloc

import numpy as np
import pytest

from npnets import cost, models, nn
from npnets.models import mobilenet_v1, mobilenet_v2
from npnets.shapes import scale_channels
from tests.nn import CASES

V1_TABLE = [(1, 64), (2, 128), (1, 128), (2, 256), (1, 256), (2, 512), *[(1, 512)] * 5, (2, 1024), (1, 1024)]
V2_TABLE = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]


def profile(model, pixels=224):
    return cost.profile(model, (pixels, pixels, 3))


def millions(number):
    return number / 1e6


def rng():
    return np.random.default_rng(0)


# Golden totals


def test_mobilenet_v1():
    total = profile(mobilenet_v1())
    assert (total.params, total.macs) == (4_231_976, 568_740_352)


def test_mobilenet_v2():
    total = profile(mobilenet_v2())
    assert (total.params, total.macs) == (3_504_872, 300_774_272)


V2_GRID = {  # TF-slim: millions of multiply-adds, cut off, at 224, 192, 160, 128, 96 pixels; parameters without BN
    1.4: ([582], 6.06),
    1.3: ([509], 5.34),
    1.0: ([300, 221, 154, 99, 56], 3.47),
    0.75: ([209, 153, 107, 69, 39], 2.61),
    0.5: ([97, 71, 50, 32, 18], 1.95),
    0.35: ([59, 43, 30, 20, 11], 1.66),
}


@pytest.mark.parametrize("width_mult", V2_GRID)
def test_the_published_grid_of_v2_reproduces_whole(width_mult):
    macs, params = V2_GRID[width_mult]
    totals = [profile(mobilenet_v2(width_mult=width_mult), pixels) for pixels in (224, 192, 160, 128, 96)]
    assert [int(millions(total.macs)) for total in totals][: len(macs)] == macs
    assert {round(millions(total.params_without_bn), 2) for total in totals} == {params}


V1_GRID = {  # TF-slim: millions of multiply-adds at 224, 192, 160, 128 pixels
    1.0: [569, 418, 291, 186],
    0.75: [317, 233, 162, 104],
    0.5: [150, 110, 77, 49],
    0.25: [41, 34, 21, 14],
}


def v1_grid(width_mult, **settings):
    totals = [profile(mobilenet_v1(width_mult=width_mult, **settings), pixels) for pixels in (224, 192, 160, 128)]
    return [millions(total.macs) for total in totals]


def as_printed(macs):
    """149.497 is printed as 150: rounded to a decimal first."""
    return [math.floor(round(number, 1) + 0.5) for number in macs]


def test_the_published_grid_of_v1_and_what_does_not_reproduce():
    for width_mult in (1.0, 0.5):
        assert as_printed(v1_grid(width_mult)) == V1_GRID[width_mult]
    assert as_printed(v1_grid(0.25)) == [41, 30, 21, 14]  # 34 is printed for 30 at 192 pixels
    assert [round(number, 1) for number in v1_grid(0.75)] == [325.4, 239.3, 166.4, 106.8]  # printed: 317 233 162 104


def test_the_rest_of_v1s_grid_needs_a_first_layer_of_16_channels():
    """That is neither 0.75 nor 0.25 times 32: a slip of the published table."""
    assert scale_channels(22, 0.75) == scale_channels(64, 0.25) == 16
    assert as_printed(v1_grid(0.75, stem=22)) == V1_GRID[0.75]
    assert as_printed(v1_grid(0.25, stem=64))[1] == V1_GRID[0.25][1] == 34


def test_section_3_of_v1():
    """Width: 325, 149, 41 M and 2.6, 1.3, 0.5 M parameters. Resolution: 418, 290, 186 M."""
    totals = [profile(mobilenet_v1(width_mult=alpha)) for alpha in (0.75, 0.5, 0.25)]
    assert [round(millions(total.macs)) for total in totals] == [325, 149, 41]
    assert [round(millions(total.params), 1) for total in totals] == [2.6, 1.3, 0.5]
    assert [int(millions(profile(mobilenet_v1(), pixels).macs)) for pixels in (192, 160, 128)] == [418, 290, 186]


def test_shallow_mobilenet_v1():
    """The five 14 x 14 x 512 blocks removed: 307 M, 2.9 M."""
    total = profile(mobilenet_v1(table=V1_TABLE[:6] + V1_TABLE[11:]))
    assert (round(millions(total.macs)), round(millions(total.params), 1)) == (307, 2.9)


def test_conv_mobilenet():
    """Every depthwise separable pair replaced by one 3x3 convolution: 4866 M (the classifier left out), 29.3 M."""
    layers, C = [nn.Conv2d(3, 32, 3, stride=2, rng=rng())], 32
    for s, c in V1_TABLE:
        layers.append(nn.Conv2d(C, c, 3, stride=s, rng=rng()))
        C = c
    total = profile(nn.Sequential(*layers, nn.GlobalAvgPool(), nn.Linear(C, 1000, rng=rng())))
    assert round(millions(total.macs - C * 1000)) == 4866
    assert round(millions(total.params), 1) == 29.3


def test_what_the_layer_types_of_v1_cost():
    """The paper prints 1.19 for the 3x3 convolution: 1.91 with two digits swapped, as the sum of the column shows.

    The parameters are counted without batch norm and bias, as there.
    """
    rows = [row for row in profile(mobilenet_v1()).rows if row.macs]
    macs = sum(row.macs for row in rows)
    weights = sum(row.params for row in rows) - 1000
    shares = {kind: [0, 0] for kind in ("pointwise", "depthwise", "conv", "linear")}
    for row in rows:
        shares[row.kind][0] += 100 * row.macs / macs
        shares[row.kind][1] += 100 * (row.params - (1000 if row.kind == "linear" else 0)) / weights
    assert {kind: tuple(round(share, 2) for share in both) for kind, both in shares.items()} == {
        "pointwise": (94.86, 74.59),
        "depthwise": (3.06, 1.06),
        "conv": (1.91, 0.02),
        "linear": (0.18, 24.33),
    }
    assert round(94.86 + 3.06 + 1.19 + 0.18, 2) == 99.29


def test_shares_by_kind():
    total = profile(mobilenet_v1())
    shares = total.shares()
    assert list(shares) == ["pointwise", "depthwise", "conv", "linear", "batch norm"]
    assert shares["pointwise"][0] == pytest.approx(0.948574, abs=1e-6)
    assert shares["batch norm"] == (0, pytest.approx(21_888 / 4_231_976))
    assert [sum(column) for column in zip(*shares.values())] == pytest.approx([1, 1])
    assert cost.profile(nn.ReLU(), (3, 3, 2)).shares() == {}  # layers that cost nothing are left out


LAYER = {  # the 14 x 14 x 512 layer, shrunk step by step: millions of multiply-adds and parameters
    "full": (lambda: [nn.Conv2d(512, 512, 3, rng=rng())], 14, 512, 462, 2.36),
    "separable": (lambda: separable(512), 14, 512, 52.3, 0.27),
    "alpha 0.75": (lambda: separable(384), 14, 384, 29.6, 0.15),
    "rho 0.714": (lambda: separable(384), 10, 384, 15.1, 0.15),
}


def separable(C):
    return [nn.DepthwiseConv2d(C, 3, rng=rng()), nn.PointwiseConv2d(C, C, rng=rng())]


@pytest.mark.parametrize("step", LAYER)
def test_the_layer_of_section_3_4(step):
    layers, pixels, C, macs, params = LAYER[step]
    total = cost.profile(nn.Sequential(*layers()), (pixels, pixels, C))
    assert float(f"{millions(total.macs):.3g}") == macs
    assert round(millions(total.params), 2) == params


def test_separable_costs_one_nth_plus_one_ninth():
    """Section 3.1: ``1 / N + 1 / D_K^2``."""
    full, pair = (cost.profile(nn.Sequential(*LAYER[step][0]()), (14, 14, 512)).macs for step in ("full", "separable"))
    assert pair / full == pytest.approx(1 / 512 + 1 / 9, rel=1e-12)


# Fingerprints: the totals that classic mistakes lead to. Whoever ports a network and sees one of them knows why.


def test_fingerprint_of_the_printed_stride():
    """533.8 M: the last depthwise convolution of V1 with stride 2, as the table prints it."""
    total = profile(mobilenet_v1(table=[*V1_TABLE[:-1], (2, 1024)]))
    assert round(millions(total.macs), 1) == 533.8


def test_fingerprint_of_an_expansion_at_t_1():
    """313.6 M: V2's first bottleneck with a 1x1 from 32 to 32 channels, which does nothing but cost."""
    needless = cost.profile(nn.ConvBNAct(32, 32, 1, rng=rng()), (112, 112, 32))
    assert round(millions(profile(mobilenet_v2()).macs + needless.macs), 1) == 313.6


def test_fingerprint_of_swapped_strides():
    """416.3 M: the stages of 64 and 96 channels in each other's resolution."""
    table = [*V2_TABLE[:3], (6, 64, 4, 1), (6, 96, 3, 2), *V2_TABLE[5:]]
    assert round(millions(profile(mobilenet_v2(table=table)).macs), 1) == 416.3


def test_the_smallest_network_of_v2s_text():
    """"from 7 multiply adds" is in no table: the smallest of the grid has 11.9 M, 0.25 at 96 pixels would have 7.9."""
    assert round(millions(profile(mobilenet_v2(width_mult=0.35), 96).macs), 1) == 11.9
    assert round(millions(profile(mobilenet_v2(width_mult=0.25), 96).macs), 1) == 7.9


# The count itself


@pytest.mark.parametrize("model", [mobilenet_v1, mobilenet_v2])
@pytest.mark.parametrize("pixels", [224, 97])
def test_same_and_symmetric_padding_cost_the_same(model, pixels):
    same, symmetric = (profile(model(padding=padding), pixels) for padding in ("same", "symmetric"))
    assert same.rows == symmetric.rows


def counted(model, x):
    """Count multiply-adds from what a real forward puts out: every output number of a layer is a sum of products."""
    total = 0
    outputs = {}
    for path, part in model.named_modules():
        part.observers.append(lambda y, path=path: outputs.__setitem__(path, y.shape))
    model(x)
    for path, part in model.named_modules():
        if isinstance(part, nn.Linear | nn.PointwiseConv2d):
            total += part.C_in * math.prod(outputs[path])
        elif isinstance(part, nn.DepthwiseConv2d):
            total += math.prod(part.kernel) * math.prod(outputs[path])
        elif isinstance(part, nn.Conv2d):
            total += math.prod(part.kernel) * part.C_in * math.prod(outputs[path])
    return total / len(x)


@pytest.mark.parametrize("name", models.classifiers())
def test_macs_equal_a_count_from_a_real_forward(name):
    small = name != "mlp_batch_norm"
    shape = (3, 33, 30, 2) if small else (3, 28, 28, 2)
    model = models.build(name, in_channels=2, **({"width_mult": 0.25} if small else {}))
    total = cost.profile(model, shape)
    assert total.macs == counted(model, np.zeros(shape, np.float32))
    assert total.params == sum(parameter.size for parameter in model.parameters())
    state = model.state_dict()
    assert total.params_with_statistics == sum(array.size for array in state.values())
    assert total.params_without_bn == sum(a.size for key, a in state.items() if key.rpartition(".")[2] in ("w", "b"))


@pytest.mark.parametrize("case", CASES)
def test_every_layer_and_block_can_be_costed(case):
    maker, shape = CASES[case]
    module = maker(rng(), np.float32)
    total = cost.profile(module, shape)
    assert total.macs == counted(module, np.zeros((2, *shape), np.float32))
    assert total.params == sum(parameter.size for parameter in module.parameters())
    assert all(type(number) is int for row in total.rows for number in (*row.output_shape, row.params, row.macs))
    assert all(row.kind for row in total.rows)


def test_rows_are_the_layers_in_forward_order():
    model = models.mobilenet_v2_small()
    rows = cost.profile(model, (28, 28, 3)).rows
    layers = [path for path, part in model.named_modules() if isinstance(part, nn.Layer)]
    assert [row.name for row in rows] == layers
    row = next(row for row in rows if row.name == "blocks.1.depthwise")
    assert row == ("blocks.1.depthwise", "depthwise", (7, 7, 96), 9 * 96, 9 * 96 * 7 * 7, 9 * 96)
    assert rows[0] == ("stem.conv", "conv", (14, 14, 16), 9 * 3 * 16, 9 * 3 * 16 * 14 * 14, 9 * 3 * 16)
    assert rows[-1] == ("classifier", "linear", (10,), 256 * 10 + 10, 256 * 10, 256 * 10)


def test_a_layer_by_itself():
    total = cost.profile(nn.Linear(7, 4, rng=rng()), (7,))
    assert (total.params, total.macs, total.rows[0].name) == (32, 28, "")


def test_input_shapes():
    model = models.mobilenet_v2_small()
    with_batch, without = cost.profile(model, (5, 28, 28, 3)), cost.profile(model, (28, 28, 3))
    assert with_batch == without and without.input_shape == (28, 28, 3)
    assert cost.profile(model, np.array([28, 28, 3])).input_shape == (28, 28, 3)
    layer = nn.Linear(7, 4, rng=rng())
    assert cost.profile(layer, (2, 7)) == cost.profile(layer, (7,))


@pytest.mark.parametrize(
    "shape, message",
    [
        ((224, 224, 4), r"stem: conv: Conv2d: expects 3 channels, got an image of \(224, 224, 4\)"),
        ((224, 224), r"stem: conv: Conv2d: .*\(H, W, C\)"),
        ((224, 0, 3), "input_shape must be at least 1, got 0"),
        ((224, 224.5, 3), "input_shape must be an integer, got 224.5"),
        ((1, 1, 224, 224, 3), r"input_shape must be \(H, W, C\)"),
        ((), r"input_shape must be \(H, W, C\)"),
        (224, r"input_shape must be \(H, W, C\)"),
    ],
)
def test_a_wrong_shape_names_the_layer_or_the_argument(shape, message):
    with pytest.raises(ValueError, match=message):
        cost.profile(mobilenet_v2(), shape)


# Other ways to count


@pytest.mark.parametrize("bn, times", [("none", 0), ("trainable", 2), ("all", 4)])
def test_batch_norm_counts_as_asked(bn, times):
    """Numbers a channel: none, gamma and beta, and mean and variance too."""
    model = models.mobilenet_v2_small()
    usual, total = (cost.profile(model, (28, 28, 3), **counting) for counting in ({}, {"bn": bn}))
    channels = sum(row.output_shape[-1] for row in usual.rows if row.kind == "batch norm")
    assert total.params == usual.params_without_bn + times * channels
    assert sum(row.params for row in total.rows) == total.params
    assert (total.params_without_bn, total.macs) == (usual.params_without_bn, usual.macs)
    assert total.params_with_statistics == usual.params_with_statistics


def test_an_atrous_convolution_as_space_to_batch():
    """Height and width are rounded up to multiples of the rate: 33 pixels at rate 6 become 36."""
    layers = {
        "wide": nn.Conv2d(3, 4, 3, dilation=6, rng=rng()),
        "uneven": nn.DepthwiseConv2d(4, 3, dilation=(2, 5), rng=rng()),
        "plain": nn.Conv2d(4, 4, 3, rng=rng()),
    }
    as_written, dealt_out = (
        cost.profile(nn.Sequential(**layers), (33, 31, 3), atrous=atrous).rows
        for atrous in ("as_written", "space_to_batch")
    )
    assert [row.macs for row in as_written] == [27 * 4 * 33 * 31, 36 * 33 * 31, 36 * 4 * 33 * 31]
    assert [row.macs for row in dealt_out] == [27 * 4 * 36 * 36, 36 * 34 * 35, 36 * 4 * 33 * 31]


def test_a_rate_that_divides_the_map_costs_nothing_more():
    layer = nn.Conv2d(3, 4, 3, dilation=3, rng=rng())
    assert cost.profile(layer, (33, 30, 3)) == cost.profile(layer, (33, 30, 3), atrous="space_to_batch")


@pytest.mark.parametrize("counting", [{"bn": "some"}, {"atrous": "dealt out"}, {"bn": None}])
def test_an_unknown_way_to_count_lists_those_there_are(counting):
    name, value = next(iter(counting.items()))
    with pytest.raises(ValueError, match=rf"{name} must be one of '(trainable|none|as_written)', .*got {value!r}"):
        cost.profile(models.mobilenet_v2_small(), (28, 28, 3), **counting)


def test_a_part_is_the_layers_below_a_name():
    total = cost.profile(models.mobilenet_v2(), (224, 224, 3))
    parts = [total.part(name) for name in ("stem", "blocks", "head", "pool", "dropout", "classifier")]
    assert sum(part.macs for part in parts) == total.macs and sum(part.params for part in parts) == total.params
    assert {row.name.split(".")[1] for row in total.part("blocks.1").rows} == {"1"}  # not blocks.10
    assert total.part("blocks.1.expand").rows[0].kind == "pointwise"


def test_a_part_that_is_not_there_lists_those_that_are():
    with pytest.raises(ValueError, match="no part 'heads'; it has stem, blocks, head, pool, dropout, classifier"):
        cost.profile(models.mobilenet_v2(), (224, 224, 3)).part("heads")


def test_several_scales_add_up():
    model = models.mobilenet_v2()
    several = cost.multi_scale(model, (225, 225, 3), [0.5, 1.0, 1.75], mirrored=False)
    assert [one.input_shape[0] for one in several.profiles] == [113, 225, 393]  # corners stay corners
    assert several.macs == sum(cost.profile(model, (n, n, 3)).macs for n in (113, 225, 393))
    assert cost.multi_scale(model, (225, 225, 3), [0.5, 1.0, 1.75]).macs == 2 * several.macs
    assert several.params == cost.profile(model, (225, 225, 3)).params
    twice = cost.multi_scale(model, (225, 161, 3), [1.0, 1.0], mirrored=False)
    assert twice.macs == 2 * cost.profile(model, (225, 161, 3)).macs and twice.profiles[0].input_shape == (225, 161, 3)


@pytest.mark.parametrize("scales", [[], [0], [1, -1], ["1"]])
def test_scales_are_numbers_above_zero(scales):
    with pytest.raises(ValueError, match="scales must"):
        cost.multi_scale(models.mobilenet_v2(), (225, 225, 3), scales)


def test_counting_allocates_no_arrays():
    model = models.mobilenet_v2()
    tracemalloc.start()
    cost.profile(model, (224, 224, 3))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 200_000  # bytes: the rows; the smallest map of the network, as float32, would be as large


def test_weights_are_what_multiplies():
    total = profile(mobilenet_v1())
    assert total.weights == total.params_without_bn - 1000 == 4_209_088
    shares = total.shares(weights_only=True)
    assert "batch norm" not in shares and sum(params for _, params in shares.values()) == pytest.approx(1)


# How it is shown


def small_profile():
    model = nn.Sequential(
        conv=nn.Conv2d(3, 8, 3, rng=rng()), act=nn.ReLU(), pool=nn.GlobalAvgPool(), fc=nn.Linear(8, 1000, rng=rng())
    )
    return cost.profile(model, (20, 20, 3))


def test_markdown():
    assert small_profile().to_markdown() == (
        "| layer | kind | output | parameters | multiply-adds |\n"
        "| --- | --- | --- | ---: | ---: |\n"
        "| conv | conv | 20 x 20 x 8 | 216 | 86,400 |\n"
        "| fc | linear | 1000 | 9,000 | 8,000 |\n"
        "| total |  |  | 9,216 | 94,400 |"
    )
    lines = small_profile().to_markdown(all_layers=True).splitlines()
    assert len(lines) == 7 and all(line.count("|") == 6 for line in lines)
    assert "| act | activation | 20 x 20 x 8 | 0 | 0 |" in lines


def test_text_is_aligned():
    lines = str(small_profile()).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[0].split() == ["layer", "kind", "output", "parameters", "multiply-adds"]
    assert lines[-1].split() == ["total", "9,216", "94,400"]


def test_html_has_a_row_a_layer():
    html = small_profile()._repr_html_()
    assert html.count("<tr>") == 4 and html.count("<td") == 10
    for text in ("20 x 20 x 8", "86,400", "94,400"):
        assert text in html


def test_a_profile_cannot_be_changed():
    with pytest.raises(AttributeError):
        small_profile().params = 0
