"""The instructor's page says what the notebooks say."""

import pytest

from npnets.notebooks import guide, write_guide
from npnets.notebooks.guide import MARKER
from tests.notebooks import code, markdown, notebook, write


def test_it_has_goals_time_questions_and_exercises(tmp_path):
    write(tmp_path)
    text = guide(tmp_path)
    for part in (
        "| [`01_small`](01_small.ipynb) | Count, and stop. | five minutes |",
        "## `01_small`: Count to three",
        "**Time and material.** Five minutes, and three fingers.",
        "- one;\n- two.",
        "**1.** What comes after two?\n\n*Expected:* Three, as <code>2 + 1</code> shows.",
        "**1.** How many fingers has a hand?\n\n*Solution:*\n\nCount them:\n\n```python\nfingers = 5\n```",
    ):
        assert part in text


def test_a_notebook_without_questions_has_no_heading_for_them(tmp_path):
    write(tmp_path, content=notebook(markdown("# Look"), code("1")))
    assert "###" not in guide(tmp_path)


def test_only_the_second_part_is_written_and_only_if_it_changes(tmp_path):
    write(tmp_path)
    page = tmp_path / "README.md"
    page.write_text(f"By hand.\n\n{MARKER}\nold\n")
    assert write_guide(tmp_path) and page.read_text() == f"By hand.\n\n{MARKER}\n\n{guide(tmp_path)}"
    changed = page.stat().st_mtime_ns
    assert not write_guide(tmp_path) and page.stat().st_mtime_ns == changed


def test_a_page_without_its_mark_is_left_alone(tmp_path):
    write(tmp_path)
    with pytest.raises(ValueError, match="is missing"):
        write_guide(tmp_path)
    page = tmp_path / "README.md"
    page.write_text("By hand.")
    with pytest.raises(ValueError, match="has no line"):
        write_guide(tmp_path)
    assert page.read_text() == "By hand."
