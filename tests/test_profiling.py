"""The profile of a step: what is counted, that every second lands in one row, and that the model is left alone.

No test looks at the real clock: where seconds matter, layers advance one of their own.
"""

import json

import numpy as np
import pytest

from npnets import cost, models, nn, profiling
from npnets.profiling import BLOCK, Pass, Row, StepProfile, Unit, profile_step, watched
from tests import fakes
from tests.models import smallest_classifiers

QUICK = {"repeats": 1, "warmup": 0, "threads": 1}


def rng():
    return np.random.default_rng(3)


def rows_of(model, shape, **settings):
    """Return name -> row of a quick profile."""
    return {row.name: row for row in profile_step(model, shape, **(QUICK | settings)).rows}


@pytest.fixture
def clock(monkeypatch):
    """Replace the clock by a number that only ``clock.tick`` advances."""

    class Time:
        now = 0.0

        def tick(self, seconds):
            self.now += seconds

    time = Time()
    monkeypatch.setattr("time.perf_counter", lambda: time.now)
    return time


class Slow(nn.Layer):
    """Returns what it gets after so many seconds, each time one more."""

    kind = "slow"

    def __init__(self, clock, forward, backward):
        super().__init__()
        self.clock, self.seconds = clock, {"forward": forward, "backward": backward}

    def apply(self, x, training):
        self.clock.tick(self.seconds["forward"])
        return x.copy(), True

    def apply_backward(self, dy, cache):
        self.clock.tick(self.seconds["backward"])
        return dy.copy()


class Around(nn.Module):
    """Calls a layer and needs time before and after; in the backward it computes nothing itself."""

    def __init__(self, clock, layer):
        super().__init__()
        self.clock, self.layer = clock, layer

    def forward(self, x, training=False):
        self.clock.tick(1)
        y = self.layer(x, training)
        self.clock.tick(2)
        return y

    def backward(self, dy):
        return self.layer.backward(dy)

    def trace(self, shape, visit, path=""):
        return self.layer.trace(shape, visit, f"{path}.layer" if path else "layer")


# --- What is counted -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("whole_blocks", [False, True])
@pytest.mark.parametrize("name", smallest_classifiers())
def test_multiply_adds_and_parameters_are_those_of_the_cost(name, whole_blocks):
    size = models.resolution(name) if models.resolution(name) < 100 else 32
    model = models.build(name, in_channels=3)
    found = profile_step(model, (2, size, size, 3), whole_blocks=whole_blocks, **QUICK)
    expected = cost.profile(model, (size, size, 3))
    assert sum(row.forward.macs for row in found.rows) == 2 * expected.macs
    assert sum(row.backward.macs for row in found.rows) == 4 * expected.macs
    assert sum(row.params for row in found.rows) == expected.params
    if not whole_blocks:
        counted = {(row.name, row.output_shape, row.params, row.forward.macs) for row in found.rows}
        assert {(row.name, row.output_shape, row.params, 2 * row.macs) for row in expected.rows} <= counted


def test_bytes_of_each_kind_by_hand():
    block = nn.InvertedResidual(8, 8, t=2, rng=rng())
    model = nn.Sequential(block=block, pool=nn.GlobalAvgPool(), classifier=nn.Linear(8, 3, rng=rng()))
    rows = rows_of(model, (2, 4, 5, 8))
    x, mid, pixels = 4 * 2 * 20 * 8, 4 * 2 * 20 * 16, 4 * 2 * 8
    w = 4 * 8 * 16
    expand, norm = rows["block.expand"], rows["block.expand_bn"]
    assert (expand.forward.bytes, expand.backward.bytes) == (x + w + mid, mid + x + w + x + w)
    assert (norm.forward.bytes, norm.backward.bytes) == (2 * mid + 4 * 32, 3 * mid + 2 * 4 * 32)
    assert (rows["block"].forward.bytes, rows["block"].backward.bytes) == (3 * x, 3 * x)
    assert (rows["pool"].forward.bytes, rows["pool"].backward.bytes) == (x + pixels, pixels + x)
    linear, own, scores = rows["classifier"], 4 * (8 * 3 + 3), 4 * 2 * 3
    assert linear.forward.bytes == pixels + own + scores
    assert linear.backward.bytes == scores + pixels + own + pixels + own


def test_bytes_follow_the_dtype():
    single, double = (
        rows_of(nn.Sequential(conv=nn.Conv2d(2, 4, 3, rng=rng(), dtype=dtype)), (2, 6, 6, 2))["conv"]
        for dtype in (np.float32, np.float64)
    )
    assert (double.forward.bytes, double.backward.bytes) == (2 * single.forward.bytes, 2 * single.backward.bytes)


