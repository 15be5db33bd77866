"""Every op and every layer of npnets, on drawn sizes and settings: ``python -m npnets gradcheck``."""

import time
import zlib
from collections.abc import Callable, Iterable

import numpy as np

from npnets.gradcheck.report import OK, SUSPICIOUS, WRONG, Report, Row
from npnets.gradcheck.single import check_op
from npnets.gradcheck.whole import check_module
from npnets.shapes import geometry, integer

LAYER_TOLERANCE = 1e-6


def check_everything(seed: int = 0, ops: Iterable[str] | None = None, samples: int = 3, progress=None) -> Report:
    """Check every op and every layer on drawn geometries and settings.

    Ops are checked element by element (:func:`check_op`), by complex step to 1e-9 or, where they have kinks, by
    differences to 1e-6; layers and blocks along random directions (:func:`check_module`) to 1e-6. Sizes, strides,
    dilations, paddings, 2-D and 4-D, training and inference are drawn anew for each sample.

    Parameters
    ----------
    seed : int
    ops : iterable of str, optional
        Names from :func:`names_of_everything`; by default all.
    samples : int
        Geometries drawn for each; 3 take some seconds in total, 200 some minutes.
    progress : callable, optional
        ``progress(name, done, total)`` is called before each op or layer, with how many are done.

    Returns
    -------
    Report
        One row for each op and layer: method, largest relative error of all samples, verdict, seconds.

    Raises
    ------
    ValueError
        If a name is not known, or ``samples`` is not a positive integer.
    """
    samples = integer(samples, "samples", 1)
    known = names_of_everything()
    names = known if ops is None else tuple(ops)
    for name in names:
        if name not in known:
            raise ValueError(f"{name!r} is neither an op nor a layer; choose from {', '.join(known)}")
    rows = []
    for done, name in enumerate(names):
        if progress is not None:
            progress(name, done, len(names))
        rows.append(_row(name, seed, samples))
    notes = (f"{samples} drawn {'geometry' if samples == 1 else 'geometries'} each, seed {seed}",)
    return Report("gradient check", tuple(rows), LAYER_TOLERANCE, notes, first_column="op or layer")


def names_of_everything() -> tuple[str, ...]:
    """Return the names of all ops and layers that :func:`check_everything` checks.

    >>> "conv2d" in names_of_everything() and "InvertedResidual" in names_of_everything()
    True
    """
    return (*OPS, *LAYERS)


def _row(name, seed, samples):
    started = time.perf_counter()
    reports, descriptions = [], []
    for k in range(samples):
        rng = np.random.default_rng([seed, zlib.crc32(name.encode()), k])
        report, description = _check_op(name, rng) if name in OPS else _check_layer(name, rng, k)
        reports.append(report)
        descriptions.append(description)
    verdicts = [_verdict(report) for report in reports]
    worst = next((v for v in (WRONG, SUSPICIOUS) if v in verdicts), OK)
    note = ""
    if worst != OK:
        k = verdicts.index(worst)
        rows = "; ".join(f"{row.name} {row.verdict} {row.note}".strip() for row in reports[k].rows if row.verdict != OK)
        note = f"sample {k} of seed {seed}, {descriptions[k]}: {rows}"
    method = " and ".join(sorted({row.method for report in reports for row in report.rows if row.method}))
    error = max(report.error for report in reports)
    return Row(name, worst, method, error, seconds=time.perf_counter() - started, note=note)


def _verdict(report):
    found = {row.verdict for row in report.rows}
    return WRONG if WRONG in found or not found else SUSPICIOUS if SUSPICIOUS in found else OK


def _check_op(name, rng):
    # Imported here, not at the top: ops and nn stand below gradcheck in the reading order.
    from npnets import ops

    inputs, settings = OPS[name](rng)
    forward, backward = getattr(ops, f"{name}_forward"), getattr(ops, f"{name}_backward")
    report = check_op(forward, backward, inputs, settings=settings, seed=int(rng.integers(2**31)))
    shapes = [x.shape if isinstance(x, np.ndarray) else x for x in inputs]
    plain = {key: value for key, value in settings.items() if not isinstance(value, np.random.Generator)}
    return report, f"inputs {shapes}, settings {plain}"


def _check_layer(name, rng, k):
    from npnets import nn

    make, shape = LAYERS[name]
    training = k % 2 == 0
    batch = int(rng.integers(3, 6))
    x = rng.standard_normal((batch, *(n + int(rng.integers(0, 3)) * (axis < 2) for axis, n in enumerate(shape))))
    if len(shape) == 1:
        x = x[:, : shape[0]]
    module = make(nn, rng)
    report = check_module(module, x, training=training, directions=3, seed=int(rng.integers(2**31)))
    return report, f"x {x.shape}, {'training' if training else 'inference'}"


