"""The half of a worker process that is the same for every library: the clock, the memory, the comparison.

A worker gets one job as JSON on its command line and prints one line of JSON. The peer's Python need not have npnets,
so this file imports NumPy and the standard library alone.
"""

import json
import math
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Workload(NamedTuple):
    """What a library does for one benchmark.

    Attributes
    ----------
    cases : callable () -> iterator of (name, step)
        Each ``step()`` is timed. An iterator, so that the arrays of one case are freed before those of the next.
    outputs : callable () -> dict of name -> array
        What the libraries must agree on, in npnets' index order and in the ``dtype`` of the job. npnets adds arrays
        ``start.*``: the weights that the others start from.
    """

    cases: Callable
    outputs: Callable


def read_job():
    """Return the job that this process was started with."""
    return json.loads(sys.argv[1])


def serve(job, workloads, versions):
    """Do a job and print the result as one line of JSON.

    Parameters
    ----------
    job : dict
        ``benchmark`` names the workload. ``task`` is ``"write"`` (compute the outputs, in float32 and in float64, and
        save them in the file ``arrays``), ``"compare"`` (compute them and tell how far they are from that file), or
        ``"time"`` (``warmup`` and ``steps`` of each case, in float32). The rest is the workload's.
    workloads : dict of name -> callable job -> Workload
        They are given the job with a ``dtype``.
    versions : dict of name -> str
    """
    imported = peak_memory()
    prepare = workloads[job["benchmark"]]
    result = {"versions": versions}
    if job["task"] == "time":
        cases = prepare(job | {"dtype": "float32"}).cases()
        result["times"] = {name: seconds(step, job["warmup"], job["steps"]) for name, step in cases}
        result["memory"] = {"imported": imported, "peak": peak_memory()}
    else:
        outputs = {}
        for dtype in ("float32", "float64"):
            found = prepare(job | {"dtype": dtype}).outputs()
            outputs |= {f"{dtype}.{name}": array for name, array in found.items()}
        if job["task"] == "write":
            np.savez(job["arrays"], **outputs)
        else:
            with np.load(job["arrays"], allow_pickle=False) as expected:
                names = [name for name in expected if ".start." not in name]
                result["differences"] = {name: difference(outputs[name], expected[name]) for name in names}
    print(json.dumps(result))


def seconds(step, warmup, steps):
    """Return the seconds of each of ``steps`` calls, after ``warmup`` calls that are not counted."""
    for _ in range(warmup):
        step()
    times = []
    for _ in range(steps):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return times


def difference(a, b):
    """Return the largest ``|a - b|`` as a share of the largest ``|b|``; infinite where a number is not finite.

    Where all of b is below 1e-6, as a share of 1e-6: the gradient of a beta that another batch norm takes away again is
    zero, and rounding is all there is.
    """
    if np.shape(a) != np.shape(b):
        raise ValueError(f"the outputs have the shapes {np.shape(a)} and {np.shape(b)}")
    largest = float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-6))
    return largest if math.isfinite(largest) else math.inf


def peak_memory():
    """Return the largest resident memory of this process so far, in bytes; None where the system does not tell.

    Linux's ``getrusage`` is not asked: a new process inherits its ``ru_maxrss`` from the one that started it, so a
    small worker of a large parent would report the parent's memory.
    """
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def draw(shape, seed, dtype):
    """Return standard normal numbers: the same for every library, and the same but for rounding in every dtype."""
    return np.random.default_rng(seed).standard_normal(shape, np.float32).astype(dtype, copy=False)


def batch(network, dtype):
    """Return images (N, H, W, C) and labels (N,) for a network's settings."""
    N = network["batch"]
    labels = np.random.default_rng(1).integers(network["num_classes"], size=N)
    return draw((N, *network["image"]), 0, dtype), labels
