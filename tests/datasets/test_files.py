"""The Dataset, the choice of the data folder, and reading files that may be damaged."""

import gzip
import lzma
import warnings
from pathlib import Path

import numpy as np
import pytest

import npnets.datasets.files as files
from npnets import datasets
from npnets.datasets import Dataset

IMAGES = np.zeros((3, 4, 5, 1), np.uint8)
LABELS = np.array([0, 2, 1])
NAMES = ("a", "b", "c")


def test_a_dataset_shows_itself_in_one_line_without_pixels():
    dataset = Dataset(IMAGES, LABELS, "letters", NAMES)
    assert repr(dataset) == "Dataset(letters: 3 images of 4x5x1, 3 classes)"
    assert len(dataset) == 3


def test_a_dataset_is_read_only_but_its_owner_keeps_his_arrays():
    images = IMAGES.copy()
    dataset = Dataset(images, LABELS, "letters", NAMES)
    with pytest.raises(ValueError, match="read-only"):
        dataset.images[0] = 1
    with pytest.raises(ValueError, match="read-only"):
        dataset.labels[0] = 1
    images[0] = 1


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (IMAGES.astype(np.float32), LABELS, "letters: images must be a uint8 array .* got float32"),
        (IMAGES[..., 0], LABELS, r"got uint8 of shape \(3, 4, 5\)"),
        ([[0]], LABELS, "got list"),
        (IMAGES, LABELS.astype(np.int32), "labels must be an int64 array .* got int32"),
        (IMAGES, LABELS[:, None], r"shape \(3, 1\)"),
        (IMAGES[:2], LABELS, "2 images but 3 labels"),
        (IMAGES, LABELS + 1, "labels must be 0 to 2, got values from 1 to 3"),
        (IMAGES, LABELS - 1, "got values from -1 to 1"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(images, labels, message):
    with pytest.raises(ValueError, match=message):
        Dataset(images, labels, "letters", NAMES)


def test_the_data_folder_is_the_argument_then_the_variable_then_the_repository(monkeypatch, tmp_path):
    repository = Path(files.__file__).parents[2] / "data"
    assert files.data_root() == repository
    monkeypatch.setenv("NPNETS_DATA", str(tmp_path / "mine"))
    assert files.data_root() == tmp_path / "mine"
    assert files.data_root("other") == Path("other")
    monkeypatch.setenv("NPNETS_DATA", "")
    assert files.data_root() == repository


CONTENT = bytes(range(256)) * 50


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress])
def test_plain_gzip_and_xz_files_are_told_apart_by_their_content(tmp_path, pack):
    path = tmp_path / "data.gz"
    path.write_bytes(pack(CONTENT))
    assert files.read_content(path) == CONTENT


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress])
@pytest.mark.parametrize("damage", ["cut off", "flipped"])
def test_a_damaged_compressed_file_gets_a_sentence(tmp_path, pack, damage):
    packed = bytearray(pack(CONTENT))
    if damage == "cut off":
        packed = packed[: len(packed) // 2]
    else:
        packed[len(packed) // 2] ^= 0xFF
    path = tmp_path / "data"
    path.write_bytes(packed)
    with pytest.raises(ValueError, match="is damaged or cut off"):
        files.read_content(path)


def test_a_file_that_unpacks_to_too_much_is_refused_before_it_fills_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "LIMIT", 1000)
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(bytes(1000)))
    assert len(files.read_content(path)) == 1000
    path.write_bytes(gzip.compress(bytes(1001)))
    with pytest.raises(ValueError, match="more than 1,000 bytes"):
        files.read_content(path)


def test_a_file_that_cannot_be_written_whole_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "file"
    files.write_whole(path, b"old")

    def fails(*names):
        raise OSError("no")

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", fails)
        with pytest.raises(OSError, match="no"):
            files.write_whole(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
    files.write_whole(path, b"new")
    assert path.read_bytes() == b"new"


def test_unknown_names_and_splits_are_refused():
    with pytest.raises(ValueError, match="one of mnist, cifar10, got 'imagenet'"):
        datasets.load("imagenet", "train")
    for name in datasets.NAMES:
        with pytest.raises(ValueError, match='split must be "train" or "test", got \'valid\''):
            datasets.load(name, "valid")


def test_the_shipped_data_are_described_with_sizes_and_without_warnings(shipped):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        head, mnist, cifar10 = datasets.describe(shipped)
    assert not caught
    assert head == f"data sets in {shipped}"
    assert "complete: 60,000 training and 10,000 test images, checksums verified" in mnist
    assert "a subset: 5,000 training and 1,000 test images, checksums verified" in cifar10
    assert "python -m npnets data cifar10" in cifar10


def test_missing_and_damaged_data_are_described_too(tmp_path):
    _, mnist, cifar10 = datasets.describe(tmp_path)
    assert "missing: MNIST is not in" in mnist and "missing: CIFAR-10 is not in" in cifar10
    (tmp_path / "train-images-idx3-ubyte").write_bytes(b"<html>")
    assert "not usable: " in datasets.describe(tmp_path)[1]
