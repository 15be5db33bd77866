"""Threads: every piece once, results in order, errors that come back, and nothing left behind.

Whether each op and a whole training step have the same bits for every number of threads is tested with the ops
(``tests/ops/test_threads.py``) and the models (``tests/models/test_mobilenet_v2.py``).
"""

import os
import threading
import warnings
import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_info, threadpool_limits

from npnets import parallel
from npnets.parallel import LEAST_BYTES, PIECE_BYTES, cut, run, sum_in_order, threads

PATIENCE = 20  # seconds until a deadlock is called one


def helpers():
    """Return the helper threads that are alive."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("npnets-")]


@pytest.fixture(autouse=True)
def nothing_is_left_behind():
    """After every test: no helper threads, no setting, and the user's own BLAS threads."""
    before = blas_threads()
    yield
    assert helpers() == []
    assert getattr(parallel._current, "team", None) is None
    assert blas_threads() == before


def blas_threads():
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


def within(seconds, work):
    """Return ``work()``, or fail if it takes longer: a deadlock must not stop the whole suite."""
    outcome = []

    def attempt():
        try:
            outcome.append((work(), None))
        except BaseException as error:
            outcome.append((None, error))

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(seconds)
    if not outcome:
        pytest.fail("deadlock")
    value, error = outcome[0]
    if error is not None:
        raise error
    return value


def all_at_once(n, work=lambda k: k):
    """Return work for pieces 0 to n - 1 that only ends when n threads are in it: each thread gets one piece."""
    barrier = threading.Barrier(n)

    def piece(k):
        barrier.wait(PATIENCE)
        return work(k)

    return piece


def inviting():
    """Return work for two pieces: the first leaves other threads time to take the second. It tells who did each."""
    taken = threading.Event()

    def piece(k):
        if k == 0:
            taken.wait(0.2)
        taken.set()
        return threading.current_thread()

    return piece


# cut


@given(st.integers(0, 5000), st.floats(0, 4 * PIECE_BYTES))
def test_cut_covers_everything_once_in_order(n, bytes_each):
    pieces = cut(n, bytes_each)
    assert [k for piece in pieces for k in range(n)[piece]] == list(range(n))
    count = len(pieces)
    assert count & (count - 1) == 0  # a power of two: 2, 4 or 8 threads get equal shares
    assert 1 <= count <= max(n, 1)
    lengths = {piece.stop - piece.start for piece in pieces}
    assert max(lengths) - min(lengths) <= 1


@given(st.integers(1, 5000), st.floats(1, 4 * PIECE_BYTES))
def test_pieces_have_about_the_target_size(n, bytes_each):
    """Between one and two targets, where there are items enough: rounded down to a power of two. Two may be smaller."""
    pieces = len(cut(n, bytes_each))
    total = n * bytes_each
    assert pieces == 1 or total / pieces >= (LEAST_BYTES if pieces == 2 else PIECE_BYTES)
    assert 2 * pieces > n or total / pieces < 2 * PIECE_BYTES


def test_cut_of_known_sizes(monkeypatch):
    assert cut(0, 100) == [slice(0, 0)]
    assert cut(1, 1e12) == [slice(0, 1)]
    assert len(cut(1000, PIECE_BYTES / 100)) == 8  # 10 targets
    assert [len(cut(n, LEAST_BYTES / 100)) for n in (199, 200)] == [1, 2]
    monkeypatch.setattr(parallel, "PIECE_BYTES", 10)
    assert cut(8, 10) == [slice(k, k + 1) for k in range(8)]


def test_cut_knows_nothing_of_threads():
    for n in (1, 3, 8):
        with threads(n):
            assert cut(100, PIECE_BYTES / 10) == cut(100, PIECE_BYTES / 10)
            assert len(cut(100, PIECE_BYTES / 10)) == 8


# run


