"""The notebooks as they are committed: whole, executed from top to bottom, small, and in the form of the course.

That they run is checked by ``.ci/run``, which executes each from a clean kernel.
"""

import itertools
import json
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
LARGEST = 1_500_000  # bytes


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture
def cells(path):
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def text(cell):
    return "".join(cell["source"])


def test_there_are_notebooks_and_they_are_numbered():
    assert NOTEBOOKS
    assert all(re.fullmatch(r"\d\d_\w+", path.stem) for path in NOTEBOOKS)


def test_it_is_small_enough_to_commit(path):
    assert path.stat().st_size <= LARGEST


def test_it_opens_and_ends_as_the_course_does(cells):
    opening = text(cells[0])
    assert opening.startswith("# ")
    for part in ("What you'll do", "What you'll learn", "What you'll need"):
        assert f"**{part}.**" in opening
    prose = "\n".join(text(cell) for cell in cells if cell["cell_type"] == "markdown")
    assert "\n## Exercises\n" in prose and "\n## Summary\n" in prose and "**Question.**" in prose


def test_every_cell_was_run_once_from_top_to_bottom(cells):
    counts = [cell["execution_count"] for cell in cells if cell["cell_type"] == "code"]
    assert counts == list(range(1, len(counts) + 1))


def test_no_cell_failed_or_warned(cells):
    for cell in cells:
        for output in cell.get("outputs", []):
            assert output["output_type"] != "error", text(cell)
            assert output.get("name") != "stderr", text(cell)


def test_every_figure_is_described_in_words_above_it(cells):
    for before, cell in itertools.pairwise(cells):
        if any("image/png" in output.get("data", {}) for output in cell.get("outputs", [])):
            assert before["cell_type"] == "markdown" and "*Figure: " in text(before), text(cell)


def test_it_imports_npnets_and_does_not_redefine_it(cells):
    code = "\n".join(text(cell) for cell in cells if cell["cell_type"] == "code")
    assert "from npnets import" in code
    assert not re.search(r"^(def|class) (profile|conv2d|mobilenet_v\d)\b", code, re.MULTILINE)
