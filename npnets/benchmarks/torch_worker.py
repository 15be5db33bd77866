"""PyTorch's process of a benchmark: ``python .../torch_worker.py JOB``.

It is run by its path, so that its folder is where Python looks for ``harness``: the Python that has PyTorch need not
have npnets. PyTorch runs eagerly with its own defaults. Layers are named as in npnets, so that weights are found by
name.
"""

import math
import sys
import time

import harness
import numpy as np
import torch
import torch._dynamo  # the first optimizer would import it: 80 MB that would pass for the step's memory
from torch import nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

LAYOUTS = {"default": torch.contiguous_format, "channels_last": torch.channels_last}


# --- The network -----------------------------------------------------------------------------------------------------


class ConvBNAct(nn.Sequential):
    """Convolution, batch norm, ReLU6."""

    def __init__(self, C_in, C_out, kernel, stride, bn):
        super().__init__()
        self.conv = nn.Conv2d(C_in, C_out, kernel, stride, padding=kernel // 2, bias=False)
        self.bn = batch_norm(C_out, bn)
        self.act = nn.ReLU6(inplace=True)


class InvertedResidual(nn.Sequential):
    """Expand (unless t = 1), filter, project; the input is added where the shape stays."""

    def __init__(self, C_in, expanded, C_out, stride, bn):
        super().__init__()
        self.adds_input = tuple(stride) == (1, 1) and C_in == C_out
        if expanded != C_in:
            self.expand = nn.Conv2d(C_in, expanded, 1, bias=False)
            self.expand_bn = batch_norm(expanded, bn)
            self.expand_act = nn.ReLU6(inplace=True)
        self.depthwise = nn.Conv2d(expanded, expanded, 3, stride, padding=1, groups=expanded, bias=False)
        self.depthwise_bn = batch_norm(expanded, bn)
        self.depthwise_act = nn.ReLU6(inplace=True)
        self.project = nn.Conv2d(expanded, C_out, 1, bias=False)
        self.project_bn = batch_norm(C_out, bn)

    def forward(self, x):
        y = super().forward(x)
        return x + y if self.adds_input else y


class MobileNetV2(nn.Sequential):
    """The network of a plan (see ``networks.plan``)."""

    def __init__(self, plan, num_classes):
        super().__init__()
        bn = plan["bn"]
        self.stem = ConvBNAct(kernel=3, bn=bn, **plan["stem"])
        self.blocks = nn.Sequential(*(InvertedResidual(**block, bn=bn) for block in plan["blocks"]))
        self.head = ConvBNAct(kernel=1, stride=1, bn=bn, **plan["head"])
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.classifier = nn.Linear(plan["head"]["C_out"], num_classes)


def batch_norm(C, bn):
    """Return a batch norm; PyTorch's momentum is the weight of the new statistic."""
    return nn.BatchNorm2d(C, eps=bn["eps"], momentum=1 - bn["decay"])


# --- From npnets' arrays to PyTorch's and back -----------------------------------------------------------------------

SUFFIXES = {"w": "weight", "b": "bias", "gamma": "weight", "beta": "bias"}


def torch_name(name):
    """Return PyTorch's name of an npnets array: ``stem.conv.w`` is ``stem.conv.weight``."""
    path, _, last = name.rpartition(".")
    return f"{path}.{SUFFIXES.get(last, last)}"


def to_torch(array, shape):
    """Put an npnets array into PyTorch's index order: kernels are (C_out, C_in, K_h, K_w) there."""
    return torch.from_numpy(harness.to_channels_first(array, shape))


def to_npnets(tensor, shape):
    """Put a PyTorch tensor into npnets' index order and shape."""
    return harness.from_channels_first(tensor.detach().numpy(), shape)


def load_weights(model, arrays, prefix):
    """Copy the arrays whose names have the prefix into a model; each must find its place, and each place its array."""
    missing = {name: tensor for name, tensor in model.state_dict().items() if "num_batches_tracked" not in name}
    for name in arrays:
        if name.startswith(prefix):
            tensor = missing.pop(torch_name(name[len(prefix) :]))
            tensor.copy_(to_torch(arrays[name], tensor.shape))
    if missing:
        raise ValueError(f"no weights for {', '.join(missing)}")


def images(array, layout):
    """Return images (N, H, W, C) as a PyTorch batch (N, C, H, W) in the given memory layout."""
    x = torch.from_numpy(array).permute(0, 3, 1, 2)
    # Not x.contiguous(): with one channel x counts as contiguous in both layouts, keeps the strides of NHWC, and all
    # convolutions after it run as channels_last.
    return torch.empty(x.shape, dtype=x.dtype, memory_format=LAYOUTS[layout]).copy_(x)


# --- The workloads ---------------------------------------------------------------------------------------------------


def train_step(job):
    """Forward, backward and update of a network, from npnets' weights."""
    step, outputs = training(job, job["network"], job["plan"])
    return harness.Workload(lambda: iter([(job["network"]["name"], step)]), outputs)


def scaling(job):
    """The training step of several networks, each with several batch sizes."""

    def cases():
        for entry in job["networks"]:
            network = entry["network"]
            for N in entry["batches"]:
                step, _ = training(job, network | {"batch": N}, entry["plan"], f"{network['name']}.")
                yield f"{network['name']}, batch {N}", step

    def outputs():
        found = {}
        for entry in job["networks"]:
            prefix = f"{entry['network']['name']}."
            _, of_network = training(job, entry["network"], entry["plan"], prefix)
            found |= {prefix + name: array for name, array in of_network().items()}
        return found

    return harness.Workload(cases, outputs)


def build(job, plan, num_classes, prefix=""):
    """Return the network of a plan in the layout of the job, with the weights that npnets started from."""
    model = MobileNetV2(plan, num_classes)
    model = model.to(dtype=getattr(torch, job["dtype"]), memory_format=LAYOUTS[job["layout"]]).train()
    with np.load(job["arrays"], allow_pickle=False) as arrays:
        load_weights(model, arrays, f"{job['dtype']}.{prefix}start.")
    return model


def training(job, network, plan, prefix=""):
    """Return a function that makes a training step, and one that returns what the libraries must agree on.

    ``prefix`` stands before the names of the arrays where there are several networks.
    """
    dtype, layout = job["dtype"], job["layout"]
    model = build(job, plan, network["num_classes"], prefix)
    x, labels = harness.batch(network, dtype)
    x, labels = images(x, layout), torch.from_numpy(labels)
    # Nearly npnets' update, and the same work: the mean square starts at zero, and eps stands outside the root.
    optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-4, alpha=0.9, momentum=0.9, eps=1e-3)

    def gradients():
        optimizer.zero_grad()
        logits = model(x)
        loss = functional.cross_entropy(logits, labels)
        loss.backward()
        return logits, loss

    def step():
        _, loss = gradients()
        optimizer.step()
        if not math.isfinite(float(loss)):
            raise FloatingPointError(f"the loss is {float(loss)}")

    def outputs():
        logits, loss = gradients()
        found = {"logits": logits.detach().numpy(), "loss": loss.detach().numpy()}
        parameters = dict(model.named_parameters())
        for name, shape in harness.expected_shapes(job, f"{prefix}gradient.").items():
            found[f"gradient.{name}"] = to_npnets(parameters[torch_name(name)].grad, shape)
        return found

    return step, outputs


