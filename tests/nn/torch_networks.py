"""Networks of our own in PyTorch, with random weights and statistics: ``python .../torch_networks.py FOLDER``.

For each network it writes what PyTorch's users would: NAME.safetensors and NAME.npz; and NAME.run.npz with images and
the logits for them. ``test_weights.py`` runs it with a Python that has torch. What it wrote for the two small networks
with PyTorch 2.13 is kept in ``torch_files/``, so that every run of the tests compares with PyTorch.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

CLASSES = 7


def conv_bn(C_in, C_out, kernel, act, *, stride=1, groups=1):
    conv = nn.Conv2d(C_in, C_out, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(C_out), *([act()] if act else []))


class V1(nn.Module):
    """MobileNetV1 at width 0.25: more than ten blocks, so that ``features.10`` sorts before ``features.2``."""

    def __init__(self):
        super().__init__()
        C, blocks = 8, [conv_bn(3, 8, 3, nn.ReLU, stride=2)]
        channels = [16, 32, 32, 64, 64, 128, 128, 128, 128, 128, 128, 256, 256]
        for C_out, stride in zip(channels, [1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1]):
            filtering = conv_bn(C, C, 3, nn.ReLU, stride=stride, groups=C)
            blocks.append(nn.Sequential(filtering, conv_bn(C, C_out, 1, nn.ReLU)))
            C = C_out
        self.features, self.classifier = nn.Sequential(*blocks), nn.Linear(C, CLASSES)

    def forward(self, x):
        return self.classifier(self.features(x).mean((2, 3)))


class Inverted(nn.Module):
    """The block of MobileNetV2."""

    def __init__(self, C_in, C_out, t, stride):
        super().__init__()
        C = t * C_in
        expansion = [conv_bn(C_in, C, 1, nn.ReLU6)] if t > 1 else []
        filtering = conv_bn(C, C, 3, nn.ReLU6, stride=stride, groups=C)
        self.conv = nn.Sequential(*expansion, filtering, conv_bn(C, C_out, 1, None))
        self.adds_input = stride == 1 and C_in == C_out

    def forward(self, x):
        return x + self.conv(x) if self.adds_input else self.conv(x)


class V2(nn.Module):
    """MobileNetV2 at width 0.35, with a 1x1 convolution for a classifier, whose name sorts before ``features``."""

    STEM, HEAD = 16, 1280
    TABLE = ((1, 8, 1, 1), (6, 8, 2, 2), (6, 16, 3, 2), (6, 24, 4, 2), (6, 32, 3, 1), (6, 56, 3, 2), (6, 112, 1, 1))

    def __init__(self):
        super().__init__()
        C, blocks = self.STEM, [conv_bn(3, self.STEM, 3, nn.ReLU6, stride=2)]
        for t, c, n, s in self.TABLE:
            for k in range(n):
                blocks.append(Inverted(C, c, t, s if k == 0 else 1))
                C = c
        blocks.append(conv_bn(C, self.HEAD, 1, nn.ReLU6))
        self.features, self.classifier = nn.Sequential(*blocks), nn.Conv2d(self.HEAD, CLASSES, 1)

    def forward(self, x):
        return self.classifier(self.features(x).mean((2, 3), keepdim=True)).flatten(1)


class Tiny(V2):
    """The same with three blocks and few channels: small enough to be kept beside the tests."""

    STEM, HEAD = 8, 16
    TABLE = ((1, 8, 1, 1), (3, 8, 2, 2))


class SqueezeExcite(nn.Module):
    """Scales of the channels from their means; linear layers as 1x1 convolutions."""

    def __init__(self, C, squeezed):
        super().__init__()
        self.fc1, self.fc2 = nn.Conv2d(C, squeezed, 1), nn.Conv2d(squeezed, C, 1)

    def forward(self, x):
        s = self.fc2(nn.functional.silu(self.fc1(x.mean((2, 3), keepdim=True))))
        return x * torch.sigmoid(s)


class Squeezing(nn.Module):
    """Full convolutions, with batch norm, and with a bias; dilation; squeeze-and-excitation; a 5x5 depthwise."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            conv_bn(3, 12, 3, nn.SiLU, stride=2),
            nn.Sequential(nn.Conv2d(12, 16, 3, padding=2, dilation=2), nn.ReLU()),
            SqueezeExcite(16, 3),
            conv_bn(16, 16, 5, nn.SiLU, stride=2, groups=16),
            SqueezeExcite(16, 4),
            conv_bn(16, 24, 1, None),
            nn.Conv2d(24, 10, (3, 1), padding=(1, 0)),
        )
        self.classifier = nn.Linear(10, CLASSES, bias=False)

    def forward(self, x):
        return self.classifier(self.layers(x).mean((2, 3)))


def randomize(model):
    """Draw what starts as zeros and ones, and take the statistics of some batches, so that no signal dies out."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
    nn.init.normal_(model.classifier.weight, std=0.3)
    with torch.no_grad():
        for _ in range(30):
            model.train()(torch.randn(8, 3, 32, 32) + 0.3)


def main(folder):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    for network in (V1, V2, Tiny, Squeezing):
        model = network()
        randomize(model)
        model.eval()
        x = torch.randn(2, 3, 32, 32) + 2 * torch.randn(2, 3, 1, 1)  # two images that differ in the mean, too
        with torch.no_grad():
            logits = model(x)
        state, path = model.state_dict(), folder / network.__name__
        save_file(state, path.with_suffix(".safetensors"))
        np.savez(path.with_suffix(".npz"), **{name: tensor.numpy() for name, tensor in state.items()})
        np.savez(path.with_suffix(".run.npz"), x=x.permute(0, 2, 3, 1).numpy(), logits=logits.numpy())
    save_file({name: tensor.bfloat16() for name, tensor in state.items()}, folder / "bfloat16.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
