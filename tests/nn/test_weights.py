"""Weights from elsewhere: PyTorch's names and index order, files in any order, and what is refused by name."""

import importlib.util
import json
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from npnets import checkpoint, models, nn
from npnets.benchmarks import measure
from npnets.checkpoint import from_torch, save_weights
from npnets.training import fit
from tests import fakes
from tests.nn import randomize

RNG = np.random.default_rng(4)
AS_IN_TORCH = {"padding": "symmetric", "bn_eps": 1e-5}


def drawn(*shape):
    return RNG.standard_normal(shape)


def layer(kind, *arguments, **settings):
    return kind(*arguments, rng=np.random.default_rng(0), dtype=np.float64, **settings)


def torch_arrays(module):
    """Return PyTorch's arrays of one layer by name, in their index order."""
    arrays = {name: array.copy() for name, array in vars(module).items() if name in module.running}
    for ours, theirs in {"w": "weight", "b": "bias", "gamma": "weight", "beta": "bias"}.items():
        if getattr(module, ours, None) is not None:
            arrays[theirs] = getattr(module, ours).value.copy()
    match type(module):
        case nn.Conv2d:
            arrays["weight"] = np.einsum("ijmn->nmij", arrays["weight"])
        case nn.DepthwiseConv2d:
            arrays["weight"] = np.einsum("ijm->mij", arrays["weight"])[:, None]
        case nn.PointwiseConv2d:
            arrays["weight"] = np.einsum("mn->nm", arrays["weight"])[:, :, None, None]
        case nn.Linear:
            arrays["weight"] = np.einsum("mn->nm", arrays["weight"])
        case nn.BatchNorm:
            arrays["num_batches_tracked"] = np.array(3)
    return arrays


def torch_dict(model, names="features.{}"):
    """Return the state dict that the same network would have in PyTorch, its layers numbered from the first on."""
    parts = [torch_arrays(module) for _, module in model.named_modules() if hasattr(module, "w") or module.running]
    return {f"{names.format(k)}.{name}": array for k, part in enumerate(parts) for name, array in part.items()}


def net(seed=0, num_classes=4, dtype=np.float64):
    """Return a MobileNetV2 of 11 layers with weights and 10 batch norms."""
    settings = {"table": [(1, 8, 1, 1), (2, 8, 2, 2)], "stem": 8, "head": 16, "dtype": dtype, **AS_IN_TORCH}
    return randomize(models.mobilenet_v2_small(num_classes, 1, 0.25, seed=seed, **settings), seed)


def assert_same_state(model, other):
    fakes.assert_same_bits(model.state_dict(), other.state_dict())


# --- Index orders ----------------------------------------------------------------------------------------------------


def test_each_index_goes_to_its_place():
    w = drawn(5, 4, 3, 2)
    conv = from_torch({"weight": w, "bias": drawn(5)}, layer(nn.Conv2d, 4, 5, (3, 2), bias=True))
    assert conv["w"].shape == (3, 2, 4, 5) and conv["w"][2, 1, 3, 4] == w[4, 3, 2, 1] != w[0, 0, 0, 0]
    w = drawn(4, 1, 3, 2)
    depthwise = from_torch({"weight": w}, layer(nn.DepthwiseConv2d, 4, (3, 2)))
    assert depthwise["w"].shape == (3, 2, 4) and depthwise["w"][2, 0, 3] == w[3, 0, 2, 0]
    w = drawn(4, 1, 3, 2)
    one_channel = from_torch({"weight": w}, layer(nn.Conv2d, 1, 4, (3, 2)))
    assert one_channel["w"].shape == (3, 2, 1, 4) and one_channel["w"][2, 0, 0, 3] == w[3, 0, 2, 0]


