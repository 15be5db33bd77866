"""Section 4.2 and 4.3: the variants are the paper's, they train, and the table and the ensemble are counted right."""

import numpy as np
import pytest

from npnets import datasets, experiments
from npnets.experiments import batch_norm
from npnets.experiments.batch_norm import EXPERIMENT, VARIANTS
from npnets.experiments.records import Record, Records
from tests import fakes
from tests.experiments import captured, changed, fake_record, numbers

TINY = {"epochs": 1, "width_mult": 0.1, "train_images": 64, "test_images": 20, "evaluate_every": 2, "dropout": 0.1}


def settings(variant, seed=0):
    return EXPERIMENT.settings_of(variant, seed)


def record(variant, seed, accuracy, *, final=0.5, arrays=None, **more):
    final = None if final is None else {"accuracy": final}
    steps = [250 * (k + 1) for k in range(len(accuracy))]
    content = fake_record(variant, seed, accuracy, steps, final=final, diverged=None, **more)
    return Record(content, arrays)


# --- The variants ----------------------------------------------------------------------------------------------------


def test_bn_baseline_is_the_baseline_with_batch_norm_and_nothing_else():
    assert changed(EXPERIMENT, "bn_baseline", "baseline") == {"batch_norm": True, "epochs": 4}


def test_bn_x5_makes_all_changes_of_the_paper():
    found = changed(EXPERIMENT, "bn_x5", "bn_baseline")
    assert found.keys() == {
        "times", "dropout", "shuffle_shards", "weight_decay", "decays", "local_response_norm", "distortion",
    }  # fmt: skip
    assert (found["times"], found["decays"], found["dropout"]) == (5, 6, 0.0)
    assert settings("baseline")["weight_decay"] / found["weight_decay"] == pytest.approx(5)
    assert found["shuffle_shards"] and not found["local_response_norm"] and 0 < found["distortion"] < 1


def test_bn_x30_and_the_sigmoid_differ_from_bn_x5_in_one_thing():
    assert changed(EXPERIMENT, "bn_x30", "bn_x5") == {"times": 30}
    assert changed(EXPERIMENT, "bn_x5_sigmoid", "bn_x5") == {"activation": "sigmoid"}
    assert changed(EXPERIMENT, "baseline_x5", "baseline") == {"times": 5, "epochs": 4}


@pytest.mark.parametrize("variant", [name for name in batch_norm.SINGLE if name.startswith("bn_x5")])
def test_a_single_change_is_one(variant):
    assert len(changed(EXPERIMENT, variant, "bn_x5")) == 1


def test_six_networks_with_seeds_of_their_own_form_the_ensemble():
    seeds = [batch_norm.SEEDS[variant] for variant in batch_norm.ENSEMBLE]
    assert len(set(seeds)) == len(seeds) == 6
    for variant in batch_norm.ENSEMBLE:
        found = changed(EXPERIMENT, variant, "bn_x30")
        assert found.keys() <= {"dropout", "init_scale", "keep_probabilities"} and found["keep_probabilities"]
        assert found.get("dropout", 0.0) in (0.0, 0.05, 0.1)


def test_the_headline_has_three_seeds():
    assert {batch_norm.SEEDS[variant] for variant in batch_norm.HEADLINE} == {(0, 1, 2)}


# --- Training --------------------------------------------------------------------------------------------------------


def arguments(variant, **changes):
    """Return what a variant gives to ``fit``."""
    return captured(
        EXPERIMENT, variant, **(TINY | {"dropout": settings(variant)["dropout"], "width_mult": 0.5} | changes)
    )


def test_the_settings_arrive_in_the_training():
    base, x30 = arguments("baseline"), arguments("bn_x30")
    rate = settings("baseline")["learning_rate"]
    assert base["schedule"](0) == pytest.approx(rate) and x30["schedule"](0) == pytest.approx(30 * rate)
    assert base["schedule"](2) == pytest.approx(rate * 0.86)  # an epoch has two steps here
    assert x30["schedule"](2) == pytest.approx(30 * rate * 0.86**6)
    assert base["order"] == (batch_norm.SHARD, False) and x30["order"] == (batch_norm.SHARD, True)
    assert "weight_decay=0.001" in repr(base["optimizer"]) and "weight_decay=0.0002" in repr(x30["optimizer"])
    kinds = [[layer.kind for _, layer in one["model"].named_modules() if hasattr(layer, "kind")] for one in (base, x30)]
    assert "batch norm" not in kinds[0] and "batch norm" in kinds[1]
    assert base["model"].dropout.rate == 0.4 and x30["model"].dropout.rate == 0.0
    assert hasattr(base["model"].stem, "norm1") and not hasattr(x30["model"].stem, "norm1")


