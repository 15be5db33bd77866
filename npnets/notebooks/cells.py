"""Reading notebooks: where they are, and what in them is a question, an exercise, an answer.

A notebook is a JSON file with a list of cells; nothing here needs Jupyter. The course marks its cells so:

- A question is a quotation that begins with ``> **Question.**``, and its answer follows it in the same cell, folded
  away: ``<details><summary>Answer</summary> ... </details>``.
- An exercise is a code cell with the tag ``exercise``, in which ``...`` stands for the answer, and whose last line is
  its check. The tag ``raises-exception`` beside it keeps "Run all" going past a reader's syntax error.
- Its task is the last passage of the cell above, from a line that begins in bold type.
- Its solution is ``<details><summary>Solution</summary> ... </details>`` in the cell below. Python in it (a fenced
  block) replaces the ``...``: run after the exercise, it makes the check say "right".
- A cell with the tag ``solution`` is a solution as a whole.
"""

import ast
import json
import re
from pathlib import Path
from typing import NamedTuple

import npnets
from npnets.course import RIGHT as RIGHT  # what the check of a solved exercise says

EXERCISE, SOLUTION, GOES_ON = "exercise", "solution", "raises-exception"
"""Tags of cells."""

FOLDED = re.compile(r"<details>\s*<summary>\s*(Answer|Solution)\b[^<]*</summary>(.*?)</details>[ \t]*\n?", re.DOTALL)
"""An answer or solution, folded away."""

_QUESTION = re.compile(r"^> \*\*Question\.\*\*(.*(?:\n>.*)*)", re.MULTILINE)
_PYTHON = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
_PARTS = ("do", "learn", "need")


class Question(NamedTuple):
    """A question in the text, and its answer, both in Markdown."""

    text: str
    answer: str


class Exercise(NamedTuple):
    """A task and its solution in Markdown, the last expression of its cell, and the solution's Python ("" if none)."""

    text: str
    solution: str
    check: str
    code: str


class Opening(NamedTuple):
    """What the first cell says, in Markdown: the title, and the paragraphs after "What you'll do." and so on."""

    title: str
    do: str
    learn: str
    need: str


def folder():
    """Return the folder of the course.

    Raises
    ------
    ValueError
        If it is not there: an installed package does not bring it.
    """
    path = Path(npnets.__file__).parents[1] / "notebooks"
    if not path.is_dir():
        raise ValueError("the notebooks are not here; run this from a clone of the repository (pip install -e .)")
    return path


def find(names=(), root=None):
    """Return the paths of the notebooks with these names, in the course's order; all of them without names.

    Parameters
    ----------
    names : iterable of str
        A name such as ``"03_gradient_checking"``, with or without ``.ipynb``, or its number, ``"03"`` or ``"3"``.
    root : Path, optional
        Another folder than the course's.

    Raises
    ------
    ValueError
        If there is no such notebook, or none at all.
    """
    root = folder() if root is None else Path(root)
    paths = sorted(root.glob("*.ipynb"))
    if not paths:
        raise ValueError(f"there is no notebook in {root.name}/")
    wanted = []
    for name in names:
        stem = str(name).removesuffix(".ipynb")
        number = f"{stem.zfill(2)}_" if stem.isdecimal() else None
        found = [path for path in paths if path.stem == stem or (number and path.stem.startswith(number))]
        if not found:
            raise ValueError(f"there is no notebook {name!r}; there are {', '.join(path.stem for path in paths)}")
        wanted += found
    return [path for path in paths if path in wanted] if names else paths


def read(path):
    """Return a notebook as nested dicts and lists.

    Raises
    ------
    ValueError
        If it is no notebook of format 4.
    """
    try:
        notebook = json.loads(Path(path).read_text(encoding="utf-8"))
        good = notebook["nbformat"] == 4 and all(isinstance(cell["cell_type"], str) for cell in notebook["cells"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{Path(path).name} is not a notebook: {error}") from error
    if not good:
        raise ValueError(f"{Path(path).name} is not a notebook of format 4")
    return notebook


def to_bytes(notebook):
    """Return the content of a file, written as Jupyter writes it."""
    return (json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n").encode()


def source(cell):
    """Return the text of a cell."""
    return "".join(cell["source"])


def tags(cell):
    """Return the tags of a cell."""
    return cell["metadata"].get("tags", [])


def opening(notebook):
    """Return the :class:`Opening` of a notebook; what is missing is empty."""
    text = source(notebook["cells"][0]) if notebook["cells"] else ""
    title = re.match(r"# (.*)", text)
    parts = {}
    for part in _PARTS:
        found = re.search(rf"^\*\*What you'll {part}\.\*\*(.*?)(?=^\*\*What you'll|\Z)", text, re.DOTALL | re.MULTILINE)
        parts[part] = found.group(1).strip() if found else ""
    return Opening(title.group(1) if title else "", **parts)


def questions(notebook):
    """Return the questions of a notebook, each with the answer that follows it."""
    found = []
    for cell in notebook["cells"]:
        if cell["cell_type"] != "markdown":
            continue
        text = source(cell)
        asked = list(_QUESTION.finditer(text))
        for question, following in zip(asked, [*asked[1:], None]):
            answer = FOLDED.search(text, question.end(), following.start() if following else len(text))
            words = re.sub(r"^> ?", "", question.group(1), flags=re.MULTILINE).strip()
            found.append(Question(words, answer.group(2).strip() if answer else ""))
    return found


def exercises(notebook):
    """Return the exercises of a notebook."""
    cells = notebook["cells"]
    found = []
    for k, cell in enumerate(cells):
        if cell["cell_type"] == "code" and EXERCISE in tags(cell):
            above = source(cells[k - 1]) if k and cells[k - 1]["cell_type"] == "markdown" else ""
            below = source(cells[k + 1]) if k + 1 < len(cells) and cells[k + 1]["cell_type"] == "markdown" else ""
            folded = FOLDED.search(below)
            solution = folded.group(2).strip() if folded and folded.group(1) == "Solution" else ""
            code = "\n".join(_PYTHON.findall(solution))
            found.append(Exercise(_last_passage(above), solution, last_expression(source(cell)), code))
    return found


def last_expression(code):
    """Return the last statement of a cell if it is an expression, else "".

    >>> last_expression("macs = ...\\ncheck(macs,\\n      288)")
    'check(macs,\\n      288)'
    """
    statements = ast.parse(code).body
    if not statements or not isinstance(statements[-1], ast.Expr):
        return ""
    return ast.get_source_segment(code, statements[-1])


def _last_passage(text):
    starts = [match.start() for match in re.finditer(r"^\*\*", text, re.MULTILINE)]
    return text[starts[-1] :].strip() if starts else ""