@pytest.mark.parametrize("tail", [(), (1, 1)], ids=["linear", "1x1 convolution"])
@pytest.mark.parametrize("kind", [nn.Linear, nn.PointwiseConv2d, nn.Conv2d])
def test_linear_layers_and_1x1_convolutions_stand_for_each_other(kind, tail):
    own = layer(kind, 3, 4, *([1] if kind is nn.Conv2d else []), bias=True)
    w, b = drawn(4, 3, *tail), drawn(4)
    state = from_torch({"fc.weight": w, "fc.bias": b}, own)
    assert state["w"].shape == own.w.shape
    np.testing.assert_array_equal(state["w"].reshape(3, 4), w.reshape(4, 3).T)
    np.testing.assert_array_equal(state["b"], b)


def test_batch_norm_has_other_names():
    names = {"weight": "gamma", "bias": "beta", "running_mean": "running_mean", "running_var": "running_var"}
    arrays = {name: drawn(3) for name in names} | {"num_batches_tracked": np.array(8)}
    state = from_torch(arrays, nn.BatchNorm(3))
    assert list(state) == list(names.values())
    for theirs, ours in names.items():
        np.testing.assert_array_equal(state[ours], arrays[theirs])


ROUND_TRIPS = {
    "mobilenet_v1_small": lambda seed: models.mobilenet_v1_small(width_mult=0.25, seed=seed, **AS_IN_TORCH),
    "mobilenet_v2_small": lambda seed: models.mobilenet_v2_small(width_mult=0.25, seed=seed, **AS_IN_TORCH),
    "mlp_batch_norm": lambda seed: models.mlp_batch_norm(seed=seed, image_size=8, hidden=(9, 5)),
    "a shortcut with weights": lambda seed: nn.Residual(
        layer(nn.Conv2d, 3, 4, 3), nn.BatchNorm(4), shortcut=layer(nn.PointwiseConv2d, 3, 4, bias=True)
    ),
    "branches": lambda seed: nn.Concat(a=layer(nn.ConvBNAct, 3, 4, 5), b=layer(nn.MBConv, 3, 3, 2)),
}


@pytest.mark.parametrize("what", ROUND_TRIPS)
def test_a_network_goes_to_pytorch_and_back(what):
    model, other = randomize(ROUND_TRIPS[what](0), 1), randomize(ROUND_TRIPS[what](1), 2)
    state = from_torch(torch_dict(model), other)
    assert list(state) == list(other.state_dict())
    other.load_state_dict(state)
    assert_same_state(other, model)


def test_nothing_is_shared_drawn_or_changed():
    theirs = contiguous(torch_dict(models.mobilenet_v2_small(width_mult=0.25)))
    model = models.mobilenet_v2_small(width_mult=0.25)
    before = {name: array.copy() for name, array in theirs.items()}
    state = from_torch(theirs, model)
    assert all(parameter._value is None for parameter in model.parameters())
    assert all(array.flags.c_contiguous for array in state.values())
    for array in state.values():
        array[...] = np.nan
    for name in theirs:
        np.testing.assert_array_equal(theirs[name], before[name], err_msg=name)


# --- What does not fit -----------------------------------------------------------------------------------------------


def refused(theirs, model):
    """Return the message of from_torch."""
    before = {name: array.copy() for name, array in model.state_dict().items()}
    with pytest.raises(ValueError) as error:
        from_torch(theirs, model)
    fakes.assert_same_bits(model.state_dict(), before)
    return str(error.value)


def test_another_shape_is_told_with_both_names_and_shapes():
    message = refused(torch_dict(net(num_classes=5)), net())
    assert message.splitlines()[1:] == [
        "  another shape: features.20.weight (5, 16) does not become classifier.w (16, 4), weight layer 11",
        "  another shape: features.20.bias (5,) does not become classifier.b (4,), weight layer 11",
    ]


def test_a_transposed_weight_is_not_taken():
    theirs = torch_dict(net())
    theirs["features.20.weight"] = theirs["features.20.weight"].T
    assert "another shape: features.20.weight (16, 4) does not become classifier.w (16, 4)" in refused(theirs, net())


