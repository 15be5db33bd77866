"""What makes a detector of a backbone: more maps, a predictor on each map, and the module that leads through them.

SSD (Liu et al. 2016, section 2.1, Figure 2), and SSDLite (MobileNetV2, section 6.2), whose layers are separable.
"""

import numpy as np

from npnets.nn.blocks.conv import ConvBNAct, norm_and_activation
from npnets.nn.blocks.mobile import CHAINS, DepthwiseSeparable
from npnets.nn.layers import Conv2d, DepthwiseConv2d, Dropout, PointwiseConv2d
from npnets.nn.module import Module, Sequential, path_in_errors
from npnets.ops import boxes
from npnets.ops.checks import check_ndim
from npnets.shapes import boolean, integer, integers, pair, sequence

CODE = 4
"""Numbers that describe where a box is (see :func:`npnets.ops.boxes.encode_boxes`)."""


class ExtraMap(Sequential):
    """One more map, half as large: a 1x1 convolution to half the channels, then a 3x3 with stride 2; ReLU6 after both.

    Parameters
    ----------
    C_in, C_out : int
    separable : bool
        The 3x3 is a depthwise separable convolution: SSDLite.
    """

    def __init__(self, C_in, C_out, *, separable, padding="same", bn_decay=0.99, bn_eps=1e-3, rng, dtype=np.float32):
        common = {"padding": padding, "bn_decay": bn_decay, "bn_eps": bn_eps, "rng": rng, "dtype": dtype}
        C = max(integer(C_out, "C_out", 1) // 2, 1)
        reduce = ConvBNAct(C_in, C, 1, **common)
        if boolean(separable, "separable"):
            halve = DepthwiseSeparable(C, C_out, stride=2, activation="relu6", decay_depthwise=True, **common)
        else:
            halve = ConvBNAct(C, C_out, 3, stride=2, **common)
        super().__init__(reduce=reduce, halve=halve)


class Predictor(Module):
    """Where, and what: the code of a box and the scores of all classes, for each default box of each pixel of a map.

    Two convolutions of 3x3 pixels with a bias, side by side. In SSDLite each is a depthwise 3x3 with batch norm and
    ReLU6, then a 1x1 with a bias.

    ``forward`` returns (N, H W a, 4 + classes) for a map (N, H, W, C) with a default boxes a pixel: row by row, then
    box by box; of each box first the code, then the scores.

    Parameters
    ----------
    C, anchors, num_classes : int
        Channels of the map, default boxes a pixel, classes with the background.
    separable : bool
        SSDLite.
    dropout : float
        Rate before the layers that predict the scores.
    """

    kind = "predictions"

    def __init__(
        self,
        C,
        anchors,
        num_classes,
        *,
        separable,
        dropout=0.0,
        padding="same",
        bn_decay=0.99,
        bn_eps=1e-3,
        rng,
        dtype=np.float32,
    ):
        super().__init__()
        self.map_size = None
        self.anchors = integer(anchors, "anchors", 1)
        self.num_classes = integer(num_classes, "num_classes", 1)
        separable = boolean(separable, "separable")
        weight = {"rng": rng, "dtype": dtype}
        norm = {"decay": bn_decay, "eps": bn_eps, "dtype": dtype}

        def layers(C_out):
            if not separable:
                return {"conv": Conv2d(C, C_out, 3, padding=padding, bias=True, **weight)}
            return {
                "depthwise": DepthwiseConv2d(C, 3, padding=padding, **weight),
                **norm_and_activation("depthwise_bn", C, "relu6", norm),
                "project": PointwiseConv2d(C, C_out, bias=True, **weight),
            }

        self.box = Sequential(**layers(CODE * anchors))
        self.score = Sequential(dropout=Dropout(dropout, rng=rng), **layers(num_classes * anchors))

    def forward(self, x, training=False):
        check_ndim("Predictor", x, 4)
        N, H, W, _ = x.shape
        code = self.box(x, training).reshape(N, -1, CODE)  # (N, H, W, 4 a) -> (N, H W a, 4)
        scores = self.score(x, training).reshape(N, -1, self.num_classes)  # (N, H, W, K a) -> (N, H W a, K)
        self.map_size = H, W
        return np.concatenate([code, scores], axis=-1)

    def backward(self, dy):
        if self.map_size is None:
            raise RuntimeError("Predictor: backward was called before forward, and there is nothing to go back through")
        dcode, dscores = (part.reshape(len(dy), *self.map_size, -1) for part in np.split(dy, [CODE], axis=-1))
        return self.box.backward(dcode) + self.score.backward(dscores)

    def trace(self, shape, visit, path=""):
        for name, branch in self.children():
            with path_in_errors(name):
                H, W, _ = branch.trace(shape, visit, _join(path, name))
        return H * W * self.anchors, CODE + self.num_classes

    def describe(self):
        return f"{self.anchors} boxes a pixel, {self.num_classes} classes"


class DetectionHead(Module):
    """What a :class:`Detector` adds to its backbone. It only holds the parts; the Detector leads through them.

    So it has no output of its own, and its observers are never called.
    """

    def __init__(self, extras, predictors):
        super().__init__()
        self.extras, self.predictors = extras, predictors


class Detector(Module):
    """A backbone with extra maps and a predictor on each map: SSD on any chain of layers.

    The backbone is cut into segments: each ends in a map. So does each of the extra layers that follow, one after the
    other. Every map has a predictor. ``forward`` returns (N, boxes, 4 + classes), code and scores of all default boxes:
    map by map, and in each map as the :class:`Predictor` has them. ``backward`` goes through the segments from the last
    to the first. Two things were made of a map, a prediction and the next map, so their gradients are added. ::

        code, scores = detector.split(detector(x))
        found = boxes.decode_boxes(code, detector.default_boxes(x.shape[1:3]))  # of npnets.ops: (N, boxes, 4)

    Parameters
    ----------
    backbone : Sequential
        The Detector goes through its chain itself, so it must have no forward of its own.
    taps : tuple of str
        Where else than at its end the backbone has a map: paths of the layers that such a map enters. ``blocks.11`` is
        the twelfth block; ``blocks.13.depthwise`` is a layer inside a block. The Detector goes through that block
        itself, too, so it must be a chain that does not add its input.
    anchors : tuple of int
        Default boxes a pixel of each map: those of the taps, of the backbone's end, and the extra ones.
    extras : tuple of int
        Channels of the extra maps (see :class:`ExtraMap`).
    num_classes : int
        With the background.
    separable : bool
        SSDLite instead of SSD.
    dropout : float
        Rate before the layers that predict the scores.

    Raises
    ------
    ValueError
        If a tap is not in the backbone or in something else than a chain, if what is tapped is no image, or if there
        are more or fewer maps than ``anchors``.
    """

    kind = "predictions"

    def __init__(
        self,
        backbone,
        taps,
        anchors,
        extras,
        num_classes,
        *,
        separable,
        dropout=0.0,
        padding="same",
        bn_decay=0.99,
        bn_eps=1e-3,
        rng,
        dtype=np.float32,
    ):
        super().__init__()
        common = {"padding": padding, "bn_decay": bn_decay, "bn_eps": bn_eps, "rng": rng, "dtype": dtype}
        self.backbone, self.taps = backbone, tuple(sequence(taps, "taps", "paths"))
        self.splits = None
        self.head = DetectionHead([], [])
        anchors, extras = integers(anchors, "anchors"), integers(extras, "extras")
        channels = [C for _, _, C in self.maps((1 << 12, 1 << 12))]  # the same for any size that is large enough
        if len(anchors) != len(channels) + len(extras):
            raise ValueError(
                f"anchors must be the default boxes a pixel of each map, {len(channels)} of the backbone and "
                f"{len(extras)} extra ones, got {anchors}"
            )
        for C in extras:
            self.head.extras.append(ExtraMap(channels[-1], C, separable=separable, **common))
            channels.append(C)
        for C, a in zip(channels, anchors):
            predictor = Predictor(C, a, num_classes, separable=separable, dropout=dropout, **common)
            self.head.predictors.append(predictor)

    def segments(self):
        """Return the chain from the image to the last map, cut after each map: lists of (path, module)."""
        cut = [[]]
        for name, part in _chain(self.backbone, "the backbone"):
            for path, layer in _chain(part, name, f"{name}.") if self._is_opened(name) else [(name, part)]:
                if path in self.taps:
                    cut.append([])
                cut[-1].append((f"backbone.{path}", layer))
        if len(cut) != len(self.taps) + 1:
            where = "of the backbone's chain, or of a chain in it, each once"
            raise ValueError(f"taps must be paths of layers {where}, got {self.taps}")
        return cut + [[(f"head.extras.{k}", extra)] for k, extra in enumerate(self.head.extras)]

    def _is_opened(self, name):
        """Tell whether a part of the backbone is gone through layer by layer, since there is a map inside."""
        return any(tap.startswith(f"{name}.") for tap in self.taps)

    def _ends(self):
        """Return path of a layer -> what ends with it and is not called itself: the backbone, and its opened parts."""
        found = {}
        for name, part in self.backbone.chain():
            last = f"backbone.{name}"
            if self._is_opened(name):
                last = f"{last}.{part.chain()[-1][0]}"
                found[last] = [part]
        found.setdefault(last, []).append(self.backbone)
        return found

    def forward(self, x, training=False):
        maps, ends = [], self._ends()
        for segment in self.segments():
            for path, layer in segment:
                with path_in_errors(path):
                    x = layer(x, training)
                for part in ends.get(path, ()):
                    part.show(x)
            maps.append(x)
        predictions = []
        for k, (x, predictor) in enumerate(zip(maps, self.head.predictors)):
            with path_in_errors(f"head.predictors.{k}"):
                predictions.append(predictor(x, training))
        self.splits = np.cumsum([prediction.shape[1] for prediction in predictions])[:-1]
        return np.concatenate(predictions, axis=1)  # maps of (N, H W a, 4 + K) -> (N, boxes, 4 + K)

    def backward(self, dy):
        if self.splits is None:
            raise RuntimeError("Detector: backward was called before forward, and there is nothing to go back through")
        parts = np.split(dy, self.splits, axis=1)
        dx = 0  # beyond the last map there is nothing
        for segment, predictor, part in reversed(list(zip(self.segments(), self.head.predictors, parts))):
            dx = predictor.backward(part) + dx
            for _, layer in reversed(segment):
                dx = layer.backward(dx)
        return dx

    def trace(self, shape, visit, path=""):
        maps = self.maps(shape, visit, path)
        outs = []
        for k, (map_shape, predictor) in enumerate(zip(maps, self.head.predictors)):
            with path_in_errors(f"head.predictors.{k}"):
                outs.append(predictor.trace(map_shape, visit, _join(path, f"head.predictors.{k}")))
        return sum(count for count, _ in outs), outs[0][1]

    def maps(self, shape, visit=lambda *layer: None, path=""):
        """Return the shape (H, W, C) of each map for images of (H, W, C), or of (H, W) and the usual channels."""
        segments, found = self.segments(), []
        if len(shape) == 2:
            channels = [part.C_in for _, part in self.backbone.named_modules() if hasattr(part, "C_in")]
            if not channels:
                raise ValueError("the backbone has no layer that tells how many channels an image has")
            shape = *shape, channels[0]
        for segment in segments:
            for name, layer in segment:
                with path_in_errors(name):
                    shape = layer.trace(shape, visit, _join(path, name))
            if len(shape) != 3:
                raise ValueError(f"{name}: a map must be an image (H, W, C), got the shape {shape}")
            found.append(shape)
        return found

    def default_boxes(self, size, **settings):
        """Return the default boxes of the predictions for images of a size, (boxes, 4) (cx, cy, w, h).

        Parameters
        ----------
        size : int or (int, int)
            Height and width in pixels.
        settings
            Those of :func:`npnets.ops.boxes.default_boxes`.
        """
        maps = self.maps(pair(size, "size"))
        found = boxes.default_boxes([shape[:2] for shape in maps], **settings)
        count = sum(H * W * predictor.anchors for (H, W, _), predictor in zip(maps, self.head.predictors))
        if len(found) != count:
            raise ValueError(f"with these settings there are {len(found)} default boxes, but {count} predictions")
        return found

    def split(self, y):
        """Return what ``forward`` returned as codes (N, boxes, 4) and scores (N, boxes, classes)."""
        return y[..., :CODE], y[..., CODE:]


def _chain(module, name, path=""):
    """Return the (path, module) pairs of a chain, or raise ``ValueError`` if a module computes something else."""
    if getattr(module, "adds_input", False):
        raise ValueError(f"{name} adds its input to its output; a map inside it cannot be tapped")
    if not isinstance(module, Sequential) or type(module).forward not in CHAINS:
        kind = type(module).__name__
        raise ValueError(f"{name} must be a chain of layers such as a Sequential; a map inside {kind} cannot be tapped")
    return [(f"{path}{child}", layer) for child, layer in module.chain()]


def _join(path, name):
    return f"{path}.{name}" if path else name
