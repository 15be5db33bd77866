"""Spread one layer's work over cores, with the same bits for every number of threads.

NumPy's ufuncs, ``einsum`` and matrix products release the interpreter lock, so plain Python threads run them side by
side. Three rules make the result independent of the number of threads:

1. Work is cut by *shape* (:func:`cut`), never by the number of threads.
2. A piece writes only to its own part of the output, or returns a partial result.
3. Partial results come back in the order of the pieces (:func:`run`), and are added in that order
   (:func:`sum_in_order`).

While ``threads(n)`` is active, NumPy's matrix library is held to one thread: its idle workers would spin on the cores
that our own threads need. Outside, nothing about the user's NumPy is changed. (One thing stays: the C library goes on
keeping freed arrays of up to 32 MB for the next ones.)

>>> import numpy as np
>>> with threads(2):
...     run(lambda rows: int(np.arange(10)[rows].sum()), [slice(0, 5), slice(5, 10)])
[10, 35]
"""

import itertools
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from queue import SimpleQueue

import numpy as np

from npnets.shapes import integer

PIECE_BYTES = 1 << 20
"""Target size of one piece: small enough for a core's cache, large enough to outweigh a hand-over between threads."""

LEAST_BYTES = 1 << 18
"""What is smaller than two pieces of this size is left in one: handing over a part would take longer than doing it."""

MOST_THREADS = 256

_current = threading.local()


def available_cores() -> int:
    """Return how many cores this process may use (not how many the machine has)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cut(n: int, bytes_each: float) -> list[slice]:
    """Cut ``n`` items of ``bytes_each`` bytes into slices of about ``PIECE_BYTES``, or in two where that is smaller.

    The number of slices is a power of two (so that 2, 4 or 8 threads get equal shares), at most ``n``.

    >>> cut(6, PIECE_BYTES)
    [slice(0, 1, None), slice(1, 3, None), slice(3, 4, None), slice(4, 6, None)]
    """
    wanted = max(n * bytes_each / PIECE_BYTES, min(2, n * bytes_each / LEAST_BYTES))
    pieces = 1
    while pieces * 2 <= min(n, wanted):
        pieces *= 2
    edges = [n * k // pieces for k in range(pieces + 1)]
    return [slice(a, b) for a, b in itertools.pairwise(edges)]


def run(work: Callable, pieces: Sequence) -> list:
    """Return ``[work(piece) for piece in pieces]``, computed by the threads of the enclosing ``threads(n)``.

    The caller works too. Without an enclosing ``threads(n)``, and inside a piece of another ``run``, it is that loop.
    """
    team = getattr(_current, "team", None)
    if team is None or len(pieces) == 1:
        return [work(piece) for piece in pieces]
    return team.run(work, pieces)


def sum_in_order(parts: Iterable):
    """Add partial results from first to last: the same bits, whichever thread finished first."""
    parts = iter(parts)
    total = next(parts)
    for part in parts:
        total += part
    return total


@contextmanager
def threads(n: int | None = None):
    """Let npnets use ``n`` threads inside the ``with`` block (default: the cores this process may use).

    Results are bit for bit the same for every ``n``. The setting belongs to the thread that entered the block; blocks
    nest, the innermost counts; blocks of different threads should not overlap. NumPy's matrix library is limited to one
    thread meanwhile and gets its own setting back at the end.

    Raises
    ------
    ValueError
        If ``n`` is not a positive integer, or beyond reason.
    """
    n = available_cores() if n is None else integer(n, "threads", 1)
    if n > MOST_THREADS:
        raise ValueError(f"threads must be at most {MOST_THREADS}, got {n}")
    # Imported here: `import npnets` stays quick, and looking up the loaded BLAS libraries takes some milliseconds.
    from threadpoolctl import threadpool_limits

    outer = getattr(_current, "team", None)
    team = _Team(n)
    _keep_freed_memory()
    with threadpool_limits(limits=1, user_api="blas"):
        _current.team = team
        try:
            yield
        finally:
            _current.team = outer
            team.close()


def _keep_freed_memory():
    """Have the C library keep freed arrays for the next ones, instead of handing their pages back to the system.

    New pages are cleared by the system when first touched, which takes time in every step. glibc hands back arrays
    above a threshold, and raises it whenever one is freed, up to 32 MB: so one of nearly 32 MB is freed.
    """
    np.empty(32 * 2**20 - 2**13, np.uint8)


class _Team:
    """A caller and ``n - 1`` helper threads that wait on a queue for jobs."""

    def __init__(self, n: int):
        self.jobs = SimpleQueue()
        self.helpers = [threading.Thread(target=self._serve, daemon=True, name=f"npnets-{k}") for k in range(1, n)]
        for helper in self.helpers:
            helper.start()

    def _serve(self) -> None:
        while (job := self.jobs.get()) is not None:
            job.take_pieces()
            job = None  # a waiting helper must not keep the last job's arrays alive

    def run(self, work: Callable, pieces: Sequence) -> list:
        job = _Job(work, pieces)
        for _ in range(min(len(self.helpers), len(pieces) - 1)):
            self.jobs.put(job)
        outer, _current.team = _current.team, None  # a piece that calls run() itself must not wait for busy helpers
        try:
            job.take_pieces()
            return job.wait()
        finally:
            _current.team = outer

    def close(self) -> None:
        for _ in self.helpers:
            self.jobs.put(None)
        for helper in self.helpers:
            helper.join()


class _Job:
    """One call of :func:`run`: whoever is free takes the next piece."""

    def __init__(self, work: Callable, pieces: Sequence):
        self.work, self.pieces = work, pieces
        self.errstate = np.geterr()  # whether overflow warns is a setting of the caller's thread
        self.results = [None] * len(pieces)
        self.error = None
        self.next_piece = iter(range(len(pieces)))  # next() on it is one C call: no two threads get the same number
        self.finished = SimpleQueue()

    def take_pieces(self) -> None:
        with np.errstate(**self.errstate):
            for k in self.next_piece:
                try:
                    if self.error is None:
                        self.results[k] = self.work(self.pieces[k])
                except BaseException as error:  # SystemExit too: whoever waits for this piece must hear of it
                    self.error = error
                self.finished.put(k)

    def wait(self) -> list:
        for _ in self.pieces:
            self.finished.get()
        if self.error is not None:
            try:
                raise self.error
            finally:
                self.error = None  # else error, traceback and job hold each other, and all the arrays of the piece
        return self.results
