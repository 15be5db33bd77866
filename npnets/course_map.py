"""Where is it? Every equation, table and figure of the five sections, and what holds it here.

:data:`MAP` leads from a place in a paper to the code, to the command that computes it, and to the notebooks that treat
it. :data:`NOTEBOOKS` is the course in its order. What does not exist yet is in :data:`COMING`; a test fails when a name
of the map has gone, and when something that is coming has come.

>>> print(find("1/N"))
MobileNetV1, section 3
where      what           in npnets     run  notebooks
------------------------------------------------------
3.1 ratio  1/N + 1/D_K^2  cost.profile       02, 12
"""

import html
import importlib
from typing import NamedTuple

from npnets.cost.tables import text_table

NOTEBOOKS = {  # number: name, what it teaches
    "00": ("start_here", "the course, what to install, and the map"),
    "01": ("convolution_by_hand", "from the sum of the paper to one matrix product; stride, padding, the backward"),
    "02": ("factorizing_convolution", "depthwise and pointwise: what a separable convolution costs, and gives up"),
    "03": ("gradient_checking", "two oracles, kinks, and how a broken batch norm hides"),
    "04": ("activations_over_time", "section 4.1 of batch normalization, and what its figure could not show"),
    "05": ("batch_norm_accelerates_training", "section 4.2: the seven changes, on a small BN-Inception"),
    "06": ("mobilenet_v1", "the network from its table; thinner or shallower; asynchronous gradient descent"),
    "07": ("linear_bottlenecks", "what a ReLU destroys in few dimensions; linear bottlenecks and shortcuts"),
    "08": ("mobilenet_v2_tradeoffs", "expansion, width, resolution, low precision, the training recipe"),
    "09": ("compound_scaling", "EfficientNet: depth, width and resolution together"),
    "10": ("detection_and_segmentation", "SSDLite and DeepLabv3 on a mobile network"),
    "11": ("transfer", "what a network has learned, looked at and carried over"),
    "12": ("what_the_networks_cost", "parameters and multiply-adds, and which printed numbers are right"),
}

COMING = {
    "notebooks": {"09", "10", "11"},
    "experiments": set(),
}
"""Numbers of notebooks and names of experiments that do not exist yet. Take out what you have written."""


class Entry(NamedTuple):
    """A place in a paper, and what holds it.

    Attributes
    ----------
    section : str
        Of :data:`SECTIONS`.
    where : str
        The part of the section, and the equation, table or figure if it is one.
    what : str
    code : str
        Names in npnets, with a space between two.
    run : str
        What follows ``python -m npnets`` to compute it; empty if nothing does.
    notebooks : str
        Numbers, with a space between two; the one that treats it most comes first.
    """

    section: str
    where: str
    what: str
    code: str
    run: str
    notebooks: str


SECTIONS = {
    "MobileNetV1, section 3": "Howard et al. 2017, arXiv:1704.04861",
    "Batch normalization, section 4": "Ioffe and Szegedy 2015, arXiv:1502.03167",
    "MobileNetV2, section 4": "Sandler et al. 2018, arXiv:1801.04381",
    "MobileNetV2, section 6": "Sandler et al. 2018, arXiv:1801.04381",
    "EfficientNet, section 5": "Tan and Le 2019, arXiv:1905.11946",
}

