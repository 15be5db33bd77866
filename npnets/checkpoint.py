"""Save and resume, bit for bit.

A checkpoint is a plain ``.npz`` file: the arrays of the model, the optimizer and whatever else has a state, under names
like ``model/stem.conv.w`` and ``optimizer/momentum.stem.conv.w``, and one JSON text with everything that is not an
array. Nothing in it is ever unpickled. It is written to a temporary name and renamed, so that a crash at any moment
leaves the last whole one.
"""

import contextlib
import json
import os
import zipfile
import zlib
from pathlib import Path

import numpy as np

from npnets import models

FORMAT = "npnets checkpoint 1"


def write(path, arrays, numbers):
    """Write a checkpoint atomically.

    Parameters
    ----------
    path : str or Path
    arrays : dict name -> ndarray
    numbers : dict
        Anything that JSON can hold.

    Raises
    ------
    OSError
        If it cannot be written (no space, no permission); what was at ``path`` is untouched.
    """
    text = json.dumps({"format": FORMAT} | numbers, allow_nan=False)
    with replacing(path) as file:
        np.savez(file, **arrays, json=np.array(text))


def write_json(path, data):
    """Write JSON atomically, indented for reading."""
    with replacing(path) as file:
        file.write(json.dumps(data, indent=1, allow_nan=False).encode() + b"\n")


@contextlib.contextmanager
def replacing(path):
    """Open a temporary binary file beside ``path``; rename it to ``path`` once the block has ended without error."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read(path):
    """Return (arrays, numbers) of a checkpoint.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ValueError
        If the file is damaged, is no checkpoint of npnets, or holds Python objects, which are never unpickled.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        numbers = json.loads(str(arrays.pop("json")))
        if numbers["format"] != FORMAT:
            raise ValueError(f"its format is {numbers['format']!r}, this version reads {FORMAT!r}")
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no checkpoint {path}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, MemoryError, SyntaxError,
            NotImplementedError, zipfile.BadZipFile, zlib.error) as error:  # fmt: skip
        raise ValueError(f"{path} is damaged or not a checkpoint of npnets: {error}") from error
    return arrays, numbers


class Checkpoint:
    """A callback of ``fit`` that saves the run, and resumes it. Give it last: it saves what the others remember.

    Parameters
    ----------
    path : str or Path
    every : int
        Save after so many steps, after each epoch, and on Ctrl-C.
    resume : bool
        Continue from ``path``, which must exist.
    about : dict
        Kept in the checkpoint: what is needed to build the model again (``model``, ``model_settings``), the data set,
        the command. See :func:`load_model`.
    """

    def __init__(self, path, *, every=200, resume=False, about=None):
        self.path, self.every, self.resume, self.about = Path(path), every, resume, about or {}

    def start(self, run):
        self.run = run
        if self.resume:
            arrays, numbers = read(self.path)
            try:
                run.load_state_dict(arrays, numbers)
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{self.path} cannot be resumed: {error}") from error
        else:
            self.save()  # an unwritable folder shows now, not after the first epoch

    def after_step(self, step):
        if (step + 1) % self.every == 0:
            self.save()

    def after_epoch(self, run):
        self.save()

    def interrupted(self, run):
        self.save()

    def save(self):
        """Write the checkpoint now."""
        arrays, numbers = self.run.state_dict()
        write(self.path, arrays, numbers | {"about": self.about})


def load_model(path, *, averaged=True):
    """Return (model, numbers) of a checkpoint: the network built again, with its weights.

    Parameters
    ----------
    path : str or Path
    averaged : bool
        Take the weight averages where the training kept them.

    Raises
    ------
    FileNotFoundError, ValueError
        As :func:`read`; also if the arrays do not belong to the model that the checkpoint names.
    """
    arrays, numbers = read(path)
    try:
        about = numbers["about"]
        settings = dict(about["model_settings"])
        if "dtype" in settings:
            settings["dtype"] = np.dtype(settings["dtype"])
        model = models.build(about["model"], **settings)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} does not tell which model it holds: {error!r} is missing") from error
    state = {name.removeprefix("model/"): array for name, array in arrays.items() if name.startswith("model/")}
    if averaged:
        prefix = "average/average."
        state |= {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
    model.load_state_dict(state)
    return model, numbers