@pytest.mark.parametrize("n", [1, 2, 3, 8])
def test_every_piece_once_and_results_in_order(n):
    done = []

    def work(k):
        done.append(k)
        return -k

    with threads(n):
        for pieces in ([], [5], range(2), list(range(100))):
            done.clear()
            assert run(work, pieces) == [-k for k in pieces]
            assert sorted(done) == list(pieces)


def test_without_threads_it_is_a_loop():
    assert run(inviting(), range(2)) == [threading.current_thread()] * 2


@pytest.mark.parametrize("n", [2, 4])
def test_the_caller_works_too(n):
    """``threads(n)`` means n, the caller included: n pieces that wait for one another can all be under way."""
    with threads(n):
        workers = run(all_at_once(n, lambda k: threading.current_thread()), range(n))
        assert len(set(workers)) == n and threading.current_thread() in workers
        assert len(helpers()) == n - 1


@pytest.mark.parametrize("n", [1, 2, 8])
@pytest.mark.parametrize("failing", [0, 7, 15])
def test_an_exception_comes_back_and_the_team_stays_usable(n, failing):
    def work(k):
        if k == failing:
            raise ArithmeticError(f"piece {k}")
        return k

    with threads(n):
        for _ in range(3):
            with pytest.raises(ArithmeticError, match=f"piece {failing}"):
                run(work, range(16))
            assert run(lambda k: k * k, range(16)) == [k * k for k in range(16)]
    with pytest.raises(ArithmeticError):
        run(work, range(16))


def test_an_exception_of_a_helper_comes_back():
    def work(k):
        if threading.current_thread().name.startswith("npnets-"):
            raise ArithmeticError("from a helper")
        return k

    with threads(2), pytest.raises(ArithmeticError, match="from a helper"):
        run(all_at_once(2, work), range(2))


def test_after_an_error_the_remaining_pieces_are_not_computed():
    done = []

    def work(k):
        done.append(k)
        raise ArithmeticError

    with threads(2), pytest.raises(ArithmeticError):
        run(work, range(1000))
    assert len(done) < 1000


class Stop(BaseException):
    """Something that is not an Exception, as KeyboardInterrupt, SystemExit and a test's own skip are."""


@pytest.mark.parametrize("exception", [KeyboardInterrupt, SystemExit, Stop])
def test_what_is_not_an_exception_comes_back_too(exception):
    """Ctrl-C reaches the caller in the middle of its piece; afterwards the team works as before."""

    def attempt():
        def work(k):
            if not threading.current_thread().name.startswith("npnets-"):
                raise exception
            return k

        with threads(2):
            with pytest.raises(exception):
                run(all_at_once(2, work), range(2))
            assert run(lambda k: k, range(10)) == list(range(10))
            return run(all_at_once(2), range(2))

    assert within(PATIENCE, attempt) == [0, 1]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_helper_that_is_stopped_does_not_leave_the_caller_waiting():
    """A ``SystemExit`` or a test's skip can be raised in a helper as well."""

    def attempt():
        def work(k):
            if threading.current_thread().name.startswith("npnets-"):
                raise Stop
            return k

        with threads(2):
            with pytest.raises(Stop):
                run(all_at_once(2, work), range(2))
            return run(all_at_once(2), range(2))

    try:
        assert within(PATIENCE / 4, attempt) == [0, 1]
    finally:
        for helper in helpers():
            helper.name = f"lost {helper.name}"  # so that the other tests do not fail with this one


def test_a_run_inside_a_piece_is_a_loop():
    """It must not wait for helpers that are busy with the outer run."""

    def outer(k):
        if k == 1:
            return True  # this thread is free now, and could help the other
        return run(inviting(), range(2)) == [threading.current_thread()] * 2

    def attempt():
        with threads(2):
            assert run(all_at_once(2, outer), range(2)) == [True, True]
            return run(all_at_once(2), range(2))  # and afterwards the team is whole again

    assert within(PATIENCE, attempt) == [0, 1]


