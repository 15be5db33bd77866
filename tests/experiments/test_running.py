"""Runs: what they leave, that nothing is done twice, and that an interrupted one ends in the same bits."""

import dataclasses
import json

import numpy as np
import pytest

import tests.experiments as tiny
from npnets import datasets, experiments, optim
from npnets.experiments import running, single
from npnets.experiments.evaluations import Evaluations
from npnets.experiments.experiment import load_data
from npnets.training import Interrupted
from tests import fakes

pytestmark = pytest.mark.usefixtures("tiny_experiment")


class At:
    """A callback that does something after one of the steps, once."""

    def __init__(self, step, action):
        self.step, self.action = step, action

    def after_step(self, step):
        if step == self.step:
            self.step = None
            self.action()


def run(*variants, seeds=(0,), out="out", **settings):
    return experiments.run("tiny", variants or ["slow"], seeds, jobs=1, threads=1, out=out, **settings)


def trained(monkeypatch):
    """Return a list that gets the (learning rate, seed) of every training that is started from now on."""
    started = []

    def train(settings, data, fit):
        started.append((settings["learning_rate"], settings["seed"]))
        return tiny.train(settings, data, fit)

    monkeypatch.setitem(experiments.EXPERIMENTS, "tiny", dataclasses.replace(tiny.TINY, train=train))
    return started


# --- What a run leaves -----------------------------------------------------------------------------------------------


def test_a_record_holds_all_that_is_needed_to_judge_it(here):
    run("fast", seeds=[7], command="python -m npnets experiment tiny")
    assert {str(path.relative_to(here)) for path in here.rglob("*") if path.is_file()} == {
        "out/tiny/fast-seed7.json",
        "out/tiny/fast-seed7.npz",
    }
    record = json.loads((here / "out/tiny/fast-seed7.json").read_text())
    assert (record["experiment"], record["variant"], record["seed"]) == ("tiny", "fast", 7)
    expected = {"dataset": "mnist", "train": "mnist", "test": "mnist", "learning_rate": 0.3, "epochs": 2, "seed": 7}
    assert expected.items() <= record["settings"].items()
    assert len(record["history"]["epochs"]) == 2 and record["history"]["losses"]
    assert record["evaluations"]["step"] == [4, 8, 12] and record["diverged"] is None
    assert record["command"] == "python -m npnets experiment tiny" and record["seconds"] > 0
    assert {"commit", "numpy", "npnets", "cores", "jobs", "threads"} <= record["environment"].keys()


def test_the_same_seed_gives_the_same_bits_and_another_one_other_weights_order_and_draws():
    one, two, other = run(seeds=[5]), run(seeds=[5], out="again"), run(seeds=[6])
    tiny.assert_same(one, two)
    (a,), (b,) = one, other
    assert not np.array_equal(a.arrays["hidden.0.linear.w"], b.arrays["hidden.0.linear.w"])
    assert a["history"]["losses"][0] != b["history"]["losses"][0]


def test_runs_are_made_seed_by_seed_so_that_variants_can_be_compared_early(monkeypatch):
    started = trained(monkeypatch)
    run("slow", "fast", seeds=[4, 2])
    assert started == [(0.1, 2), (0.3, 2), (0.1, 4), (0.3, 4)]


def test_without_seeds_every_variant_has_its_own():
    records = experiments.run("tiny", jobs=1, out="out")
    assert [(r.variant, r.seed) for r in records] == [("slow", 0), ("slow", 1), ("fast", 0), ("endless", 3)]


def test_a_diverged_training_is_a_result():
    (record,) = run("endless")
    assert record.diverged["step"] >= 1 and "not finite" not in record.diverged["message"]
    assert "learning rate" in record.diverged["message"]
    assert "diverged at step" in running.sentence(record)
    assert json.loads(json.dumps(record.content))["diverged"] == record.diverged


def test_a_subset_names_itself_in_the_settings():
    (record,) = experiments.small("tiny", ["slow"], jobs=1)
    assert record.settings["train"] == "mnist-first-64" and record.settings["test"] == "mnist"


def test_the_small_form_writes_nothing(here):
    records = experiments.small("tiny", ["slow", "fast"], seeds=[0, 1], jobs=1)
    assert len(records) == 4 and records.of("slow")[0].settings["epochs"] == 1
    assert not list(here.iterdir())


def test_every_setting_can_be_another_one(monkeypatch):
    started = trained(monkeypatch)
    slow, fast = run("slow", "fast", settings={"learning_rate": 0.2, "epochs": 9}, epochs=1)
    assert started == [(0.2, 0), (0.2, 0)]
    for record in (slow, fast):
        assert record.settings["learning_rate"] == 0.2 and record.settings["epochs"] == 1
    assert run(settings={"epochs": 1}, out="short").of("slow")[0].settings["epochs"] == 1
    for name in ("learning_rat", "seed", "small"):
        with pytest.raises(ValueError, match=f"unknown setting of tiny '{name}'"):
            run(settings={name: 1})
    with pytest.raises(ValueError, match=r"learning_rate was 0\.2, now 0\.1"):
        run()