def test_bytes_of_a_concatenation():
    model = nn.Concat(a=nn.PointwiseConv2d(4, 2, rng=rng()), b=nn.PointwiseConv2d(4, 3, rng=rng()))
    row = rows_of(model, (2, 3, 3, 4))["Concat"]
    assert (row.kind, row.forward.bytes, row.backward.bytes) == ("concatenation", 2 * 4 * 18 * 5, 3 * 4 * 18 * 4)


def test_bytes_of_a_scaling():
    """x and the gates are read, y is written; backward, x and dy and what comes back through the squeeze are read."""
    row = rows_of(nn.Sequential(scale=nn.SqueezeExcite(6, 2, rng=rng())), (2, 4, 5, 6))["scale"]
    x, gates = 4 * 2 * 20 * 6, 4 * 2 * 6
    assert (row.kind, row.forward.bytes, row.backward.bytes) == ("scale", 2 * x + gates, 4 * x + 2 * gates)


@pytest.mark.parametrize("inference", [False, True])
def test_bytes_of_a_resizing_are_those_of_the_small_map_and_the_large_one(inference):
    model = nn.ResizedToInput(conv=nn.Conv2d(3, 4, 3, stride=8, rng=rng()))
    row = rows_of(model, (2, 33, 41, 3), inference=inference)["ResizedToInput"]
    small, large = 4 * 2 * 5 * 6 * 4, 4 * 2 * 33 * 41 * 4
    assert (row.kind, row.forward.bytes) == ("resize", small + large)
    assert row.backward.bytes == (0 if inference else small + large)


def test_bytes_of_predictions():
    """Parts are joined; backward, the two gradients of a map are added, but of the last map a detector has only one."""
    backbone = nn.Sequential(stem=nn.ConvBNAct(3, 4, 3, rng=rng()), last=nn.ConvBNAct(4, 6, 3, stride=2, rng=rng()))
    model = nn.Detector(backbone, ("last",), (2, 3), (), 5, separable=False, rng=rng())
    rows = rows_of(model, (2, 8, 6, 3))
    counts = {"head.predictors.0": 48 * 2, "head.predictors.1": 12 * 3, "Detector": 48 * 2 + 12 * 3}
    maps = {"head.predictors.0": 48 * 4, "head.predictors.1": 12 * 6, "Detector": 48 * 4}
    for name, count in counts.items():
        expected = "predictions", 2 * 4 * 2 * count * 9, 3 * 4 * 2 * maps[name]
        assert (rows[name].kind, rows[name].forward.bytes, rows[name].backward.bytes) == expected


def test_a_block_in_one_op_has_the_counts_of_its_layers_but_only_its_own_bytes():
    block = nn.InvertedResidual(8, 8, t=2, rng=rng())
    apart = rows_of(nn.Sequential(block=block), (2, 4, 5, 8))
    whole = rows_of(nn.Sequential(block=block), (2, 4, 5, 8), whole_blocks=True)
    assert [name for name in whole if name.startswith("block")] == ["block"] and whole["block"].kind == BLOCK
    inside = [row for name, row in apart.items() if name.startswith("block")]
    assert whole["block"].macs == sum(row.macs for row in inside)
    assert whole["block"].params == sum(row.params for row in inside) == block_params(block)
    x, own = 4 * 2 * 20 * 8, 4 * block_params(block)
    assert (whole["block"].forward.bytes, whole["block"].backward.bytes) == (2 * x + own, 3 * x + 2 * own)


def block_params(block):
    return sum(parameter.size for parameter in block.parameters())


def test_folded_blocks_are_taken_apart_or_whole_too():
    model = nn.Sequential(block=nn.InvertedResidual(8, 8, t=2, rng=rng()))
    apart = rows_of(model, (2, 4, 5, 8), inference=True)
    whole = rows_of(model, (2, 4, 5, 8), inference=True, whole_blocks=True)
    assert list(apart)[:4] == ["block.expand", "block.depthwise", "block.project", "block"]
    assert list(whole) == ["block", "between layers"] and whole["block"].kind == BLOCK
    assert whole["block"].macs == sum(row.macs for row in apart.values())


def test_a_layer_in_two_places_is_one_row_with_the_work_of_both():
    layer = nn.PointwiseConv2d(4, 4, rng=rng())
    rows = rows_of(nn.Sequential(first=layer, act=nn.Sigmoid(), second=layer), (2, 3, 3, 4), inference=True)
    assert "second" not in rows
    assert (rows["first"].forward.macs, rows["first"].params) == (2 * 2 * 9 * 16, 16)


