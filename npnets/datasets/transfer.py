"""One file over HTTP into a ``.part`` file, continued where an earlier attempt or an earlier run stopped.

What comes out is whatever the server has: the caller compares checksums.
"""

import http.client
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from tqdm import tqdm

from npnets.shapes import integer

CHUNK = 1 << 16


class _Interrupted(Exception):
    """The attempt failed in a way that another one may mend."""


class Transfer:
    """A URL and the ``.part`` file that it goes to.

    Parameters
    ----------
    url : str
        http or https.
    part : Path
        Kept when an attempt fails; its length says where the next one continues.
    progress : bool
        Show a bar on stderr.
    say : function of a sentence
        Told of each failed attempt.
    timeout : float
        Seconds without an answer after which the connection is given up.
    attempts : int
        How often in a row the connection may fail without bringing anything new.
    pause : float
        Seconds before the second attempt; doubled for each further one.
    """

    def __init__(
        self,
        url: str,
        part: Path,
        *,
        progress: bool,
        say: Callable[[str], None],
        timeout: float,
        attempts: int,
        pause: float,
    ):
        if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
            raise ValueError(f"the URL must start with http:// or https://, got {url!r}")
        self.url, self.part, self.progress, self.say = url, part, progress, say
        self.timeout, self.attempts, self.pause = timeout, integer(attempts, "attempts", 1), pause
        self._total = None  # bytes of the whole file, as the server said first

    def run(self) -> bool:
        """Download to the end; return whether the file was put together from more than one answer.

        Raises
        ------
        OSError
            If the server refuses or all attempts fail; also what writing the file raises.
        """
        failures, longest = 0, self._size()
        while True:
            try:
                return self._attempt()
            except _Interrupted as error:
                # Only bytes that we never had count as progress: a server that starts anew and breaks off at the same
                # place each time must not keep us for ever.
                failures = 1 if self._size() > longest else failures + 1
                longest = max(longest, self._size())
                if failures >= self.attempts:
                    raise OSError(
                        f"{self.url} cannot be fetched ({error}): check the network and run the command again, it "
                        f"continues where it stopped; or get the file elsewhere and save it as {self._own_name()}"
                    ) from None
                self.say(f"{error}; attempt {failures + 1} of {self.attempts} follows")
                time.sleep(self.pause * 2 ** (failures - 1))

    def _size(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _own_name(self) -> Path:
        return self.part.with_suffix("")

    def _attempt(self) -> bool:
        start = self._size()
        request = urllib.request.Request(self.url, headers={"User-Agent": "npnets"})
        if start:
            request.add_header("Range", f"bytes={start}-")
        try:
            response = urllib.request.urlopen(request, timeout=self.timeout)
        except urllib.error.HTTPError as error:
            with error:
                self._refused(error, start)
        except urllib.error.URLError as error:
            raise _Interrupted(f"no connection: {error.reason}") from None
        except (OSError, http.client.HTTPException) as error:
            raise _Interrupted(f"no answer: {_in_words(error)}") from None
        with response:
            return self._receive(response, start)

    def _refused(self, error: urllib.error.HTTPError, start: int) -> NoReturn:
        if error.code == 416 and start:
            self._start_again("the file on the server is not longer than what is here")
        if error.code in (408, 429) or error.code >= 500:
            raise _Interrupted(f"the server answers {error.code} {error.reason}")
        raise OSError(
            f"{self.url}: the server answers {error.code} {error.reason}; if the file has moved, get it from its new "
            f"place and save it as {self._own_name()}"
        )

    def _receive(self, response: http.client.HTTPResponse, start: int) -> bool:
        if response.status == 206:
            first, total = _content_range(response.headers.get("Content-Range", ""))
            if first != start:
                self._start_again("the server sent another part than the one asked for")
            if None not in (self._total, total) and total != self._total:
                self._start_again("the file on the server has changed")
        else:  # this server sends the whole file, whatever one asks for
            start, total = 0, response.length
        self._total = total
        self._append(response, start)
        if total is not None and self._size() < total:
            raise _Interrupted(f"the connection was cut after {self._size():,} of {total:,} bytes")
        return start > 0

    def _append(self, response: http.client.HTTPResponse, start: int) -> None:
        bar = tqdm(
            total=self._total,
            initial=start,
            unit="B",
            unit_scale=True,
            desc=self._own_name().name,
            disable=not self.progress,
        )
        with bar, open(self.part, "ab" if start else "wb") as part:
            while chunk := _read(response):
                part.write(chunk)
                bar.update(len(chunk))

    def _start_again(self, reason: str) -> NoReturn:
        self.part.unlink(missing_ok=True)
        self._total = None
        raise _Interrupted(f"{reason}; starting again from the beginning")


def _read(response: http.client.HTTPResponse) -> bytes:
    # Here and not around the whole loop: an OSError of the network is tried again, one of the disk is not.
    try:
        return response.read1(CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _Interrupted(f"the connection was lost: {_in_words(error)}") from None


def _content_range(header: str) -> tuple[int | None, int | None]:
    """Return where the part starts and how long the whole file is; None for what the header does not tell."""
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", header)
    if found is None:
        return None, None
    return int(found[1]), None if found[2] == "*" else int(found[2])


def _in_words(error: Exception) -> str:
    return str(error) or type(error).__name__
