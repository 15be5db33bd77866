"""Factorized convolutions: the variants cost what they should, and differ in nothing else."""

import numpy as np
import pytest

from npnets import cost, experiments, nn
from npnets.experiments import common, factorized
from npnets.experiments.factorized import EXPERIMENT, Kernels
from tests.experiments import captured, changed


def costs(variant):
    return cost.profile(captured(EXPERIMENT, variant)["model"], (32, 32, 3))


def test_each_variant_differs_where_it_should():
    assert {variant: changed(EXPERIMENT, variant, "separable") for variant in EXPERIMENT.variants} == {
        "separable": {},
        "standard": {"convolution": "standard"},
        "standard_thin": {"convolution": "standard", "width_mult": 0.166},
        "shallow": {"shallow": True},
        "thin": {"width_mult": 0.32},
        "no_decay": {"weight_decay": 0.0},
        "decay_depthwise": {"decay_depthwise": True},
        "decay_x10": {"weight_decay": 4e-4},
        "decay_x10_depthwise": {"weight_decay": 4e-4, "decay_depthwise": True},
        "decay_x100": {"weight_decay": 4e-3},
        "decay_x100_depthwise": {"weight_decay": 4e-3, "decay_depthwise": True},
    }
    assert set(EXPERIMENT.seeds.values()) == {(0, 1, 2)}
    assert EXPERIMENT.settings["weight_decay"] == 4e-5


def test_the_costs_are_those_of_the_docstring():
    separable, standard = costs("separable"), costs("standard")
    assert (separable.params, separable.macs) == (56_666, 1_047_296)
    assert standard.macs / separable.macs == pytest.approx(7.7, abs=0.05)
    assert costs("standard_thin").macs == pytest.approx(separable.macs, rel=0.02)
    assert costs("thin").macs == pytest.approx(costs("shallow").macs, rel=0.01)
    assert costs("shallow").macs < separable.macs / 2


def test_separable_and_full_convolutions_have_the_same_depth_and_shallow_lacks_two_blocks():
    depths = {variant: len(captured(EXPERIMENT, variant)["model"].blocks) for variant in EXPERIMENT.variants}
    assert {variant for variant, depth in depths.items() if depth != 8} == {"shallow"} and depths["shallow"] == 6
    blocks, fewer = (captured(EXPERIMENT, variant)["model"].blocks for variant in ("separable", "shallow"))
    equal = (blocks[-1].pointwise.w.shape, blocks[-2].pointwise.w.shape)
    assert equal == ((128, 128), (128, 128)) and fewer[-1].pointwise.w.shape == (64, 128)


def test_the_convolutions_are_separable_or_full():
    kinds = {
        variant: {type(part) for _, part in captured(EXPERIMENT, variant)["model"].named_modules()}
        for variant in ("separable", "standard", "standard_thin")
    }
    assert nn.DepthwiseConv2d in kinds["separable"]
    assert nn.DepthwiseConv2d not in kinds["standard"] | kinds["standard_thin"]


@pytest.mark.parametrize(
    "variant, decay, depthwise",
    [("separable", 4e-5, False), ("decay_depthwise", 4e-5, True), ("decay_x10", 4e-4, False),
     ("decay_x100_depthwise", 4e-3, True)],
)  # fmt: skip
def test_weight_decay_is_as_strong_and_where_it_should_be(variant, decay, depthwise):
    given = captured(EXPERIMENT, variant)
    assert f"weight_decay={decay})" in repr(given["optimizer"])
    decays = {p.name: p.decay for p in given["model"].parameters()}
    assert {decays[f"blocks.{k}.depthwise.w"] for k in range(8)} == {depthwise}
    assert decays["blocks.0.pointwise.w"] and not decays["blocks.0.depthwise_bn.gamma"]


def test_the_seed_decides_the_weights():
    one, other = (captured(EXPERIMENT, "separable", seed=seed)["model"].classifier.w.value for seed in (7, 8))
    assert not np.array_equal(one, other)


def test_norms_are_those_of_each_filter():
    model = captured(EXPERIMENT, "separable")["model"]
    w = model.blocks[1].depthwise.w.value  # (3, 3, C)
    found = factorized.depthwise_norms(model)
    assert list(found) == [f"blocks.{k}.depthwise.w" for k in range(8)]
    norms = sorted(float(np.linalg.norm(w[..., m])) for m in range(w.shape[-1]))
    lowest, lower, median, _, highest = found["blocks.1.depthwise.w"]
    assert (lowest, highest) == (pytest.approx(norms[0], rel=1e-4), pytest.approx(norms[-1], rel=1e-4))
    assert median == pytest.approx((norms[7] + norms[8]) / 2, rel=1e-4) and lowest < lower < median


