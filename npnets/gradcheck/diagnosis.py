"""diagnose: which classic mistake gives exactly these numbers."""

import html
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from npnets.gradcheck.catalogue import Case, KnownOp, Mistake, known_op, make_case, mistakes
from npnets.gradcheck.describe import close, describe, factor_name, proportion
from npnets.gradcheck.running import as_inputs, frozen, generator, not_an_array, require_callable, run_once

SAME_NUMBERS = 1e-9
"""Two gradients are the same if they agree to this part of their largest element."""


@dataclass(frozen=True)
class Finding:
    """What is wrong with one gradient.

    Attributes
    ----------
    gradient : str
    text : str
        One sentence.
    hint : str
        What to look at.
    mistakes : tuple of str
        Names of the mistakes of the catalogue that reproduce the numbers exactly; usually one.
    """

    gradient: str
    text: str
    hint: str = ""
    mistakes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Diagnosis:
    """The result of :func:`diagnose`; ``print`` it, or let Jupyter show it.

    Attributes
    ----------
    op : str
    findings : tuple of Finding
        One for each wrong gradient; empty if all are right.
    notes : tuple of str
    """

    op: str
    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()

    @property
    def right(self) -> bool:
        """Whether nothing was found wrong."""
        return not self.findings

    @property
    def wrong(self) -> tuple[str, ...]:
        """The names of the wrong gradients."""
        return tuple(finding.gradient for finding in self.findings)

    @property
    def mistakes(self) -> tuple[str, ...]:
        """The names of the mistakes that were recognised."""
        return tuple(dict.fromkeys(name for finding in self.findings for name in finding.mistakes))

    def of_gradients(self, gradients) -> "Diagnosis":
        """Return the part that concerns these gradients."""
        return replace(self, findings=tuple(finding for finding in self.findings if finding.gradient in gradients))

    def __str__(self) -> str:
        if self.right:
            lines = [f"{self.op}: no mistake found."]
        else:
            lines = []
            for finding in self._merged():
                lines.append(f"{finding.gradient}: {finding.text}.")
                if finding.hint:
                    lines.append(f"    {finding.hint}")
        return "\n".join([*lines, *self.notes])

    def _repr_html_(self) -> str:
        if self.right:
            return f"<p>{html.escape(str(self))}</p>"
        items = "".join(
            f"<li><b>{html.escape(f.gradient)}</b>: {html.escape(f.text)}."
            + (f"<br>{html.escape(f.hint)}" if f.hint else "")
            + "</li>"
            for f in self._merged()
        )
        return f"<ul>{items}</ul>" + "".join(f"<p>{html.escape(note)}</p>" for note in self.notes)

    def _merged(self):
        """Gradients with the same finding together."""
        names = {}
        for finding in self.findings:
            names.setdefault((finding.text, finding.hint), []).append(finding.gradient)
        return [Finding(", ".join(gradients), text, hint) for (text, hint), gradients in names.items()]


class Attempt(NamedTuple):
    """A student's gradients on one case, beside the right ones; both by name."""

    case: Case
    got: dict
    right: dict
    written: tuple = ()
    remark: str = ""
    shapes: str = ""

    def __str__(self) -> str:
        return self.shapes

    def is_right(self, gradient: str) -> bool:
        right = self.right[gradient]
        return right is None or _is(self.got.get(gradient), right)


def diagnose(
    op: str,
    backward: Callable,
    inputs=None,
    *,
    settings: dict | None = None,
    forward: Callable | None = None,
    seed: int = 0,
) -> Diagnosis:
    """Say which classic mistake a wrong backward of a known op contains.

    The gradients that the backward returns are compared with those that each mistake of the catalogue
    (:func:`mistakes`) gives. If one reproduces exactly those numbers, it is named; if none does, general patterns are
    looked for: a constant factor, a transposed or flipped array, an axis that is not summed, an error only at the
    border or in some samples. Otherwise the first wrong element is shown, and nothing is guessed.

    Parameters
    ----------
    op : str
        One of :func:`known_ops`, such as ``"batch_norm"``.
    backward : callable
        ``backward(dy, cache) ->`` the gradients, in the order of the inputs.
    inputs : tuple, optional
        Inputs of the op's forward. By default several sets are drawn that tell the mistakes apart; that is the better
        choice, for one set may hide a mistake (a stride of one, as many input as output channels).
    settings : dict, optional
        Keyword arguments of the forward, with ``inputs``.
    forward : callable, optional
        The forward whose cache the backward expects; by default the one in ``npnets.ops``.
    seed : int

    Returns
    -------
    Diagnosis

    Raises
    ------
    ValueError
        If the op is not known, or backward cannot be called.

    Examples
    --------
    >>> def backward(dy, cache):  # of ReLU6
    ...     return dy * (cache.mask | True)
    >>> print(diagnose("relu6", backward))
    dx: this is the gradient you get when dy is handed on unchanged, as if the activation were not there.
        dx = dy f'(x): the derivative is missing.
    """
    known = known_op(op)
    require_callable(backward, "backward")
    if forward is not None:
        require_callable(forward, "forward")
    rng = generator(seed)
    samples = known.samples(rng)
    drawn = samples if inputs is None else [(inputs, settings or {})]
    tried = [_attempt(known, forward, backward, *one, rng) for one in drawn]
    attempts = [attempt for attempt in tried if isinstance(attempt, Attempt)]
    failures = [finding for finding in tried if isinstance(finding, Finding)]
    wrong = [g for g in known.gradients if not all(attempt.is_right(g) for attempt in attempts)]
    explained = _explained(known, attempts, wrong)
    if inputs is not None and any(len(found) > 1 for found in explained.values()):
        # One set of inputs cannot tell these mistakes apart; the drawn ones can.
        more = [_attempt(known, forward, backward, *sample, rng) for sample in samples]
        narrowed = _explained(known, attempts + [a for a in more if isinstance(a, Attempt)], wrong)
        explained = {g: narrowed[g] or explained[g] for g in wrong}
    findings = [finding for g in wrong for finding in _findings(g, explained[g], attempts, known)]
    written = dict.fromkeys(note for attempt in attempts for note in attempt.written)
    findings += [Finding(*note.split(" ", 1)) for note in written]
    notes = dict.fromkeys(attempt.remark for attempt in attempts if attempt.remark)
    if findings:  # a backward for images that fails on vectors has a more interesting mistake
        notes |= dict.fromkeys(f"Left out: {failure.gradient}: {failure.text}" for failure in failures)
    return Diagnosis(known.name, tuple(findings or failures[:1]), tuple(notes))


