"""The download of CIFAR-10, against a server on the loopback address that misbehaves on demand."""

import errno
import gzip
import hashlib
import http.server
import io
import re
import socket
import tarfile
import threading

import numpy as np
import pytest

from npnets.datasets import cifar10, download, load_cifar10, transfer
from npnets.datasets.download import fetch_cifar10

FOLDER = cifar10.FOLDER


def make_bins():
    """Return file name -> content of a small data set; random, so that it does not compress."""
    rng = np.random.default_rng(0)
    bins = {}
    for name in cifar10.SHA256:
        records = rng.integers(0, 256, (10, cifar10.RECORD_BYTES), dtype=np.uint8)
        records[:, 0] = np.arange(10)
        bins[name] = records.tobytes()
    return bins


BINS = make_bins()


def member(name, content=b"", kind=tarfile.REGTYPE, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, len(content), target
    return info, content


def make_tar(members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return gzip.compress(buffer.getvalue(), mtime=0)


def good_members():
    extras = [member(f"{FOLDER}/readme.html", b"<html>"), member(f"{FOLDER}/batches.meta.txt", b"airplane\n")]
    return [member(FOLDER, kind=tarfile.DIRTYPE), *[member(f"{FOLDER}/{k}", v) for k, v in BINS.items()], *extras]


def describe_archive(content):
    """Return what fetch_cifar10 must expect of an archive with this content."""
    return download.CIFAR10._replace(
        sha256=hashlib.sha256(content).hexdigest(),
        files={name: hashlib.sha256(content).hexdigest() for name, content in BINS.items()},
        max_bytes=40_000,
    )


GOOD = make_tar(good_members())
ARCHIVE = describe_archive(GOOD)


class Site:
    """What the server has, how it answers, and what it was asked for."""

    def __init__(self):
        self.content = GOOD
        self.answers = []  # for the next requests, in order; then `usual`
        self.usual = serve
        self.ranges = []  # the Range header of each request
        self.over = threading.Event()


def serve(handler, content, *, cut=None, honest=True):
    """Send the content from the place asked for; break off after ``cut`` bytes; do not know Range unless ``honest``."""
    wanted = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
    start = int(wanted[1]) if wanted and honest else 0
    if start and start >= len(content):
        handler.send_response(416)
        handler.send_header("Content-Range", f"bytes */{len(content)}")
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return
    handler.send_response(206 if start else 200)
    if start:
        handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
    handler.send_header("Content-Length", str(len(content) - start))
    handler.end_headers()
    handler.wfile.write(content[start:] if cut is None else content[start : start + cut])


def cut_after(count, honest=True):
    return lambda handler, content: serve(handler, content, cut=count, honest=honest)


def without_range(handler, content):
    serve(handler, content, honest=False)


def refuse(status):
    return lambda handler, content: handler.send_error(status)


def from_the_wrong_place(handler, content):
    handler.send_response(206)
    handler.send_header("Content-Range", f"bytes 0-{len(content) - 1}/{len(content)}")
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        site = self.server.site
        site.ranges.append(self.headers.get("Range"))
        answer = site.answers.pop(0) if site.answers else site.usual
        answer(self, site.content)

    def log_message(self, *words):
        pass


class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        pass  # clients that hang up are part of the tests


@pytest.fixture
def site(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    site = Site()
    with Server(("127.0.0.1", 0), Handler) as server:
        server.site = site
        site.url = f"http://127.0.0.1:{server.server_port}/{ARCHIVE.name}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield site
        site.over.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def root(tmp_path):
    return tmp_path / "data"


def part_of(root):
    return root / f"{ARCHIVE.name}.part"


def fetch(root, site, archive=ARCHIVE, **settings):
    settings = {"timeout": 10, "attempts": 3, "pause": 0, "progress": False} | settings
    return fetch_cifar10(root, site.url, archive=archive, **settings)


def assert_complete(root):
    """The folder holds the right files and nothing else lies about."""
    assert [path.name for path in root.iterdir()] == [FOLDER]
    for name, content in BINS.items():
        assert (root / FOLDER / name).read_bytes() == content


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_official_archive_is_what_is_expected_by_default():
    assert download.OFFICIAL_URL == "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
    assert download.CIFAR10.sha256 == "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
    assert download.CIFAR10.files == cifar10.SHA256 and len(cifar10.SHA256) == 6
    assert download.CIFAR10.max_bytes == 30_730_000


def test_a_whole_download_ends_in_a_data_set_that_loads(root, site, capsys):
    assert fetch(root, site, progress=True) == root / FOLDER
    assert_complete(root)
    assert len(load_cifar10("train", root, digests=ARCHIVE.files)) == 50
    output = capsys.readouterr()
    assert "is complete and verified" in output.err and ARCHIVE.name in output.err and output.out == ""


def test_without_progress_nothing_is_said(root, site, capsys):
    site.answers = [refuse(503)]
    fetch(root, site)
    assert capsys.readouterr() == ("", "")


def test_a_verified_data_set_is_not_downloaded_again(root, site, capsys):
    fetch(root, site)
    fetch(root, site, progress=True)
    assert len(site.ranges) == 1
    assert "already here, complete and verified" in capsys.readouterr().err


def test_a_damaged_data_set_is_neither_accepted_nor_touched(root, site):
    fetch(root, site)
    path = root / FOLDER / "data_batch_4.bin"
    path.write_bytes(b"mine")
    with pytest.raises(ValueError, match=r"data_batch_4.bin does not have the published SHA-256; move it away"):
        fetch(root, site)
    path.unlink()
    with pytest.raises(ValueError, match=r"data_batch_4.bin is missing; move it away"):
        fetch(root, site)
    assert len(site.ranges) == 1 and names_in(root) == [FOLDER]


def test_a_cut_connection_is_continued(root, site, capsys):
    site.answers = [cut_after(100_000), cut_after(50_000)]
    fetch(root, site, progress=True)
    assert site.ranges == [None, "bytes=100000-", "bytes=150000-"]
    assert_complete(root)
    assert f"cut after 100,000 of {len(GOOD):,} bytes; attempt 2 of 3 follows" in capsys.readouterr().err


def test_a_later_run_continues_an_earlier_one(root, site):
    site.usual = cut_after(70_000, honest=False)
    with pytest.raises(OSError, match="run the command again, it continues where it stopped"):
        fetch(root, site)
    assert part_of(root).read_bytes() == GOOD[:70_000] and not (root / FOLDER).exists()
    site.usual = serve
    fetch(root, site)
    assert site.ranges[-1] == "bytes=70000-"
    assert_complete(root)


def test_more_cuts_than_attempts_are_fine_while_each_brings_something_new(root, site):
    site.usual = cut_after(30_000)
    fetch(root, site, attempts=2)
    assert len(site.ranges) == -(-len(GOOD) // 30_000)
    assert_complete(root)


def test_a_server_that_always_breaks_off_at_the_same_place_is_given_up(root, site):
    site.usual = cut_after(30_000, honest=False)
    with pytest.raises(OSError, match="cannot be fetched"):
        fetch(root, site, attempts=4)
    assert len(site.ranges) == 4


def test_a_server_without_range_sends_everything_again(root, site):
    site.answers = [cut_after(100_000)]
    site.usual = without_range
    fetch(root, site)
    assert site.ranges == [None, "bytes=100000-"]
    assert_complete(root)


def test_a_part_that_is_already_whole_is_not_downloaded_again(root, site):
    root.mkdir()
    part_of(root).write_bytes(GOOD)
    fetch(root, site)
    assert site.ranges == []
    assert_complete(root)


@pytest.mark.parametrize("old", [GOOD + b"more", GOOD[:-1] + b"?", b"?" * 1000], ids=["longer", "as long", "shorter"])
def test_a_part_of_another_file_is_replaced(root, site, old):
    root.mkdir()
    part_of(root).write_bytes(old)
    fetch(root, site)
    assert site.ranges == [f"bytes={len(old)}-", None]
    assert_complete(root)


def test_a_file_that_changes_on_the_server_is_started_again(root, site, capsys):
    def cut_then_change(handler, content):
        serve(handler, b"the old version" * 20_000, cut=100_000)

    site.answers = [cut_then_change]
    fetch(root, site, progress=True)
    assert site.ranges == [None, "bytes=100000-", None]
    assert "has changed; starting again" in capsys.readouterr().err
    assert_complete(root)


def test_a_server_that_sends_another_part_than_asked_for_is_noticed(root, site, capsys):
    site.answers = [cut_after(100_000), from_the_wrong_place]
    fetch(root, site, progress=True)
    assert "another part than the one asked for; starting again" in capsys.readouterr().err
    assert site.ranges == [None, "bytes=100000-", None]
    assert_complete(root)


def test_a_wrong_archive_is_deleted_with_an_explanation(root, site):
    site.content = GOOD[:-1] + b"?"
    with pytest.raises(ValueError, match=r"is not the published archive: .* it was deleted, nothing was unpacked"):
        fetch(root, site)
    assert names_in(root) == [] and len(site.ranges) == 1


def test_a_wrong_archive_is_downloaded_at_most_twice(root, site):
    site.content = GOOD[:-1] + b"?"
    site.usual = cut_after(100_000)
    with pytest.raises(ValueError, match="is not the published archive"):
        fetch(root, site)
    assert names_in(root) == [] and len(site.ranges) == 4


def test_a_missing_page_is_reported_at_once(root, site):
    site.usual = refuse(404)
    with pytest.raises(OSError, match=rf"answers 404 Not Found; .* save it as .*{ARCHIVE.name}$"):
        fetch(root, site)
    assert len(site.ranges) == 1


def test_a_busy_server_is_asked_again(root, site):
    site.answers = [refuse(503), refuse(429)]
    fetch(root, site)
    assert len(site.ranges) == 3
    assert_complete(root)


def test_a_server_that_does_not_answer_is_asked_again(root, site):
    site.answers = [lambda handler, content: site.over.wait(30)]
    fetch(root, site, timeout=0.2)
    assert_complete(root)


def test_a_server_that_falls_silent_is_asked_again(root, site):
    def stall(handler, content):
        serve(handler, content, cut=100_000)
        handler.wfile.flush()
        site.over.wait(30)

    site.answers = [stall]
    fetch(root, site, timeout=0.2)
    assert site.ranges == [None, "bytes=100000-"]
    assert_complete(root)


def test_no_network_ends_in_a_sentence(root, site, capsys):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        site.url = f"http://127.0.0.1:{free.getsockname()[1]}/{ARCHIVE.name}"  # bound, but nobody listens
        with pytest.raises(OSError, match=rf"no connection.*check the network.* save it as .*{ARCHIVE.name}$"):
            fetch(root, site, attempts=2, progress=True)
    assert "attempt 2 of 2 follows" in capsys.readouterr().err


def test_an_archive_brought_by_hand_is_used_and_kept(root, site):
    root.mkdir()
    (root / ARCHIVE.name).write_bytes(GOOD)
    fetch(root, site)
    assert site.ranges == [] and names_in(root) == sorted([FOLDER, ARCHIVE.name])


def test_a_wrong_archive_brought_by_hand_is_refused_and_kept(root, site):
    root.mkdir()
    (root / ARCHIVE.name).write_bytes(GOOD[:-1])
    with pytest.raises(ValueError, match=r"is not the published archive .* move it away"):
        fetch(root, site)
    assert site.ranges == [] and names_in(root) == [ARCHIVE.name]


BATCH = BINS["data_batch_1.bin"]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([member("../evil.bin", BATCH)], "'../evil.bin' does not belong"),
        ([member(f"{FOLDER}/../../evil.bin", BATCH)], "does not belong"),
        ([member("/tmp/evil.bin", BATCH)], "does not belong"),
        ([member(f"{FOLDER}/evil.py", b"import os")], "does not belong"),
        ([member("data_batch_1.bin", BATCH)], "does not belong"),
        ([member("elsewhere", kind=tarfile.DIRTYPE)], "does not belong"),
        ([member(FOLDER, kind=tarfile.SYMTYPE, target="..")], "does not belong"),
        ([member(f"{FOLDER}/test_batch.bin", kind=tarfile.SYMTYPE, target="/etc/passwd")], "not a regular file"),
        ([member(f"{FOLDER}/test_batch.bin", kind=tarfile.LNKTYPE, target="../../x")], "not a regular file"),
        ([member(f"{FOLDER}/test_batch.bin", kind=tarfile.CHRTYPE)], "not a regular file"),
        ([member(f"{FOLDER}/test_batch.bin", kind=tarfile.FIFOTYPE)], "not a regular file"),
        ([member(f"{FOLDER}/test_batch.bin", kind=tarfile.DIRTYPE)], "not a regular file"),
        ([member(f"{FOLDER}/readme.html", bytes(40_001))], "has 40,001 bytes, at most 40,000"),
        ([*good_members(), member(f"{FOLDER}/data_batch_1.bin", BATCH)], "is there twice"),
        (good_members()[:-3], "test_batch.bin is missing"),
        ([*good_members()[:-3], member(f"{FOLDER}/test_batch.bin", BATCH)], "test_batch.bin does not have"),
    ],
)
def test_a_hostile_archive_writes_nothing_even_if_its_checksum_is_right(root, site, members, message):
    site.content = make_tar(members)
    before = names_in(root.parent)
    with pytest.raises(ValueError, match=f"the archive was refused: .*{message}.*; nothing was kept of it"):
        fetch(root, site, describe_archive(site.content))
    assert names_in(root) == [part_of(root).name]
    assert names_in(root.parent) == sorted([*before, root.name])


@pytest.mark.parametrize("content", [b"<html>", GOOD[:-100], gzip.compress(b"no tar" * 1000)])
def test_an_archive_that_cannot_be_unpacked_gets_a_sentence(root, site, content):
    site.content = content
    with pytest.raises(ValueError, match="cannot be unpacked"):
        fetch(root, site, describe_archive(content))
    assert names_in(root) == [part_of(root).name]


def disk_with_room_for(count):
    """Return an ``open`` whose files cannot grow beyond ``count`` bytes."""

    class File(io.FileIO):
        def write(self, data):
            if self.tell() + len(data) > count:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(data)

    return File


def test_a_full_disk_during_the_download_keeps_what_is_there(root, site, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(transfer, "open", disk_with_room_for(150_000), raising=False)
        with pytest.raises(OSError, match=r"the disk of .* is full: .* run the command again"):
            fetch(root, site)
    assert len(site.ranges) == 1  # no other attempt: it would fail the same way
    assert 0 < part_of(root).stat().st_size <= 150_000
    fetch(root, site)
    assert_complete(root)


def test_a_full_disk_while_unpacking_keeps_the_archive_only(root, site, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(download, "open", disk_with_room_for(20_000), raising=False)
        with pytest.raises(OSError, match="is full"):
            fetch(root, site)
    assert names_in(root) == [part_of(root).name]
    fetch(root, site)
    assert len(site.ranges) == 1
    assert_complete(root)


def test_an_interruption_while_unpacking_leaves_nothing_under_the_final_name(root, site, monkeypatch):
    def interrupt(*names):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(download.os, "rename", interrupt)
        with pytest.raises(KeyboardInterrupt):
            fetch(root, site)
    assert names_in(root) == [part_of(root).name]


def test_an_unwritable_folder_ends_in_a_sentence(tmp_path, site):
    (tmp_path / "file").write_text("not a folder")
    for root in (tmp_path / "file", tmp_path / "file" / "data"):
        with pytest.raises(OSError, match=r"cannot write to .*NPNETS_DATA"):
            fetch(root, site)
    assert site.ranges == []


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://example.org/x", "cifar-10-binary.tar.gz"])
def test_only_http_urls_are_taken(root, site, url):
    site.url = url
    with pytest.raises(ValueError, match="must start with http"):
        fetch(root, site)
    assert not root.exists()
