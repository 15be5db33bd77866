"""Every figure that more than one notebook draws, in one style.

================== =============================================="""

from npnets.plots.comparisons import curves_with_spread, seed_ranges
from npnets.plots.costs import accuracy_over_cost, layer_costs, pareto_fronts
from npnets.plots.curves import training_curves
from npnets.plots.grids import convolution_step, number_grids, window_grids, window_matrix, window_rows
from npnets.plots.kernels import kernel_tiles, matrix_equation
from npnets.plots.spirals import active_sectors, recovered_curves
from npnets.plots.steps import roofline, shares_by_kind, step_shares, step_times
from npnets.plots.style import COLOURS, FAMILIES, KINDS, STYLE, VARIANTS, png

__all__ = [
    "COLOURS",
    "FAMILIES",
    "KINDS",
    "STYLE",
    "VARIANTS",
    "accuracy_over_cost",
    "active_sectors",
    "convolution_step",
    "curves_with_spread",
    "kernel_tiles",
    "layer_costs",
    "matrix_equation",
    "number_grids",
    "pareto_fronts",
    "png",
    "recovered_curves",
    "roofline",
    "seed_ranges",
    "shares_by_kind",
    "step_shares",
    "step_times",
    "training_curves",
    "window_grids",
    "window_matrix",
    "window_rows",
]
