"""The verified download behind ``python -m npnets data cifar10``.

Three rules:

1. What has been downloaded is kept in a ``.part`` file and continued, also by a later run.
2. Nothing is unpacked before the archive's SHA-256 is that of the published one.
3. The data appear under their final name by one rename, when every file has been verified.
"""

import errno
import gzip
import hashlib
import os
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from npnets.datasets import cifar10
from npnets.datasets.files import data_root
from npnets.datasets.transfer import CHUNK, Transfer

OFFICIAL_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"


class Archive(NamedTuple):
    """What is known of a published .tar.gz before it is downloaded."""

    name: str
    sha256: str
    folder: str  # every member lies in it
    files: Mapping[str, str]  # name -> SHA-256; all of them must be there
    extras: tuple[str, ...]  # names that may be there too
    max_bytes: int  # of any member


CIFAR10 = Archive(
    name="cifar-10-binary.tar.gz",
    sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    folder=cifar10.FOLDER,
    files=cifar10.SHA256,
    extras=("batches.meta.txt", "readme.html"),
    max_bytes=10_000 * cifar10.RECORD_BYTES,
)


def fetch_cifar10(
    root: str | Path | None = None,
    url: str = OFFICIAL_URL,
    progress: bool = True,
    *,
    archive: Archive = CIFAR10,
    timeout: float = 30.0,
    attempts: int = 4,
    pause: float = 1.0,
) -> Path:
    """Download, verify and unpack the full CIFAR-10; return its folder ``cifar-10-batches-bin``.

    Where the folder is there already and verified, nothing is done. A download that was interrupted is continued. An
    archive that was brought by other means is used if it lies in ``root`` under its own name.

    Parameters
    ----------
    root : path, optional
        Default: the environment variable ``NPNETS_DATA``, else the repository's ``data/``.
    url : str
        Another source of the same archive (http or https).
    progress : bool
        Show a bar and say what happens, on stderr.
    archive : Archive
        What the archive must be.
    timeout : float
        Seconds without an answer after which the connection is given up.
    attempts : int
        How often in a row the connection may fail without bringing anything new.
    pause : float
        Seconds before the second attempt; doubled for each further one.

    Raises
    ------
    ValueError
        If the URL is not http(s), the archive is not the published one or holds what it should not, or files under the
        final name are damaged.
    OSError
        If there is no connection, the server refuses, the disk is full or the folder not writable. The message says
        what to do; what has been downloaded is kept.
    """
    root = data_root(root)
    folder = root / archive.folder
    say = _say if progress else _say_nothing
    part = root / f"{archive.name}.part"
    transfer = Transfer(url, part, progress=progress, say=say, timeout=timeout, attempts=attempts, pause=pause)
    try:
        if folder.exists():
            if problem := _problem(folder, archive):
                raise ValueError(f"{folder} is not usable: {problem}; move it away and run the command again")
            say(f"{folder} is already here, complete and verified: nothing to do")
            return folder
        root.mkdir(parents=True, exist_ok=True)
        _unpack(_obtain(archive, root, transfer), archive, folder)
        part.unlink(missing_ok=True)
    except OSError as error:
        advice = _advice(error, root)
        if advice is None:
            raise
        raise OSError(advice) from error
    say(f"{folder} is complete and verified")
    return folder


def _say(sentence: str) -> None:
    tqdm.write(sentence, file=sys.stderr)  # print() would tear the bar


def _say_nothing(sentence: str) -> None:
    pass


def _advice(error: OSError, root: Path) -> str | None:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"the disk of {root} is full: the full CIFAR-10 needs 360 MB while it is unpacked and 190 MB afterwards; "
            "free some space and run the command again, it continues where it stopped"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
        return f"cannot write to {root} ({error.strerror}): name a writable folder, for example in NPNETS_DATA"
    return None


def _problem(folder: Path, archive: Archive) -> str | None:
    """Return what is wrong with the unpacked files, or None."""
    for name, digest in archive.files.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if _sha256_of(path) != digest:
            return f"{name} does not have the published SHA-256"
    return None


def _sha256_of(path: Path) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _obtain(archive: Archive, root: Path, transfer: Transfer) -> Path:
    """Return the path of the verified archive; download what is missing of it."""
    by_hand, part = root / archive.name, transfer.part
    if by_hand.exists():
        if _sha256_of(by_hand) != archive.sha256:
            raise ValueError(f"{by_hand} is not the published archive (SHA-256 {archive.sha256}); move it away")
        return by_hand
    if part.exists() and _sha256_of(part) == archive.sha256:  # an earlier run came this far
        return part
    # A file put together from several answers may mix two versions. Only one in a single piece is judged for good.
    if transfer.run() and _sha256_of(part) != archive.sha256:
        transfer.say("the continued download is not the published archive; starting again from the beginning")
        part.unlink()
        transfer.run()
    found = _sha256_of(part)
    if found != archive.sha256:
        size = part.stat().st_size
        part.unlink()
        raise ValueError(
            f"{transfer.url} is not the published archive: {size:,} bytes with SHA-256 {found}, expected "
            f"{archive.sha256}; it was deleted, nothing was unpacked. Try again, or another network or source"
        )
    return part


def _unpack(path: Path, archive: Archive, folder: Path) -> None:
    """Unpack into a temporary folder beside ``folder``, verify every file, and rename."""
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
        unpacked = Path(temporary) / folder.name
        unpacked.mkdir()
        try:
            with tarfile.open(path, "r:gz") as tar:
                for member in tar:
                    _unpack_member(tar, member, archive, unpacked)
        except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{path} cannot be unpacked ({error}); delete it and run the command again") from None
        if problem := _problem(unpacked, archive):
            raise ValueError(f"the archive was refused: {problem}; nothing was kept of it")
        os.rename(unpacked, folder)


def _unpack_member(tar: tarfile.TarFile, member: tarfile.TarInfo, archive: Archive, out: Path) -> None:
    # The path that is written never comes from the archive: only the names that we know are accepted.
    if member.isdir() and member.name == archive.folder:
        return
    names = {f"{archive.folder}/{name}": name for name in (*archive.files, *archive.extras)}
    name = names.get(member.name)
    if name is None:
        problem = "does not belong to this data set"
    elif not member.isreg():
        problem = "is not a regular file"
    elif member.size > archive.max_bytes:
        problem = f"has {member.size:,} bytes, at most {archive.max_bytes:,} are expected"
    elif (out / name).exists():
        problem = "is there twice"
    else:
        _copy(tar.extractfile(member), out / name)
        return
    raise ValueError(f"the archive was refused: its member {member.name!r} {problem}; nothing was kept of it")


def _copy(source, path: Path) -> None:
    with source, open(path, "wb") as out:
        while chunk := source.read(CHUNK):
            out.write(chunk)
