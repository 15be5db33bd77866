"""Asynchronous gradient descent: the workers take turns, and an interrupted run goes on to the same bits."""

import numpy as np
import pytest

from npnets import experiments, optim
from npnets.augment import channel_statistics
from npnets.checkpoint import Checkpoint
from npnets.experiments import staleness
from npnets.experiments.staleness import EXPERIMENT, Turns
from npnets.training import Interrupted, evaluate, fit
from tests import fakes
from tests.experiments import captured, changed


def test_each_variant_differs_where_it_should():
    quarter, sixteenth, sgd = ({"learning_rate": rate} for rate in (0.0025, 0.000625, 0.05))
    sgd |= {"optimizer": "sgd"}
    assert {variant: changed(EXPERIMENT, variant, "rmsprop_1") for variant in EXPERIMENT.variants} == {
        "rmsprop_1": {},
        "rmsprop_4": {"workers": 4},
        "rmsprop_16": {"workers": 16},
        "rmsprop_1_quarter": quarter,
        "rmsprop_4_quarter": quarter | {"workers": 4},
        "rmsprop_16_quarter": quarter | {"workers": 16},
        "rmsprop_1_sixteenth": sixteenth,
        "rmsprop_4_sixteenth": sixteenth | {"workers": 4},
        "rmsprop_16_sixteenth": sixteenth | {"workers": 16},
        "rmsprop_1_plain": {"momentum": 0.0, "learning_rate": 0.1},
        "rmsprop_16_plain": {"momentum": 0.0, "learning_rate": 0.1, "workers": 16},
        "sgd_1": sgd,
        "sgd_16": sgd | {"workers": 16},
    }
    assert all(seeds == ((0,) if name.startswith("sgd") else (0, 1, 2)) for name, seeds in EXPERIMENT.seeds.items())


def test_the_network_is_the_separable_one_of_factorized():
    own, other = EXPERIMENT.settings_of("rmsprop_1", 0), experiments.get("factorized").settings_of("separable", 0)
    assert {name for name in own.keys() & other if own[name] != other[name]} == {"epochs"}
    one, same = (captured(experiments.get(name), variant)["model"] for name, variant in
                 [("staleness", "rmsprop_1"), ("factorized", "separable")])  # fmt: skip
    fakes.assert_same_bits(one.state_dict(), same.state_dict())


@pytest.mark.parametrize("variant", EXPERIMENT.variants)
def test_optimizer_and_workers_arrive_in_the_training(variant):
    given, settings = captured(EXPERIMENT, variant), EXPERIMENT.settings_of(variant, 0)
    optimizer = given["optimizer"]
    assert optimizer.workers == settings["workers"] and optimizer.optimizer.names[0] == "stem.conv.w"
    assert isinstance(optimizer.optimizer, optim.RMSProp if variant.startswith("rmsprop") else optim.SGD)
    assert optimizer.optimizer.momentum == settings["momentum"] and optimizer.optimizer.weight_decay == 4e-5
    assert optimizer.learning_rate == settings["learning_rate"]
    assert [type(callback) for callback in given["callbacks"]] == [Turns]


def recipe(workers, **changes):
    """Return arguments of ``fit`` with everything that has a state, and so many workers."""
    arguments = fakes.recipe(**changes)
    arguments["optimizer"] = optim.Stale(arguments["optimizer"], workers)
    return arguments | {"average": None}


def trained(workers, path=None, stop=None, resume=False):
    """Return the model, the history, and what the callback noted."""
    arguments = recipe(workers)
    turns = Turns(arguments["optimizer"], every=4)
    callbacks = [turns, *([stop] if stop else []), *([Checkpoint(path, every=4, resume=resume)] if path else [])]
    history = fit(**arguments, callbacks=callbacks)
    return arguments["model"].state_dict(), history, turns.to_dict()


def test_one_worker_trains_as_without_all_this():
    weights, history, found = trained(1)
    arguments = fakes.recipe() | {"average": None}
    plain = fit(**arguments)
    fakes.assert_same_bits(weights, arguments["model"].state_dict())
    assert fakes.without_times(history.to_dict()) == fakes.without_times(plain.to_dict())
    of_parameters = np.concatenate([p.value.ravel() for p in arguments["model"].parameters()])
    turns = Turns(optim.Stale(arguments["optimizer"], 2), every=1)
    turns.after_step(0)
    assert turns.to_dict()["norm"] == [pytest.approx(np.linalg.norm(of_parameters), rel=1e-4)]
    assert found["step"] == [4, 8, 12, 16] and found["lag"] == [0.0] * 4 and len(found["norm"]) == 4


def test_several_workers_train_otherwise_and_lag_behind():
    weights, _, found = trained(3)
    alone, _, _ = trained(1)
    assert any(not np.array_equal(weights[name], alone[name]) for name in weights)
    assert all(0 < lag < 1 for lag in found["lag"])


@pytest.mark.parametrize("step", [5, 6])
def test_an_interrupted_run_goes_on_to_the_same_bits(step, tmp_path):
    class Stop:
        def after_step(self, done):
            if done == step:
                fakes.ctrl_c()

    weights, history, found = trained(4)
    path = tmp_path / "checkpoint.npz"
    with pytest.raises(Interrupted):
        trained(4, path, Stop())
    again, other, same = trained(4, path, resume=True)
    fakes.assert_same_bits(weights, again)
    assert fakes.without_times(history.to_dict()) == fakes.without_times(other.to_dict()) and found == same


def test_the_test_images_see_the_servers_weights():
    arguments = recipe(3, test=None, epochs=1)
    turns, test = Turns(arguments["optimizer"]), fakes.dataset(70, seed=1)
    history = fit(**(arguments | {"test": test}), callbacks=[turns])
    mean, std = channel_statistics(arguments["train"].images)
    found = evaluate(arguments["model"], test, mean=mean, std=std)
    assert history["test_loss"] == [found.loss]
    arguments["optimizer"].fetch()
    assert evaluate(arguments["model"], test, mean=mean, std=std).loss != found.loss


def test_a_lag_that_is_not_finite_is_none():
    turns = Turns(None)
    turns.rows = [(50, np.nan, np.inf), (100, 0.123456789, 20.0)]
    other = Turns(None)
    other.load_state_dict(turns.state_dict())
    assert turns.to_dict() == other.to_dict() == {"step": [50, 100], "lag": [None, 0.12346], "norm": [None, 20.0]}
    assert Turns(None).to_dict() == {"step": [], "lag": [], "norm": []}


def test_every_variant_trains(made_up_images, monkeypatch):
    for name, value in {"epochs": 2, "batch_size": 16, "warmup": 2}.items():
        monkeypatch.setitem(EXPERIMENT.small, name, value)
    monkeypatch.setattr(staleness, "LAG_EVERY", 3)
    records = experiments.small("staleness", jobs=1, threads=1)
    assert records.variants == list(EXPERIMENT.variants)
    for record in records:
        assert record["lag"]["step"] == [3, 6]
        assert all((lag > 0) == (record.settings["workers"] > 1) for lag in record["lag"]["lag"])
    losses = {record.variant: record["final"]["loss"] for record in records}
    assert len(set(losses.values())) == len(losses)
