"""Rounding to a few bits: which numbers are left, where it happens in a network, and what is left alone."""

import numpy as np
import pytest

from npnets import models, nn, parallel
from npnets.quantization import (
    Rounded,
    is_kept,
    output_ranges,
    quantize,
    quantize_weights,
    quantized,
    with_relu6_ranges,
)
from tests import fakes
from tests.nn import randomize


def numbers(*shape, seed=0, scale=3.0):
    return (scale * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def one_by_one(x, bits, low, high):
    """Round each number to the nearest of those that can be stored, by looking at all of them."""
    low, high = min(low, 0), max(high, 0)
    step = (high - low) / (2**bits - 1)
    zero = round(-low / step)
    known = [step * (q - zero) for q in range(2**bits)]
    return np.array([min(known, key=lambda value: abs(value - one)) for one in x.ravel()]).reshape(x.shape)


@pytest.mark.parametrize("low, high", [(0, 6), (-3.7, 5.2), (1.0, 4.0), (-5.0, -1.0), (-0.1, 6)])
@pytest.mark.parametrize("bits", [1, 2, 3, 8])
def test_each_number_becomes_the_nearest_that_can_be_stored(bits, low, high):
    x = numbers(7, 5, 4)
    found = quantize(x, bits, low, high)
    assert found.dtype == x.dtype and len(np.unique(found)) <= 2**bits
    np.testing.assert_allclose(found, one_by_one(x, bits, low, high), rtol=1e-5, atol=1e-6)
    assert quantize(np.zeros(3), bits, low, high).tolist() == [0, 0, 0]


def test_inside_the_range_the_error_is_half_a_step_and_outside_it_is_cut_off():
    x = np.linspace(-1, 7, 1001)
    y = quantize(x, 4, 0, 6)
    inside = (x >= 0) & (x <= 6)
    assert np.abs(y - x)[inside].max() == pytest.approx(6 / 15 / 2, rel=0.03)
    assert (y[x < 0] == 0).all() and (y[x > 6] == 6).all()
    assert np.array_equal(quantize(y, 4, 0, 6), y)


@pytest.mark.parametrize("bits", [2, 3, 8])
def test_weights_are_rounded_around_zero(bits):
    w = numbers(3, 3, 5, 4, scale=0.1)
    found = quantize_weights(w, bits)
    m = 2 ** (bits - 1) - 1
    step = np.abs(w).max() / m
    known = step * np.arange(-m, m + 1)
    np.testing.assert_allclose(found, known[np.abs(w[..., None] - known).argmin(axis=-1)], rtol=1e-5, atol=1e-7)
    assert np.abs(found).max() == pytest.approx(np.abs(w).max()) and found.dtype == w.dtype
    np.testing.assert_allclose(quantize_weights(-w, bits), -found)


def test_each_channel_can_have_a_step_of_its_own():
    w = numbers(3, 3, 4) * np.array([100, 1, 0.01, 0], np.float32)
    together, apart = (quantize_weights(w, 4, per_channel=per_channel) for per_channel in (False, True))
    assert np.all(together[..., 2] == 0) and np.all(apart[..., 3] == 0)
    for c in range(4):
        np.testing.assert_array_equal(apart[..., c], quantize_weights(w[..., c], 4))
    assert len(np.unique(apart[..., 2])) > 4


def test_arrays_are_left_as_they_are_and_threads_change_nothing(monkeypatch):
    monkeypatch.setattr(parallel, "PIECE_BYTES", 1 << 8)
    x = numbers(9, 50)
    before = x.copy()
    alone = quantize(x, 4, -2, 6)
    with parallel.threads(2):
        assert quantize(x, 4, -2, 6).tobytes() == alone.tobytes()
    assert np.array_equal(x, before) and not np.shares_memory(x, alone)
    assert quantize(x, 3, 0, 0).tolist() == np.zeros_like(x).tolist()


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda x: quantize(x, 0, 0, 6), "bits must be at least 1, got 0"),
        (lambda x: quantize(x, 17, 0, 6), "bits must be at most 16, got 17"),
        (lambda x: quantize(x, 8, 0, np.inf), "high must be a finite number"),
        (lambda x: quantize(x, 8, 3, 1), "from a lower to a higher number, got 3.0 to 1.0"),
        (lambda x: quantize(x.astype(int), 8, 0, 6), "quantize: x must hold floating"),
        (lambda x: quantize_weights(x, 1), "bits must be at least 2, got 1"),
        (lambda x: quantize_weights(x.astype(int), 8), "quantize_weights: w must hold floating"),
    ],
)
def test_bad_settings_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(numbers(4))


# --- Networks --------------------------------------------------------------------------------------------------------


@pytest.fixture
def net():
    return randomize(fakes.net(in_channels=3))


def images(N=6, seed=0):
    return numbers(N, 8, 8, 3, seed=seed, scale=1.0)


def seen(model, x):
    """Return path -> output of every module."""
    outputs = {}
    modules = [(path, module) for path, module in model.named_modules() if isinstance(module, nn.Module)]
    for path, module in modules:
        module.observers.append(lambda y, path=path: outputs.setdefault(path, y))
    model(x)
    for _, module in modules:
        module.observers.pop()
    return outputs


