"""One file a paper network. Each opens with the paper's table as a literal, its columns named as in the paper."""

import difflib
import inspect
import re

from npnets.models.bn_inception import bn_inception, bn_inception_small
from npnets.models.deeplab_v3 import deeplab_v3
from npnets.models.efficientnet import (
    VARIANTS,
    efficientnet,
    efficientnet_b0,
    efficientnet_b1,
    efficientnet_b2,
    efficientnet_b3,
    efficientnet_b4,
    efficientnet_b5,
    efficientnet_b6,
    efficientnet_b7,
)
from npnets.models.mlp_batch_norm import mlp_batch_norm
from npnets.models.mobilenet_v1 import mobilenet_v1, mobilenet_v1_small
from npnets.models.mobilenet_v2 import mobilenet_v2, mobilenet_v2_small
from npnets.models.pretrained import card, pretrained, pretrained_names
from npnets.models.resnet import resnet50, resnet101, resnet152
from npnets.models.scaling import compound_scaling, scaling_of
from npnets.models.ssd import ssd, ssdlite

MODELS = {
    "mobilenet_v1": mobilenet_v1,
    "mobilenet_v2": mobilenet_v2,
    "efficientnet_b0": efficientnet_b0,
    "efficientnet_b1": efficientnet_b1,
    "efficientnet_b2": efficientnet_b2,
    "efficientnet_b3": efficientnet_b3,
    "efficientnet_b4": efficientnet_b4,
    "efficientnet_b5": efficientnet_b5,
    "efficientnet_b6": efficientnet_b6,
    "efficientnet_b7": efficientnet_b7,
    "resnet50": resnet50,
    "resnet101": resnet101,
    "resnet152": resnet152,
    "bn_inception": bn_inception,
    "ssd": ssd,
    "ssdlite": ssdlite,
    "deeplab_v3": deeplab_v3,
    "mobilenet_v1_small": mobilenet_v1_small,
    "mobilenet_v2_small": mobilenet_v2_small,
    "bn_inception_small": bn_inception_small,
    "mlp_batch_norm": mlp_batch_norm,
}
RESOLUTIONS = {  # the others: 224 pixels
    "mobilenet_v1_small": 28,
    "mobilenet_v2_small": 28,
    "bn_inception_small": 32,
    "mlp_batch_norm": 28,
    "ssd": 320,
    "ssdlite": 320,
    "deeplab_v3": 513,
    **{name: pixels for name, (_, _, pixels, _) in VARIANTS.items()},
}
NO_CLASSIFIERS = ("ssd", "ssdlite", "deeplab_v3")  # they score boxes, and pixels

__all__ = [
    "MODELS",
    "bn_inception",
    "bn_inception_small",
    "build",
    "card",
    "classifiers",
    "compound_scaling",
    "deeplab_v3",
    "efficientnet",
    "efficientnet_b0",
    "efficientnet_b1",
    "efficientnet_b2",
    "efficientnet_b3",
    "efficientnet_b4",
    "efficientnet_b5",
    "efficientnet_b6",
    "efficientnet_b7",
    "has_setting",
    "in_channels",
    "mlp_batch_norm",
    "mobilenet_v1",
    "mobilenet_v1_small",
    "mobilenet_v2",
    "mobilenet_v2_small",
    "names",
    "pretrained",
    "pretrained_names",
    "resnet50",
    "resnet101",
    "resnet152",
    "resolution",
    "scaling_of",
    "ssd",
    "ssdlite",
]


def names():
    """Return the names that :func:`build` knows."""
    return list(MODELS)


def classifiers():
    """Return the names of the models that give an image class scores, (N, classes): all but detectors and DeepLab."""
    return [name for name in MODELS if name not in NO_CLASSIFIERS]


def build(name, **settings):
    """Return the model of that name, built with the given settings.

    >>> build("mobilenet_v2", width_mult=0.5).classifier
    Linear(1280 -> 1000, bias)

    Raises
    ------
    ValueError
        If there is no such model (similar names are suggested) or it has no such setting.
    """
    _check_name(name)
    known = _settings(MODELS[name])
    unknown = [setting for setting in settings if setting not in known]
    if unknown:
        raise ValueError(f"{name} has no setting {', '.join(map(repr, unknown))}; it has {', '.join(known)}")
    return MODELS[name](**settings)


def resolution(name):
    """Return the width in pixels of the images that the model is meant for."""
    _check_name(name)
    return RESOLUTIONS.get(name, 224)


def in_channels(name):
    """Return how many channels the model's input has where nothing else is said."""
    _check_name(name)
    return inspect.signature(MODELS[name]).parameters["in_channels"].default


def has_setting(name, setting):
    """Tell whether :func:`build` takes this setting for the model."""
    _check_name(name)
    return setting in _settings(MODELS[name])


def _check_name(name):
    if not isinstance(name, str) or name not in MODELS:
        similar = difflib.get_close_matches(str(name), MODELS, n=1)
        hint = f"did you mean {similar[0]}? " if similar else ""
        raise ValueError(f"unknown model {name!r}; {hint}there are {', '.join(MODELS)}")


def _settings(function):
    """Return the keywords a model takes; a variant also takes those of the network that it passes its settings to.

    It is named after that network: ``mobilenet_v1_small`` after ``mobilenet_v1``, ``resnet50`` after ``resnet``,
    ``ssdlite`` after ``ssd``.
    """
    known = inspect.signature(function).parameters
    if "settings" in known:
        network = re.sub(r"(_small|_b\d|\d+|lite)$", "", function.__name__)
        passed_on = inspect.signature(getattr(inspect.getmodule(function), network)).parameters.values()
        known = {**known, **{p.name: p for p in passed_on if p.kind is p.KEYWORD_ONLY}}
    return [name for name in known if name != "settings"]