@pytest.mark.parametrize("kind, C_in", [(nn.DepthwiseConv2d, 2), (nn.PointwiseConv2d, 3)])
def test_no_part_of_a_weight_is_left_out(kind, C_in):
    """A depthwise kernel of two channels a group, and a 3x3 convolution for a 1x1."""
    own = layer(kind, 4, 3) if kind is nn.DepthwiseConv2d else layer(kind, 3, 4)
    w = drawn(4, C_in, 3, 3)
    assert f"another shape: weight {w.shape} does not become w {own.w.shape}" in refused({"weight": w}, own)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda theirs: theirs.pop("features.20.bias"),
            "missing: classifier.b (4,); weight layer 11 of the weights, features.20.weight (4, 16), has no bias",
        ),
        (
            lambda theirs: theirs.pop("features.1.running_var"),
            "missing: stem.bn.running_var (8,); batch norm 1 of the weights, features.1.running_mean (8,), "
            "features.1.weight (8,), features.1.bias (8,), has no running_var",
        ),
        (
            lambda theirs: theirs.update({"features.0.bias": drawn(8)}),
            "unexpected: features.0.bias (8,); "
            "weight layer 1 of this model, stem.conv.w (3, 3, 1, 8), has no such array",
        ),
        (
            lambda theirs: theirs.update({"features.0.scale": drawn(8, 1)}),
            "unexpected: features.0.scale (8, 1); "
            "weight layer 1 of this model, stem.conv.w (3, 3, 1, 8), has no such array",
        ),
        (
            lambda theirs: theirs.update({"side.weight": drawn(2, 3), "side.bias": drawn(2)}),
            "unexpected: side.weight (2, 3), side.bias (2,); this model has no weight layer 12",
        ),
        (
            lambda theirs: [theirs.pop(f"features.20.{name}") for name in ("weight", "bias")],
            "missing: classifier.w (16, 4), classifier.b (4,); the weights have no weight layer 11",
        ),
        (
            lambda theirs: [theirs.pop(name) for name in list(theirs) if name.startswith("features.19.")],
            "missing: head.bn.gamma (16,), head.bn.beta (16,), head.bn.running_mean (16,), head.bn.running_var (16,); "
            "the weights have no batch norm 10",
        ),
    ],
)
def test_what_is_missing_or_left_over_is_told(change, message):
    theirs = torch_dict(net())
    change(theirs)
    assert refused(theirs, net()).splitlines()[1:] == [f"  {message}"]


def test_all_that_does_not_fit_is_in_one_message():
    theirs = torch_dict(net())
    theirs["features.0.weight"] = drawn(8, 1, 5, 5)
    del theirs["features.1.bias"], theirs["features.20.bias"]
    lines = refused(theirs, net()).splitlines()[1:]
    assert [line.split(":")[0].strip() for line in lines] == ["another shape", "missing", "missing"]


def test_a_layer_in_another_place_is_noticed_by_its_shapes():
    theirs = torch_dict(net())
    moved = {"features.0.weight": theirs.pop("features.0.weight")}
    assert "features.0.weight (8, 1, 3, 3) does not become classifier.w (16, 4)" in refused(theirs | moved, net())


class Tensor:
    """What np.asarray makes of a PyTorch tensor: an array, or PyTorch's own error."""

    def __init__(self, array, error=None):
        self.array, self.error = array, error

    def __array__(self, dtype=None, copy=None):
        if self.error:
            raise self.error
        return self.array


def test_tensors_are_taken_as_arrays():
    model, other = net(1), net(2)
    other.load_state_dict(from_torch({name: Tensor(array) for name, array in torch_dict(model).items()}, other))
    assert_same_state(other, model)