_ROWS = {
    "MobileNetV1, section 3": [
        # where, what, code, run, notebooks
        ("3.1 equation (1)", "standard convolution", "ops.conv2d_forward reference.conv2d", "", "01"),
        ("3.1 equation (2)", "its cost", "nn.Conv2d.macs cost.profile", "", "12 02"),
        ("3.1 equation (3)", "depthwise convolution: filtering",
         "ops.depthwise_conv2d_forward reference.depthwise_conv2d", "", "02 03"),
        ("3.1", "pointwise convolution: combining",
         "ops.pointwise_conv2d_forward reference.pointwise_conv2d", "", "02"),
        ("3.1 Figure 2", "the filters of the three kinds", "nn.Conv2d nn.DepthwiseConv2d nn.PointwiseConv2d", "", "02"),
        ("3.1 equation (4)", "cost of the depthwise convolution", "nn.DepthwiseConv2d.macs", "", "02 12"),
        ("3.1 equation (5)", "cost of both steps", "nn.DepthwiseSeparable cost.profile", "", "02 12"),
        ("3.1 ratio", "1/N + 1/D_K^2", "cost.profile", "", "02 12"),
        ("3.1", "factorizing in space too saves little", "cost.profile", "", "12 02"),
        ("3.2 Table 1", "the network", "models.mobilenet_v1 models.mobilenet_v1.TABLE", "cost mobilenet_v1", "12 06"),
        ("3.2 Figure 3", "a standard and a separable layer, with batch norm and ReLU",
         "nn.ConvBNAct nn.DepthwiseSeparable", "", "06"),
        ("3.2", "a 1x1 convolution is a matrix product without im2col",
         "ops.pointwise_conv2d_forward ops.conv2d_forward", "benchmark roofline", "02 01"),
        ("3.2", "95 % of the time in 1x1 convolutions", "profiling.profile_step", "profile mobilenet_v1 --by kind",
         "02 12"),
        ("3.2 Table 2", "resources by type of layer", "cost.paper_tables", "cost --paper mobilenet_v1", "12"),
        ("3.2", "RMSProp", "optim.RMSProp", "train", "06 08"),
        ("3.2", "asynchronous gradient descent", "optim.Stale", "experiment staleness", "06"),
        ("3.2", "small crops, no label smoothing", "augment.random_crop training.fit", "train", "06"),
        ("3.2", "little or no weight decay on depthwise filters", "nn.DepthwiseConv2d nn.Parameter",
         "experiment factorized", "06"),
        ("3.3 equation (6)", "width multiplier", "shapes.scale_channels models.mobilenet_v1",
         "experiment width_resolution", "12 06"),
        ("3.4 equation (7)", "resolution multiplier", "cost.profile", "experiment width_resolution", "12 06"),
        ("3.4 Table 3", "one layer, shrunk step by step", "cost.paper_tables", "cost --paper mobilenet_v1", "12"),
    ],
    "Batch normalization, section 4": [
        ("4.1", "784-100-100-100-10, sigmoid, small Gaussian weights", "models.mlp_batch_norm nn.init.gaussian",
         "train --model mlp_batch_norm", "04 03"),
        ("4.1", "batch norm in training and inference (Algorithms 1 and 2)",
         "ops.batch_norm_forward ops.batch_norm_backward reference.batch_norm", "gradcheck batch_norm", "03 04"),
        ("4.1", "cross-entropy loss", "ops.softmax_cross_entropy_forward", "", "04"),
        ("4.1 Figure 1 (a)", "test accuracy over the steps", "training.fit training.History", "experiment activations",
         "04"),
        ("4.1 Figure 1 (b, c)", "percentiles of the input to a sigmoid over time",
         "probes.Probes experiments.drift.typical", "experiment activations", "04"),
        ("4.1", "how stable the distributions are, in numbers", "experiments.drift.between experiments.drift.sampling",
         "experiment activations", "04"),
        ("4.1", "running statistics beside those of the population (Algorithm 2)",
         "experiments.activations.RunningStatistics", "experiment activations", "04"),
        ("4.2", "Inception with batch normalization", "models.bn_inception nn.Inception", "cost bn_inception", "05 12"),
        ("4.2", "how many parameters it has", "cost.paper_tables", "cost --paper batch_norm", "12"),
        ("4.2", "stochastic gradient descent with momentum", "optim.SGD", "experiment batch_norm", "05"),
        ("4.2 Table 1", "steps to the baseline's accuracy, and best accuracy", "models.bn_inception_small",
         "experiment batch_norm", "05"),
        ("4.2 Figure 2", "accuracy over the steps of all variants", "training.History", "experiment batch_norm", "05"),
        ("4.2.1", "higher learning rate", "optim.SGD", "experiment batch_norm", "05"),
        ("4.2.2", "dropout removed", "ops.dropout_forward nn.Dropout", "experiment batch_norm", "05"),
        ("4.2.3", "shuffling within shards", "training.fit", "experiment batch_norm", "05"),
        ("4.2.4", "L2 regularization reduced", "optim.SGD", "experiment batch_norm", "05"),
        ("4.2.5", "faster decay of the learning rate", "optim.exponential", "experiment batch_norm", "05"),
        ("4.2.6", "local response normalization removed", "ops.local_response_norm_forward nn.LocalResponseNorm",
         "experiment batch_norm", "05"),
        ("4.2.7", "photometric distortion reduced", "augment.photometric_distortion", "experiment batch_norm", "05"),
        ("4.3", "an ensemble: the mean of six networks' probabilities", "experiments.batch_norm",
         "experiment batch_norm", "05"),
        ("4.3 Table 2", "accuracy of the single network and of the ensemble", "experiments.batch_norm",
         "experiment batch_norm", "05"),
        ("4.3 Figure 3", "the ensemble beside the best results of its time", "experiments.batch_norm",
         "experiment batch_norm", "05"),
    ],
    "MobileNetV2, section 4": [
        ("4 Table 1", "the bottleneck residual block", "nn.InvertedResidual", "", "07"),
        ("4 Table 2", "the network", "models.mobilenet_v2 models.mobilenet_v2.TABLE", "cost mobilenet_v2", "12 08"),
        ("4", "expansion by 6 of the block's input: 64 to 384", "nn.InvertedResidual", "", "12 07"),
        ("4", "expansions from 5 to 10 hardly differ", "models.mobilenet_v2", "experiment expansion", "08"),
        ("4", "ReLU6, for low precision", "ops.relu6_forward nn.ReLU6 quantization.quantize quantization.quantized",
         "experiment low_precision", "08 03"),
        ("4", "dropout and batch normalization", "nn.Dropout nn.BatchNorm", "train --dropout 0.2", "08"),
        ("4", "width and resolution traded off, and what they cost",
         "shapes.round_channels cost.paper_tables", "cost --paper mobilenet_v2", "12 08"),
        ("4", "the last layer is not shrunk below width 1", "models.mobilenet_v2",
         "experiment width_resolution", "08 12"),
    ],
    "MobileNetV2, section 6": [
        ("6.1", "RMSProp, decay and momentum 0.9, weight decay", "optim.RMSProp optim.SGD", "experiment recipe", "08"),
        ("6.1", "learning rate 0.045, times 0.98 an epoch", "optim.exponential",
         "train --schedule exponential --learning-rate 0.045", "08"),
        ("6.1", "16 asynchronous workers", "optim.Stale", "experiment staleness", "06"),
        ("6.1 Table 3", "accuracy, parameters, multiply-adds, latency", "cost.paper_tables latency.measure_latency",
         "cost --paper mobilenet_v2", "12"),
        ("6.1 Figure 4", "accuracy over multiply-adds", "plots.accuracy_over_cost plots.pareto_fronts",
         "experiment width_resolution", "12 08"),
        ("6.2", "SSDLite: separable layers that predict", "models.ssdlite nn.Detector nn.Predictor", "cost ssdlite",
         "12 10"),
        ("6.2", "default boxes", "ops.boxes", "", "10"),
        ("6.2 Table 4", "cost of the heads of SSD and SSDLite", "cost.paper_tables models.ssd models.ssdlite",
         "cost --paper mobilenet_v2", "12"),
        ("6.2 Table 5", "detectors compared", "cost.paper_tables models.ssdlite", "cost --paper mobilenet_v2", "12 10"),
        ("6.3", "atrous convolution, output stride", "shapes.atrous_strides models.deeplab_v3", "", "12 10"),
        ("6.3", "ASPP and image-level features", "nn.ASPP nn.ImagePooling", "", "12 10"),
        ("6.3", "several scales, and mirror images", "cost.multi_scale", "", "12 10"),
        ("6.3 Table 6", "mIOU, parameters and cost of the segmenters", "cost.paper_tables models.deeplab_v3",
         "cost --paper mobilenet_v2", "12 10"),
        ("6.4 Figure 5 (a)", "linear or non-linear bottlenecks", "nn.InvertedResidual", "experiment linear_bottlenecks",
         "07"),
        ("6.4 Figure 5 (b)", "shortcut between bottlenecks, between expansions, none", "nn.InvertedResidual",
         "experiment shortcuts", "07"),
        ("6.4", "non-linearity destroys information in low-dimensional space", "manifold.recoveries manifold.spiral",
         "experiment linear_bottlenecks", "07"),
        ("6.4", "with shortcuts less information is lost", "nn.InvertedResidual",
         "experiment linear_bottlenecks", "07"),
    ],
    "EfficientNet, section 5": [
        ("5.1 Table 2", "MobileNets and ResNets scaled (Table 3 of the publication)",
         "models.compound_scaling models.scaling_of cost.paper_tables", "cost --paper efficientnet", "12 09"),
        ("5.2", "RMSProp, learning rate times 0.97 every 2.4 epochs", "optim.RMSProp optim.exponential", "", "09"),
        ("5.2", "swish", "ops.swish_forward ops.swish_backward nn.Swish", "gradcheck swish", "03 09"),
        ("5.2", "stochastic depth", "ops.drop_path_forward nn.DropPath", "", "09"),
        ("5.2", "dropout from 0.2 (B0) to 0.5 (B7)", "models.efficientnet.VARIANTS", "", "09"),
        ("5.2 Table 1", "the baseline network", "models.efficientnet.TABLE models.efficientnet_b0 nn.MBConv",
         "cost efficientnet_b0", "12 09"),
        ("5.2 Figure 5", "accuracy over parameters and over FLOPS", "plots.accuracy_over_cost", "", "12"),
        ("5.2 Table 3", "ImageNet results (Table 2 of the publication)", "cost.paper_tables",
         "cost --paper efficientnet", "12"),
        ("5.2 Table 4", "latency of one image on one core", "latency.measure_latency",
         "latency efficientnet_b0 resnet50", "09"),
        ("5.3 Table 5", "transfer to other data sets", "checkpoint.from_torch", "", "11"),
        ("5.4 Figure 6", "class activation maps", "models.efficientnet_b0", "", "11"),
    ],
}  # fmt: skip

