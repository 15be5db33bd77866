"""Start the processes, let them take turns, and take medians and ratios."""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

import npnets
from npnets.shapes import integer

TOLERANCES = {"float32": 1e-3, "float64": 1e-6}
"""How far two libraries may be apart before the clock starts, as a share of the largest number of an array."""

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "BLIS_NUM_THREADS")


class WorkerFailed(RuntimeError):
    """A worker process ended with an error."""


class Peer(NamedTuple):
    """A Python that has another library, and the version of that library."""

    python: str
    version: str


@dataclass(frozen=True)
class Setup:
    """How to measure.

    Attributes
    ----------
    rounds : int
        How often each process takes its turn.
    steps, warmup : int
        Steps of a process in its turn that count, and steps before them that do not.
    threads : tuple of int
        Each is a comparison of its own.
    torch, chainer : Peer or None
        See :func:`find_torch` and :func:`find_chainer`; None leaves the library out.
    seeds : tuple of int
        Of the trainings, where a benchmark trains.
    keep : callable (report.Section), optional
        Told what a long benchmark has so far, so that an interrupted one is not lost.
    """

    rounds: int = 5
    steps: int = 10
    warmup: int = 3
    threads: tuple[int, ...] = (1, 2)
    torch: Peer | None = None
    chainer: Peer | None = None
    seeds: tuple[int, ...] = (0, 1, 2)
    keep: Callable | None = None

    def __post_init__(self):
        for name, at_least in {"rounds": 1, "steps": 1, "warmup": 0}.items():
            integer(getattr(self, name), name, at_least)
        for name, at_least in {"threads": 1, "seeds": 0}.items():
            if not getattr(self, name):
                raise ValueError(f"{name} must name at least one number")
            for n in getattr(self, name):
                integer(n, name, at_least)

    def libraries(self, *, chainer=False):
        """Return the libraries that are compared, npnets first; Chainer, which is slow, only where it is asked for."""
        libraries = [Library("npnets", (sys.executable, "-m", "npnets.benchmarks.worker"), {})]
        if self.torch is not None:
            command = (self.torch.python, str(Path(__file__).with_name("torch_worker.py")))
            libraries.append(Library("PyTorch", command, {"layout": "default"}))
            libraries.append(Library("PyTorch channels_last", command, {"layout": "channels_last"}))
        if chainer and self.chainer is not None:
            command = (self.chainer.python, str(Path(__file__).with_name("chainer_worker.py")))
            libraries.append(Library("Chainer", command, {}, {"rounds": 2, "steps": 2, "warmup": 1}))
        return libraries

    def record(self):
        """Return the numbers as a dict for JSON."""
        return {"rounds": self.rounds, "steps": self.steps, "warmup": self.warmup, "threads": list(self.threads)}


class Library(NamedTuple):
    """A process that can do a job.

    Attributes
    ----------
    label : str
        The heading of its column.
    command : tuple of str
    settings : dict
        What it adds to a job.
    most : dict
        The most ``rounds``, ``steps`` and ``warmup`` it is given, where it is much slower than the others.
    """

    label: str
    command: tuple[str, ...]
    settings: dict
    most: dict = {}  # noqa: RUF012 - never written to

    def share(self, setup):
        """Return ``rounds``, ``steps`` and ``warmup`` for this library."""
        asked = {"rounds": setup.rounds, "steps": setup.steps, "warmup": setup.warmup}
        return {name: min(n, self.most.get(name, n)) for name, n in asked.items()}


def find_torch(python=None):
    """Return the PyTorch of the Python given, else of the running one if it has it, else None.

    Raises
    ------
    ValueError
        If the Python cannot be run, or cannot import torch and NumPy.
    """
    if python is None:
        if importlib.util.find_spec("torch") is None:
            return None
        python = sys.executable
    return _peer(python, "torch", "--torch-python")


def find_chainer(python=None):
    """Return the Chainer of the Python given; None without one, since Chainer needs an older NumPy than npnets.

    Raises
    ------
    ValueError
        If the Python cannot be run, or cannot import Chainer and NumPy.
    """
    return None if python is None else _peer(python, "chainer", "--chainer-python")


def _peer(python, library, option):
    try:
        finished = _run([str(python), "-c", f"import numpy, {library}; print({library}.__version__)"])
    except OSError as error:
        raise ValueError(f"{option} {python} cannot be run: {error.strerror}; name a Python program") from None
    if finished.returncode:
        raise ValueError(
            f"{python} cannot import numpy and {library}: {_last_line(finished.stderr)}; "
            f"name a Python that can with {option}"
        )
    return Peer(str(python), finished.stdout.split()[-1])


def run_worker(library, job):
    """Do a job in a new process and return its result.

    Raises
    ------
    WorkerFailed
        If it ends with an error; the message is its last line.
    """
    finished = _run([*library.command, json.dumps(job | library.settings)])
    if finished.returncode:
        raise WorkerFailed(
            f"the process of {library.label} failed (exit code {finished.returncode}): {_last_line(finished.stderr)}"
        )
    return json.loads(finished.stdout.splitlines()[-1])


def _run(command):
    return subprocess.run(command, capture_output=True, text=True, env=_environment(command[0]))


