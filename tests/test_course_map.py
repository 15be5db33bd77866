"""The map of the course: every place of the five sections is on it, and every name on it is there."""

import contextlib
import json

import pytest

from npnets import course_map, experiments, notebooks
from npnets.cli import parser
from npnets.course_map import COMING, MAP, NOTEBOOKS, SECTIONS, Entry, Table, file_of, find, resolve

NAMES = sorted({name for entry in MAP for name in entry.code.split()})
COMMANDS = sorted({entry.run for entry in MAP if entry.run})
PLACES = {
    "MobileNetV1, section 3": [
        *(f"equation ({n})" for n in range(1, 8)), "ratio", "Table 1", "Table 2", "Table 3", "Figure 2", "Figure 3",
    ],
    "Batch normalization, section 4": [
        "Figure 1 (a)", "Figure 1 (b, c)", "Figure 2", "Figure 3", "Table 1", "Table 2",
        *(f"4.2.{n}" for n in range(1, 8)),
    ],
    "MobileNetV2, section 4": ["Table 1", "Table 2"],
    "MobileNetV2, section 6": [
        "Table 3", "Table 4", "Table 5", "Table 6", "Figure 4", "Figure 5 (a)", "Figure 5 (b)",
    ],
    "EfficientNet, section 5": [*(f"Table {n}" for n in range(1, 6)), "Figure 5", "Figure 6"],
}  # fmt: skip


@pytest.mark.parametrize("section", SECTIONS)
def test_every_equation_table_and_figure_is_on_it_once(section):
    there = [entry.where for entry in MAP if entry.section == section]
    for place in PLACES[section]:
        assert sum(where.endswith(place) for where in there) == 1, place
    kinds = ("equation", "Table", "Figure")
    assert sum(any(kind in where for kind in kinds) for where in there) == sum(
        any(kind in place for kind in kinds) for place in PLACES[section]
    )


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_there(name):
    assert resolve(name) is not None


@pytest.mark.parametrize("name", ["ops.conv3d_forward", "opps", "nn.Conv2d.mac", "models.mobilenet_v1.TABEL", "numpy"])
def test_a_name_that_has_gone_is_found_out(name):
    with pytest.raises(ValueError, match=f"npnets has no {name}"):
        resolve(name)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_can_be_given(command):
    options = parser.build().parse_args(command.split())  # exits if it is wrong
    assert options.command == command.split()[0] and callable(options.run)


@pytest.mark.parametrize("command", ["costs", "cost --papers all", "cost --paper mobilenet_v3"])
def test_a_command_that_has_gone_is_found_out(command):
    with pytest.raises(SystemExit):
        parser.build().parse_args(command.split())


def test_every_notebook_is_there_or_coming():
    there = {path.name for path in notebooks.find()}
    assert there <= {file_of(number) for number in NOTEBOOKS}, "give it a line in NOTEBOOKS"
    for number in NOTEBOOKS:
        if number in COMING["notebooks"]:
            assert file_of(number) not in there, f"{number} has come: take it out of COMING"
        else:
            assert file_of(number) in there, f"{file_of(number)} is neither there nor in COMING"
    assert COMING["notebooks"] <= set(NOTEBOOKS)


def test_every_experiment_is_there_or_coming():
    named = {command.split()[1] for command in COMMANDS if command.startswith("experiment ")}
    there = set(experiments.names())
    assert not COMING["experiments"] & there, "it has come: take it out of COMING"
    assert named <= there | COMING["experiments"] and COMING["experiments"] <= named
    assert there <= named, "give it a place on the map"


def test_every_entry_leads_somewhere():
    for entry in MAP:
        assert entry.section in SECTIONS and entry.where and entry.what and (entry.code or entry.run)
        numbers = entry.notebooks.split()
        assert numbers and len(set(numbers)) == len(numbers) and set(numbers) <= set(NOTEBOOKS), entry
    assert len({(entry.section, entry.where, entry.what) for entry in MAP}) == len(MAP)


def test_every_notebook_of_the_course_is_on_the_map():
    assert {number for entry in MAP for number in entry.notebooks.split()} == set(NOTEBOOKS) - {"00"}


def test_words_are_found_together_or_each_by_itself():
    assert {entry.where.split(" ", 1)[1] for entry in find("Table 4").entries} == {"Table 4"}
    assert len(find("table 4")) == 2 and len(find()) == len(MAP) == len(find("  "))
    (only,) = find("normalization dropout 4.2.2").entries
    assert only.where == "4.2.2"
    assert len(find("no such thing")) == 0 and str(find("no such thing")) == "nothing found"


def test_what_is_coming_is_shown_so_and_the_rest_is_a_link(monkeypatch):
    entry = Entry("MobileNetV2, section 4", "4", "<b>", "nn.Conv2d", "experiment soon", "03 99")
    monkeypatch.setitem(course_map.NOTEBOOKS, "99", ("last", ""))
    monkeypatch.setitem(course_map.COMING, "notebooks", {"99"})
    monkeypatch.setitem(course_map.COMING, "experiments", {"soon"})
    page = Table([entry])._repr_html_()
    assert '<a href="03_gradient_checking.ipynb">03</a>, (99)' in page and "&lt;b&gt;" in page
    assert "<code>experiment soon</code> (coming)" in page and "arXiv:1801.04381" in page
    assert "03, (99)" in str(Table([entry]))


def test_the_first_notebook_shows_the_map_as_it_is():
    cells = notebooks.read(notebooks.find(["00"])[0])["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    shown = ""
    for output in outputs:
        with contextlib.suppress(KeyError):
            shown += "".join(output["data"]["text/html"])
    for section in SECTIONS:
        rows = Table(entry for entry in MAP if entry.section == section)._repr_html_()
        assert rows in shown, f"{section} has changed: run 00_start_here again"
    assert json.dumps(shown).isascii()