def inference(job):
    """The forward of a network, batch norm folded, from npnets' weights and running statistics."""
    network, layout = job["network"], job["layout"]
    model = folded(build(job, job["plan"], network["num_classes"]).eval())
    x = images(harness.batch(network, job["dtype"])[0], layout)

    @torch.inference_mode()
    def forward():
        return model(x)

    return harness.Workload(lambda: iter([(network["name"], forward)]), lambda: {"logits": forward().numpy()})


def folded(model):
    """Fold each batch norm into the convolution before it, and take it out of the chain."""
    for module in list(model.modules()):
        before = None
        for name, child in list(module.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, before, fuse_conv_bn_eval(getattr(module, before), child))
                delattr(module, name)
            before = name
    return model


def depthwise(job):
    """The depthwise convolution forward, and its backward: the gradients of the images and of the kernel."""
    dtype, layout = job["dtype"], job["layout"]

    def convolutions():
        for name, shape, stride in job["shapes"]:
            C = shape[-1]
            x = images(harness.draw(shape, 0, dtype), layout).requires_grad_()
            w = to_torch(harness.draw((3, 3, C), 1, dtype), (C, 1, 3, 3)).contiguous(memory_format=LAYOUTS[layout])
            w.requires_grad_()

            def forward(x=x, w=w, stride=stride, C=C):
                return functional.conv2d(x, w, stride=stride, padding=1, groups=C)

            y = forward()
            N, _, H_out, W_out = y.shape
            dy = images(harness.draw((N, H_out, W_out, C), 2, dtype), layout)

            def backward(y=y, x=x, w=w, dy=dy):
                return torch.autograd.grad(y, (x, w), dy, retain_graph=True)

            yield name, forward, backward

    def cases():
        for name, forward, backward in convolutions():
            yield f"{name}, forward", forward
            yield f"{name}, backward", backward

    def outputs():
        arrays = {}
        for name, forward, backward in convolutions():
            y, (dx, dw) = forward().detach(), backward()
            arrays |= {f"{name}, {key}": value.permute(0, 2, 3, 1).numpy() for key, value in {"y": y, "dx": dx}.items()}
            arrays[f"{name}, dw"] = to_npnets(dw, (3, 3, dw.shape[0]))
        return arrays

    return harness.Workload(cases, outputs)