# What is drawn for each op: (inputs, settings).


def _convolution(rng, *, dense, max_kernel=5):
    while True:
        N, H, W = rng.integers(1, 4), *rng.integers(1, 9, 2)
        kernel = tuple(int(k) for k in rng.integers(1, max_kernel + 1, 2))
        settings = _window(rng, kernel) | {"dilation": _int_or_pair(rng, 1, 3)}
        if _fits((H, W), kernel, settings):
            break
    channels = tuple(rng.integers(1, 5, 2 if dense else 1))
    x, w = rng.standard_normal((N, H, W, channels[0])), rng.standard_normal((*kernel, *channels))
    inputs = (x, w, rng.standard_normal(channels[-1])) if rng.random() < 0.7 else (x, w)
    return inputs, settings


def _window(rng, kernel):
    """Draw stride and padding; explicit padding stays smaller than the window, as pooling needs it."""
    limit = min(kernel)
    ways = ["same", "valid", "symmetric", int(rng.integers(0, limit)), _pads(rng, limit)]
    return {"stride": _int_or_pair(rng, 1, 3), "padding": ways[rng.integers(len(ways))]}


def _pads(rng, limit):
    return tuple(tuple(int(n) for n in rng.integers(0, limit, 2)) for _ in range(2))


def _int_or_pair(rng, low, high):
    numbers = tuple(int(n) for n in rng.integers(low, high + 1, 2))
    return numbers if rng.random() < 0.4 else numbers[0]


def _fits(image, kernel, settings):
    try:
        geometry(image, kernel, **settings)
    except ValueError:
        return False
    return True


def _pool(rng):
    while True:
        image, size = rng.integers(2, 8, 2), tuple(int(k) for k in rng.integers(1, 4, 2))
        settings = _window(rng, size)
        if settings["padding"] == "symmetric" and min(size) < 2:
            continue
        if _fits(image, size, settings):
            break
    if rng.random() < 0.3 and _fits(image, size, settings | {"stride": size}):
        settings["stride"] = None
    x = rng.standard_normal((rng.integers(1, 4), *image, rng.integers(1, 4)))
    return (x, size), settings


def _linear(rng, axes):
    C_in, C_out = rng.integers(1, 6, 2)
    x, w = rng.standard_normal((*rng.integers(1, 5, axes), C_in)), rng.standard_normal((C_in, C_out))
    return ((x, w, rng.standard_normal(C_out)) if rng.random() < 0.7 else (x, w)), {}


def _batch_norm(rng):
    C = rng.integers(1, 5)
    shape = (rng.integers(3, 9),) if rng.random() < 0.4 else (rng.integers(1, 4), *rng.integers(2, 5, 2))
    x = rng.standard_normal((*shape, C)) * rng.uniform(0.3, 3, C) + 2 * rng.standard_normal(C)
    inputs = x, rng.uniform(0.3, 2, C), rng.standard_normal(C), rng.standard_normal(C), rng.uniform(0.3, 3, C)
    settings = {"training": bool(rng.random() < 0.6), "decay": 0.9, "eps": 10.0 ** rng.integers(-5, -1)}
    return inputs, settings


def _response_norm(rng):
    size = int(rng.choice([1, 3, 5, 7]))
    settings = {"size": size, "alpha": rng.uniform(0.01, 0.5), "beta": rng.uniform(0.3, 1), "k": rng.uniform(1, 3)}
    return (rng.standard_normal((*rng.integers(1, 4, 3), rng.integers(1, 9))),), settings


def _elementwise(rng):
    axes = 2 if rng.random() < 0.5 else 4
    return (4 * rng.standard_normal(rng.integers(1, 5, axes)),), {}


def _dropping(rng):
    axes = 2 if rng.random() < 0.5 else 4
    x = rng.standard_normal(rng.integers(1, 6, axes))
    settings = {"training": bool(rng.random() < 0.8), "rng": np.random.default_rng(rng.integers(2**31))}
    return (x, rng.uniform(0.1, 0.9)), settings


def _resize(rng):
    x = rng.standard_normal((rng.integers(1, 3), *rng.integers(1, 6, 2), rng.integers(1, 4)))
    size = tuple(int(n) for n in rng.integers(1, 9, 2))
    return (x, size), {"align_corners": bool(rng.random() < 0.5)}


def _channel_scale(rng):
    x = rng.standard_normal(rng.integers(1, 6, 4))
    return (x, rng.standard_normal(x.shape[::3])), {}