MAP = tuple(Entry(section, *row) for section, rows in _ROWS.items() for row in rows)
"""Every equation, table and figure of the five sections, and the statements that are tested here."""


class Table:
    """Some entries of the map; ``print`` it, or let Jupyter show it. Numbers in parentheses are coming."""

    def __init__(self, entries):
        self.entries = tuple(entries)

    def __len__(self):
        return len(self.entries)

    def __repr__(self):
        return f"{len(self)} places on the map"

    def __str__(self):
        parts = []
        for section, entries in self._by_section():
            lines = [["where", "what", "in npnets", "run", "notebooks"]]
            lines += [[e.where, e.what, ", ".join(e.code.split()), e.run, ", ".join(_numbers(e))] for e in entries]
            parts.append(f"{section}\n{text_table(lines, 5, total=False)}")
        return "\n\n".join(parts) or "nothing found"

    def _repr_html_(self):
        return "".join(
            f"<p><b>{html.escape(section)}</b> ({html.escape(SECTIONS[section])})</p>"
            "<table><thead><tr>"
            + "".join(_cell(title, "th") for title in ("where", "what", "in npnets", "python -m npnets", "notebooks"))
            + f"</tr></thead><tbody>{''.join(map(_html_row, entries))}</tbody></table>"
            for section, entries in self._by_section()
        )

    def _by_section(self):
        found = ((section, [e for e in self.entries if e.section == section]) for section in SECTIONS)
        return [(section, entries) for section, entries in found if entries]