# --- Where the seconds go --------------------------------------------------------------------------------------------


def test_each_second_is_in_one_row(clock):
    inner = Slow(clock, 10, 20)
    model = nn.Sequential(first=Slow(clock, 3, 4), around=Around(clock, inner), last=nn.GlobalAvgPool())
    found = profile_step(model, (2, 3, 3, 4), repeats=3, threads=1)
    seconds = {row.name: (row.forward.seconds, row.backward.seconds) for row in found.rows if row.seconds}
    assert seconds == {"first": (3, 4), "around.layer": (10, 20), "around": (3, 0)}
    assert found.step_seconds == found.apart_seconds == found.watched_seconds == 40


def test_what_is_between_the_layers_is_not_lost(clock, monkeypatch):
    original = nn.Sequential.forward

    def forward(self, x, training=False):
        clock.tick(7)
        return original(self, x, training)

    model = nn.Sequential(layer=Slow(clock, 1, 2), pool=nn.GlobalAvgPool())
    monkeypatch.setattr(nn.Sequential, "forward", forward)
    found = profile_step(model, (2, 3, 3, 4), repeats=2, threads=1)
    assert found.rows[-1] == Row("between layers", "between layers", (), 0, other=7.0)
    assert sum(row.seconds for row in found.rows) == found.watched_seconds == 10


def test_a_row_is_the_median_of_the_steps(clock):
    layer = Slow(clock, 0, 0)
    slow_steps = iter([1, 1, 1, 5, 1, 9, 1, 4])  # two to warm up, then in turn without and with its layers timed

    def apply(x, training):
        clock.tick(next(slow_steps))
        return x.copy(), True

    layer.apply = apply
    model = nn.Sequential(layer=layer, pool=nn.GlobalAvgPool())
    found = profile_step(model, (2, 2, 2, 3), repeats=3, warmup=0, threads=1)
    assert (found.rows[0].forward.seconds, found.step_seconds, found.watched_seconds) == (5, 1, 5)


def test_loss_and_update_have_rows_of_their_own(clock, monkeypatch):
    from npnets import ops, optim

    real = ops.softmax_cross_entropy_forward
    monkeypatch.setattr(ops, "softmax_cross_entropy_forward", lambda *a: (clock.tick(2), real(*a))[1])
    monkeypatch.setattr(optim.RMSProp, "step", lambda self: clock.tick(5))
    rows = rows_of(fakes.net(), (2, 8, 8, 1))
    assert rows["loss"].forward.seconds == 2 and rows["update"].other == 5
    assert rows["update"].seconds == sum(row.seconds for row in rows.values()) - 2


def test_rows_are_the_layers_in_forward_order_with_the_sums_after_their_block():
    model = fakes.net()
    names = list(rows_of(model, (2, 8, 8, 1)))
    layers = [path for path, part in model.named_modules() if isinstance(part, nn.Layer)]
    assert [name for name in names if name in layers] == layers
    residual = [path for path, part in model.named_modules() if isinstance(part, nn.Residual) and part.adds_input]
    assert residual and all(names.index(path) == names.index(f"{path}.project_bn") + 1 for path in residual)
    assert names[-3:] == ["loss", "update", "between layers"]


def test_inference_is_a_forward_of_the_folded_model():
    model = fakes.net()
    found = profile_step(model, (2, 8, 8, 1), inference=True, **QUICK)
    kinds = {row.kind for row in found.rows}
    assert "batch norm" not in kinds and {"pointwise", "depthwise", "conv"} < kinds
    assert not {"loss", "update"} & kinds
    assert all(row.backward == Pass() for row in found.rows)
    assert sum(row.macs for row in found.rows) == 2 * cost.profile(model, (8, 8, 1)).macs
    assert "backward ms" not in found.table()[0]


def test_a_block_by_itself_and_vectors_can_be_profiled():
    assert "depthwise" in rows_of(nn.DepthwiseSeparable(4, 8, rng=rng()), (2, 5, 6, 4))
    assert list(rows_of(nn.ReLU(), (3, 7))) == ["ReLU", "loss", "between layers"]  # nothing to update
    rows = rows_of(nn.Sequential(fc=nn.Linear(7, 4, rng=rng())), (3, 7))
    assert rows["fc"].forward.macs == 3 * 28 and rows["update"].params == 0


# --- The model is left alone -----------------------------------------------------------------------------------------


