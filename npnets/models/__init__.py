"""One file a paper network. Each opens with the paper's table as a literal, its columns named as in the paper."""

import difflib
import inspect

from npnets.models.mlp_batch_norm import mlp_batch_norm
from npnets.models.mobilenet_v1 import mobilenet_v1, mobilenet_v1_small
from npnets.models.mobilenet_v2 import mobilenet_v2, mobilenet_v2_small

MODELS = {
    "mobilenet_v1": mobilenet_v1,
    "mobilenet_v2": mobilenet_v2,
    "mobilenet_v1_small": mobilenet_v1_small,
    "mobilenet_v2_small": mobilenet_v2_small,
    "mlp_batch_norm": mlp_batch_norm,
}
RESOLUTIONS = {"mobilenet_v1_small": 28, "mobilenet_v2_small": 28, "mlp_batch_norm": 28}  # the others: 224 pixels

__all__ = [
    "MODELS",
    "build",
    "has_setting",
    "in_channels",
    "mlp_batch_norm",
    "mobilenet_v1",
    "mobilenet_v1_small",
    "mobilenet_v2",
    "mobilenet_v2_small",
    "names",
    "resolution",
]


def names():
    """Return the names that :func:`build` knows."""
    return list(MODELS)


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
    return inspect.signature(MODELS[name]).parameters["in_channels"].default


def has_setting(name, setting):
    """Tell whether :func:`build` takes this setting for the model."""
    return setting in _settings(MODELS[name])


def _check_name(name):
    if name not in MODELS:
        similar = difflib.get_close_matches(str(name), MODELS, n=1)
        hint = f"did you mean {similar[0]}? " if similar else ""
        raise ValueError(f"unknown model {name!r}; {hint}there are {', '.join(MODELS)}")


def _settings(function):
    """Return the keywords a model takes; those of a small one are also those of the network it passes them to."""
    known = inspect.signature(function).parameters
    if "settings" in known:
        known = {**known, **inspect.signature(MODELS[function.__name__.removesuffix("_small")]).parameters}
    return [name for name in known if name != "settings"]
