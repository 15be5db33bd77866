"""MNIST: the shipped files are the published ones, and files in any other state are named for what they are."""

import gzip
import struct

import numpy as np
import pytest

from npnets.augment import channel_statistics
from npnets.datasets import load_mnist, mnist
from npnets.datasets.files import read_content, sha256


def idx(array, code=8):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def made_up(tmp_path):
    """Write a small data set in MNIST's format; return its folder, images and labels."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "mnist"
    folder.mkdir()
    images = rng.integers(0, 256, (12, 3, 5), dtype=np.uint8)
    labels = rng.integers(0, 10, 12, dtype=np.uint8)
    for prefix in ("train", "t10k"):
        (folder / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(idx(labels))  # plain
    return folder, images, labels


def test_the_shipped_test_set_is_the_known_one():
    test = load_mnist("test")
    assert repr(test) == "Dataset(mnist: 10,000 images of 28x28x1, 10 classes)"
    assert test.images.dtype == np.uint8 and test.labels.dtype == np.int64
    assert test.labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert np.bincount(test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_the_shipped_training_set_has_the_known_statistics():
    train = load_mnist("train")
    assert train.images.shape == (60_000, 28, 28, 1) and train.labels[:5].tolist() == [5, 0, 4, 1, 9]
    mean, std = channel_statistics(train.images)
    np.testing.assert_allclose([mean[0], std[0]], [0.1307, 0.3081], atol=5e-5)  # the numbers everybody normalizes with


def test_files_are_read_gzipped_or_plain_in_the_folder_or_in_the_root(made_up):
    folder, images, labels = made_up
    for root in (folder.parent, folder):
        dataset = load_mnist("train", root, verify=False)
        np.testing.assert_array_equal(dataset.images[..., 0], images)
        np.testing.assert_array_equal(dataset.labels, labels)


def test_any_difference_from_the_expected_checksum_is_refused(made_up):
    folder, images, labels = made_up
    digests = dict(zip(mnist.FILES["test"], [sha256(idx(images)), sha256(idx(labels))]))
    assert len(load_mnist("test", folder, digests=digests)) == 12
    with pytest.raises(ValueError, match="is not the published t10k-images-idx3-ubyte"):
        load_mnist("test", folder)
    labels[0] ^= 1
    (folder / "t10k-labels-idx1-ubyte").write_bytes(idx(labels))
    with pytest.raises(ValueError, match=r"is not the published t10k-labels-idx1-ubyte: .*get the file again"):
        load_mnist("test", folder, digests=digests)


def test_training_and_test_files_under_each_others_names_are_recognized(tmp_path, shipped):
    content = read_content(shipped / "mnist" / "t10k-images-idx3-ubyte.gz")
    (tmp_path / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(ValueError, match="holds the content of t10k-images-idx3-ubyte, not of train-images-idx3-ubyte"):
        load_mnist("train", tmp_path)


def test_swapped_images_and_labels_are_recognized(made_up):
    folder, images, labels = made_up
    (folder / "train-images-idx3-ubyte.gz").write_bytes(idx(labels))
    with pytest.raises(ValueError, match="a label file where an image file should be; were the two swapped"):
        load_mnist("train", folder)
    (folder / "train-images-idx3-ubyte.gz").write_bytes(idx(images))
    (folder / "train-labels-idx1-ubyte").write_bytes(idx(images))
    with pytest.raises(ValueError, match="an image file where a label file should be"):
        load_mnist("train", folder, verify=False)


def test_images_and_labels_of_different_splits_do_not_pass(made_up):
    folder, _, labels = made_up
    (folder / "train-labels-idx1-ubyte").write_bytes(idx(labels[:7]))
    with pytest.raises(ValueError, match="12 images but 7 labels"):
        load_mnist("train", folder, verify=False)


def test_a_label_above_nine_does_not_pass(made_up):
    folder, _, labels = made_up
    labels[3] = 10
    (folder / "train-labels-idx1-ubyte").write_bytes(idx(labels))
    with pytest.raises(ValueError, match="labels must be 0 to 9"):
        load_mnist("train", folder, verify=False)


IMAGES = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
WHOLE = idx(IMAGES)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must start with two zero bytes"),
        (b"\0\0\x08", "must start with two zero bytes"),
        (b"<html>" + WHOLE, "must start with two zero bytes, got b'<htm'"),
        (idx(IMAGES, code=13), "type 8.*got type 13"),
        (idx(IMAGES[0]), "has 2 dimensions, expected 3$"),
        (WHOLE[:9], "cut off within its header"),
        (WHOLE[:-1], r"cut off: .* shape \(2, 3, 4\), that is a file of 40 bytes, but it has 39"),
        (WHOLE + b"\0", "too long: .* it has 41"),
        (struct.pack(">4B3I", 0, 0, 8, 3, 2**32 - 1, 2**32 - 1, 2**32 - 1), "cut off"),  # no overflow, no allocation
    ],
)
def test_content_that_is_no_idx_file_of_images_is_refused(content, message):
    with pytest.raises(ValueError, match=message):
        mnist.parse_idx(content, 3)


def test_idx_values_stand_in_row_order():
    np.testing.assert_array_equal(mnist.parse_idx(WHOLE, 3), IMAGES)


def test_where_nothing_is_the_message_says_where_the_files_are(tmp_path, monkeypatch):
    monkeypatch.setenv("NPNETS_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"MNIST is not in .*unset NPNETS_DATA"):
        load_mnist("train")
