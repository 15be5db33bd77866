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
    train : callable () -> dict, optional
        A whole training, for the task ``"train"``; what it returns is printed. See :class:`Watch`.
    """

    cases: Callable
    outputs: Callable
    train: Callable | None = None


def read_job():
    """Return the job that this process was started with."""
    return json.loads(sys.argv[1])


def serve(job, workloads, versions):
    """Do a job and print the result as one line of JSON.

    Parameters
    ----------
    job : dict
        ``benchmark`` names the workload. ``task`` is ``"write"`` (compute the outputs, in float32 and in float64, and
        save them in the file ``arrays``), ``"compare"`` (compute them and tell how far they are from that file),
        ``"time"`` (``warmup`` and ``steps`` of each case, in float32; ``least_seconds``, if given, as in
        :func:`seconds`), or ``"train"`` (in float32). The rest is the workload's.
    workloads : dict of name -> callable job -> Workload
        They are given the job with a ``dtype``.
    versions : dict of name -> str
    """
    imported = peak_memory()
    prepare = workloads[job["benchmark"]]
    result = {"versions": versions}
    if job["task"] == "time":
        cases = prepare(job | {"dtype": "float32"}).cases()
        how = job["warmup"], job["steps"], job.get("least_seconds", 0.0)
        result["times"] = {name: seconds(step, *how) for name, step in cases}
        result["memory"] = {"imported": imported, "peak": peak_memory()}
    elif job["task"] == "train":
        result |= prepare(job | {"dtype": "float32"}).train()
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


def seconds(step, warmup, steps, least=0.0):
    """Return the seconds of each of ``steps`` calls, after ``warmup`` calls that are not counted.

    There are more calls than that as long as they have not taken ``least`` seconds together.
    """
    for _ in range(warmup):
        step()
    times = []
    while len(times) < steps or sum(times) < least:
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return times


class Watch:
    """Evaluates a training now and then, until it is accurate enough.

    Parameters
    ----------
    job : dict
        ``every`` so many steps, and after the last of ``steps``, the test images are evaluated; at ``target`` (an
        accuracy from 0 to 1) the training may stop. ``batch_size`` is that of the training.
    evaluate : callable () -> accuracy
    """

    def __init__(self, job, evaluate):
        self.job, self.evaluate = job, evaluate
        self.evaluations = []

    def __call__(self, steps, seconds):
        """Take note of ``steps`` made in ``seconds`` of training; return whether the target is reached."""
        if steps % self.job["every"] and steps != self.job["steps"]:
            return False
        began = time.perf_counter()
        accuracy = self.evaluate()
        self.evaluations.append(
            {
                "step": steps,
                "images": steps * self.job["batch_size"],
                "seconds": seconds,
                "accuracy": float(accuracy),
                "evaluation_seconds": time.perf_counter() - began,
            }
        )
        return accuracy >= self.job["target"]


def difference(a, b):
    """Return the largest ``|a - b|`` as a share of the largest ``|b|``; infinite where a number is not finite.

    Where all of b is below 1e-6, as a share of 1e-6: the gradient of a beta that another batch norm takes away again is
    zero, and rounding is all there is.
    """
    if np.shape(a) != np.shape(b):
        raise ValueError(f"the outputs have the shapes {np.shape(a)} and {np.shape(b)}")
    largest = float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-6))
    return largest if math.isfinite(largest) else math.inf


def expected_shapes(job, prefix):
    """Return name -> shape of the arrays that npnets wrote for the comparison, without the prefix of their names."""
    prefix = f"{job['dtype']}.{prefix}"
    with np.load(job["arrays"], allow_pickle=False) as arrays:
        return {name[len(prefix) :]: arrays[name].shape for name in arrays if name.startswith(prefix)}


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


# PyTorch and Chainer order the indices alike: images (N, C, H, W), kernels (C_out, C_in, K_h, K_w).


def to_channels_first(array, shape):
    """Put an npnets weight into the peers' index order; ``shape`` is the one that it has there."""
    if len(shape) == 4:  # standard, depthwise (C_in = 1 a group) and pointwise (K_h = K_w = 1) alike
        C_out, C_in, K_h, K_w = shape
        array = array.reshape(K_h, K_w, C_in, C_out).transpose(3, 2, 0, 1)
    elif len(shape) == 2:
        array = array.T
    return np.ascontiguousarray(array)


def from_channels_first(array, shape):
    """Put a peer's weight into npnets' index order and shape."""
    if array.ndim == 4:
        array = array.transpose(2, 3, 1, 0)
    elif array.ndim == 2:
        array = array.T
    return array.reshape(shape)
