"""The same bits on one, two and eight threads, with the work cut into many pieces, and the right ones."""

import numpy as np
import pytest

from npnets import ops, parallel
from tests.oracles import Case, as_tuple, check_against_reference

RNG = np.random.default_rng(8)


def normal(*shape):
    """Draw numbers that float32 rounds in every sum, so that another order shows in the bits."""
    return RNG.standard_normal(shape)


CASES = {
    "conv2d": Case("conv2d", (normal(9, 5, 6, 3), normal(3, 2, 3, 4), normal(4)), settings={"stride": (1, 2)}),
    "depthwise_conv2d": Case("depthwise_conv2d", (normal(9, 5, 6, 3), normal(3, 2, 3), normal(3))),
    "depthwise_conv2d, strided": Case(
        "depthwise_conv2d", (normal(9, 5, 6, 3), normal(3, 5, 3), normal(3)), settings={"stride": 2, "dilation": (1, 3)}
    ),
    "pointwise_conv2d": Case("pointwise_conv2d", (normal(9, 5, 6, 3), normal(3, 4), normal(4))),
    "linear": Case("linear", (normal(70, 5), normal(5, 4), normal(4))),
    "batch_norm": Case(
        "batch_norm",
        (normal(9, 5, 6, 3), normal(3), normal(3)),
        (normal(3), normal(3) ** 2),
        {"training": True},
    ),
    "batch_norm, inference": Case(
        "batch_norm",
        (normal(9, 5, 6, 3), normal(3), normal(3)),
        (normal(3), normal(3) ** 2),
        {"training": False},
    ),
    "batch_norm, 2-D": Case(
        "batch_norm", (normal(200, 3), normal(3), normal(3)), (normal(3), normal(3) ** 2), {"training": True}
    ),
    "relu6": Case("relu6", (6 * normal(9, 5, 6, 3),)),
    "sigmoid": Case("sigmoid", (6 * normal(9, 5, 6, 3),)),
    "swish": Case("swish", (6 * normal(9, 5, 6, 3),)),
    "channel_scale, small images": Case("channel_scale", (normal(40, 2, 3, 2), normal(40, 2))),
    "channel_scale, one large image": Case("channel_scale", (normal(1, 8, 900, 7), normal(1, 7))),
    "max_pool2d": Case("max_pool2d", (normal(9, 5, 6, 3),), (2,)),
    "avg_pool2d": Case("avg_pool2d", (normal(9, 5, 6, 3),), (3,), {"stride": 1, "padding": "same"}),
}


@pytest.fixture
def small_pieces(monkeypatch):
    """Cut the work every few hundred bytes, and count the regions that were cut at all."""
    monkeypatch.setattr(parallel, "PIECE_BYTES", 300)
    regions = []
    run = parallel._Team.run

    def counting_run(team, work, pieces):
        regions.append(len(pieces))
        return run(team, work, pieces)

    monkeypatch.setattr(parallel._Team, "run", counting_run)
    return regions


def results(case):
    """Return the bytes of everything that one forward and backward produce."""
    args, kwargs = case.arguments()
    y, cache = getattr(ops, f"{case.op}_forward")(*args, **kwargs)
    dy = np.asarray(case.upstream(y), y.dtype)
    gradients = as_tuple(getattr(ops, f"{case.op}_backward")(dy, cache))
    return [array.tobytes() for array in (y, *gradients, *args) if isinstance(array, np.ndarray)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", CASES)
def test_any_number_of_threads_gives_the_same_bits(name, dtype, small_pieces):
    case = CASES[name].as_type(dtype)
    with parallel.threads(1):
        one = results(case)
    assert sum(n >= 4 for n in small_pieces) >= 2, "the forward and the backward were to be cut into several pieces"
    for n in (2, 8, 2, 8):
        with parallel.threads(n):
            assert results(case) == one, f"{n} threads"


@pytest.mark.parametrize("name", CASES)
def test_pieces_fit_together(name, small_pieces):
    with parallel.threads(2):
        check_against_reference(CASES[name])
    assert max(small_pieces) >= 4
