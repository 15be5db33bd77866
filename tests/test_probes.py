"""Probes against NumPy's own statistics, and that a training run does not notice them."""

import json

import numpy as np
import pytest

from npnets import nn
from npnets.optim import SGD
from npnets.probes import Probes, Recording

LEVELS = (0.15, 0.50, 0.85)


def make_model(dtype=np.float64):
    rng = np.random.default_rng(0)
    return nn.Sequential(
        first=nn.PointwiseConv2d(4, 7, rng=rng, dtype=dtype),
        bn=nn.BatchNorm(7, dtype=dtype),
        blocks=[nn.Dropout(0.3, rng=rng), nn.PointwiseConv2d(7, 3, rng=rng, dtype=dtype), nn.Sigmoid()],
    )


def batch(step, shape=(8, 5, 5, 4)):
    return np.random.default_rng(step).normal(size=shape)


def train(model, steps, probes=None):
    optimizer = SGD(model.parameters(), 0.01)
    for step in steps:
        if probes is not None:
            probes.before_step(step)
        y = model(batch(step), training=True)
        model.backward(y - 1.0)
        optimizer.step()
        if probes is not None:
            probes.after_step(step)


def expected(values, unit, bins):
    """The results of one step, straight from NumPy."""
    values = values.reshape(-1, values.shape[-1])
    columns = {None: [values.ravel()], "each": list(values.T)}.get(unit) or [values[:, unit]]
    results = [
        (c.mean(), c.var(), np.linalg.norm(c), np.quantile(c, LEVELS), np.histogram(c, np.linspace(*bins))[0])
        for c in columns
    ]
    stacked = [np.stack(field, axis=-1) for field in zip(*results)]
    return stacked if unit == "each" else [field[..., 0] for field in stacked]


@pytest.mark.parametrize("unit", [None, 2, "each"])
def test_records_numpys_statistics_of_the_chosen_steps(unit):
    model = make_model()
    names = ["bn", "blocks.1.w", "first.w.grad"]
    probes = Probes(model, names, every=2, unit=unit, bins=(-1.0, 2.0, 6))
    seen = {name: [] for name in names}
    outputs = []
    model.bn.observers.append(lambda y: outputs.append(y.copy()))
    for step in range(5):
        with probes.at(step):
            train(model, [step])
        if step % 2 == 0:
            seen["bn"].append(outputs[-1])
            seen["blocks.1.w"].append(model.blocks[1].w.value.copy())
            seen["first.w.grad"].append(model.first.w.grad.copy())
    assert probes.steps.tolist() == [0, 2, 4]
    assert probes.edges.tolist() == [-1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0]
    for name in names:
        series = probes[name]
        for t in range(3):
            for got, want in zip(series, expected(seen[name][t], unit, (-1.0, 2.0, 7))):
                np.testing.assert_allclose(got[t], want, rtol=1e-12, atol=1e-12)
        units = (seen[name][0].shape[-1],) if unit == "each" else ()
        assert series.quantiles.shape == (3, len(LEVELS), *units) and series.histograms.shape == (3, 6, *units)
        assert series.histograms.dtype == np.int64 and series.quantiles.dtype == np.float64


def test_float32_is_summarized_in_float64():
    model, outputs = make_model(np.float32), []
    model.first.observers.append(outputs.append)
    probes = Probes(model, "first", every=1)
    with probes.at(0):
        model((1e4 + batch(0)).astype(np.float32))
    assert outputs[0].dtype == np.float32
    assert probes["first"].variance[0] == pytest.approx(outputs[0].astype(np.float64).var(), rel=1e-12)


@pytest.mark.parametrize("images", [None, batch(99)])
def test_training_has_the_same_bits_with_and_without_probes(images):
    plain, probed = make_model(), make_model()
    names = ["", "first", "bn", "blocks.0", "blocks.2", "first.w", "bn.gamma.grad"]
    probes = Probes(probed, names, every=2, unit="each", bins=(0, 1, 4), images=images)
    train(plain, range(6))
    train(probed, range(6), probes)
    assert len(probes.steps) == 3
    want, got = plain.state_dict(), probed.state_dict()
    assert all(np.array_equal(want[name], got[name]) for name in want)


def test_given_images_are_looked_at_in_inference_mode_after_the_step():
    model, again, images, outputs = make_model(), make_model(), batch(99), []
    probes = Probes(model, ["bn"], steps=[1], images=images)
    train(model, range(3), probes)
    train(again, range(2))
    again.bn.observers.append(outputs.append)
    again(images, training=False)
    assert probes.steps.tolist() == [1]
    assert probes["bn"].mean.tolist() == [pytest.approx(outputs[0].mean(), rel=1e-13)]


def test_nothing_is_watched_outside_chosen_steps_or_after_a_broken_one():
    model = make_model()
    probes = Probes(model, ["first"], steps=[1, 3])
    watched = model.first.observers
    watched.append(np.shape)  # somebody else's observer stays
    for step in range(5):
        probes.before_step(step)
        assert len(watched) == 1 + (step in (1, 3))
        train(model, [step])
        probes.after_step(step)
        assert watched == [np.shape]
    with pytest.raises(KeyboardInterrupt), probes.at(3):
        raise KeyboardInterrupt
    assert watched == [np.shape] and probes.steps.tolist() == [1, 3]
    probes.before_step(3)  # broken off, and begun again
    probes.before_step(3)
    assert len(watched) == 2


