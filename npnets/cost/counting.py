"""Parameters and multiply-adds of any model, layer by layer, from shapes alone."""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

from npnets.cost.tables import html_table, markdown_table, text_table
from npnets.nn import BatchNorm, Parameter
from npnets.shapes import integer, multiplier

BATCH_NORM = {"none": 0, "trainable": 1, "all": 2}
"""Ways to count the parameters of batch norm: how often its gammas and betas, of each of which there is one a channel.

As many numbers as these, mean and variance, are kept but not trained: "all" counts them too.
"""

ATROUS = ("as_written", "space_to_batch")
"""Ways to count a convolution with dilation; see :func:`profile`."""


class Row(NamedTuple):
    """One layer. The output shape is that of one image, (H, W, C) or (C,).

    ``weights`` are those of the parameters that take part in multiplications: no biases, no batch norm.
    """

    name: str
    kind: str
    output_shape: tuple
    params: int
    macs: int
    weights: int = 0


@dataclass(frozen=True)
class Profile:
    """What a network costs for one image.

    Attributes
    ----------
    input_shape : tuple
        (H, W, C), or (C,) for vectors.
    trained : list of Row
        In forward order, with the parameters that are trained.
    bn : {"trainable", "none", "all"}
        What of batch norm ``params`` counts: gamma and beta, nothing, or the two running statistics too.
    rows : list of Row
        ``trained``, with the parameters of batch norm counted that way.
    params, macs : int
        Totals.
    params_without_bn, params_with_statistics : int
        The totals for "none" and "all", whatever ``bn`` is.
    weights : int
        Without batch norm and biases.
    """

    input_shape: tuple
    trained: list
    bn: str = "trainable"

    @property
    def rows(self):
        times = BATCH_NORM[self.bn]
        return [row._replace(params=times * row.params) if _is_norm(row) else row for row in self.trained]

    @property
    def params(self):
        return sum(row.params for row in self.rows)

    @property
    def params_without_bn(self):
        return replace(self, bn="none").params

    @property
    def params_with_statistics(self):
        return replace(self, bn="all").params

    @property
    def weights(self):
        return sum(row.weights for row in self.trained)

    @property
    def macs(self):
        return sum(row.macs for row in self.trained)

    def part(self, name):
        """Return the profile of a part of the network: the layers whose path begins with this name.

        >>> from npnets import models
        >>> profile(models.mobilenet_v2(), (224, 224, 3)).part("classifier").macs
        1280000

        Raises
        ------
        ValueError
            If there is no such part; those that there are, are listed.
        """
        rows = [row for row in self.trained if row.name == name or row.name.startswith(f"{name}.")]
        if not rows:
            parts = dict.fromkeys(row.name.partition(".")[0] for row in self.trained)
            raise ValueError(f"the network has no part {name!r}; it has {', '.join(parts)}")
        return replace(self, trained=rows)

    def shares(self, *, weights_only=False):
        """Return kind -> (share of multiply-adds, share of parameters), largest first, of what costs anything.

        With ``weights_only``, the second is the share of the weights, as Table 2 of MobileNetV1 has it.
        """
        totals = {}
        for row in self.rows:
            params = row.weights if weights_only else row.params
            if params or row.macs:
                macs_before, params_before = totals.get(row.kind, (0, 0))
                totals[row.kind] = macs_before + row.macs, params_before + params
        all_params = self.weights if weights_only else self.params
        ordered = sorted(totals.items(), key=lambda item: item[1], reverse=True)
        return {kind: (macs / max(self.macs, 1), params / max(all_params, 1)) for kind, (macs, params) in ordered}

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


