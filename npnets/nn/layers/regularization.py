"""Dropout and drop path."""

from npnets import ops
from npnets.nn.layers.layer import Layer
from npnets.shapes import number


class Dropout(Layer):
    """Dropout (see :func:`npnets.ops.dropout_forward`).

    Parameters
    ----------
    rate : float
        Probability of being dropped, 0 <= rate < 1.
    rng : numpy.random.Generator
        Its state is saved in checkpoints, so that a resumed run draws the same masks.
    """

    kind = "dropout"

    def __init__(self, rate, *, rng):
        super().__init__()
        self.rate = number(rate, "Dropout: rate", at_least=0, below=1)
        self.rng = rng.spawn(1)[0]

    def apply(self, x, training):
        return ops.dropout_forward(x, self.rate, training=training, rng=self.rng)

    def apply_backward(self, dy, cache):
        return ops.dropout_backward(dy, cache)

    def describe(self):
        return f"{self.rate}"


class DropPath(Layer):
    """Stochastic depth, one draw for each image (see :func:`npnets.ops.drop_path_forward`).

    Parameters
    ----------
    survival_prob : float
        Probability that a branch is kept, 0 < survival_prob <= 1.
    rng : numpy.random.Generator
    """

    kind = "dropout"

    def __init__(self, survival_prob, *, rng):
        super().__init__()
        self.survival_prob = number(survival_prob, "DropPath: survival_prob", above=0, at_most=1)
        self.rng = rng.spawn(1)[0]

    def apply(self, x, training):
        return ops.drop_path_forward(x, self.survival_prob, training=training, rng=self.rng)

    def apply_backward(self, dy, cache):
        return ops.drop_path_backward(dy, cache)

    def describe(self):
        return f"{self.survival_prob}"