def time_to_accuracy(job):
    """A whole training on the batches that npnets has drawn and written, from npnets' weights."""
    layout = job["layout"]

    def outputs():
        model = build(job, job["plan"], job["network"]["num_classes"])
        update = rmsprop(model, **job["optimizer"])
        x, labels = harness.batch(job["network"], job["dtype"])
        x, labels = images(x, layout), torch.from_numpy(labels)
        found = {f"loss {k}": learn(model, update, rate, x, labels).numpy() for k, rate in enumerate(job["rates"])}
        parameters = dict(model.named_parameters())
        for name, shape in harness.expected_shapes(job, "after.").items():
            found[f"after.{name}"] = to_npnets(parameters[torch_name(name)], shape)
        return found

    def train():
        with np.load(job["drawn"], allow_pickle=False) as file:
            drawn = dict(file)
        model = build(job | {"arrays": job["drawn"]}, job["plan"], job["network"]["num_classes"])
        update = rmsprop(model, **job["optimizer"])
        watch = harness.Watch(job, lambda: accuracy(model, drawn, layout))
        seconds = 0.0
        for step, rate in enumerate(drawn["rates"]):
            began = time.perf_counter()
            x = images(normalized(drawn["images"][step], drawn), layout)
            loss = learn(model, update, float(rate), x, torch.from_numpy(drawn["labels"][step]))
            if not math.isfinite(float(loss)):
                raise FloatingPointError(f"the loss is {float(loss)} at step {step}")
            seconds += time.perf_counter() - began
            if watch(step + 1, seconds):
                break
        return {"evaluations": watch.evaluations}

    return harness.Workload(lambda: iter([]), outputs, train)


def learn(model, update, rate, x, labels):
    """Make one training step and return the loss."""
    model.zero_grad()
    loss = functional.cross_entropy(model(x), labels)
    loss.backward()
    update(rate)
    return loss.detach()


def rmsprop(model, decay, momentum, eps, weight_decay, decayed):
    """Return TensorFlow's RMSProp as a function of the learning rate: the update of npnets.

    torch.optim.RMSprop has eps outside the root, a mean square that starts at zero, and the learning rate outside the
    momentum buffer. ``decayed`` names the parameters that weight decay applies to.
    """
    decayed = {torch_name(name) for name in decayed}
    state = [
        (w, torch.ones_like(w), torch.zeros_like(w), weight_decay if name in decayed else 0.0)
        for name, w in model.named_parameters()
    ]

    @torch.no_grad()
    def update(rate):
        for w, mean_square, buffer, wd in state:
            g = w.grad.add(w, alpha=wd) if wd else w.grad
            mean_square.mul_(decay).addcmul_(g, g, value=1 - decay)
            buffer.mul_(momentum).addcdiv_(g, (mean_square + eps).sqrt_(), value=rate)
            w.sub_(buffer)

    return update


def normalized(pixels, drawn):
    """Return uint8 images as float32 with the mean and the standard deviation of the training images."""
    return (pixels * (1 / (255 * drawn["std"])).astype(np.float32)) - (drawn["mean"] / drawn["std"]).astype(np.float32)


@torch.inference_mode()
def accuracy(model, drawn, layout, batch_size=100):
    """Return the share of right answers on the test images."""
    model.eval()
    right = 0
    for start in range(0, len(drawn["test_images"]), batch_size):
        batch = slice(start, start + batch_size)
        answers = model(images(normalized(drawn["test_images"][batch], drawn), layout)).argmax(1).numpy()
        right += int((answers == drawn["test_labels"][batch]).sum())
    model.train()
    return right / len(drawn["test_labels"])


WORKLOADS = {
    "train_step": train_step,
    "inference": inference,
    "depthwise": depthwise,
    "scaling": scaling,
    "time_to_accuracy": time_to_accuracy,
}

if __name__ == "__main__":
    job = harness.read_job()
    torch.set_num_threads(job["threads"])
    harness.serve(job, WORKLOADS, {"python": sys.version.split()[0], "torch": torch.__version__})
