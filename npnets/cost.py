"""Parameters and multiply-adds of any model, layer by layer, from shapes alone.

The counting rules, for one image:

- a convolution costs ``K_h K_w C_in C_out H_out W_out`` multiply-adds, a depthwise one ``K_h K_w C H_out W_out``, a
  linear layer ``C_in C_out``;
- biases, batch norm, activations, pooling, residual sums and resizing cost nothing;
- parameters are what is trained: weights, biases, and gamma and beta of batch norm.

The papers count multiply-adds, and so do we: a multiply-add is two floating-point operations.
"""

from dataclasses import dataclass
from typing import NamedTuple

from npnets.nn import BatchNorm, Parameter
from npnets.shapes import integer


class Row(NamedTuple):
    """One layer. The output shape is that of one image, (H, W, C) or (C,)."""

    name: str
    kind: str
    output_shape: tuple
    params: int
    macs: int


@dataclass(frozen=True)
class Profile:
    """What a network costs for one image.

    Attributes
    ----------
    input_shape : tuple
        (H, W, C), or (C,) for vectors.
    rows : list of Row
        In forward order.
    params, macs : int
        Totals: trained parameters and multiply-adds.
    params_without_bn : int
        Without gamma and beta of batch norm, as some tables count.
    params_with_statistics : int
        With the two running statistics of batch norm, as others count.
    """

    input_shape: tuple
    rows: list

    @property
    def params(self):
        return sum(row.params for row in self.rows)

    @property
    def params_without_bn(self):
        return sum(row.params for row in self.rows if row.kind != BatchNorm.kind)

    @property
    def params_with_statistics(self):
        return 2 * self.params - self.params_without_bn  # as many running statistics as gammas and betas

    @property
    def macs(self):
        return sum(row.macs for row in self.rows)

    def shares(self):
        """Return kind -> (share of multiply-adds, share of parameters), largest first, of what costs anything."""
        totals = {}
        for row in self.rows:
            if not (row.params or row.macs):
                continue
            macs, params = totals.get(row.kind, (0, 0))
            totals[row.kind] = macs + row.macs, params + row.params
        ordered = sorted(totals.items(), key=lambda item: item[1], reverse=True)
        return {kind: (macs / max(self.macs, 1), params / max(self.params, 1)) for kind, (macs, params) in ordered}

    def table(self, *, all_layers=False):
        """Return the rows as text: header, layers, total. Layers that cost nothing only with ``all_layers``."""
        lines = [("layer", "kind", "output", "parameters", "multiply-adds")]
        for row in self.rows:
            if all_layers or row.params or row.macs:
                lines.append((row.name, row.kind, _size(row.output_shape), f"{row.params:,}", f"{row.macs:,}"))
        lines.append(("total", "", "", f"{self.params:,}", f"{self.macs:,}"))
        return lines

    def to_markdown(self, *, all_layers=False):
        """Return the profile as a Markdown table."""
        return markdown_table(self.table(all_layers=all_layers), 3)

    def _repr_html_(self):
        return html_table(self.table())

    def __str__(self):
        return text_table(self.table(), 3)


def text_table(lines, left):
    """Return a table for a terminal: header, lines, total. The first ``left`` columns stand left, the others right."""
    widths = [max(map(len, column)) for column in zip(*lines)]
    align = [str.ljust if k < left else str.rjust for k in range(len(widths))]
    text = ["  ".join(put(cell, w) for put, cell, w in zip(align, line, widths)) for line in lines]
    rule = "-" * (sum(widths) + 2 * len(widths) - 2)
    return "\n".join([text[0], rule, *text[1:-1], rule, text[-1]])


def markdown_table(lines, left):
    """Return a table of the same lines as Markdown."""
    header, *lines = lines
    rule = ["---" if k < left else "---:" for k in range(len(header))]
    return "\n".join("| " + " | ".join(line) + " |" for line in (header, rule, *lines))


def html_table(lines):
    """Return a table of the same lines for a notebook."""
    header, *lines, total = lines
    cell = '<td style="text-align:right">{}</td>'.format
    head = "".join(f"<th>{name}</th>" for name in header)
    body = "".join(f"<tr>{''.join(map(cell, line))}</tr>" for line in lines)
    foot = "".join(f"<th style='text-align:right'>{text}</th>" for text in total)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody><tfoot><tr>{foot}</tr></tfoot></table>"


def profile(model, input_shape):
    """Return the cost of a model for one image.

    Parameters
    ----------
    model : nn.Module
        Its weights are neither drawn nor read.
    input_shape : tuple of int
        (H, W, C), or (N, H, W, C), where N is left out of the account; (C,) or (N, C) for vectors.

    Returns
    -------
    Profile

    Raises
    ------
    ValueError
        If the shape does not fit the model; the message names the layer.

    >>> from npnets import models
    >>> total = profile(models.mobilenet_v2(), (224, 224, 3))
    >>> total.params, total.macs
    (3504872, 300774272)
    """
    try:
        shape = tuple(input_shape)
    except TypeError:
        shape = ()
    if len(shape) not in (1, 2, 3, 4):
        raise ValueError(f"input_shape must be (H, W, C) or (N, H, W, C), or (C,) or (N, C), got {input_shape!r}")
    shape = tuple(integer(n, "input_shape", 1) for n in shape)
    if len(shape) in (2, 4):
        shape = shape[1:]
    rows = []

    def visit(path, layer, layer_shape, output_shape):
        params = sum(value.size for value in vars(layer).values() if isinstance(value, Parameter))
        rows.append(Row(path, layer.kind, output_shape, params, layer.macs(layer_shape)))

    model.trace(shape, visit)
    return Profile(shape, rows)


def _size(shape):
    return " x ".join(map(str, shape))
