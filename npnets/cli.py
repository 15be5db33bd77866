"""``python -m npnets``: train, evaluate, cost, profile, latency, gradcheck, data, experiment, benchmark, notebooks.

Wrong input ends with one line on stderr and exit code 2; a training that diverges with 1; Ctrl-C with 130. What takes
long to import is imported by the command that needs it.
"""

import argparse
import ast
import os
import shlex
import sys
import warnings
from pathlib import Path

import numpy as np

import npnets
from npnets import cost, models, parallel

DESCRIPTION = "Efficient convolutional networks in plain NumPy: train them, check their gradients, count their costs."

def main(arguments=None):
    """Run a command and return its exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    options.arguments = sys.argv[1:] if arguments is None else list(arguments)
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *rest, **more: print(f"npnets: {message}", file=sys.stderr)
        try:
            return options.run(options) or 0
        except BrokenPipeError:  # the reader of a pipe, such as head, has seen enough
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - so that the interpreter's last flush is quiet, too
            return 0
        except (ValueError, OSError) as error:
            print(f"npnets: {_one_line(error)}", file=sys.stderr)
            return 2
        except MemoryError:
            print("npnets: not enough memory; take a smaller batch, width or resolution", file=sys.stderr)
            return 2
        except FloatingPointError as error:
            print(f"npnets: training stopped: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt as interrupt:
            print(f"npnets: interrupted{_one_line(interrupt)}", file=sys.stderr)
            return 130


# --- train and evaluate ----------------------------------------------------------------------------------------------


def train(options):
    """Train a model and leave a checkpoint, the history and its curves in a folder."""
    from npnets import checkpoint, runs, training

    folder, settings = _run_folder(options)
    arguments, about = runs.assemble(settings)
    files = runs.RunFiles(folder, settings, options.arguments)
    path = folder / "checkpoint.npz"
    saver = checkpoint.Checkpoint(path, every=settings["save_every"], resume=options.resume, about=about)
    if not options.quiet:
        parameters = sum(parameter.size for parameter in arguments["model"].parameters())
        data_name = arguments["train"].name
        print(f"{settings['model']} on {data_name}: {parameters:,} parameters, in {folder}", file=sys.stderr)
    callbacks = [files, saver]
    try:
        history = training.fit(**arguments, callbacks=callbacks, progress=not options.quiet, threads=options.threads)
    except training.Interrupted:
        resume = f"python -m npnets train --resume --out {shlex.quote(str(folder))}"
        raise KeyboardInterrupt(f"; saved, continue with: {resume}") from None
    files.write_curves(history)
    print(f"test accuracy {history['test_accuracy'][-1]:.2%} after {len(history)} epochs; see {folder}/curves.png")


def _run_folder(options):
    """Return the folder of the run and its settings: new ones, or those of the run to be resumed."""
    from npnets import runs

    given = {name: getattr(options, name) for name in runs.SETTINGS if hasattr(options, name)}
    settings = runs.settings(given)
    if options.resume:
        folder = options.out or runs.latest_folder(settings)
        return folder, runs.saved_settings(folder, given)
    folder = options.out or runs.free_folder(settings)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file, not a folder; choose another --out")
    if (folder / "checkpoint.npz").exists():
        raise ValueError(f"{folder} holds a run already; continue it with --resume, or choose another --out")
    return folder, settings


def evaluate(options):
    """Evaluate the model of a checkpoint on a test set, over all images and class by class."""
    from npnets import checkpoint, datasets, training

    path = options.checkpoint
    if path.is_dir():
        path = path / "checkpoint.npz"
    model, numbers = checkpoint.load_model(path)
    name = options.dataset or numbers["about"].get("dataset")
    root = options.data or numbers["about"].get("command", {}).get("data")
    test = datasets.load(name, options.split, root)
    try:
        mean, std = (np.array(numbers[name], np.float64) for name in ("mean", "std"))
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{path} does not tell mean and standard deviation of the training images") from None
    with parallel.threads(options.threads):
        result = training.evaluate(model, test, mean=mean, std=std, batch_size=options.batch_size)
    print(f"{numbers['about']['model']} on {test.name} ({options.split}, {len(test):,} images)")
    print(f"loss {result.loss:.4f}, accuracy {result.accuracy:.2%}")
    for k, class_name in enumerate(test.class_names):
        of_class = test.labels == k
        if of_class.any():
            print(f"  {class_name:12} {np.mean(result.predictions[of_class] == k):7.2%} of {of_class.sum():,}")


# --- The other commands ----------------------------------------------------------------------------------------------


OF_A_MODEL = {
    "width": None, "resolution": None, "classes": None, "channels": None, "set": [], "bn": "trainable",
    "atrous": "as_written", "part": None, "scales": None, "mirrored": False,
}  # fmt: skip
"""Options of ``cost`` that describe a model or how it is counted, and what they are where nothing is said."""


def print_cost(options):
    """Print what a model costs, layer by layer, or a paper's cost tables beside the computed numbers."""
    if (options.model is None) == (options.paper is None):
        raise ValueError(f"name a model or a --paper; models: {', '.join(models.names())}")
    if options.paper:
        beside = [f"--{name}" for name, value in OF_A_MODEL.items() if getattr(options, name) != value]
        if beside:
            raise ValueError(f"--paper does not go with {', '.join(beside)}: that is for a model")
        tables = cost.paper_tables(options.paper)
        print("\n\n".join(table.to_markdown() if options.markdown else str(table) for table in tables))
        return
    if options.part is not None and (options.scales or options.mirrored):
        raise ValueError("--part does not go with --scales and --mirrored, which are of the whole network")
    model, image = _described_model(options)
    counting = {"bn": options.bn, "atrous": options.atrous}
    profile = cost.profile(model, image, **counting)
    several = None
    if options.scales or options.mirrored:
        several = cost.multi_scale(model, image, options.scales or [1.0], mirrored=options.mirrored, **counting)
    if options.part is not None:
        profile = profile.part(options.part)
    print(profile.to_markdown() if options.markdown else profile)
    if not options.markdown:
        print(f"\nwithout batch norm {profile.params_without_bn:,} parameters")
        for kind, (macs, params) in profile.shares().items():
            print(f"  {kind:12} {macs:7.2%} of the multiply-adds, {params:7.2%} of the parameters")
    if several:
        sizes = ", ".join(f"{one.input_shape[0]}x{one.input_shape[1]}" for one in several.profiles)
        mirrored = ", each with its mirror image" if options.mirrored else ""
        print(f"\nat {sizes}{mirrored}: {several.macs:,} multiply-adds")


