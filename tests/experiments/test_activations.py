"""Section 4.1: the network is the paper's, and what is recorded is what it says."""

import numpy as np
import pytest

from npnets import experiments
from npnets.augment import normalize
from npnets.experiments import activations
from npnets.experiments.activations import EXPERIMENT, RunningStatistics, binary, chosen_steps
from npnets.training import fit
from tests import fakes

BATCH = 60


@pytest.fixture(scope="module")
def tiny():
    """Both networks, trained for one epoch of ten steps."""
    patch = pytest.MonkeyPatch()
    for name, value in {"epochs": 1, "train_images": 600, "test_images": 50}.items():
        patch.setitem(EXPERIMENT.small, name, value)
    patch.delenv("NPNETS_DATA", raising=False)
    yield experiments.small("activations", jobs=1, threads=1)
    patch.undo()


def test_the_settings_are_the_papers():
    assert EXPERIMENT.settings["epochs"] * 60_000 // EXPERIMENT.settings["batch_size"] == 50_000
    assert EXPERIMENT.settings["batch_size"] == 60
    one, other = (EXPERIMENT.settings_of(variant, 0) for variant in EXPERIMENT.variants)
    assert {name for name in one if one[name] != other[name]} == {"batch_norm"}
    assert set(EXPERIMENT.seeds.values()) == {(0, 1, 2)}


def test_images_are_binary():
    data = fakes.dataset(20)
    found = binary(data)
    assert set(np.unique(found.images)) == {0, 255} and found.name == "fake-binary"
    assert np.array_equal(found.images == 255, data.images >= 128)


def test_pixels_are_zero_or_one_and_the_seed_decides_weights_and_order():
    class Captured(Exception):
        pass

    def fit(model, train, **arguments):
        raise Captured(model, arguments)

    data = experiments.Data(fakes.dataset(600), fakes.dataset(50))
    captured = []
    for seed in (7, 8):
        with pytest.raises(Captured) as found:
            activations.train(EXPERIMENT.settings_of("baseline", seed), data, fit)
        captured.append(found.value.args)
    (one, arguments), (other, others) = captured
    assert arguments["statistics"] == (0, 1) and (arguments["seed"], others["seed"]) == (7, 8)
    assert not np.array_equal(one.classifier.w.value, other.classifier.w.value)
    assert one.classifier.w.value.std() == pytest.approx(EXPERIMENT.settings["weight_std"], rel=0.1)


def test_steps_are_dense_at_first():
    assert chosen_steps(50_000)[:12] == [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 3000]
    assert chosen_steps(50_000)[-2:] == [49_000, 50_000]
    assert chosen_steps(7) == [1, 2, 3, 4, 5, 6, 7]


def test_everything_of_figure_1_is_recorded(tiny):
    for record in tiny:
        assert record["steps"] == record["evaluations"]["step"] == list(range(1, 11))
        assert record["evaluations"]["images"] == 50 and len(record.curve("test_accuracy")[0]) == 10
        assert record.arrays["quantiles"].shape == (10, 3, 100)
        assert record.arrays["mean"].shape == record.arrays["variance"].shape == (10, 100)
        assert np.all(np.diff(record.arrays["quantiles"].astype(float), axis=1) >= 0)
        assert {len(norms) for norms in record["gradient_norms"].values()} == {10}
        assert list(record["gradient_norms"])[0::3] == ["hidden.0.linear.w", "classifier.w"]
        assert record.settings["train"] == "mnist-first-600" and record["data"]["train"] == "mnist-first-600-binary"


def test_with_batch_norm_the_inputs_of_the_sigmoid_are_normalized_and_without_not(tiny):
    (without,), (with_,) = tiny.of("baseline"), tiny.of("batch_norm")
    assert with_.arrays["mean"][0] == pytest.approx(np.zeros(100), abs=1e-3)  # gamma is one, beta zero at first
    assert with_.arrays["variance"][0].min() > 0.9 and with_.arrays["variance"][0].max() < 1.001  # one, but for eps
    assert without.arrays["variance"][0].max() < 0.1
    assert "statistics" not in without.content and set(with_["statistics"]) == set(RunningStatistics.fields)


