"""The notebooks as they are committed: whole, executed from top to bottom, small, and in the form of the course.

That they run is checked by ``.ci/run``, which executes each from a clean kernel.
"""

import ast
import itertools
import json
import re
from pathlib import Path

import pytest

from npnets import course, notebooks
from npnets.notebooks.cells import EXERCISE, GOES_ON, tags

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


def test_it_says_how_long_it_takes(path):
    time = notebooks.time_needed(notebooks.opening(notebooks.read(path)))
    assert re.search(r"hour|minute", time), f"What you'll need begins with the time it takes, not with {time!r}"


def test_every_question_has_an_answer(path):
    for question in notebooks.questions(notebooks.read(path)):
        assert question.answer, question.text


def test_every_exercise_is_marked_and_has_a_check_and_a_solution(path, cells):
    for cell in cells:
        if cell["cell_type"] == "code":
            unanswered = course.leaves_out(text(cell))
            assert unanswered == (EXERCISE in tags(cell)), f"it has no answer and no tag, or both: {text(cell)}"
            assert unanswered == (GOES_ON in tags(cell)), f"tag it {GOES_ON!r}, and only exercises: {text(cell)}"
    exercises = notebooks.exercises(notebooks.read(path))
    assert exercises
    for exercise in exercises:
        assert exercise.text and exercise.check and exercise.code, f"an exercise lacks something: {exercise}"


def test_exercises_were_committed_unanswered(cells):
    for cell in cells:
        if EXERCISE in tags(cell):
            said = [output["data"]["text/plain"] for output in cell["outputs"] if "data" in output]
            assert said == [["not answered yet"]], text(cell)


def names(cell, context):
    """Return the names that a cell of code binds (``ast.Store``) or uses (``ast.Load``)."""
    tree = ast.parse(re.sub(r"^%.*$", "", text(cell), flags=re.MULTILINE))
    found = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, context)}
    if context is ast.Store:
        found |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        found |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    return found


def test_nothing_depends_on_an_exercise(cells):
    """A reader's cell may fail as a whole, and what it defines is missing then."""
    given, of_exercises = set(), set()
    for cell in cells:
        if cell["cell_type"] != "code":
            continue
        if EXERCISE in tags(cell):
            of_exercises |= names(cell, ast.Store)
        else:
            given |= names(cell, ast.Store)
            assert not (names(cell, ast.Load) & of_exercises) - given, text(cell)


def test_its_student_version_tells_nothing(path):
    notebook = notebooks.read(path)
    left = json.dumps(notebooks.student_version(notebook))
    assert "<details>" not in left or "Hint" in left
    for answer in (question.answer for question in notebooks.questions(notebook)):
        assert json.dumps(answer)[1:-1] not in left


def test_the_instructors_page_has_it_all():
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert page.endswith(notebooks.guide()), "run: python -m npnets notebooks --guide"
    for path in NOTEBOOKS:
        for question in notebooks.questions(notebooks.read(path)):
            assert " ".join(question.text.split()) in page and question.answer in page
        for exercise in notebooks.exercises(notebooks.read(path)):
            assert exercise.text in page and exercise.solution in page
