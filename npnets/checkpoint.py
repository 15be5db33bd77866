"""Save and resume, bit for bit.

A checkpoint is a plain ``.npz`` file: the arrays of the model, the optimizer and whatever else has a state, under names
like ``model/stem.conv.w`` and ``optimizer/momentum.stem.conv.w``, and one JSON text with everything that is not an
array. Nothing in it is ever unpickled. It is written to a temporary name and renamed, so that a crash at any moment
leaves the last whole one.

Weights alone, without the rest of a training, are written by :func:`save_weights`, and read by the
``load_state_dict`` of a model; :func:`from_torch` takes them over from PyTorch.
"""

import contextlib
import io
import json
import os
from pathlib import Path

import numpy as np

from npnets import models
from npnets.nn.weights import checkpoint_state, read_npz
from npnets.nn.weights import from_torch as from_torch  # the way to it for users
from npnets.shapes import integer

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
    _write_npz(path, arrays | {"json": np.array(text)})


def write_arrays(path, arrays):
    """Write arrays by name into a compressed ``.npz`` atomically; ``nn.weights.read_npz`` reads it.

    Raises
    ------
    OSError
        As :func:`write`.
    """
    _write_npz(path, arrays, np.savez_compressed)


def _write_npz(path, arrays, save=np.savez, largest=None):
    archive = io.BytesIO()  # whole in memory first: on a full disk, NumPy 1.26 would not close a half-written one
    save(archive, **arrays)
    size = archive.getbuffer().nbytes
    if largest is not None and size > largest:
        raise ValueError(f"{path} would have {size:,} bytes, and at most {largest:,} are wanted")
    with replacing(path) as file:
        file.write(archive.getbuffer())


def save_weights(path, model, *, largest=None):
    """Write the weights and running statistics of a model atomically; ``model.load_state_dict(path)`` reads them.

    Parameters
    ----------
    path : str or Path
        ``.npz``, or ``.safetensors`` for other programs.
    model : nn.Module
    largest : int, optional
        How many bytes an ``.npz`` may have at most.

    Raises
    ------
    ValueError
        If the name ends otherwise, or the file would be too large; then it is not written.
    OSError
        As :func:`write`.
    """
    suffix = Path(path).suffix.lower()
    if suffix == ".npz":
        _write_npz(path, model.state_dict(), largest=largest)
    elif suffix == ".safetensors":
        from safetensors.numpy import save

        with replacing(path) as file:
            file.write(save(model.state_dict()))
    else:
        raise ValueError(f"weights are written to an .npz or a .safetensors file, not to {path}")


def write_json(path, data):
    """Write JSON atomically, indented for reading."""
    with replacing(path) as file:
        file.write(json.dumps(data, indent=1, allow_nan=False).encode() + b"\n")


@contextlib.contextmanager
def replacing(path):
    """Open a temporary binary file beside ``path``; rename it to ``path`` once the block has ended without error."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):  # NumPy's own message would not name the file
            reason = f"cannot be written, {error.strerror or error}; what was there before is untouched"
            raise OSError(error.errno, reason, str(path)) from error
        raise


def read(path):
    """Return (arrays, numbers) of a checkpoint.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ValueError
        If the file is damaged, is no checkpoint of npnets, or holds Python objects, which are never unpickled.
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    with open(path, "rb") as file:
        try:
            return _parse(file)
        except Exception as error:  # what a damaged file provokes in zipfile, NumPy, ast and json is no closed list
            raise ValueError(f"{path} is damaged or not a checkpoint of npnets: {error}") from error


def _parse(file):
    arrays = read_npz(file)
    if "json" not in arrays:
        raise ValueError("it has no part named json")
    numbers = json.loads(str(arrays.pop("json")))
    found = numbers.get("format") if isinstance(numbers, dict) else None
    if found != FORMAT:
        raise ValueError(f"its format is {found!r}, this version reads {FORMAT!r}")
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
        self.path, self.every = Path(path), integer(every, "every", 1)
        self.resume, self.about = resume, about or {}

    def start(self, run):
        self.run = run
        if self.resume:
            arrays, numbers = read(self.path)
            try:
                run.load_state_dict(arrays, numbers)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(f"{self.path} cannot be resumed: {error}") from error
        for leftover in self.path.parent.glob(f".{self.path.name}.*.tmp"):  # of a process that was killed in a write
            leftover.unlink(missing_ok=True)
        if not self.resume:
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
        name, settings = numbers["about"]["model"], dict(numbers["about"]["model_settings"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} does not tell which model it holds") from error
    try:
        model = models.build(name, **settings)
        model.load_state_dict(checkpoint_state(arrays, averaged))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}, model {name!r}: {error}") from error
    return model, numbers