def everything(model):
    """Return all that belongs to a model as plain values: arrays as bytes, everything else by identity."""
    found = {}
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            found[f"{path}.{name}"] = value.tobytes() if isinstance(value, np.ndarray) else id(value)
            if isinstance(value, nn.Parameter):
                found[f"{path}.{name}."] = (value.value.tobytes(), id(value.grad), value.name)
            if isinstance(value, np.random.Generator):
                found[f"{path}.{name}."] = json.dumps(value.bit_generator.state)
    return found


@pytest.mark.parametrize("settings", [{}, {"whole_blocks": True}, {"inference": True}])
def test_the_model_is_given_back_as_it_was(settings):
    model = fakes.net(dropout=0.3)
    whole = nn.Sequential(body=model)
    whole.parameters()  # names from here, "body.stem..."
    images = np.random.default_rng(0).normal(size=(3, 8, 8, 1)).astype(np.float32)
    model.backward(model(images, training=True))
    before = everything(model)
    profile_step(model, (2, 8, 8, 1), **settings, **QUICK)
    assert everything(model) == before


def test_an_error_in_a_layer_leaves_the_model_as_it_was(monkeypatch):
    model = fakes.net()
    model.parameters()
    before = everything(model)
    calls = iter(range(100))

    def step(self):
        if next(calls) == 3:  # while the layers are being timed
            raise KeyboardInterrupt

    monkeypatch.setattr("npnets.optim.RMSProp.step", step)
    with pytest.raises(KeyboardInterrupt):
        profile_step(model, (2, 8, 8, 1), repeats=5, threads=1)
    assert everything(model) == before
    assert next(calls) == 4


def test_a_method_that_an_object_had_of_its_own_is_put_back():
    layer = nn.ReLU()
    own = layer.forward = lambda x, training=False: x
    with watched([Unit("", "", layer)], lambda unit, method, function: lambda *arguments: "watched"):
        assert layer.forward(1) == layer.backward(1) == "watched"
    assert vars(layer)["forward"] is own and "backward" not in vars(layer)


def test_taking_blocks_apart_gives_up_what_the_last_forward_left():
    """Else the arrays of the block and those of its layers would be kept at the same time."""
    block = nn.InvertedResidual(4, 4, t=2, rng=rng())

    def kept():
        return [path for path, part in block.named_modules() if getattr(part, "cache", None) is not None]

    x = np.ones((2, 4, 4, 4), np.float32)
    block(x, training=True)
    assert kept() == [""]
    with profiling.taken_apart(block):
        assert kept() == [] and not block.as_one_op
        block(x, training=True)
        assert "" not in kept() and len(kept()) == 6
    assert kept() == [] and block.as_one_op


def test_only_the_timed_steps_take_blocks_apart(monkeypatch):
    """The first of the three times is that of a training."""
    from npnets.nn.blocks import mobile

    calls = []
    real = mobile.bottleneck_forward
    monkeypatch.setattr(mobile, "bottleneck_forward", lambda *a, **k: (calls.append(1), real(*a, **k))[1])
    model = nn.Sequential(block=nn.InvertedResidual(4, 4, t=2, rng=rng()))
    found = profile_step(model, (2, 4, 4, 4), repeats=3, warmup=2, threads=1)
    assert len(calls) == 2 + 3
    assert BLOCK not in {row.kind for row in found.rows}


# --- How it is shown -------------------------------------------------------------------------------------------------


def profile(**changes):
    """Return a profile with round numbers."""
    M = 10**6
    rows = [
        Row("stem.conv", "conv", (4, 4, 8), 200, Pass(0.001, M, M), Pass(0.002, 2 * M, M)),
        Row("blocks.0.pointwise", "pointwise", (4, 4, 8), 500, Pass(0.002, 5 * M, M), Pass(0.003, 10 * M, M)),
        Row("blocks.0", "residual sum", (4, 4, 8), 0, Pass(0.001, 0, M), Pass(0.001, 0, M)),
        Row("blocks.1.pointwise", "pointwise", (4, 4, 8), 300, Pass(0.004, 4 * M, M), Pass(0.003, 8 * M, M)),
        Row("update", "update", (), 0, other=0.003),
    ]
    return StepProfile(**({"input_shape": (2, 4, 4, 3), "rows": rows, "step_seconds": 0.01, "apart_seconds": 0.018,
                           "watched_seconds": 0.02, "threads": 2, "repeats": 5} | changes))  # fmt: skip