def _described_model(options, name=None):
    """Return the model of the options of :func:`_add_model`, and the shape (H, W, C) of its images.

    Where the options name several models, ``name`` tells which.
    """
    name = name or options.model
    settings = {"num_classes": options.classes, "in_channels": options.channels, "width_mult": options.width}
    settings = {name: value for name, value in settings.items() if value is not None}
    for setting, value in options.set:
        if setting in settings:
            raise ValueError(f"{setting} is set twice; give it once")
        settings[setting] = value
    resolution = options.resolution or models.resolution(name)
    if models.has_setting(name, "image_size"):
        settings["image_size"] = resolution
    model = models.build(name, **settings)
    return model, (resolution, resolution, settings.get("in_channels", models.in_channels(name)))


def profile(options):
    """Time a training step layer by layer, and print it beside multiply-adds and bytes."""
    from npnets import benchmarks, checkpoint, profiling
    from npnets.benchmarks import machine

    model, image = _described_model(options)
    for option, path in (("--json", options.json), ("--plot", options.plot)):
        benchmarks.check_writable(path, option)
    if options.plot and options.plot.suffix.lower() != ".png":
        raise ValueError(f"--plot draws a PNG: name a file that ends in .png, not {options.plot}")
    batch = options.batch_size or _usual_batch(image)
    sort = options.sort or ("time" if options.by == "kind" else None)
    settings = {name: getattr(options, name) for name in ("repeats", "threads", "inference", "whole_blocks")}
    show = sys.stderr.isatty()
    found = profiling.profile_step(model, (batch, *image), **settings, name=options.model, progress=show)
    about = machine.describe()
    text = found.to_markdown(options.by, sort) if options.markdown else found.to_text(options.by, sort)
    print("\n".join(machine.lines(about)) + "\n\n" + text)
    if options.json:
        checkpoint.write_json(options.json, {"machine": about, "profile": found.to_json()})
    if options.plot:
        with checkpoint.replacing(options.plot) as file:
            file.write(_profile_picture(found, options.by, sort))


