"""The style of all figures: colours, markers, fonts.

Colours are those of Okabe and Ito, which colour-blind readers can tell apart; the same thing has the same colour
everywhere. Figures are made without pyplot's global state, so that they can be made anywhere.
"""

import io

import matplotlib
from matplotlib.colors import to_rgb

COLOURS = {
    "train": "#0072B2",  # blue
    "test": "#D55E00",  # vermilion
    "grey": "#666666",
}

KINDS = {  # of layers: colour and marker. Neighbours differ in brightness too, so that they can be told apart in grey.
    "block in one op": ("#56B4E9", "P"),  # sky blue
    "pointwise": ("#0072B2", "o"),  # blue
    "depthwise": ("#E69F00", "^"),  # orange
    "batch norm": ("#009E73", "s"),  # green
    "linear": ("#CC79A7", "v"),  # purple
    "conv": ("#D55E00", "D"),  # vermilion
    "residual sum": ("#AAAAAA", "X"),
    "update": ("#444444", "*"),
    "other": ("#CCCCCC", "."),
}

STYLE = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "savefig.dpi": 150,
}

FAMILIES = {  # of networks: colour and marker
    "MobileNetV1": ("#0072B2", "o"),  # blue
    "MobileNetV2": ("#D55E00", "s"),  # vermilion
    "EfficientNet": ("#009E73", "^"),  # green
    "ResNet": ("#CC79A7", "D"),  # purple
    "Inception": ("#E69F00", "v"),  # orange
    "quoted": ("#666666", "x"),
}

VARIANTS = {  # of one network: colour and line
    # without and with batch norm
    "baseline": ("#000000", "--"),
    "batch_norm": ("#0072B2", "-"),  # blue
    # the activation, or what follows a projection to few dimensions
    "linear": ("#0072B2", "-"),  # blue
    "relu": ("#D55E00", "--"),  # vermilion
    "relu6": ("#E69F00", (0, (6, 1.5, 1, 1.5))),  # orange
    # what the shortcuts of the blocks join
    "bottleneck": ("#0072B2", "-"),  # blue: with linear bottlenecks, it is the same network as "linear"
    "expansion": ("#CC79A7", "-."),  # purple
    "none": ("#000000", ":"),
    # MobileNetV2 at two costs
    "large": ("#D55E00", "-"),  # vermilion, as its family
    "small": ("#E69F00", "--"),  # orange
    # the optimizer: gradient descent with momentum, RMSProp with three epsilons
    "sgd": ("#000000", ":"),
    "epsilon_1": ("#0072B2", "-"),  # blue
    "epsilon_1e-3": ("#D55E00", "--"),  # vermilion
    "epsilon_1e-8": ("#E69F00", "-."),  # orange
}


def joined(kind):
    """Return the kind under which a layer is drawn: its own, or "other"."""
    return kind if kind in KINDS else "other"


def kind_style(kind):
    """Return colour and marker of a kind of layer."""
    return KINDS[joined(kind)]


def brightness(colour):
    """Return how bright a colour looks, from 0 to 1: whether dark or light ink stands out on it."""
    red, green, blue = to_rgb(colour)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def png(figure):
    """Return a figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format="png")
    return buffer.getvalue()