def test_without_batch_norm_the_gradient_fades_towards_the_input(tiny):
    norms = [values[0] for values in tiny.of("baseline")[0]["gradient_norms"].values()]
    assert norms[0] < norms[2] < norms[3]


# --- The running statistics ------------------------------------------------------------------------------------------


def observed(steps, momentum=0.99):
    """Return the network and the callback after some steps of training, and the arguments of ``fit``."""
    model = activations.models.mlp_batch_norm(4, image_size=8, hidden=(12, 12, 12), bn_decay=momentum, seed=3)
    train = binary(fakes.dataset(600))
    watch = RunningStatistics(train, steps, BATCH, seed=5)
    arguments = {"epochs": 1, "batch_size": BATCH, "statistics": (0, 1), "progress": False, "threads": 1, "seed": 5}
    arguments["optimizer"] = activations.optim.SGD(model.parameters(), 0.5)
    fit(model, train, callbacks=[watch], **arguments)
    return model, watch, train


def test_looking_changes_no_bit_of_the_training():
    looked, _, _ = observed(range(1, 11))
    not_looked, _, _ = observed([])
    fakes.assert_same_bits(looked.state_dict(), not_looked.state_dict())


def test_the_population_is_that_of_algorithm_2():
    model, watch, _ = observed([10])
    bn, batches = model.hidden[2].bn, watch.batches
    assert len(batches) == 10 and {len(batch) for batch in batches} == {BATCH}
    inputs = []
    for batch in batches:
        x = batch.reshape(BATCH, -1)
        for layer in model.hidden[:2]:
            x = x @ layer.linear.w.value
            x_hat = (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + layer.bn.eps)
            x = 1 / (1 + np.exp(-(layer.bn.gamma.value * x_hat + layer.bn.beta.value)))
        inputs.append(x @ model.hidden[2].linear.w.value)
    mean = np.mean([x.mean(axis=0) for x in inputs], axis=0)
    variance = np.mean([x.var(axis=0, ddof=1) for x in inputs], axis=0)  # m / (m - 1) var_B
    found = watch.to_dict()
    expected = np.sqrt(np.mean((bn.running_mean - mean) ** 2 / variance))
    assert found["mean_error"] == [pytest.approx(expected, rel=1e-3)]
    assert found["variance_ratio"] == [pytest.approx(np.mean(bn.running_var / variance), rel=1e-3)]
    predicted = np.concatenate([model(batch) for batch in batches]).argmax(axis=1)
    assert found["inference_accuracy"] == [pytest.approx(np.mean(predicted == watch.labels))]


def test_each_label_is_that_of_its_image():
    train = fakes.numbered(120)
    labels = [(image, label) for image, label in zip(train.images, train.labels)]
    watch = RunningStatistics(train, [1], 20, seed=0)
    for image, label in zip(np.concatenate(watch.batches), watch.labels, strict=True):
        assert any(np.array_equal(normalize(i[None], 0, 1)[0], image) and k == label for i, k in labels)


def test_running_statistics_that_forget_fast_are_near_those_of_the_population():
    _, slow, _ = observed([10])
    _, fast, _ = observed([10], momentum=0.5)
    assert fast.rows[0][1] < 0.5 * slow.rows[0][1]  # the error of the mean
    assert abs(fast.rows[0][2] - 1) < abs(slow.rows[0][2] - 1)  # the ratio of the variances
    assert fast.rows[0][5] < slow.rows[0][5]  # the difference between the class probabilities


def test_the_state_of_the_callback_survives_a_checkpoint():
    _, watch, train = observed([5, 10])
    other = RunningStatistics(train, [5, 10], BATCH, seed=5)
    other.load_state_dict(watch.state_dict())
    assert other.to_dict() == watch.to_dict() and len(other.to_dict()["step"]) == 2
    assert RunningStatistics(train, [5], BATCH, seed=5).to_dict()["step"] == []


def test_numbers_too_large_for_half_precision_are_infinite_without_a_warning():
    assert activations._half(np.array([1e9])).tolist() == [np.inf]
