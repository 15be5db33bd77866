"""Speed and memory beside other libraries: ``python -m npnets benchmark``.

The method:

1. Each library works in a process of its own, since idle threads of one slow the other down.
2. Before the clock starts, all must compute the same numbers from the same weights; if not, nothing is timed.
3. The processes take turns, round by round (A B C A B C ...), so that a busy or warming machine meets all of them.
   Each warms up first. The median is that of all counted steps of all rounds.

===================== ====================================================================================
``networks.py``       which networks are measured
``suite.py``          the benchmarks: what is compared, and the tables made of it
``scaling.py``        how time grows with batch, width and resolution
``accuracy.py``       time to accuracy
``recipe.py``         the training for it, as npnets does it and as the others are given it
``shares.py``         the share of each kind of layer, with its process
``roofline.py``       how near the layers come to what the machine can do, with its process
``measure.py``        starts the processes, lets them take turns, takes medians and ratios
``harness.py``        the half of a process that is the same for every library: clock, memory, comparison
``worker.py``         npnets' process
``torch_worker.py``   PyTorch's process
``chainer_worker.py`` Chainer's process
``machine.py``        which machine and which versions
``report.py``         tables, as text or Markdown
``figures.py``        figures
``goals.py``          what was to be reached
``results.py``        ``RESULTS.md`` and the measurements behind it
===================== ====================================================================================

To add a benchmark: a workload of the same name in ``worker.py`` and in ``torch_worker.py``, a function in ``suite.py``,
and its name here; if it has a figure, an entry in ``figures.FIGURES``. A number to be reached stands in ``goals.py``.
"""

import difflib
import os
import sys
from dataclasses import replace
from pathlib import Path

NAMES = {
    "train_step": "forward, backward and update of two small MobileNetV2s",
    "inference": "the forward of two MobileNetV2s with batch norm folded, one of them on a single image of 224 pixels",
    "depthwise": "the depthwise 3x3 convolution, forward and backward, on the shapes of such a network",
    "shares": "the share of each kind of layer in the training step of four MobileNets, npnets alone",
    "roofline": "the layers of a training step against the machine's matrix products and copies, npnets alone",
    "scaling": "the training step over batch, width and resolution (about 10 minutes)",
    "time_to_accuracy": "trainings on MNIST to 99 % of the test images (about 6 minutes a seed)",
}

ALONE = {"shares", "roofline"}
"""Benchmarks that compare npnets with the machine, or with itself."""

WITHOUT_TORCH = (
    "PyTorch was not found, so npnets was timed alone. To compare: pip install -e '.[benchmark]', "
    "or name a Python that has torch with --torch-python."
)

WITHOUT_CHAINER = (
    "Chainer was left out. To compare: python3.11 -m venv chainer && chainer/bin/pip install 'numpy<1.24' "
    "'setuptools<60' wheel six 'protobuf<4' typing_extensions filelock && chainer/bin/pip install "
    "--no-build-isolation --no-deps chainer==7.8.1, and name it with --chainer-python chainer/bin/python."
)

EXAMPLES = """examples:
  python -m npnets benchmark train_step
  python -m npnets benchmark depthwise --threads 2 --rounds 3 --steps 6
  python -m npnets benchmark --results                  (all, half an hour to an hour; leave the machine alone)
  python -m npnets benchmark train_step --results       (this section of RESULTS.md again)
  python -m npnets benchmark --results --from-json      (RESULTS.md and its figures again, measuring nothing)"""


