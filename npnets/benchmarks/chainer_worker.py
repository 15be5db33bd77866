"""Chainer's process of a benchmark: ``python .../chainer_worker.py JOB``, on its NumPy backend.

Chainer 7.8.1, the last one, needs an older NumPy than npnets, so it has a Python of its own. It is the nearest relative
of npnets: the same NumPy, but images (N, C, H, W), convolutions through column matrices, and autograd.
"""

import json
import math
import os
import sys

# NumPy's matrix library asks for its number of threads when it is loaded. Nothing else in Chainer uses several.
os.environ["OPENBLAS_NUM_THREADS"] = str(json.loads(sys.argv[1])["threads"])

import chainer
import harness
import numpy as np
from chainer import functions as F
from chainer import links as L


class ConvBNAct(chainer.Chain):
    """Convolution, batch norm, ReLU6."""

    def __init__(self, C_in, C_out, kernel, stride, bn):
        super().__init__()
        with self.init_scope():
            self.conv = L.Convolution2D(C_in, C_out, kernel, stride, pad=kernel // 2, nobias=True)
            self.bn = L.BatchNormalization(C_out, **bn)

    def forward(self, x):
        return relu6(self.bn(self.conv(x)))


class InvertedResidual(chainer.Chain):
    """Expand (unless t = 1), filter, project; the input is added where the shape stays."""

    def __init__(self, C_in, expanded, C_out, stride, bn):
        super().__init__()
        self.adds_input = tuple(stride) == (1, 1) and C_in == C_out
        self.expands = expanded != C_in
        with self.init_scope():
            if self.expands:
                self.expand = L.Convolution2D(C_in, expanded, 1, nobias=True)
                self.expand_bn = L.BatchNormalization(expanded, **bn)
            # What Chainer's DepthwiseConvolution2D comes down to, with the kernel's axes as the others have them.
            self.depthwise = L.Convolution2D(expanded, expanded, 3, stride, pad=1, nobias=True, groups=expanded)
            self.depthwise_bn = L.BatchNormalization(expanded, **bn)
            self.project = L.Convolution2D(expanded, C_out, 1, nobias=True)
            self.project_bn = L.BatchNormalization(C_out, **bn)

    def forward(self, x):
        y = relu6(self.expand_bn(self.expand(x))) if self.expands else x
        y = relu6(self.depthwise_bn(self.depthwise(y)))
        y = self.project_bn(self.project(y))
        return x + y if self.adds_input else y


class MobileNetV2(chainer.Chain):
    """The network of a plan (see ``networks.plan``)."""

    def __init__(self, plan, num_classes):
        super().__init__()
        bn = plan["bn"]  # its decay is the weight of the old statistic, as in npnets
        with self.init_scope():
            self.stem = ConvBNAct(kernel=3, bn=bn, **plan["stem"])
            self.blocks = chainer.ChainList(*(InvertedResidual(**block, bn=bn) for block in plan["blocks"]))
            self.head = ConvBNAct(kernel=1, stride=1, bn=bn, **plan["head"])
            self.classifier = L.Linear(plan["head"]["C_out"], num_classes)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        x = self.head(x)
        return self.classifier(F.average_pooling_2d(x, x.shape[2:]))


def relu6(x):
    """Return ``min(max(x, 0), 6)``."""
    return F.clipped_relu(x, 6.0)


def parameters(model):
    """Return Chainer's parameters under the names of npnets: ``/stem/conv/W`` is ``stem.conv.w``."""
    return {name[1:].replace("/", ".").replace(".W", ".w"): p for name, p in model.namedparams()}


def train_step(job):
    """Forward, backward and update of a network, from npnets' weights."""
    chainer.global_config.dtype = np.dtype(job["dtype"])
    model = MobileNetV2(job["plan"], job["network"]["num_classes"])
    own = parameters(model)
    with np.load(job["arrays"], allow_pickle=False) as arrays:
        for name, parameter in own.items():  # the running statistics start at 0 and 1 here too
            parameter.data[...] = harness.to_channels_first(arrays[f"{job['dtype']}.start.{name}"], parameter.shape)
    x, labels = harness.batch(job["network"], job["dtype"])
    x, labels = np.ascontiguousarray(x.transpose(0, 3, 1, 2)), labels.astype(np.int32)
    # Less work than npnets' update: Chainer's RMSprop has no momentum. (Its mean square starts at zero.)
    optimizer = chainer.optimizers.RMSprop(lr=1e-4, alpha=0.9, eps=1e-3, eps_inside_sqrt=True).setup(model)

    def gradients():
        model.cleargrads()
        logits = model(x)
        loss = F.softmax_cross_entropy(logits, labels)
        loss.backward()
        return logits.data, loss.data

    def step():
        _, loss = gradients()
        optimizer.update()
        if not math.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss}")

    def outputs():
        logits, loss = gradients()
        found = {"logits": logits, "loss": loss}
        for name, shape in harness.expected_shapes(job, "gradient.").items():
            found[f"gradient.{name}"] = harness.from_channels_first(own[name].grad, shape)
        return found

    return harness.Workload(lambda: iter([(job["network"]["name"], step)]), outputs)


WORKLOADS = {"train_step": train_step}

if __name__ == "__main__":
    job = harness.read_job()
    versions = {"python": sys.version.split()[0], "numpy": np.__version__, "chainer": chainer.__version__}
    harness.serve(job, WORKLOADS, versions)
