"""Save and resume: the same bits as without the pause, and no file, however damaged, that does harm."""

import errno
import json
import os
import pickle
import resource
import zipfile

import numpy as np
import pytest

from npnets import checkpoint, models, nn, optim
from npnets.checkpoint import Checkpoint, load_model, read, write
from npnets.nn.weights import read_npz
from npnets.probes import Probes
from npnets.training import Interrupted, evaluate, fit
from tests import fakes

STEPS = 6  # an epoch of ``fakes.recipe``


class At:
    """A callback that acts once: after a step, before one, or after an epoch."""

    def __init__(self, event, number, action):
        self.event, self.number, self.action = event, number, action

    def before_step(self, step):
        self._act("before_step", step)

    def after_step(self, step):
        self._act("after_step", step)

    def after_epoch(self, run):
        self._act("after_epoch", run.epoch)

    def _act(self, event, number):
        if (event, number) == (self.event, self.number):
            self.action()


class Crash(Exception):
    """Stands for whatever ends a process without a chance to save."""


def crash():
    raise Crash


def with_probes(**changes):
    """Return the arguments of a training with all that has a state, probes among it, and the probes."""
    arguments = fakes.recipe(**changes)
    names = ["blocks.1", "stem.conv.w", "classifier.w.grad"]
    return arguments, Probes(arguments["model"], names, every=4, unit="each", bins=(-1, 1, 4))


def finished(path, *, stop=None, resume=False, every=10**6, **changes):
    """Train (up to where ``stop`` acts) and return all that is to be the same: arrays, history, what probes saw."""
    arguments, probes = with_probes(**changes)
    saver = Checkpoint(path, every=every, resume=resume)
    history = fit(**arguments, callbacks=[probes, *([stop] if stop else []), saver])
    recorded = {f"probes/{name}": array for name, array in probes.state_dict().items()}
    return fakes.state(arguments) | recorded, fakes.without_times(history)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    return finished(tmp_path_factory.mktemp("whole") / "checkpoint.npz")


def assert_same(got, want):
    fakes.assert_same_bits(got[0], want[0])
    assert got[1] == want[1]


# --- Resume ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", range(3 * STEPS))
def test_a_run_interrupted_after_any_step_ends_in_the_same_bits(step, tmp_path, uninterrupted):
    path = tmp_path / "checkpoint.npz"
    with pytest.raises(Interrupted):
        finished(path, stop=At("after_step", step, fakes.ctrl_c))
    assert_same(finished(path, resume=True), uninterrupted)


@pytest.mark.parametrize("step", [0, 4, 5, 6, 13, 17])
def test_a_run_interrupted_within_a_step_ends_in_the_same_bits(step, tmp_path, uninterrupted):
    path = tmp_path / "checkpoint.npz"
    with pytest.raises(Interrupted):
        finished(path, stop=At("before_step", step, fakes.ctrl_c))
    assert_same(finished(path, resume=True), uninterrupted)


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_a_run_interrupted_during_an_evaluation_ends_in_the_same_bits(epoch, tmp_path, uninterrupted):
    path, passes = tmp_path / "checkpoint.npz", []

    def watch(logits):
        if len(logits) == 70:  # the test images
            passes.append(logits)
            if len(passes) == epoch:
                fakes.ctrl_c()

    arguments, probes = with_probes()
    arguments["model"].observers.append(watch)
    with pytest.raises(Interrupted):
        fit(**arguments, callbacks=[probes, Checkpoint(path, every=10**6)])
    numbers = read(path)[1]
    assert (numbers["epoch"], numbers["step_in_epoch"]) == (epoch - 1, STEPS)
    assert_same(finished(path, resume=True), uninterrupted)


def test_a_run_interrupted_between_two_epochs_ends_in_the_same_bits(tmp_path, uninterrupted):
    path = tmp_path / "checkpoint.npz"
    with pytest.raises(Interrupted):
        finished(path, stop=At("after_epoch", 1, fakes.ctrl_c))
    assert_same(finished(path, resume=True), uninterrupted)


