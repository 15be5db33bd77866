"""How long one image takes: inference with a batch of one on one core, as in section 5.2 of EfficientNet.

"We measure latency on a single-thread Intel Xeon CPU with batch size 1 to better reflect real-world use cases" (Tan and
Le 2019). The weights are random, for their values do not matter; batch norm is folded into them
(:func:`npnets.nn.fold_batch_norm`), as it would be where a network is used::

    LatencyReport([measure_latency(models.mobilenet_v2(), (224, 224, 3), name="mobilenet_v2")])

How a training step divides over the layers is told by :mod:`npnets.profiling`; other libraries are timed by
:mod:`npnets.benchmarks`.
"""

import time
from dataclasses import dataclass

import numpy as np

from npnets import nn, parallel
from npnets.cost import html_table, markdown_table, profile, text_table
from npnets.profiling import three_digits
from npnets.profiling.step import left_as_it_was, progress_bar, random_images
from npnets.shapes import integer


@dataclass(frozen=True)
class Latency:
    """The times of one model for one image.

    Attributes
    ----------
    name : str
    input_shape : tuple
        (H, W, C), or (C,) for vectors.
    params, macs : int
        Parameters of the network as it is trained, and multiply-adds for the image (see :func:`npnets.cost.profile`).
    seconds : tuple of float
        Of each run, in their order.
    threads : int
    folded : bool
        Whether batch norm was folded into the weights.
    """

    name: str
    input_shape: tuple
    params: int
    macs: int
    seconds: tuple
    threads: int
    folded: bool

    @property
    def median(self):
        """Seconds of the run in the middle."""
        return self._percentile(50)

    @property
    def spread(self):
        """Seconds below which a tenth of the runs, and nine tenths of them, were."""
        return self._percentile(10), self._percentile(90)

    @property
    def fastest(self):
        """Seconds of the fastest run."""
        return min(self.seconds)

    @property
    def macs_per_second(self):
        """Multiply-adds a second of the run in the middle; 0 if the clock did not move."""
        return self.macs / self.median if self.median else 0.0

    def _percentile(self, q):
        return float(np.percentile(self.seconds, q))

    def _repr_html_(self):
        return LatencyReport((self,))._repr_html_()

    def __str__(self):
        return str(LatencyReport((self,)))

    def to_json(self):
        """Return everything as a dict of plain values, in seconds."""
        low, high = self.spread
        summary = {"median": self.median, "low": low, "high": high, "fastest": self.fastest}
        lists = {"input_shape": list(self.input_shape), "seconds": list(self.seconds)}
        return vars(self) | lists | {"summary": summary}


@dataclass(frozen=True)
class LatencyReport:
    """The latencies of some models, beside their parameters and multiply-adds.

    Attributes
    ----------
    latencies : sequence of Latency
    """

    latencies: tuple

    def table(self):
        """Return the header and a line for each model, as text."""
        header = ("model", "input", "M parameters", "M mult-adds", "ms", "10 % to 90 %", "fastest", "G mult-adds/s")
        return [header, *map(_line, self.latencies)]

    def heading(self):
        """Return one line: how it was measured."""
        settings = {(one.threads, one.folded, len(one.seconds)) for one in self.latencies}
        if len(settings) != 1:
            return "Inference of one image, measured in different ways"
        threads, folded, repeats = settings.pop()
        how = "batch norm folded" if folded else "batch norm as it is trained"
        cores = "1 thread" if threads == 1 else f"{threads} threads"
        return f"Inference of one image, {cores}, {how}: median of {repeats}"

    def to_text(self):
        """Return the heading and the table for a terminal."""
        return f"{self.heading()}\n\n{text_table(self.table(), 2, total=False)}"

    def to_markdown(self):
        """Return the same as Markdown."""
        return f"**{self.heading()}**\n\n{markdown_table(self.table(), 2)}"

    def _repr_html_(self):
        return f"<p>{self.heading()}</p>{html_table(self.table(), 2, total=False)}"

    def __str__(self):
        return self.to_text()

    def to_json(self):
        """Return all latencies as a list of dicts of plain values, in seconds."""
        return [one.to_json() for one in self.latencies]


def _line(one):
    low, median, high = (three_digits(1e3 * seconds) for seconds in (one.spread[0], one.median, one.spread[1]))
    size = " x ".join(map(str, one.input_shape))
    counts = (three_digits(one.params / 1e6), three_digits(one.macs / 1e6))
    speed = three_digits(one.macs_per_second / 1e9)
    return one.name, size, *counts, median, f"{low} to {high}", three_digits(1e3 * one.fastest), speed


def measure_latency(model, input_shape, *, repeats=30, warmup=5, threads=1, fold=True, name="", progress=False):
    """Time a model's inference of one image.

    The model is given back as it was.

    Parameters
    ----------
    model : nn.Module
    input_shape : tuple of int
        (H, W, C), or (C,) for vectors: that of the image.
    repeats : int
        Runs that count.
    warmup : int
        Runs before them that do not: memory is fetched and caches fill.
    threads : int
    fold : bool
        Fold batch norm into the weights before.
    name : str
        For the table; by default the class of the model.
    progress : bool
        Show a bar on stderr.

    Returns
    -------
    Latency

    Raises
    ------
    ValueError
        If a setting is out of range, or the shape does not fit the model; the message names the layer.

    >>> block = nn.DepthwiseSeparable(4, 8, rng=np.random.default_rng(0))
    >>> latency = measure_latency(block, (6, 6, 4), repeats=3, name="a block")
    >>> latency.params, latency.macs, len(latency.seconds), latency.fastest <= latency.median
    (92, 2448, 3, True)
    """
    repeats, warmup = integer(repeats, "repeats", 1), integer(warmup, "warmup", 0)
    cost = profile(model, input_shape)
    runner = nn.fold_batch_norm(model) if fold else model
    x = random_images(runner, (1, *cost.input_shape), np.random.default_rng(0))
    name = name or type(model).__name__

    seconds = []
    with parallel.threads(threads), left_as_it_was(runner), progress_bar(progress, name, " runs") as bar:
        bar.reset(total=warmup + repeats)
        for _ in range(warmup + repeats):
            start = time.perf_counter()
            runner(x)
            seconds.append(time.perf_counter() - start)
            bar.update()
    return Latency(name, cost.input_shape, cost.params, cost.macs, tuple(seconds[warmup:]), threads, bool(fold))
