"""npnets' process of a benchmark: ``python -m npnets.benchmarks.worker JOB``."""

import contextlib
import math
import sys
from dataclasses import asdict, replace
from functools import partial

import numpy as np

from npnets import augment, nn, ops, optim, parallel, training
from npnets.benchmarks import harness, networks, recipe


def train_step(job):
    """Forward, backward and update of a network."""
    step, outputs = _training(networks.Network(**job["network"]), job["dtype"])
    return harness.Workload(lambda: iter([(job["network"]["name"], step)]), outputs)


def scaling(job):
    """The training step of several networks, each with several batch sizes."""
    nets = [(networks.Network(**entry["network"]), entry["batches"]) for entry in job["networks"]]

    def cases():
        for network, batches in nets:
            for N in batches:
                step, _ = _training(replace(network, batch=N), job["dtype"])
                yield f"{network.name}, batch {N}", step

    def outputs():
        found = {}
        for network, _ in nets:
            _, of_network = _training(network, job["dtype"])
            found |= {f"{network.name}.{name}": array for name, array in of_network().items()}
        return found

    return harness.Workload(cases, outputs)


def _training(network, dtype):
    """Return a function that makes a training step, and one that returns what the libraries must agree on."""
    model = networks.build(network, dtype)
    x, labels = harness.batch(asdict(network), dtype)
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
        if dtype == "float64":  # in float32, rounding carries numbers over ReLU6's kinks: gradients jump
            found |= {f"gradient.{parameter.name}": parameter.grad for parameter in model.parameters()}
        return found

    return step, outputs


def inference(job):
    """The forward of a network, batch norm folded."""
    network = networks.Network(**job["network"])
    model = networks.build(network, job["dtype"])
    x, _ = harness.batch(job["network"], job["dtype"])
    for _, module in model.named_modules():
        if isinstance(module, nn.BatchNorm):
            module.decay = 0.0
    model(x[:4, :64, :64], training=True)  # running statistics that fit, and little memory for them
    folded = nn.fold_batch_norm(model)

    def outputs():
        return {f"start.{name}": array for name, array in model.state_dict().items()} | {"logits": folded(x)}

    return harness.Workload(lambda: iter([(network.name, lambda: folded(x))]), outputs)


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


def time_to_accuracy(job):
    """A whole training, as ``python -m npnets train`` does it."""

    def outputs():
        network = networks.Network(**job["network"])
        model = networks.build(network, job["dtype"])
        optimizer = recipe.optimizer(model, job["optimizer"])
        x, labels = harness.batch(job["network"], job["dtype"])
        found = {f"start.{name}": array for name, array in model.state_dict().items()}
        for k, rate in enumerate(job["rates"]):
            optimizer.learning_rate = rate
            logits = model(x, training=True)
            loss, cache = ops.softmax_cross_entropy_forward(logits, labels)
            model.backward(ops.softmax_cross_entropy_backward(1.0, cache))
            optimizer.step()
            found[f"loss {k}"] = loss
        if job["dtype"] == "float64":  # as above
            found |= {f"after.{parameter.name}": parameter.value for parameter in model.parameters()}
        return found

    def train():
        arguments = recipe.arguments(job["settings"])
        model, test = arguments["model"], arguments.pop("test")  # evaluated here, not at the end of an epoch
        mean, std = augment.channel_statistics(arguments["train"].images)
        watch = harness.Watch(job, lambda: training.evaluate(model, test, mean=mean, std=std).accuracy)

        class Reached(training.Interrupted):
            """Not the Interrupted of a Ctrl-C, which must end the process."""

        class Stop:
            def start(self, run):
                self.run = run

            def after_step(self, step):
                if watch(step + 1, self.run.seconds):
                    raise Reached

        with contextlib.suppress(Reached):
            training.fit(**arguments, callbacks=[Stop()], progress=False, threads=job["threads"])
        return {"evaluations": watch.evaluations}

    return harness.Workload(lambda: iter([]), outputs, train)


WORKLOADS = {
    "train_step": train_step,
    "inference": inference,
    "depthwise": depthwise,
    "scaling": scaling,
    "time_to_accuracy": time_to_accuracy,
}


def main():
    """Do the job on the command line."""
    job = harness.read_job()
    versions = {"python": sys.version.split()[0], "numpy": np.__version__}
    with parallel.threads(job["threads"]):
        harness.serve(job, WORKLOADS, versions)


if __name__ == "__main__":
    main()
