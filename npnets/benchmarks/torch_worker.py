"""PyTorch's process of a benchmark: ``python .../torch_worker.py JOB``.

It is run by its path, so that its folder is where Python looks for ``harness``: the Python that has PyTorch need not
have npnets. PyTorch runs eagerly with its own defaults. Layers are named as in npnets, so that weights are found by
name.
"""

import math
import sys

import harness
import numpy as np
import torch
import torch._dynamo  # the first optimizer would import it: 80 MB that would pass for the step's memory
from torch import nn
from torch.nn import functional

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
    if len(shape) == 4:  # standard, depthwise (C_in = 1 a group) and pointwise (K_h = K_w = 1) alike
        C_out, C_in, K_h, K_w = shape
        array = array.reshape(K_h, K_w, C_in, C_out).transpose(3, 2, 0, 1)
    elif len(shape) == 2:
        array = array.T
    return torch.from_numpy(np.ascontiguousarray(array))


def to_npnets(tensor, shape):
    """Put a PyTorch tensor into npnets' index order and shape."""
    if tensor.ndim == 4:
        tensor = tensor.permute(2, 3, 1, 0)
    elif tensor.ndim == 2:
        tensor = tensor.T
    return tensor.detach().numpy().reshape(shape)


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
    return torch.from_numpy(array).permute(0, 3, 1, 2).contiguous(memory_format=LAYOUTS[layout])


# --- The workloads ---------------------------------------------------------------------------------------------------


def train_step(job):
    """Forward, backward and update of a network, from npnets' weights."""
    dtype, layout = job["dtype"], job["layout"]
    model = MobileNetV2(job["plan"], job["network"]["num_classes"])
    model = model.to(dtype=getattr(torch, dtype), memory_format=LAYOUTS[layout]).train()
    with np.load(job["arrays"], allow_pickle=False) as arrays:
        load_weights(model, arrays, f"{dtype}.start.")
    x, labels = harness.batch(job["network"], dtype)
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
        prefix = f"{dtype}.gradient."
        with np.load(job["arrays"], allow_pickle=False) as arrays:
            shapes = {name[len(prefix) :]: arrays[name].shape for name in arrays if name.startswith(prefix)}
        for name, shape in shapes.items():
            found[f"gradient.{name}"] = to_npnets(parameters[torch_name(name)].grad, shape)
        return found

    return harness.Workload(lambda: iter([(job["network"]["name"], step)]), outputs)


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


WORKLOADS = {"train_step": train_step, "depthwise": depthwise}

if __name__ == "__main__":
    job = harness.read_job()
    torch.set_num_threads(job["threads"])
    harness.serve(job, WORKLOADS, {"python": sys.version.split()[0], "torch": torch.__version__})
