"""The training recipe: each variant changes what its name says, and the range test notes every step."""

import numpy as np
import pytest

from npnets import experiments, nn, optim, training
from npnets.experiments.recipe import (
    COMPARED,
    EXPERIMENT,
    RANGE_TESTS,
    Losses,
    growing,
    range_of,
    root_mean_squares,
    smoothed,
)
from npnets.experiments.records import Record, Records
from tests import fakes
from tests.experiments import captured, changed, fake_record

TINY = {"batch_size": 16, "width_mult": 0.25, "train_images": 64, "test_images": 20}


def test_the_first_variant_is_the_recipe_of_the_paper():
    found = EXPERIMENT.settings_of("paper", 0)
    expected = {
        "optimizer": "rmsprop", "rms_decay": 0.9, "momentum": 0.9, "learning_rate": 0.045, "decay_rate": 0.98,
        "weight_decay": 4e-5, "batch_size": 96, "schedule": "exponential", "label_smoothing": 0.0, "warmup": 0,
        "dropout": 0.2, "epsilon": 1.0,
    }  # fmt: skip
    assert {name: found[name] for name in expected} == expected
    given = captured(EXPERIMENT, "paper", batch_size=16)  # 4 steps an epoch
    assert [given["schedule"](step) for step in (0, 3, 4)] == pytest.approx([0.045, 0.045, 0.98 * 0.045])
    assert repr(given["optimizer"]) == "RMSProp(decay=0.9, momentum=0.9, eps=1.0, weight_decay=4e-05)"
    assert given["model"].dropout.rate == 0.2


@pytest.mark.parametrize(
    "variant, base, changes",
    [
        ("cosine", "paper", {"schedule": "cosine"}),
        ("no_dropout", "cosine", {"dropout": 0.0}),
        ("epsilon_1e-3", "cosine", {"epsilon": 1e-3}),
        ("epsilon_1e-8", "cosine", {"epsilon": 1e-8}),
        ("sgd", "cosine", {"optimizer": "sgd"}),
        ("epsilon_1e-3_own_rate", "epsilon_1e-3", {"learning_rate": 0.01}),
        ("epsilon_1e-8_own_rate", "epsilon_1e-8", {"learning_rate": 0.002}),
        ("sgd_own_rate", "sgd", {"learning_rate": 0.1}),
        ("range_epsilon_1", "paper", {"epochs": 1, "schedule": "range", "rates": (1e-5, 10.0)}),
        ("range_epsilon_1e-3", "range_epsilon_1", {"epsilon": 1e-3}),
        ("range_epsilon_1e-8", "range_epsilon_1", {"epsilon": 1e-8}),
        ("range_sgd", "range_epsilon_1", {"optimizer": "sgd"}),
    ],
)
def test_what_a_variant_changes(variant, base, changes):
    assert changed(EXPERIMENT, variant, base) == changes


def test_what_is_compared_has_three_seeds_but_for_the_rate_that_is_far_off():
    single = {*RANGE_TESTS, "epsilon_1e-8"}  # far off: one seed shows it
    assert {name for name, seeds in EXPERIMENT.seeds.items() if seeds != (0, 1, 2)} == single
    assert all(EXPERIMENT.seeds[name] == (0,) for name in single)
    assert len(COMPARED) == 9 and len(RANGE_TESTS) == 4
    assert set(COMPARED) | set(RANGE_TESTS) == set(EXPERIMENT.variants)


def test_the_settings_arrive_in_the_training():
    cosine = captured(EXPERIMENT, "cosine", batch_size=16)
    assert cosine["schedule"](24) == 0 and cosine["schedule"](0) == 0.045
    assert "eps=1e-08" in repr(captured(EXPERIMENT, "epsilon_1e-8", batch_size=16)["optimizer"])
    sgd = captured(EXPERIMENT, "sgd_own_rate", batch_size=16)
    assert repr(sgd["optimizer"]) == "SGD(momentum=0.9, nesterov=False, weight_decay=4e-05)"
    assert sgd["schedule"](0) == 0.1 and captured(EXPERIMENT, "no_dropout", batch_size=16)["model"].dropout.rate == 0
    test = captured(EXPERIMENT, "range_sgd", batch_size=16)
    assert test["schedule"](0) == pytest.approx(1e-5) and test["schedule"](3) == pytest.approx(10.0)
    assert [type(one) for one in test["callbacks"]] == [Losses]


def test_root_mean_squares_are_those_of_all_weights_together():
    parameters = list(nn.Linear(20, 41, rng=np.random.default_rng(0)).parameters())  # 820 weights and 41 biases
    optimizer = optim.RMSProp(parameters, 0.1)
    roots = np.random.default_rng(0).permutation(861) / 860
    squares = {"mean_square.w": roots[:820].reshape(20, 41) ** 2, "mean_square.b": roots[820:] ** 2}
    optimizer.load_state_dict(optimizer.state_dict() | squares)
    assert root_mean_squares(optimizer) == pytest.approx([0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99])
    assert root_mean_squares(optim.SGD(parameters, 0.1, momentum=0.9)) is None


def test_every_variant_trains(made_up_images, monkeypatch):
    for name, value in TINY.items():
        monkeypatch.setitem(EXPERIMENT.small, name, value)
    found = experiments.small("recipe", jobs=1, threads=1)
    assert found.variants == list(EXPERIMENT.variants)
    for record in found:
        assert ("range_test" in record.content) == (record.variant in RANGE_TESTS)
        if record.variant in COMPARED:
            assert record["final"] is not None and record["history"]["epochs"][-1]["step"] == 8
            squares = record["root_mean_squares"]
            assert squares is None if record.variant.startswith("sgd") else 0 < squares[0] < squares[-1] < 1
        elif record.diverged is None:
            assert record["range_test"]["rate"][-1] == pytest.approx(10.0)
            assert len(record["range_test"]["loss"]) == 8
    text = EXPERIMENT.report(found)
    assert text.count("at a rate of") == 4 and "\nrange_sgd: the loss is lowest" in text


