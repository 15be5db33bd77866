"""Parameters and multiply-adds of any model, from shapes alone, and the papers' cost tables beside them.

The counting rules, for one image:

- a convolution costs ``K_h K_w C_in C_out H_out W_out`` multiply-adds, a depthwise one ``K_h K_w C H_out W_out``, a
  linear layer ``C_in C_out`` (the two of squeeze-and-excitation included);
- biases, batch norm, activations, pooling, residual sums and resizing cost nothing;
- parameters are what is trained: weights, biases, and gamma and beta of batch norm. Some sources leave batch norm out,
  others count its running statistics too: ``bn="none"`` and ``bn="all"`` of :func:`profile`.

The papers count multiply-adds, and so do we: a multiply-add is two floating-point operations.

================== ======================================================================================
``counting.py``    :func:`profile`, :func:`multi_scale`
``published.toml`` what the papers print, with its source
``printed.py``     a printed number against a computed one: does it reproduce?
``papers.py``      the papers' tables computed again: :func:`paper_tables`
``tables.py``      tables as text, Markdown and HTML
================== ======================================================================================
"""

from npnets.cost.counting import ATROUS, BATCH_NORM, MultiScale, Profile, Row, multi_scale, profile
from npnets.cost.papers import PAPERS, PaperTable, paper_tables
from npnets.cost.tables import html_table, markdown_table, text_table

__all__ = [
    "ATROUS",
    "BATCH_NORM",
    "PAPERS",
    "MultiScale",
    "PaperTable",
    "Profile",
    "Row",
    "html_table",
    "markdown_table",
    "multi_scale",
    "paper_tables",
    "profile",
    "text_table",
]
