"""Weights from elsewhere: files of them, and those of networks that were trained in PyTorch.

PyTorch orders the indices of a weight otherwise, and pads its images on every side alike. So a network that is to take
such weights is built with ``padding="symmetric"`` and PyTorch's ``bn_eps=1e-5``.
"""

import contextlib
import itertools
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from npnets.nn.forward_order import Undecided, forward_order, looks_sorted
from npnets.nn.module import Parameter

TORCH_NAMES = {"w": "weight", "b": "bias", "gamma": "weight", "beta": "bias"}
"""What PyTorch calls the arrays of a layer; the running statistics have the same names."""


class Entry(NamedTuple):
    """An array of a layer: its whole name, its shape, and of a state to be taken over the array itself."""

    name: str
    shape: tuple
    array: np.ndarray | None = None

    def __str__(self):
        return f"{self.name} {self.shape}"


# --- From PyTorch's names and index order ----------------------------------------------------------------------------


def from_torch(state_dict, model):
    """Return a PyTorch state dict as a state of an npnets model: its names, its index order.

    ================== ======================== =========================
    layer              PyTorch                  npnets
    ================== ======================== =========================
    convolution        (C_out, C_in, K_h, K_w)  (K_h, K_w, C_in, C_out)
    depthwise          (C, 1, K_h, K_w)         (K_h, K_w, C)
    pointwise          (C_out, C_in, 1, 1)      (C_in, C_out)
    linear             (C_out, C_in)            (C_in, C_out)
    batch norm         weight, bias             gamma, beta
    ================== ======================== =========================

    A linear layer may be a 1x1 convolution on the other side, as in squeeze-and-excitation. ``num_batches_tracked`` is
    left out: it has no meaning where the decay is constant.

    Names are not compared. The tensors ``X.weight``, ``X.bias``, ... are those of a layer ``X``; a layer with running
    statistics is a batch norm. The k-th batch norm goes to the model's k-th, and the k-th of the other layers likewise.
    So the tensors must stand in forward order, as they do in the ``state_dict()`` of a network that sets its layers in
    that order. That two layers of equal shape have changed places is not noticed. Where the names were sorted as text,
    as ``safetensors`` does (``features.10`` before ``features.2``), the forward order is looked for: see
    :func:`npnets.nn.forward_order.forward_order`.

    Parameters
    ----------
    state_dict : mapping of str to array
        Or to tensors on the CPU: whatever ``np.asarray`` takes. PyTorch is not imported.
    model : Module

    Returns
    -------
    dict of str to ndarray
        For ``model.load_state_dict``. New arrays; the model is not changed.

    Raises
    ------
    ValueError
        If a layer is missing or left over, an array of it is, a shape does not fit, or NumPy has no such numbers
        (bfloat16). All of them are listed, with the names and the shapes of both sides. Also if the names were sorted
        and the layers fit in more than one order: put them in order, ``{name: state_dict[name] for name in names}``.

    Notes
    -----
    A linear layer behind :class:`Flatten` reads (H, W, C) here and (C, H, W) in PyTorch. Its columns are not sorted:
    that takes H and W, which a state does not tell.
    """
    return _from_torch(state_dict, model, is_sorted=looks_sorted(list(state_dict)))


def _from_torch(state_dict, model, is_sorted):
    theirs, ours = _torch_layers(state_dict), _own_layers(model)
    found, problems = {}, []
    for kind, is_norm in (("weight layer", False), ("batch norm", True)):
        own_layers, layers = (
            [layer for layer in side if ("running_mean" in layer) == is_norm] for side in (ours, theirs)
        )
        if is_sorted:
            layers = _in_forward_order(layers, own_layers, kind)
        for k, (own, other) in enumerate(itertools.zip_longest(own_layers, layers, fillvalue={}), 1):
            problems += _match(own, other, f"{kind} {k}", found)
    if problems:
        raise ValueError("these weights do not fit this model, taken layer by layer:\n  " + "\n  ".join(problems))
    return {entry.name: found[entry.name] for layer in ours for entry in layer.values()}


