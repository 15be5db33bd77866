"""Information loss of a ReLU: each measure against a case that can be worked by hand, or a slow way to get it."""

import numpy as np
import pytest

from npnets import manifold
from npnets.manifold import Recovery

X = manifold.spiral(300)


def matrix(n, d=2, seed=0):
    return manifold.random_matrix(d, n, np.random.default_rng(seed))


def points(M=200, d=3, seed=1):
    return np.random.default_rng(seed).standard_normal((M, d))


def test_the_spiral_winds_and_its_points_are_evenly_spread():
    x = manifold.spiral(400, turns=3, radius=2.0)
    radius, angle = np.hypot(*x.T), np.unwrap(np.arctan2(*x.T[::-1]))
    assert radius[0] == 0 and radius[-1] == pytest.approx(2.0) and (np.diff(radius) > 0).all()
    assert angle[-1] - angle[0] == pytest.approx(6 * np.pi)
    steps = np.hypot(*np.diff(x, axis=0).T)[20:]
    assert steps.max() < 1.2 * steps.min()


@pytest.mark.parametrize("activation, low, high", [("linear", -np.inf, np.inf), ("relu", 0, np.inf), ("relu6", 0, 6)])
def test_the_image_is_cut_off_by_its_activation(activation, low, high):
    x, T = 9 * X, matrix(7)
    y = manifold.embedded(x, T, activation)
    by_hand = [[min(max(sum(a * b for a, b in zip(one, column)), low), high) for column in T.T] for one in x]
    np.testing.assert_allclose(y, by_hand, rtol=1e-12, atol=1e-12)
    expected = [[low < z < high for z in row] for row in np.asarray(x @ T)]
    assert np.array_equal(manifold.active(y, activation), expected)


@pytest.mark.parametrize("n", [2, 3, 15])
def test_nothing_is_lost_without_an_activation(n):
    found = manifold.recovery(X, matrix(n), "linear")
    assert found.pseudo_inverse == pytest.approx(1) and found.regression == pytest.approx(1)
    assert (found.determined, found.active, found.sets, found.rank) == (1, 1, 1, 2)
    np.testing.assert_allclose(manifold.pulled_back(X @ matrix(n), matrix(n)), X, atol=1e-12)


def test_one_dimension_is_too_few_for_two():
    found = manifold.recovery(X, matrix(1), "linear")
    assert found.determined == 0 and found.rank == 1 and found.regression < 0.7


def test_a_point_is_determined_if_no_other_has_its_image():
    """Of two coordinates e_1 and e_2, each point in the first quadrant is; the others slide along a line."""
    x = np.array([[1.0, 2.0], [-1.0, 2.0], [1.0, -2.0], [-1.0, -2.0]])
    assert manifold.determined(np.eye(2), manifold.active(manifold.embedded(x, np.eye(2)))).tolist() == [
        True, False, False, False,
    ]  # fmt: skip
    parallel = np.array([[1.0, 2.0, -3.0], [1.0, 2.0, -3.0]])  # three coordinates, one direction
    assert not manifold.determined(parallel, np.ones((4, 3), bool)).any()


def test_what_is_determined_can_be_solved_for_and_what_is_not_has_another_solution():
    T = matrix(4, seed=5)
    y = manifold.embedded(X, T)
    on = manifold.active(y)
    for x, row, mask, unique in zip(X, y, on, manifold.determined(T, on)):
        if unique:
            np.testing.assert_allclose(np.linalg.lstsq(T[:, mask].T, row[mask], rcond=None)[0], x, atol=1e-9)
        elif mask.any():  # go along the line that the active coordinate does not see
            column = T[:, mask][:, 0]
            other = x + 1e-6 * np.array([-column[1], column[0]])
            np.testing.assert_allclose(manifold.embedded(other[None], T)[0], row, atol=1e-12)


@pytest.mark.parametrize("n, d", [(2, 2), (3, 2), (5, 2), (4, 3)])
def test_the_chance_to_be_determined_is_that_of_coins(n, d):
    x = points(40, d)
    found = manifold.recoveries(x, [n], draws=200).determined.mean()
    assert found == pytest.approx(manifold.chance_determined(n, d), abs=0.04)


def test_relu6_loses_more_than_relu_where_signals_are_large():
    small, large = X, 20 * X
    for measure in ("determined", "regression"):
        lost = {}
        for name, x in (("small", small), ("large", large)):
            relu, relu6 = (manifold.recoveries(x, [15], name, draws=10) for name in ("relu", "relu6"))
            lost[name] = getattr(relu, measure).mean() - getattr(relu6, measure).mean()
        assert lost["small"] == pytest.approx(0, abs=1e-9) and lost["large"] > 0.03, measure


