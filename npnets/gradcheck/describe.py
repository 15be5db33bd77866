"""How a wrong array differs from the right one, where no known mistake explains it.

Each test looks for one pattern and returns a sentence, or None. The first that applies is reported.
"""

import itertools

import numpy as np

NOTHING_KNOWN = "not one of the mistakes known here"


def close(a, b, rtol=1e-9) -> bool:
    """Whether two arrays have the same shape and numbers, up to ``rtol`` of the largest."""
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape or not (np.all(np.isfinite(a)) and np.all(np.isfinite(b))):
        return False
    return bool(np.all(np.abs(a - b) <= rtol * np.max(np.abs(b), initial=0.0)))


def describe(got, right, *, arrays=None, numbers=None, rtol=1e-9) -> str:
    """Return a sentence on how ``got`` differs from ``right``.

    Parameters
    ----------
    got, right : ndarray
    arrays : dict, optional
        Name -> other arrays that got might have been mixed up with (inputs, dy, the other gradients).
    numbers : dict, optional
        Name -> sizes that might have been forgotten as a factor, such as ``{"N": 4}``.
    rtol : float
        Numbers are equal up to this part of the largest.
    """
    arrays, numbers = arrays or {}, numbers or {}
    if got.shape != right.shape:
        return _another_shape(got, right, arrays, rtol)
    if not np.all(np.isfinite(got)):
        where = _index(~np.isfinite(got))
        return f"it contains {got[where]} (first at {_at(where)}): look for a division by zero, a log or an overflow"
    tests = (_zero, _same_as, _constant_factor, _rearranged, _one_factor_a_channel, _one_offset, _only_somewhere)
    for test in tests:
        sentence = test(got, right, arrays=arrays, numbers=numbers, rtol=rtol)
        if sentence:
            return sentence
    return f"{NOTHING_KNOWN}; {first_wrong(got, right, rtol)}"


def first_wrong(got, right, rtol) -> str:
    """Return where the first wrong element is, and the two numbers there."""
    wrong = _wrong(got, right, rtol)
    where = _index(wrong)
    return (
        f"{wrong.sum()} of {wrong.size} elements are wrong, the first at {_at(where)}: "
        f"{got[where]:.6g} where {right[where]:.6g} is right"
    )


def factor_name(factor: float, numbers: dict) -> str | None:
    """Return a factor in words: ``2``, ``1/N (N = 4)``, ``-H W``; None if it is none of those known."""
    sign = "-" if factor < 0 else ""
    size = abs(factor)
    if np.isclose(size, 1, rtol=1e-6):
        return f"{sign}1"
    names = []
    for name, number in numbers.items():
        if number > 1 and np.isclose(size, number, rtol=1e-6):
            names.append(f"{sign}{name}")
        elif number > 1 and np.isclose(size * number, 1, rtol=1e-6):
            names.append(f"{sign}1/{name}" if name.isidentifier() else f"{sign}1/({name})")
    plain = next((text for text, v in {"2": 2, "1/2": 0.5, "4": 4, "1/4": 0.25}.items() if np.isclose(size, v)), None)
    if plain:
        names.insert(0, f"{sign}{plain}")
    return " or ".join(names[:3]) or None


def proportion(got, right, rtol=1e-9) -> float | None:
    """Return c if ``got`` is c times ``right``."""
    if got.shape != right.shape or not np.all(np.isfinite(got)) or not np.any(right):
        return None
    c = float(np.vdot(right, got) / np.vdot(right, right))
    return c if c and close(got, c * right, rtol) else None


def _another_shape(got, right, arrays, rtol):
    shapes = f"the shape is {got.shape} where {right.shape} is expected"
    if got.size == right.size and close(got.reshape(right.shape), right, rtol):
        return f"{shapes}; the numbers are right (keepdims or a reshape left over)"
    for axes in _subsets(got.ndim):
        if close(got.sum(axis=axes), right, rtol):
            return f"{shapes}: it is not summed over the axes {axes}"
    for axes in itertools.permutations(range(got.ndim)):
        if close(got.transpose(axes), right, rtol):
            return f"{shapes}: it is transposed; transpose{axes} of it is right"
    for name, array in arrays.items():
        if close(got, array, rtol):
            return f"{shapes}: it is {name}"
    return shapes


