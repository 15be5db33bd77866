"""The measurement: a training step, or an inference, again and again, with its parts timed and without."""

import contextlib
import time

import numpy as np

from npnets import nn, ops, optim, parallel
from npnets.profiling.report import Pass, Row, StepProfile
from npnets.profiling.watching import Clock, Counter, Unit, taken_apart, units, watched
from npnets.shapes import integer


def profile_step(
    model,
    input_shape,
    *,
    repeats=10,
    warmup=2,
    threads=None,
    inference=False,
    whole_blocks=False,
    name="",
    progress=False,
):
    """Time a training step of a model, or its inference, layer by layer.

    A training step is the forward, a softmax cross-entropy, the backward and an RMSProp update, on images drawn at
    random. (An output that is not (N, K) is taken for the scores of K classes in every pixel.) The model is given back
    as it was: weights, running statistics, gradients, caches and random generators.

    Parameters
    ----------
    model : nn.Module
    input_shape : tuple of int
        (N, H, W, C), or (N, C) for vectors.
    repeats : int
        Steps of which the median is taken, with the layers timed and as many without.
    warmup : int
        Steps before them; two more count multiply-adds and bytes.
    threads : int, optional
        By default the cores this process may use.
    inference : bool
        Time the forward alone, with batch norm folded into the convolutions (:func:`npnets.nn.fold_batch_norm`).
    whole_blocks : bool
        Time blocks that are one op as they are, instead of their layers.
    name : str
        Of the model, for the heading.
    progress : bool
        Show a bar on stderr.

    Returns
    -------
    StepProfile

    Raises
    ------
    ValueError
        If a setting is out of range, or the shape does not fit the model; the message names the layer.

    >>> block = nn.DepthwiseSeparable(4, 8, rng=np.random.default_rng(0))
    >>> profile = profile_step(block, (2, 6, 6, 4), repeats=1, threads=1)
    >>> [(row.name, row.kind, row.forward.macs) for row in profile.rows[:3]]
    [('depthwise', 'depthwise', 2592), ('depthwise_bn', 'batch norm', 0), ('pointwise', 'pointwise', 2304)]
    """
    shape = _batch_shape(input_shape)
    repeats, warmup = integer(repeats, "repeats", 1), integer(warmup, "warmup", 0)
    threads = parallel.available_cores() if threads is None else threads
    output_shape = model.trace(shape[1:], lambda *layer: None)
    if inference:
        model = nn.fold_batch_norm(model)
    with parallel.threads(threads), left_as_it_was(model), progress_bar(progress, "profile", " steps") as bar:
        step = _Inference(model, shape) if inference else _TrainingStep(model, shape, output_shape)
        steps, rows = _measure(step, not whole_blocks, repeats, warmup, bar)
    return StepProfile(shape, rows, *steps, threads, repeats, bool(inference), name)


def _measure(step, take_apart, repeats, warmup, bar):
    """Return the three times of a step (see :class:`StepProfile`) and the rows of its layers."""

    def seconds():
        start = time.perf_counter()
        step()
        taken = time.perf_counter() - start
        bar.update()
        return taken

    def inside():
        return taken_apart(step.model) if take_apart else contextlib.nullcontext(False)

    for _ in range(warmup):
        seconds()
    counter = Counter()
    with inside() as changed:
        layers = units(step.model, seconds)
        with watched(layers, counter.around):
            seconds()
    bar.reset(total=(2 + changed) * repeats)
    everything = [*layers, *step.more_units()]
    as_it_is, apart, timed, parts = [], [], [], []
    for _ in range(repeats):
        as_it_is.append(seconds())
        clock = Clock()
        with inside():
            apart.append(seconds() if changed else as_it_is[-1])
            with watched(everything, clock.around):
                timed.append(seconds())
        parts.append(clock.seconds)
    rows = [_row(unit, parts, counter) for unit in everything]
    rest = [total - sum(part.values()) for total, part in zip(timed, parts)]
    rows.append(Row("between layers", "between layers", (), 0, other=_median(rest)))
    return [_median(times) for times in (as_it_is, apart, timed)], rows


