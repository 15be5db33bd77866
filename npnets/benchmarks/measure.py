"""Start the processes, let them take turns, and take medians and ratios."""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
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


class Torch(NamedTuple):
    """A Python that has PyTorch, and the version of PyTorch."""

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
    torch : Torch or None
        See :func:`find_torch`; with None npnets is timed alone.
    """

    rounds: int = 5
    steps: int = 10
    warmup: int = 3
    threads: tuple[int, ...] = (1, 2)
    torch: Torch | None = None

    def __post_init__(self):
        for name, at_least in {"rounds": 1, "steps": 1, "warmup": 0}.items():
            integer(getattr(self, name), name, at_least)
        if not self.threads:
            raise ValueError("threads must name at least one number of threads")
        for n in self.threads:
            integer(n, "threads", 1)

    def libraries(self):
        """Return the libraries that are compared, npnets first."""
        own = Library("npnets", (sys.executable, "-m", "npnets.benchmarks.worker"), {})
        if self.torch is None:
            return [own]
        command = (self.torch.python, str(Path(__file__).with_name("torch_worker.py")))
        return [
            own,
            Library("PyTorch", command, {"layout": "default"}),
            Library("PyTorch channels_last", command, {"layout": "channels_last"}),
        ]

    def record(self):
        """Return the numbers as a dict for JSON."""
        return {"rounds": self.rounds, "steps": self.steps, "warmup": self.warmup, "threads": list(self.threads)}


class Library(NamedTuple):
    """A process that can do a job: the heading of its column, its command, and what it adds to a job."""

    label: str
    command: tuple[str, ...]
    settings: dict


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
    try:
        finished = _run([str(python), "-c", "import numpy, torch; print(torch.__version__)"])
    except OSError as error:
        raise ValueError(f"--torch-python {python} cannot be run: {error.strerror}; name a Python program") from None
    if finished.returncode:
        raise ValueError(
            f"{python} cannot import numpy and torch: {_last_line(finished.stderr)}; "
            "name a Python that can with --torch-python"
        )
    return Torch(str(python), finished.stdout.split()[-1])


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


def compare(setup, job, *, smaller=None):
    """Check that all libraries compute the same, then time them: a list of one :class:`Comparison` a thread count.

    Parameters
    ----------
    setup : Setup
    job : dict
        What the workers need to know about the work.
    smaller : dict, optional
        What is different in the job of the check, where the full one would be needlessly large.

    Raises
    ------
    ValueError
        If the libraries do not agree; nothing has been timed then.
    """
    from tqdm import tqdm

    libraries = setup.libraries()
    total = len(libraries) * setup.rounds * len(setup.threads)
    with (
        tempfile.TemporaryDirectory() as folder,
        tqdm(total=total, desc=job["benchmark"], unit="process", leave=False, disable=None) as bar,
    ):
        job = job | {"arrays": os.path.join(folder, "arrays.npz")}
        differences = check_same(libraries, job | (smaller or {}) | {"threads": max(setup.threads)})
        job = job | {"task": "time", "warmup": setup.warmup, "steps": setup.steps}
        comparisons = []
        for threads in setup.threads:
            results = {library.label: [] for library in libraries}
            for _ in range(setup.rounds):
                for library in libraries:
                    results[library.label].append(run_worker(library, job | {"threads": threads}))
                    bar.update()
            comparisons.append(Comparison(threads, results, differences))
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
    """

    threads: int
    results: dict
    differences: dict = field(default_factory=dict)

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
        return {"threads": self.threads, "differences": self.differences, "summary": summary, "rounds": self.results}