def test_a_small_form_asks_for_no_more_images_than_there_are():
    settings = tiny.TINY.settings_of("slow", 0) | {"train_images": 10**6, "test_images": 3}
    data = load_data(settings)
    assert len(data.train) == 200 and len(data.test) == 3


# --- Nothing is done twice -------------------------------------------------------------------------------------------


def test_what_is_recorded_is_not_run_again(monkeypatch):
    first = run("slow", "fast")
    started = trained(monkeypatch)
    again = run("slow", "fast", seeds=[0, 1])
    assert started == [(0.1, 1), (0.3, 1)]
    tiny.assert_same(first, [record for record in again if record.seed == 0])


def test_what_was_recorded_with_other_settings_is_refused_before_anything_is_run(here, monkeypatch):
    run("slow")
    started, before = trained(monkeypatch), (here / "out/tiny/slow-seed0.json").read_bytes()
    with pytest.raises(ValueError, match=r"slow-seed0.json was recorded with other settings \(epochs was 2, now 1\)"):
        run("fast", "slow", epochs=1)
    assert not started and (here / "out/tiny/slow-seed0.json").read_bytes() == before
    assert not (here / "out/tiny/fast-seed0.json").exists()


def test_again_replaces_what_was_recorded_with_other_settings_and_only_that(monkeypatch):
    run("slow", epochs=1)
    run("fast")
    started = trained(monkeypatch)
    run("slow", "fast", again=True)
    assert started == [(0.1, 0)]
    assert run("slow").of("slow")[0].settings["epochs"] == 2


def test_another_data_set_is_another_setting():
    run("slow")
    with pytest.raises(ValueError, match=r"dataset was 'mnist', now 'cifar10'.*train was 'mnist'"):
        run("slow", dataset="cifar10")


def test_a_damaged_record_is_refused_by_name(here):
    run("slow")
    path = here / "out/tiny/slow-seed0.json"
    path.write_text(path.read_text()[:100])
    with pytest.raises(ValueError, match=r"slow-seed0.json is not the record of a run.*move it away"):
        run("slow")


# --- Interrupted -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [0, 4, 5, 9])
def test_a_run_that_was_interrupted_goes_on_to_the_same_bits(step, here):
    whole = run(out="whole")
    tiny.CALLBACKS.append(At(step, fakes.ctrl_c))
    with pytest.raises(KeyboardInterrupt, match=r"0 of 1 runs done.*saved; continue with: the command"):
        run(command="the command")
    assert len(list(here.glob("runs/experiments/tiny/slow-seed0-*/fit1.npz"))) == 1
    tiny.CALLBACKS.clear()
    steps = []
    tiny.CALLBACKS.append(type("Steps", (), {"after_step": lambda self, step: steps.append(step)})())
    tiny.assert_same(run(), whole)
    assert steps[0] == step + 1  # it went on, and did not start again
    assert not list(here.rglob("fit1.npz"))  # what is recorded needs no checkpoint


def test_a_run_that_was_killed_goes_on_to_the_same_bits(here):
    """Killed after step 8: the last checkpoint is that of step 7, and step 8 is made again."""

    class Killed(BaseException):
        pass

    def kill():
        raise Killed

    whole = run(out="whole")
    tiny.CALLBACKS.append(At(8, kill))
    with pytest.raises(Killed):
        run()
    assert not (here / "out/tiny/slow-seed0.json").exists()
    tiny.CALLBACKS.clear()
    steps = []
    tiny.CALLBACKS.append(type("Steps", (), {"after_step": lambda self, step: steps.append(step)})())
    tiny.assert_same(run(), whole)
    assert steps[0] == 8


def test_a_run_with_other_settings_does_not_go_on_from_its_checkpoint():
    tiny.CALLBACKS.append(At(4, fakes.ctrl_c))
    with pytest.raises(KeyboardInterrupt):
        run()
    tiny.CALLBACKS.clear()
    tiny.assert_same(run(epochs=1), run(epochs=1, out="whole"))


