"""Batch norm folded into the layers before it: the same network for inference, with fewer passes over its images."""

import copy

from npnets.nn import init
from npnets.nn.blocks.mobile import CHAINS
from npnets.nn.layers import (
    BatchNorm,
    Conv2d,
    DepthwiseConv2d,
    Layer,
    Linear,
    PointwiseConv2d,
    ReLU,
    ReLU6,
    Swish,
)
from npnets.nn.module import Module, Parameter, Sequential
from npnets.ops.folded import folded_batch_norm

FOLDABLE = (Conv2d, DepthwiseConv2d, PointwiseConv2d, Linear)
ACTIVATION_NAMES = {ReLU: "relu", ReLU6: "relu6", Swish: "swish"}


def fold_batch_norm(model):
    """Return a copy of a model for inference, in which batch norm has become a part of the weights before it.

    In inference, mean and variance are constants, and batch norm is an affine map of each channel (Ioffe and Szegedy
    2015, section 3.1; Algorithm 2, line 11). With ``scale = gamma / sqrt(running_var + eps)``:

    ``y = scale (x - running_mean) + beta``.

    Where x is the output of a convolution or linear layer, ``x = conv(u, w) + b``, each output channel is a sum of
    products with weights of its own, so the factor of the channel can go into them:

    ``y = conv(u, w scale) + beta + (b - running_mean) scale``.

    That is the same layer with ``w' = w scale`` and ``b' = beta + (b - running_mean) scale``. A ReLU, ReLU6 or swish
    that follows is applied by the layer too, in the same pass over the images.

    A chain is a :class:`Sequential` or a :class:`Residual`, wherever it is in the model. In each, a
    :class:`BatchNorm` that directly follows a :class:`Conv2d`, :class:`DepthwiseConv2d`, :class:`PointwiseConv2d` or
    :class:`Linear` is folded. Every other batch norm stays: before a convolution it could not be folded at the border,
    where the zeros of the padding are not shifted. So do layers of a module with a forward of its own, in which they
    may be used in any order, and subclasses of these layers, which may compute something else.

    Parameters
    ----------
    model : Module
        It is not changed, and shares no array with the copy. Fold after training: the copy does not follow its weights.

    Returns
    -------
    Module
        Of the same structure. Layers keep their names; where one was folded away there is None. They keep nothing for a
        backward, which saves memory: ``backward``, and ``forward`` with ``training=True``, raise RuntimeError.
        Observers are not copied.

    Raises
    ------
    ValueError
        If it is not a Module.

    >>> import numpy as np
    >>> from npnets import nn
    >>> rng = np.random.default_rng(0)
    >>> fold_batch_norm(nn.Sequential(conv=nn.Conv2d(3, 8, 3, rng=rng), bn=nn.BatchNorm(8), act=nn.ReLU6()))
    Sequential(
      (conv): Conv2d(3 -> 8, 3x3, stride 1, padding 'same', bias, relu6))
    """
    if not isinstance(model, Module):
        raise ValueError(f"fold_batch_norm: needs a Module, got {type(model).__name__}")
    folded = _copy(model)
    for _, module in list(folded.named_modules()):
        if isinstance(module, Sequential) and type(module).forward in CHAINS:
            _fold_chain(module)
    for _, module in folded.named_modules():
        if isinstance(module, Layer):
            module.inference_only = True
    return folded


def _copy(model):
    """Return a deep copy of a model, but for its observers and for what it keeps of its last forward."""
    copies = {}  # id -> copy, as copy.deepcopy keeps it: a module that stands in two places is one in the copy, too
    for _, module in reversed(list(model.named_modules())):  # children first
        if id(module) not in copies:
            twin = copies[id(module)] = copy.copy(module)
            kept = {name: value for name, value in vars(module).items() if name not in ("cache", "observers")}
            vars(twin).update(copy.deepcopy(kept, copies), observers=[])
            if hasattr(twin, "cache"):
                twin.cache = None
    return copies[id(model)]


def _fold_chain(chain):
    before = None, None  # the layer that the next one follows directly
    for name, layer in chain.chain():
        folded = _folded(before[1], layer)
        if folded is None:
            before = name, layer
        else:
            before = before[0], folded
            put_child(chain, before[0], folded)
            put_child(chain, name, None)


def _folded(layer, following):
    """Return one layer that computes what two do one after the other, or None where there is no such layer."""
    if type(layer) not in FOLDABLE or layer.activation is not None:
        return None
    if type(following) is BatchNorm and layer.C_out == following.C:
        statistics = following.running_mean, following.running_var
        arrays = (layer.w.value, layer.value("b"), following.gamma.value, following.beta.value, *statistics)
        w, b = folded_batch_norm(*arrays, eps=following.eps)
        return _with(layer, following.activation, {"w": w, "b": b})
    if type(following) in ACTIVATION_NAMES:
        return _with(layer, ACTIVATION_NAMES[type(following)], {})
    return None


def _with(layer, activation, arrays):
    """Return a copy of a layer with an activation and other arrays; the layer itself may stand elsewhere too."""
    twin = copy.copy(layer)
    twin.activation, twin.observers = activation, []
    for name, array in arrays.items():
        parameter = Parameter(array.shape, init.constant(0), dtype=layer.w.dtype, decay=name == "w" and layer.w.decay)
        parameter.value = array
        setattr(twin, name, parameter)
    return twin


def put_child(module, name, child):
    """Put another child, or None, in the place of the child of this name, so that the others keep theirs.

    Parameters
    ----------
    module : Module
    name : str
        As in ``module.children()``: an item of a list is ``"blocks.3"``.
    child : Module or None
    """
    if name in vars(module):
        setattr(module, name, child)
        return
    attribute, _, k = name.rpartition(".")  # an item of a list or a tuple
    items = list(getattr(module, attribute))
    items[int(k)] = child
    setattr(module, attribute, items)