def _environment(python):
    """Return the environment of a worker: without limits on threads, since the job sets them."""
    environment = {name: value for name, value in os.environ.items() if name not in THREAD_VARIABLES}
    environment.pop("PYTHONSAFEPATH", None)  # it would hide harness.py from torch_worker.py
    if python == sys.executable:  # the npnets that is running, wherever it was imported from
        paths = [str(Path(npnets.__file__).parents[1]), environment.get("PYTHONPATH")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    else:  # packages of this Python may not suit another
        environment.pop("PYTHONPATH", None)
    return environment


def _last_line(text):
    lines = text.strip().splitlines()
    return lines[-1] if lines else "it wrote no message"


def compare(setup, job, *, smaller=None, libraries=None, facts=None):
    """Check that all libraries compute the same, then time them: a list of one :class:`Comparison` a thread count.

    Parameters
    ----------
    setup : Setup
    job : dict
        What the workers need to know about the work.
    smaller : dict, optional
        What is different in the job of the check, where the full one would be needlessly large.
    libraries : list of Library, optional
        By default those of ``setup``.
    facts : dict of case -> dict of numbers, optional
        What the tables need to know about a case, such as its multiply-adds; kept in the record.

    Raises
    ------
    ValueError
        If the libraries do not agree; nothing has been timed then.
    """
    from tqdm import tqdm

    libraries = libraries or setup.libraries()
    shares = {library.label: library.share(setup) for library in libraries}
    total = sum(share["rounds"] for share in shares.values()) * len(setup.threads)
    with (
        tempfile.TemporaryDirectory() as folder,
        tqdm(total=total, desc=job["benchmark"], unit="process", leave=False, disable=None) as bar,
    ):
        job = job | {"arrays": os.path.join(folder, "arrays.npz")}
        differences = check_same(libraries, job | (smaller or {}) | {"threads": max(setup.threads)})
        comparisons = []
        for threads in setup.threads:
            results = {library.label: [] for library in libraries}
            for number in range(setup.rounds):
                for library in libraries:
                    share = shares[library.label]
                    if number < share["rounds"]:
                        timed = {"task": "time", "warmup": share["warmup"], "steps": share["steps"]}
                        results[library.label].append(run_worker(library, job | timed | {"threads": threads}))
                        bar.update()
            comparisons.append(Comparison(threads, results, differences, facts or {}))
    return comparisons


def check_same(libraries, job):
    """Return dtype -> largest difference between the first library's outputs and the others', or raise ``ValueError``.

    A difference is relative to the largest number of its array. With one library alone there are none.
    """
    first, *others = libraries
    if not others:
        return {}
    run_worker(first, job | {"task": "write"})
    worst = dict.fromkeys(TOLERANCES, 0.0)
    for library in others:
        differences = run_worker(library, job | {"task": "compare"})["differences"]
        for name, error in differences.items():
            dtype = name.split(".")[0]
            if error > TOLERANCES[dtype]:
                raise ValueError(
                    f"{library.label} does not compute what {first.label} does, so nothing was timed: {name} differs "
                    f"by {error:.1e} of its largest number, and {TOLERANCES[dtype]:.0e} is allowed"
                )
            worst[dtype] = max(worst[dtype], error)
    return worst


class Spread(NamedTuple):
    """Quartiles of some samples."""

    low: float
    median: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """What the libraries took for the same work with the same number of threads.

    Attributes
    ----------
    threads : int
    results : dict of label -> list of dict
        What the workers of each library printed, one for each round.
    differences : dict of dtype -> float
        Largest difference between the libraries' outputs (see :func:`check_same`).
    facts : dict of case -> dict of numbers
        What is known about a case beforehand, such as its multiply-adds.
    """

    threads: int
    results: dict
    differences: dict = field(default_factory=dict)
    facts: dict = field(default_factory=dict)

    @property
    def labels(self):
        """The libraries, npnets first."""
        return list(self.results)

    @property
    def cases(self):
        """The names of what was timed."""
        return list(self.results[self.labels[0]][0]["times"])

    def seconds(self, label, case):
        """Return the :class:`Spread` of all counted steps of all rounds."""
        times = [time for result in self.results[label] for time in result["times"][case]]
        return Spread(*(float(q) for q in np.percentile(times, [25, 50, 75])))

    def ratio(self, label, case):
        """Return npnets' median time as a multiple of another library's: below 1, npnets is faster."""
        return self.seconds(self.labels[0], case).median / self.seconds(label, case).median

    def memory(self, label):
        """Return the median over the rounds of (peak resident bytes, those after the imports), or None if unknown."""
        rounds = [result["memory"] for result in self.results[label]]
        if any(memory["peak"] is None for memory in rounds):
            return None
        peaks = [memory["peak"] for memory in rounds]
        imported = [memory["imported"] for memory in rounds]
        return float(np.median(peaks)), float(np.median(np.subtract(peaks, imported)))

    def record(self):
        """Return all times, medians and ratios as a dict for JSON; times in seconds, memory in bytes."""
        summary = {
            case: {
                label: self.seconds(label, case)._asdict() | {"npnets_ratio": self.ratio(label, case)}
                for label in self.labels
            }
            for case in self.cases
        }
        return {
            "threads": self.threads,
            "differences": self.differences,
            "facts": self.facts,
            "summary": summary,
            "rounds": self.results,
        }

    @classmethod
    def from_record(cls, record):
        """Return the comparison that :meth:`record` described."""
        return cls(record["threads"], record["rounds"], record["differences"], record["facts"])