def add_arguments(parser):
    """Add the options of ``python -m npnets benchmark`` to an ``argparse`` parser."""
    width = max(map(len, NAMES))
    listing = "\n".join(f"  {name:{width}}  {what}" for name, what in NAMES.items())
    parser.epilog = f"benchmarks:\n{listing}\n\n{EXAMPLES}"
    parser.add_argument("names", nargs="*", metavar="NAME", help="which benchmarks; see below (default: all)")
    parser.add_argument("--rounds", type=int, default=5, help="how often each process takes its turn (default: 5)")
    parser.add_argument("--steps", type=int, default=10, help="counted steps of each process (default: 10)")
    parser.add_argument("--warmup", type=int, default=3, help="steps before them that do not count (default: 3)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="thread counts (default: 1 2)")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the trainings of time_to_accuracy (default: 0 1 2)"
    )
    parser.add_argument(
        "--torch-python", metavar="PATH", help="a Python that has torch and numpy, if this one has no torch"
    )
    parser.add_argument(
        "--chainer-python", metavar="PATH", help="a Python that has chainer and numpy, to compare train_step with it"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the machine, all times and the medians here")
    parser.add_argument("--markdown", action="store_true", help="print Markdown tables")
    parser.add_argument(
        "--results", action="store_true", help="write RESULTS.md, its figures, and the JSON of all that was measured"
    )
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="of RESULTS.md and results/ (default: that of npnets/benchmarks)"
    )
    parser.add_argument(
        "--from-json",
        action="store_true",
        help="with --results: from the JSON of earlier measurements, measuring nothing",
    )


def main(options):
    """Run the benchmarks that the options name, print their tables, and return the exit code.

    Raises
    ------
    ValueError
        For an unknown benchmark, a number out of range, a ``--torch-python`` without torch, a file that cannot be
        written, options that do not go together, or libraries that do not compute the same.
    """
    names = _known(options.names)
    if (options.from_json or options.out) and not options.results:
        raise ValueError("--from-json and --out go with --results")
    if options.from_json and options.names:
        raise ValueError("--from-json writes all sections again and measures nothing: name no benchmark")
    folder = options.out or Path(__file__).parent
    check_writable(options.json)
    if options.results:
        check_writable(folder / "RESULTS.md", "--results:")

    from npnets import checkpoint
    from npnets.benchmarks import machine, measure, results, suite

    if options.from_json:
        print(results.write(folder))
        return 0
    if options.results:
        results.render(results.read(folder, without=names))  # a damaged page shows now
    setup = measure.Setup(
        options.rounds,
        options.steps,
        options.warmup,
        tuple(options.threads),
        measure.find_torch(options.torch_python),
        measure.find_chainer(options.chainer_python),
        tuple(options.seeds),
    )
    about = results.begin(setup)["machine"]
    print("\n".join(machine.lines(about)) + "\n", flush=True)
    record = {"machine": about, "method": setup.record(), "benchmarks": {}}
    try:
        for name in names:
            start = results.begin(setup)

            def keep(section, name=name, start=start):
                record["benchmarks"][name] = section.record()
                if options.json:
                    checkpoint.write_json(options.json, record)
                if options.results:
                    results.save(folder, results.page(name, section, setup, start))

            section = suite.BENCHMARKS[name](replace(setup, keep=keep))
            keep(section)
            print(section.markdown() if options.markdown else section.text(), end="\n\n", flush=True)
    except measure.WorkerFailed as error:
        print(f"npnets: {error}", file=sys.stderr)
        return 1
    if setup.torch is None and set(names) - ALONE:
        print(WITHOUT_TORCH)
    if setup.chainer is None and "train_step" in names:
        print(WITHOUT_CHAINER)
    if options.results:
        print(f"see {folder / 'RESULTS.md'}")
    return 0


def _known(names):
    """Return the names, or all where none is given; an unknown one raises."""
    for name in names:
        if name not in NAMES:
            similar = difflib.get_close_matches(name, NAMES, n=1)
            hint = f"did you mean {similar[0]}? " if similar else ""
            raise ValueError(f"unknown benchmark {name!r}; {hint}there are {', '.join(NAMES)}")
    return list(dict.fromkeys(names)) or list(NAMES)


def check_writable(path, option="--json"):
    """Raise a ``ValueError`` that names the option if the file cannot be written: now, not after minutes' work."""
    if path is None:
        return
    folder = Path(path).absolute().parent
    if Path(path).is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ValueError(f"{option} {path} cannot be written: name a file in an existing folder that you may write to")
