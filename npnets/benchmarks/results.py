"""``RESULTS.md``: what was measured, on which machine, and whether it is what was asked for.

Each benchmark leaves a JSON file in ``results/`` with all that was measured and the tables made of it, and perhaps a
figure beside it. ``RESULTS.md`` is made of these files alone, so it can be written again without measuring.
"""

import datetime
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from npnets import checkpoint, plots
from npnets.benchmarks import NAMES, figures, goals, machine
from npnets.benchmarks.report import Table

HEADING = """# Results

npnets beside other libraries. `python -m npnets benchmark --results` measures and writes this file; with the name of a
benchmark it renews that section alone, and `--from-json` measures nothing. All that was measured is in `results/`. How
it is measured: `python -m npnets benchmark --help`, and the first lines of `npnets/benchmarks/__init__.py`."""


def page(name, section, setup, about):
    """Return everything about one benchmark as plain values for JSON.

    Parameters
    ----------
    name : str
    section : report.Section
    setup : measure.Setup
    about : dict
        What :func:`begin` returned at the start of the benchmark.
    """
    return _rounded(
        {
            "name": name,
            "title": section.title,
            "command": command(name, setup),
            **about,
            "method": section.method or setup.record(),
            "tables": [asdict(table) for table in section.tables],
            "notes": list(section.notes),
            "records": section.record(),
        }
    )


def begin(setup):
    """Return the date, the commit and the machine with its load, at the start of a benchmark."""
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit(),
        "busy_cores": machine.busy_cores(),
        "machine": machine.describe(
            setup.torch.version if setup.torch else None, setup.chainer.version if setup.chainer else None
        ),
    }


def command(name, setup):
    """Return the command that repeats a benchmark, without the folders of this machine."""
    words = ["python -m npnets benchmark", name]
    usual = type(setup)()
    for option in ("rounds", "steps", "warmup", "threads", "seeds"):
        value = getattr(setup, option)
        if value != getattr(usual, option):
            words += [f"--{option}", *map(str, value if isinstance(value, tuple) else [value])]
    for option in ("torch", "chainer"):
        peer = getattr(setup, option)
        if peer is not None and peer.python != sys.executable:
            words += [f"--{option}-python", "PATH"]
    return " ".join(words)


def commit():
    """Return the commit that is checked out, with ``+ changes`` if a file differs from it; None outside a repository.

    The results themselves do not count: they change while they are being written.
    """
    here = Path(__file__).parent
    apart = [":(exclude)RESULTS.md", ":(exclude)results"]
    try:
        head = _git(here, "rev-parse", "--short", "HEAD")
        changes = _git(here, "status", "--porcelain", "--", ":/", *apart)
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{head} + changes" if changes else head


def _git(folder, *arguments):
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


def save(folder, content):
    """Keep a page of :func:`page` in ``folder/results/``, and write ``folder/RESULTS.md`` anew."""
    checkpoint.write_json(Path(folder) / "results" / f"{content['name']}.json", content)
    write(folder)


def write(folder):
    """Write ``folder/RESULTS.md`` and its figures from the JSON files in ``folder/results/``; return the path.

    Raises
    ------
    ValueError
        If there are none, or one of them is no page of a benchmark. Nothing has been written then.
    """
    folder = Path(folder)
    pages = read(folder)
    if not pages:
        raise ValueError(f"{folder}/results holds no JSON of a benchmark: measure first, with --results")
    text, pngs = render(pages)
    for name, png in pngs.items():
        with checkpoint.replacing(folder / "results" / name) as file:
            file.write(png)
    with checkpoint.replacing(folder / "RESULTS.md") as file:
        file.write(text.encode())
    return folder / "RESULTS.md"


def render(pages):
    """Return the text of ``RESULTS.md``, and file name -> PNG of its figures.

    Raises
    ------
    ValueError
        If a page is none; it is named.
    """
    sections, pngs = [], {}
    for content in pages:
        try:
            draw = figures.FIGURES.get(content["name"], lambda records: {})
            drawn = {name: plots.png(figure) for name, figure in draw(content["records"]).items()}
            sections.append(markdown(content, list(drawn)))
            goals.table({content["name"]: content["records"]})  # here, so that an error is known to be this page's
        except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
            raise ValueError(
                f"results/{content['name']}.json is not what npnets writes ({type(error).__name__}: {error}); "
                "measure it again, or remove it"
            ) from error
        pngs |= drawn
    reached = goals.table({content["name"]: content["records"] for content in pages})
    parts = [HEADING, "## What was to be reached", reached.markdown(), *sections]
    return "\n\n".join(parts) + "\n", pngs


def read(folder, without=()):
    """Return the pages that ``folder/results/`` holds, in the order of the benchmarks, but those of some."""
    pages = []
    for name in NAMES:
        path = Path(folder) / "results" / f"{name}.json"
        if path.exists() and name not in without:
            try:
                content = json.loads(path.read_bytes())
            except ValueError as error:
                raise ValueError(f"{path} is not JSON: {error}; measure it again, or remove it") from None
            if not isinstance(content, dict) or content.get("name") != name:
                raise ValueError(f"{path} is not the page of the benchmark {name}; measure it again, or remove it")
            pages.append(content)
    return pages


def markdown(content, figures=()):
    """Return the section of a page as Markdown, with links to the files of its figures."""
    about = content["machine"]
    method = ", ".join(f"{name} {_words(value)}" for name, value in content["method"].items())
    load, busy = (_words(value) for value in (about["load"], content["busy_cores"]))
    facts = [
        f"- `{content['command']}`: {method}",
        f"- commit {content['commit'] or 'unknown'}, {content['date']}",
        *(f"- {line}" for line in machine.lines(about | {"load": None})),
        f"- at the start: load average {load}, cores busy with other work {busy}",
    ]
    parts = [f"## {content['title']}", "\n".join(facts)]
    parts += [Table(**table).markdown() for table in content["tables"]]
    parts += [f"![{content['title']}](results/{name})" for name in figures]
    return "\n\n".join([*parts, *content["notes"]])


def _words(value):
    """Write a setting or a load."""
    if isinstance(value, list):
        return " and ".join(map(str, value))
    return "unknown" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)


def _rounded(value):
    """Return plain values with six significant digits, which is more than a clock is good for."""
    if isinstance(value, dict):
        return {str(key): _rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value
