"""Where the time of a training step goes, layer by layer, beside multiply-adds and bytes.

MobileNetV1 "spends 95% of it's computation time in 1x1 convolutions" (Howard et al. 2017, section 3.2); what Table 2
counts there are multiply-adds. Here time is measured, so that the two can be compared::

    profile = profile_step(models.mobilenet_v1(), (8, 224, 224, 3))
    profile                                              # in a notebook: the table, layer by layer
    profile.shares()["pointwise"]                        # of the time, of the multiply-adds, of the parameters

What is counted, for the whole batch:

- *Multiply-adds.* Forward as in :mod:`npnets.cost`; backward twice that, since the entries of dx and dw together are
  sums of twice as many products as those of y. What costs nothing there costs nothing here.
- *Bytes*, from shapes and dtype: the least that has to be moved if nothing stays in the cache between two layers and
  everything is read once. Forward reads x and the parameters and writes y. Backward reads dy and the parameters, and x
  where the gradient depends on it, and writes dx and the gradients of the parameters. A residual sum reads two arrays
  and writes one. Other modules that do something with what their layers return, scale or resize or join it, are
  counted likewise, without their layers. A layer that goes over its input twice, as batch norm does in training, really
  moves more.
- *Time*, the median over some steps. A layer is timed by replacing its ``forward`` and ``backward`` during a step. In
  between, steps are timed that nobody looks into, so that it shows what the looking costs.

Where a block is one op (:class:`npnets.nn.blocks.Bottleneck`), its layers cannot be timed in it. So they are carried
out one after the other here, which takes longer than usual; both times are given. With ``whole_blocks=True`` the blocks
are timed as they are.

=============== =========================================================================
``report.py``   what was measured, and how it is shown
``watching.py`` what is timed: the parts of a model, and the clock and the counter on them
``step.py``     the measurement: ``profile_step``
=============== =========================================================================
"""

from npnets.profiling.report import (
    BLOCK,
    GROUPINGS,
    NOTE,
    SORTS,
    Pass,
    Row,
    StepProfile,
    rates,
    three_digits,
)
from npnets.profiling.step import profile_step
from npnets.profiling.watching import NEEDS_X, Clock, Counter, Unit, taken_apart, units, watched

__all__ = [
    "BLOCK",
    "GROUPINGS",
    "NEEDS_X",
    "NOTE",
    "SORTS",
    "Clock",
    "Counter",
    "Pass",
    "Row",
    "StepProfile",
    "Unit",
    "profile_step",
    "rates",
    "taken_apart",
    "three_digits",
    "units",
    "watched",
]
