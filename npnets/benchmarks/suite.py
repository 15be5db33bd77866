"""The benchmarks: what is compared with what, and the tables made of it."""

from dataclasses import asdict

from npnets.benchmarks import measure, networks
from npnets.benchmarks.accuracy import time_to_accuracy
from npnets.benchmarks.report import Section, memory_table, time_table
from npnets.benchmarks.roofline import roofline
from npnets.benchmarks.scaling import scaling
from npnets.benchmarks.shares import shares


def train_step(setup, nets=networks.NETWORKS):
    """Time forward, backward and update of each network, and look at the memory it takes."""
    comparisons = []
    for network in nets:
        job = {"benchmark": "train_step", "network": asdict(network), "plan": networks.plan(network)}
        comparisons += measure.compare(setup, job, libraries=setup.libraries(chainer=True))
    tables = [time_table(comparisons), memory_table(comparisons)]
    notes = _agreement(comparisons, "logits and loss, in float64 also on every gradient")
    if setup.torch is not None:
        notes += (
            "The update is RMSProp with momentum in both, and nearly the same work: PyTorch's mean square starts at "
            "zero and its eps stands outside the root.",
        )
    if setup.chainer is not None:
        notes += (
            f"Chainer {setup.chainer.version} runs on its NumPy backend, with NumPy's matrix products at the same "
            "number of threads, and in fewer rounds and steps, since it is slow. Its RMSprop has no momentum.",
        )
    title = f"Training step: forward, backward, update; batches of {' and '.join(_batches(nets))} images"
    return Section(title, tuple(comparisons), tuple(filter(None, tables)), notes)


def inference(setup, nets=networks.INFERENCE):
    """Time the forward of each network with batch norm folded into the convolutions, in all libraries."""
    comparisons = []
    for network in nets:
        job = {"benchmark": "inference", "network": asdict(network), "plan": networks.plan(network)}
        comparisons += measure.compare(setup, job)
    tables = [time_table(comparisons), memory_table(comparisons)]
    notes = _agreement(comparisons, "the logits of networks with the same running statistics")
    title = f"Inference with batch norm folded; batches of {' and '.join(_batches(nets))} images"
    return Section(title, tuple(comparisons), tuple(filter(None, tables)), notes)


def depthwise(setup, shapes=None, batch=64):
    """Time the depthwise convolution alone; the backward gives the gradients of the images and of the kernel.

    ``shapes`` are rows of (H, W, C, stride); by default all that the width-0.5 network has.
    """
    shapes = shapes or networks.depthwise_shapes(networks.NETWORKS[1])

    def listed(N):
        return [(f"{H}x{W}x{C}, stride {s}", (N, H, W, C), s) for H, W, C, s in shapes]

    job = {"benchmark": "depthwise", "shapes": listed(batch)}
    comparisons = measure.compare(setup, job, smaller={"shapes": listed(2)})
    notes = _agreement(comparisons, "y, dx and dw")
    notes += ("The same arrays are used again and again: small ones stay in the cache.",)
    title = f"Depthwise 3x3 convolution on every shape of the width-0.5 network, {batch} images"
    return Section(title, tuple(comparisons), (time_table(comparisons),), notes)


BENCHMARKS = {
    "train_step": train_step,
    "inference": inference,
    "depthwise": depthwise,
    "shares": shares,
    "roofline": roofline,
    "scaling": scaling,
    "time_to_accuracy": time_to_accuracy,
}


def _batches(nets):
    return sorted({str(network.batch) for network in nets})


def _agreement(comparisons, what):
    if not comparisons[0].differences:
        return ()
    worst = {dtype: max(c.differences[dtype] for c in comparisons) for dtype in measure.TOLERANCES}
    within = " and ".join(f"{error:.0e} in {dtype}" for dtype, error in worst.items())
    return (f"Before the clock started, the libraries agreed on {what}: within {within}.",)
