"""Models by name, as the command line builds them, and what holds for every one of them."""

import inspect
import tracemalloc

import numpy as np
import pytest

from npnets import cost, models
from tests.models import smallest_classifiers

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


@pytest.mark.parametrize("ask", [models.in_channels, lambda name: models.has_setting(name, "seed")])
def test_other_questions_about_an_unknown_model_are_refused(ask):
    for name in ("mobilenet_v9", ["mobilenet_v1"]):
        with pytest.raises(ValueError, match="unknown model "):
            ask(name)


# Bad settings: one sentence that names the setting, by name and called directly

FAMILIES = [*smallest_classifiers(), "efficientnet_b1", "ssd", "ssdlite", "deeplab_v3"]
BAD = {
    "num_classes": (["x", 1.5, None, 0, True], "num_classes must be "),
    "in_channels": (["x", 1.5, None, 0], "in_channels must be "),
    "width_mult": (["x", None, np.nan, 1e30, True], "width_mult must be "),
    "depth_mult": (["x", None, np.inf, 0], "depth_mult must be "),
    "bn_decay": (["x", None, np.nan, 1, -0.1], "bn_decay must be "),
    "bn_eps": (["x", None, np.nan, -1e-3], "bn_eps must be "),
    "dropout": (["x", [0.1], np.nan, 1, -0.1], "Dropout: rate must be "),
    "seed": (["x", 1.5, -1, None, True], "seed must be "),
    "dtype": (["foo", "int8", int, str, "complex64", None], "dtype must be float32 or float64, got "),
    "padding": ([1, "valid", "SAME", ["same"], None], 'padding must be "same" or "symmetric", got '),
    "table": ([5, None, "rows", (), iter(())], "table must "),
    "output_stride": ([np.array(8), [8], "8", 12, True], "output_stride must be 8, 16 or 32"),
    "survival_prob": (["x", None, 0], "survival_prob must be "),
    "stem_stride": (["x", 0], "stem_stride must be "),
    "stem_kernel": (["x", 0], "stem_kernel must be "),
    "activation": ([None, ["relu"], "tanh"], 'activation must be "relu'),  # which there are depends on the network
    "convolution": ([["standard"], None], 'convolution must be "separable" or "standard", got '),
    "backbone": ([["mobilenet_v1"], None], 'backbone must be "mobilenet_v1"'),
    "stride_in": ([["1x1"]], 'stride_in must be "3x3", "1x1" or "last", got '),
    "multi_grid": ([4, "abc"], "multi_grid must have a rate for each"),
    "extras": ([4, "ab", None], "extras must be the channels of at most 4 maps, got "),
    "multiple": (["x", 1.5, 0, None], "multiple must be "),
    "hidden": ([4, "ab", None], "hidden must be a list of integers, got "),
    "weight_std": (["x", None, np.inf, -1], "weight_std must be "),
    "bottleneck": ([["linear"]], 'bottleneck must be "linear" or "relu6", got '),
    "shortcut": ([["none"]], 'shortcut must be "bottleneck", "expansion" or "none", got '),
} | {
    name: (["off", "no", 1, *([] if name == "local_response_norm" else [None])], f"{name} must be True or False, got ")
    for name in ("batch_norm", "local_response_norm", "separable", "aspp", "shallow", "decay_depthwise")
}  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
def test_bad_settings_are_named(name):
    seen = set()
    for setting, (values, message) in BAD.items():
        for value in values if models.has_setting(name, setting) else []:
            seen.add(setting)
            for make in (lambda **settings: models.build(name, **settings), models.MODELS[name]):
                with pytest.raises(ValueError) as error:
                    make(**{setting: value})
                assert str(error.value).startswith(message), (setting, value)
    assert len(seen) >= 8


@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2", "efficientnet_b0", "bn_inception"])
def test_a_table_may_be_an_iterator(name):
    table = inspect.getmodule(models.MODELS[name]).TABLE
    assert repr(models.build(name, table=iter(table))) == repr(models.build(name))


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_no_batch_of_images_is_named(name):
    C = models.in_channels(name)
    model = models.build(name, in_channels=C)
    for x, message in [
        ([[1.0]], "x must be a NumPy array, got list; use np.asarray"),
        (None, "x must be a NumPy array, got NoneType"),
        (np.zeros((32, 32, C), np.float32), r"x .*\(32, 32"),
    ]:
        for training in (True, False):
            with pytest.raises(ValueError, match=message):
                model(x, training)


@pytest.mark.parametrize("name", ["mobilenet_v1_small", "mobilenet_v2_small"])
def test_an_output_stride_must_be_reached(name):
    for output_stride in (16, 32):
        with pytest.raises(ValueError, match=f"output_stride {output_stride} cannot be reached: the strides go to 8"):
            models.build(name, output_stride=output_stride)
    assert repr(models.build(name, output_stride=8)) == repr(models.build(name))
