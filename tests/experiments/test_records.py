"""Records: read back, put in order, summarised over seeds."""

import json

import numpy as np
import pytest

import tests.experiments as tiny
from npnets import experiments
from npnets.experiments import records
from npnets.experiments.records import Record, Records
from tests.experiments import fake_record


def made(*contents):
    return Records(tiny.TINY, [Record(content) for content in contents])


def test_records_come_in_the_order_of_the_experiment_and_of_the_seeds():
    found = made(fake_record("fast", 2), fake_record("slow", 1), fake_record("fast", 0), fake_record("gone", 0))
    assert [(r.variant, r.seed) for r in found] == [("slow", 1), ("fast", 0), ("fast", 2)]
    assert found.variants == ["slow", "fast"] and len(found) == 3
    assert [r.seed for r in found.of("fast")] == [0, 2]


def test_a_curve_has_the_mean_and_the_spread_of_the_seeds():
    curve = made(fake_record(seed=0, accuracy=(0.1, 0.5, 0.4)), fake_record(seed=1, accuracy=(0.3, 0.7, 0.8))).curve(
        "slow"
    )
    assert curve.steps.tolist() == [4, 8, 12]
    assert curve.each.tolist() == [[0.1, 0.5, 0.4], [0.3, 0.7, 0.8]]
    assert curve.mean.tolist() == pytest.approx([0.2, 0.6, 0.6])
    assert (curve.low.tolist(), curve.high.tolist()) == ([0.1, 0.5, 0.4], [0.3, 0.7, 0.8])


def test_where_one_seed_has_ended_there_is_no_mean():
    curve = made(fake_record(seed=0), fake_record(seed=1, accuracy=(0.3,), steps=(4,))).curve("slow")
    other = made(fake_record(seed=0), fake_record(seed=1, accuracy=(0.3,), steps=(10,))).curve("slow")
    assert other.steps.tolist() == [4, 8, 10, 12]
    assert [np.flatnonzero(~np.isnan(row)).tolist() for row in other.each] == [[0, 1, 3], [2]]
    assert curve.steps.tolist() == [4, 8, 12]
    assert np.isnan(curve.mean).tolist() == [False, True, True]
    assert curve.each[0].tolist() == [0.1, 0.5, 0.4]


def test_steps_to_an_accuracy_are_those_of_the_first_time():
    found = made(fake_record(seed=0, accuracy=(0.1, 0.5, 0.4)), fake_record(seed=1, accuracy=(0.5, 0.2, 0.3)))
    assert found.steps_to("slow", 0.5) == [8, 4]
    assert found.steps_to("slow", 0.51) == [None, None]
    assert found.best("slow").tolist() == [0.5, 0.5]


def test_without_evaluations_along_the_way_those_of_the_epochs_count():
    epochs = [
        {"step": 6, "test_accuracy": 0.2, "test_loss": None, "learning_rate": 0.1},
        {"step": 12, "test_accuracy": 0.6, "test_loss": 1.5, "learning_rate": 0.05},
    ]
    content = fake_record(history={"epochs": epochs, "losses": [[1, 2.0], [2, 1.0]]})
    del content["evaluations"]
    record = Record(content)
    assert [part.tolist() for part in record.curve("test_accuracy")] == [[6, 12], [0.2, 0.6]]
    assert [part.tolist() for part in record.curve("train_loss")] == [[1, 2], [2.0, 1.0]]
    assert [part.tolist() for part in record.curve("learning_rate")] == [[6, 12], [0.1, 0.05]]
    assert np.isnan(record.curve("test_loss")[1][0])
    assert (record.best(), record.steps_to(0.5)) == (0.6, 12)
    for epoch in epochs:
        epoch["test_accuracy"] = None  # trained without a test set
    assert (record.best(), record.steps_to(0.0)) == (0.0, None)


def test_a_run_that_diverged_before_the_first_evaluation_has_no_accuracy():
    record = Record(fake_record(accuracy=(), steps=(), diverged={"step": 3, "message": "the loss is nan"}))
    assert (record.best(), record.steps_to(0.1)) == (0.0, None) and np.isnan(record.last())
    assert "(1 diverged)" in made(record.content).to_text()