def test_tensors_that_numpy_does_not_know_are_all_named():
    theirs = torch_dict(net())
    theirs["features.0.weight"] = Tensor(None, TypeError("Got unsupported ScalarType BFloat16"))
    theirs["features.2.weight"] = Tensor(None, RuntimeError("Can't call numpy() on Tensor that requires grad."))
    theirs["features.3.weight"] = {"weight": 1}
    message = refused(theirs, net())
    assert "tensor.detach().cpu().float()" in message.splitlines()[0]
    assert message.splitlines()[1:] == [
        "  features.0.weight: Got unsupported ScalarType BFloat16",
        "  features.2.weight: Can't call numpy() on Tensor that requires grad.",
        "  features.3.weight: it has the dtype object",
    ]


# --- Files -----------------------------------------------------------------------------------------------------------


def write_in_order(path, arrays):
    """Write a .safetensors file whose tensors stand in the order of a dict: the library would sort them."""
    header, data = {}, b""
    for name, array in arrays.items():
        dtype = {"f8": "F64", "f4": "F32", "f2": "F16", "i8": "I64", "u2": "BF16"}[array.dtype.str[1:]]
        header[name] = {"dtype": dtype, "shape": array.shape, "data_offsets": [len(data), len(data) + array.nbytes]}
        data += array.tobytes()
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def contiguous(arrays):
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_own_weights_are_written_and_read(suffix, tmp_path):
    model, other = net(1), net(2)
    save_weights(tmp_path / f"weights{suffix}", model)
    other.load_state_dict(tmp_path / f"weights{suffix}")
    assert_same_state(other, model)
    other = net(2)
    other.load_state_dict(str(tmp_path / f"weights{suffix}"))
    assert_same_state(other, model)
    assert [path.name for path in tmp_path.iterdir()] == [f"weights{suffix}"]


class Scale(nn.Module):
    """A module of the user's that names its array as PyTorch would."""

    def __init__(self, value):
        super().__init__()
        self.weight = nn.Parameter((2, 3), nn.init.constant(value))


def test_own_names_come_first(tmp_path):
    save_weights(tmp_path / "scale.npz", Scale(2))
    other = Scale(1)
    other.load_state_dict(tmp_path / "scale.npz")
    assert other.weight.value.tolist() == [[2, 2, 2], [2, 2, 2]]


def test_other_dtypes_are_converted(tmp_path):
    model, single = net(1), net(2, dtype=np.float32)
    save_weights(tmp_path / "weights.safetensors", model)
    single.load_state_dict(tmp_path / "weights.safetensors")
    for name, array in single.state_dict().items():
        np.testing.assert_array_equal(array, model.state_dict()[name].astype(np.float32))


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_a_disk_that_fills_up_leaves_the_weights_before(suffix, tmp_path, monkeypatch):
    path = tmp_path / f"weights{suffix}"
    save_weights(path, net(1))
    monkeypatch.setattr(fakes.FullDisk, "space", path.stat().st_size - 1)
    monkeypatch.setattr(checkpoint, "open", fakes.FullDisk, raising=False)
    with pytest.raises(OSError, match="No space left"):
        save_weights(path, net(2))
    other = net(3)
    other.load_state_dict(path)
    assert_same_state(other, net(1))
    assert [path.name for path in tmp_path.iterdir()] == [path.name]


def test_weights_are_written_to_files_of_two_kinds(tmp_path):
    with pytest.raises(ValueError, match=r"\.npz or a \.safetensors file, not to .*weights\.pt$"):
        save_weights(tmp_path / "weights.pt", net())
    assert not list(tmp_path.iterdir())


def test_an_npz_file_of_pytorch_keeps_its_order(tmp_path):
    model, other = net(1), net(2)
    theirs = {f"{chr(ord('z') - k)}.{name}": array for k, name, array in numbered(torch_dict(model))}
    assert list(theirs) != sorted(theirs)
    np.savez(tmp_path / "theirs.npz", **theirs)
    other.load_state_dict(tmp_path / "theirs.npz")
    assert_same_state(other, model)


def numbered(theirs):
    """Yield (number of the layer, name of the array, array)."""
    for name, array in theirs.items():
        _, k, last = name.split(".")
        yield int(k), last, array