def test_rows_of_a_kind_and_of_a_block_are_summed():
    kinds = {row.kind: row for row in profile().by_kind()}
    assert list(kinds) == ["pointwise", "conv", "update", "residual sum"]
    pointwise = kinds["pointwise"]
    assert pointwise.seconds == pytest.approx(0.012) and (pointwise.macs, pointwise.params) == (27 * 10**6, 800)
    assert (pointwise.forward.macs, pointwise.bytes) == (9 * 10**6, 4 * 10**6)
    blocks = profile().by("block")
    assert [row.name for row in blocks] == ["stem", "blocks.0", "blocks.1", "update"]
    assert blocks[1].seconds == pytest.approx(0.007)


def test_shares_add_up():
    shares = profile().shares()
    assert shares["pointwise"] == pytest.approx((12 / 20, 27 / 30, 0.8))
    assert shares["update"] == pytest.approx((3 / 20, 0, 0))
    assert [sum(column) for column in zip(*shares.values())] == pytest.approx([1, 1, 1])


@pytest.mark.parametrize(
    ("sort", "first"),
    [
        (None, "stem.conv"),
        ("time", "blocks.1.pointwise"),
        ("forward", "blocks.1.pointwise"),
        ("backward", "blocks.0.pointwise"),
        ("macs", "blocks.0.pointwise"),
        ("params", "blocks.0.pointwise"),
    ],
)
def test_rows_are_sorted_from_the_largest(sort, first):
    assert profile().by("layer", sort)[0].name == first


def test_the_table_shows_milliseconds_shares_counts_and_rates():
    header, first, *_, update, total = profile().table()
    assert header[:6] == ("layer", "kind", "output", "forward ms", "backward ms", "ms")
    assert first == ("stem.conv", "conv", "4 x 4 x 8", "1.00", "2.00", "3.00", "15.0%", "3.00", "2.00", "1.00", "0.667")
    assert update == ("update", "", "", "", "", "3.00", "15.0%", "", "", "", "")
    assert total[5:8] == ("20.0", "100.0%", "30.0")


def test_text_tells_the_three_times_and_the_rule():
    text = str(profile(name="a net"))
    assert text.startswith("a net: training step, batch 2 x 4 x 4 x 3, 2 threads: 10.0 ms, 200 images/s\n")
    assert "10.0 ms as it is, 18.0 ms layer by layer, 20.0 ms while timed (+11.1%)" in text
    assert "layer by layer" not in str(profile(apart_seconds=0.01))
    assert profiling.NOTE in text and "twice the multiply-adds" in profiling.NOTE


@pytest.mark.parametrize("by", profiling.GROUPINGS)
def test_markdown_and_html_have_whole_tables(by):
    markdown = profile().to_markdown(by)
    tables = [block.splitlines() for block in markdown.split("\n\n") if block.startswith("|")]
    assert len(tables) == 2
    assert all(len({line.count("|") for line in table}) == 1 for table in tables)
    html = profile()._repr_html_()
    assert html.count("<table>") == 2 and html.count("<tr>") == (5 + 2) + (4 + 2)


def test_json_there_and_back():
    found = profile_step(fakes.net(), (2, 8, 8, 1), **QUICK)
    assert StepProfile.from_json(json.loads(json.dumps(found.to_json(), allow_nan=False))) == found


@pytest.mark.parametrize(
    "damage",
    [lambda data: data.pop("rows"), lambda data: data["rows"][0].pop("forward"), lambda data: data.update(x=1)],
)
def test_other_json_is_refused(damage):
    data = json.loads(json.dumps(profile().to_json()))
    damage(data)
    with pytest.raises(ValueError, match="not the profile of a step"):
        StepProfile.from_json(data)


# --- Wrong input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "settings", "message"),
    [
        ((8, 8, 1), {}, r"input_shape must be \(N, H, W, C\)"),
        (64, {}, r"input_shape must be \(N, H, W, C\)"),
        ((0, 8, 8, 1), {}, "input_shape must be at least 1, got 0"),
        ((2, 8, 8, 3), {}, r"stem: conv: Conv2d: expects 1 channels"),
        ((2, 8, 8, 1), {"repeats": 0}, "repeats must be at least 1"),
        ((2, 8, 8, 1), {"warmup": -1}, "warmup must be at least 0"),
        ((2, 8, 8, 1), {"threads": 0}, "threads must be at least 1"),
    ],
)
def test_wrong_settings_are_named(shape, settings, message):
    with pytest.raises(ValueError, match=message):
        profile_step(fakes.net(), shape, **settings)


def test_wrong_groupings_are_named():
    with pytest.raises(ValueError, match="by must be one of layer, block, kind, got 'color'"):
        profile().by("color")
    with pytest.raises(ValueError, match=r"sort must be one of time, .*, got 'name'"):
        profile().table("layer", "name")
