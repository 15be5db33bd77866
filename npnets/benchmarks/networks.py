"""Which networks are measured."""

from dataclasses import dataclass

import numpy as np

from npnets import models, nn

# MobileNetV2 for 32 pixels. The halvings of the paper's stem and of its second row are left out: 32 -> 16 -> 8 -> 4.
WIDTH_HALF_TABLE = [
    # t,  c,  n, s
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
]


@dataclass(frozen=True)
class Network:
    """A MobileNetV2 and the batch it is measured with; all fields are plain, so that they travel as JSON.

    Attributes
    ----------
    name : str
    model : str
        For :func:`npnets.models.build`.
    settings : dict
        Keywords of that model.
    image : (H, W, C)
    batch : int
    num_classes : int
    """

    name: str
    model: str
    settings: dict
    image: tuple
    batch: int = 64
    num_classes: int = 10


NETWORKS = (
    Network("mobilenet_v2_small, 28x28x1", "mobilenet_v2_small", {}, image=(28, 28, 1)),
    Network(
        "MobileNetV2 width 0.5, 32x32x3",
        "mobilenet_v2",
        {"width_mult": 0.5, "table": WIDTH_HALF_TABLE, "stem_stride": 1, "head": 640},
        image=(32, 32, 3),
    ),
)


def scaled(width_mult=0.5, resolution=32):
    """Return the second of ``NETWORKS`` at another width or resolution; the head is scaled too."""
    return Network(
        f"width {width_mult}, {resolution}x{resolution}",
        "mobilenet_v2",
        {"width_mult": width_mult, "table": WIDTH_HALF_TABLE, "stem_stride": 1, "head": round(1280 * width_mult)},
        image=(resolution, resolution, 3),
    )


INFERENCE = (
    NETWORKS[1],
    Network("MobileNetV2, 224x224x3", "mobilenet_v2", {}, image=(224, 224, 3), batch=1, num_classes=1000),
)


def depthwise_shapes(network):
    """Return the different depthwise convolutions of a network as (H, W, C, stride), in forward order."""
    shapes = []

    def visit(path, layer, shape, output_shape):
        if isinstance(layer, nn.DepthwiseConv2d):
            shapes.append((*shape, layer.stride[0]))

    build(network).trace(network.image, visit)
    return list(dict.fromkeys(shapes))


def build(network, dtype=np.float32):
    """Return the npnets model: no dropout, and padding that PyTorch has too.

    Gammas, betas and biases are random instead of one and zero, and the classifier's weights ten times their initial
    size: with the usual start, a peer that left out a shift or took a wrong layer for the classifier would pass.
    """
    model = models.build(
        network.model,
        num_classes=network.num_classes,
        in_channels=network.image[-1],
        dropout=0.0,
        padding="symmetric",
        dtype=dtype,
        **network.settings,
    )
    rng = np.random.default_rng(0)
    for parameter in model.parameters():
        kind = parameter.name.rsplit(".", 1)[-1]
        if kind == "gamma":
            parameter.value = rng.uniform(0.5, 1.5, parameter.shape)
        elif kind in ("beta", "b"):
            parameter.value = 0.1 * rng.standard_normal(parameter.shape)
    model.classifier.w.value *= 10
    return model


def plan(network):
    """Return the network as plain integers, read off the npnets model: what a peer needs to build the same one."""
    return plan_of(
        models.build(network.model, num_classes=network.num_classes, in_channels=network.image[-1], **network.settings)
    )


def plan_of(model):
    """Return the plan of a MobileNetV2 that has been built."""
    stem, head = model.stem.conv, model.head.conv
    return {
        "stem": {"C_in": stem.C_in, "C_out": stem.C_out, "stride": stem.stride},
        "blocks": [
            {
                "C_in": block.expand.C_in if hasattr(block, "expand") else block.depthwise.C_in,
                "expanded": block.depthwise.C_in,
                "C_out": block.project.C_out,
                "stride": block.depthwise.stride,
            }
            for block in model.blocks
        ],
        "head": {"C_in": head.C_in, "C_out": head.C_out},
        "bn": {"eps": model.stem.bn.eps, "decay": model.stem.bn.decay},
    }
