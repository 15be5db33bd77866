"""Every figure that more than one notebook draws, in one style.

Colours are those of Okabe and Ito, which colour-blind readers can tell apart; the same thing has the same colour
everywhere (``COLOURS``). Figures are made without pyplot's global state, so that they can be made anywhere.
"""

import io

import matplotlib
from matplotlib.figure import Figure

COLOURS = {
    "train": "#0072B2",  # blue
    "test": "#D55E00",  # vermilion
    "grey": "#666666",
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


def training_curves(history, *, title=""):
    """Draw the loss and the error of a training over its epochs.

    Parameters
    ----------
    history : training.History
    title : str

    Returns
    -------
    matplotlib.figure.Figure
        Left: training loss along the way, training and test loss at the end of each epoch. Right: the share of wrong
        answers in percent, on a logarithmic axis, since the last tenths are what differs.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 3.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        epochs = history["epoch"]
        per_epoch = history.epochs[0]["step"] / history.epochs[0]["epoch"] if epochs else 1
        if history.losses:
            steps, losses = zip(*history.losses)
            left.plot([step / per_epoch for step in steps], losses, color=COLOURS["train"], alpha=0.5, linewidth=1)
        for ax, name, scale in ((left, "loss", None), (right, "accuracy", lambda a: 100 * (1 - a))):
            for part, marker in (("train", "o"), ("test", "s")):
                values = history[f"{part}_{name}"]
                if epochs and values[0] is not None:
                    values = values if scale is None else [scale(value) for value in values]
                    label = "training" if part == "train" else "test"
                    ax.plot(epochs, values, marker=marker, markersize=4, color=COLOURS[part], label=label)
            ax.set_xlabel("epoch")
            ax.set_yscale("log")
            ax.yaxis.set_major_formatter("{x:g}")
            ax.yaxis.set_minor_formatter(matplotlib.ticker.LogFormatter(minor_thresholds=(1.2, 0.6)))
            if epochs:
                ax.legend()
        left.set_ylabel("cross-entropy (nats)")
        right.set_ylabel("wrong answers (%)")
        figure.suptitle(title, fontsize=11)
    return figure


def png(figure):
    """Return a figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format="png")
    return buffer.getvalue()