def test_more_dimensions_leave_more():
    found = manifold.recoveries(X, (2, 3, 5, 15, 30), draws=20)
    assert all(array.shape == (5, 20) for array in found)
    for measure in ("pseudo_inverse", "regression", "determined"):
        mean = getattr(found, measure).mean(axis=1)
        assert (np.diff(mean) > 0).all(), measure
    assert found.regression[-1].mean() > 0.97
    assert found.active.mean() == pytest.approx(0.5, abs=0.03)
    assert (np.diff(found.sets.mean(axis=1)) > 0).all()


def test_of_many_dimensions_half_a_signal_comes_back():
    x_hat = manifold.pulled_back(manifold.embedded(X, matrix(20_000)), matrix(20_000))
    np.testing.assert_allclose(x_hat, X / 2, atol=0.02)


def test_activations_meet_the_same_matrices_and_a_seed_decides_them():
    one, again, other = (manifold.recoveries(X, (3, 5), "relu", draws=3, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one.regression, other.regression)
    np.testing.assert_array_equal(one, manifold.recoveries(X, (3, 5), "relu6", draws=3))  # 6 is far away
    alone = manifold.recoveries(X, (5,), "relu", draws=3)
    np.testing.assert_array_equal(one.regression[1], alone.regression[0])


def test_the_share_of_the_variance():
    x = points()
    mean = np.broadcast_to(x.mean(axis=0), x.shape)
    assert manifold.explained(x, x) == 1 and manifold.explained(x, mean) == pytest.approx(0)
    assert manifold.explained(x, mean + 0.5 * (x - mean)) == pytest.approx(0.75)
    assert manifold.explained(x, -x) < 0 and np.isnan(manifold.explained(0 * x, x))


def test_regression_finds_an_affine_map_and_no_other_estimate_is_closer():
    y = points(d=4)
    x = y @ points(4, 2) + 7.0
    np.testing.assert_allclose(manifold.regression(x, y), x, atol=1e-9)
    x = np.abs(x - 7)
    best = manifold.explained(x, manifold.regression(x, y))
    ones = np.column_stack([y, np.ones(len(y))])
    by_hand = ones @ np.linalg.solve(ones.T @ ones, ones.T @ x)
    assert 0 < best < 1 and best == pytest.approx(manifold.explained(x, by_hand))
    assert manifold.explained(x, manifold.regression(x, np.zeros((len(x), 2)))) == pytest.approx(0)


def test_singular_values_are_those_of_the_covariance():
    y = points(d=5) * [1, 2, 3, 4, 0] + 100
    expected = np.sqrt(np.linalg.eigvalsh(np.cov(y.T, bias=True) * len(y)).clip(0))[::-1]
    np.testing.assert_allclose(manifold.singular_values(y), expected, atol=1e-5)


def test_effective_rank_counts_what_is_used():
    for n in (1, 3, 8):
        assert manifold.effective_rank(np.ones(n) * 7) == pytest.approx(n)
    assert manifold.effective_rank([1, 1e-9, 0]) == pytest.approx(1, abs=1e-6)
    assert manifold.effective_rank([0.0, 0.0]) == 0 and manifold.rank_above([0.0, 0.0]) == 0
    s = np.array([8.0, 4.0, 1.0])
    by_hand = -sum(p * np.log(p) for p in s / 13)
    assert manifold.effective_rank(s) == pytest.approx(np.exp(by_hand))
    assert manifold.effective_rank(1e-12 * s) == pytest.approx(np.exp(by_hand))
    assert [manifold.rank_above(s, share) for share in (0.01, 0.2, 0.6)] == [3, 2, 1]


def test_dead_coordinates_are_the_same_everywhere():
    y = points(50, 5).astype(np.float32)
    y[:, 1], y[:, 3] = 0, 6
    y[:, 4] = 6 + 1e-7 * y[:, 4]
    assert manifold.dead(y).tolist() == [False, True, False, True, True]
    assert manifold.dead(np.zeros((4, 2))).all()


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: manifold.embedded(X, matrix(2), "tanh"), 'activation must be "linear", "relu" or "relu6"'),
        (lambda: manifold.active(X, "tanh"), 'activation must be "linear", "relu" or "relu6"'),
        (lambda: manifold.spiral(1), "count must be at least 2"),
        (lambda: manifold.recoveries(X, [0]), "n must be at least 1"),
        (lambda: manifold.recoveries(X, [2], draws=0), "draws must be at least 1"),
    ],
)
def test_bad_settings_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_recovery_has_a_number_for_each_measure():
    found = manifold.recovery(X, matrix(3))
    assert isinstance(found, Recovery) and all(np.isfinite(value) for value in found)
