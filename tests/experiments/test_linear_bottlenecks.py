"""Figure 5: the variants differ in what the figure is about, and the bottlenecks are measured as they are."""

import numpy as np
import pytest

from npnets import cost, experiments, manifold, models, nn
from npnets.experiments import linear_bottlenecks, shortcuts
from npnets.experiments.linear_bottlenecks import EXPERIMENT, measures, measures_of, per_block
from npnets.experiments.records import Record, Records
from tests import fakes
from tests.experiments import captured, changed, fake_record
from tests.nn import randomize

TINY = {"epochs": 1, "batch_size": 16, "warmup": 1, "width_mult": 0.25, "train_images": 32, "test_images": 20}


def shape_of(experiment, variant):
    """Return (bottleneck, shortcut) of the network that a variant trains, as its blocks have them."""
    blocks = captured(experiment, variant)["model"].blocks
    inner = [any(type(part) is nn.Residual for _, part in block.named_modules()) for block in blocks]
    outer = [block.adds_input for block in blocks]
    (after,) = {block.project_bn.activation for block in blocks}
    return after, sum(outer), sum(inner)


def test_the_four_cells():
    assert changed(EXPERIMENT, "relu6", "linear") == {"bottleneck": "relu6"}
    assert changed(EXPERIMENT, "linear_no_shortcut", "linear") == {"shortcut": "none"}
    assert changed(EXPERIMENT, "relu6_no_shortcut", "relu6") == {"shortcut": "none"}
    assert changed(EXPERIMENT, "relu6_no_shortcut", "linear_no_shortcut") == {"bottleneck": "relu6"}
    found = [shape_of(EXPERIMENT, variant) for variant in EXPERIMENT.variants]
    assert found == [(None, 12, 0), ("relu6", 12, 0), (None, 0, 0), ("relu6", 0, 0)]


def test_the_three_shortcuts():
    assert list(shortcuts.EXPERIMENT.variants) == ["bottleneck", "expansion", "none"]
    for variant in ("expansion", "none"):
        assert changed(shortcuts.EXPERIMENT, variant, "bottleneck") == {"shortcut": variant}
    found = [shape_of(shortcuts.EXPERIMENT, variant) for variant in shortcuts.EXPERIMENT.variants]
    assert found == [(None, 12, 0), (None, 0, 12), (None, 0, 0)]


@pytest.mark.parametrize("module", [linear_bottlenecks, shortcuts], ids=["linear_bottlenecks", "shortcuts"])
def test_all_start_from_the_same_weights_at_the_same_cost(module):
    found = [captured(module.EXPERIMENT, variant)["model"] for variant in module.VARIANTS]
    assert {(cost.profile(m, (32, 32, 3)).params, cost.profile(m, (32, 32, 3)).macs) for m in found} == {
        (94_578, 3_031_040)  # what the docstring says
    }
    weights = [[p.value for p in model.parameters()] for model in found]
    for others in weights[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(weights[0], others, strict=True))
    assert all(len(seeds) >= 3 for seeds in module.SEEDS.values())
    assert len(found[0].blocks) == 14


@pytest.mark.parametrize("name", ["linear_bottlenecks", "shortcuts"])
def test_every_variant_trains(name, made_up_images, monkeypatch):
    experiment = experiments.get(name)
    for key, value in TINY.items():
        monkeypatch.setitem(experiment.small, key, value)
    found = experiments.small(name, jobs=1, threads=1)
    assert found.variants == list(experiment.variants)
    for record in found:
        assert record["final"]["accuracy"] == record.best() and record.diverged is None
        assert ("bottlenecks" in record.content) == (name == "linear_bottlenecks")
    if name == "linear_bottlenecks":
        assert [len(record["bottlenecks"]) for record in found] == [7, 7, 7, 7]
    assert experiment.report(found).count("relu6_no_shortcut") == (2 if name == "linear_bottlenecks" else 0)


# --- The measures ----------------------------------------------------------------------------------------------------


def small_net(**settings):
    return randomize(models.mobilenet_v2_small(4, width_mult=0.25, **settings))


def images(N=8):
    return np.random.default_rng(0).standard_normal((N, 12, 12, 3)).astype(np.float32)


def rows(y):
    return y.reshape(-1, y.shape[-1])


