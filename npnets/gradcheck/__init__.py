"""Gradient checking: is a backward pass right, and if not, which mistake is in it?

Start with :func:`check_op`: it compares a forward and a backward with the numerical gradient. :func:`check_module` does
the same for a whole network along random directions. Where an op is known, :func:`diagnose` names the mistake: "this is
the gradient you get when the variance is treated as a constant".

===================== ================================================================
numerical.py          the two ways to differentiate without calculus, and their errors
report.py             the tables that the checks return
single.py, whole.py   check_op, check_module
catalogue.py          what is known about ops and mistakes; ``classic/`` holds them
diagnosis.py          which mistake it is; describe.py, where it is none of them
effects.py            which mistakes a check can see at all
everything.py         every op and layer of npnets: ``python -m npnets gradcheck``
===================== ================================================================
"""

from npnets.gradcheck.catalogue import Mistake, known_ops, mistakes
from npnets.gradcheck.diagnosis import Diagnosis, Finding, diagnose
from npnets.gradcheck.effects import effects
from npnets.gradcheck.everything import check_everything, names_of_everything
from npnets.gradcheck.numerical import central_differences, complex_step, relative_error
from npnets.gradcheck.report import Report, Row
from npnets.gradcheck.single import check_op
from npnets.gradcheck.whole import check_module

__all__ = [
    "Diagnosis",
    "Finding",
    "Mistake",
    "Report",
    "Row",
    "central_differences",
    "check_everything",
    "check_module",
    "check_op",
    "complex_step",
    "diagnose",
    "effects",
    "known_ops",
    "mistakes",
    "names_of_everything",
    "relative_error",
]
