"""Settings of the whole suite: how many examples hypothesis draws, and a seeded generator.

Choose with ``HYPOTHESIS_PROFILE=ci pytest``. ``dev`` is for every day, ``ci`` draws the same examples on every run, and
``thorough`` is the one that "at least 200 drawn geometries an op" refers to.
"""

import os

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

# The loops of the reference take as long as they take: no deadlines, and no complaint about slow examples.
_common = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow], "print_blob": True}
settings.register_profile("dev", max_examples=25, **_common)
settings.register_profile("ci", max_examples=60, derandomize=True, database=None, **_common)
settings.register_profile("thorough", max_examples=300, **_common)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


@pytest.fixture
def rng():
    """Return a seeded generator. Tests with drawn examples take their seed from hypothesis instead."""
    return np.random.default_rng(20150211)
