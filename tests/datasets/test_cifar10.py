"""CIFAR-10: the record layout, the subset that never poses as the whole, and how the subset is made."""

import lzma
import re

import numpy as np
import pytest

from npnets.datasets import SubsetWarning, cifar10, load_cifar10, mnist
from npnets.datasets.files import data_root, sha256
from tests.datasets.conftest import DATA

FULL = data_root()  # as it is before a fixture hides the environment variable


def records(labels, rng):
    """Return made-up content with the given labels."""
    out = rng.integers(0, 256, (len(labels), cifar10.RECORD_BYTES), dtype=np.uint8)
    out[:, 0] = labels
    return out


@pytest.fixture
def full(tmp_path):
    """Write a small data set with the files of the full one; return its root and file name -> records."""
    rng = np.random.default_rng(0)
    folder = tmp_path / cifar10.FOLDER
    folder.mkdir()
    made = {}
    for name in cifar10.SHA256:
        made[name] = records(rng.permutation(np.repeat(np.arange(10), 2)), rng)
        (folder / name).write_bytes(made[name].tobytes())
    return tmp_path, made


def test_a_record_is_the_label_and_three_planes_in_row_order(tmp_path):
    row, column = np.indices((32, 32), dtype=np.uint8)
    planes = np.stack([row, 100 + column, np.full_like(row, 200)])  # red, green, blue
    (tmp_path / "cifar10-subset").mkdir()
    (tmp_path / "cifar10-subset" / "test.bin").write_bytes(bytes([7]) + planes.tobytes())
    with pytest.warns(SubsetWarning):
        dataset = load_cifar10("test", tmp_path, verify=False)
    assert dataset.labels.tolist() == [7] and dataset.class_names[7] == "horse"
    assert dataset.images[0, 3, 5].tolist() == [3, 105, 200]
    assert dataset.images.flags.c_contiguous


def test_the_full_set_is_all_batches_in_order(full):
    root, made = full
    train = load_cifar10("train", root, verify=False)  # no warning: warnings are errors here
    expected = np.concatenate([made[f"data_batch_{k}.bin"] for k in range(1, 6)])
    assert train.name == "cifar10" and len(train) == 100
    np.testing.assert_array_equal(train.labels, expected[:, 0])
    np.testing.assert_array_equal(train.images[57, :, :, 2].ravel(), expected[57, 2049:])
    test = load_cifar10("test", root, verify=False)
    np.testing.assert_array_equal(test.labels, made["test_batch.bin"][:, 0])


def test_the_full_set_is_verified_file_by_file(full):
    root, made = full
    digests = {name: sha256(content.tobytes()) for name, content in made.items()}
    load_cifar10("train", root, digests=digests)
    with pytest.raises(ValueError, match=r"data_batch_1.bin is not the published"):
        load_cifar10("train", root)
    two, three = (root / cifar10.FOLDER / f"data_batch_{k}.bin" for k in (2, 3))
    three.write_bytes(two.read_bytes())
    with pytest.raises(ValueError, match=r"data_batch_3.bin holds the content of data_batch_2.bin"):
        load_cifar10("train", root, digests=digests)


def test_a_full_set_with_a_missing_file_is_not_replaced_by_the_subset(full):
    root, _ = full
    for k in (2, 4):
        (root / cifar10.FOLDER / f"data_batch_{k}.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"data_batch_2.bin, data_batch_4.bin missing"):
        load_cifar10("train", root)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[:-1], "not a number of whole CIFAR-10 records"),
        (lambda content: content + b"\0", "not a number of whole CIFAR-10 records"),
        (lambda content: b"", "has 0 bytes"),
        (lambda content: content[:3073] + b"\x0a" + content[3074:], "the label of record 1 is 10, expected 0 to 9"),
    ],
)
def test_damaged_records_are_named(full, damage, message):
    root, made = full
    (root / cifar10.FOLDER / "test_batch.bin").write_bytes(damage(made["test_batch.bin"].tobytes()))
    with pytest.raises(ValueError, match=rf"test_batch.bin.*{message}"):
        load_cifar10("test", root, verify=False)