def find(words=""):
    """Return the entries in which these words occur, as a :class:`Table`; all of them without words.

    Where they occur nowhere as they stand, each by itself will do.

    >>> len(find("Table 1")), len(find("table normalization 4.2"))
    (4, 2)
    """
    words = " ".join(words.lower().split())
    texts = {entry: " ".join(entry).lower() for entry in MAP}
    together = [entry for entry, text in texts.items() if words in text]
    return Table(together or [entry for entry, text in texts.items() if all(word in text for word in words.split())])


def resolve(name):
    """Return what a dotted name of the map stands for, such as ``"nn.Conv2d.macs"``.

    Raises
    ------
    ValueError
        If there is nothing of that name in npnets.
    """
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            thing = importlib.import_module(".".join(["npnets", *parts[:length]]))
        except ModuleNotFoundError:
            continue
        try:
            for part in parts[length:]:
                thing = getattr(thing, part)
        except AttributeError:
            continue
        return thing
    raise ValueError(f"npnets has no {name}")


def file_of(number):
    """Return the name of a notebook's file, such as ``"03_gradient_checking.ipynb"``."""
    return f"{number}_{NOTEBOOKS[number][0]}.ipynb"


def is_coming(number):
    """Return whether a notebook does not exist yet."""
    return number in COMING["notebooks"]


def _numbers(entry):
    return [f"({number})" if is_coming(number) else number for number in entry.notebooks.split()]


def _html_row(entry):
    links = (
        f"({number})" if is_coming(number) else f'<a href="{file_of(number)}">{number}</a>'
        for number in entry.notebooks.split()
    )
    code = "<br>".join(f"<code>{html.escape(name)}</code>" for name in entry.code.split())
    run = f"<code>{html.escape(entry.run)}</code>" if entry.run else ""
    run += " (coming)" if entry.run.removeprefix("experiment ") in COMING["experiments"] else ""
    cells = (html.escape(entry.where), html.escape(entry.what), code, run, ", ".join(links))
    return f"<tr>{''.join(map(_cell, cells))}</tr>"


def _cell(content, tag="td"):
    return f'<{tag} style="text-align:left">{content}</{tag}>'