@pytest.mark.parametrize("every", [1, 4, 5, 6, 7])
def test_a_run_that_crashed_goes_on_from_the_last_checkpoint_to_the_same_bits(every, tmp_path, uninterrupted):
    path = tmp_path / "checkpoint.npz"
    for event, number in (("before_step", 3), ("after_step", 8), ("after_epoch", 2), ("before_step", 16)):
        with pytest.raises(Crash):
            finished(path, stop=At(event, number, crash), every=every, resume=path.exists())
    assert read(path)[1]["epoch"] == 2
    assert_same(finished(path, resume=True, every=every), uninterrupted)


def test_a_run_interrupted_after_each_step_again_ends_in_the_same_bits(tmp_path, uninterrupted):
    path = tmp_path / "checkpoint.npz"
    for step in range(3 * STEPS):
        with pytest.raises(Interrupted):
            finished(path, stop=At("after_step", step, fakes.ctrl_c), resume=step > 0)
    assert_same(finished(path, resume=True), uninterrupted)


def test_a_run_resumed_on_other_threads_ends_in_the_same_bits(tmp_path, uninterrupted):
    path = tmp_path / "checkpoint.npz"
    with pytest.raises(Interrupted):
        finished(path, stop=At("after_step", 8, fakes.ctrl_c), threads=2)
    assert_same(finished(path, resume=True, threads=3), uninterrupted)


@pytest.mark.parametrize("step", [50, 51, 103, 104])
def test_the_losses_along_the_way_have_no_seam(step, tmp_path):
    path = tmp_path / "checkpoint.npz"

    def train(*callbacks):
        # 104 steps an epoch, of which each entry of the history takes two together
        arguments = fakes.plain(fakes.mlp(), train=fakes.dataset(208), batch_size=2, epochs=2)
        return fakes.without_times(fit(**arguments, callbacks=callbacks))

    with pytest.raises(Interrupted):
        train(At("after_step", step, fakes.ctrl_c), Checkpoint(path))
    assert train(Checkpoint(path, resume=True)) == train()


def test_a_finished_run_is_resumed_without_another_step(tmp_path, uninterrupted):
    path = tmp_path / "checkpoint.npz"
    finished(path)
    assert_same(finished(path, resume=True, stop=At("before_step", 3 * STEPS, crash)), uninterrupted)


def test_a_pause_leaves_no_gap_in_the_clock(tmp_path):
    path = tmp_path / "checkpoint.npz"
    with pytest.raises(Interrupted):
        finished(path, stop=At("after_step", 8, fakes.ctrl_c))
    before = read(path)[1]["seconds"]
    arguments, probes = with_probes()
    history = fit(**arguments, callbacks=[probes, Checkpoint(path, resume=True)])
    seconds = history["seconds"]
    assert seconds[0] < before < seconds[1] < seconds[2]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"batch_size": 40}, "batch_size was 32, now 40"),
        ({"epochs": 4}, "epochs was 3, now 4"),
        ({"seed": 6}, "seed was 5, now 6"),
        ({"schedule": None}, "schedule was"),
        ({"label_smoothing": 0.0}, "label_smoothing was 0.1, now 0.0"),
        ({"augment": None}, "augmented was True, now False"),
        ({"average": None}, "average was 0.9, now False"),
        ({"train": fakes.dataset(199)}, "images was 200, now 199"),
        ({"train": fakes.dataset(200, name="others")}, "train was 'fake', now 'others'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_run_is_not_resumed_with_other_settings(change, named, tmp_path):
    path = tmp_path / "checkpoint.npz"
    with pytest.raises(Interrupted):
        finished(path, stop=At("after_step", 1, fakes.ctrl_c))
    before = path.read_bytes()
    with pytest.raises(ValueError, match=named) as caught:
        finished(path, resume=True, **change)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "make",
    [
        lambda parameters: optim.SGD(parameters, 0.1),
        lambda parameters: optim.RMSProp(parameters, 0.1, weight_decay=1e-3),
        lambda parameters: optim.RMSProp(parameters, 0.1, weight_decay=4e-5, momentum=0.5),
        lambda parameters: optim.RMSProp(parameters, 0.1, weight_decay=4e-5, eps=1.0),
    ],
    ids=["SGD", "weight_decay", "momentum", "eps"],
)
def test_a_run_is_not_resumed_with_another_optimizer(make, tmp_path):
    path = tmp_path / "checkpoint.npz"
    with pytest.raises(Interrupted):
        finished(path, stop=At("after_step", 1, fakes.ctrl_c))
    arguments, probes = with_probes()
    arguments["optimizer"] = make(arguments["model"].parameters())
    with pytest.raises(ValueError, match="cannot be resumed"):
        fit(**arguments, callbacks=[probes, Checkpoint(path, resume=True)])


