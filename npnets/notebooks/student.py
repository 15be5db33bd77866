"""Notebooks to hand out: without answers, solutions and outputs."""

import copy
import re
from pathlib import Path

from npnets import checkpoint
from npnets.notebooks.cells import FOLDED, SOLUTION, find, folder, read, source, tags, to_bytes

YOUR_ANSWER = "*Your answer (double-click here):*\n"
"""What takes the place of an answer."""


def student_version(notebook, name="notebook"):
    """Return a notebook without its answers, solutions and outputs.

    An answer leaves a line to write one's own on. What remains of a cell that held nothing but a solution is left out,
    and so is a cell with the tag ``solution``. Exercises stay as they are, with ``...`` for the answer.

    Parameters
    ----------
    notebook : dict
        As :func:`npnets.notebooks.read` returns it; it is not changed.
    name : str
        For errors.

    Returns
    -------
    dict

    Raises
    ------
    ValueError
        If an answer or solution is folded in a way that cannot be told from the rest of the text.
    """
    notebook = copy.deepcopy(notebook)
    notebook["metadata"].pop("widgets", None)
    cells = []
    for number, cell in enumerate(notebook["cells"]):
        if SOLUTION in tags(cell):
            continue
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
            for key in ("execution", "collapsed", "scrolled"):
                cell["metadata"].pop(key, None)
        elif cell["cell_type"] == "markdown":
            before = source(cell)
            text = _without_solutions(before, f"{name}, cell {number}")
            if not text.strip() and before.strip():
                continue
            cell["source"] = text.splitlines(keepends=True)
            cell.pop("attachments", None) if "attachment:" not in text else None
        cells.append(cell)
    notebook["cells"] = cells
    return notebook


def hand_out(out, names=(), *, overwrite=False, root=None):
    """Write the student versions of notebooks into a folder.

    Parameters
    ----------
    out : str or Path
        Is made where it does not exist.
    names : iterable of str
        As for :func:`npnets.notebooks.find`; by default all.
    overwrite : bool
        Whether files that are there already may be replaced.
    root : Path, optional
        Another folder of notebooks than the course's.

    Returns
    -------
    list of Path
        The written files.

    Raises
    ------
    ValueError
        If one of the files exists (nothing is written then), ``out`` is a file or the folder of the notebooks
        themselves, or a notebook cannot be stripped.
    """
    out = Path(out)
    root = folder() if root is None else Path(root)
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file, not a folder; choose another")
    if out.resolve() == root.resolve():
        raise ValueError(f"{out} holds the notebooks with their solutions; choose another folder")
    contents = {out / path.name: to_bytes(student_version(read(path), path.name)) for path in find(names, root)}
    there = [path for path in contents if path.exists()]
    if there and not overwrite:
        more = f" and {len(there) - 1} more" if len(there) > 1 else ""
        raise ValueError(f"{there[0]}{more} exists already; choose another folder, or ask for --overwrite")
    for path, content in contents.items():
        with checkpoint.replacing(path) as file:
            file.write(content)
    return list(contents)


def _without_solutions(text, where):
    def replaced(found):
        if "<details" in found.group(2):
            raise ValueError(f"{where}: a folded {found.group(1)} holds another <details>; put one after the other")
        return YOUR_ANSWER if found.group(1) == "Answer" else ""

    text = FOLDED.sub(replaced, text)
    left = re.search(r"<summary>\W*(answer|solution)", text, re.IGNORECASE)
    if left:
        how = "<details><summary>Answer</summary> ... </details>"
        raise ValueError(f"{where}: this {left.group(1)} cannot be taken out; write {how}, and close it")
    return text
