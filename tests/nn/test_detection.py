"""The parts of a detector: where its maps are, and in which order it predicts."""

import numpy as np
import pytest

from npnets import nn
from npnets.ops import boxes
from tests.models import gradient_errors
from tests.nn import make, randomize
from tests.oracles import assert_close


def drawn(seed=0):
    return {"rng": np.random.default_rng(seed), "dtype": np.float64}


def images(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def backbone():
    """A small chain like MobileNetV2: stem, three blocks of which the last halves, a head."""
    rows = [(4, 4, 2, 1), (4, 5, 2, 2), (5, 7, 3, 2)]
    blocks = [nn.InvertedResidual(C, c, t, stride=s, **drawn(c)) for C, c, t, s in rows]
    return nn.Sequential(stem=nn.ConvBNAct(3, 4, 3, **drawn(3)), blocks=blocks, head=nn.ConvBNAct(7, 6, 1, **drawn(4)))


def detector(taps=("blocks.2.depthwise",), anchors=(3, 6, 6), extras=(8,), **settings):
    settings = {"num_classes": 3, "separable": True, **settings}
    return randomize(nn.Detector(backbone(), taps, anchors, extras, **settings, **drawn(5)))


# Segments and maps


def test_a_chain_is_cut_where_it_is_tapped():
    paths = [[path for path, _ in segment] for segment in detector().segments()]
    assert paths == [
        [f"backbone.{path}" for path in ("stem", "blocks.0", "blocks.1", "blocks.2.expand", "blocks.2.expand_bn")],
        [f"backbone.blocks.2.{name}" for name in ("depthwise", "depthwise_bn", "project", "project_bn")]
        + ["backbone.head"],
        ["head.extras.0"],
    ]
    between_blocks = detector(("blocks.1", "blocks.2"), (3, 6, 6, 6)).segments()
    assert [len(segment) for segment in between_blocks] == [2, 1, 2, 1]


@pytest.mark.parametrize(
    "taps, anchors, sizes",
    [
        (("blocks.2.depthwise",), (3, 6, 6), [(6, 4, 15), (3, 2, 6), (2, 1, 8)]),
        (("blocks.1", "blocks.2"), (3, 6, 6, 6), [(12, 8, 4), (6, 4, 5), (3, 2, 6), (2, 1, 8)]),
        ((), (2, 6), [(3, 2, 6), (2, 1, 8)]),
    ],
)
def test_maps(taps, anchors, sizes):
    model = detector(taps, anchors)
    assert model.maps((12, 8, 3)) == model.maps((12, 8)) == sizes
    count = sum(H * W * a for (H, W, _), a in zip(sizes, anchors))
    assert model(images(2, 12, 8, 3)).shape == (2, count, 4 + 3)
    assert model.trace((12, 8, 3), lambda *layer: None) == (count, 4 + 3)


@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
def test_predictions_by_hand(training):
    """The chain is that of the backbone, the maps are what the predictors get, and their results are joined."""
    model, again = detector(), detector()
    x = images(3, 12, 8, 3)
    seen, block = [], again.backbone.blocks[2]
    block.as_one_op = False
    block.expand_bn.observers.append(seen.append)
    last = again.backbone(x, training)
    assert len(seen) == 1
    maps = [seen[0], last, again.head.extras[0](last, training)]
    expected = [predictor(m, training) for m, predictor in zip(maps, again.head.predictors)]
    assert_close("predictions", model(x, training), np.concatenate(expected, axis=1), 1e-13)
    for (name, array), other in zip(model.state_dict().items(), again.state_dict().values()):
        np.testing.assert_allclose(array, other, rtol=1e-12, atol=1e-12, err_msg=name)


def test_the_trace_tells_what_every_layer_returns():
    model = detector()
    returned = {}
    for path, part in model.named_modules():
        part.observers.append(lambda y, path=path: returned.__setitem__(path, y.shape[1:]))
    for block in model.backbone.blocks:
        block.as_one_op = False
    model(images(2, 12, 8, 3), training=True)
    traced = {}
    model.trace((12, 8, 3), lambda path, layer, shape, out: traced.__setitem__(path, out))
    assert traced == {path: returned[path] for path in traced}
    layers = [path for path, part in model.named_modules() if isinstance(part, nn.Layer)]
    assert list(traced) == layers


def test_observers_see_what_is_gone_through_layer_by_layer():
    """The backbone, and a block with a map inside: the Detector does not call them, but their output is there."""
    model, again, x = detector(), detector(), images(2, 12, 8, 3)
    seen = {}
    for path, part in model.named_modules():
        part.observers.append(lambda y, path=path: seen.setdefault(path, []).append(y))
    model(x)
    block = seen["backbone.blocks.2"]
    expected = nn.Sequential(again.backbone.stem, *again.backbone.blocks)(x)
    assert_close("the end of the block", block[0], expected, 1e-13)
    assert_close("the last map", seen["backbone"][0], again.backbone(x), 1e-13)
    assert len(block) == len(seen["backbone"]) == 1
    assert {path for path, _ in model.named_modules()} - set(seen) == {"head"}  # which has no output


def test_dropout_stands_before_the_layers_that_predict_the_scores():
    """After them it would drop scores."""
    for separable in (True, False):
        predictor = randomize(nn.Predictor(2, 3, 5, separable=separable, dropout=0.9, **drawn()))
        scores = predictor(images(2, 4, 4, 2), training=True)[..., 4:]
        assert np.all(scores != 0)


def test_an_extra_map_of_one_channel():
    extra = nn.ExtraMap(3, 1, separable=False, **drawn())
    assert extra.reduce.conv.C_out == 1 and extra(images(2, 4, 4, 3)).shape == (2, 2, 2, 1)


# The order of the predictions


def test_predictions_are_in_the_order_of_the_default_boxes():
    """A map that holds the centres of its pixels, and a predictor that hands them on: the centres of the boxes."""
    anchors = 3
    predictor = nn.Predictor(2, anchors, 1, separable=False, **drawn())
    predictor.box.conv.w.value = np.zeros((3, 3, 2, 4 * anchors))
    for a in range(anchors):
        predictor.box.conv.w.value[1, 1, [0, 1], [4 * a, 4 * a + 1]] = 1
    size = (3, 5)
    expected = boxes.default_boxes([size])
    centres = expected[::anchors, :2].reshape(1, *size, 2)
    assert_close("centres", predictor(centres)[0, :, :2], expected[:, :2], 1e-15)


def test_a_box_has_its_code_first_and_then_its_scores():
    predictor = nn.Predictor(2, 3, 5, separable=True, **drawn())
    predictor.box.project.b.value = [10 * box + k for box in range(3) for k in range(4)]
    predictor.score.project.b.value = [100 + 10 * box + k for box in range(3) for k in range(5)]
    for branch in (predictor.box, predictor.score):
        branch.project.w.value = np.zeros(branch.project.w.shape)
    y = predictor(images(2, 2, 2, 2))
    assert y.shape == (2, 2 * 2 * 3, 4 + 5)
    of_a_pixel = [[*(10 * box + k for k in range(4)), *(100 + 10 * box + k for k in range(5))] for box in range(3)]
    assert y.tolist() == [of_a_pixel * 4] * 2
    code, scores = detector().split(y)
    assert code.tolist() == y[..., :4].tolist() and scores.tolist() == y[..., 4:].tolist()


def test_default_boxes_of_a_detector():
    model = detector()
    found = model.default_boxes((12, 8))
    assert found.shape == (model.trace((12, 8, 3), lambda *layer: None)[0], 4)
    assert np.array_equal(found, boxes.default_boxes([(6, 4), (3, 2), (2, 1)]))
    assert len(model.default_boxes(12)) == 3 * 36 + 6 * 9 + 6 * 4
    with pytest.raises(ValueError, match="with these settings there are 258 default boxes, but 168 predictions"):
        model.default_boxes((12, 10), smallest=None)


# Gradients, folding, errors


@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize("taps, separable", [(("blocks.2.depthwise",), True), (("blocks.1", "blocks.2"), False)])
def test_gradients(taps, separable, training):
    model = detector(taps, (2,) * (2 + len(taps)), separable=separable, dropout=0.3)
    errors = gradient_errors(model, images(3, 9, 8, 3), training=training)
    assert np.median(errors) < 1e-6, errors


def test_every_map_hands_its_gradient_back():
    """A gradient of the predictions on one map alone reaches what is before that map, and nothing after it."""
    model = detector()
    x = images(2, 12, 8, 3)
    y = model(x, training=True)
    bounds = [0, 6 * 4 * 3, 6 * 4 * 3 + 3 * 2 * 6, y.shape[1]]
    first_layers = ["backbone.stem.conv.w", "backbone.blocks.2.depthwise.w", "head.extras.0.reduce.conv.w"]
    for k in range(3):
        dy = np.zeros(y.shape)
        dy[:, bounds[k] : bounds[k + 1]] = images(*dy[:, bounds[k] : bounds[k + 1]].shape, seed=k)
        assert np.any(model.backward(dy))
        reached = {p.name for p in model.parameters() if np.any(p.grad)}
        assert [name in reached for name in first_layers] == [segment <= k for segment in range(3)]
        predictors = {int(name.split(".")[2]) for name in reached if name.startswith("head.predictors")}
        assert predictors == {k}


@pytest.mark.parametrize("case", ["Detector", "Predictor, separable", "ExtraMap"])
def test_batch_norm_is_folded_inside(case):
    module, shape = make(case)
    x = images(3, *shape)
    folded = nn.fold_batch_norm(module)
    assert "BatchNorm" not in {type(part).__name__ for _, part in folded.named_modules()}
    assert_close(case, folded(x), module(x), 1e-10)


def around(part, tap):
    """Return a detector on a chain with a part in its middle, and a map somewhere in it."""
    chain = nn.Sequential(stem=nn.ConvBNAct(3, 4, 3, **drawn()), part=part, last=nn.ReLU())
    return nn.Detector(chain, (tap,), (3, 6), (), 3, separable=True, **drawn())


def on(chain, taps=(), anchors=(6,)):
    return nn.Detector(chain, taps, anchors, (), 3, separable=True, **drawn())


def stem():
    return nn.Sequential(stem=nn.ConvBNAct(3, 4, 3, **drawn()))


ERRORS = {
    "in a part that resizes": (
        lambda: around(nn.ResizedToInput(a=nn.ReLU(), b=nn.ReLU()), "part.b"),
        "part must be a chain of layers such as a Sequential; a map inside ResizedToInput cannot be tapped",
    ),
    "in a part that scales": (
        lambda: around(nn.SqueezeExcite(4, 2, **drawn()), "part.reduce"),
        "part must be a chain of layers .* SqueezeExcite cannot be tapped",
    ),
    "in branches": (lambda: around(nn.Concat(a=nn.ReLU()), "part.a"), "part must be a chain .* inside Concat cannot"),
    "a backbone of branches": (lambda: on(nn.Concat(a=nn.ReLU())), "the backbone must be a chain of layers"),
    "a backbone that resizes": (lambda: on(nn.ResizedToInput(stem())), "the backbone must be a chain of layers"),
    "a backbone that adds": (lambda: on(nn.Residual(nn.ReLU())), "the backbone adds its input to its output"),
    "no backbone": (lambda: on(None), "the backbone must be a chain of layers"),
    "a backbone without weights": (lambda: on(nn.Sequential(nn.ReLU())), "the backbone has no layer that tells"),
    "a classifier": (
        lambda: on(nn.Sequential(stem=stem(), pool=nn.GlobalAvgPool())),
        r"backbone.pool: a map must be an image \(H, W, C\), got the shape \(4,\)",
    ),
    "two levels down": (
        lambda: around(nn.Sequential(block=stem()), "part.block.stem"),
        r"taps must be paths of layers of the backbone's chain, or of a chain in it, each once, got .'part.block.stem'",
    ),
    "a tap twice": (lambda: detector(("blocks.1", "blocks.1"), (3, 6, 6, 6)), "taps must be paths of .* each once"),
    "a path alone": (lambda: detector("blocks.1"), "taps must be a list of paths, got 'blocks.1'"),
    "a number of boxes": (lambda: detector(anchors=6), "anchors must be a list of integers, got 6"),
    "a number of maps": (lambda: detector(extras=8), "extras must be a list of integers, got 8"),
    "a word": (lambda: detector(separable="no"), "separable must be True or False, got 'no'"),
    "a word for a predictor": (
        lambda: nn.Predictor(3, 2, 5, separable="no", **drawn()),
        "separable must be True or False, got 'no'",
    ),
    "a single image": (
        lambda: nn.Predictor(3, 2, 5, separable=False, **drawn())(images(4, 4, 3)),
        r"Predictor: x must have the shape \(N, H, W, C\), got \(4, 4, 3\)",
    ),
    "no such path": (lambda: detector(("blocks.9",)), r"taps must be paths of .* the backbone.*, got \('blocks.9',\)"),
    "no such layer": (lambda: detector(("blocks.2.filter",)), "taps must be paths of layers"),
    "in a residual": (
        lambda: detector(("blocks.0.depthwise",)),
        "blocks.0 adds its input to its output; a map inside it cannot be tapped",
    ),
    "maps without anchors": (
        lambda: detector(anchors=(3, 6)),
        r"anchors must be the default boxes a pixel of each map, 2 of the backbone and 1 extra ones, got \(3, 6\)",
    ),
    "no boxes": (lambda: detector(anchors=(3, 6, 0)), "anchors must be at least 1, got 0"),
    "no classes": (lambda: detector(num_classes=0), "num_classes must be at least 1, got 0"),
    "no channels": (lambda: detector(extras=(0,)), "extras must be at least 1, got 0"),
    "all dropped": (lambda: detector(dropout=1.0), "rate must be at least 0 and below 1, got 1.0"),
}


@pytest.mark.parametrize("what", ERRORS)
def test_bad_settings_are_named(what):
    call, message = ERRORS[what]
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("training", [True, False, None], ids=["training", "inference", "trace"])
def test_an_image_too_small_for_the_strides_is_named_with_the_layer(training):
    model = detector(anchors=(3, 6, 6, 6), extras=(8, 8))
    with pytest.raises(ValueError) as error:
        if training is None:
            model.trace((6, 6, 3), lambda *layer: None)
        else:
            model(images(2, 6, 6, 3), training)
    assert str(error.value).startswith("head.extras.1: halve: depthwise: ")
    assert str(error.value).endswith("an image of 1x1 pixels is too small for the stride 2; use a higher resolution")


def test_a_predictor_for_other_channels_is_named():
    model = detector()
    model.head.predictors[1] = nn.Predictor(9, 6, 3, separable=True, **drawn())
    for call in (lambda: model(images(2, 12, 8, 3)), lambda: model.trace((12, 8, 3), lambda *layer: None)):
        with pytest.raises(ValueError, match=r"^head.predictors.1: (box: )?depthwise: .*9"):
            call()