def test_variances_are_those_behind_the_depthwise_convolutions():
    model = captured(EXPERIMENT, "separable")["model"]
    model.blocks[1].depthwise_bn.running_var[...] = np.arange(16) / 8
    found = factorized.depthwise_variances(model)
    assert list(found) == [f"blocks.{k}.depthwise_bn" for k in range(8)]
    assert found["blocks.1.depthwise_bn"] == [k / 8 for k in range(16)]
    assert factorized.depthwise_variances(captured(EXPERIMENT, "standard")["model"]) == {}


def turned(w, degrees, factor):
    """Return a kernel whose filters are turned by an angle towards a direction at right angles, and made longer."""
    flat = w.reshape(-1, w.shape[-1]).astype(np.float64)
    other = np.random.default_rng(0).normal(size=flat.shape)
    other -= flat * (flat * other).sum(axis=0) / (flat**2).sum(axis=0)
    other *= np.linalg.norm(flat, axis=0) / np.linalg.norm(other, axis=0)
    a = np.radians(degrees)
    return (factor * (np.cos(a) * flat + np.sin(a) * other)).reshape(w.shape)


@pytest.mark.parametrize("variant", ["separable", "standard"])
def test_length_and_turn_of_the_filters_are_noted(variant):
    model = captured(EXPERIMENT, variant)["model"]
    kernels = Kernels(model, every=3)
    for step in range(6):
        kernels.before_step(step)
        for p in model.parameters():
            if p.name.startswith("blocks.") and p.name.endswith(".w"):
                depthwise = p.name.endswith("depthwise.w")
                p.value[...] = turned(p.value, 0.01 if depthwise else 30, 2.0)
                if step == 5:
                    p.value[...] /= np.linalg.norm(p.value.reshape(-1, p.value.shape[-1]), axis=0) / (1 + depthwise)
        kernels.after_step(step)
    found = kernels.to_dict()
    assert found["step"] == [3, 6]
    assert found["combining_degrees"] == [pytest.approx(30, rel=1e-3)] * 2
    assert found["combining_norm"][1] == pytest.approx(1, rel=1e-4)
    if variant == "separable":
        assert found["depthwise_degrees"] == [pytest.approx(0.01, rel=0.01)] * 2
        assert found["depthwise_norm"][1] == pytest.approx(2, rel=1e-4)
    else:
        assert found["depthwise_degrees"] == found["depthwise_norm"] == [None, None]
    again = Kernels(model)
    again.load_state_dict(kernels.state_dict())
    assert again.to_dict() == found and Kernels(model).to_dict()["step"] == []


def test_a_filter_that_has_become_zero_is_no_error():
    model = captured(EXPERIMENT, "separable")["model"]
    kernels = Kernels(model, every=1)
    kernels.before_step(0)
    for p in model.parameters():
        p.value[...] = 0
    kernels.after_step(0)
    assert kernels.to_dict()["depthwise_norm"] == [0] and kernels.to_dict()["depthwise_degrees"] == [90]


def test_every_variant_trains(made_up_images, monkeypatch):
    for name, value in {"epochs": 1, "batch_size": 16, "warmup": 2}.items():
        monkeypatch.setitem(EXPERIMENT.small, name, value)
    monkeypatch.setattr(factorized, "NOTE_EVERY", 2)
    records = experiments.small("factorized", jobs=1, threads=1)
    assert records.variants == list(EXPERIMENT.variants)
    for record in records:
        assert record["history"]["epochs"][0]["step"] == 4 and np.isfinite(record["final"]["loss"])
        assert len(record["depthwise_norms"]) == (
            0 if "standard" in record.variant else 8 - 2 * record.settings["shallow"]
        )
        assert record["kernels"]["step"] == [2, 4] and record["kernels"]["combining_degrees"][1] > 0
        assert record["depthwise_variances"].keys() == {
            name.replace("depthwise.w", "depthwise_bn") for name in record["depthwise_norms"]
        }
    (one,), (other,) = records.of("decay_x100"), records.of("decay_x100_depthwise")
    assert one["depthwise_norms"] != other["depthwise_norms"]
    assert EXPERIMENT.report(records).splitlines()[2].split()[:4] == ["separable", "1", *_numbers(records)]


def _numbers(records):
    first = common.results(records)[0]
    return f"{first.params:,}", f"{first.macs:,}"
