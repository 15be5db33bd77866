"""Speed and memory beside other libraries: ``python -m npnets benchmark``.

The method:

1. Each library works in a process of its own, since idle threads of one slow the other down.
2. Before the clock starts, all must compute the same numbers from the same weights; if not, nothing is timed.
3. The processes take turns, round by round (A B C A B C ...), so that a busy or warming machine meets all of them.
   Each warms up first. The median is that of all counted steps of all rounds.

=================== ====================================================================================
``networks.py``     which networks are measured
``suite.py``        the benchmarks: what is compared, and the tables made of it
``measure.py``      starts the processes, lets them take turns, takes medians and ratios
``harness.py``      the half of a process that is the same for every library: clock, memory, comparison
``worker.py``       npnets' process
``torch_worker.py`` PyTorch's process
``machine.py``      which machine and which versions
``report.py``       tables, as text or Markdown
=================== ====================================================================================

To add a benchmark: a workload of the same name in ``worker.py`` and in ``torch_worker.py``, a function in ``suite.py``,
and its name here.
"""

import difflib
import os
import sys
from pathlib import Path

NAMES = {
    "train_step": "forward, backward and update of two small MobileNetV2s",
    "depthwise": "the depthwise 3x3 convolution, forward and backward, on the shapes of such a network",
}

WITHOUT_TORCH = (
    "PyTorch was not found, so npnets was timed alone. To compare: pip install -e '.[benchmark]', "
    "or name a Python that has torch with --torch-python."
)


def add_arguments(parser):
    """Add the options of ``python -m npnets benchmark`` to an ``argparse`` parser."""
    listing = "; ".join(f"{name}: {what}" for name, what in NAMES.items())
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{listing} (default: all)")
    parser.add_argument("--rounds", type=int, default=5, help="how often each process takes its turn (default: 5)")
    parser.add_argument("--steps", type=int, default=10, help="counted steps of each process (default: 10)")
    parser.add_argument("--warmup", type=int, default=3, help="steps before them that do not count (default: 3)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="thread counts (default: 1 2)")
    parser.add_argument(
        "--torch-python", metavar="PATH", help="a Python that has torch and numpy, if this one has no torch"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the machine, all times and the medians here")
    parser.add_argument("--markdown", action="store_true", help="print Markdown tables")


def main(options):
    """Run the benchmarks that the options name, print their tables, and return the exit code.

    Raises
    ------
    ValueError
        For an unknown benchmark, a number out of range, a ``--torch-python`` without torch, a ``--json`` that cannot be
        written, or libraries that do not compute the same.
    """
    names = _known(options.names)
    _check_writable(options.json)

    from npnets import checkpoint
    from npnets.benchmarks import machine, measure, suite

    torch = measure.find_torch(options.torch_python)
    setup = measure.Setup(options.rounds, options.steps, options.warmup, tuple(options.threads), torch)
    about = machine.describe(torch.version if torch else None)
    print("\n".join(machine.lines(about)) + "\n", flush=True)
    record = {"machine": about, "method": setup.record(), "benchmarks": {}}
    try:
        for name in names:
            section = suite.BENCHMARKS[name](setup)
            print(section.markdown() if options.markdown else section.text(), end="\n\n", flush=True)
            record["benchmarks"][name] = section.record()
            if options.json:
                checkpoint.write_json(options.json, record)
    except measure.WorkerFailed as error:
        print(f"npnets: {error}", file=sys.stderr)
        return 1
    if torch is None:
        print(WITHOUT_TORCH)
    return 0


def _known(names):
    """Return the names, or all where none is given; an unknown one raises."""
    for name in names:
        if name not in NAMES:
            similar = difflib.get_close_matches(name, NAMES, n=1)
            hint = f"did you mean {similar[0]}? " if similar else ""
            raise ValueError(f"unknown benchmark {name!r}; {hint}there are {', '.join(NAMES)}")
    return list(dict.fromkeys(names)) or list(NAMES)


def _check_writable(path):
    """Raise now, not after minutes of measuring."""
    if path is None:
        return
    folder = Path(path).absolute().parent
    if Path(path).is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ValueError(f"--json {path} cannot be written: name a file in an existing folder that you may write to")