def _in_forward_order(layers, own_layers, kind):
    """Return PyTorch layers, whose names were sorted, in the order in which their shapes fit the model's layers.

    If they fit in none, then in the order in which all but one axis of each array does: so that of a network with
    another number of classes no more is told than that.
    """
    by_name = {next(iter(layer.values())).name.rpartition(".")[0]: layer for layer in layers}

    def fits_but_for(axes):
        return lambda name, k: k < len(own_layers) and _fits(by_name[name], own_layers[k], axes)

    try:
        order = forward_order(list(by_name), fits_but_for(0))
    except Undecided as error:
        raise ValueError(
            f"the names of these weights are sorted, and each {kind} fits this model in more than one order: {error}; "
            "give checkpoint.from_torch a dict in forward order, or save an .npz file, which keeps the order"
        ) from error
    if order is None:
        with contextlib.suppress(Undecided):
            order = forward_order(list(by_name), fits_but_for(1))
    return [by_name[name] for name in order or by_name]


def _fits(layer, own, axes):
    """Tell whether the arrays of a PyTorch layer have the shapes of an own layer's, but for so many axes of each."""
    return all(
        key in layer and _differing(_own_index_order(layer[key].array, entry.shape).shape, entry.shape) <= axes
        for key, entry in own.items()
    )


def _differing(shape, other):
    """Return in how many axes two shapes differ."""
    return sum(n != m for n, m in itertools.zip_longest(shape, other))


def _own_layers(model):
    """Return for each layer of a model that has arrays: PyTorch's name of the array -> entry."""
    layers = []
    for path, module in model.named_modules():
        entries = {}
        for name, value in vars(module).items():
            if isinstance(value, Parameter) or name in module.running:
                entries[TORCH_NAMES.get(name, name)] = Entry(f"{path}.{name}" if path else name, value.shape)
        if entries:
            layers.append(entries)
    return layers


def _torch_layers(state_dict):
    """Return for each layer of a PyTorch state dict: name of the array -> entry."""
    layers, problems = {}, []
    for name, tensor in state_dict.items():
        layer, _, last = name.rpartition(".")
        if last == "num_batches_tracked":
            continue
        try:
            array = np.asarray(tensor)
            if array.dtype.kind not in "fiub":
                raise TypeError(f"it has the dtype {array.dtype}")
        except (TypeError, RuntimeError) as error:  # PyTorch's: bfloat16, another device, a tensor with a gradient
            problems.append(f"{name}: {error}")
            continue
        layers.setdefault(layer, {})[last] = Entry(name, array.shape, array)
    if problems:
        how = "these are no arrays of real numbers; convert tensors with tensor.detach().cpu().float():\n  "
        raise ValueError(how + "\n  ".join(problems))
    return list(layers.values())


def _match(own, other, place, found):
    """Put the arrays of a layer into ``found`` under their own names, and return as sentences what does not fit."""
    if not (own and other):
        side, whose = (own, "the weights have") if own else (other, "this model has")
        return [f"{'missing' if own else 'unexpected'}: {', '.join(map(str, side.values()))}; {whose} no {place}"]
    problems = []
    for key in own | other:
        if key not in other:
            problems.append(f"missing: {own[key]}; {place} of the weights, {_all(other)}, has no {key}")
        elif key not in own:
            problems.append(f"unexpected: {other[key]}; {place} of this model, {_all(own)}, has no such array")
        else:
            array = found[own[key].name] = _in_own_order(other[key].array, own[key].shape)
            if array is None:
                problems.append(f"another shape: {other[key]} does not become {own[key]}, {place}")
    return problems


def _all(layer):
    return ", ".join(map(str, layer.values()))


def _in_own_order(array, shape):
    """Return a copy of a PyTorch array in npnets' index order, or None if it has not the given shape then."""
    array = _own_index_order(array, shape)
    return np.array(array, order="C") if array.shape == tuple(shape) else None


def _own_index_order(array, shape):
    """View a PyTorch array in the index order of an own array of the given shape; its shape may be another then."""
    if array.ndim == 4:
        array = array.transpose(2, 3, 1, 0)  # (C_out, C_in, K_h, K_w) -> (K_h, K_w, C_in, C_out)
        if len(shape) == 3 and array.shape[2] == 1:
            return array[:, :, 0]  # -> (K_h, K_w, C)
        if len(shape) == 2 and array.shape[:2] == (1, 1):
            return array[0, 0]  # -> (C_in, C_out)
    elif array.ndim == 2:
        array = array.T  # (C_out, C_in) -> (C_in, C_out)
        if len(shape) == 4:
            return array[np.newaxis, np.newaxis]  # -> (1, 1, C_in, C_out)
    return array