def test_another_model_is_refused_with_every_name_and_is_not_touched(tmp_path):
    path = tmp_path / "checkpoint.npz"
    fit(**fakes.plain(fakes.mlp(hidden=(12, 8)), epochs=1), callbacks=[Checkpoint(path)])
    other = fakes.mlp(hidden=(12, 9, 5), seed=3)
    before = other.state_dict()
    with pytest.raises(ValueError, match="cannot be resumed") as caught:
        fit(**fakes.plain(other, epochs=1), callbacks=[Checkpoint(path, resume=True)])
    text = str(caught.value)
    saved = {name: array.shape for name, array in fakes.mlp(hidden=(12, 8)).state_dict().items()}
    for name, array in before.items():
        if name not in saved:
            assert f"missing: {name} {array.shape}" in text
        elif saved[name] != array.shape:
            assert f"another shape: {name} is {saved[name]}, this model needs {array.shape}" in text
        else:
            assert f"{name} " not in text
    fakes.assert_same_bits(other.state_dict(), before)

    with pytest.raises(ValueError, match="cannot be resumed") as caught:
        fit(**fakes.plain(fakes.mlp(hidden=()), epochs=1), callbacks=[Checkpoint(path, resume=True)])
    for name, shape in saved.items():
        assert name.startswith("classifier") or f"unexpected: {name} {shape}" in str(caught.value)


