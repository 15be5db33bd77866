"""JupyterLab in the folder of the course."""

import contextlib
import subprocess
import sys

from npnets.notebooks.cells import find, folder
from npnets.notebooks.running import environment, require_jupyter


def open_lab(name=None, options=()):
    """Open JupyterLab, and in it one of the notebooks if it is named; return Jupyter's exit code when it has ended.

    Parameters
    ----------
    name : str, optional
        As for :func:`npnets.notebooks.find`.
    options : iterable of str
        For JupyterLab, such as ``--no-browser``.

    Raises
    ------
    ValueError
        If JupyterLab is not installed, or there is no such notebook.
    """
    which = [] if name is None else [find([name])[0].name]
    require_jupyter("jupyterlab")
    with subprocess.Popen(lab_command(which, options), cwd=folder(), env=environment()) as lab:
        while lab.poll() is None:
            with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C is for Jupyter, which asks whether it should stop
                lab.wait()
    return lab.returncode


def lab_command(which, options):
    """Return the command that starts JupyterLab with this Python."""
    return [sys.executable, "-m", "jupyterlab", *which, *options]
