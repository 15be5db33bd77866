"""How near each layer comes to what the machine can do: the roofline of Williams, Waterman and Patterson (2009).

A layer that does few operations on each byte is bound by memory, one that does many by arithmetic. With the intensity I
of a layer in FLOP a byte, the machine allows at most ``min(arithmetic rate, I * memory rate)``: on two logarithmic axes
a flat roof with a slope on its left. Both rates are measured here, with NumPy and npnets' own threads.

Blocks that train as one op (:mod:`npnets.ops.bottleneck`) are measured twice: layer by layer, and as they are. What
passes between two layers need not pass through memory there, so that their intensity is higher.

As a program, this file is the process that is measured: ``python -m npnets.benchmarks.roofline JOB``.

What is counted:

- *FLOP*: two for each multiply-add. Batch norm and the residual sum, which have no multiply-adds by the papers' count,
  would stand nowhere on the axes; their additions and multiplications are counted here (``FLOP_A_NUMBER``).
- *Bytes*: the least to be read and written (see :mod:`npnets.profiling`). A layer that reads its input twice cannot
  reach the slope; one whose input is still in the cache can be above that of the memory.
- *Copy*: a byte read and a byte written count as two. That memory may read what is to be overwritten is not counted.
"""

import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

from npnets import parallel, profiling
from npnets.benchmarks import harness, networks, shares
from npnets.benchmarks.report import Section, Table

NETWORK = networks.NETWORKS[1]  # width 0.5

FLOP_A_NUMBER = {
    "batch norm": (6, 8),  # forward: both sums 1 + 3, scale, shift; backward: both sums 1 + 3, a dy + b x + c
    "residual sum": (1, 1),
}
"""Additions and multiplications for each number of the output, forward and backward, where there is no matrix."""


class Roofs(NamedTuple):
    """What the machine can do: FLOP a second in a matrix product, bytes a second in a copy in L2 and in memory."""

    gemm: float
    l2: float
    memory: float


class Point(NamedTuple):
    """One way through a layer, or through all layers of a kind."""

    name: str
    kind: str
    way: str
    flop: int
    bytes: int
    seconds: float

    @property
    def intensity(self):
        """FLOP a byte."""
        return self.flop / self.bytes

    @property
    def flop_rate(self):
        """FLOP a second."""
        return self.flop / self.seconds

    @property
    def byte_rate(self):
        """Bytes a second."""
        return self.bytes / self.seconds

    def of_roof(self, roofs):
        """Return what share of the machine's most, for arrays in memory, this reaches."""
        return self.flop_rate / min(roofs.gemm, self.intensity * roofs.memory)


def roofline(setup, network=NETWORK):
    """Measure the roofs and the layers of a training step, at each number of threads.

    The best of all rounds is the roof; the times of the layers are medians. Three rounds of five steps at most.
    """
    setup = replace(setup, rounds=min(setup.rounds, 3), steps=min(setup.steps, 5))
    jobs = [{"network": asdict(network), "threads": threads} for threads in setup.threads]
    measured = []
    for job, rounds in zip(jobs, shares.in_turns(setup, "roofline", jobs)):
        layers, whole = (
            tuple(profiling.StepProfile.from_json(one[name]) for one in rounds) for name in ("layers", "whole")
        )
        roofs = Roofs(*map(max, zip(*(one["roofs"] for one in rounds))))
        measured.append(Measured(network.name, job["threads"], layers, roofs, whole))
    tables = (_roof_table(measured), _kind_table(measured))
    notes = (
        "FLOP are two a multiply-add; for batch norm and the residual sum, which have none, additions and "
        "multiplications are counted. Bytes are the least to be read and written. The roof is the lower of the "
        "matrix product's rate and of the copy in memory times FLOP/byte; a layer whose arrays are still in a cache "
        "can be above it. A block in one op stands for all of its layers, which are also listed by themselves, timed "
        "one after the other.",
    )
    title = f"Roofline: the layers of a training step of {network.name}, batch {network.batch}"
    return Section(title, tuple(measured), tables, notes, setup.record())


@dataclass(frozen=True)
class Measured(shares.Profiled):
    """A profile for each round, and the roofs for the same number of threads; ``whole`` has blocks as they are."""

    roofs: Roofs
    whole: tuple

    @property
    def points(self):
        """Return a :class:`Point` for each way through each layer, and through each block that is one op."""
        layers = points(self.profile)
        return layers + block_points(shares.median(self.whole), layers)

    def record(self):
        """Return the medians, the roofs in FLOP and bytes a second, and the points as a dict for JSON."""
        found = [point._asdict() for point in self.points]
        return super().record() | {"roofs": self.roofs._asdict(), "points": found}


def points(profile):
    """Return a :class:`Point` for each way through each layer that does any arithmetic."""
    found = []
    for row in profile.rows:
        numbers = int(np.prod(row.output_shape)) * profile.input_shape[0]
        for k, way in enumerate(("forward", "backward")):
            work = getattr(row, way)
            flop = 2 * work.macs + FLOP_A_NUMBER.get(row.kind, (0, 0))[k] * numbers
            if flop and work.bytes and work.seconds > 0:
                found.append(Point(row.name, row.kind, way, flop, work.bytes, work.seconds))
    return found


def block_points(profile, layers):
    """Return a :class:`Point` for each way through each block in one op: its FLOP are those of the layers inside."""
    found = []
    for row in profile.rows:
        for way in ("forward", "backward"):
            inside = [p for p in layers if p.way == way and (p.name == row.name or p.name.startswith(f"{row.name}."))]
            work = getattr(row, way)
            if row.kind == profiling.BLOCK and work.seconds > 0:
                flop = sum(point.flop for point in inside)
                found.append(Point(row.name, row.kind, way, flop, work.bytes, work.seconds))
    return found