def test_the_settings_of_the_model_arrive_in_it():
    rates = {variant: arguments(variant)["model"].dropout.rate for variant in ("bn_x5_dropout", "ensemble_2", "bn_x5")}
    assert rates == {"bn_x5_dropout": 0.4, "ensemble_2": 0.05, "bn_x5": 0.0}
    scaled, plain = (arguments(variant)["model"].stem.conv1.conv.w.value for variant in ("ensemble_4", "ensemble_1"))
    assert np.array_equal(scaled, 2 * plain)
    kinds = [type(layer).__name__ for _, layer in arguments("bn_x5_sigmoid")["model"].named_modules()]
    assert "Sigmoid" in kinds and "ReLU" not in kinds
    assert hasattr(arguments("bn_x5_lrn")["model"].stem, "norm1")


def test_the_seed_decides_weights_and_what_fit_draws():
    one, other = arguments("bn_x5", seed=7), arguments("bn_x5", seed=8)
    assert (one["seed"], other["seed"]) == (7, 8)
    assert not np.array_equal(one["model"].stem.conv1.conv.w.value, other["model"].stem.conv1.conv.w.value)


def test_a_distortion_of_no_strength_changes_nothing_and_a_weaker_one_less():
    images = fakes.dataset(20, channels=3).images
    changes = []
    for strength in (0.0, 0.25, 1.0):
        distorted = batch_norm.distorted(strength)(images, np.random.default_rng(1))
        changes.append(np.abs(distorted.astype(int) - images).mean())
    assert changes[0] == 0 and 0 < 2 * changes[1] < changes[2]


@pytest.mark.parametrize("variant", ["baseline", "bn_x5", "bn_x5_sigmoid", "bn_x5_lrn", "ensemble_6"])
def test_each_kind_of_variant_trains(variant, monkeypatch):
    monkeypatch.setattr(datasets, "load", lambda name, split, root: fakes.dataset(100, size=32, channels=3, name=name))
    monkeypatch.setattr(batch_norm, "SHARD", 32)
    for name, value in TINY.items():
        monkeypatch.setitem(EXPERIMENT.small, name, value)
    (found,) = experiments.small("batch_norm", [variant], jobs=1, threads=1)
    assert found.settings["train"] == "cifar10-first-64"
    assert found["evaluations"]["step"] == [2] and found["evaluations"]["images"] == 20
    assert found["final"]["images"] == 20
    assert found["final"]["accuracy"] == pytest.approx(found.best())
    assert bool(found.arrays) == (variant == "ensemble_6")
    if found.arrays:
        p = np.exp(found.arrays["log_probabilities"].astype(np.float64))
        assert p.shape == (20, 4) and p.sum(axis=1) == pytest.approx(np.ones(20), abs=0.02)
        assert np.mean(p.argmax(axis=1) == found.arrays["labels"]) == pytest.approx(found["final"]["accuracy"])


def test_the_logarithms_of_probabilities_are_those_of_a_softmax():
    model, data = fakes.net(), fakes.dataset(30)
    model.classifier.w.value = np.random.default_rng(0).normal(size=model.classifier.w.shape)
    found = batch_norm.log_probabilities(model, data, 0.0, 1.0, batch_size=7)
    logits = model((data.images / 255).astype(np.float32)).astype(np.float64)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert np.exp(found) == pytest.approx(expected, rel=1e-4)


# --- The table and the ensemble --------------------------------------------------------------------------------------


@pytest.fixture
def some_records():
    """Two seeds of the baseline, whose lower best accuracy is 0.6, and four variants."""
    return Records(
        EXPERIMENT,
        [
            record("baseline", 0, (0.3, 0.5, 0.6, 0.6)),
            record("baseline", 1, (0.3, 0.6, 0.5, 0.7)),
            record("bn_x5", 0, (0.6, 0.8), final=0.7),
            record("bn_x5", 1, (0.5, 0.9), final=0.8),
            record("bn_x30", 0, (0.6, 0.5)),
            record("bn_x30", 1, (0.5, 0.5)),
            record("bn_baseline", 0, (0.1, 0.2)),
            record("baseline_x5", 0, (), final=None),
        ],
    )


