"""npnets' process of a benchmark: ``python -m npnets.benchmarks.worker JOB``."""

import math
import sys
from functools import partial

import numpy as np

from npnets import ops, optim, parallel
from npnets.benchmarks import harness, networks


def train_step(job):
    """Forward, backward and update of a network."""
    model = networks.build(networks.Network(**job["network"]), job["dtype"])
    x, labels = harness.batch(job["network"], job["dtype"])
    optimizer = optim.RMSProp(model.parameters(), learning_rate=1e-4)

    def gradients():
        logits = model(x, training=True)
        loss, cache = ops.softmax_cross_entropy_forward(logits, labels)
        model.backward(ops.softmax_cross_entropy_backward(1.0, cache))
        return logits, loss

    def step():
        _, loss = gradients()
        optimizer.step()
        if not math.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss}")

    def outputs():
        start = {f"start.{name}": array for name, array in model.state_dict().items()}
        logits, loss = gradients()
        found = start | {"logits": logits, "loss": loss}
        if job["dtype"] == "float64":  # in float32, rounding carries numbers over ReLU6's kinks: gradients jump
            found |= {f"gradient.{parameter.name}": parameter.grad for parameter in model.parameters()}
        return found

    return harness.Workload(lambda: iter([(job["network"]["name"], step)]), outputs)


def depthwise(job):
    """The depthwise convolution forward, and its backward: the gradients of the images and of the kernel."""

    def convolutions():
        for name, shape, stride in job["shapes"]:
            x = harness.draw(shape, 0, job["dtype"])
            w = harness.draw((3, 3, shape[-1]), 1, job["dtype"])
            forward = partial(ops.depthwise_conv2d_forward, x, w, stride=stride, padding="symmetric")
            y, cache = forward()
            dy = harness.draw(y.shape, 2, job["dtype"])
            yield name, forward, partial(ops.depthwise_conv2d_backward, dy, cache)

    def cases():
        for name, forward, backward in convolutions():
            yield f"{name}, forward", forward
            yield f"{name}, backward", backward

    def outputs():
        arrays = {}
        for name, forward, backward in convolutions():
            (y, _), (dx, dw, _) = forward(), backward()
            arrays |= {f"{name}, y": y, f"{name}, dx": dx, f"{name}, dw": dw}
        return arrays

    return harness.Workload(cases, outputs)


WORKLOADS = {"train_step": train_step, "depthwise": depthwise}


def main():
    """Do the job on the command line."""
    job = harness.read_job()
    versions = {"python": sys.version.split()[0], "numpy": np.__version__}
    with parallel.threads(job["threads"]):
        harness.serve(job, WORKLOADS, versions)


if __name__ == "__main__":
    main()