def test_resuming_what_is_not_there_is_told_by_name(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no checkpoint .*nothing\.npz"):
        fit(**fakes.plain(fakes.mlp()), callbacks=[Checkpoint(tmp_path / "nothing.npz", resume=True)])


@pytest.mark.parametrize("every", [0, -3, 2.5])
def test_saving_every_no_steps_is_refused(every, tmp_path):
    with pytest.raises(ValueError, match="every"):
        Checkpoint(tmp_path / "checkpoint.npz", every=every)


def test_the_generators_of_the_model_are_part_of_the_state(tmp_path):
    path = tmp_path / "checkpoint.npz"
    arguments = fakes.plain(fakes.mlp(dropout=0.5), epochs=1)
    fit(**arguments, callbacks=[Checkpoint(path)])
    [(name, generator)] = arguments["model"].generators()
    assert read(path)[1]["generators"] == {name: generator.bit_generator.state}


def test_a_checkpoint_without_a_generators_state_is_refused_with_a_sentence(tmp_path):
    path = tmp_path / "checkpoint.npz"
    fit(**fakes.plain(fakes.mlp(), epochs=1), callbacks=[Checkpoint(path)])
    arrays, numbers = read(path)
    numbers["generators"] = {}
    write(path, arrays, numbers)
    with pytest.raises(ValueError, match=r"generator.*dropout|dropout.*generator"):
        fit(**fakes.plain(fakes.mlp(), epochs=1), callbacks=[Checkpoint(path, resume=True)])


# --- Writing ---------------------------------------------------------------------------------------------------------

ARRAYS = {"model/w": np.arange(600, dtype=np.float32).reshape(20, 30), "optimizer/steps": np.array(7)}


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "new" / "folder" / "checkpoint.npz"
    write(path, ARRAYS, {"epoch": 3, "text": "ü", "seconds": 0.1})
    arrays, numbers = read(path)
    fakes.assert_same_bits(arrays, ARRAYS)
    assert numbers == {"format": checkpoint.FORMAT, "epoch": 3, "text": "ü", "seconds": 0.1}
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.8, 0.95, 0.99])
def test_a_disk_that_fills_up_while_writing_leaves_the_checkpoint_before(share, tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.npz"
    write(path, ARRAYS, {"epoch": 1})
    before = path.read_bytes()
    monkeypatch.setattr(fakes.FullDisk, "space", int(share * len(before)))
    monkeypatch.setattr(checkpoint, "open", fakes.FullDisk, raising=False)
    with pytest.raises(OSError, match="No space left") as caught:
        write(path, ARRAYS, {"epoch": 2})
    assert caught.value.errno == errno.ENOSPC
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_told_with_the_files_name(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "open", fakes.FullDisk, raising=False)
    with pytest.raises(OSError, match=r"checkpoint\.npz.*No space left|No space left.*checkpoint\.npz"):
        write(tmp_path / "checkpoint.npz", ARRAYS, {"epoch": 2})


@pytest.mark.parametrize("share", [0.01, 0.7, 0.99])
def test_a_real_limit_of_the_file_size_leaves_the_checkpoint_before(share, tmp_path):
    path = tmp_path / "checkpoint.npz"
    write(path, ARRAYS, {"epoch": 1})
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(share * len(before)), hard))
    try:
        with pytest.raises(OSError, match="too large"):
            write(path, ARRAYS, {"epoch": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["replace", "fsync"])
def test_a_failing_rename_or_sync_leaves_the_checkpoint_before(name, tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.npz"
    write(path, ARRAYS, {"epoch": 1})
    before = path.read_bytes()

    def fail(*arguments):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, name, fail)
    with pytest.raises(OSError, match="Input/output"):
        write(path, ARRAYS, {"epoch": 2})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_the_file_is_whole_before_it_gets_its_name(tmp_path, monkeypatch):
    path, order = tmp_path / "checkpoint.npz", []
    replace, fsync = os.replace, os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: order.append("fsync") or fsync(file))

    def look(old, new):
        order.append("replace")
        assert not path.exists()
        assert read(old)[1]["epoch"] == 1
        replace(old, new)

    monkeypatch.setattr(os, "replace", look)
    write(path, ARRAYS, {"epoch": 1})
    assert order == ["fsync", "replace"]


def test_numbers_that_json_cannot_hold_leave_the_checkpoint_before(tmp_path):
    path = tmp_path / "checkpoint.npz"
    write(path, ARRAYS, {"epoch": 1})
    with pytest.raises(TypeError):
        write(path, ARRAYS, {"epoch": object()})
    assert read(path)[1]["epoch"] == 1
    assert list(tmp_path.iterdir()) == [path]


def test_arrays_are_written_whole_and_read_back(tmp_path, monkeypatch):
    path = tmp_path / "deep" / "arrays.npz"
    arrays = {"half": np.arange(2000, dtype=np.float16).reshape(2, 1000), "labels": np.zeros(3000, np.uint8)}
    checkpoint.write_arrays(path, arrays)
    with open(path, "rb") as file:
        fakes.assert_same_bits(read_npz(file), arrays)
    assert path.stat().st_size < 6500  # compressed: the labels take next to nothing
    before = path.read_bytes()
    monkeypatch.setattr(np, "savez_compressed", lambda *_, **__: crash())
    with pytest.raises(Crash):
        checkpoint.write_arrays(path, arrays)
    assert path.read_bytes() == before and len(list(path.parent.iterdir())) == 1


def test_json_files_hold_only_what_json_knows(tmp_path):
    path = tmp_path / "history.json"
    checkpoint.write_json(path, {"loss": 0.1})
    with pytest.raises(ValueError):  # NaN is no JSON: browsers and other languages refuse the file
        checkpoint.write_json(path, {"loss": float("nan")})
    assert json.loads(path.read_text()) == {"loss": 0.1}
    assert list(tmp_path.iterdir()) == [path]


