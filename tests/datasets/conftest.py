"""Fixtures of the data set tests."""

import shutil
from pathlib import Path

import pytest

import npnets.datasets

DATA = Path(npnets.datasets.__file__).parents[2] / "data"


@pytest.fixture(autouse=True)
def no_outside_data(monkeypatch):
    """Hide the user's own data folder: these tests speak of the shipped files and of made-up ones."""
    monkeypatch.delenv("NPNETS_DATA", raising=False)


@pytest.fixture(scope="session")
def shipped(tmp_path_factory):
    """Return a folder with the shipped files only: ``data/`` may hold the full CIFAR-10 by now."""
    root = tmp_path_factory.mktemp("shipped")
    for name in ("mnist", "cifar10-subset"):
        shutil.copytree(DATA / name, root / name)
    return root
