"""Batch norm folded into the weights: the same outputs, on every network, and nothing of the original changed."""

import copy

import numpy as np
import pytest

from npnets import cost, models, nn
from npnets.nn.blocks import mobile
from tests.models import smallest_classifiers
from tests.nn import CASES, arrays_of, make, randomize
from tests.oracles import relative_error

SETTINGS = {
    **{name: (name, {}) for name in smallest_classifiers()},
    "relu6 on the bottleneck": ("mobilenet_v2", {"bottleneck": "relu6"}),
    "a shortcut between expansions": ("mobilenet_v2", {"shortcut": "expansion"}),
    "no shortcut": ("mobilenet_v2_small", {"shortcut": "none"}),
    "swish": ("mlp_batch_norm", {"activation": "swish"}),
    "relu": ("mlp_batch_norm", {"activation": "relu"}),
    "without batch norm": ("mlp_batch_norm", {"batch_norm": False}),
    "dropout": ("mobilenet_v1", {"dropout": 0.5}),
}


def network(what, dtype=np.float32):
    """Return a narrow network that has been in training for some steps, and a batch of images."""
    name, settings = SETTINGS[what]
    narrow = {"num_classes": 5, "width_mult": 0.25, "dtype": dtype, **settings}
    model = models.build(name, **{key: value for key, value in narrow.items() if models.has_setting(name, key)})
    pixels = models.resolution(name) if models.resolution(name) < 100 else 64
    return trained(model, (pixels, pixels, models.in_channels(name)), dtype)


def trained(model, shape, dtype=np.float64):
    """Give a module random gammas, betas and biases, and running statistics that differ from mean 0 and variance 1."""
    randomize(model)
    x = np.random.default_rng(5).standard_normal((4, *shape)).astype(dtype)
    for _ in range(3):
        model(x, training=True)
    for _, module in model.named_modules():
        if isinstance(module, nn.BatchNorm):
            assert np.all(module.running_var != 1) and np.all(module.running_mean != 0)
    return model, x


def parts(y):
    return y if isinstance(y, (tuple, list)) else [y]


def assert_same_outputs(folded, model, x, tolerance):
    for y, expected in zip(parts(folded(x)), parts(model(x)), strict=True):
        assert y.dtype == expected.dtype == x.dtype
        assert relative_error(y, expected) < tolerance


def kinds(model):
    return [type(module).__name__ for _, module in model.named_modules()]


def drawn(dtype=np.float64):
    return {"rng": np.random.default_rng(2), "dtype": dtype}


# On networks


@pytest.mark.parametrize("what", SETTINGS)
@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 1e-5), (np.float64, 1e-12)])
def test_every_network_gives_the_same_outputs(what, dtype, tolerance):
    model, x = network(what, dtype)
    folded = nn.fold_batch_norm(model)
    assert_same_outputs(folded, model, x, tolerance)
    assert "BatchNorm" not in kinds(folded)  # in all networks there are so far it follows a convolution


@pytest.mark.parametrize("what", SETTINGS)
def test_the_model_is_not_changed_and_shares_nothing(what):
    model, _ = network(what)
    before = {name: array.tobytes() for name, array in arrays_of(model).items()}
    text = repr(model)
    folded = nn.fold_batch_norm(model)
    own = arrays_of(folded)
    for array in own.values():
        array[...] = np.nan
    assert {name: array.tobytes() for name, array in arrays_of(model).items()} == before
    assert repr(model) == text and type(folded) is type(model)
    assert not any(np.may_share_memory(a, b) for a in own.values() for b in arrays_of(model).values())


