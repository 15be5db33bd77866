"""Models by name, as the command line builds them, and what holds for every one of them."""

import inspect
import tracemalloc

import numpy as np
import pytest

from npnets import cost, models

NAMES = models.names()
COMMON = ["num_classes", "in_channels", "dropout", "bn_decay", "bn_eps", "seed", "dtype"]  # DESIGN.md
CONVOLUTIONAL = ["width_mult", "padding"]


def test_names():
    foundation = {"mobilenet_v1", "mobilenet_v2", "mobilenet_v1_small", "mobilenet_v2_small", "mlp_batch_norm"}
    assert foundation <= set(NAMES) and len(set(NAMES)) == len(NAMES)
    assert set(NAMES) <= set(models.__all__)
    assert set(NAMES) - set(models.classifiers()) == {"ssd", "ssdlite", "deeplab_v3"}


@pytest.mark.parametrize("name", models.classifiers())
def test_every_model_takes_the_common_settings(name):
    own = {"image_size": 8} if name == "mlp_batch_norm" else {"width_mult": 0.25, "padding": "symmetric"}
    common = {"num_classes": 5, "in_channels": 2, "dropout": 0.1, "bn_decay": 0.5, "bn_eps": 0.01, "seed": 3}
    model = models.build(name, dtype=np.float64, **common, **own)
    pixels = 8 if models.resolution(name) < 100 else 32
    x = np.random.default_rng(0).standard_normal((3, pixels, pixels, 2))
    logits = model(x, training=True)
    assert logits.shape == (3, 5) and logits.dtype == np.float64
    assert model.backward(logits).shape == x.shape
    assert model.trace((pixels, pixels, 2), lambda *layer: None) == (5,)


@pytest.mark.parametrize("name", models.classifiers())
def test_defaults_fit_the_resolution(name):
    pixels = models.resolution(name)
    model = models.build(name)
    in_channels = inspect.signature(models.MODELS[name]).parameters["in_channels"].default
    classes = 1000 if pixels > 200 else 10
    assert model.trace((pixels, pixels, in_channels), lambda *layer: None) == (classes,)


@pytest.mark.parametrize("name", NAMES)
def test_building_and_costing_draw_no_weights(name):
    """At full size they would be megabytes, and the table of costs needs none of them."""
    settings = {} if name == "mlp_batch_norm" else {"in_channels": 3}
    tracemalloc.start()
    model = models.build(name, **settings)
    total = cost.profile(model, (models.resolution(name),) * 2 + ((3,) if settings else (1,)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert all(parameter._value is None for parameter in model.parameters())
    assert total.params == sum(parameter.size for parameter in model.parameters())
    if total.params > 1_000_000:
        assert peak < total.params  # bytes: a quarter of the weights in float32


def test_small_models_pass_settings_on():
    model = models.build("mobilenet_v2_small", bottleneck="relu6", stem=8, padding="symmetric")
    assert model.stem.conv.C_out == 8 and model.stem.conv.padding == "symmetric"
    assert model.blocks[0].project_bn.activation == "relu6"
    assert models.build("mobilenet_v1_small", stem_stride=2).stem.conv.stride == (2, 2)


def test_an_unknown_name_suggests_a_similar_one():
    with pytest.raises(ValueError, match=r"unknown model 'mobilnet_v2'; did you mean mobilenet_v2\?") as error:
        models.build("mobilnet_v2")
    assert all(name in str(error.value) for name in NAMES)
    for nonsense in ("", 3, None):
        with pytest.raises(ValueError, match=r"unknown model .*there are mobilenet_v1, "):
            models.build(nonsense)


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_setting_is_named_with_the_known_ones(name):
    with pytest.raises(ValueError) as error:
        models.build(name, width_mul=0.5, sead=3)
    message = str(error.value)
    assert f"{name} has no setting 'width_mul', 'sead'" in message
    known = [*COMMON, *([] if name == "mlp_batch_norm" else CONVOLUTIONAL)]
    assert all(f"{setting}" in message.partition("it has ")[2].split(", ") for setting in known)
    assert "settings" not in message.partition("it has ")[2]


def test_the_resolution_of_an_unknown_model_is_refused():
    with pytest.raises(ValueError, match="unknown model 'mobilenet_v9'"):
        models.resolution("mobilenet_v9")
