"""Every figure that more than one notebook draws, in one style.

============= =========================================================
``style.py``  colours, markers, fonts
``curves.py`` loss and error of a training
``steps.py``  where the time of a training step goes
``costs.py``  parameters and multiply-adds, and accuracy over them
============= =========================================================
"""

from npnets.plots.costs import accuracy_over_cost, layer_costs
from npnets.plots.curves import training_curves
from npnets.plots.steps import roofline, shares_by_kind, step_shares, step_times
from npnets.plots.style import COLOURS, FAMILIES, KINDS, STYLE, png

__all__ = [
    "COLOURS",
    "FAMILIES",
    "KINDS",
    "STYLE",
    "accuracy_over_cost",
    "layer_costs",
    "png",
    "roofline",
    "shares_by_kind",
    "step_shares",
    "step_times",
    "training_curves",
]