def _attempt(known: KnownOp, forward, backward, inputs, settings, rng) -> "Attempt | Finding":
    """Run the backward on one set of inputs; return a finding where it fails."""
    inputs = as_inputs(inputs)
    shapes = _shapes(known, inputs, settings)
    call = frozen(forward or _op_forward(known), settings)
    outcome = run_once(call, backward, inputs, rng, known.arguments)
    if outcome.failed:
        return Finding(outcome.failed, f"with {shapes} it failed: {outcome.error}")

    def output(*arrays):
        return np.asarray(call(*arrays)[0])

    used = forward or _op_forward(known)
    case = make_case(known, used, output, inputs, settings, outcome.y, outcome.dy)
    remark = ""
    if forward is not None:
        expected = _expected_output(known, case)
        if expected is not None and expected.shape != outcome.y.shape:
            both = f"{outcome.y.shape}, but npnets.ops.{known.name}_forward {expected.shape}"
            return Finding("forward", f"with {shapes} it returns the shape {both}")
        if expected is not None and not close(outcome.y, expected):
            remark = (
                f"The forward gives other numbers than npnets.ops.{known.name}_forward, whose gradients are compared "
                "with here: check the forward first, or the settings."
            )
    try:
        right = known.right(case)
    except Exception as error:
        return Finding("forward", f"with {shapes} it does not fit what is known of {known.name} ({error})")
    return Attempt(case, dict(zip(known.gradients, outcome.gradients)), right, outcome.notes, remark, shapes)


def _shapes(known, inputs, settings):
    """Return the inputs and settings in a few words."""
    words = [f"{n} {x.shape}" for n, x in zip(known.arguments, inputs) if isinstance(x, np.ndarray) and x.ndim > 1]
    words += [f"{n}={value}" for n, value in settings.items() if isinstance(value, (bool, int, float, str, tuple))]
    return ", ".join(words)


def _op_forward(known):
    # Imported here, not at the top: ops stands below gradcheck in the reading order.
    from npnets import ops

    return getattr(ops, f"{known.name}_forward")


def _expected_output(known, case):
    """Return what the op of npnets gives, or None if it cannot be called with what there is."""
    arguments = vars(case)
    keywords = {name: arguments[name] for name in known.defaults if name not in known.arguments}
    try:
        inputs = as_inputs([arguments[name] for name in known.arguments])
        return np.asarray(frozen(_op_forward(known), keywords)(*inputs)[0])
    except Exception:
        return None


def _explained(known: KnownOp, attempts, wrong) -> dict[str, list[Mistake]]:
    """Return for each wrong gradient the mistakes that reproduce it in every attempt."""
    found = {gradient: [] for gradient in wrong}
    for mistake in mistakes(known.name) if wrong else ():
        ways = [mistake.wrong(attempt.case) or [{}] for attempt in attempts]
        for gradient in wrong:
            if _reproduces(mistake, ways, attempts, gradient):
                found[gradient].append(mistake)
    return found


def _reproduces(mistake: Mistake, ways, attempts, gradient: str) -> bool:
    """Whether the mistake, made the same way each time, gives exactly the student's numbers in every attempt.

    Where a mistake makes no difference (a stride of one), the student's gradient must be right.
    """
    if any(not_an_array(attempt.got.get(gradient)) for attempt in attempts):
        return False
    for k in range(max(map(len, ways))):
        variants = [way[min(k, len(way) - 1)] for way in ways]
        if all(_is(a.got.get(gradient), v.get(gradient, a.right[gradient])) for a, v in zip(attempts, variants)):
            return True
    if mistake.recognise is None:
        return False
    return all(a.is_right(gradient) or mistake.recognise(a.case, a.got.get(gradient)) for a in attempts)


