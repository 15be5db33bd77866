"""What holds for every op, whatever it computes. A new op belongs into ``ALL_OPS`` of ``tests/strategies.py``."""

import inspect

import numpy as np
import pytest
from hypothesis import given

from npnets import ops
from tests.oracles import KINKED, as_tuple, assert_close, check_contract
from tests.strategies import ALL_OPS

FLOATS = [np.float32, np.float64]


def test_every_public_op_is_a_pair_and_is_tested():
    names = {name.removesuffix("_forward") for name in ops.__all__ if name.endswith("_forward")}
    assert names == {name.removesuffix("_backward") for name in ops.__all__ if name.endswith("_backward")}
    assert names == set(ALL_OPS)
    assert sorted(ops.__all__) == ops.__all__ or set(ops.__all__) <= set(dir(ops))


def test_settings_are_keywords():
    """``conv2d_forward(x, w, b, 2)`` should not have to be guessed at."""
    positional = {"x", "w", "b", "gamma", "beta", "running_mean", "running_var", "size", "rate", "survival_prob"}
    positional |= {"logits", "labels", "s"}
    for name in ops.__all__:
        parameters = inspect.signature(getattr(ops, name)).parameters.values()
        allowed = positional if name.endswith("_forward") else {"dy", "cache"}
        by_position = {p.name for p in parameters if p.kind is not p.KEYWORD_ONLY}
        if name != "local_response_norm_forward":
            assert by_position <= allowed, name
        assert not any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters), name


@pytest.mark.parametrize("op", ALL_OPS)
def test_inputs_are_untouched_outputs_new_and_dtypes_kept(op):
    @given(ALL_OPS[op])
    def run(case):
        for dtype in FLOATS if op in KINKED else [*FLOATS, np.complex128]:
            check_contract(case.as_type(dtype))

    run()


@pytest.mark.parametrize("op", ALL_OPS)
def test_numpy_scalars_as_settings_do_not_change_the_dtype(op):
    """A rate out of ``np.linspace`` is a float64 scalar: it must not turn a float32 network into a float64 one."""

    @given(ALL_OPS[op])
    def run(case):
        case = case.as_type(np.float32)
        case.extra = tuple(np.float64(v) if isinstance(v, float) else v for v in case.extra)
        case.settings = {k: np.float64(v) if isinstance(v, float) else v for k, v in case.settings.items()}
        check_contract(case)

    run()


@pytest.mark.parametrize("op", ALL_OPS)
def test_views_and_read_only_arrays_give_the_same_numbers(op):
    """A memory-mapped data set is read-only; a slice, a transpose or a mirrored image is not contiguous."""

    @given(ALL_OPS[op])
    def run(case):
        forward, backward = getattr(ops, f"{op}_forward"), getattr(ops, f"{op}_backward")
        args, kwargs = case.arguments()
        y, cache = forward(*args, **kwargs)
        dy = np.asarray(case.upstream(y))
        expected = as_tuple(backward(dy, cache))
        for view in (scattered, mirrored, transposed, unit_strides_zero):
            args, kwargs = case.arguments([view(x) for x in case.inputs])
            for x in args[: len(case.inputs)]:
                if x is not None:
                    x.flags.writeable = False
            view_y, cache = forward(*args, **kwargs)
            assert_close("y", view_y, y, 1e-12)
            view_dy = view(dy)
            view_dy.flags.writeable = False
            for gradient, expected_gradient in zip(as_tuple(backward(view_dy, cache)), expected):
                if gradient is not None:
                    assert_close("gradient", gradient, expected_gradient, 1e-12)

    run()


@pytest.mark.parametrize("op", ALL_OPS)
def test_a_dy_of_another_shape_is_refused(op):
    @given(ALL_OPS[op])
    def run(case):
        args, kwargs = case.arguments()
        y, cache = getattr(ops, f"{op}_forward")(*args, **kwargs)
        wrong_shape = (*y.shape[:-1], y.shape[-1] + 1) if y.ndim else (2,)
        with pytest.raises(ValueError) as error:
            getattr(ops, f"{op}_backward")(np.zeros(wrong_shape), cache)
        for words in [op, str(wrong_shape), str(y.shape)]:
            assert words in str(error.value)

    run()


@pytest.mark.parametrize("op", ALL_OPS)
def test_a_batch_is_its_images_one_by_one(op):
    """Only batch norm in training and the mean of the loss tie the samples of a batch together; a mask differs."""
    if op in ("softmax_cross_entropy", "dropout", "drop_path"):
        pytest.skip("not a function of one image")

    @given(ALL_OPS[op])
    def run(case):
        if case.settings.get("training"):
            return
        args, kwargs = case.arguments()
        forward = getattr(ops, f"{op}_forward")
        y, _ = forward(*args, **kwargs)
        batches = 2 if op == "channel_scale" else 1  # how many arguments have a row for each image
        for n in range(len(args[0])):
            of_image = [array[n : n + 1] for array in args[:batches]]
            assert_close("y", forward(*of_image, *args[batches:], **kwargs)[0], y[n : n + 1], 1e-12)

    run()


@pytest.mark.parametrize("op", ALL_OPS)
def test_caches_are_named_tuples(op):
    """So that a notebook can print what is kept for the backward."""

    @given(ALL_OPS[op])
    def run(case):
        args, kwargs = case.arguments()
        _, cache = getattr(ops, f"{op}_forward")(*args, **kwargs)
        assert isinstance(cache, tuple) and cache._fields

    run()


def scattered(x):
    """Return an equal array that is every other element of a larger one."""
    if x is None or not x.ndim:
        return x
    larger = np.full([2 * n for n in x.shape], np.nan, x.dtype)
    view = larger[tuple(slice(None, None, 2) for _ in x.shape)]
    view[...] = x
    return view


def mirrored(x):
    """Return an equal array whose memory runs backwards along every axis."""
    if x is None or not x.ndim:
        return x
    backwards = tuple(slice(None, None, -1) for _ in x.shape)
    return np.ascontiguousarray(x[backwards])[backwards]


def transposed(x):
    """Return an equal array whose first axis is the innermost in memory."""
    return None if x is None else x.copy(order="F")


def unit_strides_zero(x):
    """Return an equal array with stride 0 on every axis of length 1, as ``images[..., None]`` has.

    NumPy calls such an array contiguous. Code that computes with strides must not use those of an axis of length 1.
    """
    if x is None:
        return x
    strides = [0 if n == 1 else stride for n, stride in zip(x.shape, x.strides)]
    return np.lib.stride_tricks.as_strided(x.copy(), x.shape, strides)