@pytest.mark.parametrize("what", SETTINGS)
def test_remaining_layers_keep_their_names(what):
    model, _ = network(what)
    folded = nn.fold_batch_norm(model)
    paths = dict(model.named_modules())
    assert all(type(paths[path]) is type(module) for path, module in folded.named_modules())
    gone = {path: module for path, module in paths.items() if path not in dict(folded.named_modules())}
    assert {type(module) for module in gone.values()} <= {nn.BatchNorm, nn.ReLU, nn.ReLU6, nn.Swish}
    own = {name: array.shape for name, array in folded.state_dict().items()}
    kept = {name: array.shape for name, array in model.state_dict().items() if name.rpartition(".")[0] not in gone}
    assert kept.items() <= own.items() and all(name.endswith(".b") for name in own.keys() - kept.keys())


def test_names_and_activations_in_mobilenet_v2():
    folded = nn.fold_batch_norm(models.mobilenet_v2(width_mult=0.35))
    assert [name for name in folded.state_dict() if name.startswith("blocks.3.")] == [
        f"blocks.3.{layer}.{array}" for layer in ("expand", "depthwise", "project") for array in "wb"
    ]
    block = folded.blocks[3]
    assert [layer.activation for layer in (block.expand, block.depthwise, block.project)] == ["relu6", "relu6", None]
    assert block.adds_input == models.mobilenet_v2(width_mult=0.35).blocks[3].adds_input
    assert "expand_bn" not in repr(folded) and "relu6" in repr(folded.stem)


@pytest.mark.parametrize("name", smallest_classifiers())
def test_the_cost_is_that_of_the_convolutions_and_their_biases(name):
    model, x = network(name)
    folded = nn.fold_batch_norm(model)
    before, after = cost.profile(model, x.shape), cost.profile(folded, x.shape)
    biases = sum(array.size for name, array in folded.state_dict().items() if name not in model.state_dict())
    assert after.macs == before.macs
    assert after.params == after.params_without_bn == before.params_without_bn + biases < before.params


def test_a_network_whose_weights_were_never_drawn_is_left_as_it_is():
    model, same = models.mobilenet_v2_small(seed=3), models.mobilenet_v2_small(seed=3)
    folded = nn.fold_batch_norm(model)
    assert all(parameter._value is None for parameter in model.parameters())
    x = np.random.default_rng(0).standard_normal((2, 28, 28, 3)).astype(np.float32)
    assert np.array_equal(model(x), same(x))
    assert_same_outputs(folded, model, x, 1e-5)


# What may be done with it


def test_it_cannot_be_trained():
    model, x = network("mobilenet_v2_small")
    folded = nn.fold_batch_norm(model)
    for use in (lambda: folded(x, training=True), lambda: folded.backward(folded(x))):
        with pytest.raises(RuntimeError, match=r"for inference alone.*train the model it was made from"):
            use()
    model(x, training=True)  # the original can
    plain, x = network("without batch norm")
    with pytest.raises(RuntimeError, match="for inference"):
        nn.fold_batch_norm(plain)(x, training=True)


def test_folding_twice_is_folding_once():
    model, x = network("mobilenet_v2_small")
    once = nn.fold_batch_norm(model)
    twice = nn.fold_batch_norm(once)
    assert repr(twice) == repr(once) and np.array_equal(twice(x), once(x))
    assert not any(np.may_share_memory(a, b) for a in arrays_of(twice).values() for b in arrays_of(once).values())


def test_its_state_can_be_loaded_into_another():
    model, x = network("mobilenet_v2_small")
    folded = nn.fold_batch_norm(model)
    other = nn.fold_batch_norm(models.mobilenet_v2_small(num_classes=5, width_mult=0.25, in_channels=x.shape[-1]))
    assert not np.array_equal(other(x), folded(x))
    other.load_state_dict(folded.state_dict())
    assert np.array_equal(other(x), folded(x))
    with pytest.raises(ValueError, match=r"unexpected: stem\.conv\.b"):
        model.load_state_dict(folded.state_dict())


def test_it_keeps_nothing_for_a_backward():
    """An activation that nobody needs any more is freed: its memory, still in the cache, is used for the next."""
    model, x = network("mobilenet_v2_small")
    folded = nn.fold_batch_norm(model)
    folded(x)
    caches = [module.cache for _, module in folded.named_modules() if isinstance(module, nn.Layer)]
    assert caches and all(cache is None for cache in caches)