# --- Damaged and hostile files ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Return the path of the checkpoint of a training of a very small model, and its bytes."""
    path = tmp_path_factory.mktemp("small") / "checkpoint.npz"
    model = models.mlp_batch_norm(4, 1, image_size=2, hidden=(3,), batch_norm=False)
    about = {
        "model": "mlp_batch_norm",
        "model_settings": {"num_classes": 4, "in_channels": 1, "image_size": 2, "hidden": [3], "batch_norm": False},
    }
    arguments = fakes.plain(model, train=fakes.dataset(64, size=2), test=None, epochs=1)
    fit(**arguments, callbacks=[Checkpoint(path, about=about)])
    return path, path.read_bytes()


def test_a_file_cut_off_anywhere_is_refused(small, tmp_path):
    _, content = small
    path = tmp_path / "checkpoint.npz"
    for length in [*range(0, len(content), 37), *range(len(content) - 60, len(content))]:
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match="damaged") as caught:
            read(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def assert_refused_or_the_same(path, damaged, good):
    """Read a damaged file: a ValueError, or what was saved. Return whether it was refused."""
    path.write_bytes(damaged)
    try:
        arrays, numbers = read(path)
    except ValueError as error:
        assert "damaged" in str(error) and str(path) in str(error)
        return True
    assert numbers == good[1]
    fakes.assert_same_bits(arrays, good[0])
    return False


def test_a_file_with_a_flipped_bit_is_refused_or_means_the_same(small, tmp_path):
    good, content = small
    refused = 0
    for k in range(0, len(content), 11):
        damaged = bytearray(content)
        damaged[k] ^= 1 << k % 8
        refused += assert_refused_or_the_same(tmp_path / "checkpoint.npz", damaged, read(good))
    assert refused > len(content) / 11 / 2  # the others: dates, and bytes that are stored twice


def test_a_flipped_bit_in_the_header_of_a_large_array_is_refused(tmp_path):
    # The checksum of a member is compared when its last byte has been read. A header that announces a smaller array,
    # or is shorter itself, leaves the last bytes unread: then other numbers have the right shape.
    path = tmp_path / "checkpoint.npz"
    write(path, {"model/w": np.random.default_rng(0).normal(size=(50, 63)).astype(np.float32)}, {"epoch": 3})
    good, content = read(path), path.read_bytes()
    start = content.index(b"\x93NUMPY")
    for k in range(start + 6, start + 72):
        for bit in range(8):
            damaged = bytearray(content)
            damaged[k] ^= 1 << bit
            assert_refused_or_the_same(path, damaged, good)


def test_bytes_that_were_overwritten_or_swapped_are_refused(small, tmp_path):
    _, content = small
    path = tmp_path / "checkpoint.npz"
    middle = len(content) // 2
    rng = np.random.default_rng(0)
    wrong = {
        "zeros": content[:middle] + bytes(64) + content[middle + 64 :],
        "noise": rng.bytes(len(content)),
        "halves swapped": content[middle:] + content[:middle],
    }
    for name, damaged in wrong.items():
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="damaged"):
            read(path)
            pytest.fail(name)


