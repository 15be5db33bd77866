"""Width and resolution: the whole grid, with networks and images as wide as they should be."""

import numpy as np
import pytest

from npnets import cost, experiments
from npnets.experiments.common import Result
from npnets.experiments.records import Record, Records
from npnets.experiments.width_resolution import EXPERIMENT, GRID, log_linear, network, pareto_front
from tests import fakes
from tests.experiments import captured, changed, fake_record


def model_of(variant):
    """Return the network of a variant, for images in colour."""
    data = experiments.Data(*(fakes.dataset(1, channels=3) for _ in range(2)))
    return network(EXPERIMENT.settings_of(variant, 0), data)


def result(macs, accuracy, variant="one"):
    return Result(variant, 1, 1, macs, accuracy, accuracy, accuracy, 0, 1.0)


def test_the_grid_is_whole_and_its_axes_have_three_seeds():
    assert len(GRID) == 2 * 4 * 4 and len(EXPERIMENT.variants) == 34
    three = {variant for variant, seeds in EXPERIMENT.seeds.items() if seeds[:3] == (0, 1, 2)}
    axes = {f"{net}_{width}_32" for net in ("v1", "v2") for width in ("1", "0.75", "0.5", "0.25")}
    axes |= {f"{net}_1_{pixels}" for net in ("v1", "v2") for pixels in (32, 28, 24, 20)}
    assert three == axes | {"v2_0.5_32_shrunk", "v2_0.25_32_shrunk"}
    five = {variant for variant, seeds in EXPERIMENT.seeds.items() if seeds == (0, 1, 2, 3, 4)}
    assert five == {f"v2_{width}_32{head}" for width in ("0.5", "0.25") for head in ("", "_shrunk")}
    assert all(seeds in ((0,), (0, 1, 2), (0, 1, 2, 3, 4)) for seeds in EXPERIMENT.seeds.values())
    assert sum(map(len, EXPERIMENT.seeds.values())) == 74  # as the docstring says


@pytest.mark.parametrize("variant", EXPERIMENT.variants)
def test_the_network_is_that_of_the_name(variant):
    name, width, _, *shrunk = variant.split("_")
    model = model_of(variant)
    assert hasattr(model, "head") == (name == "v2")
    if name == "v2":
        head = {"0.5": 128, "0.25": 64}[width] if shrunk else 256
        assert model.head.conv.C_out == model.classifier.C_in == head
    else:
        assert model.classifier.C_in == int(float(width) * 256)


@pytest.mark.parametrize(
    "variant, pixels", [("v1_0.25_32", 32), ("v2_0.25_28", 28), ("v1_0.25_24", 24), ("v1_0.25_20", 20)]
)
def test_the_images_are_as_large_as_the_name_says(variant, pixels):
    given = captured(EXPERIMENT, variant)
    assert given["train"].images.shape[1:] == given["test"].images.shape[1:] == (pixels, pixels, 3)


def test_a_shrunk_last_layer_is_the_only_difference():
    for width in ("0.5", "0.25"):
        assert changed(EXPERIMENT, f"v2_{width}_32_shrunk", f"v2_{width}_32") == {"shrink_head": True}


def test_all_networks_of_a_resolution_are_different_ones():
    for name in ("v1", "v2"):
        models = [model_of(f"{name}_{width}_32") for width in ("1", "0.75", "0.5", "0.25")]
        found = [cost.profile(model, (32, 32, 3)).macs for model in models]
        assert found == sorted(set(found), reverse=True)


def test_what_the_docstring_says_of_costs():
    one, other = (cost.profile(model_of(f"v1_1_{n}"), (n, n, 3)).macs for n in (32, 28))
    assert other / one == pytest.approx(0.96, abs=0.005)
    wide, narrow = (model_of(f"v2_{width}_32") for width in ("1", "0.75"))
    channels = [[model.stem.conv.C_out, *(b.project.C_out for b in model.blocks)] for model in (wide, narrow)]
    assert [a == b for a, b in zip(*channels)] == [True, True, True, True, False, False, False, False]


def test_the_line_through_points_on_a_line_is_found():
    points = [result(m, 0.5 + 0.2 * np.log10(m / 1e6)) for m in (10**5, 10**6, 10**7)]
    assert log_linear(points) == (pytest.approx(0.2), pytest.approx(0.5), pytest.approx(0, abs=1e-12))
    bent = log_linear([result(10**5, 0.3), result(10**6, 0.8), result(10**7, 0.7)])
    assert bent == (pytest.approx(0.2), pytest.approx(0.6), pytest.approx(np.sqrt((0.1**2 + 0.2**2 + 0.1**2) / 3)))
    assert log_linear([*points, result(10**4, np.nan)]).per_decade == pytest.approx(0.2)
    for few in ([], points[:1], [points[0], result(10**5, 0.9)], [points[0], result(10, np.nan)]):
        with pytest.raises(ValueError, match="networks of at least two different costs"):
            log_linear(few)


def test_on_the_front_is_who_is_not_beaten():
    cheap, dear = result(1, 0.1, "cheap"), result(9, 0.9, "dear")
    beaten = [result(2, 0.1, "no better"), result(9, 0.8, "as dear"), result(8, np.nan, "diverged")]
    assert [one.variant for one in pareto_front([dear, *beaten, cheap])] == ["cheap", "dear"]
    assert pareto_front([]) == []


def test_networks_with_a_thinned_last_layer_are_on_no_line_and_no_front():
    def record(variant, macs, accuracy):
        return Record(fake_record(variant, final={"accuracy": accuracy}, cost={"params": 1, "macs": macs}))

    grid = [record("v2_1_32", 4_000_000, 0.7), record("v2_0.5_32", 1_000_000, 0.6)]
    without, with_one = (
        EXPERIMENT.report(Records(EXPERIMENT, [*grid, *more])).split("\n\n")[1]
        for more in ([], [record("v2_0.5_32_shrunk", 900_000, 0.99)])
    )
    assert without == with_one and without.endswith("on the front: v2_0.5_32, v2_1_32")


def test_every_variant_trains(made_up_images, monkeypatch):
    for name, value in {"epochs": 1, "batch_size": 32, "warmup": 2}.items():
        monkeypatch.setitem(EXPERIMENT.small, name, value)
    records = experiments.small("width_resolution", jobs=1, threads=1)
    assert records.variants == list(EXPERIMENT.variants)
    sizes = {record["cost"]["input"][0] for record in records}
    assert sizes == {16, 14, 12, 10}
    assert len({record["cost"]["macs"] for record in records}) == 34
    text = EXPERIMENT.report(records)
    assert "v1: ten times the multiply-adds bring" in text and "v2: ten times" in text and "on the front: " in text