def profile(model, input_shape, *, bn="trainable", atrous="as_written"):
    """Return the cost of a model for one image.

    Parameters
    ----------
    model : nn.Module
        Its weights are neither drawn nor read, and no array is allocated.
    input_shape : tuple of int
        (H, W, C), or (N, H, W, C), where N is left out of the account; (C,) or (N, C) for vectors.
    bn : {"trainable", "none", "all"}
        Which parameters of batch norm count: gamma and beta, none, or the running mean and variance too.
    atrous : {"as_written", "space_to_batch"}
        How a convolution with dilation r counts: over its output pixels; or as TensorFlow 1 ran it, and DeepLab
        counted it. There the image was dealt out to r x r smaller ones, each r-th pixel along each axis, and these were
        convolved without dilation. They must be equally large, so height and width are rounded up to multiples of r.

    Returns
    -------
    Profile

    Raises
    ------
    ValueError
        If the shape does not fit the model (the message names the layer), or there is no such way to count.

    >>> from npnets import models
    >>> total = profile(models.mobilenet_v2(), (224, 224, 3))
    >>> total.params, total.macs
    (3504872, 300774272)
    """
    _check_choice("bn", bn, BATCH_NORM)
    _check_choice("atrous", atrous, ATROUS)
    shape = _image_shape(input_shape)
    rows = []

    def visit(path, layer, layer_shape, output_shape):
        parameters = {name: value for name, value in vars(layer).items() if isinstance(value, Parameter)}
        params = sum(parameter.size for parameter in parameters.values())
        weights = parameters["w"].size if "w" in parameters else 0
        macs = layer.macs(layer_shape)
        if atrous == "space_to_batch":
            macs = _dealt_out(macs, layer, output_shape)
        rows.append(Row(path, layer.kind, output_shape, params, macs, weights))

    model.trace(shape, visit)
    return Profile(shape, rows, bn)


@dataclass(frozen=True)
class MultiScale:
    """What a network costs for one image that is shown to it in several sizes, and perhaps mirrored too.

    Attributes
    ----------
    profiles : list of Profile
        One for each scale.
    mirrored : bool
        Whether each size is shown twice, the second time as its mirror image.
    macs, params : int
        Multiply-adds of all passes together; parameters of the network, which is one and the same.
    """

    profiles: list
    mirrored: bool

    @property
    def macs(self):
        return (1 + self.mirrored) * sum(one.macs for one in self.profiles)

    @property
    def params(self):
        return self.profiles[0].params


def multi_scale(model, input_shape, scales, *, mirrored=True, **counting):
    """Return the cost of inference at several scales, as in DeepLab's evaluation ("MF" in MobileNetV2, section 6.3).

    Parameters
    ----------
    model : nn.Module
    input_shape : (H, W, C)
    scales : list of float
        Of the image: n pixels become ``int((n - 1) s) + 1``, so that corners stay corners. 513 at 0.5 is 257.
    mirrored : bool
        Whether every size is shown a second time as its mirror image.
    counting
        Keywords of :func:`profile`.

    Returns
    -------
    MultiScale

    Raises
    ------
    ValueError
        As :func:`profile`; also if there are no scales, or one is not above 0.
    """
    H, W, C = _image_shape(input_shape)
    scales = [multiplier(scale, "scales") for scale in scales]
    if not scales:
        raise ValueError("scales must hold at least one scale, such as 1.0")
    sizes = [tuple(int((n - 1) * scale) + 1 for n in (H, W)) for scale in scales]
    return MultiScale([profile(model, (*size, C), **counting) for size in sizes], mirrored)


def _image_shape(input_shape):
    """Return (H, W, C) or (C,), without the number of images."""
    try:
        shape = tuple(input_shape)
    except TypeError:
        shape = ()
    if len(shape) not in (1, 2, 3, 4):
        raise ValueError(f"input_shape must be (H, W, C) or (N, H, W, C), or (C,) or (N, C), got {input_shape!r}")
    shape = tuple(integer(n, "input_shape", 1) for n in shape)
    return shape[1:] if len(shape) in (2, 4) else shape


def _dealt_out(macs, layer, output_shape):
    """Return the multiply-adds of a layer whose output is padded to whole multiples of its dilation."""
    dilation = getattr(layer, "dilation", (1, 1))
    padded = math.prod(-(-n // r) * r for n, r in zip(output_shape, dilation))
    return macs * padded // math.prod(output_shape[:2]) if dilation != (1, 1) else macs


def _check_choice(name, value, choices):
    if value not in tuple(choices):
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def _is_norm(row):
    return row.kind == BatchNorm.kind


def _size(shape):
    return " x ".join(map(str, shape))
