"""Reference models: networks that come trained. Their weights and cards are in ``data/pretrained/``."""

import difflib
import hashlib
import io
import json
from pathlib import Path

from npnets.nn.weights import read_npz

FOLDER = Path(__file__).resolve().parents[2] / "data" / "pretrained"
FORMAT = "npnets card 1"


def pretrained_names(root=None):
    """Return the names of the reference models that are here."""
    return sorted(path.stem for path in Path(root or FOLDER).glob("*.json"))


def pretrained(name, root=None):
    """Return a reference model with its trained weights and running statistics, in float32.

    Its images must be normalized with the ``mean`` and ``std`` of its :func:`card`::

        facts = models.card(name)
        logits = models.pretrained(name)(augment.normalize(images, facts["mean"], facts["std"]))

    Parameters
    ----------
    name : str
        One of :func:`pretrained_names`.
    root : str or Path, optional
        Another folder than ``data/pretrained/``.

    Returns
    -------
    nn.Module

    Raises
    ------
    ValueError
        If there is no such model, or its files are damaged or do not belong together.
    """
    from npnets import models  # this file is a part of it

    facts = card(name, root)
    path = Path(root or FOLDER) / f"{name}.npz"
    content = path.read_bytes() if path.exists() else b""
    if hashlib.sha256(content).hexdigest() != facts["sha256"]:
        state = "damaged, or of another card" if content else "missing"
        raise ValueError(f"{path} is {state}; get it again, with the card beside it")
    model = models.build(facts["model"], **facts["model_settings"])
    model.load_state_dict(read_npz(io.BytesIO(content)))
    return model


def card(name, root=None):
    """Return what is known of a reference model.

    Parameters
    ----------
    name : str
        One of :func:`pretrained_names`.
    root : str or Path, optional
        Another folder than ``data/pretrained/``.

    Returns
    -------
    dict
        - ``model`` and ``model_settings``, from which ``models.build`` makes it; ``params`` and ``macs``
        - ``dataset``, ``class_names``, ``input`` (H, W, C), and ``mean`` and ``std`` of the training images
        - ``command`` (without ``--out`` and ``--data``), ``settings``, ``seed``, ``environment`` (commit, versions,
          cores) and ``seconds`` of the training
        - ``history``: what ``training.History.from_dict`` takes
        - ``test``: ``images``, ``loss`` and ``accuracy`` over all test images, ``per_class``: class name -> accuracy,
          and ``confusion``, (K, K): how many images of each class (row) were taken for each class (column)
        - ``sha256`` of the weights

    Raises
    ------
    ValueError
        If there is no such model (similar names are suggested), or its card is damaged.
    """
    known = pretrained_names(root)
    if name not in known:
        similar = difflib.get_close_matches(str(name), known, n=1)
        hint = f"did you mean {similar[0]}? " if similar else ""
        raise ValueError(f"unknown reference model {name!r}; {hint}there are {', '.join(known) or 'none'}")
    path = Path(root or FOLDER) / f"{name}.json"
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        if facts["format"] != FORMAT:
            raise ValueError(f"its format is {facts['format']!r}, this version reads {FORMAT!r}")
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is damaged or no card of a reference model: {error}") from error
    return facts