def test_what_follows_the_training_may_be_interrupted_too(monkeypatch):
    """And an experiment may call ``fit`` more than once: the finished calls are not made again."""
    steps, stop = [], [True]

    class Steps:
        def after_step(self, step):
            steps.append(step)

    def train(settings, data, fit):
        histories = []
        for _ in range(2):
            model = fakes.mlp(seed=settings["seed"])
            optimizer = optim.SGD(model.parameters(), 0.1)
            history, _ = fit(model, data.train, epochs=1, batch_size=32, optimizer=optimizer, callbacks=[Steps()])
            histories.append(history)
        if stop:
            stop.clear()
            raise Interrupted
        return {"history": histories[1].to_dict(), "weights": model.classifier.w.value.tolist()}

    monkeypatch.setitem(experiments.EXPERIMENTS, "tiny", dataclasses.replace(tiny.TINY, train=train))
    with pytest.raises(KeyboardInterrupt):
        run()
    assert len(steps) == 12
    (record,) = run()
    assert len(steps) == 12
    (whole,) = run(out="whole")
    assert record["weights"] == whole["weights"]


def test_the_seconds_of_an_interrupted_run_are_added(monkeypatch):
    clock = iter(range(0, 10**6, 100))
    monkeypatch.setattr(single.time, "perf_counter", lambda: next(clock))
    whole = run(out="whole").of("slow")[0]["seconds"]
    tiny.CALLBACKS.append(At(6, fakes.ctrl_c))
    with pytest.raises(KeyboardInterrupt):
        run()
    tiny.CALLBACKS.clear()
    assert run().of("slow")[0]["seconds"] > 0.8 * whole


# --- Input -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: experiments.get("tini"), "unknown experiment 'tini'; did you mean tiny"),
        (lambda: run("fats"), "unknown variant of tiny 'fats'; did you mean fast"),
        (lambda: run(epochs=0), "epochs must be"),
        (lambda: run(seeds=[-1]), "seed must be"),
        (lambda: run("slow", "slow"), "stands twice"),
        (lambda: run(dataset="cifar"), "tiny runs on mnist or cifar10, not on 'cifar'"),
        (lambda: experiments.load("tiny"), "no run of tiny is recorded in .*results; run it with: python -m npnets"),
        (lambda: Evaluations(fakes.dataset(4)), "give either every=N or steps"),
        (lambda: Evaluations(fakes.dataset(4), every=1, steps=[2]), "give either every=N or steps"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(call, message, here):
    with pytest.raises(ValueError, match=message):
        call()
    assert not [path for path in here.rglob("*") if path.is_file()]


def test_missing_data_are_told_before_anything_is_run(here, monkeypatch):
    monkeypatch.undo()
    started = trained(monkeypatch)
    with pytest.raises(FileNotFoundError, match=r"MNIST is not in"):
        run(data=here / "nowhere", out=here / "out")
    assert not started and not (here / "out").exists()


def test_evaluations_survive_losses_that_are_not_finite():
    evaluations = Evaluations(fakes.dataset(4), every=1)
    evaluations.rows = [(1, np.inf, 0.25), (2, 0.5, 1.0)]
    other = Evaluations(fakes.dataset(4), every=1)
    other.load_state_dict(evaluations.state_dict())
    assert other.to_dict() == evaluations.to_dict()
    assert json.loads(json.dumps(other.to_dict(), allow_nan=False))["test_loss"] == [None, 0.5]


def test_evaluations_are_those_of_the_network_after_the_step():
    data = load_data(tiny.TINY.settings_of("slow", 0))
    model = fakes.mlp()
    evaluations = Evaluations(data.test, steps=[6, 12])
    arguments = {"epochs": 2, "batch_size": 32, "optimizer": optim.SGD(model.parameters(), 0.1), "progress": False}
    from npnets.training import fit

    history = fit(model, data.train, data.test, callbacks=[evaluations], **arguments)
    found = evaluations.to_dict()
    assert found["step"] == [6, 12] and found["images"] == 70
    assert found["test_accuracy"] == history["test_accuracy"]
    assert found["test_loss"] == pytest.approx(history["test_loss"])


def test_progress_is_told_on_stderr_and_can_be_switched_off(capsys):
    run("slow")
    assert capsys.readouterr() == ("", "")
    run("slow", "endless", out="other", progress=True)
    out, err = capsys.readouterr()
    assert out == "" and "slow, seed 0: test accuracy" in err and "endless, seed 0: diverged at step" in err
    assert "4.0/4 epochs" in err


def test_every_variant_of_every_experiment_names_known_settings():
    """And no experiment has a setting that its small form or a variant invents."""
    for name, experiment in experiments.EXPERIMENTS.items():
        assert name == experiment.name and {"dataset", "epochs"} <= experiment.settings.keys()
        for changes in (*experiment.variants.values(), experiment.small):
            assert changes.keys() <= experiment.settings.keys(), name
        assert experiment.seeds.keys() == experiment.variants.keys()
        assert set(experiment.datasets) <= set(datasets.NAMES)
        distinct = {json.dumps(experiment.settings_of(v, 0), sort_keys=True) for v in experiment.variants}
        assert len(distinct) >= len(experiment.variants) - (name == "batch_norm")  # ensemble_1 is BN-x30