def test_numpys_error_settings_hold_in_every_piece():
    """``training.fit`` silences overflow, since it looks at the loss itself: on 2 threads as on 1."""

    def overflow(k):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return np.float32(1e38) * np.array([10 + k], np.float32)

    with threads(2):
        with np.errstate(over="ignore"):
            assert np.isinf(run(all_at_once(2, overflow), range(2))).all()
        with np.errstate(over="raise"):
            results = run(all_at_once(2, lambda k: np.geterr()["over"]), range(2))
        assert results == ["raise", "raise"]


def test_sum_in_order():
    parts = [np.array([1.0, 2.0]), np.array([1e-17, 0.5]), np.array([-1.0, 3.0])]
    assert sum_in_order(part.copy() for part in parts).tolist() == [(1.0 + 1e-17) - 1.0, 5.5]
    assert sum_in_order([3]) == 3


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_partial_sums_have_the_same_bits_for_every_number_of_threads(dtype, monkeypatch):
    """A sum whose value depends on how it is cut, so that another cut, or another order, shows."""
    x = np.random.default_rng(0).standard_normal((3000, 16)).astype(dtype)

    def total():
        pieces = cut(len(x), x.nbytes / len(x))
        return sum_in_order(run(lambda piece: x[piece].sum(axis=0), pieces)).tobytes()

    monkeypatch.setattr(parallel, "PIECE_BYTES", 1000)
    expected = total()
    for n in (1, 2, 8):
        with threads(n):
            assert [total() for _ in range(20)] == [expected] * 20
    monkeypatch.setattr(parallel, "PIECE_BYTES", 1 << 20)
    assert total() != expected


# threads


def test_threads_nest_and_the_innermost_counts():
    def workers():
        team = parallel._current.team
        return 0 if team is None else 1 + len(team.helpers)

    with threads(3):
        assert workers() == 3
        with threads(2):
            assert workers() == 2 and len(helpers()) == 3
        assert workers() == 3 and len(helpers()) == 2
        with pytest.raises(ZeroDivisionError), threads(4):
            raise ZeroDivisionError
        assert workers() == 3 and len(helpers()) == 2


def test_the_default_is_the_cores_of_this_process():
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert parallel.available_cores() == cores
    with threads():
        assert len(helpers()) == cores - 1


@pytest.mark.parametrize("n", [0, -1, 1.5, "2"])
def test_bad_numbers_are_named(n):
    with pytest.raises(ValueError, match=r"threads must be .*, got"), threads(n):
        pass


def test_numpy_integers_will_do():
    with threads(np.int64(2)):
        assert len(helpers()) == 1


def test_the_setting_belongs_to_the_thread_that_entered():
    """A second thread of the user is not affected: it computes alone."""
    seen = []
    with threads(2):
        other = threading.Thread(target=lambda: seen.extend(run(inviting(), range(2))))
        other.start()
        other.join(PATIENCE)
    assert seen == [other, other]


@pytest.mark.skipif(not blas_threads(), reason="threadpoolctl knows no BLAS here")
def test_blas_is_held_to_one_thread_and_gets_its_own_back():
    with threadpool_limits(2, user_api="blas"):
        before = blas_threads()
        with threads(2):
            assert set(blas_threads()) == {1}
            with threads(1):
                assert set(blas_threads()) == {1}
            assert set(blas_threads()) == {1}
        assert blas_threads() == before
        with pytest.raises(ZeroDivisionError), threads(2):
            raise ZeroDivisionError
        assert blas_threads() == before


def test_a_waiting_helper_keeps_no_arrays_alive():
    """An activation of the last layer may be a hundred megabytes."""

    class Array(np.ndarray):
        """An array that can be watched."""

    with threads(2):
        array = np.zeros(10).view(Array)
        gone = threading.Event()
        weakref.finalize(array, gone.set)
        run(all_at_once(2, lambda k, array=array: array.sum()), range(2))
        del array
        assert gone.wait(5)  # as soon as the helper waits again


def test_many_runs_by_many_threads():
    """A stress test of the hand-over: nothing lost, nothing twice."""
    with threads(8):
        for n in range(200):
            assert run(lambda k: k, range(n % 17)) == list(range(n % 17))