def test_only_a_module_can_be_folded():
    with pytest.raises(ValueError, match="fold_batch_norm: needs a Module, got dict"):
        nn.fold_batch_norm({})


# On pieces of networks


@pytest.mark.parametrize("case", CASES)
def test_every_layer_and_block_gives_the_same_outputs(case):
    module, shape = make(case)
    x = np.random.default_rng(0).standard_normal((3, *shape))
    assert_same_outputs(nn.fold_batch_norm(module), module, x, 1e-12)


def test_by_hand():
    bn = nn.BatchNorm(2, eps=1.0, dtype=np.float64)
    bn.gamma.value, bn.beta.value = [6.0, -4.0], [0.5, 7.0]
    bn.running_mean[...], bn.running_var[...] = [1.0, -2.0], [8.0, 3.0]  # scale = 6 / 3 and -4 / 2
    linear = nn.Linear(1, 2, **drawn())
    linear.w.value, linear.b.value = [[10.0, 20.0]], [3.0, 5.0]
    folded = nn.fold_batch_norm(nn.Sequential(linear=linear, bn=bn))
    assert folded.linear.w.value.tolist() == [[20.0, -40.0]]
    assert folded.linear.b.value.tolist() == [0.5 + (3 - 1) * 2, 7 + (5 + 2) * -2]


CHAINS = {
    # layers, and the kinds that are left of them
    "a batch norm first": (lambda: [nn.BatchNorm(3, dtype=float), pointwise()], ["BatchNorm", "PointwiseConv2d"]),
    "swish after it": (lambda: [pointwise(), norm(), nn.Swish()], ["PointwiseConv2d"]),
    "swish before it": (lambda: [pointwise(), nn.Swish(), norm()], ["PointwiseConv2d", "BatchNorm"]),
    "sigmoid after it": (lambda: [pointwise(), norm(), nn.Sigmoid()], ["PointwiseConv2d", "Sigmoid"]),
    "sigmoid before it": (lambda: [pointwise(), nn.Sigmoid(), norm()], ["PointwiseConv2d", "Sigmoid", "BatchNorm"]),
    "relu after it": (lambda: [pointwise(), norm(), nn.ReLU()], ["PointwiseConv2d"]),
    "relu before it": (lambda: [pointwise(), nn.ReLU(), norm()], ["PointwiseConv2d", "BatchNorm"]),
    "a relu of the layer": (lambda: [pointwise(activation="relu"), norm()], ["PointwiseConv2d", "BatchNorm"]),
    "relu and relu6": (lambda: [pointwise(), norm(activation="relu"), nn.ReLU6()], ["PointwiseConv2d", "ReLU6"]),
    "two": (lambda: [pointwise(), norm(), norm(activation="relu6")], ["PointwiseConv2d"]),
    "no batch norm": (lambda: [pointwise(bias=True), nn.ReLU6()], ["PointwiseConv2d"]),
    "dropout between": (lambda: [pointwise(), dropout(), norm()], ["PointwiseConv2d", "Dropout", "BatchNorm"]),
    "after pooling": (lambda: [nn.GlobalAvgPool(), nn.BatchNorm(3, dtype=float)], ["GlobalAvgPool", "BatchNorm"]),
    "a list": (lambda: [[pointwise(), norm()], [nn.ReLU6(), pointwise(4)]], ["PointwiseConv2d", "PointwiseConv2d"]),
}


def pointwise(C_in=3, **settings):
    return nn.PointwiseConv2d(C_in, 4, **drawn(), **settings)


def norm(**settings):
    return nn.BatchNorm(4, dtype=np.float64, **settings)


def dropout():
    return nn.Dropout(0.5, rng=np.random.default_rng(0))


