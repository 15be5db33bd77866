"""The bottleneck block of ResNet against the same ops by hand."""

import numpy as np
import pytest

from npnets import cost, nn
from tests.models import gradient_errors
from tests.nn.test_blocks import ByHand, assert_same, block, images, relu, training_or_not

CHANNELS = {"projection": (3, 2), "identity": (8, 2)}  # C_in, C: a block ends with 4 C


def by_hand(module, x, training, *, C, stride, stride_in, dilation, padding):
    """Figure 5 (right) of He et al., a batch norm after each convolution."""
    hand = ByHand(module, training)
    first, middle = (stride, 1) if stride_in == "1x1" else (1, stride)
    reduced = x[:, ::first, ::first]
    h = relu(hand.bn(reduced @ hand.state["residual.reduce.w"].reshape(-1, C), "residual.reduce_bn"))
    settings = {"stride": middle, "dilation": dilation, "padding": padding}
    h = relu(hand.bn(hand.conv(h, "residual.conv", **settings), "residual.conv_bn"))
    h = hand.bn(hand.pointwise(h, "residual.restore"), "residual.restore_bn")
    straight = x[:, ::stride, ::stride]
    if x.shape[-1] != 4 * C:
        w = hand.state["residual.shortcut.conv.w"].reshape(-1, 4 * C)
        straight = hand.bn(straight @ w, "residual.shortcut.bn")
    return relu(straight + h)


@training_or_not
@pytest.mark.parametrize("shortcut", CHANNELS)
@pytest.mark.parametrize("stride_in", ["3x3", "1x1"])
@pytest.mark.parametrize(
    "stride, dilation, padding", [(1, 1, "same"), (2, 1, "symmetric"), (1, 2, "same"), (2, 2, "same")]
)
def test_the_block_by_hand(stride, dilation, padding, stride_in, shortcut, training):
    C_in, C = CHANNELS[shortcut]
    settings = {"stride": stride, "stride_in": stride_in, "dilation": dilation, "padding": padding}
    module = block(nn.ResidualBottleneck, C_in, C, **settings)
    x = 3 * images(3, 6, 7, C_in)
    assert_same(module, x, training, by_hand(module, x, training, C=C, **settings))


@pytest.mark.parametrize(
    "C_in, stride, kind", [(3, 1, nn.ConvBNAct), (3, 2, nn.ConvBNAct), (8, 2, nn.MaxPool2d), (8, 1, type(None))]
)
def test_the_shortcut_is_a_projection_only_where_the_channels_change(C_in, stride, kind):
    module = nn.ResidualBottleneck(C_in, 2, stride=stride, rng=np.random.default_rng(0))
    assert type(module.residual.shortcut) is kind
    expected = [(C_in, 2), (3, 3, 2, 2), (2, 8)]
    weights = [p.shape for p in module.parameters() if p.name.endswith("w") and "shortcut" not in p.name]
    assert weights == expected
    if kind is nn.ConvBNAct:  # linear: the activation comes after the sum
        assert module.residual.shortcut.bn.activation is None


@pytest.mark.parametrize("stride_in, macs", [("3x3", 16 * (8 + 9 * 4 / 4 + 16 / 4)), ("1x1", 4 * (8 + 9 * 4 + 16))])
def test_the_stride_sits_where_it_is_said(stride_in, macs):
    """On a 4x4 map: in the 3x3, the first 1x1 still sees all 16 pixels; in the 1x1, everything sees 4."""
    module = nn.ResidualBottleneck(4, 2, stride=2, stride_in=stride_in, rng=np.random.default_rng(0))
    total = cost.profile(module, (4, 4, 4))
    assert total.macs == macs + 4 * 4 * 8  # and the projection of the shortcut


def test_a_relu_follows_the_sum_and_the_branch_ends_linearly():
    module = block(nn.ResidualBottleneck, 8, 2)
    seen = []
    module.residual.observers.append(seen.append)
    y = module(10 * images(4, 5, 5, 8))
    assert seen[0].min() < 0 == y.min()
    np.testing.assert_array_equal(y, relu(seen[0]))


@training_or_not
@pytest.mark.parametrize("C_in", [3, 8])
def test_gradients(C_in, training):
    for settings in ({}, {"stride": 2, "dilation": 2}, {"stride": 2, "stride_in": "1x1"}):
        module = block(nn.ResidualBottleneck, C_in, 2, **settings)
        errors = gradient_errors(module, images(3, 6, 5, C_in), training=training, h=1e-7)
        assert np.median(errors) < 1e-6, (settings, errors)


def test_batch_norm_gets_its_settings():
    module = block(nn.ResidualBottleneck, 3, 2, bn_decay=0.75, bn_eps=0.125)
    norms = [part for _, part in module.named_modules() if isinstance(part, nn.BatchNorm)]
    assert [(norm.decay, norm.eps, norm.activation) for norm in norms] == [
        (0.75, 0.125, activation) for activation in ("relu", "relu", None, None)
    ]


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"stride_in": "last"}, 'stride_in must be "3x3" or "1x1", got \'last\''),
        ({"stride": 0}, "stride must be at least 1, got 0"),
        ({"C": 0}, "^C must be at least 1, got 0"),
        ({"C_in": 1.5}, "^C_in must be an integer, got 1.5"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        nn.ResidualBottleneck(**{"C_in": 3, "C": 2, **settings}, rng=np.random.default_rng(0))