def test_the_alphabetical_order_of_safetensors_is_not_taken_for_the_forward_order(tmp_path):
    """The library sorts features.10 before features.2; with the shapes alike, nobody would notice."""
    model = net(1)
    theirs = contiguous(torch_dict(model))
    in_file_order = {name: theirs[name] for name in sorted(theirs)}
    assert list(in_file_order) != list(theirs)
    save_file(theirs, tmp_path / "theirs.safetensors")
    np.savez(tmp_path / "theirs.npz", **in_file_order)  # as somebody converts the one file to the other
    for state in (tmp_path / "theirs.safetensors", tmp_path / "theirs.npz", from_torch(in_file_order, net(2))):
        other = net(2)
        other.load_state_dict(state)
        assert_same_state(other, model)


def test_nor_is_it_where_each_dtype_is_sorted_by_itself(tmp_path):
    model, other = net(1, dtype=np.float32), net(2, dtype=np.float32)
    theirs = contiguous(torch_dict(model))
    for name in ("features.0.weight", "features.20.bias", "features.4.weight"):
        theirs[name] = theirs[name].astype(np.float16)
    save_file(theirs, tmp_path / "theirs.safetensors")
    other.load_state_dict(tmp_path / "theirs.safetensors")
    expected = net(3, dtype=np.float32)
    expected.load_state_dict(from_torch(theirs, expected))
    assert_same_state(other, expected)


def test_layers_of_equal_shapes_are_told_apart_by_their_numbers(tmp_path):
    def chain(seed):
        return randomize(nn.Sequential(*[layer(nn.Linear, 3, 3) for _ in range(12)]), seed)

    model, other = chain(1), chain(2)
    save_file(contiguous(torch_dict(model, "{}")), tmp_path / "theirs.safetensors")
    other.load_state_dict(tmp_path / "theirs.safetensors")
    assert_same_state(other, model)


def test_a_safetensors_file_in_another_order_is_trusted(tmp_path):
    model, other = net(1), net(2)
    theirs = {f"{chr(ord('z') - k)}.{name}": array for k, name, array in numbered(torch_dict(model))}
    write_in_order(tmp_path / "theirs.safetensors", theirs)
    other.load_state_dict(tmp_path / "theirs.safetensors")
    assert_same_state(other, model)


def renamed(theirs, rename):
    """Return a PyTorch state dict with other names of the layers: ``rename(number of the layer) -> name``."""
    return {f"{rename(k)}.{last}": array for k, last, array in numbered(theirs)}


@pytest.mark.parametrize("last", ["classifier", "fc", "head.1", "z"])
def test_words_are_put_in_the_order_in_which_the_shapes_fit(last, tmp_path):
    """As in most networks that were published: features and a classifier, which is sorted before them."""
    model, other = net(1), net(2)
    theirs = torch_dict(model)
    final = max(k for k, _, _ in numbered(theirs))
    theirs = renamed(theirs, lambda k: last if k == final else f"features.{k}")
    save_file(contiguous(theirs), tmp_path / "theirs.safetensors")
    other.load_state_dict(tmp_path / "theirs.safetensors")
    assert_same_state(other, model)


@pytest.mark.parametrize("name", ["resnet50", "efficientnet_b0", "mobilenet_v1"])
def test_the_names_of_well_known_networks_are_put_in_order(name, tmp_path):
    """Convolutions and batch norms by name, one block after the other, and words that sort the wrong way."""
    model, other = (randomize(models.build(name, width_mult=0.25, num_classes=5), seed) for seed in (1, 2))
    theirs = {}
    for path, module in model.named_modules():
        if hasattr(module, "w") or module.running:
            theirs |= {f"{well_known(name, path)}.{key}": array for key, array in torch_arrays(module).items()}
    assert list(theirs) != sorted(theirs)
    save_file(contiguous(theirs), tmp_path / "theirs.safetensors")
    other.load_state_dict(tmp_path / "theirs.safetensors")
    assert_same_state(other, model)