class _TrainingStep:
    """Forward, loss, backward, update."""

    def __init__(self, model, shape, output_shape):
        rng = np.random.default_rng(0)
        parameters = model.parameters()
        self.model, self.x = model, random_images(model, shape, rng)
        self.loss = _Loss(rng.integers(output_shape[-1], size=(shape[0], *output_shape[:-1])))
        self.optimizer = optim.RMSProp(parameters, learning_rate=1e-4) if parameters else None

    def __call__(self):
        self.loss.forward(self.model(self.x, training=True))
        self.model.backward(self.loss.backward(1.0))
        if self.optimizer is not None:
            self.optimizer.step()

    def more_units(self):
        """Return what is timed besides the layers."""
        update = [] if self.optimizer is None else [Unit("update", "update", self.optimizer)]
        return [Unit("loss", "loss", self.loss), *update]


class _Inference:
    """A forward."""

    def __init__(self, model, shape):
        self.model, self.x = model, random_images(model, shape, np.random.default_rng(0))

    def __call__(self):
        self.model(self.x)

    def more_units(self):
        return []


class _Loss:
    """Softmax cross-entropy of each pixel (N, H, W, K), or of each image (N, K), with labels (N, H, W) or (N,)."""

    def __init__(self, labels):
        self.labels = labels

    def forward(self, logits):
        rows = logits.reshape(-1, logits.shape[-1])  # (N, H, W, K) -> (N H W, K)
        loss, self.cache = ops.softmax_cross_entropy_forward(rows, self.labels.reshape(-1))
        return loss

    def backward(self, dy):
        dlogits = ops.softmax_cross_entropy_backward(dy, self.cache)
        return dlogits.reshape(*self.labels.shape, -1)  # (N H W, K) -> (N, H, W, K)


def random_images(model, shape, rng):
    """Return standard normal images of a shape, in the dtype of a model."""
    dtype = next((parameter.dtype for parameter in model.parameters()), np.float32)
    return rng.standard_normal(shape, np.float32).astype(dtype, copy=False)


def _batch_shape(input_shape):
    try:
        shape = tuple(integer(n, "input_shape", 1) for n in input_shape)
    except TypeError:
        shape = ()
    if len(shape) not in (2, 4):
        raise ValueError(f"input_shape must be (N, H, W, C), or (N, C) for vectors, got {input_shape!r}")
    return shape


def _row(unit, parts, counter):
    """Return the row of a unit: the median of the seconds in ``parts``, a dict for each step, and its counts."""

    def seconds(method):
        return _median([part.get((unit.name, method), 0.0) for part in parts])

    ways = []
    for method in ("forward", "backward"):
        key = unit.name, method
        ways.append(Pass(seconds(method), counter.macs.get(key, 0), counter.bytes.get(key, 0)))
    params = sum(parameter.size for parameter in unit.parameters)
    return Row(unit.name, unit.kind, counter.output_shapes.get(unit.name, ()), params, *ways, seconds("step"))


def _median(numbers):
    return float(np.median(numbers))


@contextlib.contextmanager
def left_as_it_was(model):
    """Give the model back as it was before the block."""
    attributes = [(module, dict(vars(module))) for _, module in model.named_modules()]
    values = [value for _, before in attributes for value in before.values()]
    parameters = [(value, value.name, value.grad) for value in values if isinstance(value, nn.Parameter)]
    generators = [(generator, generator.bit_generator.state) for _, generator in model.generators()]
    state = model.state_dict()
    try:
        yield
    finally:
        for module, before in attributes:
            vars(module).clear()
            vars(module).update(before)
        for parameter, name, gradient in parameters:
            parameter.name, parameter.grad = name, gradient
        for generator, before in generators:
            generator.bit_generator.state = before
        model.load_state_dict(state)


def progress_bar(shown, what, unit):
    """Return a tqdm bar, imported here so that `import npnets` stays quick."""
    from tqdm import tqdm

    return tqdm(desc=what, unit=unit, leave=False, disable=not shown)
