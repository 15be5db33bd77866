"""What each command does, for the options that ``parser.py`` describes.

What takes long to import is imported by the command that needs it.
"""

import json
import shlex
import sys

import numpy as np

from npnets import cost, models, parallel

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
    if "set" in given:
        given["set"] = _plain(_unique(given["set"]))
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


def _unique(pairs):
    """Return the settings of ``--set`` as a dict."""
    found = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name} is set twice; give it once")
        found[name] = value
    return found


def _plain(settings):
    """Return settings as they are read back from a checkpoint, with lists for tuples."""
    return json.loads(json.dumps(settings))


def evaluate(options):
    """Evaluate the model of a checkpoint on a test set, over all images and class by class."""
    from npnets import datasets, publish, training

    model, about, (mean, std) = _trained(options.checkpoint)
    test = datasets.load(options.dataset or about.get("dataset"), options.split, options.data or about.get("data"))
    with parallel.threads(options.threads):
        result = training.evaluate(model, test, mean=mean, std=std, batch_size=options.batch_size)
    print(f"{about['model']} on {test.name} ({options.split}, {len(test):,} images)")
    print(f"loss {result.loss:.4f}, accuracy {result.accuracy:.2%}\n")
    counts = training.confusion_matrix(test.labels, result.predictions, len(test.class_names))
    print(publish.confusion_table(test.class_names, counts.tolist()))


def _trained(path):
    """Return (model, what it is, (mean, std)) of a checkpoint, the folder of a run, or a reference model's name."""
    from npnets import checkpoint

    if not path.exists() and str(path) in models.pretrained_names():
        facts = models.card(str(path))
        return models.pretrained(str(path)), facts, [np.array(facts[name], np.float64) for name in ("mean", "std")]
    if path.is_dir():
        path = path / "checkpoint.npz"
    model, numbers = checkpoint.load_model(path)
    try:
        statistics = [np.array(numbers[name], np.float64) for name in ("mean", "std")]
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{path} does not tell mean and standard deviation of the training images") from None
    about = numbers["about"]
    return model, about | {"data": about.get("command", {}).get("data")}, statistics


def pretrained(options):
    """List the reference models, tell of one, or make one of a run."""
    from npnets import publish

    beside = [f"--{name.replace('_', '-')}" for name in ("from_run", "data", "overwrite") if getattr(options, name)]
    if options.name is None:
        if beside:
            raise ValueError(f"{', '.join(beside)}: name the reference model")
        print(publish.listed())
    elif options.from_run is None:
        if beside:
            raise ValueError(f"{', '.join(beside)}: goes with --from-run")
        print(publish.described(models.card(options.name)))
    else:
        settings = {"data": options.data, "overwrite": options.overwrite}
        print(publish.described(publish.publish(options.from_run, options.name, **settings)))


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
    given = [(name, value) for name, value in settings.items() if value is not None]
    settings = _unique(given + options.set)
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
