"""Compound scaling (Tan and Le 2019, section 3.3): depth, width and resolution grow together.

The cost of a network is proportional to its depth, to the square of its width and to the square of its resolution. So
with ``alpha beta^2 gamma^2`` about 2, each step of phi about doubles it.
"""

import math

from npnets.shapes import multiplier, number


def scaling_of(phi, alpha=1.2, beta=1.1, gamma=1.15):
    """Return the factors of depth, width and resolution for a compound coefficient phi: equation 3 of the paper.

    ``d = alpha^phi``, ``w = beta^phi``, ``r = gamma^phi``, with ``alpha beta^2 gamma^2`` about 2.

    Parameters
    ----------
    phi : float
        How much more may be spent: the multiply-adds grow to about ``2^phi`` times as many.
    alpha, beta, gamma : float
        How it is divided among depth, width and resolution. The defaults were found by a grid search on EfficientNet-B0
        (their ``alpha beta^2 gamma^2`` is 1.92).

    Returns
    -------
    depth, width, resolution : float
        For :func:`compound_scaling`.

    Raises
    ------
    ValueError
        If phi is not a finite number, or so large that no float can hold a factor, or one of the others is not above 0.

    Notes
    -----
    EfficientNet-B1 to B7 do not follow it to the digit. Their widths and resolutions are about those of phi = 0.5, 1,
    2, 3.5, 5, 6 and 7; their depths fall behind from B4 on, to 3.1 for B7, where phi = 7 gives 3.6.

    >>> [round(factor, 2) for factor in scaling_of(2)]
    [1.44, 1.21, 1.32]
    """
    phi = number(phi, "phi")
    bases = {"alpha": alpha, "beta": beta, "gamma": gamma}
    try:
        return tuple(multiplier(base, name) ** phi for name, base in bases.items())
    except OverflowError:
        raise ValueError(f"phi is too large for alpha, beta and gamma, got {phi}") from None


def compound_scaling(depth, width, resolution, model="efficientnet_b0", **settings):
    """Return a network scaled in depth and width, and the resolution of its images.

    As section 5.1 of the paper scales MobileNetV1, V2 and ResNet-50: the repeats of each stage times ``depth``, rounded
    up; the channels times ``width``, rounded as the network rounds them; the width of the images in pixels times
    ``resolution``, rounded to the nearest integer (halves up).

    Parameters
    ----------
    depth, width, resolution : float
        d, w and r of equation 3: factors on those of the network, which has 1, 1, 1. See :func:`scaling_of`.
    model : str
        One of :func:`npnets.models.names` that takes ``depth_mult`` and ``width_mult``.
    **settings
        Of the network, as for :func:`npnets.models.build`.

    Returns
    -------
    model : nn.Module
    pixels : int
        The images for it are (N, pixels, pixels, in_channels).

    Raises
    ------
    ValueError
        If a factor is not above 0, or there is no such model, or it cannot be scaled in depth.

    >>> model, pixels = compound_scaling(1.4, 1.2, 1.3, "mobilenet_v2")
    >>> len(model.blocks), pixels
    (28, 291)
    """
    from npnets import models  # inside: the package imports this file

    factors = {"depth": depth, "width": width, "resolution": resolution}
    depth, width, resolution = (multiplier(factor, name) for name, factor in factors.items())
    pixels = math.floor(resolution * models.resolution(model) + 0.5)
    for setting, factor in (("depth_mult", "depth"), ("width_mult", "width")):
        if not models.has_setting(model, setting):
            able = ", ".join(name for name in models.names() if models.has_setting(name, setting))
            raise ValueError(f"{model} cannot be scaled in {factor}: it has no {setting}; these have: {able}")
        if setting in settings:
            raise ValueError(f"compound_scaling sets {setting} itself; give it as {factor}")
    if pixels < 1:
        raise ValueError(f"resolution {resolution} leaves no pixel of {models.resolution(model)}")
    return models.build(model, depth_mult=depth, width_mult=width, **settings), pixels
