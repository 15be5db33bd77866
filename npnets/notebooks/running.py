"""Every notebook runs from top to bottom, in a kernel of its own, in time and without a word on stderr."""

import contextlib
import os
import queue
import re
import subprocess
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import npnets
from npnets.notebooks.cells import RIGHT, exercises, read, source

LIMIT = 180.0
"""Seconds that a notebook may take."""

_MISSING = "Jupyter is not installed: pip install -r requirements.txt (or pip install jupyter ipywidgets)"
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class Run(NamedTuple):
    """How a notebook ran.

    Attributes
    ----------
    name : str
    seconds : float
        Of its own cells, the start of the kernel included.
    cells : int
        How many code cells it has.
    solutions : int
        How many exercises were solved with the solution below them.
    problems : tuple of str
        One for each failure; the first lines say where.
    """

    name: str
    seconds: float
    cells: int
    solutions: int
    problems: tuple[str, ...]


def run(path, *, limit=LIMIT, progress=None):
    """Execute a notebook from a clean kernel, in its folder, and tell what went wrong. The file is not changed.

    It stops at the first error, also in a cell that may raise one when a reader works in it. What is said on stderr is
    a problem, and warnings are said there. So is a run that takes longer than the limit. When all is well so far, the
    Python of each solution is run with the check of its exercise, which must then say "right".

    Parameters
    ----------
    path : Path
    limit : float
        Seconds.
    progress : callable, optional
        ``progress(done, total)`` is called before each code cell.

    Returns
    -------
    Run

    Raises
    ------
    ValueError
        If Jupyter is not installed, or the file is no notebook.
    """
    notebook = read(path)
    cells = [(number, source(cell)) for number, cell in enumerate(notebook["cells"]) if cell["cell_type"] == "code"]
    problems, solved, started = [], 0, time.perf_counter()
    with _kernel(Path(path).parent) as kernel:
        for done, (number, code) in enumerate(cells):
            if progress is not None:
                progress(done, len(cells))
            left = limit - (time.perf_counter() - started)
            output = kernel.execute(code, left)
            where = f"cell {number} ({_first_line(code)})"
            if output.stderr:
                problems.append(f"{where}: on stderr:\n{output.stderr.rstrip()}")
            if output.late:
                problems.append(f"{where}: the notebook takes more than {limit:g} s")
            elif output.error:
                problems.append(f"{where}: {output.error}")
            if output.late or output.error:
                break
        seconds = time.perf_counter() - started
        if not problems:
            solvable = [exercise for exercise in exercises(notebook) if exercise.code]
            problems = list(filter(None, (_wrong_solution(kernel, exercise, limit) for exercise in solvable)))
            solved = len(solvable) - len(problems)
    return Run(Path(path).stem, seconds, len(cells), solved, tuple(problems))


def require_jupyter(module="jupyter_client"):
    """Raise a ``ValueError`` unless Jupyter is installed."""
    from importlib.util import find_spec

    if any(find_spec(name) is None for name in (module, "ipykernel")):
        raise ValueError(_MISSING)


def environment():
    """Return the environment variables for Jupyter: its kernels find this npnets, installed or not."""
    root = str(Path(npnets.__file__).parents[1])
    python_path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": python_path}


class _Output(NamedTuple):
    """What a cell said: its value as text, what came on stderr, its error, and whether it was stopped."""

    value: str = ""
    stderr: str = ""
    error: str = ""
    late: bool = False


class _Kernel:
    """A running kernel."""

    def __init__(self, manager, client):
        self.manager, self.client = manager, client

    def execute(self, code, seconds):
        """Run a piece of code for at most so many seconds and return its :class:`_Output`.

        All that the kernel says is looked at, so an error in a widget's output counts, too.
        """
        asked = self.client.execute(code, allow_stdin=False)
        give_up = time.perf_counter() + seconds
        value, stderr, error = "", "", ""
        while True:
            left = give_up - time.perf_counter()
            if left <= 0:
                return _Output(value, stderr, error, late=True)
            try:
                message = self.client.get_iopub_msg(timeout=min(left, 1.0))
            except queue.Empty:
                if not self.manager.is_alive():
                    return _Output(value, stderr, "the kernel died")
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "execute_result":
                value = content["data"].get("text/plain", "")
            elif kind == "stream" and content["name"] == "stderr":
                stderr += content["text"]
            elif kind == "error":
                error = _COLOUR.sub("", "\n".join([f"{content['ename']}: {content['evalue']}", *content["traceback"]]))
            elif kind == "status" and content["execution_state"] == "idle" and _answers(message, asked):
                return _Output(value, stderr, error)


def _answers(message, asked):
    return message["parent_header"].get("msg_id") == asked


@contextlib.contextmanager
def _kernel(folder):
    """Start a kernel of this very Python in a folder, without the user's own settings and start-up files."""
    require_jupyter()
    from jupyter_client import KernelManager
    from jupyter_client.kernelspec import KernelSpecManager

    with tempfile.TemporaryDirectory() as settings:
        # No folders of kernels: a "python3" that is registered there may belong to another Python.
        manager = KernelManager(kernel_name="python3", kernel_spec_manager=KernelSpecManager(kernel_dirs=[]))
        own = {"IPYTHONDIR": settings}
        # What the process says about itself is not of the notebook: a cell's stderr comes as a message.
        manager.start_kernel(cwd=str(folder), env={**environment(), **own}, stderr=subprocess.DEVNULL)
        client = manager.client()
        try:
            client.start_channels()
            try:
                client.wait_for_ready(timeout=60)
            except RuntimeError as error:
                raise ValueError(f"Jupyter's kernel does not start: {error}") from error
            yield _Kernel(manager, client)
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)


def _wrong_solution(kernel, exercise, limit):
    """Solve an exercise with its solution; return what is wrong with that, or None."""
    output = kernel.execute(f"{exercise.code}\n{exercise.check}", limit)
    said = "it takes too long" if output.late else output.error or output.stderr or output.value
    if said == RIGHT:
        return None
    return f"the solution of {_first_line(exercise.text)}: {said or 'its check says nothing'}"


def _first_line(text):
    line = next((line.strip() for line in text.splitlines() if line.strip() and not line.startswith("%")), "empty")
    return line if len(line) <= 60 else f"{line[:57]}..."
