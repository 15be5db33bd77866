"""CIFAR-10 in its binary version: the whole set where it has been downloaded, else the subset that we ship.

A file is a sequence of records of 3,073 bytes: the label, then 1,024 red, 1,024 green and 1,024 blue values, each plane
in row order.

A. Krizhevsky: "Learning multiple layers of features from tiny images", technical report, University of Toronto, 2009.
``data/README.md`` has sources and checksums.
"""

import lzma
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from npnets.datasets.files import (
    Dataset,
    SubsetWarning,
    check_digest,
    check_split,
    data_root,
    read_content,
    sha256,
    write_whole,
)
from npnets.shapes import integer

FOLDER = "cifar-10-batches-bin"
SUBSET_FOLDER = "cifar10-subset"
CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

PLANES = (3, 32, 32)
RECORD_BYTES = 1 + 3 * 32 * 32

FILES = {"train": tuple(f"data_batch_{k}.bin" for k in range(1, 6)), "test": ("test_batch.bin",)}
SUBSET_FILES = {"train": "train.bin", "test": "test.bin"}
SUBSET_PER_CLASS = {"train": 500, "test": 100}

SHA256 = {
    "data_batch_1.bin": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
    "data_batch_2.bin": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
    "data_batch_3.bin": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
    "data_batch_4.bin": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
    "data_batch_5.bin": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
    "test_batch.bin": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
}

SUBSET_SHA256 = {  # of the decompressed files
    "train.bin": "bf8e2e6b9e381140badf8be7d1755e1397c2141221aeec58a41af45b5ef906a7",
    "test.bin": "2874326af7bc2185faa47540a6da15a077e5b66659f8e479abb9ab628170fa86",
}

SUBSET_XZ = [
    # Neighbouring pixels are alike. The first filter subtracts the byte 32 places back (the pixel above), the second
    # the byte before (its left neighbour). That is an eighth smaller than plain xz; the file says how to undo it.
    {"id": lzma.FILTER_DELTA, "dist": 32},
    {"id": lzma.FILTER_DELTA, "dist": 1},
    {"id": lzma.FILTER_LZMA2, "preset": 6 | lzma.PRESET_EXTREME, "lc": 4, "lp": 0, "pb": 0},
]


def load_cifar10(
    split: str, root: str | Path | None = None, *, verify: bool = True, digests: Mapping[str, str] | None = None
) -> Dataset:
    """Return CIFAR-10's 50,000 training or 10,000 test images, (N, 32, 32, 3), or the subset of them that is here.

    Where ``root`` has no folder ``cifar-10-batches-bin/`` (``python -m npnets data cifar10`` makes it), the result is
    the shipped subset of 5,000 or 1,000 images. Its name tells so, and a :class:`SubsetWarning` tells how to get the
    rest.

    Parameters
    ----------
    split : "train" or "test"
    root : path, optional
        The folder that holds ``cifar-10-batches-bin/`` or ``cifar10-subset/``. Default: the environment variable
        ``NPNETS_DATA``, else the repository's ``data/``.
    verify : bool
        Compare each file's SHA-256 with ``digests``. Turn it off to read other files of this format.
    digests : mapping, optional
        File name -> SHA-256 of the decompressed content; by default that of the published files and of our subset.

    Raises
    ------
    FileNotFoundError
        If neither is there, or the full set lacks a file.
    ValueError
        If a file is cut off, has a label above 9, or is not the published one.
    """
    check_split(split)
    root = data_root(root)
    if (root / FOLDER).is_dir():
        content = b"".join(_read_full(split, root, verify, digests or SHA256))
        name = "cifar10"
    else:
        content = _read_subset(split, root, verify, digests or SUBSET_SHA256)
        count = len(content) // RECORD_BYTES
        name = f"cifar10-subset-{count}"
        warnings.warn(
            f"{root} holds a subset of CIFAR-10 only, {count:,} {split} images; "
            "`python -m npnets data cifar10` downloads the rest (170 MB)",
            SubsetWarning,
            stacklevel=2,
        )
    images, labels = _split_records(content)
    return Dataset(images, labels, name, CLASS_NAMES)


