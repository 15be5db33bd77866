"""In which order do layers follow each other, if their names were sorted as text?

A file of weights may have lost the order in which its layers are passed: ``safetensors`` sorts by name. Numbers in the
names tell a part of it, ``features.2`` comes before ``features.10``. Whether ``classifier`` comes before ``features``
they do not tell; but the shapes of the model that is to take the weights do, as a rule.
"""

import functools
import itertools
import re
from typing import NamedTuple


class Undecided(ValueError):
    """The layers fit in more than one order."""


def looks_sorted(names):
    """Tell whether names were sorted as text: they are in that order, and not in that of the numbers in them.

    >>> looks_sorted(["blocks.1", "blocks.10", "blocks.2"]), looks_sorted(["blocks.1", "blocks.2", "blocks.10"])
    (True, False)
    """
    return names == sorted(names) and names != sorted(names, key=_tokens)


def forward_order(names, fits):
    """Return the names of layers in the order in which they fit.

    Names with the same beginning stand together; after it, those that differ in a number are in the order of the
    numbers, and those that differ in a word in any order. Of the orders that fit, the one that leaves the names of a
    word together is taken: ``conv1, conv2, conv3, downsample`` rather than ``conv1, conv2, downsample, conv3``. Words
    that fit either way, such as ``expand`` and ``filter`` in one block, are in the order that they have in another
    block, where the shapes decide it.

    Parameters
    ----------
    names : list of str
    fits : callable (name, k) -> bool
        Whether the layer can be the k-th.

    Returns
    -------
    list of str, or None if no order fits

    Raises
    ------
    Undecided
        If two orders fit equally well; the message names two layers.

    >>> forward_order(["fc", "layer.10", "layer.2"], lambda name, k: (name == "fc") == (k == 2))
    ['layer.2', 'layer.10', 'fc']
    """
    layers = tuple((_tokens(name), name) for name in sorted(names, key=_tokens))
    found = _arrange(layers, fits, frozenset())
    if found is not None and found.doubt:
        found = _arrange(layers, fits, found.decided)
    if found is None:
        return None
    if found.doubt:
        raise Undecided(f"{found.doubt[0]} may come before or after {found.doubt[1]}")
    return list(found.names)


class _Arrangement(NamedTuple):
    """An order of some layers.

    ``changes`` counts how often it goes from one word to another, ``against`` how often words are not in the order that
    is known of them. ``doubt`` names two layers that could be swapped. ``words`` are those of the names' next part, in
    order, ``decided`` the pairs of words whose order was told by the shapes, here and in the parts.
    """

    names: tuple = ()
    changes: int = 0
    against: int = 0
    doubt: tuple = ()
    words: tuple = ()
    decided: frozenset = frozenset()


def _arrange(layers, fits, known):
    """Return the best arrangement of layers (tokens, name), or None if there is none."""

    @functools.cache
    def arranged(layers, depth, start):
        """Arrange layers that agree in the tokens before ``depth``; the first of them is to be layer ``start``."""
        if len(layers) == 1:
            name = layers[0][1]
            return _Arrangement((name,)) if fits(name, start) else None
        groups = {group[0][0][depth : depth + 1]: _divided(group, depth + 1) for group in _divided(layers, depth)}
        best = {((0,) * len(groups), None): _Arrangement()}
        for _ in range(sum(map(len, groups.values()))):
            best = extended(best, groups, depth, start)
        found = _best(best.values())
        if found is None or found.doubt:
            return found and found._replace(words=())
        return found._replace(words=(), decided=found.decided | set(itertools.combinations(found.words, 2)))

    def extended(best, groups, depth, start):
        """Put one more part after each arrangement so far: the next number of any word."""
        candidates = {}
        for (used, last), before in best.items():
            for k, (word, parts) in enumerate(groups.items()):
                if used[k] < len(parts):
                    part = arranged(parts[used[k]], depth + 2, start + len(before.names))
                    if part is not None:
                        state = (*used[:k], used[k] + 1, *used[k + 1 :]), word
                        candidates.setdefault(state, []).append(_joined(before, part, word, word != last, known))
        return {state: _best(found) for state, found in candidates.items()}

    return arranged(layers, 0, 0)


def _joined(before, part, word, changed, known):
    """Return an arrangement with one more part, which begins with a word."""
    new = word not in before.words
    return _Arrangement(
        before.names + part.names,
        before.changes + part.changes + changed,
        before.against + part.against + sum((word, other) in known for other in before.words if new),
        before.doubt or part.doubt,
        (*before.words, word) if new else before.words,
        before.decided | part.decided,
    )


def _best(arrangements):
    """Return the arrangement with the fewest changes; if another one is as good, the two are in doubt."""
    best, *others = sorted(arrangements, key=lambda found: (found.changes, found.against)) or [None]
    for other in others:
        if (other.changes, other.against) == (best.changes, best.against) and not best.doubt:
            pair = next((a, b) for a, b in zip(best.names, other.names) if a != b)
            best = best._replace(doubt=pair)
    return best


def _divided(layers, depth):
    """Divide sorted layers by what their names have at a depth: a word, or a number."""
    return [tuple(group) for _, group in itertools.groupby(layers, key=lambda layer: layer[0][depth : depth + 1])]


def _tokens(name):
    """Return the words and the numbers of a name in turn: ``("features.", 10, ".conv.", 0)``."""
    return tuple(int(part) if k % 2 else part for k, part in enumerate(re.split(r"(\d+)", name)))