# --- From files ------------------------------------------------------------------------------------------------------


def read_state(path, model):
    """Return the state for a model that a file holds; see :meth:`Module.load_state_dict`.

    Parameters
    ----------
    path : str or Path
        ``.npz`` or ``.safetensors``: arrays under the names of the model itself, a checkpoint of its training, or a
        PyTorch state dict.
    model : Module

    Returns
    -------
    dict of str to ndarray

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is damaged, of another kind, or holds Python objects, which are never unpickled; if it is a PyTorch state
        dict, also as :func:`from_torch`. The message names the file.

    Notes
    -----
    :func:`from_torch` needs the tensors in forward order. An ``.npz`` file keeps the order in which they were written;
    the ``safetensors`` library sorts them by dtype and then by name. So their forward order is looked for, and if it
    cannot be told the file is refused.
    """
    arrays, is_sorted = read_arrays(path)
    if any(name.startswith("model/") for name in arrays):
        return checkpoint_state(arrays)
    own = {entry.name for layer in _own_layers(model) for entry in layer.values()}
    if not any(name.rpartition(".")[2] in ("weight", "bias") for name in arrays.keys() - own):
        return arrays
    try:
        return _from_torch(arrays, model, is_sorted)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def checkpoint_state(arrays, averaged=True):
    """Return the state of the model in the arrays of a checkpoint, with the weight averages where there are any."""
    state = {name.removeprefix("model/"): array for name, array in arrays.items() if name.startswith("model/")}
    if averaged:
        prefix = "average/average."
        state |= {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
    return state


def read_arrays(path):
    """Return the arrays of an ``.npz`` or ``.safetensors`` file by their names, and whether the names are sorted."""
    read = {".npz": _read_npz_file, ".safetensors": _read_safetensors}.get(Path(path).suffix.lower())
    if read is None:
        raise ValueError(
            f"{path}: expected an .npz or a .safetensors file. (Reading what torch.save wrote can run any program: in "
            "PyTorch, call safetensors.torch.save_file(model.state_dict(), 'weights.safetensors') instead.)"
        )
    with open(path, "rb") as file:
        try:
            arrays, is_sorted = read(file)
        except ImportError:
            raise
        except Exception as error:  # what a damaged file provokes in zipfile, NumPy and safetensors is no closed list
            raise ValueError(f"{path} is damaged or no {Path(path).suffix} file of arrays: {error}") from error
    if not arrays:
        raise ValueError(f"{path} holds no arrays")
    return arrays, is_sorted


def _read_npz_file(file):
    arrays = read_npz(file)
    return arrays, looks_sorted(list(arrays))


def read_npz(file):
    """Return name -> array of an open ``.npz`` file; raise whatever zipfile and NumPy raise if it is damaged."""
    archive = zipfile.ZipFile(file)
    foreign = next((name for name in archive.namelist() if not name.endswith(".npy")), None)
    if foreign is not None:
        raise ValueError(f"{foreign} in it is no array; torch.save writes such files, and they are not read")
    damaged = archive.testzip()  # all checksums; np.load checks only what it happens to read to the end
    if damaged is not None:
        raise ValueError(f"the checksum of {damaged} is wrong")
    file.seek(0)
    with np.load(file, allow_pickle=False) as members:
        return {name: members[name] for name in members.files}


def _read_safetensors(file):
    from safetensors import safe_open

    with safe_open(file.name, framework="np") as tensors:
        dtypes = {name: tensors.get_slice(name).get_dtype() for name in tensors.offset_keys()}
        unknown = {name: dtype for name, dtype in dtypes.items() if dtype.startswith(("BF", "F8", "F4"))}
        if unknown:
            listed = ", ".join(f"{name} is {dtype}" for name, dtype in unknown.items())
            raise ValueError(f"NumPy has no such numbers: {listed}; in PyTorch, save tensor.float() instead")
        of_dtype = {}
        for name, dtype in dtypes.items():
            of_dtype.setdefault(dtype, []).append(name)
        is_sorted = all(names == sorted(names) for names in of_dtype.values())  # as the library writes them
        return {name: tensors.get_tensor(name) for name in dtypes}, is_sorted
