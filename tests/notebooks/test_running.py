"""A notebook runs clean, or its failure is told: errors, warnings, stderr, the clock, solutions that are wrong."""

import os
import re
import sys

import pytest

from npnets.notebooks import run
from npnets.notebooks.running import require_jupyter
from tests.notebooks import CHECK, TASK, WORKED_OUT, code, markdown, notebook, small, write

pytest.importorskip("jupyter_client")
pytest.importorskip("ipykernel")
pytestmark = pytest.mark.filterwarnings("default")  # Jupyter's own


def of(folder, *cells, **settings):
    """Run a notebook of these cells."""
    return run(write(folder, "01_small", notebook(*cells)), **settings)


def test_a_clean_notebook_and_its_solutions(tmp_path):
    path = write(tmp_path)
    before, seen = path.read_bytes(), []
    found = run(path, progress=lambda done, total: seen.append((done, total)))
    assert found == ("01_small", found.seconds, 3, 1, ()) and found.seconds > 0
    assert seen == [(0, 3), (1, 3), (2, 3)] and path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["01_small.ipynb"]


def test_it_runs_in_its_folder_with_this_python_and_this_npnets_in_a_new_kernel(tmp_path, monkeypatch):
    import npnets

    other = tmp_path / "kernels" / "python3"  # a kernel of this name that somebody has registered for another Python
    other.mkdir(parents=True)
    (other / "kernel.json").write_text('{"argv": ["false"], "display_name": "other", "language": "python"}')
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    lines = (
        "import os, sys, npnets",
        f"assert os.path.samefile('.', {str(tmp_path)!r})",
        f"assert sys.executable == {sys.executable!r}",
        f"assert npnets.__file__ == {npnets.__file__!r}",
        "assert 'left_over' not in globals()",
        "left_over = 1",
    )
    cell = code("\n".join(lines))
    assert of(tmp_path, cell).problems == of(tmp_path, cell).problems == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1 / 0", "cell 1 (1 / 0): ZeroDivisionError: division by zero"),
        ("def (:", "SyntaxError"),
        ("import warnings\nwarnings.warn('old')", "on stderr:\n.*UserWarning: old"),
        ("import sys\nprint('hm', file=sys.stderr)", "on stderr:\nhm"),
        ("import numpy as np\nnp.log(np.zeros(1))", "divide by zero"),
        ("import os\nos._exit(1)", "the kernel died"),
        ("input()", "StdinNotImplementedError"),
    ],
)
def test_what_fails_is_told_with_its_cell(text, said, tmp_path):
    found = of(tmp_path, markdown("# Look"), code(text), code("open('reached', 'w')"))
    (problem,) = found.problems
    assert problem.startswith("cell 1 (") and re.search(re.escape(said) if "(" in said else said, problem, re.DOTALL)
    assert "\x1b" not in problem
    assert os.path.exists(tmp_path / "reached") == ("stderr" in problem)  # it stops at errors, not at warnings


def test_a_cell_that_may_raise_for_a_reader_must_not_here(tmp_path):
    assert "ZeroDivisionError" in of(tmp_path, code("1 / 0", "raises-exception")).problems[0]


def test_an_error_in_a_widget_counts(tmp_path):
    pytest.importorskip("ipywidgets")
    text = "import ipywidgets\nipywidgets.interactive_output(lambda n: 1 / n, {'n': ipywidgets.IntSlider(0)})"
    assert "ZeroDivisionError" in of(tmp_path, code(text)).problems[0]


def test_the_clock_stops_it(tmp_path):
    (problem,) = of(tmp_path, code("while True:\n    pass"), code("open('reached', 'w')"), limit=3).problems
    assert problem == "cell 0 (while True:): the notebook takes more than 3 s"
    assert not os.path.exists(tmp_path / "reached")


@pytest.mark.parametrize(
    ("solution", "said"),
    [
        ("fingers = 4", "not yet"),
        ("fingers = ...", "not answered yet"),
        ("fingers = 1 / 0", "ZeroDivisionError"),
        ("print('x', file=__import__('sys').stderr); fingers = 5", "x"),
    ],
)
def test_a_solution_that_is_wrong_is_told(solution, said, tmp_path):
    cells = markdown(TASK), code(CHECK, "exercise"), markdown(WORKED_OUT.replace("fingers = 5", solution))
    (problem,) = of(tmp_path, *cells).problems
    assert problem.startswith(f"the solution of **1.** How many fingers has a hand?: {said}")


def test_a_solution_needs_a_check_to_be_checked(tmp_path):
    cells = markdown(TASK), code("fingers = ...", "exercise"), markdown(WORKED_OUT)
    assert of(tmp_path, *cells).problems[0].endswith("its check says nothing")


def test_without_jupyter_there_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="Jupyter is not installed: pip install -r"):
        run(write(tmp_path, content=small()))
    with pytest.raises(ValueError, match="Jupyter is not installed: pip install -r"):
        require_jupyter("jupyterlab")
