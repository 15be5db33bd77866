"""The instructor's page, ``notebooks/README.md``: its second part is made from the notebooks themselves."""

from npnets import checkpoint
from npnets.notebooks.cells import exercises, find, folder, opening, questions, read

MARKER = "<!-- What follows is written by `python -m npnets notebooks --guide`. -->"
PAGE = "README.md"


def guide(root=None):
    """Return what the notebooks say about themselves: goals, time, questions and exercises with their answers.

    Parameters
    ----------
    root : Path, optional
        Another folder of notebooks than the course's.

    Returns
    -------
    str
        Markdown.
    """
    notebooks = {path.stem: read(path) for path in find(root=root)}
    rows = ["| notebook | what happens in it | time |", "|---|---|---|"]
    parts = []
    for name, notebook in notebooks.items():
        first = opening(notebook)
        rows.append(f"| [`{name}`]({name}.ipynb) | {_one_line(first.do)} | {time_needed(first)} |")
        parts += _chapter(name, notebook, first)
    return "\n".join([*rows, *parts]) + "\n"


def write_guide(root=None):
    """Write the second part of the instructor's page anew, atomically; return whether that changed it.

    Raises
    ------
    ValueError
        If the page is missing, or has no line where its second part begins.
    """
    path = (folder() if root is None else root) / PAGE
    if not path.exists():
        raise ValueError(f"{PAGE} is missing beside the notebooks; its first part is written by hand")
    before = path.read_text(encoding="utf-8")
    if MARKER not in before:
        raise ValueError(f"{PAGE} has no line {MARKER!r} to write below")
    after = f"{before.partition(MARKER)[0]}{MARKER}\n\n{guide(root)}"
    if after != before:
        with checkpoint.replacing(path) as file:
            file.write(after.encode())
    return after != before


def time_needed(opening):
    """Return how long a notebook takes to read: the first words of "What you'll need."

    >>> from npnets.notebooks import Opening
    >>> time_needed(Opening("", "", "", "About an hour, and the paper at hand. No data."))
    'about an hour'
    """
    words = opening.need.partition(".")[0].partition(",")[0].strip()
    return words[:1].lower() + words[1:]


def _chapter(name, notebook, first):
    lines = ["", f"## `{name}`: {first.title}", "", f"**Time and material.** {_one_line(first.need)}", ""]
    lines += ["**Learning goals.**", "", first.learn]
    asked, set_ = questions(notebook), exercises(notebook)
    if asked:
        lines += ["", "### Questions, with the answers to expect"]
        for number, question in enumerate(asked, 1):
            lines += ["", f"**{number}.** {_one_line(question.text)}", "", f"*Expected:* {question.answer}"]
    if set_:
        lines += ["", "### Exercises, with their solutions"]
        for exercise in set_:
            lines += ["", exercise.text, "", "*Solution:*", "", exercise.solution]
    return lines


def _one_line(text):
    return " ".join(text.split())