def _read_full(split: str, root: Path, verify: bool, digests: Mapping[str, str]) -> list[bytes]:
    paths = [root / FOLDER / name for name in FILES[split]]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise FileNotFoundError(
            f"{root / FOLDER} is not complete: {', '.join(missing)} missing; "
            "move the folder away and run `python -m npnets data cifar10`"
        )
    return [_read(path, path.name, verify, digests) for path in paths]


def _read_subset(split: str, root: Path, verify: bool, digests: Mapping[str, str]) -> bytes:
    name = SUBSET_FILES[split]
    for path in (root / SUBSET_FOLDER / f"{name}.xz", root / SUBSET_FOLDER / name):
        if path.is_file():
            return _read(path, name, verify, digests)
    raise FileNotFoundError(
        f"CIFAR-10 is not in {root}: neither {FOLDER}/ nor {SUBSET_FOLDER}/{name}.xz; "
        "run `python -m npnets data cifar10` to download it"
    )


def _read(path: Path, name: str, verify: bool, digests: Mapping[str, str]) -> bytes:
    content = read_content(path)
    check_records(content, str(path))
    if verify:
        check_digest(content, name, digests, path)
    return content


def check_records(content: bytes, name: str) -> None:
    """Raise a ``ValueError`` unless ``content`` is whole CIFAR-10 records with labels from 0 to 9."""
    if len(content) == 0 or len(content) % RECORD_BYTES:
        raise ValueError(
            f"{name} has {len(content):,} bytes, which is not a number of whole CIFAR-10 records of {RECORD_BYTES:,} "
            "bytes: it is cut off or another file; get it again"
        )
    labels = _records(content)[:, 0]
    if labels.max() >= len(CLASS_NAMES):
        first = int(np.argmax(labels >= len(CLASS_NAMES)))
        raise ValueError(f"{name}: the label of record {first} is {labels[first]}, expected 0 to 9")


def _records(content: bytes) -> np.ndarray:
    return np.frombuffer(content, np.uint8).reshape(-1, RECORD_BYTES)  # (N, 3073)


def _split_records(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    records = _records(content)
    planes = records[:, 1:].reshape(-1, *PLANES)  # (N, 3072) -> (N, C, H, W)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), records[:, 0].astype(np.int64)  # -> (N, H, W, C)


def write_subset(
    root: str | Path | None = None,
    out: str | Path | None = None,
    *,
    per_class: Mapping[str, int] = SUBSET_PER_CLASS,
    verify: bool = True,
) -> dict[str, str]:
    """Make the class-balanced subset from the full set; return file name -> SHA-256 of the content.

    The first ``per_class[split]`` images of each class are kept, in the order in which they stand in the files, so the
    classes are mixed as in the original. The records are the official ones, byte for byte; the files are compressed.

    Parameters
    ----------
    root : path, optional
        The folder that holds ``cifar-10-batches-bin/``; default as in :func:`load_cifar10`.
    out : path, optional
        Where ``train.bin.xz`` and ``test.bin.xz`` go; default ``cifar10-subset/`` in ``root``.
    per_class : mapping
        How many images of each class, for "train" and "test".
    verify : bool
        Compare the full set with the published checksums first.

    Raises
    ------
    FileNotFoundError, ValueError
        If the full set is not there, is damaged, or has too few images of a class.
    """
    root = data_root(root)
    out = root / SUBSET_FOLDER if out is None else Path(out)
    subsets = {}
    for split, name in SUBSET_FILES.items():
        content = b"".join(_read_full(split, root, verify, SHA256))
        subsets[name] = _first_of_each_class(content, integer(per_class[split], f"per_class[{split!r}]", 1))
    out.mkdir(parents=True, exist_ok=True)
    for name, content in subsets.items():
        write_whole(out / f"{name}.xz", lzma.compress(content, filters=SUBSET_XZ))
    return {name: sha256(content) for name, content in subsets.items()}


def _first_of_each_class(content: bytes, count: int) -> bytes:
    records = _records(content)
    keep = []
    for label, class_name in enumerate(CLASS_NAMES):
        found = np.flatnonzero(records[:, 0] == label)
        if len(found) < count:
            raise ValueError(f"only {len(found)} images of class {class_name}, {count} are wanted")
        keep.append(found[:count])
    return records[np.sort(np.concatenate(keep))].tobytes()
