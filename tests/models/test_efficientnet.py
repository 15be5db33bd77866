"""EfficientNet against its paper: B0 layer by layer, B1 to B7 by their totals, drop path, and gradients."""

import inspect
import tracemalloc

import numpy as np
import pytest

from npnets import cost, models, nn, parallel
from npnets.models import efficientnet, efficientnet_b0, efficientnet_b7
from tests.models import docstring_rows, gradient_errors
from tests.nn import randomize

FILE = inspect.getmodule(efficientnet)

# Table 1 of the paper: the input of each stage, then the operator (t, k), channels, layers.
TABLE_1 = [
    ((112, 112, 32), 1, 3, 16, 1),
    ((112, 112, 16), 6, 3, 24, 2),
    ((56, 56, 24), 6, 5, 40, 2),
    ((28, 28, 40), 6, 3, 80, 3),
    ((14, 14, 80), 6, 5, 112, 3),
    ((14, 14, 112), 6, 5, 192, 4),
    ((7, 7, 192), 6, 3, 320, 1),
]

# The paper's Table 2 (section 5.2, "Performance Results on ImageNet"): parameters in millions, FLOPs in billions.
PUBLISHED = {
    "b0": ("5.3", "0.39"),
    "b1": ("7.8", "0.70"),
    "b2": ("9.2", "1.0"),
    "b3": ("12", "1.8"),
    "b4": ("19", "4.2"),
    "b5": ("30", "9.9"),
    "b6": ("43", "19"),
    "b7": ("66", "37"),
}
NOT_REPRODUCED = {"b1", "b4", "b5"}  # their FLOPs; b7's 37.7 are printed without the last digit


def tiny(**settings):
    """Return a network with every kind of block, narrow enough for numerical gradients."""
    table = [(1, 3, 8, 1, 1), (6, 3, 8, 2, 2), (6, 5, 12, 2, 2)]
    small = {"table": table, "stem": 8, "head": 16, "dtype": np.float64}
    return randomize(efficientnet(5, **(small | settings)))


def images(N, pixels, seed=1):
    return np.random.default_rng(seed).standard_normal((N, pixels, pixels, 3))


def total(name, **settings):
    pixels = models.resolution(name)
    return cost.profile(models.build(name, **settings), (pixels, pixels, 3))


# The architecture


def test_table_1():
    inputs = {}
    model = efficientnet_b0()
    model.trace((224, 224, 3), lambda path, layer, shape, out: inputs.setdefault(".".join(path.split(".")[:2]), shape))
    first = [sum(n for *_, n in TABLE_1[:k]) for k in range(7)]
    assert [inputs[f"blocks.{k}"] for k in first] == [shape for shape, *_ in TABLE_1]
    assert inputs["head.conv"] == (7, 7, 320) and inputs["pool"] == (7, 7, 1280)
    for k, (_, t, kernel, c, n) in zip(first, TABLE_1):
        for block in model.blocks[k : k + n]:
            assert block.depthwise.kernel == (kernel, kernel) and block.project.C_out == c
            assert block.depthwise.C_in == t * (block.expand if t > 1 else block.depthwise).C_in
    assert len(model.blocks) == 16
    assert [row[:4] for row in FILE.TABLE] == [row[1:] for row in TABLE_1]


def test_the_comments_of_the_table_are_the_inputs():
    source = inspect.getsource(FILE).partition("\nTABLE = [")[2].partition("]")[0]
    assert [f"  # {H} x {W} x {C}\n" in source for (H, W, C), *_ in TABLE_1] == [True] * 7


def test_the_variants_are_those_of_the_paper():
    assert list(FILE.VARIANTS.values()) == [
        (1.0, 1.0, 224, 0.2), (1.0, 1.1, 240, 0.2), (1.1, 1.2, 260, 0.3), (1.2, 1.4, 300, 0.3),
        (1.4, 1.8, 380, 0.4), (1.6, 2.2, 456, 0.4), (1.8, 2.6, 528, 0.5), (2.0, 3.1, 600, 0.5),
    ]  # fmt: skip
    for name, (_, _, pixels, dropout) in FILE.VARIANTS.items():
        assert models.resolution(name) == pixels
        assert models.build(name).dropout.rate == dropout and models.build(name, dropout=0.25).dropout.rate == 0.25