def _loss(rng):
    N, K = rng.integers(1, 7), rng.integers(2, 7)
    smoothing = float(rng.choice([0.0, rng.uniform(0.01, 0.5)]))
    return (3 * rng.standard_normal((N, K)), rng.integers(0, K, N)), {"label_smoothing": smoothing}


OPS: dict[str, Callable] = {
    "conv2d": lambda rng: _convolution(rng, dense=True),
    "depthwise_conv2d": lambda rng: _convolution(rng, dense=False),
    "pointwise_conv2d": lambda rng: _linear(rng, axes=3),
    "linear": lambda rng: _linear(rng, axes=1),
    "batch_norm": _batch_norm,
    "local_response_norm": _response_norm,
    "relu": _elementwise,
    "relu6": _elementwise,
    "sigmoid": _elementwise,
    "swish": _elementwise,
    "max_pool2d": _pool,
    "avg_pool2d": _pool,
    "global_avg_pool": lambda rng: ((rng.standard_normal(rng.integers(1, 5, 4)),), {}),
    "dropout": _dropping,
    "drop_path": _dropping,
    "resize_bilinear": _resize,
    "channel_scale": _channel_scale,
    "softmax_cross_entropy": _loss,
}


# How each layer is made, for images of about the shape that follows.


def _drawn(rng):
    """Settings of a layer with weights."""
    return {"rng": rng, "dtype": np.float64}


def _spatial(rng):
    """Settings of a layer with a spatial kernel."""
    padding = ("same", "symmetric")[rng.integers(2)]
    return {**_drawn(rng), "stride": int(rng.integers(1, 3)), "padding": padding}


def _biased(rng):
    """Settings of a layer with weights, a bias and perhaps an activation in the same pass."""
    return {**_drawn(rng), "bias": True, "activation": (None, "relu", "relu6", "swish")[rng.integers(4)]}


def _dilated(rng):
    return {**_spatial(rng), **_biased(rng), "dilation": int(rng.integers(1, 3))}


def _residual(nn, rng):
    chain = [nn.DepthwiseConv2d(3, 3, **_drawn(rng)), nn.BatchNorm(3, dtype=np.float64), nn.Swish()]
    shortcut = nn.PointwiseConv2d(3, 3, **_drawn(rng)) if rng.random() < 0.5 else None
    return nn.Residual(*chain, shortcut=shortcut)


def _concat(nn, rng):
    return nn.Concat(nn.PointwiseConv2d(3, 2, **_drawn(rng)), nn.Conv2d(3, 4, 3, **_drawn(rng)), nn.AvgPool2d(1))


def _sequential(nn, rng):
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, **_drawn(rng)),
        nn.BatchNorm(4, dtype=np.float64),
        nn.ReLU6(),
        nn.GlobalAvgPool(),
        nn.Dropout(0.3, rng=rng),
        nn.Linear(4, 3, **_drawn(rng)),
    )


def _inverted_residual(nn, rng):
    settings = _drawn(rng) | {"t": int(rng.choice([1, 3])), "padding": ("same", "symmetric")[rng.integers(2)]}
    settings["shortcut"] = str(rng.choice(["bottleneck", "expansion", "none"]))
    settings["bottleneck"] = str(rng.choice(["linear", "relu6"]))
    C_out, settings["stride"] = (3, 1) if rng.random() < 0.6 else (4, int(rng.integers(1, 3)))
    return nn.InvertedResidual(3, C_out, **settings)


def _residual_bottleneck(nn, rng):
    C_in, C = ((4, 1), (3, 2))[rng.integers(2)]
    block = nn.ResidualBottleneck(C_in, C, **_spatial(rng), stride_in=("3x3", "1x1")[rng.integers(2)])
    return nn.Sequential(nn.PointwiseConv2d(3, C_in, **_drawn(rng)), block)


def _inception(nn, rng):
    choices = {"padding": ("same", "symmetric"), "pool": ("avg", "max"), "activation": ("relu", "sigmoid")}
    settings = _drawn(rng) | {name: both[rng.integers(2)] for name, both in choices.items()}
    settings["batch_norm"] = bool(rng.integers(2))
    halves = rng.integers(2)
    settings |= {"conv1x1": 0, "projection": 0, "stride": 2} if halves else {"conv1x1": 2, "projection": 1}
    return nn.Inception(3, conv3x3=(2, 3), double3x3=(3, 2), **settings)


def _mbconv(nn, rng):
    settings = _drawn(rng) | {"t": int(rng.choice([1, 3])), "kernel": int(rng.choice([3, 5])), "survival_prob": 0.7}
    settings["padding"] = ("same", "symmetric")[rng.integers(2)]
    settings["squeeze_ratio"] = (None, 0.25, 0.7)[rng.integers(3)]
    C_out, settings["stride"] = (3, 1) if rng.random() < 0.6 else (4, int(rng.integers(1, 3)))
    return nn.MBConv(3, C_out, **settings)


