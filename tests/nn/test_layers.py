"""What holds for every layer and block, and that each shell computes what its op computes.

A new layer or block belongs into ``CASES`` of ``tests/nn/__init__.py``.
"""

import inspect

import numpy as np
import pytest

from npnets import nn, ops
from tests.nn import CASES, arrays_of, make

FLOATS = [np.float32, np.float64]
ABSTRACT = {"Layer", "Module"}


def batch(shape, N=4, dtype=np.float64, seed=0):
    """Return a read-only batch whose numbers lie on both sides of the kinks at 0 and 6."""
    x = (3 * np.random.default_rng(seed).standard_normal((N, *shape)) + 1).astype(dtype)
    x.flags.writeable = False
    return x


def upstream(y, seed=1):
    """Return a read-only random gradient in the shape and dtype of y."""
    dy = np.random.default_rng(seed).standard_normal(y.shape).astype(y.dtype)
    dy.flags.writeable = False
    return dy


def gradients(module):
    return [parameter.grad for parameter in module.parameters()]


def test_every_layer_and_block_is_in_the_contract():
    classes = {name for name in nn.__all__ if inspect.isclass(getattr(nn, name))}
    modules = {name for name in classes if issubclass(getattr(nn, name), nn.Module)}
    assert modules - ABSTRACT == {case.split(",")[0] for case in CASES}


@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("case", CASES)
def test_contract(case, dtype, training):
    module, shape = make(case, dtype)
    x = batch(shape, dtype=dtype)
    y = module(x, training)
    dy = upstream(y)  # x and dy are read-only: writing into them raises
    dx = module.backward(dy)

    assert y.dtype == dx.dtype == dtype
    assert y.shape[1:] == module.trace(shape, lambda *layer: None)
    assert dx.shape == x.shape
    for parameter in module.parameters():
        assert parameter.value.dtype == parameter.grad.dtype == dtype
        assert parameter.value.shape == parameter.grad.shape == parameter.shape

    assert all(array.dtype == dtype for array in module.state_dict().values())

    arrays = {"x": x, "dy": dy, "y": y, "dx": dx, **arrays_of(module)}
    names = list(arrays)
    for k, name in enumerate(names):
        for other in names[:k]:
            assert not np.may_share_memory(arrays[name], arrays[other]), f"{name} and {other} share memory"

    # Whoever got y, dx and the gradients may overwrite them: a second backward still finds its cache as it was.
    results = [dx, *gradients(module)]
    first = [array.copy() for array in results]
    for array in (y, *results):
        array[...] = np.nan
    second = [module.backward(dy), *gradients(module)]
    assert [array.tobytes() for array in second] == [array.tobytes() for array in first]