def test_squeeze_excite_widths_of_b0():
    """A quarter of each block's input channels: 32, 16, 24, 24, 40, ..."""
    widths = [block.squeeze_excite.reduce.C_out for block in efficientnet_b0().blocks]
    assert widths == [8, 4, 6, 6, 10, 10, 20, 20, 20, 28, 28, 28, 48, 48, 48, 48]


def test_swish_after_every_convolution_but_the_projections():
    model = efficientnet_b0()
    assert [name for name, _ in model.stem.children()] == [name for name, _ in model.head.children()]
    assert list(dict(model.stem.children())) == ["conv", "bn", "act"] and type(model.head.act) is nn.Swish
    for block in model.blocks:
        names = [name for name, _ in block.chain()]
        acts = [name for name in names if name.endswith("_act")]
        assert acts == [name for name in ("expand_act", "depthwise_act") if name.removesuffix("_act") in names]
        assert all(type(getattr(block, name)) is nn.Swish for name in (*acts,))
        assert names[names.index("depthwise_act") + 1] == "squeeze_excite"
    assert not any(part.b for _, part in model.named_modules() if isinstance(part, nn.Conv2d | nn.DepthwiseConv2d))


def test_names():
    names = list(efficientnet_b0().state_dict())
    norm = ["gamma", "beta", "running_mean", "running_var"]
    gates = [f"squeeze_excite.{layer}.{array}" for layer in ("reduce", "expand") for array in "wb"]
    for block, before in [(0, ["depthwise"]), (1, ["expand", "depthwise"])]:
        first, last = (
            [name for part in parts for name in (f"{part}.w", *(f"{part}_bn.{array}" for array in norm))]
            for parts in (before, ["project"])
        )
        assert [name.removeprefix(f"blocks.{block}.") for name in names if name.startswith(f"blocks.{block}.")] == [
            *first, *gates, *last
        ]  # fmt: skip
    assert names[0] == "stem.conv.w" and names[-2:] == ["classifier.w", "classifier.b"]


def test_weight_decay_leaves_out_biases_and_batch_norm():
    decays = {p.name: p.decay for p in efficientnet_b0().parameters()}
    assert {name for name, decay in decays.items() if decay} == {name for name in decays if name.endswith(".w")}


# The cost


def test_b0_has_the_golden_totals():
    found = total("efficientnet_b0")
    assert (found.params, found.macs) == (5_288_548, 385_814_752)


def test_the_table_in_the_docstring():
    rows = docstring_rows(FILE)
    assert [(k, pixels) for k, pixels, _, _ in rows] == list(
        enumerate(pixels for _, _, pixels, _ in FILE.VARIANTS.values())
    )
    for k, _, params, macs in rows:
        found = total(f"efficientnet_b{k:.0f}")
        assert (found.params, found.macs) == (params, macs)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_printed_parameters_and_multiply_adds(name):
    """All printed parameters come out (B2's with the running statistics), the FLOPs but for those of B1, B4 and B5."""
    found = total(f"efficientnet_{name}")
    params, flops = PUBLISHED[name]
    count = found.params_with_statistics if name == "b2" else found.params
    decimals = len(params.partition(".")[2])
    assert f"{count / 1e6:.{decimals}f}" == params
    decimals = len(flops.partition(".")[2])
    billions = found.macs / 1e9
    shown = {f"{billions:.{decimals}f}", f"{int(billions * 10**decimals) / 10**decimals:.{decimals}f}"}
    assert (flops in shown) == (name not in NOT_REPRODUCED)


