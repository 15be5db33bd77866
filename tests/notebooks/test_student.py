"""Versions to hand out: nothing of a solution is left, nothing else is lost, no file is harmed."""

import copy
import json

import pytest

from npnets.notebooks import hand_out, read, student_version
from npnets.notebooks.cells import source
from npnets.notebooks.student import YOUR_ANSWER
from tests.notebooks import CHECK, QUESTION, code, markdown, notebook, small, write


def test_answers_solutions_and_outputs_are_gone_and_all_else_stays():
    before = small()
    kept = copy.deepcopy(before)
    after = student_version(before)
    assert before == kept
    assert [source(cell)[:12] for cell in after["cells"]] == [
        "# Count to t", "print(1 + 1)", "Some text.\n\n", "## Exercises", "from npnets.", "## Summary\n\n",
    ]  # fmt: skip
    text = json.dumps(after)
    for left in ("Three, as", "fingers = 5", "answer = 42", "details", '"2\\n"'):
        assert left not in text
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in after["cells"] if "outputs" in cell)
    assert source(after["cells"][2]) == QUESTION.replace(QUESTION[QUESTION.index("<d") : QUESTION.index("\nM")],
                                                         YOUR_ANSWER)  # fmt: skip
    assert source(after["cells"][4]) == CHECK and after["cells"][4]["metadata"] == kept["cells"][4]["metadata"]


def test_other_folded_parts_stay():
    hint = "<details><summary>Hint</summary>\nThink.\n</details>\n"
    after = student_version(notebook(markdown(hint + "<details><summary>Solution</summary>3</details>")))
    assert source(after["cells"][0]) == hint


def test_an_empty_cell_that_was_empty_before_stays():
    assert len(student_version(notebook(markdown(""), code("")))["cells"]) == 2


def test_widgets_and_times_are_outputs_too():
    cell = code("1")
    cell["metadata"] = {"execution": {"iopub.execute_input": "2024"}, "tags": ["a"]}
    content = notebook(cell)
    content["metadata"]["widgets"] = {"state": {}}
    after = student_version(content)
    assert after["cells"][0]["metadata"] == {"tags": ["a"]} and "widgets" not in after["metadata"]


@pytest.mark.parametrize(
    "text",
    [
        "<details><summary>Answer</summary> three",
        "<details><summary>Solution</summary> a <details><summary>b</summary> c </details> d </details>",
        "<summary>Solution</summary> three",
        "<details><summary> ANSWER </summary> three </details>",
        "<details><summary>**Solution**</summary> three </details>",
        '<details open="true"><summary>Answer</summary> three </details>',
    ],
)
def test_what_cannot_be_taken_out_is_an_error_and_does_not_slip_through(text):
    with pytest.raises(ValueError, match="03_x, cell 1: "):
        student_version(notebook(code("1"), markdown(text)), "03_x")


@pytest.mark.parametrize("text", ["<details>\n<summary>Answer</summary>", "<details><summary>Answer (long)</summary>"])
def test_some_ways_to_write_it_are_one(text):
    after = student_version(notebook(markdown(f"> **Question.** Why?\n\n{text}\nthree\n</details>\n")))
    assert source(after["cells"][0]) == f"> **Question.** Why?\n\n{YOUR_ANSWER}"


def test_the_files_are_notebooks(tmp_path):
    nbformat = pytest.importorskip("nbformat")
    root, out = tmp_path / "course", tmp_path / "a" / "out"
    root.mkdir()
    write(root, "01_one")
    write(root, "02_two")
    assert [path.name for path in hand_out(out, root=root)] == ["01_one.ipynb", "02_two.ipynb"]
    for path in out.iterdir():
        nbformat.validate(nbformat.read(path, 4))
        assert read(path) == student_version(small())


def test_no_file_is_replaced_unless_asked(tmp_path):
    root, out = tmp_path / "course", tmp_path / "out"
    root.mkdir(), out.mkdir()
    write(root, "01_one"), write(root, "02_two")
    mine = out / "02_two.ipynb"
    mine.write_text("a student's work")
    with pytest.raises(ValueError, match=r"02_two\.ipynb exists already; .*--overwrite"):
        hand_out(out, root=root)
    assert [path.name for path in out.iterdir()] == ["02_two.ipynb"] and mine.read_text() == "a student's work"
    assert len(hand_out(out, ["1"], root=root)) == 1
    assert len(hand_out(out, root=root, overwrite=True)) == 2 and read(mine) == student_version(small())


def test_the_course_itself_is_never_overwritten(tmp_path):
    path = write(tmp_path)
    before = path.read_bytes()
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    for out in (tmp_path, link, tmp_path / "x" / ".."):
        with pytest.raises(ValueError, match="choose another folder"):
            hand_out(out, root=tmp_path, overwrite=True)
    with pytest.raises(ValueError, match="is a file"):
        hand_out(path, root=tmp_path, overwrite=True)
    assert path.read_bytes() == before


def test_one_bad_notebook_and_nothing_is_written(tmp_path):
    root = tmp_path / "course"
    root.mkdir()
    write(root, "01_one")
    write(root, "02_two", notebook(markdown("<details><summary>Answer</summary>")))
    with pytest.raises(ValueError, match=r"02_two\.ipynb, cell 0"):
        hand_out(tmp_path / "out", root=root)
    assert not (tmp_path / "out").exists()


def test_a_crash_leaves_what_was_there(tmp_path, monkeypatch):
    root, out = tmp_path / "course", tmp_path / "out"
    root.mkdir()
    write(root)
    (path,) = hand_out(out, root=root)
    before = path.read_bytes()
    monkeypatch.setattr("os.replace", lambda *names: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(OSError, match="No space left"):
        hand_out(out, root=root, overwrite=True)
    assert path.read_bytes() == before and list(out.iterdir()) == [path]
