"""What the course's conventions find in a notebook."""

import pytest

from npnets import notebooks
from npnets.notebooks.cells import exercises, find, last_expression, opening, questions, read, to_bytes
from tests.notebooks import CHECK, QUESTION, TASK, WORKED_OUT, code, markdown, notebook, small, write


def test_the_opening_has_a_title_and_three_parts():
    assert opening(small()) == (
        "Count to three", "Count,\nand stop.", "- one;\n- two.", "Five minutes, and three fingers.",
    )  # fmt: skip
    assert opening(notebook()) == opening(notebook(code("1"))) == ("", "", "", "")


def test_a_question_is_found_with_its_answer():
    assert questions(small()) == [("What comes\nafter two?", "Three, as <code>2 + 1</code> shows.")]


def test_an_answer_belongs_to_the_question_above_it():
    two = markdown("> **Question.** One?\n\nNo answer to this one.\n\n" + QUESTION)
    assert [question.answer[:5] for question in questions(notebook(two))] == ["", "Three"]


def test_an_exercise_is_found_with_its_task_its_check_and_its_solution():
    (exercise,) = exercises(small())
    assert exercise.text == "**1.** How many fingers has a hand?" and exercise.check == "check(fingers, 5)"
    assert exercise.code == "fingers = 5\n" and exercise.solution.startswith("Count them:")


def test_a_solution_in_words_has_no_code_and_a_missing_one_is_empty():
    in_words = markdown("<details><summary>Solution</summary>\nFive.\n</details>")
    (exercise,) = exercises(notebook(markdown(TASK), code(CHECK, "exercise"), in_words))
    assert (exercise.solution, exercise.code) == ("Five.", "")
    (exercise,) = exercises(notebook(code(CHECK, "exercise")))
    assert exercise == ("", "", "check(fingers, 5)", "")
    (exercise,) = exercises(notebook(code(CHECK, "exercise"), markdown(QUESTION)))
    assert exercise.solution == ""


def test_a_cell_without_the_tag_is_no_exercise():
    assert exercises(notebook(markdown(TASK), code(CHECK), markdown(WORKED_OUT))) == []


def test_the_last_expression_may_be_missing():
    assert last_expression("a = 3") == last_expression("") == last_expression("# nothing") == ""


@pytest.mark.parametrize("name", ["03", "3", "03_three", "03_three.ipynb"])
def test_a_notebook_is_found_by_name_and_number(name, tmp_path):
    for stem in ("03_three", "12_twelve", "01_one"):
        write(tmp_path, stem)
    assert [path.stem for path in find([name], tmp_path)] == ["03_three"]
    assert [path.stem for path in find(["12", name, "12"], tmp_path)] == ["03_three", "12_twelve"]
    assert [path.stem for path in find(root=tmp_path)] == ["01_one", "03_three", "12_twelve"]


def test_what_is_not_there_is_an_error_that_names_what_is(tmp_path):
    with pytest.raises(ValueError, match="no notebook in"):
        find(root=tmp_path)
    write(tmp_path, "03_three")
    for name in ("4", "three", "03_thre", "003"):
        with pytest.raises(ValueError, match=f"no notebook '{name}'.*03_three"):
            find([name], tmp_path)


def test_the_course_is_found_and_an_installed_package_without_it_says_so(tmp_path, monkeypatch):
    assert (notebooks.folder() / "README.md").exists()
    monkeypatch.setattr("npnets.__file__", str(tmp_path / "npnets" / "__init__.py"))
    with pytest.raises(ValueError, match="clone of the repository"):
        notebooks.folder()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"nbformat": 3, "cells": []}', '{"nbformat": 4, "cells": [{}]}'])
def test_what_is_no_notebook_is_refused_by_name(content, tmp_path):
    path = tmp_path / "01_bad.ipynb"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"01_bad\.ipynb is not a notebook"):
        read(path)


def test_a_notebook_is_written_as_jupyter_writes_it(tmp_path):
    nbformat = pytest.importorskip("nbformat")
    path = write(tmp_path)
    nbformat.write(nbformat.read(path, 4), path)
    assert to_bytes(read(path)) == path.read_bytes()