@pytest.mark.parametrize(("split", "count"), [("train", 5000), ("test", 1000)])
def test_the_shipped_subset_is_balanced_and_says_that_it_is_a_subset(split, count, shipped):
    with pytest.warns(SubsetWarning, match=rf"subset of CIFAR-10 only, {count:,} {split} .*npnets data cifar10"):
        dataset = load_cifar10(split, shipped)
    assert dataset.name == f"cifar10-subset-{count}"
    assert dataset.images.shape == (count, 32, 32, 3)
    assert np.bincount(dataset.labels).tolist() == [count // 10] * 10
    first = {"train": ["frog", "truck", "truck", "deer"], "test": ["cat", "ship", "ship", "airplane"]}[split]
    assert [dataset.class_names[label] for label in dataset.labels[:4]] == first  # as in the full set


def test_where_nothing_is_the_message_says_how_to_get_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"CIFAR-10 is not in .*run `python -m npnets data cifar10`"):
        load_cifar10("train", tmp_path)


def test_the_subset_is_the_first_images_of_each_class_in_file_order(full, tmp_path):
    root, made = full
    out = tmp_path / "out"
    digests = cifar10.write_subset(root, out, per_class={"train": 3, "test": 1}, verify=False)
    everything = np.concatenate([made[f"data_batch_{k}.bin"] for k in range(1, 6)])
    expected, seen = [], dict.fromkeys(range(10), 0)
    for record in everything:
        seen[record[0]] += 1
        if seen[record[0]] <= 3:
            expected.append(record)
    content = lzma.decompress((out / "train.bin.xz").read_bytes())
    assert content == np.stack(expected).tobytes()
    assert digests["train.bin"] == sha256(content)
    assert len(lzma.decompress((out / "test.bin.xz").read_bytes())) == 10 * cifar10.RECORD_BYTES


def test_the_subset_is_written_with_the_same_bytes_each_time(full, tmp_path):
    root, _ = full
    written = []
    for name in ("one", "two"):
        cifar10.write_subset(root, tmp_path / name, per_class={"train": 2, "test": 1}, verify=False)
        written.append((tmp_path / name / "train.bin.xz").read_bytes())
    assert written[0] == written[1]


def test_a_subset_larger_than_a_class_writes_nothing(full):
    root, _ = full
    with pytest.raises(ValueError, match="only 10 images of class airplane, 11 are wanted"):
        cifar10.write_subset(root, per_class={"train": 11, "test": 1}, verify=False)
    assert not (root / cifar10.SUBSET_FOLDER).exists()


@pytest.mark.skipif(
    not (FULL / cifar10.FOLDER).is_dir(),
    reason="the full CIFAR-10 is not here: `python -m npnets data cifar10` downloads it",
)
def test_remaking_the_shipped_subset_from_the_full_set_gives_the_same_content(tmp_path, monkeypatch):
    # Quick instead of small: the compressed bytes depend on the version of liblzma, only the content is promised.
    monkeypatch.setattr(cifar10, "SUBSET_XZ", [{"id": lzma.FILTER_LZMA2, "preset": 0}])
    assert cifar10.write_subset(FULL, tmp_path) == cifar10.SUBSET_SHA256
    for name, digest in cifar10.SUBSET_SHA256.items():
        assert sha256(lzma.decompress((tmp_path / f"{name}.xz").read_bytes())) == digest


def test_the_readme_lists_every_shipped_file_with_its_checksum(shipped):
    readme = (DATA / "README.md").read_text("utf-8")
    listed = dict(re.findall(r"^\| `([\w./-]+)` \|.*\| `([0-9a-f]{64})` \|$", readme, re.MULTILINE))
    paths = [path for path in shipped.rglob("*") if path.is_file()]
    assert len(paths) == 6
    for path in paths:
        assert listed[path.relative_to(shipped).as_posix()] == sha256(path.read_bytes())
    for name, digest in (cifar10.SUBSET_SHA256 | mnist.SHA256).items():
        assert listed[name] == digest


def test_the_shipped_subset_stays_under_sixteen_megabytes(shipped):
    assert sum(path.stat().st_size for path in (shipped / "cifar10-subset").iterdir()) < 16_000_000