# --- The range test --------------------------------------------------------------------------------------------------


def test_the_rate_grows_by_the_same_factor_in_each_step():
    schedule = growing(1e-4, 1.0, 9)
    rates = np.array([schedule(step) for step in range(9)])
    assert rates[0] == pytest.approx(1e-4) and rates[-1] == pytest.approx(1.0)
    assert rates[1:] / rates[:-1] == pytest.approx(np.full(8, 1e4 ** (1 / 8)))
    assert growing(1e-4, 1.0, 1)(0) == pytest.approx(1e-4)
    for wrong in (0, -1.0):
        with pytest.raises(ValueError, match="initial must be above 0"):
            growing(wrong, 1.0, 5)


def losses_of(**changes):
    """Return a :class:`Losses` after a training of 3 epochs of 6 steps, and the history."""
    losses = Losses()
    arguments = fakes.plain(fakes.mlp(), schedule=growing(1e-3, 0.1, 18), callbacks=[losses], **changes)
    return losses, training.fit(**arguments)


def test_every_step_has_its_rate_and_its_loss(monkeypatch):
    seen = []
    original = training.ops.softmax_cross_entropy_forward

    def noting(logits, labels, **settings):
        loss, cache = original(logits, labels, **settings)
        seen.append((len(labels), float(loss)))
        return loss, cache

    monkeypatch.setattr(training.ops, "softmax_cross_entropy_forward", noting)
    losses, history = losses_of(test=None)
    rates, found = zip(*losses.rows)
    assert len(found) == 18 == len(seen)
    assert found == pytest.approx([loss for _, loss in seen], rel=1e-9)
    assert rates == pytest.approx([growing(1e-3, 0.1, 18)(step) for step in range(18)])
    for epoch in range(3):
        assert np.mean(found[6 * epoch : 6 * epoch + 6]) == pytest.approx(history["train_loss"][epoch])


def test_a_range_test_goes_on_where_it_was_interrupted():
    whole, _ = losses_of()
    losses = Losses()

    class Interrupting:
        def after_step(self, step):
            if step == 8:
                self.state = self.run.state_dict()
                fakes.ctrl_c()

        def start(self, run):
            self.run = run

    interrupting = Interrupting()
    with pytest.raises(KeyboardInterrupt):
        training.fit(
            **fakes.plain(fakes.mlp(), schedule=growing(1e-3, 0.1, 18), callbacks=[losses, interrupting])
        )

    class Resuming:
        def start(self, run):
            run.load_state_dict(*interrupting.state)

    again = Losses()
    training.fit(**fakes.plain(fakes.mlp(seed=9), schedule=growing(1e-3, 0.1, 18), callbacks=[again, Resuming()]))
    assert again.rows == whole.rows and again.rows[:9] == losses.rows


def test_smoothing_starts_at_the_first_loss_and_weighs_the_last_ones_most():
    losses = [3.0, 1.0, 4.0, 1.0, 5.0]
    found = smoothed(losses, 0.8)
    for t in range(1, 6):
        weights = 0.8 ** np.arange(t)[::-1]
        assert found[t - 1] == pytest.approx(np.average(losses[:t], weights=weights))
    assert smoothed([2.0] * 50) == pytest.approx(np.full(50, 2.0))


def range_record(losses, variant="range_sgd"):
    test = {"rate": [10.0**k for k in range(len(losses))], "loss": losses}
    return Record(fake_record(variant, range_test=test, diverged=None, final=None, cost={"params": 1, "macs": 2}))


def test_a_range_test_ends_where_the_loss_explodes():
    rates, losses, smooth = range_of(range_record([2.0] * 5 + [1.0] * 60 + [300.0] * 5))
    assert len(rates) == len(losses) == len(smooth) == 65
    assert smooth.argmin() == 64 and smooth[0] == 2.0
    assert len(range_of(range_record([2.0, 1.0, None, None]))[0]) == 2
    assert len(range_of(range_record([2.0, 1.0, 1.5]))[0]) == 3


def test_the_summary_keeps_range_tests_out_of_the_table():
    paper = Record(fake_record("paper", final={"accuracy": 0.5}, cost={"params": 1, "macs": 2}, diverged=None))
    text = EXPERIMENT.report(Records(EXPERIMENT, [paper, range_record([2.0, 1.0, 1.5])]))
    assert "50.00%" in text and text.splitlines()[-1] == "range_sgd: the loss is lowest, 1.487, at a rate of 10"
    alone = EXPERIMENT.report(Records(EXPERIMENT, [range_record([2.0, 1.0, 1.5])]))
    assert alone.splitlines() == ["range_sgd: the loss is lowest, 1.487, at a rate of 10"]


def test_epsilon_1_makes_rmsprop_gradient_descent_with_momentum():
    """What the docstring says: with small gradients, and but for 1 / sqrt(2), as the mean square starts at one."""
    from types import SimpleNamespace

    moved = {}
    for name, make in {
        "rmsprop": lambda p: optim.RMSProp(p, 0.045, eps=1.0),
        "sgd": lambda p: optim.SGD(p, 0.045, momentum=0.9),
    }.items():
        w = SimpleNamespace(name="w", value=np.zeros(3), grad=np.array([1e-3, -1e-2, 0.02]), decay=False)
        optimizer = make([w])
        for _ in range(200):
            optimizer.step()
        before = w.value.copy()
        optimizer.step()
        moved[name] = w.value - before
    np.testing.assert_allclose(moved["rmsprop"], moved["sgd"], rtol=1e-3)