def _zero(got, right, **_):
    return None if np.any(got) else "it is zero everywhere: it is never written to, or a mask removes everything"


def _same_as(got, right, *, arrays, rtol, **_):
    for name, array in arrays.items():
        if close(got, array, rtol):
            return f"it is {name}, unchanged"
    return None


def _constant_factor(got, right, *, numbers, rtol, **_):
    c = proportion(got, right, rtol)
    if c is None:
        return None
    if np.isclose(c, -1, rtol=1e-6):
        return "it has the wrong sign"
    name = factor_name(c, numbers)
    return f"it is {c:.6g} times the right gradient" + (f": a factor {name} too much" if name else "")


def _rearranged(got, right, *, rtol, **_):
    for axes in list(itertools.permutations(range(got.ndim)))[1:]:
        if close(got.transpose(axes), right, rtol):
            return f"it is transposed: transpose{axes} of it is right"
    for axes in _subsets(got.ndim):
        if close(np.flip(got, axes), right, rtol):
            return f"it is flipped along the axes {axes}"
    for axis, step in itertools.product(range(got.ndim), (1, -1)):
        here, there = np.moveaxis(got, axis, 0), np.moveaxis(right, axis, 0)
        # All but the cells that were pushed out at one end and invented at the other.
        a, b = (here[1:], there[:-1]) if step == 1 else (here[:-1], there[1:])
        if len(a) > 1 and np.any(b) and close(a, b, rtol):
            return f"it is shifted by one along axis {axis}"
    return None


def _one_factor_a_channel(got, right, *, arrays, rtol, **_):
    for axis, what in ((right.ndim - 1, "channel"), (0, "sample")):
        if right.ndim < 2 or right.shape[axis] < 2:
            continue
        others = tuple(k for k in range(right.ndim) if k != axis)
        size = np.sum(right * right, axis=others, keepdims=True)
        ratio = np.sum(got * right, axis=others, keepdims=True) / np.where(size > 0, size, 1)
        if not np.all(ratio) or not close(got, ratio * right, rtol):
            continue
        known = [name for name, array in arrays.items() if close(ratio.ravel(), array, 1e-6)]
        known += [
            f"1/{name}" for name, array in arrays.items() if np.all(array) and close(ratio.ravel(), 1 / array, 1e-6)
        ]
        return f"each {what} is off by a factor of its own" + (f", {known[0]}" if known else "")
    return None


def _one_offset(got, right, *, rtol, **_):
    difference = got - right
    tolerance = rtol * max(np.max(np.abs(got)), np.max(np.abs(right)))
    if got.size > 1 and np.all(np.abs(difference - difference.flat[0]) <= tolerance):
        return f"it is off by the constant {difference.flat[0]:.6g} everywhere"
    if right.ndim > 1 and right.size > 2 * right.shape[-1]:
        first = difference.reshape(-1, right.shape[-1])[0]
        if np.all(np.abs(difference - first) <= tolerance):
            return "each channel is off by a constant of its own: a mean is missing, or one too many is subtracted"
    return None


def _only_somewhere(got, right, *, rtol, **_):
    wrong = _wrong(got, right, rtol)
    if wrong.ndim == 4 and min(wrong.shape[1:3]) > 2 and not wrong[:, 1:-1, 1:-1].any():
        where = first_wrong(got, right, rtol)
        return f"it is right inside the image and wrong at its border: look at the padding; {where}"
    for axis, what in ((0, "samples"), (wrong.ndim - 1, "channels")):
        if wrong.ndim > 1 and wrong.shape[axis] > 1:
            touched = wrong.any(axis=tuple(k for k in range(wrong.ndim) if k != axis))
            if not touched.all():
                which = ", ".join(map(str, np.flatnonzero(touched)[:8]))
                return f"it is wrong only in the {what} {which}; {first_wrong(got, right, rtol)}"
    return None


def _wrong(got, right, rtol):
    return ~(np.abs(got - right) <= rtol * np.max(np.abs(right), initial=0.0))


def _index(mask):
    return tuple(int(k) for k in np.argwhere(mask)[0])


def _at(index):
    return str(list(index))


def _subsets(n):
    return itertools.chain.from_iterable(itertools.combinations(range(n), size) for size in range(1, n + 1))
