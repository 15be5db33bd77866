"""Which machine, and which versions: a figure means nothing without them."""

import os
import platform
import time

import numpy as np

import npnets
from npnets.parallel import available_cores


def describe(torch_version=None, chainer_version=None):
    """Return the machine and the versions as a dict of plain values."""
    return {
        "cpu": _cpu(),
        "cores": available_cores(),
        "system": platform.platform(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "npnets": npnets.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "blas": _blas(),
        "torch": torch_version,
        "chainer": chainer_version,
    }


def busy_cores(seconds=0.5):
    """Return how many cores are busy while this process waits so long; None where the system does not tell.

    The load average of a machine that has just finished another benchmark tells of that one.
    """
    try:
        before, _, after = _ticks(), time.sleep(seconds), _ticks()
    except (OSError, ValueError, IndexError):
        return None
    total, idle = (sum(after) - sum(before)), sum(after[3:5]) - sum(before[3:5])
    return os.cpu_count() * (1 - idle / total) if total else None


def _ticks():
    """Return Linux' clock ticks of all cores since the start: user, nice, system, idle, waiting for a disk, ..."""
    with open("/proc/stat") as file:
        return [int(ticks) for ticks in file.readline().split()[1:9]]


def lines(about):
    """Return the description as lines to print."""
    versions = [f"npnets {about['npnets']}", f"Python {about['python']}", f"NumPy {about['numpy']}", about["blas"]]
    if about["torch"]:
        versions.append(f"PyTorch {about['torch']}")
    if about["chainer"]:
        versions.append(f"Chainer {about['chainer']}")
    text = [f"{about['cpu']}, {about['cores']} cores, {about['system']}", ", ".join(versions)]
    if about["load"] is not None and about["load"] > 0.5:
        text.append(
            f"Caution: the load average is {about['load']:.1f}. Other work on this machine distorts the figures, most "
            "of all those of PyTorch at several threads, which wait for each other in every loop."
        )
    return text


def _cpu():
    """Return the model of the processor, by Linux' own words where it has them."""
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _blas():
    """Return the matrix library that NumPy uses, for example ``openblas 0.3.29 (SkylakeX)``."""
    from threadpoolctl import threadpool_info

    found = [
        f"{library['internal_api']} {library['version']}"
        + (f" ({library['architecture']})" if library.get("architecture") else "")
        for library in threadpool_info()
        if library["user_api"] == "blas"
    ]
    return ", ".join(found) or "an unknown BLAS"