def well_known(network, path):
    """Return the name that a layer has in the usual PyTorch code."""
    parts = path.split(".")
    if network == "resnet50":  # layer1.0.conv1, layer1.0.bn1, layer1.0.downsample.0, fc
        names = {"reduce": "conv1", "conv": "conv2", "restore": "conv3"}
        names |= {"reduce_bn": "bn1", "conv_bn": "bn2", "restore_bn": "bn3"}
        if parts[0] != "stages":
            return {"stem.0.conv": "conv1", "stem.0.bn": "bn1", "classifier": "fc"}[path]
        if "shortcut" in parts:
            return f"layer{int(parts[1]) + 1}.{parts[2]}.downsample.{int(parts[-1] == 'bn')}"
        return f"layer{int(parts[1]) + 1}.{parts[2]}.{names[parts[-1]]}"
    if network == "efficientnet_b0":  # conv_stem, bn1, blocks.3.conv_pw, blocks.3.se.conv_reduce, conv_head, bn2
        outside = {"stem.conv": "conv_stem", "stem.bn": "bn1", "head.conv": "conv_head", "head.bn": "bn2"}
        inside = {"expand": "conv_pw", "depthwise": "conv_dw", "project": "conv_pwl"}
        inside |= {"expand_bn": "bn1", "depthwise_bn": "bn2", "project_bn": "bn3"}
        inside |= {"squeeze_excite.reduce": "se.conv_reduce", "squeeze_excite.expand": "se.conv_expand"}
        return outside.get(path) or f"blocks.{parts[1]}.{inside['.'.join(parts[2:])]}" if len(parts) > 1 else path
    return "fc" if path == "classifier" else f"model.{path}"


def test_layers_that_fit_in_more_than_one_order_are_refused(tmp_path):
    """With words alone in their names, two batch norms of equal shape could be swapped, and nobody would notice."""
    chained = {f"{chr(ord('a') + k)}{'x' * k}.{last}": array for k, last, array in numbered(theirs_of_equal_layers())}
    save_file(contiguous(chained), tmp_path / "theirs.safetensors")
    equal = nn.Sequential(*[layer(nn.Linear, 3, 3) for _ in range(3)])
    before = equal.state_dict()
    with pytest.raises(ValueError, match=r"theirs\.safetensors: .*more than one order: \w+ may come before or after"):
        equal.load_state_dict(tmp_path / "theirs.safetensors")
    fakes.assert_same_bits(equal.state_dict(), before)
    equal.load_state_dict(from_torch(chained, equal))  # a dict in its own order is taken at its word


def test_of_another_number_of_classes_nothing_else_is_told(tmp_path):
    theirs = torch_dict(net(1, num_classes=5))
    final = max(k for k, _, _ in numbered(theirs))
    theirs = renamed(theirs, lambda k: "classifier" if k == final else f"features.{k}")
    save_file(contiguous(theirs), tmp_path / "five.safetensors")
    with pytest.raises(ValueError, match=r"five\.safetensors: these weights do not fit") as error:
        net(2).load_state_dict(tmp_path / "five.safetensors")
    _, *lines = str(error.value).splitlines()
    assert len(lines) == 2  # weight and bias
    assert "classifier.weight (5, 16) does not become classifier.w (16, 4)" in lines[0]


def test_what_torch_save_wrote_is_no_npz_file(tmp_path):
    """It is a zip file too, and its members are of another kind."""
    with zipfile.ZipFile(tmp_path / "weights.npz", "w") as archive:
        archive.writestr("v2/data.pkl", b"\x80\x02}q\x00.")
        archive.writestr("v2/data/0", bytes(64))
    with pytest.raises(ValueError, match=r"weights\.npz is damaged .*v2/data\.pkl in it is no array; torch\.save"):
        net(1).load_state_dict(tmp_path / "weights.npz")


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_a_file_without_arrays_is_refused(suffix, tmp_path):
    path = tmp_path / f"empty{suffix}"
    save_file({}, path) if suffix == ".safetensors" else np.savez(path)
    with pytest.raises(ValueError, match=r"empty\.\w+ holds no arrays"):
        net(1).load_state_dict(path)