class Payload:
    """Does something when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_python_objects_are_never_unpickled(tmp_path, small):
    payload, path = Payload(tmp_path / "done"), tmp_path / "checkpoint.npz"
    text = np.array(json.dumps({"format": checkpoint.FORMAT}))
    arrays, numbers = read(small[0])
    hostile = np.empty(1, object)
    hostile[0] = payload

    def save(**members):
        with open(path, "wb") as file:
            np.savez(file, **members)

    def attempts():
        save(json=hostile)
        yield
        save(json=text, w=hostile)
        yield
        save(**{**arrays, "model/classifier.w": hostile}, json=np.array(json.dumps(numbers)))
        yield
        path.write_bytes(pickle.dumps(payload))
        yield
        with open(path, "wb") as file:
            np.save(file, hostile)
        yield

    for _ in attempts():
        for load in (read, load_model):
            with pytest.raises(ValueError, match="damaged or not a checkpoint"):
                load(path)
        with pytest.raises(ValueError, match="damaged or not a checkpoint"):
            fit(**fakes.plain(fakes.mlp(), epochs=1), callbacks=[Checkpoint(path, resume=True)])
    assert not payload.path.exists()
    pickle.loads(pickle.dumps(payload))
    assert payload.path.exists()  # it would have worked


def other_files(path):
    """Write one after the other what is no checkpoint."""
    path.write_bytes(b"")
    yield "nothing"
    path.write_text("hello")
    yield "text"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    yield "an image"
    with open(path, "wb") as file:
        np.save(file, np.zeros(3))
    yield "one array"
    with open(path, "wb") as file:
        np.savez(file, a=np.zeros(3))
    yield "arrays of something else"
    for json_array in ("[]", "3", "null", '"text"', "{}", '{"format": 3}', "not json", "[" * 100_000):
        with open(path, "wb") as file:
            np.savez(file, json=np.array(json_array))
        yield f"JSON that is {json_array[:12]}"
    with open(path, "wb") as file:
        np.savez(file, json=np.zeros((2, 2)))
    yield "numbers for JSON"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
        archive.writestr("json.npy", "hello")
    yield "a zip of texts"
    with zipfile.ZipFile(path, "w") as archive:
        header = "{'descr': '<f8', 'fortran_order': False, 'shape': (" + "9" * 30 + ",), }"
        archive.writestr("json.npy", b"\x93NUMPY\x01\x00\x76\x00" + header.ljust(118).encode())
    yield "an array larger than memory"


def test_another_file_is_refused_by_name_in_one_line(tmp_path):
    path = tmp_path / "checkpoint.npz"
    for what in other_files(path):
        try:
            read(path)
        except ValueError as error:
            assert "not a checkpoint of npnets" in str(error), what
            assert str(path) in str(error) and "\n" not in str(error), what
        else:
            pytest.fail(f"{what} was read")


def test_a_file_without_the_json_text_is_called_no_checkpoint(tmp_path):
    path = tmp_path / "weights.npz"
    np.savez(path, a=np.zeros(3))
    with pytest.raises(ValueError, match="not a checkpoint") as caught:
        read(path)
    assert not str(caught.value).endswith(": 'json'")  # that is no reason


def test_a_folder_is_no_checkpoint(tmp_path):
    with pytest.raises((ValueError, IsADirectoryError), match=str(tmp_path)):
        read(tmp_path)


def test_a_missing_checkpoint_is_told_by_name(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no checkpoint .*here\.npz"):
        read(tmp_path / "here.npz")


def test_another_format_is_refused_with_both_versions(tmp_path, small):
    path = tmp_path / "checkpoint.npz"
    arrays, numbers = read(small[0])
    text = json.dumps(numbers | {"format": "npnets checkpoint 99"})
    with open(path, "wb") as file:
        np.savez(file, **arrays, json=np.array(text))
    with pytest.raises(ValueError, match="npnets checkpoint 99") as caught:
        read(path)
    assert checkpoint.FORMAT in str(caught.value)


# --- load_model ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return the arguments of a finished training with weight averages, and the path of its checkpoint."""
    path = tmp_path_factory.mktemp("trained") / "checkpoint.npz"
    settings = {"num_classes": 4, "in_channels": 1, "width_mult": 0.25, "dropout": 0.3, "seed": 2}
    about = {"model": "mobilenet_v2_small", "model_settings": settings}
    arguments = fakes.recipe(models.build("mobilenet_v2_small", **settings), batch_size=64, epochs=1)
    fit(**arguments, callbacks=[Checkpoint(path, about=about)])
    return arguments, path


