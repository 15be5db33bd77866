"""What the tests of nn share: a maker for every layer and block, and random numbers in place of zeros and ones."""

import numpy as np

from npnets import nn
from npnets.nn import Parameter

IMAGE = (6, 5, 3)
VECTOR = (7,)


def _drawn(rng, dtype):
    return {"rng": rng, "dtype": dtype}


def _residual(rng, dtype, **settings):
    chain = [nn.DepthwiseConv2d(3, 3, **_drawn(rng, dtype)), nn.BatchNorm(3, dtype=dtype), nn.Swish()]
    return nn.Residual(*chain, **settings)


def _concat(rng, dtype):
    return nn.Concat(
        narrow=nn.PointwiseConv2d(3, 2, bias=True, **_drawn(rng, dtype)),
        wide=nn.Conv2d(3, 4, 3, **_drawn(rng, dtype)),
        pool=nn.AvgPool2d(3, stride=1, padding="same"),
    )


def _inception(rng, dtype):
    branches = {"conv1x1": 2, "conv3x3": (2, 3), "double3x3": (3, 2), "projection": 1}
    return branches | _drawn(rng, dtype)


def _classifier(rng, dtype):
    return nn.Sequential(
        stem=nn.ConvBNAct(3, 4, 3, stride=2, **_drawn(rng, dtype)),
        blocks=[nn.Swish(), nn.PointwiseConv2d(4, 5, **_drawn(rng, dtype))],
        pool=nn.GlobalAvgPool(),
        dropout=nn.Dropout(0.3, rng=rng),
        classifier=nn.Linear(5, 3, **_drawn(rng, dtype)),
    )


def _detector(rng, dtype, **settings):
    """Three maps: the expansion of a block that halves, the end of the backbone, and an extra one."""
    drawn = _drawn(rng, dtype)
    blocks = [nn.InvertedResidual(4, 4, 1, **drawn), nn.InvertedResidual(4, 5, 2, stride=2, **drawn)]
    backbone = nn.Sequential(stem=nn.ConvBNAct(3, 4, 3, **drawn), blocks=blocks, head=nn.ConvBNAct(5, 6, 1, **drawn))
    shape = {"taps": ("blocks.1.depthwise",), "anchors": (3, 6, 6), "extras": (4,), "num_classes": 3}
    return nn.Detector(backbone, **shape, separable=True, dropout=0.2, **drawn)