@pytest.mark.parametrize("what", CHAINS)
def test_what_is_folded_and_what_stays(what):
    layers, left = CHAINS[what]
    named = {f"part{k}": layer for k, layer in enumerate(layers())}
    model, x = trained(nn.Sequential(**named), (5, 6, 3))
    folded = nn.fold_batch_norm(model)
    assert kinds(folded) == ["Sequential", *left]
    assert_same_outputs(folded, model, x, 1e-12)


def test_items_of_a_list_keep_their_numbers():
    model, x = trained(nn.Sequential(layers=[pointwise(), norm(), nn.Sigmoid(), pointwise(4), norm()]), (5, 6, 3))
    folded = nn.fold_batch_norm(model)
    assert [name for name, _ in folded.named_modules()] == ["", "layers.0", "layers.2", "layers.3"]
    assert_same_outputs(folded, model, x, 1e-12)


def test_branches_and_shortcuts_are_chains_of_their_own():
    def branch():
        return nn.Sequential(pointwise(), norm(activation="relu"))

    model = nn.Sequential(
        branches=nn.Concat(branch(), nn.Residual(branch(), shortcut=branch()), bare=pointwise()),
        norm=nn.BatchNorm(12, dtype=np.float64),
    )
    model, x = trained(model, (5, 6, 3))
    folded = nn.fold_batch_norm(model)
    assert kinds(folded).count("BatchNorm") == 1  # the one after the branches
    assert_same_outputs(folded, model, x, 1e-12)


