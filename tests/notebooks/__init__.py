"""Small notebooks for the tests of :mod:`npnets.notebooks`."""

import json

OPENING = """# Count to three

**What you'll do.** Count,
and stop.

**What you'll learn.**

- one;
- two.

**What you'll need.** Five minutes, and three fingers."""

QUESTION = """Some text.

> **Question.** What comes
> after two?

<details><summary>Answer</summary>
Three, as <code>2 + 1</code> shows.
</details>

More text."""

TASK = "## Exercises\n\nReplace the `...`.\n\n**1.** How many fingers has a hand?"
CHECK = "from npnets.course import check\n\nfingers = ...\n\ncheck(fingers, 5)"
WORKED_OUT = "<details><summary>Solution</summary>\n\nCount them:\n\n```python\nfingers = 5\n```\n\n</details>"


def markdown(text):
    """Return a cell of text."""
    return {"cell_type": "markdown", "id": "text", "metadata": {}, "source": text.splitlines(keepends=True)}


def code(text, *tags, stdout=None):
    """Return a cell of code, with an output if there is one."""
    outputs = [{"output_type": "stream", "name": "stdout", "text": [stdout]}] if stdout else []
    metadata = {"tags": list(tags)} if tags else {}
    lines = text.splitlines(keepends=True)
    return {"cell_type": "code", "id": "code", "metadata": metadata, "source": lines, "outputs": outputs,
            "execution_count": 7 if stdout else None}  # fmt: skip


def notebook(*cells):
    """Return a notebook of these cells."""
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": list(cells), "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


def small():
    """Return a notebook with everything that the course's have."""
    exercise = code(CHECK, "exercise", "raises-exception")
    return notebook(
        markdown(OPENING), code("print(1 + 1)", stdout="2\n"), markdown(QUESTION), markdown(TASK), exercise,
        markdown(WORKED_OUT), code("answer = 42", "solution"), markdown("## Summary\n\nThree."),
    )  # fmt: skip


def write(folder, name="01_small", content=None):
    """Write a notebook into a folder and return its path."""
    path = folder / f"{name}.ipynb"
    path.write_text(json.dumps(content or small()), encoding="utf-8")
    return path