def test_load_model_builds_the_model_again_with_its_averages(trained):
    arguments, path = trained
    images = np.random.default_rng(0).normal(size=(5, 8, 8, 1)).astype(np.float32)
    model, numbers = load_model(path)
    assert numbers["about"]["model"] == "mobilenet_v2_small"
    with arguments["average"].applied():
        np.testing.assert_array_equal(model(images), arguments["model"](images))
        fakes.assert_same_bits(model.state_dict(), arguments["model"].state_dict())
    raw, _ = load_model(path, averaged=False)
    np.testing.assert_array_equal(raw(images), arguments["model"](images))
    assert not np.array_equal(raw(images), model(images))


def test_a_loaded_model_gives_the_accuracy_of_the_history(trained):
    arguments, path = trained
    model, numbers = load_model(path)
    result = evaluate(model, arguments["test"], mean=np.array(numbers["mean"]), std=np.array(numbers["std"]))
    last = numbers["history"]["epochs"][-1]
    assert (result.loss, result.accuracy) == (last["test_loss"], last["test_accuracy"])


def test_averages_of_the_weights_alone_leave_the_statistics_as_they_are(tmp_path):
    path = tmp_path / "checkpoint.npz"
    model = fakes.mlp(hidden=(3,))
    average = optim.ExponentialMovingAverage(model.parameters(), 0.5)
    settings = {"num_classes": 4, "in_channels": 1, "image_size": 8, "hidden": [3]}
    about = {"model": "mlp_batch_norm", "model_settings": settings}
    fit(**fakes.plain(model, average=average, epochs=1), callbacks=[Checkpoint(path, about=about)])
    loaded, _ = load_model(path)
    np.testing.assert_array_equal(loaded.classifier.w.value, average.averages["classifier.w"])
    np.testing.assert_array_equal(loaded.hidden[0].bn.running_mean, model.hidden[0].bn.running_mean)


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({}, "which model"),
        ({"model": "mobilenet_v2_small"}, "which model"),
        ({"model": ["x"], "model_settings": {}}, "model"),
        ({"model": "mobilenet_v9", "model_settings": {}}, "unknown model 'mobilenet_v9'"),
        ({"model": "mlp_batch_norm", "model_settings": {"colour": 1}}, "no setting 'colour'"),
        ({"model": "mlp_batch_norm", "model_settings": "abc"}, "model"),
        ({"model": "mlp_batch_norm", "model_settings": {"dtype": "int9"}}, "model|dtype"),
        (None, "which model"),
        ([1], "which model"),
    ],
    ids=str,
)
def test_a_checkpoint_that_does_not_tell_its_model_is_refused_by_name(about, message, tmp_path, small):
    path = tmp_path / "checkpoint.npz"
    arrays, numbers = read(small[0])
    write(path, arrays, numbers | {"about": about})
    with pytest.raises(ValueError, match=message) as caught:
        load_model(path)
    assert str(path) in str(caught.value)


def test_a_checkpoint_of_an_unnamed_network_is_refused_by_name(tmp_path):
    path = tmp_path / "checkpoint.npz"
    model = nn.Sequential(flatten=nn.Flatten(), fc=nn.Linear(64, 4, rng=np.random.default_rng(0)))
    fit(**fakes.plain(model, epochs=1), callbacks=[Checkpoint(path)])
    with pytest.raises(ValueError, match="does not tell which model"):
        load_model(path)


def test_arrays_that_are_not_the_named_models_are_listed(tmp_path, small):
    path = tmp_path / "checkpoint.npz"
    arrays, numbers = read(small[0])
    arrays["model/hidden.0.linear.w"] = np.zeros((2, 2), np.float32)
    arrays["model/extra"] = np.zeros(3)
    del arrays["model/classifier.b"]
    write(path, arrays, numbers)
    with pytest.raises(ValueError) as caught:
        load_model(path)
    for part in ("missing: classifier.b (4,)", "unexpected: extra (3,)", "hidden.0.linear.w is (2, 2)", str(path)):
        assert part in str(caught.value)