def _usual_batch(image):
    """Return how many images are profiled where nothing is said: a few seconds' work, and below 1 GB."""
    return 64 if image[0] <= 64 else 8


def _profile_picture(found, by, sort):
    """Return a PNG: of kinds the shares of time, multiply-adds and parameters, of layers and blocks their times."""
    from npnets import plots

    if by == "kind":
        return plots.png(plots.step_shares(found))
    return plots.png(plots.step_times(found, by=by, sort=sort, title=found.heading()))


def latency(options):
    """Time the inference of one image by each of the models."""
    from npnets import benchmarks, checkpoint
    from npnets.benchmarks import machine
    from npnets.latency import LatencyReport, measure_latency

    benchmarks.check_writable(options.json, "--json")
    described = {name: _described_model(options, name) for name in options.model}
    for name, (model, image) in described.items():
        try:
            cost.profile(model, image)  # so that what cannot be run is told before anything is timed
        except ValueError as error:
            raise ValueError(f"{name} with images of {image[0]}x{image[1]} pixels: {error}") from error
    settings = {name: getattr(options, name) for name in ("repeats", "warmup", "threads", "fold")}
    settings["progress"] = sys.stderr.isatty()
    found = [measure_latency(*of_model, **settings, name=name) for name, of_model in described.items()]
    report, about = LatencyReport(tuple(found)), machine.describe()
    print("\n".join(machine.lines(about)) + "\n\n" + (report.to_markdown() if options.markdown else report.to_text()))
    if options.json:
        checkpoint.write_json(options.json, {"machine": about, "latency": report.to_json()})


def gradcheck(options):
    """Check every op and layer against numerical gradients."""
    from npnets import gradcheck as checks

    if options.mistakes:
        known = {op: checks.mistakes(op) for op in options.names or checks.known_ops()}
        for op, mistakes in known.items():
            print(op)
            for mistake in mistakes:
                print(f"  {mistake.name}: {mistake.sentence}")
        return 0
    from tqdm import tqdm

    with tqdm(leave=False, disable=not sys.stderr.isatty()) as bar:

        def progress(name, done, total):
            bar.total, bar.n = total, done
            bar.set_description(name)

        names = options.names or None
        report = checks.check_everything(seed=options.seed, ops=names, samples=options.samples, progress=progress)
    print(report)
    return 0 if report.passed else 1


def data(options):
    """Tell which data are here, or download a data set."""
    from npnets import datasets

    if options.url and options.dataset is None:
        raise ValueError("--url goes with the data set to download: python -m npnets data cifar10 --url ...")
    if options.dataset == "cifar10":
        from npnets.datasets import download

        download.fetch_cifar10(options.root, **({"url": options.url} if options.url else {}))
    print("\n".join(datasets.describe(options.root)))


def experiment(options):
    """Run an experiment of a paper, or list what is recorded."""
    from npnets import experiments

    if options.small and options.out:
        raise ValueError("--small records nothing; leave --out away")
    out = options.out or experiments.RESULTS
    if options.name == "list":
        print("\n".join(experiments.describe(out)))
        return
    found = experiments.run(
        options.name,
        options.variants,
        options.seeds or ([0] if options.small else None),
        epochs=options.epochs,
        dataset=options.dataset,
        data=options.data,
        small=options.small,
        jobs=options.jobs,
        threads=options.threads,
        out=None if options.small else out,
        again=options.again,
        progress=not options.quiet,
        command=shlex.join(["python", "-m", "npnets", *map(str, options.arguments)]),
    )
    print(experiments.get(options.name).report(found))
    if not options.small:
        print(f"\nin {out / options.name}")


