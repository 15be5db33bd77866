"""Expansion: all networks of a size cost the same, whatever they expand by."""

import pytest

from npnets import cost, experiments, models
from npnets.experiments import expansion
from npnets.experiments.expansion import EXPANSIONS, EXPERIMENT, SIZES, matched_width, network, target
from npnets.experiments.records import Record, Records
from tests.experiments import captured, fake_record

SHAPE = (32, 32, 3)


def model_of(variant):
    return captured(EXPERIMENT, variant)["model"]


def test_every_expansion_comes_in_both_sizes_with_three_seeds():
    assert set(EXPERIMENT.variants) == {f"{size}_t{t}" for size in ("large", "small") for t in (1, 2, 4, 6, 10)}
    assert set(EXPERIMENT.seeds.values()) == {(0, 1, 2)}
    assert {name: own["cost_share"] for name, own in SIZES.items()} == {"large": 1.0, "small": 0.25}


@pytest.mark.parametrize("size, macs", [("large", 4_554_240), ("small", 1_138_560)])
def test_all_networks_of_a_size_cost_the_same(size, macs):
    profiles = [cost.profile(model_of(f"{size}_t{t}"), SHAPE) for t in EXPANSIONS]
    assert [one.macs for one in profiles] == [pytest.approx(macs, rel=0.01)] * len(EXPANSIONS)


@pytest.mark.parametrize("size, channels", [("large", 16), ("small", 8)])
def test_all_networks_of_a_size_look_at_the_image_alike(size, channels):
    for t in EXPANSIONS:
        model = model_of(f"{size}_t{t}")
        assert model.stem.conv.C_out == model.blocks[0].project.C_out == channels


@pytest.mark.parametrize("size, shares", [("large", (1 / 5, 1 / 15)), ("small", (2 / 5, 1 / 8))])
def test_stem_and_last_convolution_have_the_told_shares_of_the_cost(size, shares):
    for t, share in zip((1, 10), shares):
        profile = cost.profile(model_of(f"{size}_t{t}"), SHAPE)
        outer = sum(row.macs for row in profile.rows if row.name.startswith(("stem", "head")))
        assert outer / profile.macs == pytest.approx(share, rel=0.15)


@pytest.mark.parametrize("size, fall", [("large", 1 / 6), ("small", 1 / 5)])
def test_the_parameters_differ_as_told(size, fall):
    params = {t: cost.profile(model_of(f"{size}_t{t}"), SHAPE).params for t in EXPANSIONS}
    assert params[1] == pytest.approx(params[6] * 4 / 3, rel=0.03)
    assert params[10] == pytest.approx(params[2] * (1 - fall), rel=0.02)


@pytest.mark.parametrize("variant", EXPERIMENT.variants)
def test_every_block_but_the_first_expands_by_t(variant):
    t, model = int(variant.partition("_t")[2]), model_of(variant)
    first, *rest = model.blocks
    assert model.stem.conv.C_out == first.depthwise.C_in and not hasattr(first, "expand")
    inputs = [block.project.C_out for block in model.blocks]
    assert [block.depthwise.C_in for block in rest] == [t * C for C in inputs[:-1]]
    assert [hasattr(block, "expand") for block in rest] == [t != 1] * 6
    assert model.head.conv.C_out == 256
    strides = [block.depthwise.stride[0] for block in model.blocks]
    assert strides == [1, 2, 1, 1, 1, 2, 1]


def test_t_6_at_full_cost_is_the_usual_network():
    one, usual = model_of("large_t6"), models.mobilenet_v2_small(10)
    assert [p.shape for p in one.parameters()] == [p.shape for p in usual.parameters()]


@pytest.mark.parametrize("t, share, shape", [(1, 1.0, SHAPE), (4, 0.25, SHAPE), (10, 1.0, (28, 28, 1))])
def test_no_width_comes_nearer(t, share, shape):
    macs = target(share, shape)
    width = matched_width(t, macs, shape)
    found = abs(cost.profile(network(t, width, in_channels=shape[-1]), shape).macs - macs)
    others = (cost.profile(network(t, width * k / 1000, in_channels=shape[-1]), shape) for k in range(970, 1031, 3))
    assert found <= min(abs(other.macs - macs) for other in others)


def test_a_cost_that_no_network_has_is_refused():
    for macs in (10, 10**12):
        with pytest.raises(ValueError, match="no network with t = 2 and a width from"):
            matched_width(2, macs, SHAPE)


def test_every_variant_trains(made_up_images, monkeypatch):
    for name, value in {"epochs": 1, "batch_size": 32, "warmup": 2}.items():
        monkeypatch.setitem(EXPERIMENT.small, name, value)
    records = experiments.small("expansion", jobs=1, threads=1)
    assert records.variants == list(EXPERIMENT.variants)
    for record in records:
        share = record.settings["cost_share"]
        assert record["target_macs"] == target(share, (16, 16, 3))
        assert record["cost"]["macs"] == pytest.approx(record["target_macs"], rel=0.03)
        assert record["expanded"][1:] == [record.settings["t"] * C for C in record["channels"][:-1]]
    assert len(EXPERIMENT.report(records).splitlines()) == 2 + len(EXPERIMENT.variants)


def test_the_best_expansion_is_that_with_the_highest_mean():
    def record(variant, seed, accuracy):
        final = None if accuracy is None else {"accuracy": accuracy}
        return Record(fake_record(variant, seed, final=final, cost={"params": 1, "macs": 1}))

    finals = [
        ("large_t1", 0, None),
        ("large_t6", 0, 0.5),
        ("large_t6", 1, 0.5),
        ("large_t10", 0, 0.4),
        ("large_t10", 1, 0.8),
    ]
    finals += [("small_t2", 0, 0.9), ("small_t4", 0, 0.2)]
    records = Records(EXPERIMENT, [record(*one) for one in finals])
    assert expansion.best_expansion(records, "large") == 10 and expansion.best_expansion(records, "small") == 2
    with pytest.raises(ValueError, match="no network of the size 'huge' is recorded"):
        expansion.best_expansion(records, "huge")