def theirs_of_equal_layers():
    return torch_dict(randomize(nn.Sequential(*[layer(nn.Linear, 3, 3) for _ in range(3)]), 4), "f.{}")


def test_a_checkpoint_gives_the_weights_that_load_model_takes(tmp_path):
    about = {"model": "mobilenet_v2_small", "model_settings": {"in_channels": 1, "num_classes": fakes.CLASSES}}
    about["model_settings"] |= {"width_mult": 0.25, "table": fakes.TABLE, "stem": 8, "head": 16}
    path = tmp_path / "checkpoint.npz"
    fit(**fakes.recipe(epochs=1), callbacks=[checkpoint.Checkpoint(path, about=about)])
    other = fakes.net(seed=8)
    other.load_state_dict(path)
    assert_same_state(other, checkpoint.load_model(path)[0])
    plain = checkpoint.load_model(path, averaged=False)[0].state_dict()
    assert not np.array_equal(other.state_dict()["classifier.w"], plain["classifier.w"])
    with pytest.raises(ValueError, match=r"checkpoint\.npz: the state does not belong to this model"):
        net(1, num_classes=5).load_state_dict(path)


def test_a_file_of_another_model_is_named_with_its_arrays(tmp_path):
    save_weights(tmp_path / "five.npz", net(1, num_classes=5))
    model, before = net(2), net(2).state_dict()
    with pytest.raises(ValueError, match=r"five\.npz: the state does not belong .*\n.*classifier\.w is \(16, 5\)"):
        model.load_state_dict(tmp_path / "five.npz")
    fakes.assert_same_bits(model.state_dict(), before)


def test_numbers_that_numpy_does_not_have_are_named(tmp_path):
    theirs = contiguous(torch_dict(net(1)))
    theirs["features.2.weight"] = np.zeros(theirs["features.2.weight"].shape, np.uint16)
    write_in_order(tmp_path / "bf16.safetensors", theirs)
    with pytest.raises(ValueError, match=r"bf16\.safetensors.*features\.2\.weight is BF16; .*tensor\.float\(\)"):
        net(2).load_state_dict(tmp_path / "bf16.safetensors")


def damaged_files(folder):
    """Yield the path of one damaged file after the other."""
    whole = {}
    for suffix in (".npz", ".safetensors"):
        path = folder / f"whole{suffix}"
        save_weights(path, net(1))
        whole[suffix] = path.read_bytes()
        path.unlink()
    for suffix, content in whole.items():
        path = folder / f"damaged{suffix}"
        for end in (0, 1, 7, 8, 9, len(content) // 3, len(content) - 1):
            path.write_bytes(content[:end])
            yield path
        path.write_bytes(content[:300] + b"\xff" * 64 + content[364:])  # in the header of safetensors
        yield path
        path.write_bytes(whole[".npz" if suffix == ".safetensors" else ".safetensors"])
        yield path
    path = folder / "damaged.npz"
    np.savez(path, **{"stem.conv.w": np.array([print], object)})  # it would have to be unpickled
    yield path
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    yield path


def test_damaged_files_are_refused_by_name_and_nothing_is_changed(tmp_path):
    model, before = net(2), net(2).state_dict()
    for path in damaged_files(tmp_path):
        with pytest.raises(ValueError, match=rf"damaged{path.suffix} is damaged or no {path.suffix} file of arrays: ."):
            model.load_state_dict(path)
        fakes.assert_same_bits(model.state_dict(), before)


def test_a_flipped_bit_in_an_npz_file_is_noticed(tmp_path):
    path = tmp_path / "weights.npz"
    save_weights(path, net(1))
    content = bytearray(path.read_bytes())
    place = content.index(net(1).state_dict()["stem.conv.w"].tobytes())
    content[place + 5] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"weights\.npz is damaged"):
        net(2).load_state_dict(path)


