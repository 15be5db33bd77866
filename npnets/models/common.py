"""The settings that all convolutional networks share, checked in one place."""

import numpy as np

from npnets.shapes import choice, floating, integer, number


def layer_settings(*, padding, bn_decay, bn_eps, seed, dtype):
    """Return the keywords that every block of a network gets: these settings, and a generator for the seed.

    Parameters
    ----------
    padding : {"same", "symmetric"}
    bn_decay, bn_eps : float
        0 <= bn_decay < 1, 0 <= bn_eps.
    seed : int
        From 0.
    dtype : numpy dtype
        float32 or float64.

    Returns
    -------
    dict
        padding, bn_decay, bn_eps, rng, dtype.

    Raises
    ------
    ValueError
        If a setting is something else; the message names it.
    """
    return {
        "padding": choice(padding, "padding", ("same", "symmetric")),
        "bn_decay": number(bn_decay, "bn_decay", at_least=0, below=1),
        "bn_eps": number(bn_eps, "bn_eps", at_least=0),
        "rng": generator(seed),
        "dtype": floating(dtype),
    }


def generator(seed):
    """Return the generator that draws a network's weights, or raise a ``ValueError`` if the seed is no integer."""
    return np.random.default_rng(integer(seed, "seed", 0))
