"""The latency of one image: which runs count, what is run, how it is shown. The clock is one that layers advance."""

import json

import numpy as np
import pytest

from npnets import cost, models, nn, parallel
from npnets.latency import Latency, LatencyReport, measure_latency
from tests import fakes
from tests.nn import arrays_of, randomize


class Timed(nn.Layer):
    """A layer that takes so many seconds, one number for each call."""

    kind = "timed"

    def __init__(self, seconds):
        super().__init__()
        self.seconds = iter(seconds)

    def apply(self, x, training):
        clock.now += next(self.seconds)
        seen.append((x, training, len(parallel._current.team.helpers) + 1))
        return x, None


class clock:
    now = 0.0


seen = []


@pytest.fixture(autouse=True)
def no_real_clock(monkeypatch):
    monkeypatch.setattr("time.perf_counter", lambda: clock.now)
    seen.clear()


def timed(*seconds, **settings):
    return measure_latency(nn.Sequential(layer=Timed(seconds)), (4, 5, 3), **settings)


def test_the_runs_after_the_warm_up_count_and_the_median_is_theirs():
    found = timed(100, 50, 3, 1, 2, 9, 4, repeats=5, warmup=2)
    assert found.seconds == (3, 1, 2, 9, 4)
    assert (found.median, found.fastest) == (3, 1)
    assert found.spread == pytest.approx((1.4, 7.0))  # 0.1 and 0.9 of the way through 1, 2, 3, 4, 9


def test_thirty_runs_after_five_are_the_default():
    assert timed(*range(35)).seconds == tuple(range(5, 35))


def test_it_is_the_inference_of_one_image_with_the_threads_asked_for():
    assert timed(1, repeats=1, warmup=0).threads == 1
    timed(1, repeats=1, warmup=0, threads=3)
    assert [(x.shape, training, threads) for x, training, threads in seen] == [((1, 4, 5, 3), False, n) for n in (1, 3)]
    assert np.unique(seen[0][0]).size == seen[0][0].size  # drawn, not constant


def test_batch_norm_is_folded_unless_asked(monkeypatch):
    called = []
    real = nn.BatchNorm.apply
    monkeypatch.setattr(nn.BatchNorm, "apply", lambda *a: (called.append(1), real(*a))[1])
    model = fakes.net()
    assert measure_latency(model, (8, 8, 1), repeats=2, warmup=1).folded and not called
    norms = sum(isinstance(module, nn.BatchNorm) for _, module in model.named_modules())
    assert not measure_latency(model, (8, 8, 1), repeats=2, warmup=1, fold=False).folded
    assert len(called) == 3 * norms


def test_the_counts_are_those_of_the_network_as_it_is_trained():
    found = measure_latency(models.mobilenet_v2_small(), (28, 28, 3), repeats=1, warmup=0)
    expected = cost.profile(models.mobilenet_v2_small(), (28, 28, 3))
    assert (found.params, found.macs) == (expected.params, expected.macs)


@pytest.mark.parametrize("fold", [True, False])
def test_the_model_is_given_back_as_it_was(fold):
    model = randomize(fakes.net(dropout=0.3))
    x = np.random.default_rng(0).standard_normal((2, 8, 8, 1)).astype(np.float32)
    model.backward(model(x, training=True))
    before = {name: array.tobytes() for name, array in arrays_of(model).items()}
    caches = [getattr(module, "cache", None) for _, module in model.named_modules()]
    measure_latency(model, (8, 8, 1), repeats=2, fold=fold)
    assert {name: array.tobytes() for name, array in arrays_of(model).items()} == before
    assert all(getattr(m, "cache", None) is cache for (_, m), cache in zip(model.named_modules(), caches))


def test_vectors_and_other_dtypes_are_drawn_as_the_model_takes_them():
    model = nn.Sequential(fc=nn.Linear(7, 4, rng=np.random.default_rng(0), dtype=np.float64), layer=Timed([1]))
    found = measure_latency(model, (7,), repeats=1, warmup=0)
    assert (found.input_shape, found.macs) == ((7,), 28)
    assert seen[0][0].dtype == np.float64


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"repeats": 0}, "repeats must be at least 1"),
        ({"warmup": -1}, "warmup must be at least 0"),
        ({"threads": 0}, "threads must be at least 1"),
        ({"input_shape": (8, 8, 3)}, "stem: conv: Conv2d: expects 1 channels"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        measure_latency(**({"model": fakes.net(), "input_shape": (8, 8, 1)} | settings))


# --- How it is shown -------------------------------------------------------------------------------------------------


def latency(name="a net", seconds=(0.010, 0.012, 0.011), **changes):
    counts = {"input_shape": (8, 9, 3), "params": 2_500_000, "macs": 33_000_000, "threads": 1, "folded": True}
    return Latency(name, seconds=seconds, **(counts | changes))


def test_the_table_shows_milliseconds_and_rates():
    header, line = LatencyReport((latency(),)).table()
    assert header[4:7] == ("ms", "10 % to 90 %", "fastest")
    assert line == ("a net", "8 x 9 x 3", "2.50", "33.0", "11.0", "10.2 to 11.8", "10.0", "3.00")


def test_a_clock_that_did_not_move_gives_no_rate():
    assert LatencyReport((latency(seconds=(0.0, 0.0)),)).table()[1][4:] == ("", " to ", "", "")


def test_text_markdown_and_html_have_a_line_for_each_model():
    report = LatencyReport((latency(), latency("another", (0.02,) * 3)))
    heading = "Inference of one image, 1 thread, batch norm folded: median of 3"
    assert str(report).startswith(heading + "\n\nmodel ") and len(str(report).splitlines()) == 2 + 2 + 2
    markdown = report.to_markdown()
    assert markdown.startswith(f"**{heading}**")
    assert len({line.count("|") for line in markdown.splitlines() if "|" in line}) == 1 and "| another |" in markdown
    assert report._repr_html_().count("<tr>") == 3
    assert "a net" in str(latency()) and "a net" in latency()._repr_html_()


def test_the_heading_says_how_it_was_measured_or_that_it_was_in_different_ways():
    assert LatencyReport((latency(threads=2, folded=False),)).heading() == (
        "Inference of one image, 2 threads, batch norm as it is trained: median of 3"
    )
    assert "different ways" in LatencyReport((latency(), latency(threads=2))).heading()


def test_json_holds_all_times():
    (data,) = json.loads(json.dumps(LatencyReport((latency(),)).to_json(), allow_nan=False))
    assert data["seconds"] == [0.010, 0.012, 0.011] and data["input_shape"] == [8, 9, 3]
    assert data["summary"]["median"] == 0.011 and data["summary"]["fastest"] == 0.010
    assert (data["params"], data["macs"], data["threads"], data["folded"]) == (2_500_000, 33_000_000, 1, True)