def benchmark(options):
    """Time npnets beside PyTorch."""
    from npnets import benchmarks

    return benchmarks.main(options)


def notebooks(options):
    """Open the notebooks of the course, run them all, or write versions to hand out."""
    from npnets import notebooks as course

    for option, value in (("--limit", options.limit), ("--overwrite", options.overwrite or None)):
        belongs = "--check" if option == "--limit" else "--student"
        if value is not None and not getattr(options, belongs.strip("-")):
            raise ValueError(f"{option} goes with {belongs}")
    if options.check:
        limit = course.LIMIT if options.limit is None else options.limit
        return _check_notebooks(course, course.find(options.names), limit)
    if options.student:
        for path in course.hand_out(options.student, options.names, overwrite=options.overwrite):
            print(path)
    elif options.guide:
        if options.names:
            raise ValueError("--guide is about all notebooks; leave the names away")
        print("notebooks/README.md: " + ("written" if course.write_guide() else "up to date"))
    else:
        names = [name for name in options.names if not name.startswith("-")]
        if len(names) > 1:
            raise ValueError(f"JupyterLab opens with one notebook at most, not {', '.join(names)}; or is it --check?")
        return course.open_lab(*names, options=[name for name in options.names if name.startswith("-")])


def _check_notebooks(course, paths, limit):
    """Run notebooks one after the other and print a line for each as soon as it has ended."""
    from tqdm import tqdm

    width = max(len(path.stem) for path in paths)
    print(f"{'notebook':{width}}  cells  seconds  solutions  result (at most {limit:g} s each)", flush=True)
    runs = []
    for path in paths:
        with tqdm(desc=path.stem, leave=False, disable=not sys.stderr.isatty()) as bar:

            def progress(done, total, bar=bar):
                bar.total, bar.n = total, done
                bar.refresh()

            run = course.run(path, limit=limit, progress=progress)
        runs.append(run)
        result = f"FAILED: {run.problems[0].splitlines()[0]}" if run.problems else "ok"
        print(f"{run.name:{width}}  {run.cells:5}  {run.seconds:7.1f}  {run.solutions:9}  {result}", flush=True)
    failed = [run for run in runs if run.problems]
    for run in failed:
        print(f"\n{run.name}\n" + "\n".join(run.problems))
    print(f"\n{len(runs) - len(failed)} of {len(runs)} run, {sum(run.seconds for run in runs):.0f} s in all")
    return 1 if failed else 0


# --- The parser ------------------------------------------------------------------------------------------------------

