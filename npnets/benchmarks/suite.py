"""The benchmarks: what is compared with what, and the tables made of it."""

from dataclasses import asdict

from npnets.benchmarks import measure, networks
from npnets.benchmarks.report import Section, memory_table, time_table

# Depthwise 3x3 convolutions on the shapes of a small MobileNetV2: H, W, C, stride.
DEPTHWISE_SHAPES = [
    (32, 32, 48, 1),
    (32, 32, 96, 1),
    (32, 32, 96, 2),
    (16, 16, 96, 1),
    (16, 16, 192, 1),
    (16, 16, 192, 2),
    (8, 8, 192, 1),
    (4, 4, 480, 1),
]


def train_step(setup, nets=networks.NETWORKS):
    """Time forward, backward and update of each network, and look at the memory it takes."""
    comparisons = []
    for network in nets:
        job = {"benchmark": "train_step", "network": asdict(network), "plan": networks.plan(network)}
        comparisons += measure.compare(setup, job)
    tables = [time_table(comparisons), memory_table(comparisons)]
    notes = _agreement(comparisons, "logits and loss, in float64 also on every gradient")
    if notes:
        notes += (
            "The update is RMSProp with momentum in both, and nearly the same work: PyTorch's mean square starts at "
            "zero and its eps stands outside the root.",
        )
    title = f"Training step: forward, backward, update; batches of {' and '.join(_batches(nets))} images"
    return Section(title, tuple(comparisons), tuple(filter(None, tables)), notes)


def depthwise(setup, shapes=DEPTHWISE_SHAPES, batch=64):
    """Time the depthwise convolution alone; the backward gives the gradients of the images and of the kernel."""

    def listed(N):
        return [(f"{H}x{W}x{C}, stride {s}", (N, H, W, C), s) for H, W, C, s in shapes]

    job = {"benchmark": "depthwise", "shapes": listed(batch)}
    comparisons = measure.compare(setup, job, smaller={"shapes": listed(2)})
    notes = _agreement(comparisons, "y, dx and dw")
    notes += ("The same arrays are used again and again: small ones stay in the cache.",)
    title = f"Depthwise 3x3 convolution, {batch} images"
    return Section(title, tuple(comparisons), (time_table(comparisons),), notes)


BENCHMARKS = {"train_step": train_step, "depthwise": depthwise}


def _batches(nets):
    return sorted({str(network.batch) for network in nets})


def _agreement(comparisons, what):
    if not comparisons[0].differences:
        return ()
    worst = {dtype: max(c.differences[dtype] for c in comparisons) for dtype in measure.TOLERANCES}
    within = " and ".join(f"{error:.0e} in {dtype}" for dtype, error in worst.items())
    return (f"Before the clock started, the libraries agreed on {what}: within {within}.",)
