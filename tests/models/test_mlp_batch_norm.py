"""The network of section 4.1 of the batch-norm paper."""

import numpy as np
import pytest

from npnets import cost, nn
from npnets.models import mlp_batch_norm
from tests.models import gradient_errors
from tests.nn import randomize


def kinds(model):
    return [type(part).__name__ for _, part in model.named_modules() if isinstance(part, nn.Layer)]


def test_three_hidden_layers_of_100_and_ten_classes():
    model = mlp_batch_norm()
    hidden = ["Linear", "BatchNorm", "Sigmoid"]
    assert kinds(model) == ["Flatten", *hidden * 3, "Dropout", "Linear"]
    shapes = [p.shape for p in model.parameters() if p.name.endswith("w")]
    assert shapes == [(784, 100), (100, 100), (100, 100), (100, 10)]
    assert kinds(mlp_batch_norm(batch_norm=False)) == ["Flatten", *["Linear", "Sigmoid"] * 3, "Dropout", "Linear"]


def test_beta_takes_over_from_the_bias():
    """Section 3.2: "the bias b can be ignored [...] (its role is subsumed by beta)"."""
    weights = 784 * 100 + 2 * 100 * 100 + 100 * 10
    with_bn, without = (cost.profile(mlp_batch_norm(batch_norm=on), (28, 28, 1)) for on in (True, False))
    assert with_bn.macs == without.macs == weights
    assert with_bn.params == weights + 3 * 2 * 100 + 10
    assert without.params == weights + 3 * 100 + 10
    names = [p.name for p in mlp_batch_norm().parameters()]
    assert [name for name in names if name.endswith(".b")] == ["classifier.b"]


def test_weights_start_gaussian():
    for parameter in mlp_batch_norm(weight_std=0.25, dtype=np.float64).parameters():
        if parameter.name.endswith("w"):
            assert parameter.value.std() == pytest.approx(0.25, rel=0.1), parameter.name
            assert np.abs(parameter.value).max() > 3 * 0.25 or parameter.size < 2000  # a uniform one would end sooner


def test_the_inputs_of_the_last_sigmoid_have_a_name():
    """Figure 1 (b, c) is drawn from them."""
    for batch_norm, name in [(True, "hidden.2.bn"), (False, "hidden.2.linear")]:
        model = mlp_batch_norm(batch_norm=batch_norm, dtype=np.float64)
        seen = []
        dict(model.named_modules())[name].observers.append(seen.append)
        outputs = []
        dict(model.named_modules())["hidden.2.act"].observers.append(outputs.append)
        model(np.random.default_rng(0).standard_normal((5, 28, 28, 1)))
        np.testing.assert_allclose(outputs[0], 1 / (1 + np.exp(-seen[0])))


@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize("activation", ["sigmoid", "swish"])
@pytest.mark.parametrize("batch_norm", [True, False], ids=["bn", "no bn"])
def test_gradients(batch_norm, activation, training):
    settings = {"batch_norm": batch_norm, "activation": activation, "dropout": 0.2}
    model = randomize(mlp_batch_norm(in_channels=2, image_size=5, hidden=(9, 8, 7), dtype=np.float64, **settings))
    x = np.random.default_rng(1).standard_normal((6, 5, 5, 2))
    errors = gradient_errors(model, x, training=training, h=1e-5)
    assert max(errors) < 1e-6, errors  # no kinks here: every direction counts
    for parameter in model.parameters():
        errors = gradient_errors(model, x, training=training, directions=1, h=1e-5, names={parameter.name})
        assert max(errors) < 1e-6, (parameter.name, errors)


def test_settings():
    model = mlp_batch_norm(7, 3, image_size=4, hidden=(5,), activation="relu6", bn_decay=0.6, bn_eps=0.5, dropout=0.1)
    assert kinds(model) == ["Flatten", "Linear", "BatchNorm", "ReLU6", "Dropout", "Linear"]
    assert (model.hidden[0].bn.decay, model.hidden[0].bn.eps, model.dropout.rate) == (0.6, 0.5, 0.1)
    assert model(np.zeros((2, 4, 4, 3), np.float32)).shape == (2, 7)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"activation": "tanh"}, "activation must be .*sigmoid.* got 'tanh'"),
        ({"image_size": 0}, "image_size must be at least 1, got 0"),
        ({"in_channels": 0}, "in_channels must be at least 1, got 0"),
        ({"num_classes": 0}, "num_classes must be at least 1, got 0"),
        ({"hidden": (100, 0)}, "must be at least 1, got 0"),
        ({"weight_std": -1.0}, "weight_std must be .*, got -1.0"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        mlp_batch_norm(**settings).state_dict()


def test_an_image_of_another_size_names_the_layer():
    with pytest.raises(ValueError, match=r"hidden.0: linear: linear: x \(2, 1024\) has 1024 channels"):
        mlp_batch_norm()(np.zeros((2, 32, 32, 1), np.float32))
