"""JupyterLab is started with this Python, in the folder of the course, and is left its Ctrl-C."""

import subprocess
import sys
from pathlib import Path

import pytest

import npnets
from npnets.notebooks import folder, open_lab


class Lab:
    """Stands in for a process: Ctrl-C comes once, then it ends with exit code 3."""

    def __init__(self, command, **settings):
        self.command, self.settings, self.returncode, self.waits = command, settings, None, 0
        Lab.last = self

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def poll(self):
        return self.returncode

    def wait(self):
        self.waits += 1
        if self.waits == 1:
            raise KeyboardInterrupt
        self.returncode = 3


@pytest.fixture
def installed(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    monkeypatch.setattr(subprocess, "Popen", Lab)


@pytest.mark.usefixtures("installed")
def test_it_opens_in_the_folder_and_waits_for_jupyter_to_end():
    assert open_lab() == 3 and Lab.last.waits == 2
    assert Lab.last.command == [sys.executable, "-m", "jupyterlab"] and Lab.last.settings["cwd"] == folder()
    assert Lab.last.settings["env"]["PYTHONPATH"].startswith(str(Path(npnets.__file__).parents[1]))


@pytest.mark.usefixtures("installed")
def test_a_notebook_and_options_are_handed_on():
    open_lab("12", ["--no-browser", "--port=1"])
    assert Lab.last.command[2:] == ["jupyterlab", "12_what_the_networks_cost.ipynb", "--no-browser", "--port=1"]
    with pytest.raises(ValueError, match="no notebook '99'"):
        open_lab("99")


def test_without_jupyterlab_there_is_a_sentence(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="Jupyter is not installed: pip install -r"):
        open_lab()