def test_the_tensors_are_those_before_and_after_the_activation_and_after_the_sum():
    """Go through the blocks one after the other, and the batch norm of each by hand."""
    model, x = small_net(bottleneck="relu6"), images()
    before_all = model.state_dict()
    found = measures(model, x)
    fakes.assert_same_bits(model.state_dict(), before_all)
    y = model.stem(x)
    for k, (block, one) in enumerate(zip(model.blocks, found, strict=True)):
        inside = block.expand_bn(block.expand(y)) if hasattr(block, "expand") else y
        z = block.project(block.depthwise_bn(block.depthwise(inside)))
        bn = block.project_bn
        z = (z - bn.running_mean) / np.sqrt(bn.running_var + bn.eps) * bn.gamma.value + bn.beta.value
        out = np.clip(z, 0, 6)
        tensors = {"before": z, "branch": out, "output": y + out if block.adds_input else out}
        for name, tensor in tensors.items():
            s = manifold.singular_values(rows(tensor))
            assert one[name]["singular_values"] == pytest.approx(s, rel=1e-3, abs=1e-3 * s[0]), (k, name)
            assert one[name]["effective_rank"] == pytest.approx(manifold.effective_rank(s), rel=1e-3)
        recovered = manifold.explained(rows(z), manifold.regression(rows(z), rows(out)))
        assert one["recovered"] == pytest.approx(recovered, rel=1e-3) and recovered < 0.999
        assert (one["name"], one["adds_input"]) == (f"blocks.{k}", block.adds_input)
        assert one["branch"]["zero"] > 0 == one["before"]["zero"]
        y = block(y)
    assert not any(module.observers for _, module in model.named_modules())


def test_a_linear_bottleneck_loses_nothing():
    for one in measures(small_net(), images()):
        assert one["recovered"] == pytest.approx(1, abs=1e-6) and one["before"] == one["branch"]
        assert (one["output"] == one["branch"]) is not one["adds_input"]


def test_dead_channels_and_ranks_are_counted():
    y = np.random.default_rng(0).standard_normal((100, 4)).clip(0, 6)
    y[:, 1], y[:, 2], y[:3, 3] = 0, y[:, 0], 6
    found = measures_of(y)
    assert found["dead"] == 0.25 and found["rank"] == 2
    assert found["zero"] == pytest.approx(np.mean(y == 0)) and found["six"] == pytest.approx(3 / 400)
    assert len(found["singular_values"]) == 4 and 1 < found["effective_rank"] < 2


def test_a_network_in_which_nothing_is_left_can_be_measured():
    """All channels dead: no variance, nothing to recover, and no warning."""
    model = small_net(bottleneck="relu6", shortcut="none")
    for block in model.blocks[2:4]:
        block.project_bn.beta.value = np.full(block.project_bn.beta.shape, -1e3)
    found = measures(model, images())
    assert found[2]["branch"]["dead"] == 1 and found[2]["branch"]["effective_rank"] == 0
    assert found[2]["recovered"] == pytest.approx(0, abs=1e-6)
    found[-1]["recovered"] = None  # of a tensor that does not vary at all
    content = fake_record("linear", bottlenecks=found, diverged=None) | {
        "final": {"accuracy": 0.1}, "cost": {"params": 1, "macs": 2},
    }  # fmt: skip
    text = linear_bottlenecks.summary(Records(EXPERIMENT, [Record(content)]))
    numbers = [line for line in text.splitlines() if line.startswith("linear")][1].split()
    assert float(numbers[-1][:-1]) == pytest.approx(100 * np.mean([one["recovered"] for one in found[:-1]]), abs=0.01)
    dead = np.mean([one["branch"]["dead"] for one in found])
    assert float(numbers[-2][:-1]) == pytest.approx(100 * dead, abs=0.01) and dead >= 2 / 7


def test_the_numbers_of_each_block_are_put_together():
    def record(seed, value, **more):
        blocks = [{"recovered": value, "branch": {"singular_values": [1.0] * 8, "dead": value}}] * 3
        return Record(fake_record("relu6", seed, bottlenecks=blocks, **more))

    found = Records(EXPERIMENT, [record(0, 0.5), record(1, None), record(2, 0.7, diverged={"step": 3})])
    np.testing.assert_array_equal(per_block(found, "relu6", "recovered"), [[0.5] * 3, [np.nan] * 3])
    assert per_block(found, "relu6", "dead", "branch").shape == (2, 3)
    assert per_block(found, "relu6", "channels", "branch").tolist() == [[8.0] * 3] * 2
