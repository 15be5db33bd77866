"""The options of every command, and their help."""

import argparse
from pathlib import Path

import npnets
from npnets import cost, models
from npnets.cli import commands
from npnets.cli.values import natural, number, one_line, setting, whole

DESCRIPTION = "Efficient convolutional networks in plain NumPy: train them, check their gradients, count their costs."


class _Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line."""

    def error(self, message):
        self.exit(2, f"npnets: {one_line(message)} (see `{self.prog} --help`)\n")


def build():
    """Return the parser of the whole command line. Its options have ``run``, the function of the command."""
    parser = _Parser(prog="python -m npnets", description=DESCRIPTION)
    parser.add_argument("--version", action="version", version=npnets.__version__)
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    of_models = (_add_train, _add_evaluate, _add_pretrained, _add_cost, _add_profile, _add_latency)
    for add in (*of_models, _add_gradcheck, _add_data, _add_experiment, _add_benchmark, _add_notebooks):
        add(subparsers)
    return parser


def _command(subparsers, name, run, description, epilog=None):
    parser = subparsers.add_parser(
        name,
        help=description.split(". ")[0].rstrip("."),
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def _add_train(subparsers):
    from npnets.runs import DATASET_SETTINGS, RECIPES, SETTINGS

    parser = _command(
        subparsers,
        "train",
        commands.train,
        "Train a network. By default a small MobileNetV2 on MNIST, with RMSProp, to over 99.2 % in a few minutes.\n"
        "Leaves checkpoint.npz, history.json and curves.png in runs/<name>/. Ctrl-C saves; so does every 200th step.",
        "examples:\n"
        "  python -m npnets train\n"
        "  python -m npnets train --dataset cifar10 --epochs 20 --out runs/first\n"
        "  python -m npnets train --resume --out runs/first\n"
        "  python -m npnets train --dataset cifar10 --recipe best     (a reference model: hours)\n"
        "  python -m npnets train --dataset cifar10 --width 0.5 --set stem_stride=1 bottleneck=relu6",
    )

    def add(group, flag, help_text, **settings):
        name = flag.strip("-").replace("-", "_")
        default = SETTINGS[name]
        if default is None and any(name in defaults for defaults in DATASET_SETTINGS.values()):
            default = ", ".join(f"{defaults[name]} for {dataset}" for dataset, defaults in DATASET_SETTINGS.items())
        if default not in (None, {}):
            help_text += f" (default: {default})"
        group.add_argument(flag, help=help_text.replace("%", "%%"), default=argparse.SUPPRESS, **settings)

    what = parser.add_argument_group("what is trained on what")
    recipe_help = "settings for the options below that are not given: those of MobileNetV2's paper, or our best"
    add(what, "--recipe", recipe_help, choices=list(RECIPES))
    add(what, "--model", "one of " + ", ".join(models.classifiers()), choices=models.classifiers(), metavar="MODEL")
    add(what, "--width", "width multiplier", type=number)
    add(what, "--dropout", "rate before the classifier", type=number)
    set_help = "other settings of the model, such as stem_stride=1 bottleneck=relu6"
    add(what, "--set", set_help, metavar="NAME=VALUE", type=setting, nargs="+", action="extend")
    add(what, "--dataset", "mnist or cifar10", choices=list(DATASET_SETTINGS))
    add(what, "--data", "folder of the data sets instead of the repository's data/")
    add(what, "--images", "use only so many training images", type=whole)
    add(what, "--crop", "shift each training image by up to so many pixels", type=natural)
    add(what, "--mirror", "mirror half of the training images", action=argparse.BooleanOptionalAction)
    how = parser.add_argument_group("how")
    add(how, "--epochs", "passes over the training images", type=whole)
    add(how, "--batch-size", "images a step", type=whole)
    add(how, "--optimizer", "rmsprop or sgd", choices=["rmsprop", "sgd"])
    add(how, "--learning-rate", "at its highest", type=number)
    add(how, "--schedule", "how the learning rate falls", choices=["cosine", "exponential", "constant"])
    add(how, "--decay-rate", "factor an epoch of the exponential schedule", type=number)
    add(how, "--warmup", "steps over which the learning rate rises to its highest", type=natural)
    add(how, "--momentum", "weight of the old update", type=number)
    add(how, "--rms-decay", "RMSProp: weight of the old mean square", type=number)
    add(how, "--epsilon", "RMSProp: added to the mean square, inside the root", type=number)
    add(how, "--weight-decay", "of the weights; not of batch norm and biases", type=number)
    add(how, "--label-smoothing", "share of the target that is spread over all classes", type=number)
    add(how, "--weight-average", "evaluate an exponential moving average of the weights with this decay", type=number)
    add(how, "--seed", "of the weights, the order of the images and their augmentation", type=natural)
    running = parser.add_argument_group("running")
    out_help = "folder of the run (default: runs/<dataset>-<model>)"
    running.add_argument("--out", type=Path, metavar="FOLDER", help=out_help)
    running.add_argument("--resume", action="store_true", help="continue a run with its own settings, bit for bit")
    add(running, "--save-every", "steps between two checkpoints", type=whole)
    _add_threads(running)
    running.add_argument("--quiet", action="store_true", help="no progress, only the result")


def _add_evaluate(subparsers):
    parser = _command(
        subparsers,
        "evaluate",
        commands.evaluate,
        "Evaluate a trained model: loss and accuracy over the test images, and class by class, with what the others\n"
        "were taken for.",
        "examples:\n"
        "  python -m npnets evaluate runs/mnist-mobilenet_v2_small\n"
        "  python -m npnets evaluate mnist-mobilenet_v2-small         (a reference model)",
    )
    checkpoint_help = "a checkpoint.npz, the folder of a run, or a reference model (`pretrained` lists them)"
    parser.add_argument("checkpoint", type=Path, help=checkpoint_help)
    parser.add_argument("--dataset", choices=["mnist", "cifar10"], help="another data set than the run's own")
    parser.add_argument("--split", choices=["test", "train"], default="test", help="which images (default: test)")
    parser.add_argument("--data", type=Path, help="folder of the data sets")
    parser.add_argument("--batch-size", type=whole, default=100, help="images at a time (default: 100)")
    _add_threads(parser)


def _add_pretrained(subparsers):
    parser = _command(
        subparsers,
        "pretrained",
        commands.pretrained,
        "List the reference models, which come trained, or tell of one: command, seed and commit of its training,\n"
        "accuracy of each class, and what was taken for what. `models.pretrained(NAME)` loads it in Python.",
        "examples:\n"
        "  python -m npnets pretrained\n"
        "  python -m npnets pretrained mnist-mobilenet_v2-small\n"
        "  python -m npnets pretrained my-model --from-run runs/first      (make one of a run)",
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="a reference model (default: list them)")
    from_help = "write the weights of this run, and a card, into data/pretrained/ under NAME"
    parser.add_argument("--from-run", type=Path, metavar="RUN", help=from_help)
    parser.add_argument("--data", type=Path, help="folder of the data sets, for its evaluation")
    parser.add_argument("--overwrite", action="store_true", help="replace a reference model of this name")


def _add_cost(subparsers):
    parser = _command(
        subparsers,
        "cost",
        commands.print_cost,
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
    parser.add_argument("--scales", type=number, nargs="+", metavar="S", help="also the cost of several input sizes")
    parser.add_argument("--mirrored", action="store_true", help="also the cost with each input mirrored too")
    parser.add_argument("--markdown", action="store_true", help="print a Markdown table")


def _add_profile(subparsers):
    from npnets.profiling import GROUPINGS, SORTS

    parser = _command(
        subparsers,
        "profile",
        commands.profile,
        "Time a training step layer by layer, beside multiply-adds and bytes. Then the share of each kind of layer in\n"
        "time, multiply-adds and parameters: MobileNetV1 (section 3.2) counts its 1x1 convolutions for nearly all of\n"
        "the time. Weights and images are drawn at random; nothing is trained.",
        "models: " + ", ".join(models.names()) + "\n\nexamples:\n  python -m npnets profile mobilenet_v1 --by kind\n"
        "  python -m npnets profile mobilenet_v2 --width 0.5 --resolution 160 --batch-size 16 --sort time\n"
        "  python -m npnets profile mobilenet_v2_small --inference --threads 1 --by block --plot blocks.png",
    )
    _add_model(parser)
    size_help = "images a step (default: 64 up to 64 pixels, else 8)"
    parser.add_argument("--batch-size", "--batch", type=whole, help=size_help)
    parser.add_argument("--inference", action="store_true", help="the forward alone, with batch norm folded away")
    whole_help = "time blocks that are one op as they are (default: take them apart into their layers, which is slower)"
    parser.add_argument("--whole-blocks", action="store_true", help=whole_help)
    parser.add_argument("--repeats", type=whole, default=10, help="steps of which to take the median (default: 10)")
    _add_threads(parser)
    parser.add_argument("--by", choices=GROUPINGS, default="layer", help="what a line stands for (default: layer)")
    parser.add_argument("--sort", choices=list(SORTS), help="largest first (default: forward order; for kinds, time)")
    parser.add_argument("--markdown", action="store_true", help="print Markdown tables")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the machine and all numbers here")
    plot_help = "draw the times of layers or blocks, or the shares of kinds, into this file"
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help=plot_help)


def _add_latency(subparsers):
    parser = _command(
        subparsers,
        "latency",
        commands.latency,
        "Time the inference of one image on one core, as section 5.2 of EfficientNet does: batch norm folded into the\n"
        "weights, some runs to warm up, the median of the others. Weights and image are drawn at random.",
        "models: " + ", ".join(models.names()) + "\n\nexamples:\n"
        "  python -m npnets latency mobilenet_v1 mobilenet_v2 efficientnet_b0\n"
        "  python -m npnets latency mobilenet_v2 --width 0.5 --resolution 160 --threads 2 --repeats 100\n"
        "beside PyTorch: python -m npnets benchmark inference; layer by layer: python -m npnets profile --inference",
    )
    _add_model(parser, nargs="+")
    parser.add_argument("--threads", type=whole, default=1, help="cores to use (default: 1)")
    parser.add_argument("--repeats", type=whole, default=30, help="runs that count (default: 30)")
    parser.add_argument("--warmup", type=natural, default=5, help="runs before them that do not (default: 5)")
    fold_help = "leave batch norm as it is trained, instead of folding it into the weights"
    parser.add_argument("--no-fold", dest="fold", action="store_false", help=fold_help)
    parser.add_argument("--markdown", action="store_true", help="print a Markdown table")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the machine and all times here")


def _add_model(parser, nargs=None):
    parser.add_argument("model", metavar="MODEL", nargs=nargs, help="one of the models")
    parser.add_argument("--width", type=number, help="width multiplier (default: 1)")
    parser.add_argument("--resolution", type=whole, help="input height and width in pixels (default: the paper's)")
    parser.add_argument("--classes", type=whole, help="number of classes (default: the model's)")
    parser.add_argument("--channels", type=whole, help="channels of the input (default: the model's)")
    set_help = "any other setting of the model, such as output_stride=16 or backbone=mobilenet_v1"
    set_options = {"type": setting, "nargs": "+", "action": "extend", "default": []}
    parser.add_argument("--set", metavar="NAME=VALUE", help=f"{set_help}; name the model before", **set_options)


def _add_gradcheck(subparsers):
    parser = _command(
        subparsers,
        "gradcheck",
        commands.gradcheck,
        "Check the gradients of every op and layer against complex-step and central-difference gradients.",
        "examples:\n"
        "  python -m npnets gradcheck batch_norm conv2d --samples 50\n"
        "  python -m npnets gradcheck --mistakes",
    )
    parser.add_argument("names", nargs="*", help="ops or layers (default: all)")
    parser.add_argument("--samples", type=whole, default=3, help="drawn geometries of each (default: 3)")
    parser.add_argument("--seed", type=natural, default=0, help="of the drawn numbers (default: 0)")
    parser.add_argument("--mistakes", action="store_true", help="list the mistakes that the diagnosis knows")


def _add_data(subparsers):
    parser = _command(
        subparsers,
        "data",
        commands.data,
        "Tell which data sets are here and whether they are whole; download CIFAR-10.",
        "examples:\n  python -m npnets data\n  python -m npnets data cifar10",
    )
    parser.add_argument("dataset", nargs="?", choices=["cifar10"], help="download this one from its home page")
    parser.add_argument("--root", type=Path, help="folder of the data sets (default: NPNETS_DATA, else data/)")
    parser.add_argument("--url", help="download the archive from here instead")


def _add_experiment(subparsers):
    from npnets import experiments

    parser = _command(
        subparsers,
        "experiment",
        commands.experiment,
        "Run an experiment of a paper: a training for each variant and seed, several side by side. Each leaves a JSON\n"
        "file in notebooks/results/. What is recorded there is not run again. Ctrl-C saves; the same command goes on.",
        "experiments:\n"
        + "".join(f"  {name:18} {one.section}\n" for name, one in experiments.EXPERIMENTS.items())
        + "\nexamples:\n"
        "  python -m npnets experiment list\n"
        "  python -m npnets experiment batch_norm --variants baseline bn_x5 --small\n"
        "  python -m npnets experiment activations --seeds 0 1 2",
    )
    parser.add_argument("name", metavar="NAME", help="an experiment, or `list`: what there is, what is recorded")
    what = parser.add_argument_group("what is run")
    what.add_argument("--variants", nargs="+", metavar="V", help="only these (default: all; `list` has their names)")
    seeds_help = "of each variant: weights, order, augmentation (default: those the experiment names; 0 if --small)"
    what.add_argument("--seeds", nargs="+", type=natural, metavar="K", help=seeds_help)
    what.add_argument("--epochs", type=whole, help="in place of the experiment's own")
    what.add_argument("--dataset", choices=["mnist", "cifar10"], help="in place of the experiment's own")
    what.add_argument("--data", type=Path, help="folder of the data sets (default: NPNETS_DATA, else data/)")
    small_help = "a form of a few seconds to a minute, with few images; nothing is recorded"
    what.add_argument("--small", action="store_true", help=small_help)
    running = parser.add_argument_group("running")
    running.add_argument("--jobs", type=whole, help="runs at a time (default: one for each core)")
    threads_help = "cores of each run (default: its share); any number gives the same bits"
    running.add_argument("--threads", type=whole, help=threads_help)
    out_help = "folder of the records (default: notebooks/results of the repository)"
    running.add_argument("--out", type=Path, metavar="FOLDER", help=out_help)
    again_help = "replace what was recorded with other settings (default: refuse)"
    running.add_argument("--again", action="store_true", help=again_help)
    running.add_argument("--quiet", action="store_true", help="no progress, only the result")


def _add_benchmark(subparsers):
    from npnets import benchmarks

    what = "Time npnets beside PyTorch, each in its own process."
    parser = _command(subparsers, "benchmark", commands.benchmark, what)
    benchmarks.add_arguments(parser)


def _add_notebooks(subparsers):
    parser = _command(
        subparsers,
        "notebooks",
        commands.notebooks,
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
    parser.add_argument("--limit", type=number, metavar="SECONDS", help="of a run with --check (default: 180)")
    parser.add_argument("--overwrite", action="store_true", help="with --student: replace files that are there")


def _add_threads(parser):
    parser.add_argument("--threads", type=whole, help="default: all cores; any number gives the same bits")
