"""Optimizers against scalar loops of the published formulas, schedules and averages against hand-worked numbers."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npnets import nn, optim, parallel
from npnets.optim import SGD, ExponentialMovingAverage, RMSProp, Stale

SHAPES = {"conv.w": (3, 2, 4, 5), "bn.gamma": (5,), "bn.beta": (5,), "fc.w": (5, 3), "scale": ()}


def make_parameters(seed, dtype=np.float64):
    rng = np.random.default_rng(seed)
    values = {name: np.asarray(rng.normal(size=shape), dtype) for name, shape in SHAPES.items()}
    return [SimpleNamespace(name=n, value=v, grad=None, decay=n.endswith(".w")) for n, v in values.items()]


def draw_gradients(parameters, rng):
    for p in parameters:
        p.grad = np.asarray(rng.normal(size=p.value.shape), p.value.dtype)


def train(optimizer, rng, steps):
    for _ in range(steps):
        draw_gradients(optimizer.parameters, rng)
        optimizer.step()


def weights(parameters):
    return np.concatenate([p.value.ravel() for p in parameters])


OPTIMIZERS = [
    lambda parameters: RMSProp(parameters, 0.045, weight_decay=4e-3),
    lambda parameters: SGD(parameters, 0.1, weight_decay=4e-3),
    lambda parameters: SGD(parameters, 0.1, momentum=0.9),
    lambda parameters: SGD(parameters, 0.1, momentum=0.9, nesterov=True, weight_decay=4e-3),
]
every_optimizer = pytest.mark.parametrize("make", OPTIMIZERS, ids=["rmsprop", "sgd", "momentum", "nesterov"])


def test_first_rmsprop_step_is_tensorflows():
    p = SimpleNamespace(name="w", value=np.zeros(1), grad=np.array([0.01]), decay=True)
    RMSProp([p], 2.0, eps=1e-3).step()
    assert p.value[0] == pytest.approx(-2.0 * 0.01 / math.sqrt(0.9 * 1 + 0.1 * 0.01**2 + 1e-3), rel=1e-14)
    assert -p.value[0] / 2.0 == pytest.approx(0.0105, abs=5e-5)


@given(
    decay=st.sampled_from([0.0, 0.5, 0.9, 0.99]),
    momentum=st.sampled_from([0.0, 0.5, 0.9]),
    eps=st.sampled_from([1e-10, 1e-3, 1.0]),
    wd=st.sampled_from([0.0, 0.1]),
    seed=st.integers(0, 2**32 - 1),
)
@settings(deadline=None, max_examples=40)
def test_rmsprop_is_a_scalar_loop_of_tensorflows_formulas(decay, momentum, eps, wd, seed):
    rng = np.random.default_rng(seed)
    w, wds = rng.normal(size=4).tolist(), [wd, wd, 0.0, 0.0]
    parameters = [
        SimpleNamespace(name="a.w", value=np.array(w[:2]), grad=None, decay=True),
        SimpleNamespace(name="a.b", value=np.array(w[2:]), grad=None, decay=False),
    ]
    optimizer = RMSProp(parameters, 0.1, decay=decay, momentum=momentum, eps=eps, weight_decay=wd)
    ms, mom = [1.0] * 4, [0.0] * 4
    for step in range(5):
        lr = optimizer.learning_rate = 0.1 * 0.5**step  # it changes: inside or outside the buffer matters
        draw_gradients(parameters, rng)
        gradients = np.concatenate([p.grad for p in parameters]).tolist()
        optimizer.step()
        for k in range(4):
            g = gradients[k] + wds[k] * w[k]
            ms[k] = decay * ms[k] + (1 - decay) * g**2
            mom[k] = momentum * mom[k] + lr * g / math.sqrt(ms[k] + eps)
            w[k] -= mom[k]
    np.testing.assert_allclose(weights(parameters), w, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_steps_by_hand(nesterov):
    p = SimpleNamespace(name="w", value=np.array([4.0]), grad=np.array([1.0]), decay=True)
    optimizer = SGD([p], 0.5, momentum=0.5, nesterov=nesterov, weight_decay=0.25)
    optimizer.step()  # g = 1 + 0.25 * 4 = 2, v = 2
    assert p.value[0] == (4 - 0.5 * (2 + 0.5 * 2) if nesterov else 4 - 0.5 * 2)
    w = p.value[0]
    optimizer.learning_rate = 0.25
    p.grad = np.array([-1.0])
    optimizer.step()
    g = -1 + 0.25 * w
    v = 0.5 * 2 + g
    assert p.value[0] == (w - 0.25 * (g + 0.5 * v) if nesterov else w - 0.25 * v)


@every_optimizer
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_steps_keep_dtype_write_in_place_and_leave_gradients(make, dtype):
    parameters = make_parameters(0, dtype)
    before, values = weights(parameters), [p.value for p in parameters]
    optimizer = make(parameters)
    rng = np.random.default_rng(1)
    draw_gradients(parameters, rng)
    gradients = [p.grad.copy() for p in parameters]
    optimizer.learning_rate = 0.3
    optimizer.step()
    assert all(p.value is value and p.value.dtype == dtype for p, value in zip(parameters, values))
    assert all(np.array_equal(p.grad, g) for p, g in zip(parameters, gradients))
    assert np.all(weights(parameters) != before)
    assert {a.dtype for name, a in optimizer.state_dict().items() if "." in name} == {np.dtype(dtype)}


@every_optimizer
def test_a_numpy_learning_rate_does_not_make_float32_arithmetic_float64(make):
    first, second = make(make_parameters(0, np.float32)), make(make_parameters(0, np.float32))
    first.learning_rate, second.learning_rate = 0.3, np.float64(0.3)
    train(first, np.random.default_rng(1), 1)
    train(second, np.random.default_rng(1), 1)
    assert np.array_equal(weights(first.parameters), weights(second.parameters))


@every_optimizer
def test_strided_weights_and_gradients_give_the_same_bits(make):
    plain, strided = make_parameters(0), make_parameters(0)
    for p in strided:
        p.value = np.asfortranarray(p.value)
    first, second = make(plain), make(strided)
    draw_gradients(plain, np.random.default_rng(1))
    for p, q in zip(plain, strided):
        q.grad = np.asfortranarray(p.grad)
    first.step()
    second.step()
    assert np.array_equal(weights(plain), weights(strided))


@every_optimizer
def test_weight_decay_only_where_the_parameter_says_so(make):
    parameters = make_parameters(0)
    optimizer = make(parameters)
    optimizer.weight_decay = 0.5
    for p in parameters:
        p.grad = np.zeros_like(p.value)
    before = {p.name: p.value.copy() for p in parameters}
    optimizer.step()
    for p in parameters:
        shrunk = np.abs(p.value) < np.abs(before[p.name])
        assert np.all(shrunk) if p.decay else np.array_equal(p.value, before[p.name])


@every_optimizer
def test_a_saved_state_continues_bit_for_bit(make):
    def first_half():
        optimizer, rng = make(make_parameters(0, np.float32)), np.random.default_rng(5)
        train(optimizer, rng, 3)
        optimizer.learning_rate = 0.0123
        return optimizer, rng

    whole, rng = first_half()
    train(whole, rng, 3)

    stopped, rng = first_half()
    state = stopped.state_dict()
    saved = {name: array.copy() for name, array in state.items()}
    resumed = make(stopped.parameters)
    resumed.load_state_dict(state)
    train(resumed, rng, 3)
    assert resumed.steps == 6 and resumed.learning_rate == 0.0123
    assert np.array_equal(weights(whole.parameters), weights(resumed.parameters))
    stopped.step()
    assert all(np.array_equal(saved[name], array) for name, array in state.items()), "the state must be copies"


@pytest.mark.parametrize("n", [1, 2, 8])
def test_the_same_bits_for_every_number_of_threads(n, monkeypatch):
    monkeypatch.setattr(parallel, "PIECE_BYTES", 64)  # many pieces
    alone, together = RMSProp(make_parameters(0, np.float32), 0.1), RMSProp(make_parameters(0, np.float32), 0.1)
    train(alone, np.random.default_rng(1), 3)
    with parallel.threads(n):
        train(together, np.random.default_rng(1), 3)
    assert np.array_equal(weights(alone.parameters), weights(together.parameters))


def test_a_state_that_does_not_fit_is_refused_whole():
    optimizer = RMSProp(make_parameters(0), 0.1)
    train(optimizer, np.random.default_rng(1), 1)
    before, state = optimizer.state_dict(), optimizer.state_dict()
    state["steps"] = np.array(77)
    del state["momentum.fc.w"]
    state["momentum.other"] = np.zeros(3)
    state["mean_square.conv.w"] = np.zeros((3, 2))
    state["mean_square.bn.beta"] = np.array(["a"] * 5)
    with pytest.raises(ValueError) as error:
        optimizer.load_state_dict(state)
    for problem in (
        "missing momentum.fc.w",
        "unexpected momentum.other",
        "mean_square.conv.w has shape (3, 2), not (3, 2, 4, 5)",
        "mean_square.bn.beta has type",
    ):
        assert problem in str(error.value)
    after = optimizer.state_dict()
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_a_step_without_all_gradients_changes_nothing():
    parameters = make_parameters(0)
    optimizer = RMSProp(parameters, 0.1)
    train(optimizer, np.random.default_rng(1), 1)
    before, state = weights(parameters), optimizer.state_dict()
    parameters[1].grad = parameters[3].grad = None
    with pytest.raises(ValueError, match=r"no gradient for bn\.gamma, fc\.w: "):
        optimizer.step()
    draw_gradients(parameters, np.random.default_rng(2))
    parameters[3].grad = np.ones((1, 3))  # would broadcast
    with pytest.raises(ValueError, match=r"fc\.w: .*\(1, 3\).*\(5, 3\)"):
        optimizer.step()
    assert np.array_equal(before, weights(parameters))
    assert all(np.array_equal(state[name], array) for name, array in optimizer.state_dict().items())


def gradient(w, t):
    """Return a gradient at the weights ``w`` of batch ``t``; it depends on both."""
    return np.asarray(np.sin(w + t) + 0.3 * w, w.dtype)


def train_stale(optimizer, steps):
    """Make steps of a training in which each worker computes its gradient with the weights in the model."""
    for t in steps:
        optimizer.fetch()
        for p in optimizer.optimizer.parameters:
            p.grad = gradient(p.value, t)
        optimizer.learning_rate = 0.1 / (t + 1)
        optimizer.step()


def plain(parameters, learning_rate, weight_decay):
    return SGD(parameters, learning_rate, weight_decay=weight_decay)


@pytest.mark.parametrize("kind", [RMSProp, SGD, plain])
@pytest.mark.parametrize("workers", [1, 2, 5, 20])
def test_each_gradient_is_as_old_as_there_are_other_workers(kind, workers):
    own, server = make_parameters(0), make_parameters(0)
    wd, optimizer = 0.5, kind(server, 0.1, weight_decay=0.0)
    past = [[p.value.copy() for p in server]]
    for t in range(8):
        for p, old in zip(server, past[max(t - (workers - 1), 0)]):
            p.grad = gradient(old, t) + wd * p.decay * old
        optimizer.learning_rate = 0.1 / (t + 1)
        optimizer.step()
        past.append([p.value.copy() for p in server])

    stale = Stale(kind(own, 0.1, weight_decay=wd), workers)
    train_stale(stale, range(8))
    np.testing.assert_allclose(weights(own), weights(server), rtol=1e-12)
    now, old = (np.concatenate([w.ravel() for w in past[k]]) for k in (-1, max(8 - (workers - 1), 0)))
    assert stale.lag() == pytest.approx(np.linalg.norm(now - old) / np.linalg.norm(now), rel=1e-9)
    assert (stale.lag() == 0) == (workers == 1)


@every_optimizer
def test_one_worker_is_the_optimizer_itself(make):
    alone, other = make_parameters(0, np.float32), make_parameters(0, np.float32)
    optimizer, stale = make(alone), Stale(make(other), 1)
    rng, same = np.random.default_rng(1), np.random.default_rng(1)
    for _ in range(3):
        train(optimizer, rng, 1)
        stale.fetch()
        draw_gradients(other, same)
        stale.step()
    assert np.array_equal(weights(alone), weights(other))


def test_between_the_steps_the_model_has_the_servers_weights():
    parameters = make_parameters(0)
    values, first = [p.value for p in parameters], weights(parameters)
    stale = Stale(SGD(parameters, 0.1), 3)
    train_stale(stale, range(2))
    server = weights(parameters)
    stale.fetch()
    assert np.array_equal(weights(parameters), first)  # of before the first step
    with pytest.raises(ValueError, match="no gradient for scale"):
        parameters[-1].grad = None
        stale.step()
    assert np.array_equal(weights(parameters), first)
    train_stale(stale, [2])
    assert not np.array_equal(weights(parameters), server)
    stale.fetch()
    assert not np.array_equal(weights(parameters), first)  # of after the first step
    assert all(p.value is value for p, value in zip(parameters, values))


def test_stale_gradients_need_weights_that_were_fetched_and_a_worker():
    parameters = make_parameters(0)
    stale = Stale(SGD(parameters, 0.1), 2)
    train_stale(stale, range(1))
    before = weights(parameters)
    with pytest.raises(ValueError, match=r"call fetch\(\) before the forward pass"):
        stale.step()
    assert np.array_equal(weights(parameters), before)
    with pytest.raises(ValueError, match="workers must be at least 1"):
        Stale(SGD(parameters, 0.1), 0)


@every_optimizer
@pytest.mark.parametrize("stopped_after", [0, 1, 6])
def test_stale_gradients_are_continued_bit_for_bit(make, stopped_after):
    whole = Stale(make(make_parameters(0, np.float32)), 4)
    train_stale(whole, range(10))
    first = Stale(make(make_parameters(0, np.float32)), 4)
    train_stale(first, range(stopped_after))
    state, stopped = first.state_dict(), [p.value.copy() for p in first.optimizer.parameters]
    assert {array.dtype for name, array in state.items() if name == "past" or "." in name} == {np.dtype(np.float32)}
    train_stale(first, range(stopped_after, 10))
    assert np.array_equal(weights(first.optimizer.parameters), weights(whole.optimizer.parameters))

    parameters = make_parameters(9, np.float32)  # of another start
    resumed = Stale(make(parameters), 4)
    for p, value in zip(parameters, stopped):
        p.value[...] = value
    resumed.load_state_dict(state)  # copies: what came after has not changed them
    train_stale(resumed, range(stopped_after, 10))
    assert np.array_equal(weights(parameters), weights(whole.optimizer.parameters))


def test_a_state_of_another_number_of_workers_is_refused():
    stale, other = (Stale(SGD(make_parameters(0), 0.1, momentum=0.9), workers) for workers in (2, 3))
    train_stale(stale, range(3))
    train_stale(other, range(3))
    before = stale.state_dict()
    with pytest.raises(ValueError, match=r"past has shape \(3, \d+\), not \(2, \d+\)"):
        stale.load_state_dict(other.state_dict())
    assert all(np.array_equal(before[name], array) for name, array in stale.state_dict().items())
    assert repr(stale) == "Stale(SGD(momentum=0.9, nesterov=False, weight_decay=0.0), workers=2)"


@pytest.mark.parametrize(
    "wrong",
    [
        {"learning_rate": -0.1}, {"learning_rate": math.nan}, {"learning_rate": math.inf}, {"learning_rate": "0.1"},
        {"decay": 1.0}, {"decay": -0.1}, {"momentum": 1.0}, {"eps": 0.0}, {"eps": -1e-3}, {"weight_decay": -1e-5},
    ],
)  # fmt: skip
def test_settings_out_of_range_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RMSProp(make_parameters(0), **{"learning_rate": 0.1} | wrong)


def test_a_real_model_trains_and_a_parameter_renamed_by_a_submodule_is_no_trouble():
    rng = np.random.default_rng(0)
    model = nn.Sequential(body=nn.Sequential(fc=nn.Linear(4, 3, rng=rng), bn=nn.BatchNorm(3)), head=nn.ReLU())
    optimizer = RMSProp(model.parameters(), 0.1, weight_decay=1e-2)
    running = {f"{path}.{name}": getattr(m, name) for path, m in model.named_modules() for name in m.running}
    ema = ExponentialMovingAverage(model.parameters(), extra=running)
    before = model.state_dict()
    assert model.body.parameters()[0].name == "fc.w"
    y = model(rng.normal(size=(8, 4)).astype(np.float32), training=True)
    model.backward(rng.normal(size=y.shape).astype(np.float32))
    optimizer.step()
    ema.update()
    after = model.state_dict()
    assert set(ema.averages) == set(after)
    assert "momentum.body.fc.w" in optimizer.state_dict()
    with ema.applied():
        for name, array in model.state_dict().items():
            assert name == "body.fc.b" or not np.array_equal(before[name], after[name])
            np.testing.assert_allclose(array, 0.1 * before[name] + 0.9 * after[name], rtol=1e-5, atol=1e-7)
    assert all(np.array_equal(array, after[name]) for name, array in model.state_dict().items())


def test_wrong_parameter_lists_are_refused():
    parameters = make_parameters(0)
    with pytest.raises(ValueError, match="no parameters"):
        SGD([], 0.1)
    with pytest.raises(ValueError, match=r"more than once: fc\.w"):
        SGD(parameters + [parameters[3]], 0.1)
    parameters[0].value = parameters[0].value.astype(np.float32)
    with pytest.raises(ValueError, match="float32, float64"):
        SGD(parameters, 0.1)
    with pytest.raises(ValueError, match="nesterov"):
        SGD(make_parameters(0), 0.1, nesterov=True)
    with pytest.raises(ValueError, match="learning_rate"):
        SGD(make_parameters(0), 0.1).learning_rate = -1.0


SCHEDULES = [
    (optim.constant(0.1), {0: 0.1, 7: 0.1}),
    (optim.exponential(0.045, steps_per_decay=10), {0: 0.045, 9: 0.045, 10: 0.045 * 0.98, 25: 0.045 * 0.98**2}),
    (
        optim.exponential(0.256, decay_rate=0.97, steps_per_decay=2.5, staircase=False),
        {0: 0.256, 1: 0.256 * 0.97**0.4, 5: 0.256 * 0.97**2},
    ),
    (optim.cosine(0.1, 12), {0: 0.1, 4: 0.075, 6: 0.05, 8: 0.025, 12: 0.0, 100: 0.0}),
    (optim.cosine(0.5, 8, final=0.1), {0: 0.5, 2: 0.3 + 0.2 * math.sqrt(0.5), 4: 0.3, 8: 0.1, 9: 0.1}),
    (optim.warmup(optim.constant(0.3), 3), {0: 0.1, 1: 0.2, 2: 0.3, 3: 0.3}),
    (
        optim.warmup(optim.exponential(0.8, decay_rate=0.5, steps_per_decay=2), 4),
        {0: 0.2, 1: 0.4, 2: 0.3, 3: 0.4, 4: 0.2},
    ),
    (optim.warmup(optim.constant(0.3), 0), {0: 0.3}),
]


@pytest.mark.parametrize("schedule, expected", SCHEDULES, ids=lambda value: repr(value)[:20])
def test_schedules_at_steps_worked_by_hand(schedule, expected):
    assert {step: schedule(step) for step in expected} == pytest.approx(expected, rel=1e-13, abs=1e-16)
    again = eval(repr(schedule), vars(optim))  # it prints as the call that makes it
    assert [again(step) for step in range(30)] == [schedule(step) for step in range(30)]


def test_schedules_refuse_wrong_settings_and_steps():
    for make in (
        lambda: optim.constant(-1.0),
        lambda: optim.exponential(0.1, decay_rate=0.0, steps_per_decay=3),
        lambda: optim.exponential(0.1, steps_per_decay=0),
        lambda: optim.cosine(0.1, 0),
        lambda: optim.warmup(optim.constant(0.1), -1),
        lambda: optim.constant(0.1)(-1),
        lambda: optim.constant(0.1)(0.5),
    ):
        with pytest.raises(ValueError):
            make()


@pytest.mark.parametrize("num_updates, weights_of_old", [(True, [1 / 10, 2 / 11, 0.2, 0.2]), (False, [0.2] * 4)])
def test_averages_by_hand(num_updates, weights_of_old):
    parameters, running = make_parameters(0), np.array([1.0, 2.0])
    ema = ExponentialMovingAverage(parameters, 0.2, num_updates=num_updates, extra={"bn.running_mean": running})
    expected, expected_running = weights(parameters), running.copy()
    rng = np.random.default_rng(1)
    for d in weights_of_old:
        for p in parameters:
            p.value += rng.normal(size=p.value.shape)
        running += 1.0
        ema.update()
        expected = d * expected + (1 - d) * weights(parameters)
        expected_running = d * expected_running + (1 - d) * running
    with ema.applied():
        np.testing.assert_allclose(weights(parameters), expected, rtol=1e-13)
        np.testing.assert_allclose(running, expected_running, rtol=1e-13)


def test_applied_averages_leave_the_weights_bit_for_bit_even_after_an_exception():
    parameters, running = make_parameters(0, np.float32), np.array([np.nan, -0.0], np.float32)
    ema = ExponentialMovingAverage(parameters, extra={"running": running})
    parameters[0].value += 1
    ema.update()
    arrays = [p.value for p in parameters] + [running]
    before = [a.tobytes() for a in arrays]
    with pytest.raises(KeyboardInterrupt), ema.applied():
        assert parameters[0].value.tobytes() != before[0]
        parameters[1].value[...] = 7
        raise KeyboardInterrupt
    assert [a.tobytes() for a in arrays] == before
    assert all(p.value is a for p, a in zip(parameters, arrays))


def test_saved_averages_continue_bit_for_bit():
    parameters = make_parameters(0, np.float32)
    ema = ExponentialMovingAverage(parameters, 0.9)
    optimizer, rng = SGD(parameters, 0.1), np.random.default_rng(1)

    def advance(averages):
        train(optimizer, rng, 1)
        for average in averages:
            average.update()

    advance([ema])
    resumed = ExponentialMovingAverage(parameters, 0.9)
    resumed.load_state_dict(ema.state_dict())
    for _ in range(3):
        advance([ema, resumed])
    for name, array in ema.state_dict().items():
        assert np.array_equal(array, resumed.state_dict()[name])
        assert array.dtype == (np.int64 if name == "updates" else np.float32)
    with pytest.raises(ValueError, match=r"missing average\.fc\.w"):
        resumed.load_state_dict({n: a for n, a in ema.state_dict().items() if n != "average.fc.w"})


def test_averages_refuse_wrong_settings():
    with pytest.raises(ValueError, match="decay"):
        ExponentialMovingAverage(make_parameters(0), 1.0)
    with pytest.raises(ValueError, match=r"more than once: fc\.w"):
        ExponentialMovingAverage(make_parameters(0), extra={"fc.w": np.zeros(2)})