@pytest.mark.parametrize("name", ["weights.pth", "weights.pt", "weights", "model.h5"])
def test_other_kinds_of_files_are_not_read(name, tmp_path):
    (tmp_path / name).write_bytes(b"cos\nsystem\n")
    with pytest.raises(ValueError, match=rf"{name}: expected an \.npz or a \.safetensors file.*save_file"):
        net().load_state_dict(tmp_path / name)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_a_missing_file_is_named(suffix, tmp_path):
    with pytest.raises(FileNotFoundError, match=f"nothing{suffix}"):
        net().load_state_dict(tmp_path / f"nothing{suffix}")


# --- PyTorch ---------------------------------------------------------------------------------------------------------


def squeezing(C_classes):
    """Return the network of the same name in torch_networks.py."""
    common = {"rng": np.random.default_rng(0)}
    block = common | AS_IN_TORCH
    return nn.Sequential(
        stem=nn.ConvBNAct(3, 12, 3, stride=2, activation="swish", **block),
        dilated=nn.ConvAct(12, 16, 3, dilation=2, padding="symmetric", **common),
        first=nn.SqueezeExcite(16, 3, **common),
        depthwise=nn.DepthwiseConv2d(16, 5, stride=2, padding="symmetric", **common),
        depthwise_bn=nn.BatchNorm(16, eps=1e-5),
        depthwise_act=nn.Swish(),
        second=nn.SqueezeExcite(16, 4, **common),
        project=nn.ConvBNAct(16, 24, 1, activation=None, **block),
        columns=nn.Conv2d(24, 10, (3, 1), padding="symmetric", bias=True, **common),
        pool=nn.GlobalAvgPool(),
        top=nn.Linear(10, C_classes, bias=False, **common),
    )


NETWORKS = {
    "V1": lambda: models.mobilenet_v1(7, width_mult=0.25, **AS_IN_TORCH),
    "V2": lambda: models.mobilenet_v2(7, width_mult=0.35, **AS_IN_TORCH),
    "Tiny": lambda: models.mobilenet_v2(7, table=[(1, 8, 1, 1), (3, 8, 2, 2)], stem=8, head=16, **AS_IN_TORCH),
    "Squeezing": lambda: squeezing(7),
}
KEPT = Path(__file__).with_name("torch_files")


@pytest.fixture(scope="module")
def torch_folder(tmp_path_factory):
    """Return the folder with what torch_networks.py writes."""
    folder = tmp_path_factory.mktemp("torch")
    program = Path(__file__).with_name("torch_networks.py")
    subprocess.run([measure.find_torch().python, str(program), str(folder)], check=True)
    return folder


def check_logits(name, suffix, folder):
    model = NETWORKS[name]()
    model.load_state_dict(folder / f"{name}{suffix}")
    with np.load(folder / f"{name}.run.npz", allow_pickle=False) as run:
        x, logits = run["x"], run["logits"]
    assert np.ptp(logits, axis=0).max() > 0.1  # they depend on the images
    np.testing.assert_allclose(model(x), logits, rtol=0, atol=1e-4)
    np.testing.assert_allclose(nn.fold_batch_norm(model)(x), logits, rtol=0, atol=1e-4)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("name", ["Tiny", "Squeezing"])
def test_weights_that_pytorch_wrote_give_its_logits(name, suffix):
    check_logits(name, suffix, KEPT)


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")
@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("name", NETWORKS)
def test_weights_of_pytorch_give_its_logits(name, suffix, torch_folder):
    check_logits(name, suffix, torch_folder)


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")
def test_a_bfloat16_file_of_pytorch_is_refused(torch_folder):
    with pytest.raises(ValueError, match=r"bfloat16\.safetensors.*classifier\.weight is BF16"):
        squeezing(7).load_state_dict(torch_folder / "bfloat16.safetensors")
