"""The network of section 4.1 of the batch-norm paper (Ioffe and Szegedy 2015).

784 - 100 - 100 - 100 - 10, sigmoids, small Gaussian weights. With batch norm, each hidden layer is
``g(BN(W u))``: the normalization stands before the non-linearity (section 3.2), and takes over the bias's role.
"""

import numpy as np

from npnets import nn
from npnets.models.common import generator
from npnets.shapes import boolean, integer, integers, number

HIDDEN = (100, 100, 100)  # "3 fully-connected hidden layers with 100 activations each"
WEIGHT_STD = 0.1  # the paper says "small" and gives no number


def mlp_batch_norm(
    num_classes=10,
    in_channels=1,
    *,
    batch_norm=True,
    image_size=28,
    hidden=HIDDEN,
    weight_std=WEIGHT_STD,
    activation="sigmoid",
    dropout=0.0,
    bn_decay=0.99,
    bn_eps=1e-3,
    seed=0,
    dtype=np.float32,
):
    """Return the fully connected network of section 4.1, with or without batch norm.

    Parameters
    ----------
    num_classes, in_channels, image_size : int
        The input is (N, image_size, image_size, in_channels) and is flattened.
    batch_norm : bool
        With it, hidden layers have no bias: beta does its work.
    hidden : tuple of int
    weight_std : float
        Standard deviation of all weights at the start.
    activation : {"sigmoid", "relu", "relu6", "swish"}
    dropout : float
        Rate before the classifier.
    bn_decay, bn_eps, seed, dtype
        As for the other models.

    Returns
    -------
    nn.Sequential
        flatten, hidden, dropout, classifier. The inputs of the last sigmoid (Figure 1 b, c) are the outputs of
        ``hidden.2.bn`` with batch norm and of ``hidden.2.linear`` without.
    """
    rng, batch_norm = generator(seed), boolean(batch_norm, "batch_norm")
    weight = {"initializer": nn.init.gaussian(weight_std), "rng": rng, "dtype": dtype}
    norm = {"decay": number(bn_decay, "bn_decay", at_least=0, below=1), "eps": number(bn_eps, "bn_eps", at_least=0)}
    blocks = []
    C = integer(image_size, "image_size", 1) ** 2 * integer(in_channels, "in_channels", 1)
    for width in integers(hidden, "hidden"):
        layers = {"linear": nn.Linear(C, width, bias=not batch_norm, **weight)}
        if batch_norm:
            layers["bn"] = nn.BatchNorm(width, **norm, dtype=dtype)
        blocks.append(nn.Sequential(**layers, act=nn.activation_layer(activation)))
        C = width
    return nn.Sequential(
        flatten=nn.Flatten(),
        hidden=blocks,
        dropout=nn.Dropout(dropout, rng=rng),
        classifier=nn.Linear(C, integer(num_classes, "num_classes", 1), **weight),
    )