class _Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line."""

    def error(self, message):
        self.exit(2, f"npnets: {_one_line(message)} (see `{self.prog} --help`)\n")


def _parser():
    parser = _Parser(prog="python -m npnets", description=DESCRIPTION)
    parser.add_argument("--version", action="version", version=npnets.__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    adding = (_add_train, _add_evaluate, _add_cost, _add_profile, _add_latency, _add_gradcheck, _add_data)
    for add in (*adding, _add_experiment, _add_benchmark, _add_notebooks):
        add(commands)
    return parser


def _command(commands, name, run, description, epilog=None):
    parser = commands.add_parser(
        name,
        help=description.split(". ")[0].rstrip("."),
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def _add_train(commands):
    from npnets.runs import DATASET_SETTINGS, SETTINGS

    parser = _command(
        commands,
        "train",
        train,
        "Train a network. By default a small MobileNetV2 on MNIST, with RMSProp, to over 99.2 % in a few minutes.\n"
        "Leaves checkpoint.npz, history.json and curves.png in runs/<name>/. Ctrl-C saves; so does every 200th step.",
        "examples:\n"
        "  python -m npnets train\n"
        "  python -m npnets train --dataset cifar10 --epochs 20 --out runs/first\n"
        "  python -m npnets train --resume --out runs/first\n"
        "  python -m npnets train --schedule exponential --learning-rate 0.045 --batch-size 96   (the paper's recipe)",
    )

    def add(group, flag, help_text, **settings):
        name = flag.strip("-").replace("-", "_")
        default = SETTINGS[name]
        if default is None and any(name in defaults for defaults in DATASET_SETTINGS.values()):
            default = ", ".join(f"{defaults[name]} for {dataset}" for dataset, defaults in DATASET_SETTINGS.items())
        if default is not None:
            help_text += f" (default: {default})"
        group.add_argument(flag, help=help_text.replace("%", "%%"), default=argparse.SUPPRESS, **settings)

    what = parser.add_argument_group("what is trained on what")
    add(what, "--model", "one of " + ", ".join(models.classifiers()), choices=models.classifiers(), metavar="MODEL")
    add(what, "--width", "width multiplier", type=_number)
    add(what, "--dropout", "rate before the classifier", type=_number)
    add(what, "--dataset", "mnist or cifar10", choices=list(DATASET_SETTINGS))
    add(what, "--data", "folder of the data sets instead of the repository's data/")
    add(what, "--images", "use only so many training images", type=_whole)
    add(what, "--crop", "shift each training image by up to so many pixels", type=_natural)
    add(what, "--mirror", "mirror half of the training images", action=argparse.BooleanOptionalAction)
    how = parser.add_argument_group("how")
    add(how, "--epochs", "passes over the training images", type=_whole)
    add(how, "--batch-size", "images a step", type=_whole)
    add(how, "--optimizer", "rmsprop or sgd", choices=["rmsprop", "sgd"])
    add(how, "--learning-rate", "at its highest", type=_number)
    add(how, "--schedule", "how the learning rate falls", choices=["cosine", "exponential", "constant"])
    add(how, "--decay-rate", "factor an epoch of the exponential schedule", type=_number)
    add(how, "--warmup", "steps over which the learning rate rises to its highest", type=_natural)
    add(how, "--momentum", "weight of the old update", type=_number)
    add(how, "--rms-decay", "RMSProp: weight of the old mean square", type=_number)
    add(how, "--epsilon", "RMSProp: added to the mean square, inside the root", type=_number)
    add(how, "--weight-decay", "of the weights; not of batch norm and biases", type=_number)
    add(how, "--label-smoothing", "share of the target that is spread over all classes", type=_number)
    add(how, "--weight-average", "evaluate an exponential moving average of the weights with this decay", type=_number)
    add(how, "--seed", "of the weights, the order of the images and their augmentation", type=_natural)
    running = parser.add_argument_group("running")
    out_help = "folder of the run (default: runs/<dataset>-<model>)"
    running.add_argument("--out", type=Path, metavar="FOLDER", help=out_help)
    running.add_argument("--resume", action="store_true", help="continue a run with its own settings, bit for bit")
    add(running, "--save-every", "steps between two checkpoints", type=_whole)
    _add_threads(running)
    running.add_argument("--quiet", action="store_true", help="no progress, only the result")


def _add_evaluate(commands):
    parser = _command(
        commands,
        "evaluate",
        evaluate,
        "Evaluate a trained model: loss and accuracy over the test images, and class by class.",
        "example:\n  python -m npnets evaluate runs/mnist-mobilenet_v2_small",
    )
    parser.add_argument("checkpoint", type=Path, help="a checkpoint.npz, or the folder of a run")
    parser.add_argument("--dataset", choices=["mnist", "cifar10"], help="another data set than the run's own")
    parser.add_argument("--split", choices=["test", "train"], default="test", help="which images (default: test)")
    parser.add_argument("--data", type=Path, help="folder of the data sets")
    parser.add_argument("--batch-size", type=_whole, default=100, help="images at a time (default: 100)")
    _add_threads(parser)


def _add_cost(commands):
    parser = _command(
        commands,
        "cost",
        print_cost,
        "Count parameters and multiply-adds of a model, layer by layer, from shapes alone. Or set what a paper prints\n"
        "in its cost tables beside what its networks cost (--paper).",
        "models: " + ", ".join(models.names()) + "\n\nexamples:\n"
        "  python -m npnets cost mobilenet_v2 --width 0.75 --resolution 160\n"
        "  python -m npnets cost ssdlite --part head --bn none\n"
        "  python -m npnets cost deeplab_v3 --set output_stride=8 aspp=false --atrous space_to_batch\n"
        "  python -m npnets cost --paper mobilenet_v1",
    )
    _add_model(parser, nargs="?")
    paper_help = "the cost tables of a paper, published and computed: " + ", ".join((*cost.PAPERS, "all"))
    parser.add_argument("--paper", metavar="PAPER", choices=(*cost.PAPERS, "all"), help=paper_help)
    bn_help = "which parameters of batch norm count: gamma and beta, none, or the running statistics too"
    parser.add_argument("--bn", choices=cost.BATCH_NORM, default="trainable", help=f"{bn_help} (default: trainable)")
    atrous_help = "how a dilated convolution counts: as it is written, or as TensorFlow 1 ran it (default: as_written)"
    parser.add_argument("--atrous", choices=cost.ATROUS, default="as_written", help=atrous_help)
    parser.add_argument("--part", metavar="NAME", help="only the layers whose path begins so, such as head")
    parser.add_argument("--scales", type=_number, nargs="+", metavar="S", help="also the cost of several input sizes")
    parser.add_argument("--mirrored", action="store_true", help="also the cost with each input mirrored too")
    parser.add_argument("--markdown", action="store_true", help="print a Markdown table")


def _add_profile(commands):
    from npnets.profiling import GROUPINGS, SORTS

    parser = _command(
        commands,
        "profile",
        profile,
        "Time a training step layer by layer, beside multiply-adds and bytes. Then the share of each kind of layer in\n"
        "time, multiply-adds and parameters: MobileNetV1 (section 3.2) counts its 1x1 convolutions for nearly all of\n"
        "the time. Weights and images are drawn at random; nothing is trained.",
        "models: " + ", ".join(models.names()) + "\n\nexamples:\n  python -m npnets profile mobilenet_v1 --by kind\n"
        "  python -m npnets profile mobilenet_v2 --width 0.5 --resolution 160 --batch-size 16 --sort time\n"
        "  python -m npnets profile mobilenet_v2_small --inference --threads 1 --by block --plot blocks.png",
    )
    _add_model(parser)
    size_help = "images a step (default: 64 up to 64 pixels, else 8)"
    parser.add_argument("--batch-size", "--batch", type=_whole, help=size_help)
    parser.add_argument("--inference", action="store_true", help="the forward alone, with batch norm folded away")
    whole_help = "time blocks that are one op as they are (default: take them apart into their layers, which is slower)"
    parser.add_argument("--whole-blocks", action="store_true", help=whole_help)
    parser.add_argument("--repeats", type=_whole, default=10, help="steps of which to take the median (default: 10)")
    _add_threads(parser)
    parser.add_argument("--by", choices=GROUPINGS, default="layer", help="what a line stands for (default: layer)")
    parser.add_argument("--sort", choices=list(SORTS), help="largest first (default: forward order; for kinds, time)")
    parser.add_argument("--markdown", action="store_true", help="print Markdown tables")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the machine and all numbers here")
    plot_help = "draw the times of layers or blocks, or the shares of kinds, into this file"
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help=plot_help)


def _add_latency(commands):
    parser = _command(
        commands,
        "latency",
        latency,
        "Time the inference of one image on one core, as section 5.2 of EfficientNet does: batch norm folded into the\n"
        "weights, some runs to warm up, the median of the others. Weights and image are drawn at random.",
        "models: " + ", ".join(models.names()) + "\n\nexamples:\n"
        "  python -m npnets latency mobilenet_v1 mobilenet_v2 efficientnet_b0\n"
        "  python -m npnets latency mobilenet_v2 --width 0.5 --resolution 160 --threads 2 --repeats 100\n"
        "beside PyTorch: python -m npnets benchmark inference; layer by layer: python -m npnets profile --inference",
    )
    _add_model(parser, nargs="+")
    parser.add_argument("--threads", type=_whole, default=1, help="cores to use (default: 1)")
    parser.add_argument("--repeats", type=_whole, default=30, help="runs that count (default: 30)")
    parser.add_argument("--warmup", type=_natural, default=5, help="runs before them that do not (default: 5)")
    fold_help = "leave batch norm as it is trained, instead of folding it into the weights"
    parser.add_argument("--no-fold", dest="fold", action="store_false", help=fold_help)
    parser.add_argument("--markdown", action="store_true", help="print a Markdown table")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the machine and all times here")


def _add_model(parser, nargs=None):
    parser.add_argument("model", metavar="MODEL", nargs=nargs, help="one of the models")
    parser.add_argument("--width", type=_number, help="width multiplier (default: 1)")
    parser.add_argument("--resolution", type=_whole, help="input height and width in pixels (default: the paper's)")
    parser.add_argument("--classes", type=_whole, help="number of classes (default: the model's)")
    parser.add_argument("--channels", type=_whole, help="channels of the input (default: the model's)")
    set_help = "any other setting of the model, such as output_stride=16 or backbone=mobilenet_v1"
    set_options = {"type": _setting, "nargs": "+", "action": "extend", "default": []}
    parser.add_argument("--set", metavar="NAME=VALUE", help=f"{set_help}; name the model before", **set_options)


def _add_gradcheck(commands):
    parser = _command(
        commands,
        "gradcheck",
        gradcheck,
        "Check the gradients of every op and layer against complex-step and central-difference gradients.",
        "examples:\n"
        "  python -m npnets gradcheck batch_norm conv2d --samples 50\n"
        "  python -m npnets gradcheck --mistakes",
    )
    parser.add_argument("names", nargs="*", help="ops or layers (default: all)")
    parser.add_argument("--samples", type=_whole, default=3, help="drawn geometries of each (default: 3)")
    parser.add_argument("--seed", type=_natural, default=0, help="of the drawn numbers (default: 0)")
    parser.add_argument("--mistakes", action="store_true", help="list the mistakes that the diagnosis knows")


def _add_data(commands):
    parser = _command(
        commands,
        "data",
        data,
        "Tell which data sets are here and whether they are whole; download CIFAR-10.",
        "examples:\n  python -m npnets data\n  python -m npnets data cifar10",
    )
    parser.add_argument("dataset", nargs="?", choices=["cifar10"], help="download this one from its home page")
    parser.add_argument("--root", type=Path, help="folder of the data sets (default: NPNETS_DATA, else data/)")
    parser.add_argument("--url", help="download the archive from here instead")


def _add_experiment(commands):
    from npnets import experiments

    parser = _command(
        commands,
        "experiment",
        experiment,
        "Run an experiment of a paper: a training for each variant and seed, several side by side. Each leaves a JSON\n"
        "file in notebooks/results/. What is recorded there is not run again. Ctrl-C saves; the same command goes on.",
        "experiments:\n"
        + "".join(f"  {name:12} {one.section}\n" for name, one in experiments.EXPERIMENTS.items())
        + "\nexamples:\n"
        "  python -m npnets experiment list\n"
        "  python -m npnets experiment batch_norm --variants baseline bn_x5 --small\n"
        "  python -m npnets experiment activations --seeds 0 1 2",
    )
    parser.add_argument("name", metavar="NAME", help="an experiment, or `list`: what there is, what is recorded")
    what = parser.add_argument_group("what is run")
    what.add_argument("--variants", nargs="+", metavar="V", help="only these (default: all; `list` has their names)")
    seeds_help = "of each variant: weights, order, augmentation (default: those the experiment names; 0 if --small)"
    what.add_argument("--seeds", nargs="+", type=_natural, metavar="K", help=seeds_help)
    what.add_argument("--epochs", type=_whole, help="in place of the experiment's own")
    what.add_argument("--dataset", choices=["mnist", "cifar10"], help="in place of the experiment's own")
    what.add_argument("--data", type=Path, help="folder of the data sets (default: NPNETS_DATA, else data/)")
    small_help = "a form of a few seconds to a minute, with few images; nothing is recorded"
    what.add_argument("--small", action="store_true", help=small_help)
    running = parser.add_argument_group("running")
    running.add_argument("--jobs", type=_whole, help="runs at a time (default: one for each core)")
    threads_help = "cores of each run (default: its share); any number gives the same bits"
    running.add_argument("--threads", type=_whole, help=threads_help)
    out_help = "folder of the records (default: notebooks/results of the repository)"
    running.add_argument("--out", type=Path, metavar="FOLDER", help=out_help)
    again_help = "replace what was recorded with other settings (default: refuse)"
    running.add_argument("--again", action="store_true", help=again_help)
    running.add_argument("--quiet", action="store_true", help="no progress, only the result")


def _add_benchmark(commands):
    from npnets import benchmarks

    parser = _command(commands, "benchmark", benchmark, "Time npnets beside PyTorch, each in its own process.")
    benchmarks.add_arguments(parser)


def _add_notebooks(commands):
    parser = _command(
        commands,
        "notebooks",
        notebooks,
        "Open the notebooks of the course in JupyterLab. Or run each of them from a clean kernel, or write versions\n"
        "to hand out.",
        "examples:\n"
        "  python -m npnets notebooks                        JupyterLab, in the folder of the notebooks\n"
        "  python -m npnets notebooks 03                     the same, with one of them\n"
        "  python -m npnets notebooks -- --no-browser        what begins with a dash is for JupyterLab\n"
        "  python -m npnets notebooks --check                run them all; fails on an error, a warning, or the clock\n"
        "  python -m npnets notebooks 03 12 --student out    two of them without answers, solutions and outputs",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="a notebook: its name or number (default: all)")
    what = parser.add_mutually_exclusive_group()
    check_help = "run them from top to bottom, each from a clean kernel, and print their seconds"
    what.add_argument("--check", action="store_true", help=check_help)
    student_help = "write versions without answers, solutions and outputs into this folder"
    what.add_argument("--student", type=Path, metavar="OUT", help=student_help)
    what.add_argument("--guide", action="store_true", help="write the instructor's page anew from the notebooks")
    parser.add_argument("--limit", type=_number, metavar="SECONDS", help="of a run with --check (default: 180)")
    parser.add_argument("--overwrite", action="store_true", help="with --student: replace files that are there")


def _add_threads(parser):
    parser.add_argument("--threads", type=_whole, help="default: all cores; any number gives the same bits")


def _setting(text):
    """Return (name, value) of a setting: a number, true, false, none, a tuple such as (1,2,4), or a word."""
    name, sign, value = text.partition("=")
    if not (name.isidentifier() and sign and value):
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, such as output_stride=16, got {text!r}")
    words = {"true": True, "false": False, "none": None}
    if value.lower() in words:
        return name, words[value.lower()]
    for number in (int, float):
        try:
            return name, number(value)
        except ValueError:
            pass
    if value.startswith(("(", "[")):
        try:
            return name, ast.literal_eval(value)  # literals only: nothing is run
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            pass
    return name, value


def _whole(text):
    return _checked(text, int, lambda n: n >= 1, "a whole number from 1")


def _natural(text):
    return _checked(text, int, lambda n: n >= 0, "a whole number from 0")


def _number(text):
    return _checked(text, float, lambda x: 0 <= x < float("inf"), "a number from 0")


def _checked(text, kind, fits, expected):
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not fits(value):
        raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}")
    return value


def _one_line(message):
    if isinstance(message, OSError) and message.filename:
        message = f"{message.filename}: {message.strerror}"
    return " ".join(str(message).split())
