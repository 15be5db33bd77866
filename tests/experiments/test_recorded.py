"""The recorded results that are committed: complete, made with the settings in the code, and told in the README.

An experiment whose settings change must be run again; until then these tests fail.
"""

import json
import re
from pathlib import Path

import pytest

from npnets import experiments
from npnets.experiments import batch_norm, common, expansion, low_precision

RECORDED = [name for name in experiments.names() if any((experiments.RESULTS / name).glob("*.json"))]
README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


@pytest.fixture(params=RECORDED)
def records(request):
    return experiments.load(request.param)


def test_the_experiments_of_the_notebooks_are_recorded():
    assert sorted(RECORDED) == sorted(experiments.names())  # the notebooks so far use them all


def test_every_variant_and_seed_is_recorded(records):
    have = [(record.variant, record.seed) for record in records]
    assert sorted(have) == sorted(experiments.get(records.experiment).chosen())


def test_they_were_made_with_the_settings_in_the_code_on_the_whole_data_set(records):
    experiment = experiments.get(records.experiment)
    for record in records:
        own = json.loads(json.dumps(experiment.settings_of(record.variant, record.seed)))
        assert record.settings == own | {"train": own["dataset"], "test": own["dataset"]}, record


def test_they_name_command_commit_versions_and_cores(records):
    for record in records:
        made = record["environment"]
        assert record["command"].startswith(f"python -m npnets experiment {records.experiment}")
        assert re.fullmatch(r"[0-9a-f]{7,40}", made["commit"]), f"{record} was made from files that are not committed"
        assert made["numpy"] and made["python"] and made["cores"] >= 1 and record["seconds"] > 0


def test_the_readme_tells_the_results_of_batch_norm():
    names = {"Inception": "baseline", "BN-Baseline": "bn_baseline", "BN-x5": "bn_x5", "BN-x30": "bn_x30"}
    names |= {"BN-x5-Sigmoid": "bn_x5_sigmoid"}
    rows = re.findall(rf"^\| ({'|'.join(names)}) \|(.*)\|$", README, re.MULTILINE)
    found = {name: [cell.strip() for cell in cells.split("|")] for name, cells in rows}
    assert found.keys() == names.keys()
    computed = {row.variant: row for row in batch_norm.compare(experiments.load("batch_norm"))}
    for name, (steps, factor, best, *_) in found.items():
        row = computed[names[name]]
        assert steps == f"{row.steps:,.0f}" and factor == f"{row.speed_up:.1f}"
        assert best == f"{row.best:.1%} ({row.lowest:.1%} to {row.highest:.1%})".replace("%", " %")


def with_range(result):
    return f"{result.accuracy:.1%} ({result.lowest:.1%} to {result.highest:.1%})".replace("%", " %")


def test_the_readme_tells_the_results_of_factorized():
    results = {row.variant: row for row in common.results(experiments.load("factorized"))}
    rows = {
        "Conv MobileNet": "standard", "Conv MobileNet, thinned to the cost of the next": "standard_thin",
        "MobileNet": "separable", "Shallow MobileNet": "shallow", "thinner MobileNet": "thin",
    }  # fmt: skip
    for name, variant in rows.items():
        (cells,) = re.findall(rf"^\| {name} \|(.*)\|$", README, re.MULTILINE)
        row = results[variant]
        assert [cell.strip() for cell in cells.split("|")][:2] == [f"{row.macs / 1e6:.2f} M", with_range(row)]


def test_the_readme_tells_the_results_of_linear_bottlenecks():
    results = {row.variant: row for row in common.results(experiments.load("linear_bottlenecks"))}
    rows = {"between the bottlenecks": "", "none": "_no_shortcut"}
    for name, suffix in rows.items():
        (cells,) = re.findall(rf"^\| {name} \|(.*)\|$", README, re.MULTILINE)
        linear, relu6 = (results[variant + suffix] for variant in ("linear", "relu6"))
        gain = f"{100 * (linear.accuracy - relu6.accuracy):.1f} points"
        assert [cell.strip() for cell in cells.split("|")] == [with_range(linear), with_range(relu6), gain]


def percents(row):
    """Return the cells of a row of the README's tables, whose beginning is given, without those of the beginning."""
    (cells,) = re.findall(rf"^\| {re.escape(row)} \|(.*)\|$", README, re.MULTILINE)
    return [cell.strip() for cell in cells.split("|")]


def told(shares):
    return [f"{share:.1%}".replace("%", " %") for share in shares]


def test_the_readme_tells_the_results_of_staleness():
    results = {row.variant: row.accuracy for row in common.results(experiments.load("staleness"))}
    for workers in (1, 4, 16):
        rates = ("", "_quarter", "_sixteenth")
        assert percents(f"{workers}") == told(results[f"rmsprop_{workers}{rate}"] for rate in rates)


def test_the_readme_tells_the_results_of_expansion():
    results = {row.variant: row for row in common.results(experiments.load("expansion"))}
    for size, own in expansion.SIZES.items():
        macs = expansion.target(own["cost_share"], (32, 32, 3))
        rows = [results[f"{size}_t{t}"] for t in (1, 2, 4, 6, 10)]
        assert percents(f"{macs / 1e6:.2f} M") == told(row.accuracy for row in rows)
        assert [row.macs for row in rows] == [pytest.approx(macs, rel=0.01)] * 5


def test_the_readme_tells_the_results_of_low_precision():
    records = experiments.load("low_precision")
    modes = {"activations": "activations", "weights": "weights"}
    modes |= {"weights, a range for each channel": "weights_per_channel"}
    for heading, mode in modes.items():
        for name, variant in {"ReLU6": "relu6", "ReLU": "relu"}.items():
            bits, each = low_precision.accuracies(records, variant, mode)
            assert bits == [8, 6, 5, 4, 3]
            assert percents(f"{heading} | {name}") == told(each.mean(axis=0))