def test_unknown_names_are_refused_with_the_closest_ones():
    found = made(fake_record())
    with pytest.raises(ValueError, match="not recorded variant of tiny 'fast'; there are slow"):
        found.of("fast")
    with pytest.raises(ValueError, match="unknown part of the record 'secnds'; did you mean seconds"):
        _ = found.of("slow")[0]["secnds"]
    history = {"epochs": [{"step": 6, "test_accuracy": 0.2}], "losses": []}
    with pytest.raises(ValueError, match="unknown quantity 'test_acuracy'; did you mean test_accuracy"):
        Record(fake_record(history=history)).curve("test_acuracy")


def test_the_table_tells_what_each_variant_reached():
    text = made(
        fake_record(seed=0), fake_record(seed=1, accuracy=(0.1, 0.9, 0.7)), fake_record("fast", seconds=300.0)
    ).to_text()
    slow, fast = text.splitlines()[2:]
    assert slow.split() == ["slow", "2", "2", "55.00%", "40.00%", "70.00%", "70.00%", "60", "s"]
    assert fast.split() == ["fast", "1", "2", "40.00%", "40.00%", "40.00%", "50.00%", "5", "min"]


def test_a_run_that_diverged_late_has_no_accuracy_in_the_end():
    lost = fake_record(seed=1, accuracy=(0.1, 0.9, 0.2), diverged={"step": 7, "message": "the loss is nan"})
    row = made(fake_record(seed=0), lost).to_text().splitlines()[2]
    assert row.split() == ["slow", "2", "2", "40.00%", "(1", "diverged)", "40.00%", "40.00%", "70.00%", "60", "s"]


def test_numbers_that_are_not_finite_are_none():
    assert records.rounded([1.23456789, np.nan, np.inf]) == [1.2346, None, None]


def test_records_are_read_back_with_their_arrays(tiny_experiment):
    ran = experiments.run("tiny", ["fast"], [0, 1], jobs=1, out=tiny_experiment / "results")
    tiny.assert_same(ran, experiments.load("tiny"))
    tiny.assert_same(ran, experiments.load("tiny", tiny_experiment / "results"))
    assert all(record.arrays for record in ran)


@pytest.mark.parametrize("damage", ["{}", "[]", '{"variant": "fast"}', "no json"])
def test_a_file_that_is_no_record_is_refused_by_name(damage, tmp_path):
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "fast-seed0.json").write_text(damage)
    with pytest.raises(ValueError, match=r"fast-seed0.json is not the record of a run"):
        records.read_all(tiny.TINY, tmp_path)


def test_damaged_arrays_are_refused_by_name(tmp_path):
    path = tmp_path / "tiny" / "fast-seed0.json"
    path.parent.mkdir()
    path.write_text(json.dumps(fake_record("fast")))
    path.with_suffix(".npz").write_bytes(b"PK" + bytes(100))
    with pytest.raises(ValueError, match=r"fast-seed0.json is not the record of a run"):
        records.read_all(tiny.TINY, tmp_path)


def test_the_list_tells_what_there_is_and_what_is_missing(tiny_experiment):
    experiments.run("tiny", ["slow", "endless"], [0], jobs=1, out=tiny_experiment / "results")
    lines = experiments.describe()
    start = lines.index("tiny: no paper: a network of one hidden layer")
    assert lines[start + 1].startswith("  1 of 4 runs are recorded, ") and lines[start + 1].endswith(" on mnist")
    assert [line.split()[0] for line in lines[start + 4 : start + 6]] == ["slow", "endless"]
    assert lines[start + 6] == "  missing: fast (seed 0), slow (seed 1), endless (seed 3)"
    assert lines[0].startswith("activations: ") and lines[1] == "  0 of 6 runs are recorded"
    assert lines[2] == "  variants (how many seeds): baseline (3), batch_norm (3)"
