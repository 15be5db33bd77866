"""Real data sets in their published formats: MNIST whole, CIFAR-10 as a subset until the rest is downloaded.

The download is ``fetch_cifar10`` in ``npnets.datasets.download``; it is not imported here because it brings along what
talks to the network.
"""

import warnings
from pathlib import Path

from npnets.datasets.cifar10 import load_cifar10
from npnets.datasets.files import Dataset, SubsetWarning, data_root
from npnets.datasets.mnist import load_mnist

__all__ = ["NAMES", "Dataset", "SubsetWarning", "data_root", "describe", "load", "load_cifar10", "load_mnist"]

_LOADERS = {"mnist": load_mnist, "cifar10": load_cifar10}

NAMES = tuple(_LOADERS)


def load(name: str, split: str, root: str | Path | None = None) -> Dataset:
    """Return the ``"train"`` or ``"test"`` split of the data set ``name``, one of ``NAMES``.

    Raises
    ------
    FileNotFoundError, ValueError
        As :func:`load_mnist` and :func:`load_cifar10`; also for an unknown name.
    """
    if name not in _LOADERS:
        raise ValueError(f"data set must be one of {', '.join(NAMES)}, got {name!r}")
    return _LOADERS[name](split, root)


def describe(root: str | Path | None = None) -> list[str]:
    """Return lines that say which data sets ``root`` holds, how much of them, and whether the checksums hold."""
    return [f"data sets in {data_root(root)}"] + [f"  {name:8} {_state(name, root)}" for name in NAMES]


def _state(name: str, root: str | Path | None) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SubsetWarning)  # the line below says it
            train, test = load(name, "train", root), load(name, "test", root)
    except FileNotFoundError as error:
        return f"missing: {error}"
    except (OSError, ValueError) as error:
        return f"not usable: {error}"
    sizes = f"{len(train):,} training and {len(test):,} test images, checksums verified"
    if train.name == name:
        return f"complete: {sizes}"
    return f"a subset: {sizes}; `python -m npnets data {name}` downloads the rest"
