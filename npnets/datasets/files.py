"""What the readers of all data sets share: the ``Dataset`` itself, where files lie, and how they are read and verified.

A data file is never trusted. Its content is compared with the SHA-256 of the published file before it is parsed.
"""

import gzip
import hashlib
import lzma
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

LIMIT = 1 << 28
"""No data file of ours has more bytes. A damaged or hostile one must not fill the memory when it is decompressed."""

_OPENERS = {b"\x1f\x8b": gzip.open, b"\xfd7zXZ": lzma.open}  # by the first bytes: a file may have lost its suffix


class SubsetWarning(UserWarning):
    """Only a part of the data set is here."""


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Labelled images of one split, checked and read-only.

    Parameters
    ----------
    images : uint8 array (N, H, W, C)
        Pixels from 0 to 255.
    labels : int64 array (N,)
        Indices into ``class_names``.
    name : str
        What this is; a subset says so here.
    class_names : tuple of str
        One name a class.

    Raises
    ------
    ValueError
        If an array has the wrong type or shape, the lengths differ, or a label names no class.
    """

    images: np.ndarray
    labels: np.ndarray
    name: str
    class_names: tuple[str, ...]

    def __post_init__(self):
        check_images(self.images, self.name)
        labels = self.labels
        if not isinstance(labels, np.ndarray) or labels.dtype != np.int64 or labels.ndim != 1:
            raise ValueError(f"{self.name}: labels must be an int64 array (N,), got {_what(labels)}")
        if len(self.images) != len(labels):
            raise ValueError(
                f"{self.name}: {len(self.images)} images but {len(labels)} labels; do both files belong to one split?"
            )
        if len(labels) and not 0 <= labels.min() <= labels.max() < len(self.class_names):
            raise ValueError(
                f"{self.name}: labels must be 0 to {len(self.class_names) - 1}, "
                f"got values from {labels.min()} to {labels.max()}"
            )
        for field in ("images", "labels"):  # views: whoever owns the array can still write to it
            view = getattr(self, field).view()
            view.flags.writeable = False
            object.__setattr__(self, field, view)

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        H, W, C = self.images.shape[1:]
        return f"Dataset({self.name}: {len(self):,} images of {H}x{W}x{C}, {len(self.class_names)} classes)"


def check_images(images, name: str = "images") -> None:
    """Raise a ``ValueError`` unless ``images`` is a uint8 array (N, H, W, C)."""
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim != 4:
        raise ValueError(f"{name}: images must be a uint8 array (N, H, W, C), got {_what(images)}")


def _what(value) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} of shape {value.shape}"
    return type(value).__name__


def check_split(split: str) -> str:
    """Return ``split`` if it is ``"train"`` or ``"test"``, else raise a ``ValueError``."""
    if split not in ("train", "test"):
        raise ValueError(f'split must be "train" or "test", got {split!r}')
    return split


def data_root(root: str | Path | None = None) -> Path:
    """Return the folder of the data sets: ``root``, else ``$NPNETS_DATA``, else ``data/`` beside the package."""
    if root is not None:
        return Path(root)
    if os.environ.get("NPNETS_DATA"):
        return Path(os.environ["NPNETS_DATA"])
    return Path(__file__).resolve().parents[2] / "data"


def read_content(path: Path) -> bytes:
    """Return the content of a plain, gzip or xz file (told apart by its first bytes).

    Raises
    ------
    ValueError
        If the file is damaged, cut off, or larger than ``LIMIT`` when decompressed.
    """
    with open(path, "rb") as stream:
        start = stream.read(5)
    opener = next((opener for magic, opener in _OPENERS.items() if start.startswith(magic)), open)
    try:
        with opener(path, "rb") as stream:
            content = stream.read(LIMIT + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError) as error:
        raise ValueError(f"{path} is damaged or cut off ({error}); get the file again") from None
    if len(content) > LIMIT:
        raise ValueError(f"{path} holds more than {LIMIT:,} bytes; this is not the file it should be")
    return content


def sha256(content: bytes) -> str:
    """Return the SHA-256 of ``content`` as hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def check_digest(content: bytes, name: str, digests: Mapping[str, str], path: Path) -> None:
    """Raise a ``ValueError`` unless the SHA-256 of ``content`` is ``digests[name]``.

    ``digests`` holds the whole data set, so that the message can tell a file under a wrong name from a damaged one.
    """
    found = sha256(content)
    if found == digests[name]:
        return
    for other, digest in digests.items():
        if found == digest:
            raise ValueError(f"{path} holds the content of {other}, not of {name}; give the files their own names back")
    raise ValueError(
        f"{path} is not the published {name}: its content has SHA-256 {found}, expected {digests[name]}; "
        "get the file again (or pass verify=False to read it all the same)"
    )


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that ``path`` holds the old content or all of the new, never a part."""
    temporary = path.with_name(path.name + ".part")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
