"""``python -m npnets notebooks`` as a user meets it."""

import pytest

from npnets import notebooks
from npnets.cli import main
from npnets.notebooks import Run


def run(command, *more):
    """Return the exit code of ``notebooks ...``."""
    try:
        return main(["notebooks", *command.split(), *map(str, more)])
    except SystemExit as stop:
        return stop.code


@pytest.fixture
def opened(monkeypatch):
    """Return the list of what was opened in JupyterLab."""
    found = []
    monkeypatch.setattr(notebooks, "open_lab", lambda *name, options: found.append((*name, *options)) or 0)
    return found


def test_the_plain_command_opens_jupyterlab(opened):
    assert run("") == run("12") == run("-- --no-browser") == run("3 -- --port=1 --no-browser") == 0
    assert opened == [(), ("12",), ("--no-browser",), ("3", "--port=1", "--no-browser")]


def test_check_prints_a_line_for_each_and_what_went_wrong(capsys, monkeypatch):
    def fake(path, *, limit, progress):
        progress(0, 2)
        return Run(path.stem, 1.25, 2, 1, () if path.stem.startswith("12") else ("cell 1 (x): boom\nmore",))

    monkeypatch.setattr(notebooks, "run", fake)
    assert run("--check 12") == 0
    out, err = capsys.readouterr()
    assert err == "" and "at most 180 s each" in out and out.endswith("\n1 of 1 run, 1 s in all\n")
    assert "12_what_the_networks_cost      2      1.2          1  ok" in out
    assert run("--check --limit 7") == (1 if len(notebooks.find()) > 1 else 0)
    assert "at most 7 s each" in capsys.readouterr().out
    monkeypatch.setattr(notebooks, "run", lambda path, **_: Run(path.stem, 1, 2, 0, ("cell 1 (x): boom\nmore",)))
    assert run("--check 12") == 1
    out = capsys.readouterr().out
    assert "FAILED: cell 1 (x): boom\n" in out and "boom\nmore" in out and "0 of 1 run" in out


def test_student_versions_are_written_and_listed(capsys, tmp_path):
    assert run("12 --student", tmp_path / "out") == 0
    assert capsys.readouterr().out == f"{tmp_path}/out/12_what_the_networks_cost.ipynb\n"
    assert run("12 --student", tmp_path / "out") == 2
    assert "--overwrite" in capsys.readouterr().err
    assert run("12 --overwrite --student", tmp_path / "out") == 0


def test_the_guide_is_up_to_date(capsys, monkeypatch):
    monkeypatch.setattr(notebooks, "write_guide", lambda: False)
    assert run("--guide") == 0 and "README.md: up to date" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("99", "no notebook '99'"),
        ("--check 99", "no notebook '99'"),
        ("--student out 99", "no notebook '99'"),
        ("1 12", "one notebook at most"),
        ("--guide 12", "leave the names away"),
        ("--limit 5", "--limit goes with --check"),
        ("--overwrite", "--overwrite goes with --student"),
        ("--check --overwrite", "--overwrite goes with --student"),
        ("--check --student out", "not allowed with"),
        ("--check --limit -1", "--limit"),
        ("--chekc", "unrecognized"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(command, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(command) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and said in err and not list(tmp_path.iterdir())


def test_a_missing_jupyter_is_one_line(capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for command in ("", "12"):
        assert run(command) == 2
        assert capsys.readouterr().err.count("Jupyter is not installed") == 1
    assert run("--check 12") == 2
    assert "Jupyter is not installed" in capsys.readouterr().err
