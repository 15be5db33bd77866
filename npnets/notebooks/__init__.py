"""The notebooks of the course: open them, run them, hand them out without their solutions.

``python -m npnets notebooks`` is the way to all of it.

============== =======================================================================
``cells.py``   where they are, and what in them is a question, an exercise, an answer
``student.py`` versions without answers, solutions and outputs
``running.py`` run each from a clean kernel, in time and without a warning
``guide.py``   the instructor's page, ``notebooks/README.md``
``lab.py``     JupyterLab
============== =======================================================================
"""

from npnets.notebooks.cells import (
    Exercise,
    Opening,
    Question,
    exercises,
    find,
    folder,
    opening,
    questions,
    read,
)
from npnets.notebooks.guide import guide, time_needed, write_guide
from npnets.notebooks.lab import open_lab
from npnets.notebooks.running import LIMIT, Run, run
from npnets.notebooks.student import hand_out, student_version

__all__ = [
    "LIMIT",
    "Exercise",
    "Opening",
    "Question",
    "Run",
    "exercises",
    "find",
    "folder",
    "guide",
    "hand_out",
    "open_lab",
    "opening",
    "questions",
    "read",
    "run",
    "student_version",
    "time_needed",
    "write_guide",
]
