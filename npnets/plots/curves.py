"""The curves of a training."""

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from npnets.plots.style import COLOURS, STYLE


def training_curves(history, *, title=""):
    """Draw the loss and the error of a training over its epochs.

    Parameters
    ----------
    history : training.History
    title : str

    Returns
    -------
    matplotlib.figure.Figure
        Left the loss, right the share of wrong answers in percent, both on a logarithmic axis, since the last tenths
        are what differs. A training value is the mean over an epoch, while the weights change, and is drawn in the
        middle of the epoch; a test value is measured at its end.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 3.6), layout="constrained")
        left, right = figure.subplots(1, 2, sharex=True)
        if history.epochs:
            steps_per_epoch = history.epochs[0]["step"] / history.epochs[0]["epoch"]
            points = _thinned(history.losses, 300)
            left.plot(
                [step / steps_per_epoch for step, _ in points],
                [loss for _, loss in points],
                color=COLOURS["train"],
                alpha=0.4,
                linewidth=1,
                label="training, along the way",
            )
            errors = {part: _errors(history[f"{part}_accuracy"]) for part in ("train", "test")}
            _draw_epochs(left, history["epoch"], history["train_loss"], history["test_loss"])
            _draw_epochs(right, history["epoch"], errors["train"], errors["test"])
            if errors["test"]:
                last = (history["epoch"][-1], errors["test"][-1])
                text = f"{100 * (1 - history['test_accuracy'][-1]):.2f} %"
                right.annotate(text, last, textcoords="offset points", xytext=(0, 7), ha="center")
        for ax, label in ((left, "cross-entropy (nats)"), (right, "wrong answers (%)")):
            ax.set(xlabel="epoch", ylabel=label, yscale="log")
            ax.set_xlim(left=0)
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
            low, high = ax.get_ylim()
            few, many = (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)
            ax.yaxis.set_major_locator(LogLocator(subs=few if high > 10 * low else many))
            ax.yaxis.set_major_formatter("{x:g}")
            ax.yaxis.set_minor_formatter(NullFormatter())
            if history.epochs:
                ax.legend()
            else:
                ax.text(0.5, 0.5, "no epoch yet", ha="center", transform=ax.transAxes)
        figure.suptitle(title, fontsize=11)
    return figure


def _draw_epochs(ax, epochs, train, test):
    middle = [epoch - 0.5 for epoch in epochs]
    ax.plot(middle, train, "o-", markersize=4, color=COLOURS["train"], label="training, mean over the epoch")
    if test and test[0] is not None:
        ax.plot(epochs, test, "s-", markersize=4, color=COLOURS["test"], label="test")


def _errors(accuracies):
    """Return errors in percent for a logarithmic axis: where there is none, half of the smallest other one."""
    if not accuracies or accuracies[0] is None:
        return []
    errors = [100 * (1 - accuracy) for accuracy in accuracies]
    smallest = min((error for error in errors if error > 0), default=0.02)
    return [max(error, smallest / 2) for error in errors]


def _thinned(entries, most):
    """Average neighbouring [step, loss] entries so that at most so many are left."""
    size = -(-len(entries) // most) if entries else 1
    groups = [entries[k : k + size] for k in range(0, len(entries), size)]
    return [(group[-1][0], sum(loss for _, loss in group) / len(group)) for group in groups]