def _is(got, expected) -> bool:
    return not_an_array(got) is None and expected is not None and close(got, expected, _rtol(got))


def _findings(gradient, explanations, attempts, known) -> list[Finding]:
    """Say what is wrong with one gradient: one mistake, or one for these inputs and another for those."""
    if explanations:
        return [_recognised(gradient, explanations)]
    findings, left = [], [attempt for attempt in attempts if not attempt.is_right(gradient)]
    while left:
        by_attempt = [_explained(known, [attempt], [gradient])[gradient] for attempt in left]
        covers = {m: [m in ms for ms in by_attempt] for ms in by_attempt for m in ms}
        if not covers:
            break
        covered = max(covers.values(), key=sum)
        same = [m for m in covers if covers[m] == covered]
        where = " and with ".join(str(attempt) for attempt, is_covered in zip(left, covered) if is_covered)
        findings.append(_recognised(gradient, same, where))
        left = [attempt for attempt, is_covered in zip(left, covered) if not is_covered]
    if left:
        finding = _unknown(gradient, left[0], known)
        findings.append(replace(finding, text=f"with {left[0]}, {finding.text}") if findings else finding)
    return findings


def _recognised(gradient, explanations, where="") -> Finding:
    text = f"this is the gradient you get when {', or when '.join(m.cause for m in explanations)}"
    return Finding(
        gradient,
        f"with {where}, {text}" if where else text,
        " / ".join(m.hint for m in explanations),
        tuple(m.name for m in explanations),
    )


def _unknown(gradient, attempt, known) -> Finding:
    """Describe a gradient that no mistake of the catalogue gives."""
    got, right = attempt.got.get(gradient), attempt.right[gradient]
    if gradient not in attempt.got:
        count, names = len(attempt.got), ", ".join(known.gradients)
        gradients = "one gradient" if count == 1 else f"{count} gradients"
        return Finding(gradient, f"the backward returned {gradients} where {names} are expected")
    problem = not_an_array(got)
    if problem:
        return Finding(gradient, problem)
    got, numbers = np.asarray(got), sizes(attempt.case)
    return (
        _known_mistake_times_a_factor(gradient, got, right, attempt.case, numbers)
        or _not_linear(gradient, got, attempt)
        or Finding(gradient, describe(got, right, arrays=_others(attempt, gradient), numbers=numbers, rtol=_rtol(got)))
    )


def _known_mistake_times_a_factor(gradient, got, right, case, numbers):
    """Two mistakes at once, one of which is a factor."""
    if proportion(got, right) is not None:
        return None  # described better as a factor alone
    for mistake in mistakes(case.op):
        for variant in mistake.wrong(case):
            if gradient not in variant:
                continue
            factor = proportion(got, np.asarray(variant[gradient]), _rtol(got))
            name = factor and factor_name(factor, numbers)
            if name:
                text = f"this is {name} times the gradient you get when {mistake.cause}"
                return Finding(gradient, text, mistake.hint, (mistake.name,))
    return None


def _not_linear(gradient, got, attempt):
    """A gradient made of the inputs alone does not know of dy."""
    same = [name for name, array in _inputs(attempt.case).items() if close(got, array)]
    return Finding(gradient, f"it is {same[0]}, unchanged, and does not depend on dy") if same else None


def _inputs(case):
    return {
        name: value
        for name, value in vars(case).items()
        if isinstance(value, np.ndarray) and value.dtype.kind == "f" and name not in ("y", "dy")
    }


def _others(attempt, gradient):
    """Arrays that a gradient may have been mixed up with."""
    others = {f"what {name} should be": g for name, g in attempt.right.items() if g is not None and name != gradient}
    return {"dy": attempt.case.dy, "y": attempt.case.y, **_inputs(attempt.case), **others}


def sizes(case: Case) -> dict[str, int]:
    """Return the sizes that a forgotten factor may be, by name."""
    first = case.logits if hasattr(case, "logits") else case.x
    numbers = {"N": len(first)}
    if first.ndim == 4:
        N, H, W, C = first.shape
        numbers |= {"H W": H * W, "N H W": N * H * W, "C_in": C, "H": H, "W": W}
    else:
        numbers["K" if hasattr(case, "logits") else "C_in"] = first.shape[-1]
    if case.y.ndim == 4 and case.y.shape != first.shape:
        numbers |= {"H_out W_out": case.y.shape[1] * case.y.shape[2], "C_out": case.y.shape[3]}
    if hasattr(case, "w") and case.w.ndim > 2:
        numbers["K_h K_w"] = case.w.shape[0] * case.w.shape[1]
    return numbers


def _rtol(got):
    """Single precision cannot agree as closely."""
    return SAME_NUMBERS if np.asarray(got).dtype == np.float64 else 1e-5
