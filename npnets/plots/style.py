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

VARIANTS = {  # of one network, without and with batch norm: colour and line
    "baseline": ("#000000", "--"),
    "batch_norm": ("#0072B2", "-"),  # blue
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