def test_fingerprints_of_classic_mistakes():
    """What the totals of B0 would be: strides of an early revision, and squeeze-excite of the expanded channels."""
    strides = (1, 2, 2, 1, 2, 2, 1)
    early = efficientnet(table=[(*row[:4], s) for row, s in zip(FILE.TABLE, strides)])
    assert round(cost.profile(early, (224, 224, 3)).macs / 1e6, 1) == 516.4
    more = 0
    for block in efficientnet_b0().blocks:
        expanded, squeezed = block.squeeze_excite.reduce.w.shape
        more += (2 * expanded + 1) * (expanded // 4 - squeezed)
    assert round((total("efficientnet_b0").params + more) / 1e6, 2) == 8.42


def test_b7_at_600_pixels_is_costed_without_allocating_arrays():
    tracemalloc.start()
    model = efficientnet_b7()
    found = cost.profile(model, (600, 600, 3))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.params == 66_347_960 and len(model.blocks) == 55
    assert all(parameter._value is None for parameter in model.parameters())
    assert peak < 8_000_000  # bytes of Python objects and running statistics; the weights alone would be 265 MB


def test_the_multipliers_of_a_variant_are_factors_besides_its_own():
    plain, b2 = models.efficientnet_b0(width_mult=1.1, depth_mult=1.2), models.efficientnet_b2()
    assert [p.shape for p in plain.parameters()] == [p.shape for p in b2.parameters()]
    half = models.efficientnet_b2(width_mult=0.5)
    assert half.stem.conv.C_out == 16 and half.classifier.C_in == 704  # 1280 * 1.1 * 0.5, to a multiple of 8
    assert [len(models.build(f"efficientnet_b{k}").blocks) for k in range(8)] == [16, 23, 23, 26, 32, 39, 45, 55]
    assert len(models.efficientnet_b7(depth_mult=0.1).blocks) == sum((1, 1, 1, 1, 1, 2, 1))


# Drop path


def survival(model):
    return [block.drop_path.survival_prob if block.adds_input else None for block in model.blocks]


def test_the_survival_probability_falls_with_the_index_of_the_block():
    """Block k of 16 has 1 - 0.2 k / 16: the first 1, the last 0.8125 and not 0.8. Only residuals have one."""
    expected = [1 - 0.2 * k / 16 for k in range(16)]
    found = survival(efficientnet_b0())
    residual = [k > 0 for *_, n in TABLE_1 for k in range(n)]
    assert [p is not None for p in found] == residual and sum(residual) == 9
    assert [p for p in found if p] == pytest.approx([p for p, adds in zip(expected, residual) if adds], abs=1e-12)
    assert survival(efficientnet_b0(survival_prob=0.5))[14] == pytest.approx(1 - 0.5 * 14 / 16)
    # Of a network whose last block has a residual: the number for the block after the last is never reached.
    assert survival(efficientnet_b7())[-1] == pytest.approx(1 - 0.2 * 54 / 55)


def test_the_last_block_of_b0_would_have_0_8125():
    table = [*FILE.TABLE[:6], (6, 3, 192, 1, 1)]  # the last stage with as many channels as come in
    assert survival(efficientnet(table=table))[-1] == pytest.approx(0.8125, abs=1e-12)


def test_the_index_runs_over_all_scaled_blocks():
    """A schedule made before the depth is scaled would give all repeats of a stage the same number."""
    found = [p for p in survival(efficientnet(depth_mult=2)) if p is not None]
    assert len(set(found)) == len(found) == 32 - 7  # all but the first of each stage
    assert found == sorted(found, reverse=True)


def test_drop_path_and_dropout_act_in_training_alone():
    model, x = tiny(dropout=0.5), images(8, 16)
    assert not np.array_equal(model(x, training=True), model(x, training=True))
    assert np.array_equal(model(x), model(x))
    still = tiny(dropout=0, survival_prob=1.0)
    assert np.array_equal(still(x, training=True), still(x, training=True))


# The numbers


@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize("padding", ["same", "symmetric"])
def test_gradients_of_a_small_network(padding, training):
    model = tiny(padding=padding, survival_prob=0.6)
    errors = gradient_errors(model, images(4, 14), training=training, h=1e-6)
    assert max(errors) < 1e-6, errors


@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
def test_gradients_of_the_full_network(training):
    model = randomize(efficientnet_b0(10, width_mult=0.25, dtype=np.float64))
    errors = gradient_errors(model, images(6, 32), training=training, h=1e-6, directions=3)
    assert max(errors) < 1e-6, errors


def test_gradients_of_each_parameter_by_itself():
    """Among all the others, a wrong gradient of a few numbers could drown."""
    model, x = tiny(survival_prob=0.6), images(4, 10)
    for parameter in model.parameters():
        if not parameter.name.endswith("project_bn.beta"):  # the batch norm that follows takes it away
            errors = gradient_errors(model, x, training=True, directions=2, h=1e-6, names={parameter.name})
            assert max(errors) < 1e-5, (parameter.name, errors)


def trained(threads):
    """Return the bytes of logits, gradients and state after a step of training."""
    model, x = tiny(dtype=np.float32, dropout=0.2), images(6, 14).astype(np.float32)
    with parallel.threads(threads):
        y = model(x, training=True)
        dx = model.backward(y)
    arrays = [y, dx, *(p.grad for p in model.parameters()), *model.state_dict().values()]
    return [array.tobytes() for array in arrays]


def test_a_training_step_has_the_same_bits_on_any_number_of_threads(monkeypatch):
    monkeypatch.setattr(parallel, "PIECE_BYTES", 1 << 10)
    one = trained(1)
    assert trained(2) == one and trained(8) == one


def test_the_state_can_be_saved_and_loaded():
    model, other = tiny(seed=1), tiny(seed=2)
    x = images(2, 14)
    model(x, training=True)
    assert not np.array_equal(model(x), other(x))
    other.load_state_dict(model.state_dict())
    assert np.array_equal(model(x), other(x))


def test_folding_batch_norm_gives_the_same_outputs():
    model, x = tiny(), images(4, 14)
    for _ in range(3):
        model(x, training=True)
    folded = nn.fold_batch_norm(model)
    np.testing.assert_allclose(folded(x), model(x), rtol=1e-12, atol=1e-12)
    assert "BatchNorm" not in repr(folded) and "SqueezeExcite" in repr(folded)


def test_settings_reach_every_layer():
    model = models.efficientnet_b1(
        7, 2, 0.5, dropout=0.4, padding="symmetric", bn_decay=0.6, bn_eps=0.5, dtype=np.float64, stem_stride=1
    )
    parts = [part for _, part in model.named_modules()]
    norms = [part for part in parts if isinstance(part, nn.BatchNorm)]
    assert len(norms) == 3 * 23 - 2 + 2 and {(part.decay, part.eps) for part in norms} == {(0.6, 0.5)}
    assert {part.padding for part in parts if hasattr(part, "padding")} == {"symmetric"}
    assert (model.dropout.rate, model.classifier.C_out, model.stem.conv.C_in) == (0.4, 7, 2)
    assert model.stem.conv.stride == (1, 1) and {p.dtype for p in model.parameters()} == {np.dtype(np.float64)}


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"width_mult": 0}, "width_mult must be .*above 0, got 0"),
        ({"width_mult": "1"}, "width_mult must be .*, got '1'"),
        ({"depth_mult": -1}, "depth_mult must be .*above 0, got -1"),
        ({"depth_mult": np.nan}, "depth_mult must be .*, got nan"),
        ({"num_classes": 0}, "num_classes must be at least 1, got 0"),
        ({"in_channels": 0}, "in_channels must be at least 1, got 0"),
        ({"survival_prob": 0}, "survival_prob must be above 0 and at most 1, got 0"),
        ({"survival_prob": 1.2}, "survival_prob must be above 0 and at most 1, got 1.2"),
        ({"dropout": 1.0}, "rate must be at least 0 and below 1, got 1.0"),
        ({"head": 0}, "head must be at least 1, got 0"),
        ({"table": [(6, 16, 1, 1)]}, r"table.* \(t, k, c, n, s\).*got \(6, 16, 1, 1\)"),
    ],
)
def test_bad_settings_are_named(settings, message):
    for function in (efficientnet, models.efficientnet_b3):
        with pytest.raises(ValueError, match=message):
            function(**settings)