@pytest.mark.parametrize("case", CASES)
def test_inference_is_a_function_of_one_image(case):
    module, shape = make(case)
    x = batch(shape)
    before = module.state_dict()
    y = module(x)
    dx = module.backward(upstream(y))
    for name, array in module.state_dict().items():
        assert np.array_equal(array, before[name]), f"inference changed {name}"
    for n in range(len(x)):
        one = module(x[n : n + 1])
        np.testing.assert_allclose(one, y[n : n + 1], rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(module.backward(upstream(y)[n : n + 1]), dx[n : n + 1], rtol=1e-12, atol=1e-12)


ONE_VALUE_AN_IMAGE = ("BatchNorm, 2-D", "ImagePooling", "ASPP")  # a batch norm over a batch of one is refused


@pytest.mark.parametrize("case", [case for case in CASES if not case.startswith(ONE_VALUE_AN_IMAGE)])
def test_a_batch_of_one_trains(case):
    module, shape = make(case)
    y = module(batch(shape, N=1), training=True)
    assert module.backward(upstream(y)).shape == (1, *shape)
    assert all(np.all(np.isfinite(gradient)) for gradient in gradients(module))


def test_batch_norm_of_a_single_value_cannot_train():
    module, shape = make("BatchNorm, 2-D")
    with pytest.raises(ValueError, match=r"batch_norm: training needs at least 2 values a channel, x \(1, 7\) has 1"):
        module(batch(shape, N=1), training=True)


@pytest.mark.parametrize("case", CASES)
def test_backward_before_forward_is_a_sentence(case):
    module, shape = make(case)
    classes = {type(part).__name__ for _, part in module.named_modules()}
    with pytest.raises(RuntimeError) as error:
        module.backward(np.zeros((1, *module.trace(shape, lambda *layer: None))))
    named, _, sentence = str(error.value).partition(": ")
    assert named in classes and sentence.startswith("backward was called before forward")


@pytest.mark.parametrize("case", CASES)
def test_state_dict_round_trip(case):
    module, shape = make(case, seed=3)
    other, _ = make(case, seed=4)
    x = batch(shape)
    other.load_state_dict(module.state_dict())
    assert other(x).tobytes() == module(x).tobytes()
    assert list(other.state_dict()) == list(module.state_dict())
    other_arrays = arrays_of(other)
    for name, array in arrays_of(module).items():
        assert np.array_equal(array, other_arrays[name]) and not np.may_share_memory(array, other_arrays[name])


@pytest.mark.parametrize("case", CASES)
def test_names_are_unique_paths(case):
    module, _ = make(case)
    names = [parameter.name for parameter in module.parameters()]
    assert len(set(names)) == len(names)
    for name, parameter in zip(names, module.parameters()):
        assert follow(module, name) is parameter
    assert [name for name in module.state_dict() if "running" not in name] == names


def follow(module, path):
    """Return what a path leads to: an attribute, or an item of a list."""
    for name in path.split("."):
        module = module[int(name)] if isinstance(module, list) else getattr(module, name)
    return module


@pytest.mark.parametrize("case", CASES)
def test_repr_tells_class_and_children_and_draws_no_weights(case):
    maker, _ = CASES[case]
    module = maker(np.random.default_rng(3), np.float32)
    text = repr(module)
    assert text.startswith(case.split(",")[0] + "(") and text.count("(") == text.count(")")
    assert all(f"({name}): " in text for name, _ in module.children())
    assert all(parameter._value is None for parameter in module.parameters())


def test_repr_of_layers_tells_their_settings():
    rng = np.random.default_rng(0)
    assert repr(nn.Conv2d(3, 8, (3, 5), stride=2, dilation=2, bias=True, rng=rng)) == (
        "Conv2d(3 -> 8, 3x5, stride 2, dilation 2, padding 'same', bias)"
    )
    assert repr(nn.DepthwiseConv2d(8, 3, stride=(2, 1), padding=1, rng=rng)) == (
        "DepthwiseConv2d(8 -> 8, 3x3, stride (2, 1), padding 1)"
    )
    assert repr(nn.PointwiseConv2d(8, 16, rng=rng)) == "PointwiseConv2d(8 -> 16)"
    assert repr(nn.Linear(8, 16, activation="relu", rng=rng)) == "Linear(8 -> 16, bias, relu)"
    assert repr(nn.Conv2d(3, 8, 3, activation="relu6", rng=rng)).endswith("padding 'same', relu6)")
    assert repr(nn.BatchNorm(8, decay=0.9)) == "BatchNorm(8, decay 0.9, eps 0.001)"
    assert repr(nn.MaxPool2d(3, stride=2)) == "MaxPool2d(3x3, stride 2, padding 'valid')"
    assert repr(nn.DropPath(0.8, rng=rng)) == "DropPath(0.8)"


# Each shell against its op, with settings that are not the defaults.

SPATIAL = {"stride": (2, 1), "padding": "symmetric", "dilation": (1, 2)}
SHELLS = {
    "conv2d": (lambda rng: nn.Conv2d(3, 4, (3, 2), bias=True, rng=rng, dtype=float, **SPATIAL), ("w", "b"), SPATIAL),
    "depthwise_conv2d": (
        lambda rng: nn.DepthwiseConv2d(3, (3, 2), bias=True, rng=rng, dtype=float, **SPATIAL),
        ("w", "b"),
        SPATIAL,
    ),
    "pointwise_conv2d": (lambda rng: nn.PointwiseConv2d(3, 4, bias=True, rng=rng, dtype=float), ("w", "b"), {}),
    "linear": (lambda rng: nn.Linear(3, 4, rng=rng, dtype=float), ("w", "b"), {}),
    "relu": (lambda rng: nn.ReLU(), (), {}),
    "relu6": (lambda rng: nn.ReLU6(), (), {}),
    "sigmoid": (lambda rng: nn.Sigmoid(), (), {}),
    "swish": (lambda rng: nn.Swish(), (), {}),
    "max_pool2d": (
        lambda rng: nn.MaxPool2d((3, 2), stride=(1, 2), padding=1),
        (),
        {"size": (3, 2), "stride": (1, 2), "padding": 1},
    ),
    "avg_pool2d": (lambda rng: nn.AvgPool2d(2, padding="same"), (), {"size": 2, "stride": 2, "padding": "same"}),
    "global_avg_pool": (lambda rng: nn.GlobalAvgPool(), (), {}),
    "local_response_norm": (
        lambda rng: nn.LocalResponseNorm(size=3, alpha=0.1, beta=0.5, k=1.5),
        (),
        {"size": 3, "alpha": 0.1, "beta": 0.5, "k": 1.5},
    ),
    "resize_bilinear": (
        lambda rng: nn.ResizeBilinear((3, 7), align_corners=True),
        (),
        {"size": (3, 7), "align_corners": True},
    ),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("op", SHELLS)
def test_a_layer_is_its_op(op, training):
    maker, names, settings = SHELLS[op]
    layer = maker(np.random.default_rng(7))
    for name in names:
        parameter = getattr(layer, name)
        parameter.value = np.random.default_rng(8).standard_normal(parameter.shape)
    x = batch((3,) if op == "linear" else (6, 5, 3))
    y, cache = getattr(ops, f"{op}_forward")(x, *(getattr(layer, name).value for name in names), **settings)
    dy = upstream(y)
    expected = getattr(ops, f"{op}_backward")(dy, cache)
    assert np.array_equal(layer(x, training), y)
    got = (layer.backward(dy), *(getattr(layer, name).grad for name in names))
    for gradient, expected_gradient in zip(got, expected if isinstance(expected, tuple) else (expected,)):
        assert np.array_equal(gradient, expected_gradient)


SAME_PASS = ["Conv2d, relu6", "Conv2d, swish", "DepthwiseConv2d, relu", "PointwiseConv2d, relu6", "Linear, relu"]


@pytest.mark.parametrize("case", SAME_PASS)
def test_an_activation_in_the_same_pass_is_the_layer_after_it(case):
    fused, shape = make(case)
    plain, _ = make(case)
    plain.activation, after = None, nn.activation_layer(fused.activation)
    x = batch(shape)
    np.testing.assert_allclose(fused(x), after(plain(x)), rtol=1e-14 if fused.activation == "swish" else 0)
    dy = upstream(fused(x))
    assert np.array_equal(fused.backward(dy), plain.backward(after.backward(dy)))
    for gradient, expected in zip(gradients(fused), gradients(plain)):
        assert np.array_equal(gradient, expected)


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_is_its_op_and_owns_the_running_statistics(training):
    layer, shape = make("BatchNorm")
    x = batch(shape)
    statistics = layer.running_mean.copy(), layer.running_var.copy()
    y, cache = ops.batch_norm_forward(
        x, layer.gamma.value, layer.beta.value, *statistics, training=training, decay=0.7, eps=1e-3
    )
    dx, dgamma, dbeta = ops.batch_norm_backward(upstream(y), cache)
    assert np.array_equal(layer(x, training), y)
    assert np.array_equal(layer.backward(upstream(y)), dx)
    assert np.array_equal(layer.gamma.grad, dgamma) and np.array_equal(layer.beta.grad, dbeta)
    assert np.array_equal(layer.running_mean, statistics[0]) and np.array_equal(layer.running_var, statistics[1])


def test_batch_norm_starts_as_the_identity_up_to_eps():
    layer = nn.BatchNorm(3, eps=0.25, dtype=np.float64)
    x = batch((6, 5, 3))
    np.testing.assert_allclose(layer(x), x / np.sqrt(1.25))
    assert [array.dtype for array in layer.state_dict().values()] == [np.float64] * 4


@pytest.mark.parametrize("make_layer, op", [(nn.Dropout, "dropout"), (nn.DropPath, "drop_path")])
def test_masks_come_from_the_layers_own_generator(make_layer, op):
    shared = np.random.default_rng(11)
    layer, neighbour = make_layer(0.5, rng=shared), make_layer(0.5, rng=shared)
    x = np.ones((40, 2, 3, 2))
    state = layer.rng.bit_generator.state
    first = layer(x, training=True)
    dx = layer.backward(x)
    assert np.array_equal(dx, first)  # the backward has the mask of the forward
    assert not np.array_equal(layer(x, training=True), first)  # the next step has another
    assert layer.rng is not neighbour.rng and not np.array_equal(neighbour(x, training=True), first)
    layer.rng.bit_generator.state = state
    assert np.array_equal(layer(x, training=True), first)
    assert np.array_equal(layer(x), x)
    assert 0 < (first == 0).mean() < 1


def test_generators_are_found_by_path():
    module, _ = make("Sequential")
    assert [path for path, _ in module.generators()] == ["dropout.rng"]


def test_flatten_keeps_the_order_of_the_pixels():
    x = np.arange(24.0).reshape(2, 2, 2, 3)
    layer = nn.Flatten()
    assert np.array_equal(layer(x), np.arange(24.0).reshape(2, 12))
    assert np.array_equal(layer.backward(np.arange(24.0).reshape(2, 12)), x)


def test_weight_decay_applies_to_weights_alone():
    flags = {}
    for case in CASES:
        module, _ = make(case)
        for parameter in module.parameters():
            flags.setdefault(parameter.name.rpartition(".")[2], set()).add((parameter.decay, parameter.name))
    assert {name: {decay for decay, _ in seen} for name, seen in flags.items() if name != "w"} == {
        "b": {False},
        "gamma": {False},
        "beta": {False},
    }
    assert {name for decay, name in flags["w"] if not decay} == {"depthwise.w"}  # that of DepthwiseSeparable
    rng = np.random.default_rng(0)
    assert nn.DepthwiseConv2d(3, 3, rng=rng).w.decay and not nn.DepthwiseConv2d(3, 3, decay=False, rng=rng).w.decay


RNG = np.random.default_rng(0)
BAD = {
    "no channels": (lambda: nn.Conv2d(0, 4, 3, rng=RNG), "C_in must be at least 1, got 0"),
    "half a channel": (lambda: nn.Conv2d(3, 4.5, 3, rng=RNG), "C_out must be an integer, got 4.5"),
    "depthwise channels": (lambda: nn.DepthwiseConv2d(-1, 3, rng=RNG), "C must be at least 1, got -1"),
    "linear channels": (lambda: nn.Linear("7", 3, rng=RNG), "C_in must be an integer, got '7'"),
    "kernel": (lambda: nn.Conv2d(3, 4, 0, rng=RNG), "kernel must be at least 1, got 0"),
    "stride": (lambda: nn.Conv2d(3, 4, 3, stride=0, rng=RNG), "stride must be at least 1, got 0"),
    "dilation": (lambda: nn.Conv2d(3, 4, 3, dilation=(1, 0), rng=RNG), "dilation must be at least 1, got 0"),
    "padding": (lambda: nn.Conv2d(3, 4, 3, padding="SAME", rng=RNG), "Conv2d: padding must be .* got 'SAME'"),
    "negative padding": (
        lambda: nn.DepthwiseConv2d(3, 3, padding=-1, rng=RNG),
        "DepthwiseConv2d: padding must be at least 0, got -1",
    ),
    "pool size": (lambda: nn.MaxPool2d(0), "size must be at least 1, got 0"),
    "pool padding": (lambda: nn.AvgPool2d(2, padding="SAME"), "AvgPool2d: padding must be .* got 'SAME'"),
    "batch norm channels": (lambda: nn.BatchNorm(0), "C must be at least 1, got 0"),
    "decay": (lambda: nn.BatchNorm(3, decay=1), "BatchNorm: decay .* must be at least 0 and below 1, got 1"),
    "eps": (lambda: nn.BatchNorm(3, eps=-1e-3), "BatchNorm: eps must be at least 0, got -0.001"),
    "conv activation": (
        lambda: nn.Conv2d(3, 4, 3, activation="sigmoid", rng=RNG),
        'Conv2d: activation must be "relu", "relu6", "swish" or None, got .sigmoid.',
    ),
    "batch norm activation": (
        lambda: nn.BatchNorm(3, activation="swish"),
        'BatchNorm: activation must be "relu", "relu6" or None, got .swish.',
    ),
    "linear activation": (
        lambda: nn.Linear(3, 4, activation="ReLU", rng=RNG),
        'Linear: activation must be "relu", "relu6", "swish" or None, got .ReLU.',
    ),
    "rate": (lambda: nn.Dropout(1, rng=RNG), "Dropout: rate must be at least 0 and below 1, got 1"),
    "survival": (lambda: nn.DropPath(0, rng=RNG), "DropPath: survival_prob must be above 0 and at most 1, got 0"),
    "no rate": (lambda: nn.Dropout("x", rng=RNG), "Dropout: rate must be a finite number, got 'x'"),
    "no decay": (lambda: nn.BatchNorm(3, decay=None), "BatchNorm: decay .* must be a finite number, got None"),
    "nan": (lambda: nn.BatchNorm(3, eps=np.nan), "BatchNorm: eps must be a finite number, got nan"),
    "bias": (lambda: nn.Conv2d(3, 4, 3, bias="no", rng=RNG), "bias must be True or False, got 'no'"),
    "depthwise bias": (lambda: nn.DepthwiseConv2d(3, 3, bias=0, rng=RNG), "bias must be True or False, got 0"),
    "linear bias": (lambda: nn.Linear(3, 4, bias="no", rng=RNG), "bias must be True or False, got 'no'"),
    "weight decay": (lambda: nn.DepthwiseConv2d(3, 3, decay=0.1, rng=RNG), "decay must be True or False, got 0.1"),
    "corners": (lambda: nn.ResizeBilinear(3, align_corners="no"), "align_corners must be True or False, got 'no'"),
    "dtype": (lambda: nn.Conv2d(3, 4, 3, rng=RNG, dtype="int8"), "dtype must be float32 or float64, got 'int8'"),
    "dtype of batch norm": (lambda: nn.BatchNorm(3, dtype=None), "dtype must be float32 or float64, got None"),
    "window": (lambda: nn.LocalResponseNorm(size=4), "LocalResponseNorm: size must be odd"),
    "resize": (lambda: nn.ResizeBilinear((3, 0)), "size must be at least 1, got 0"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_settings_fail_when_the_layer_is_made(what):
    make_layer, message = BAD[what]
    with pytest.raises(ValueError, match=message):
        make_layer()


WRONG = {
    "Conv2d": ((4, 6, 5, 2), "Conv2d: expects 3 channels"),
    "DepthwiseConv2d": ((4, 6, 5, 2), "DepthwiseConv2d: expects 3 channels"),
    "PointwiseConv2d": ((4, 6, 5, 2), "PointwiseConv2d: expects 3 channels"),
    "Linear": ((4, 8), "Linear: expects 7 channels"),
    "BatchNorm": ((4, 6, 5, 2), "BatchNorm: expects 3 channels"),
    "Conv2d, bias": ((4, 3, 3), r"Conv2d: .*\(H, W, C\)"),
    "MaxPool2d": ((4, 7), r"MaxPool2d: .*\(H, W, C\)"),
    "GlobalAvgPool": ((4, 7), r"GlobalAvgPool: .*\(H, W, C\)"),
    "ResizeBilinear": ((4, 7), r"ResizeBilinear: .*\(H, W, C\)"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_the_forward_refuses_the_trace_refuses_by_name(case):
    """A cost table of a network that cannot run would be wrong without a word."""
    module, _ = make(case)
    shape, message = WRONG[case]
    with pytest.raises(ValueError):
        module(np.zeros(shape))
    with pytest.raises(ValueError, match=message):
        module.trace(shape[1:], lambda *layer: None)


def test_an_image_too_small_for_the_kernel_is_refused_by_both():
    layer = nn.Conv2d(3, 4, 5, padding="valid", rng=np.random.default_rng(0))
    for call in (lambda: layer(np.zeros((1, 4, 4, 3), np.float32)), lambda: layer.trace((4, 4, 3), print)):
        with pytest.raises(ValueError, match=r"5x5 kernel .* image of 4x4 pixels"):
            call()


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(3, 4, 3, stride=2, rng=np.random.default_rng(0)),
        nn.DepthwiseConv2d(3, 3, stride=2, rng=np.random.default_rng(0)),
        nn.MaxPool2d(3, stride=2, padding="same"),
        nn.AvgPool2d(3, stride=2, padding="same"),
        nn.InvertedResidual(3, 4, stride=2, rng=np.random.default_rng(0)),
    ],
    ids=lambda layer: type(layer).__name__,
)
@pytest.mark.parametrize("H, W", [(1, 5), (5, 1)])
def test_a_single_line_of_pixels_cannot_be_halved(layer, H, W):
    """Under SAME padding it would go through without an error, and the stride would do nothing."""
    message = f"an image of {H}x{W} pixels is too small for the stride 2; use a higher resolution"
    with pytest.raises(ValueError, match=message):
        layer.trace((H, W, 3), lambda *args: None)
    for training in (True, False):
        with pytest.raises(ValueError, match=message):
            layer(np.ones((2, H, W, 3), np.float32), training)


@pytest.mark.parametrize("case", ["Conv2d", "DepthwiseConv2d", "MaxPool2d", "AvgPool2d", "Flatten"])
def test_what_is_no_array_of_images_is_told_before_its_size(case):
    layer, _ = make(case)
    with pytest.raises(ValueError, match=f"^{type(layer).__name__}: x must be a NumPy array, got list; use np.asarray"):
        layer([[1.0]])
    if case != "Flatten":
        with pytest.raises(ValueError, match=r": x must have the shape \(N, H, W, C\), got \(28, 28, 1\)"):
            layer(np.zeros((28, 28, 1)))