def test_a_resumed_recording_equals_an_uninterrupted_one():
    names = ["first", "first.w.grad"]
    for unit in (None, "each"):
        settings = {"every": 1, "unit": unit, "bins": (0, 3, 5)}
        whole, stopped = make_model(), make_model()
        uninterrupted, first_half = Probes(whole, names, **settings), Probes(stopped, names, **settings)
        train(whole, range(4), uninterrupted)
        train(stopped, range(2), first_half)
        resumed = Probes(stopped, names, **settings)
        resumed.load_state_dict(first_half.state_dict())
        train(stopped, range(2, 4), resumed)
        want, got = uninterrupted.state_dict(), resumed.state_dict()
        assert list(want) == list(got) and all(np.array_equal(want[key], got[key]) for key in want)
        assert not any(array.dtype.hasobject for array in got.values())


@pytest.mark.parametrize("unit", [None, 1, "each"])
@pytest.mark.parametrize("bins", [None, (0, 3, 5)])
@pytest.mark.parametrize("n_steps", [0, 3])
@pytest.mark.parametrize("levels", [(), LEVELS])
def test_json_round_trip(unit, bins, n_steps, levels):
    model = make_model()
    probes = Probes(model, ["first", "first.w"], every=1, unit=unit, bins=bins, quantiles=levels)
    train(model, range(n_steps), probes)
    text = json.dumps(probes.to_json(), allow_nan=False)
    recording = Recording.from_json(json.loads(text))
    want, got = probes.state_dict(), recording.state_dict()
    assert list(want) == list(got)
    for key in want:
        assert np.array_equal(want[key], got[key]) and want[key].shape == got[key].shape, key
        assert want[key].dtype == got[key].dtype, key
    assert recording["first"].quantiles.shape[:2] == (n_steps, len(levels))


def test_a_diverged_run_is_recorded_without_a_warning():
    model = make_model()
    probes = Probes(model, ["first", "first.w"], every=1, bins=(0, 1, 4))
    with probes.at(0):
        model.first.observers[0](np.array([[0.1, np.nan], [np.inf, -np.inf], [1e300, 0.3]]))
    assert probes["first"].histograms.tolist() == [[1, 1, 0, 0]]
    again = Recording.from_json(json.loads(json.dumps(probes.to_json(), allow_nan=False)))
    assert np.isnan(again["first"].mean).all() and np.isfinite(again["first.w"].mean).all()


def test_unknown_names_come_with_close_matches():
    with pytest.raises(ValueError) as error:
        Probes(make_model(), ["first", "frist", "blocks.1.v", "first.w.grads", "zzz"], every=1)
    for part in ("'frist' (did you mean 'first'", "'blocks.1.w'", "'first.w.grad'", "'zzz'"):
        assert part in str(error.value)
    assert "named 'first'" not in str(error.value)
    with pytest.raises(ValueError, match="did you mean 'first'"):
        Probes(make_model(), "first", every=1)["frist"]


@pytest.mark.parametrize(
    "wrong, named",
    [
        ({}, "every"), ({"every": 1, "steps": [1]}, "every"), ({"every": 0}, "every"), ({"steps": [-1]}, "steps"),
        ({"every": 1, "quantiles": (0.5, 1.5)}, "quantiles"), ({"every": 1, "bins": (1, 0, 3)}, "bins"),
        ({"every": 1, "bins": (0, 1, 0)}, "bins"), ({"every": 1, "bins": 10}, "bins"),
        ({"every": 1, "unit": "all"}, "unit"), ({"every": 1, "unit": -1}, "unit"),
        ({"every": 1, "names": []}, "names"), ({"every": 1, "names": ["first", "first"]}, "names"),
    ],
)  # fmt: skip
def test_wrong_settings_are_named(wrong, named):
    with pytest.raises(ValueError, match=named):
        Probes(make_model(), **{"names": ["first"]} | wrong)


def test_a_unit_or_an_observation_that_is_not_there_is_named():
    model = make_model()
    probes = Probes(model, ["first"], every=1, unit=7)
    with pytest.raises(ValueError, match="first: there is no unit 7, its last axis has 7"), probes.at(0):
        train(model, [0])
    assert not model.first.observers
    with pytest.raises(ValueError, match=r"step 0: nothing was seen of 'first', 'first\.w\.grad';"):
        Probes(make_model(), ["first", "first.w", "first.w.grad"], every=1).after_step(0)


def test_a_state_that_does_not_fit_is_refused_whole():
    model = make_model()
    probes = Probes(model, ["first", "first.w"], every=1)
    train(model, range(2), probes)
    state = probes.state_dict()
    del state["mean.first"]
    state["mean.other"] = np.zeros(2)
    state["quantiles.first"] = np.zeros((2, 4))
    state["norm.first"] = np.zeros(3)
    with pytest.raises(ValueError) as error:
        probes.load_state_dict(state)
    for part in ("missing mean.first", "unexpected mean.other", "quantiles.first has shape (2, 4), not (2, 3)",
                 "norm.first has shape (3,), not (2,)"):  # fmt: skip
        assert part in str(error.value)
    assert probes.steps.tolist() == [0, 1] and probes["first"].mean.shape == (2,)
    with pytest.raises(ValueError, match=r"recorded with .*unit=None, not with .*unit=1"):
        Probes(model, ["first", "first.w"], every=1, unit=1).load_state_dict(probes.state_dict())
    with pytest.raises(ValueError, match="missing settings; missing steps"):
        probes.load_state_dict({})
    with pytest.raises(ValueError, match="not the JSON of a recording"):
        Recording.from_json({"steps": [1]})
