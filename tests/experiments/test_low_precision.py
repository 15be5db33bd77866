"""ReLU or ReLU6 with few bits: the networks differ in that alone, and each mode rounds what it says."""

import numpy as np
import pytest

from npnets import experiments, nn, training
from npnets.augment import channel_statistics, normalize
from npnets.experiments import low_precision
from npnets.experiments.low_precision import EXPERIMENT, MODES, in_low_precision
from npnets.experiments.records import Record, Records
from npnets.quantization import Rounded, output_ranges, quantized, with_relu6_ranges
from tests import fakes
from tests.experiments import captured, changed, fake_record
from tests.nn import randomize

TINY = {
    "epochs": 1, "batch_size": 16, "warmup": 1, "width_mult": 0.25, "train_images": 32, "test_images": 20,
    "calibration_images": 16, "evaluated_images": 10, "bits": (8, 2),
}  # fmt: skip


def test_the_networks_differ_in_their_activation():
    assert changed(EXPERIMENT, "relu", "relu6") == {"activation": "relu"}
    for variant in EXPERIMENT.variants:
        model = captured(EXPERIMENT, variant)["model"]
        norms = {path: part.activation for path, part in model.named_modules() if isinstance(part, nn.BatchNorm)}
        assert {name for path, name in norms.items() if not path.endswith("project_bn")} == {variant}
    assert EXPERIMENT.seeds == {"relu6": (0, 1, 2), "relu": (0, 1, 2)}
    assert EXPERIMENT.settings["bits"] == (8, 6, 5, 4, 3)


def test_both_train_and_are_evaluated_in_every_mode(made_up_images, monkeypatch):
    for name, value in TINY.items():
        monkeypatch.setitem(EXPERIMENT.small, name, value)
    found = experiments.small("low_precision", jobs=1, threads=1)
    for record in found:
        low = record["low_precision"]
        fixed = {"activations_fixed", "both_fixed"}
        assert set(low["modes"]) == (set(MODES) if record.variant == "relu6" else set(MODES) - fixed)
        assert low["bits"] == [8, 2]
        for mode in low["modes"].values():
            assert len(mode["accuracy"]) == len(mode["loss"]) == 2
        assert {path.split(".")[-1] for path in low["ranges"]} >= {"conv", "expand", "depthwise", "project", "0"}
        assert set(low["weights"]) == {name for name in low["weights"] if name.endswith(".w")} and low["weights"]
    text = EXPERIMENT.report(found)
    assert text.count("both_per_channel") == 2 and text.count("both_fixed") == 1 and "8 bits" in text


def small_case(activation="relu6"):
    """Return a network, settings and data for ``in_low_precision``."""
    model = randomize(fakes.net(in_channels=3))
    model.classifier.w.value *= 50  # so that small errors count
    train, test = (fakes.dataset(40, channels=3, seed=seed) for seed in (0, 1))
    settings = TINY | {"activation": activation, "evaluated_images": 1000, "bits": (8, 4)}
    return model, settings, experiments.Data(train, test)


def test_each_mode_rounds_what_it_says():
    model, settings, data = small_case()
    found = in_low_precision(model, settings, data)
    mean, std = channel_statistics(data.train.images)
    calibration = normalize(data.train.images[:16], mean, std)
    seen = output_ranges(model, [calibration])
    fixed = with_relu6_ranges(model, seen)
    for path, one in found["ranges"].items():
        assert one == pytest.approx(seen[path], rel=1e-4)
    by_hand = {
        "weights": lambda b: quantized(model, weights=b),
        "weights_per_channel": lambda b: quantized(model, weights=b, per_channel=True),
        "activations": lambda b: quantized(model, activations=b, ranges=seen),
        "activations_fixed": lambda b: quantized(model, activations=b, ranges=fixed),
        "both": lambda b: quantized(model, weights=b, activations=b, ranges=seen),
        "both_fixed": lambda b: quantized(model, weights=b, activations=b, ranges=fixed),
        "both_per_channel": lambda b: quantized(model, weights=b, activations=b, ranges=seen, per_channel=True),
    }
    losses = {}
    for mode, network in by_hand.items():
        for k, bits in enumerate(settings["bits"]):
            evaluated = training.evaluate(network(bits), data.test, mean=mean, std=std)
            losses[mode, bits] = found["modes"][mode]["loss"][k]
            assert losses[mode, bits] == pytest.approx(evaluated.loss, rel=1e-4), (mode, bits)
            assert found["modes"][mode]["accuracy"][k] == evaluated.accuracy
    assert len(set(losses.values())) == len(losses)  # no two modes do the same
    whole = training.evaluate(model, data.test, mean=mean, std=std)
    assert found["float"]["loss"] == pytest.approx(whole.loss, rel=1e-4)


def test_so_many_images_are_evaluated():
    model, settings, data = small_case()
    few = in_low_precision(model, settings | {"evaluated_images": 7, "bits": (8,)}, data)
    mean, std = channel_statistics(data.train.images)
    first = fakes.Dataset(data.test.images[:7], data.test.labels[:7], "first", data.test.class_names)
    expected = training.evaluate(model, first, mean=mean, std=std)
    assert few["float"]["loss"] == pytest.approx(expected.loss, rel=1e-4)


def test_relu_has_no_fixed_range():
    model, settings, data = small_case("relu")
    found = in_low_precision(model, settings | {"bits": (8,)}, data)["modes"]
    assert not any(name.endswith("fixed") for name in found) and len(found) == 5


def test_the_spread_of_the_channels_is_told():
    w = np.zeros((3, 3, 4), np.float32)
    w[1, 1] = [0.5, -8.0, 2.0, 4.0]
    assert low_precision._spread(w) == {"largest": 8.0, "channels": [0.5, 3.0, 8.0]}


def test_accuracies_are_put_together_over_the_seeds():
    def record(seed, accuracy, **more):
        low = {"bits": [8, 4], "float": {"accuracy": 0.75}, "modes": {"both": {"accuracy": accuracy}}}
        low["modes"]["weights"] = low["modes"]["both"]
        extra = {"final": {"accuracy": 0.7}, "cost": {"params": 1, "macs": 2}, "diverged": None, "low_precision": low}
        return Record(fake_record("relu", seed, **(extra | more)))

    lost = record(2, [0, 0], diverged={"step": 3}, final=None)
    records = Records(EXPERIMENT, [record(0, [0.7, 0.5]), record(1, [0.8, 0.1]), lost])
    bits, each = low_precision.accuracies(records, "relu", "both")
    assert bits == [8, 4] and each.tolist() == [[0.7, 0.5], [0.8, 0.1]]
    (line,) = [line for line in EXPERIMENT.report(records).splitlines() if line.startswith("both")]
    assert line.split() == ["both", "75.00%", "30.00%"]
    assert "75.00% in float32" in EXPERIMENT.report(records) and "(1 diverged)" in EXPERIMENT.report(records)


def test_the_folded_network_is_the_one_that_is_rounded():
    model, _, data = small_case()
    mean, std = channel_statistics(data.train.images)
    ranges = output_ranges(model, [normalize(data.train.images, mean, std)])
    small = low_precision._in_mode(nn.fold_batch_norm(model), 4, {"seen": ranges}, ranges="seen")
    kinds = [type(part) for _, part in small.named_modules()]
    assert nn.BatchNorm not in kinds and kinds.count(Rounded) == len(ranges)