def by_kind(found):
    """Return a :class:`Point` for each way through all layers of a kind, the one that takes the longest first."""
    groups = {}
    for point in found:
        groups.setdefault((point.kind, point.way), []).append(point)
    sums = [
        Point(kind, kind, way, *(sum(getattr(p, name) for p in group) for name in ("flop", "bytes", "seconds")))
        for (kind, way), group in groups.items()
    ]
    seconds = {kind: sum(point.seconds for point in sums if point.kind == kind) for kind in {p.kind for p in sums}}
    return sorted(sums, key=lambda point: -seconds[point.kind])


# --- The machine -----------------------------------------------------------------------------------------------------


def measure_roofs(threads, *, sizes=(512, 1024), repeats=15, memory_bytes=None):
    """Return the :class:`Roofs` of this machine for a number of threads.

    Parameters
    ----------
    threads : int
    sizes : tuple of int
        Of the square matrices; each thread multiplies its own. The best size counts, and the best repeat.
    repeats : int
    memory_bytes : int, optional
        Size of the arrays of the copy in memory, both together. By default four times the largest cache, at least
        256 MB.
    """
    caches = cache_sizes()
    memory_bytes = memory_bytes or max(256 * 2**20, 4 * max(caches.values()))
    with parallel.threads(threads):
        gemm = max(_gemm_rate(threads, size, repeats) for size in sizes)
        l2 = _copy_rate(threads, caches[2] // 4, repeats)  # both arrays fill half of it
        memory = _copy_rate(threads, memory_bytes // (2 * threads), repeats)
    return Roofs(gemm, l2, memory)


def _gemm_rate(threads, size, repeats):
    """Return FLOP a second of single-precision matrix products, one for each thread at a time."""
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((size, size), np.float32) for _ in range(2))
    products = [np.empty_like(a) for _ in range(threads)]
    seconds = _best(lambda product: np.matmul(a, b, out=product), products, repeats)
    return 2 * size**3 * threads / seconds


def _copy_rate(threads, array_bytes, repeats):
    """Return bytes a second, read and written, of copies between two arrays for each thread.

    A copy of a small array is shorter than a call of NumPy. So it is made many times in one call: rows of a matrix all
    of which are the same memory. It is a multiplication by one, since NumPy's own copy of such rows is slow.
    """
    n = max(1, array_bytes // 4)
    times = max(1, 2**26 // array_bytes)
    pairs = []
    for _ in range(threads):
        x, y = np.ones(n, np.float32), np.zeros(n, np.float32)
        pairs.append([as_strided(array, (times, n), (0, array.itemsize)) for array in (x, y)])
    seconds = _best(lambda pair: np.multiply(pair[0], np.float32(1), out=pair[1]), pairs, repeats)
    return 2 * 4 * n * times * threads / seconds


def _best(work, pieces, repeats):
    """Return the shortest seconds in which the threads did all pieces."""
    parallel.run(work, pieces)
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        parallel.run(work, pieces)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def cache_sizes():
    """Return level -> bytes of the caches, as Linux tells them; elsewhere 512 KB of L2 and 32 MB of L3 are assumed."""
    found = {2: 512 * 2**10, 3: 32 * 2**20}
    units = {"K": 2**10, "M": 2**20, "G": 2**30}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            kind, level, size = ((index / name).read_text().strip() for name in ("type", "level", "size"))
            if kind != "Instruction":
                found[int(level)] = int(size[:-1]) * units[size[-1]]
        except (OSError, ValueError, KeyError):
            continue
    return found


# --- Tables and figures ----------------------------------------------------------------------------------------------


def _roof_table(measured):
    rows = [
        (shares.threads_in_words(one.threads), *(profiling.three_digits(rate / 1e9) for rate in one.roofs))
        for one in measured
    ]
    columns = ("", "matrix product, GFLOP/s", "copy in L2, GB/s", "copy in memory, GB/s")
    return Table("The machine's best, in single precision", columns, tuple(rows))


def _kind_table(measured):
    rows = []
    for one in measured:
        for point in by_kind(one.points):
            rates = (point.intensity, point.flop_rate / 1e9, point.byte_rate / 1e9)
            cells = (*map(profiling.three_digits, rates), f"{point.of_roof(one.roofs):.0%}")
            rows.append((f"{point.kind}, {point.way}", str(one.threads), *cells))
    columns = ("", "threads", "FLOP/byte", "GFLOP/s", "GB/s", "of the roof")
    return Table("What the layers reach, all of a kind together", columns, tuple(rows))


def figures(records):
    """Return file name -> Figure for the records of this benchmark: a panel for each number of threads."""
    from npnets import plots

    panels = {}
    for record in records:
        heading = shares.threads_in_words(record["threads"])
        panels[heading] = Roofs(**record["roofs"]), [Point(**point) for point in record["points"]]
    return {"roofline.png": plots.roofline(panels, title=f"Layers of a training step: {records[0]['network']}")}


def main():
    """Do the job on the command line, and print roofs and profile as a line of JSON."""
    job = harness.read_job()
    roofs = measure_roofs(job["threads"])
    layers, whole = (shares.profile(job, whole_blocks=flag).to_json() for flag in (False, True))
    print(json.dumps({"roofs": roofs, "layers": layers, "whole": whole}))


if __name__ == "__main__":
    main()