class Fork(nn.Module):
    """A forward of its own: the convolution's output is used twice, once before and once after the batch norm."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn = pointwise(), norm()
        self.tail = nn.Sequential(pointwise(4), norm())

    def forward(self, x, training=False):
        y = self.conv(x, training)
        return self.tail(y + self.bn(y, training), training)


class Doubling(nn.Sequential):
    """A chain that does something else with its layers."""

    def forward(self, x, training=False):
        return self.bn(2 * self.conv(x, training), training)


class Scaled(nn.PointwiseConv2d):
    """A layer that looks like one that can be folded."""

    def apply(self, x, training):
        y, cache = super().apply(x, training)
        return y + 1, cache


class Shifting(nn.BatchNorm):
    """A batch norm that is none."""

    def apply(self, x, training):
        y, cache = super().apply(x, training)
        return y + 1, cache


def test_modules_with_a_forward_of_their_own_are_folded_below_it_only():
    model, x = trained(Fork(), (5, 6, 3))
    folded = nn.fold_batch_norm(model)
    assert kinds(folded) == ["Fork", "PointwiseConv2d", "BatchNorm", "Sequential", "PointwiseConv2d"]
    assert_same_outputs(folded, model, x, 1e-12)
    for other in (
        Doubling(conv=pointwise(), bn=norm()),
        nn.Sequential(Scaled(3, 4, **drawn()), norm()),
        nn.Sequential(pointwise(), Shifting(4, dtype=np.float64)),
    ):
        model, x = trained(other, (5, 6, 3))
        folded = nn.fold_batch_norm(model)
        assert repr(folded) == repr(model)
        assert_same_outputs(folded, model, x, 1e-12)


class Cropping(nn.DepthwiseSeparable):
    """A block with a forward of its own around that of its class."""

    def forward(self, x, training=False):
        return super().forward(x[:, 1:], training)


def test_a_block_with_a_forward_of_its_own_is_not_folded_and_cannot_be_trained_either():
    model, x = trained(Cropping(3, 4, **drawn()), (5, 6, 3))
    folded = nn.fold_batch_norm(model)
    assert "BatchNorm" in kinds(folded)
    assert_same_outputs(folded, model, x, 1e-12)
    with pytest.raises(RuntimeError, match="for inference alone"):
        folded(x, training=True)


def test_a_layer_that_stands_in_two_places_is_folded_in_each():
    shared = pointwise()
    branches = [nn.Sequential(shared, norm()), nn.Sequential(shared, norm())]
    model = nn.Concat(*branches, bare=shared, again=nn.Sequential(shared))
    model, x = trained(model, (5, 6, 3))
    folded = nn.fold_batch_norm(model)
    assert "BatchNorm" not in kinds(folded) and folded.bare is getattr(folded.again, "0")
    assert_same_outputs(folded, model, x, 1e-12)


def test_a_batch_norm_of_other_channels_stays_to_be_refused_by_name():
    folded = nn.fold_batch_norm(nn.Sequential(conv=pointwise(), bn=nn.BatchNorm(1)))
    with pytest.raises(ValueError, match=r"bn: batch_norm: gamma must have the shape \(4,\)"):
        folded(np.zeros((1, 2, 2, 3)))


def test_what_watches_the_model_or_was_kept_for_its_backward_is_not_copied():
    seen = []
    model, x = trained(nn.Sequential(conv=pointwise(), bn=norm()), (5, 6, 3))
    for _, module in model.named_modules():
        module.observers.append(seen.append)
    model(x)
    count = len(seen)
    folded = nn.fold_batch_norm(model)
    assert folded.conv.cache is None and model.conv.cache is not None
    folded(x)
    assert len(seen) == count
    folded.conv.observers.append(seen.append)
    folded(x)
    assert len(seen) == count + 1 and len(model.conv.observers) == 1


@pytest.mark.parametrize("make_block", [nn.InvertedResidual, nn.DepthwiseSeparable])
def test_a_folded_block_is_one_op_unless_somebody_looks_at_its_layers(make_block, monkeypatch):
    model, x = trained(make_block(3, 3, **drawn()), (5, 6, 3))
    folded = nn.fold_batch_norm(model)
    calls, seen = [], []
    op = mobile.folded_bottleneck
    monkeypatch.setattr(mobile, "folded_bottleneck", lambda *args, **settings: calls.append(1) or op(*args, **settings))
    y = folded(x)
    folded.depthwise.observers.append(seen.append)
    np.testing.assert_allclose(folded(x), y, rtol=1e-12, atol=1e-12)
    assert len(calls) == 1 and len(seen) == 1
    folded.depthwise.observers.clear()
    folded.as_one_op = False
    np.testing.assert_allclose(folded(x), y, rtol=1e-12, atol=1e-12)
    assert len(calls) == 1


def test_a_block_whose_layers_were_exchanged_is_no_longer_one_op():
    folded = nn.fold_batch_norm(trained(nn.InvertedResidual(3, 4, **drawn()), (5, 6, 3))[0])
    x = np.random.default_rng(0).standard_normal((2, 5, 6, 3))
    folded.project = Scaled(18, 4, **drawn())
    layers = nn.Sequential(folded.expand, folded.depthwise, folded.project)
    np.testing.assert_allclose(folded(x), layers(x), rtol=1e-12, atol=1e-12)


def test_a_block_without_batch_norm_that_was_not_folded_still_has_a_backward():
    block = nn.InvertedResidual(3, 4, **drawn())
    block.expand_bn = block.depthwise_bn = block.project_bn = None
    x = np.random.default_rng(0).standard_normal((2, 5, 6, 3))
    assert block.backward(block(x)).shape == x.shape


def test_a_folded_model_can_be_copied():
    model, x = network("mobilenet_v2_small")
    folded = nn.fold_batch_norm(model)
    twin = copy.deepcopy(folded)
    assert np.array_equal(twin(x), folded(x))


def test_folding_after_a_training_step_takes_no_activations_along():
    block = nn.InvertedResidual(4, 4, 2, rng=np.random.default_rng(0))
    block(np.random.default_rng(1).standard_normal((2, 5, 5, 4)).astype(np.float32), training=True)
    folded = nn.fold_batch_norm(block)
    assert block.cache is not None
    assert all(getattr(module, "cache", None) is None for _, module in folded.named_modules())
    with pytest.raises(RuntimeError):
        folded.backward(np.ones((2, 5, 5, 4), np.float32))
