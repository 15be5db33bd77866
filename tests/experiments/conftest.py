"""A tiny experiment among the real ones, on made-up images, in an empty folder."""

import pytest

import tests.experiments as tiny
from npnets import datasets, experiments
from npnets.experiments import single
from tests import fakes


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Work in an empty folder, and without the user's own data folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NPNETS_DATA", raising=False)
    return tmp_path


@pytest.fixture
def tiny_experiment(here, monkeypatch):
    """Make ``tiny`` an experiment, with checkpoints every second step and records in the empty folder."""
    monkeypatch.setitem(experiments.EXPERIMENTS, "tiny", tiny.TINY)
    monkeypatch.setattr(datasets, "load", tiny.load_fake)
    monkeypatch.setattr(single, "SAVE_EVERY", 2)
    monkeypatch.setattr(experiments, "RESULTS", here / "results")
    monkeypatch.setattr(experiments.records, "RESULTS", here / "results")
    yield here
    tiny.CALLBACKS.clear()


@pytest.fixture
def made_up_images(here, monkeypatch):
    """Give every experiment 64 made-up images of 16 x 16 pixels in place of CIFAR-10's, and 20 to be tested on."""

    def load(name, split, root=None):
        return fakes.dataset(64 if split == "train" else 20, size=16, channels=3, seed=split == "test", name=name)

    monkeypatch.setattr(datasets, "load", load)
    return here