# What is made of (rng, dtype), and the shape of one image for it.
CASES = {
    "Conv2d": (lambda rng, dtype: nn.Conv2d(3, 4, 3, **_drawn(rng, dtype)), IMAGE),
    "Conv2d, bias": (
        lambda rng, dtype: nn.Conv2d(
            3, 4, (3, 2), stride=(2, 1), dilation=(1, 2), padding="symmetric", bias=True, **_drawn(rng, dtype)
        ),
        IMAGE,
    ),
    "Conv2d, relu6": (
        lambda rng, dtype: nn.Conv2d(3, 4, 3, stride=2, bias=True, activation="relu6", **_drawn(rng, dtype)),
        IMAGE,
    ),
    "Conv2d, swish": (lambda rng, dtype: nn.Conv2d(3, 4, 3, activation="swish", **_drawn(rng, dtype)), IMAGE),
    "DepthwiseConv2d": (lambda rng, dtype: nn.DepthwiseConv2d(3, 3, **_drawn(rng, dtype)), IMAGE),
    "DepthwiseConv2d, bias": (
        lambda rng, dtype: nn.DepthwiseConv2d(
            3, (2, 3), stride=2, padding=((1, 0), (0, 2)), bias=True, **_drawn(rng, dtype)
        ),
        IMAGE,
    ),
    "DepthwiseConv2d, relu": (
        lambda rng, dtype: nn.DepthwiseConv2d(3, 3, activation="relu", **_drawn(rng, dtype)),
        IMAGE,
    ),
    "PointwiseConv2d": (lambda rng, dtype: nn.PointwiseConv2d(3, 4, **_drawn(rng, dtype)), IMAGE),
    "PointwiseConv2d, bias": (lambda rng, dtype: nn.PointwiseConv2d(3, 4, bias=True, **_drawn(rng, dtype)), IMAGE),
    "PointwiseConv2d, relu6": (
        lambda rng, dtype: nn.PointwiseConv2d(3, 4, bias=True, activation="relu6", **_drawn(rng, dtype)),
        IMAGE,
    ),
    "Linear": (lambda rng, dtype: nn.Linear(7, 4, **_drawn(rng, dtype)), VECTOR),
    "Linear, no bias": (lambda rng, dtype: nn.Linear(7, 4, bias=False, **_drawn(rng, dtype)), VECTOR),
    "Linear, relu": (lambda rng, dtype: nn.Linear(7, 4, activation="relu", **_drawn(rng, dtype)), VECTOR),
    "BatchNorm": (lambda rng, dtype: nn.BatchNorm(3, decay=0.7, dtype=dtype), IMAGE),
    "BatchNorm, relu6": (lambda rng, dtype: nn.BatchNorm(3, activation="relu6", dtype=dtype), IMAGE),
    "BatchNorm, 2-D": (lambda rng, dtype: nn.BatchNorm(7, eps=1e-5, dtype=dtype), VECTOR),
    "LocalResponseNorm": (lambda rng, dtype: nn.LocalResponseNorm(size=3, alpha=0.2, beta=0.6, k=1.5), IMAGE),
    "ReLU": (lambda rng, dtype: nn.ReLU(), IMAGE),
    "ReLU6": (lambda rng, dtype: nn.ReLU6(), IMAGE),
    "Sigmoid": (lambda rng, dtype: nn.Sigmoid(), IMAGE),
    "Swish": (lambda rng, dtype: nn.Swish(), VECTOR),
    "MaxPool2d": (lambda rng, dtype: nn.MaxPool2d(2), IMAGE),
    "MaxPool2d, overlapping": (lambda rng, dtype: nn.MaxPool2d((3, 2), stride=(2, 1), padding="same"), IMAGE),
    "AvgPool2d": (lambda rng, dtype: nn.AvgPool2d(3, stride=2, padding="same"), IMAGE),
    "AvgPool2d, one pixel": (lambda rng, dtype: nn.AvgPool2d(1), IMAGE),
    "GlobalAvgPool": (lambda rng, dtype: nn.GlobalAvgPool(), IMAGE),
    "Dropout": (lambda rng, dtype: nn.Dropout(0.4, rng=rng), IMAGE),
    "Dropout, rate 0": (lambda rng, dtype: nn.Dropout(0, rng=rng), VECTOR),
    "DropPath": (lambda rng, dtype: nn.DropPath(np.float64(0.6), rng=rng), IMAGE),
    "ResizeBilinear": (lambda rng, dtype: nn.ResizeBilinear((3, 8)), IMAGE),
    "ResizeBilinear, corners": (lambda rng, dtype: nn.ResizeBilinear(7, align_corners=True), IMAGE),
    "Flatten": (lambda rng, dtype: nn.Flatten(), IMAGE),
    "Sequential": (_classifier, IMAGE),
    "Residual": (_residual, IMAGE),
    "Residual, shortcut": (
        lambda rng, dtype: _residual(rng, dtype, shortcut=nn.PointwiseConv2d(3, 3, **_drawn(rng, dtype))),
        IMAGE,
    ),
    "Concat": (_concat, IMAGE),
    "ConvBNAct": (lambda rng, dtype: nn.ConvBNAct(3, 4, 3, stride=2, **_drawn(rng, dtype)), IMAGE),
    "ConvBNAct, 1x1": (lambda rng, dtype: nn.ConvBNAct(3, 4, 1, activation=None, **_drawn(rng, dtype)), IMAGE),
    "ConvAct": (lambda rng, dtype: nn.ConvAct(3, 4, 3, dilation=2, **_drawn(rng, dtype)), IMAGE),
    "DepthwiseSeparable": (lambda rng, dtype: nn.DepthwiseSeparable(3, 4, stride=2, **_drawn(rng, dtype)), IMAGE),
    "InvertedResidual": (lambda rng, dtype: nn.InvertedResidual(3, 3, **_drawn(rng, dtype)), IMAGE),
    "InvertedResidual, stride 2": (
        lambda rng, dtype: nn.InvertedResidual(3, 3, stride=2, bottleneck="relu6", **_drawn(rng, dtype)),
        IMAGE,
    ),
    "InvertedResidual, t = 1": (lambda rng, dtype: nn.InvertedResidual(3, 3, 1, **_drawn(rng, dtype)), IMAGE),
    "InvertedResidual, expansion": (
        lambda rng, dtype: nn.InvertedResidual(3, 3, 2, shortcut="expansion", **_drawn(rng, dtype)),
        IMAGE,
    ),
    "InvertedResidual, relu": (
        lambda rng, dtype: nn.InvertedResidual(3, 3, 2, activation="relu", **_drawn(rng, dtype)),
        IMAGE,
    ),
    "InvertedResidual, none": (
        lambda rng, dtype: nn.InvertedResidual(3, 3, 2, shortcut="none", **_drawn(rng, dtype)),
        IMAGE,
    ),
    "ResidualBottleneck": (
        lambda rng, dtype: nn.ResidualBottleneck(3, 2, stride=2, dilation=2, **_drawn(rng, dtype)),
        IMAGE,
    ),
    "ResidualBottleneck, 1x1": (
        lambda rng, dtype: nn.ResidualBottleneck(3, 2, stride=2, stride_in="1x1", **_drawn(rng, dtype)),
        IMAGE,
    ),
    "ResidualBottleneck, identity": (
        lambda rng, dtype: nn.ResidualBottleneck(4, 1, **_drawn(rng, dtype)),
        (6, 5, 4),
    ),
    "ResidualBottleneck, subsampled": (
        lambda rng, dtype: nn.ResidualBottleneck(4, 1, stride=2, **_drawn(rng, dtype)),
        (6, 5, 4),
    ),
    "Inception": (lambda rng, dtype: nn.Inception(3, **_inception(rng, dtype)), IMAGE),
    "Inception, stride 2": (
        lambda rng, dtype: nn.Inception(
            3, **_inception(rng, dtype) | {"conv1x1": 0, "pool": "max", "projection": 0, "stride": 2}
        ),
        IMAGE,
    ),
    "Inception, no batch norm": (
        lambda rng, dtype: nn.Inception(
            3, **_inception(rng, dtype), pool="max", batch_norm=False, activation="sigmoid", init_scale=2.0
        ),
        IMAGE,
    ),
    "SqueezeExcite": (lambda rng, dtype: nn.SqueezeExcite(3, 2, **_drawn(rng, dtype)), IMAGE),
    "MBConv": (lambda rng, dtype: nn.MBConv(3, 3, 2, 5, survival_prob=0.7, **_drawn(rng, dtype)), IMAGE),
    "MBConv, stride 2": (lambda rng, dtype: nn.MBConv(3, 4, 2, stride=2, **_drawn(rng, dtype)), IMAGE),
    "MBConv, t = 1": (lambda rng, dtype: nn.MBConv(3, 3, 1, squeeze_ratio=0.7, **_drawn(rng, dtype)), IMAGE),
    "ExtraMap": (lambda rng, dtype: nn.ExtraMap(3, 4, separable=False, **_drawn(rng, dtype)), IMAGE),
    "ExtraMap, separable": (lambda rng, dtype: nn.ExtraMap(3, 4, separable=True, **_drawn(rng, dtype)), IMAGE),
    "Predictor": (lambda rng, dtype: nn.Predictor(3, 2, 5, separable=False, **_drawn(rng, dtype)), IMAGE),
    "Predictor, separable": (
        lambda rng, dtype: nn.Predictor(3, 2, 5, separable=True, dropout=0.3, **_drawn(rng, dtype)),
        IMAGE,
    ),
    "Detector": (_detector, IMAGE),
    "ResizedToInput": (
        lambda rng, dtype: nn.ResizedToInput(conv=nn.Conv2d(3, 4, 3, stride=2, **_drawn(rng, dtype))),
        IMAGE,
    ),
    "ImagePooling": (lambda rng, dtype: nn.ImagePooling(3, 4, **_drawn(rng, dtype)), IMAGE),
    "ASPP": (lambda rng, dtype: nn.ASPP(3, 4, (1, 3), **_drawn(rng, dtype)), IMAGE),
    "ASPP, no rates": (lambda rng, dtype: nn.ASPP(3, 4, (), **_drawn(rng, dtype)), IMAGE),
    "MBConv, relu6": (
        lambda rng, dtype: nn.MBConv(3, 3, 2, squeeze_ratio=None, activation="relu6", **_drawn(rng, dtype)),
        IMAGE,
    ),
}


def make(case, dtype=np.float64, seed=3):
    """Return the module of a case with random numbers everywhere, and the shape of one image for it."""
    maker, shape = CASES[case]
    return randomize(maker(np.random.default_rng(seed), dtype), seed), shape


def randomize(module, seed=3):
    """Replace biases, gammas, betas and running statistics by random numbers: zeros and ones hide mistakes."""
    rng = np.random.default_rng([seed, 1])
    for parameter in module.parameters():
        if np.ptp(parameter.value) == 0:
            parameter.value = parameter.value + rng.uniform(-0.5, 0.5, parameter.shape)
    for _, part in module.named_modules():
        for name in part.running:
            statistics = getattr(part, name)
            statistics += rng.uniform(-0.4, 0.4, statistics.shape)
    return module


def arrays_of(module):
    """Return every array that a module owns, by path: values, gradients, running statistics."""
    owned = {}
    for path, part in module.named_modules():
        for name, value in vars(part).items():
            if isinstance(value, Parameter):
                owned[f"{path}.{name}.value"] = value.value
                owned[f"{path}.{name}.grad"] = value.grad
            elif name in part.running:
                owned[f"{path}.{name}"] = value
    return {name: array for name, array in owned.items() if array is not None}