def test_the_table_counts_steps_to_the_baselines_accuracy(some_records):
    assert batch_norm.target(some_records) == 0.6
    rows = {row.variant: row for row in batch_norm.compare(some_records)}
    assert list(rows) == ["baseline", "baseline_x5", "bn_baseline", "bn_x5", "bn_x30"]
    assert (rows["baseline"].steps, rows["baseline"].speed_up) == (625.0, 1.0)  # of 750 and 500
    assert (rows["bn_x5"].steps, rows["bn_x5"].speed_up) == (375.0, 625 / 375)  # of 250 and 500
    assert (rows["bn_x5"].best, rows["bn_x5"].lowest, rows["bn_x5"].highest) == (pytest.approx(0.85), 0.8, 0.9)
    assert rows["bn_x5"].final == pytest.approx(0.75)
    assert (rows["bn_x30"].reached, rows["bn_x30"].steps, rows["bn_x30"].speed_up) == (1, None, None)
    assert (rows["bn_baseline"].reached, rows["baseline_x5"].diverged, rows["baseline_x5"].final) == (0, 1, None)


def test_steps_are_counted_to_another_accuracy_too(some_records):
    rows = {row.variant: row for row in batch_norm.compare(some_records, accuracy=0.5)}
    assert (rows["baseline"].steps, rows["bn_x5"].steps, rows["bn_x30"].speed_up) == (500.0, 250.0, 2.0)
    with pytest.raises(ValueError, match=r"not every baseline reached 65\.0%; all of them reached 60\.0%"):
        batch_norm.compare(some_records, accuracy=0.65)


def test_the_table_is_printed(some_records):
    lines = {line.split()[0]: line for line in batch_norm.summary(some_records).splitlines()}
    assert "steps to 60.0%" in lines["network"]
    assert "375       1.7  85.00% (80.00% to 90.00%)      75.00%" in lines["bn_x5"]
    assert "1 of 2" in lines["bn_x30"] and "never" in lines["bn_baseline"] and "1 diverged" in lines["baseline_x5"]


def test_without_a_baseline_the_table_is_a_plain_one():
    text = batch_norm.summary(Records(EXPERIMENT, [record("bn_x5", 0, (0.5, 0.8))]))
    assert text.splitlines()[0].startswith("variant") and "80.00%" in text


def members(count=3):
    labels = numbers(40)[1].astype(np.uint8)
    names = list(batch_norm.ENSEMBLE)
    each = [numbers(40, seed=k)[0] for k in range(count)]
    records = [
        record(names[k], k, (0.5,), arrays={"log_probabilities": np.log(p).astype(np.float16), "labels": labels})
        for k, p in enumerate(each)
    ]
    return records, np.array(each), labels


def test_the_ensemble_averages_probabilities():
    records, each, labels = members()
    found = batch_norm.ensemble(Records(EXPERIMENT, [*records, record("bn_x5", 0, (0.5,))]))
    assert list(found.members) == ["ensemble_1", "ensemble_2", "ensemble_3"]
    assert found.probabilities == pytest.approx(each, rel=5e-3, abs=1e-6)
    assert found.average.accuracy == np.mean(each.mean(axis=0).argmax(axis=1) == labels)
    of_label = each.mean(axis=0)[np.arange(40), labels]
    assert found.average.negative_log_likelihood == pytest.approx(-np.log(of_label).mean(), rel=1e-2)
    text = batch_norm.summary(Records(EXPERIMENT, records))
    assert text.splitlines()[-1].startswith("their average") and "negative log likelihood" in text


def test_an_ensemble_needs_probabilities_of_the_same_images():
    records, _, labels = members(2)
    records[1].arrays["labels"] = labels[::-1].copy() + 1
    with pytest.raises(ValueError, match="tested on different images"):
        batch_norm.ensemble(Records(EXPERIMENT, records))
    with pytest.raises(ValueError, match="no record has class probabilities; run ensemble_1"):
        batch_norm.ensemble(Records(EXPERIMENT, [record("bn_x5", 0, (0.5,))]))


def test_variants_are_listed_once():
    assert len(VARIANTS) == len(batch_norm.HEADLINE) + len(batch_norm.SINGLE) + len(batch_norm.ENSEMBLE)