KEPT = [
    "stem.conv", "blocks.0", "blocks.0.depthwise", "blocks.0.project", "blocks.1.expand", "blocks.1.depthwise",
    "blocks.1.project", "blocks.2", "blocks.2.expand", "blocks.2.depthwise", "blocks.2.project", "head.conv",
]  # fmt: skip


def test_the_outputs_of_convolutions_and_sums_are_kept(net):
    assert sorted(path for path, module in nn.fold_batch_norm(net).named_modules() if is_kept(module)) == sorted(KEPT)
    net = models.mobilenet_v2_small(shortcut="expansion", width_mult=0.25)
    assert "blocks.2.filtering" in [path for path, module in net.named_modules() if is_kept(module)]


def test_the_ranges_are_those_of_all_batches(net):
    batches = [images(seed=seed) for seed in range(3)]
    found = output_ranges(net, batches)
    assert sorted(found) == sorted(KEPT)
    outputs = [seen(nn.fold_batch_norm(net), x) for x in batches]
    for path, (low, high) in found.items():
        assert low == pytest.approx(min(one[path].min() for one in outputs))
        assert high == pytest.approx(max(one[path].max() for one in outputs))
    assert found["blocks.1.project"][0] < 0 and found["stem.conv"][0] == 0


def test_relu6_tells_the_range_of_what_it_bounds_and_of_nothing_else(net):
    ranges = dict.fromkeys(KEPT, (-9.0, 9.0))
    found = with_relu6_ranges(net, ranges)
    linear = {path for path in KEPT if path.endswith("project")} | {"blocks.0", "blocks.2"}
    assert {path for path, one in found.items() if one == (-9.0, 9.0)} == linear
    assert {one for path, one in found.items() if path not in linear} == {(0.0, 6.0)}
    relu = models.mobilenet_v2_small(activation="relu")
    assert with_relu6_ranges(relu, ranges) == ranges


def test_weights_alone(net):
    before = net.state_dict()
    small, folded = quantized(net, weights=3), nn.fold_batch_norm(net)
    for (name, w), (_, whole) in zip(small.state_dict().items(), folded.state_dict().items(), strict=True):
        expected = quantize_weights(whole, 3) if name.endswith(".w") else whole
        np.testing.assert_array_equal(w, expected, err_msg=name)
    fakes.assert_same_bits(net.state_dict(), before)
    apart = quantized(net, weights=3, per_channel=True).state_dict()
    name = "blocks.1.depthwise.w"
    np.testing.assert_array_equal(apart[name], quantize_weights(folded.state_dict()[name], 3, per_channel=True))


def test_activations_alone_are_rounded_after_each_step(net):
    """Compared with the folded network, gone through by hand."""
    x = images()
    ranges = output_ranges(net, [x])
    small, folded = quantized(net, activations=3, ranges=ranges), nn.fold_batch_norm(net)

    def step(path, y):
        return quantize(y, 3, *ranges[path])

    y = step("stem.conv", folded.stem.conv(x))
    for k, block in enumerate(folded.blocks):
        inside = y
        for name in ("expand", "depthwise", "project"):
            if getattr(block, name, None) is not None:
                inside = step(f"blocks.{k}.{name}", getattr(block, name)(inside))
        y = step(f"blocks.{k}", y + inside) if block.adds_input else inside
    y = step("head.conv", folded.head.conv(y))
    np.testing.assert_allclose(small(x), folded.classifier(folded.pool(y)), rtol=1e-4, atol=1e-5)
    for path, output in seen(small, x).items():
        if path in KEPT:
            assert len(np.unique(output)) <= 8, path


def test_with_many_bits_nothing_changes_and_with_few_it_does(net):
    x = images()
    ranges = output_ranges(net, [x])
    exact = net(x)
    errors = {}
    for bits in (16, 8, 4):
        errors[bits] = np.abs(quantized(net, weights=bits, activations=bits, ranges=ranges)(x) - exact).max()
    assert errors[16] < 1e-2 * np.abs(exact).max() and errors[16] < errors[8] < errors[4]
    np.testing.assert_allclose(quantized(net)(x), exact, rtol=1e-4, atol=1e-5)


def test_a_rounded_network_is_for_inference(net):
    ranges = output_ranges(net, [images()])
    small = quantized(net, activations=8, ranges=ranges)
    assert isinstance(small.stem.conv, Rounded) and "8 bits from 0 to" in repr(small)
    visited = []
    assert small.trace((8, 8, 3), lambda path, *rest: visited.append(path)) == (4,)
    assert "blocks.1.of.project.of" not in visited and "blocks.1.project.of" in visited
    with pytest.raises(RuntimeError, match="inference"):
        small(images(), training=True)
    with pytest.raises(RuntimeError, match="inference alone"):
        small.stem.conv.backward(images())


def test_a_missing_range_is_named(net):
    ranges = output_ranges(net, [images()])
    del ranges["blocks.2"], ranges["head.conv"]
    with pytest.raises(ValueError, match=r"no range for blocks\.2, head\.conv; take those of output_ranges"):
        quantized(net, activations=8, ranges=ranges)
    with pytest.raises(ValueError, match="bits must be at least 1"):
        quantized(net, activations=0, ranges=output_ranges(net, [images()]))