def _head(rng):
    """Settings of a part of a head."""
    return {**_drawn(rng), "padding": ("same", "symmetric")[rng.integers(2)]}


def _detector(nn, rng):
    stem, block = nn.ConvBNAct(3, 4, 3, **_drawn(rng)), nn.InvertedResidual(4, 5, 2, stride=2, **_drawn(rng))
    extras = (4,) if rng.random() < 0.6 else ()
    shape = {"taps": (("block", "block.depthwise")[rng.integers(2)],), "anchors": (3, 2, 2)[: 2 + len(extras)]}
    settings = {**shape, "extras": extras, "num_classes": 3, "separable": bool(rng.integers(2))}
    return nn.Detector(nn.Sequential(stem=stem, block=block), **settings, **_head(rng))


IMAGE = (5, 6, 3)
LAYERS: dict[str, tuple[Callable, tuple[int, ...]]] = {
    "Conv2d": (lambda nn, rng: nn.Conv2d(3, 4, 3, **_dilated(rng)), IMAGE),
    "DepthwiseConv2d": (lambda nn, rng: nn.DepthwiseConv2d(3, 3, **_dilated(rng)), IMAGE),
    "PointwiseConv2d": (lambda nn, rng: nn.PointwiseConv2d(3, 4, **_biased(rng)), IMAGE),
    "Linear": (lambda nn, rng: nn.Linear(5, 4, **_biased(rng)), (5,)),
    "BatchNorm": (lambda nn, rng: nn.BatchNorm(3, dtype=np.float64), IMAGE),
    "LocalResponseNorm": (lambda nn, rng: nn.LocalResponseNorm(size=3, alpha=0.2), IMAGE),
    "ReLU": (lambda nn, rng: nn.ReLU(), IMAGE),
    "ReLU6": (lambda nn, rng: nn.ReLU6(), IMAGE),
    "Sigmoid": (lambda nn, rng: nn.Sigmoid(), IMAGE),
    "Swish": (lambda nn, rng: nn.Swish(), IMAGE),
    "MaxPool2d": (lambda nn, rng: nn.MaxPool2d(3, stride=2, padding="same"), IMAGE),
    "AvgPool2d": (lambda nn, rng: nn.AvgPool2d(3, stride=2, padding="same"), IMAGE),
    "GlobalAvgPool": (lambda nn, rng: nn.GlobalAvgPool(), IMAGE),
    "Dropout": (lambda nn, rng: nn.Dropout(0.4, rng=rng), IMAGE),
    "DropPath": (lambda nn, rng: nn.DropPath(0.6, rng=rng), IMAGE),
    "ResizeBilinear": (lambda nn, rng: nn.ResizeBilinear((7, 4)), IMAGE),
    "Flatten": (lambda nn, rng: nn.Flatten(), IMAGE),
    "Sequential": (_sequential, IMAGE),
    "Residual": (_residual, IMAGE),
    "Concat": (_concat, IMAGE),
    "ConvBNAct": (lambda nn, rng: nn.ConvBNAct(3, 4, int(rng.integers(1, 4)), **_spatial(rng)), IMAGE),
    "ConvAct": (lambda nn, rng: nn.ConvAct(3, 4, int(rng.integers(1, 4)), **_spatial(rng)), IMAGE),
    "DepthwiseSeparable": (lambda nn, rng: nn.DepthwiseSeparable(3, 4, **_spatial(rng)), IMAGE),
    "InvertedResidual": (_inverted_residual, IMAGE),
    "ResidualBottleneck": (_residual_bottleneck, IMAGE),
    "Inception": (_inception, IMAGE),
    "SqueezeExcite": (lambda nn, rng: nn.SqueezeExcite(3, 2, **_drawn(rng)), IMAGE),
    "MBConv": (_mbconv, IMAGE),
    "ExtraMap": (lambda nn, rng: nn.ExtraMap(3, 4, separable=bool(rng.integers(2)), **_head(rng)), IMAGE),
    "Predictor": (lambda nn, rng: nn.Predictor(3, 2, 4, separable=bool(rng.integers(2)), **_head(rng)), IMAGE),
    "Detector": (_detector, IMAGE),
    "ResizedToInput": (lambda nn, rng: nn.ResizedToInput(nn.Conv2d(3, 4, 3, **_dilated(rng))), IMAGE),
    "ImagePooling": (lambda nn, rng: nn.ImagePooling(3, 4, **_head(rng)), IMAGE),
    "ASPP": (lambda nn, rng: nn.ASPP(3, 4, (1, 2)[: rng.integers(3)], **_head(rng)), IMAGE),
}
