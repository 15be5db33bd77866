"""MNIST from its four official IDX files, gzipped or plain.

An IDX file is a header of big-endian integers and then the values in row order:

====== ======= ==========================================================
offset bytes   meaning
====== ======= ==========================================================
0      2       zero
2      1       type of the values; 8 is an unsigned byte
3      1       number of dimensions D
4      4 D     size of each dimension
4+4D           the values
====== ======= ==========================================================

Y. LeCun, L. Bottou, Y. Bengio, P. Haffner: "Gradient-based learning applied to document recognition", Proceedings of
the IEEE 86(11), 1998. ``data/README.md`` has sources and checksums.
"""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from npnets.datasets.files import Dataset, check_digest, check_split, data_root, read_content

FOLDER = "mnist"
CLASS_NAMES = tuple("0123456789")

FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}

SHA256 = {  # of the decompressed files
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}

UNSIGNED_BYTE = 8
_KINDS = {1: "a label file", 3: "an image file"}


def load_mnist(
    split: str, root: str | Path | None = None, *, verify: bool = True, digests: Mapping[str, str] = SHA256
) -> Dataset:
    """Return MNIST's 60,000 training or 10,000 test images, (N, 28, 28, 1).

    Parameters
    ----------
    split : "train" or "test"
    root : path, optional
        The folder that holds ``mnist/``; the files may also lie in it directly. Default: the environment variable
        ``NPNETS_DATA``, else the repository's ``data/``.
    verify : bool
        Compare each file's SHA-256 with ``digests``. Turn it off to read other files of this format.
    digests : mapping
        File name -> SHA-256 of the decompressed content; by default that of the published files.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ValueError
        If a file is not in IDX format, too short or too long, swapped with another, or not the published one.
    """
    check_split(split)
    images_name, labels_name = FILES[split]
    digests = digests if verify else None
    images = _read(images_name, data_root(root), 3, digests)
    labels = _read(labels_name, data_root(root), 1, digests)
    return Dataset(images[..., np.newaxis], labels.astype(np.int64), "mnist", CLASS_NAMES)  # (N, H, W) -> (N, H, W, 1)


def _read(name: str, root: Path, dimensions: int, digests: Mapping[str, str] | None) -> np.ndarray:
    path = _find(name, root)
    content = read_content(path)
    array = parse_idx(content, dimensions, str(path))
    if digests is not None:
        check_digest(content, name, digests, path)
    return array


def _find(name: str, root: Path) -> Path:
    for folder in (root / FOLDER, root):
        for path in (folder / f"{name}.gz", folder / name):
            if path.is_file():
                return path
    raise FileNotFoundError(
        f"MNIST is not in {root}: {FOLDER}/{name}.gz is missing; the repository has it in data/{FOLDER}/, so unset "
        f"NPNETS_DATA (and give no root), or copy that folder to {root / FOLDER}"
    )


def parse_idx(content: bytes, dimensions: int, name: str = "IDX file") -> np.ndarray:
    """Return the uint8 array (read-only) that an IDX file holds.

    Parameters
    ----------
    content : bytes
        The whole file, decompressed.
    dimensions : int
        How many the array must have: 3 for images, 1 for labels.
    name : str
        Names the file in messages.

    Raises
    ------
    ValueError
        If the header is not that of such a file, or the length does not fit the header.
    """
    if len(content) < 4 or content[:2] != b"\0\0":
        raise ValueError(f"{name} is not an IDX file: it must start with two zero bytes, got {content[:4]!r}")
    code, found = content[2], content[3]
    if code != UNSIGNED_BYTE:
        raise ValueError(f"{name}: the values must be unsigned bytes (type {UNSIGNED_BYTE}), got type {code}")
    if found != dimensions:
        message = f"{name} has {found} dimensions, expected {dimensions}"
        if found in _KINDS and dimensions in _KINDS:
            message += f": it is {_KINDS[found]} where {_KINDS[dimensions]} should be; were the two swapped?"
        raise ValueError(message)
    start = 4 + 4 * dimensions
    if len(content) < start:
        raise ValueError(f"{name} is cut off within its header; get the file again")
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", dimensions, offset=4))
    expected = start + math.prod(shape)
    if len(content) != expected:
        wrong = "cut off" if len(content) < expected else "too long"
        raise ValueError(
            f"{name} is {wrong}: its header announces an array of shape {shape}, that is a file of {expected:,} bytes, "
            f"but it has {len(content):,}; get the file again"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
