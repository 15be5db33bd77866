"""What a training run remembers: how activations, weights and gradients are distributed, step after step.

Figure 1(b, c) of the batch normalization paper (section 4.1) shows the {15, 50, 85}th percentiles of one typical input
to the last sigmoid while the network trains. The same, for a network with a layer named ``hidden.2.bn``::

    probes = Probes(model, ["hidden.2.bn", "hidden.2.linear.w.grad"], every=100, unit=0)
    for step in range(steps):
        with probes.at(step):
            ...                                              # forward, loss, backward, optimizer.step()
    plt.plot(probes.steps, probes["hidden.2.bn"].quantiles)  # (T, 3)

``training.fit`` takes the object as a callback. A probe only looks: the weights are the same bits with it and without.
At a step that was not chosen it costs nothing, at a chosen one about as much as partly sorting what it looks at, so
with ``every=100`` it can stay switched on.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from functools import partial
from typing import NamedTuple

import numpy as np

from npnets.shapes import integer


class Series(NamedTuple):
    """What was recorded under one name. T steps, Q quantile levels, B bins; U units, only where ``unit="each"``."""

    mean: np.ndarray  # (T,) or (T, U)
    variance: np.ndarray  # (T,) or (T, U); divided by the number of values, as in batch norm
    norm: np.ndarray  # (T,) or (T, U); the root of the sum of squares
    quantiles: np.ndarray  # (T, Q) or (T, Q, U)
    histograms: np.ndarray  # (T, B) or (T, B, U) counts; B = 0 without bins
    edges: np.ndarray  # (B + 1,) the borders of the bins; (0,) without bins


class Recording:
    """The results of a probe, without the model: what a notebook reads back with :meth:`from_json`.

    Attributes
    ----------
    names
        What was recorded; ``recording[name]`` is its :class:`Series`.
    levels : (Q,)
        The quantile levels, from 0 to 1.
    edges : (B + 1,)
        The borders of the histograms' bins; (0,) if there are none.
    steps : (T,)
        The steps that were recorded.
    """

    def __init__(self, names: Iterable[str], *, quantiles: Sequence[float], bins=None, unit: int | str | None = None):
        self.names = [names] if isinstance(names, str) else list(names)
        if not self.names or len(set(self.names)) < len(self.names):
            raise ValueError(f"names must hold at least one name, and none twice, got {self.names}")
        self.levels = np.array(quantiles, dtype=np.float64)
        if self.levels.ndim != 1 or not np.all((self.levels >= 0) & (self.levels <= 1)):
            raise ValueError(f"quantiles must be a sequence of levels from 0 to 1, got {quantiles!r}")
        self.bins = _checked_bins(bins)
        self.edges = np.empty(0) if self.bins is None else np.linspace(*self.bins[:2], self.bins[2] + 1)
        self.unit = unit if unit is None or unit == "each" else integer(unit, 'unit (an index, "each" or None)', 0)
        self._rows: list[tuple[int, dict]] = []  # (step, {name: {field: array}}); a row is complete or not there

    @property
    def steps(self) -> np.ndarray:
        return np.array([step for step, _ in self._rows], dtype=np.int64)

    def __getitem__(self, name: str) -> Series:
        if name not in self.names:
            raise ValueError(_unknown([name], self.names))
        return Series(**{field: self._stacked(name, field) for field in self._shapes()}, edges=self.edges)

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """Return each field's shape at one step, leaving out the units."""
        n_bins = max(len(self.edges) - 1, 0)
        return {"mean": (), "variance": (), "norm": (), "quantiles": self.levels.shape, "histograms": (n_bins,)}

    def _stacked(self, name: str, field: str) -> np.ndarray:
        """Return one field of one name over time."""
        if self._rows:
            return np.array([row[name][field] for _, row in self._rows])
        units = (0,) if self.unit == "each" else ()
        return np.empty((0, *self._shapes()[field], *units), np.int64 if field == "histograms" else np.float64)

    def _settings(self) -> str:
        return f"quantiles={self.levels.tolist()}, bins={self.bins}, unit={self.unit!r}"

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return all that was recorded, as ``<field>.<name>``, with the ``steps`` and the ``settings`` (a text)."""
        state = {"settings": np.array(self._settings()), "steps": self.steps}
        for name in self.names:
            state |= {f"{field}.{name}": self._stacked(name, field) for field in self._shapes()}
        return state

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """Continue from the state of :meth:`state_dict`: what was recorded before is replaced.

        Raises
        ------
        ValueError
            With every missing, unexpected and mis-shaped name, and both settings if they differ. Nothing has been
            changed then.
        """
        state = {name: np.asarray(state[name]) for name in state}
        problems = self._misfits(state)
        if problems:
            raise ValueError(f"the recorded state does not fit this probe: {'; '.join(problems)}")
        self._rows = [
            (int(step), {n: {field: state[f"{field}.{n}"][t].copy() for field in self._shapes()} for n in self.names})
            for t, step in enumerate(state["steps"])
        ]

    def _misfits(self, state: dict[str, np.ndarray]) -> list[str]:
        """Return a line for everything in ``state`` that this recording cannot take."""
        fields = {f"{field}.{name}": shape for name in self.names for field, shape in self._shapes().items()}
        expected = ["settings", "steps", *fields]
        problems = [f"missing {key}" for key in expected if key not in state]
        problems += [f"unexpected {key}" for key in state if key not in expected]
        if str(state.get("settings", self._settings())) != self._settings():
            problems.append(f"recorded with {state['settings']}, not with {self._settings()}")
        each = self.unit == "each"
        n_steps = state["steps"].size if "steps" in state else 0
        for key, shape in fields.items():
            want, got = (n_steps, *shape), state[key].shape if key in state else None
            if got is not None and (got[: len(want)] != want or len(got) != len(want) + each):
                problems.append(f"{key} has shape {got}, not {want}{' and the units' * each}")
        return problems

    def to_json(self) -> dict:
        """Return everything as a dict of lists and numbers. A value that is not finite becomes ``None``."""
        return {
            "steps": self.steps.tolist(),
            "quantiles": self.levels.tolist(),
            "bins": None if self.bins is None else list(self.bins),
            "unit": self.unit,
            "series": {
                name: {field: _plain(self._stacked(name, field)) for field in self._shapes()} for name in self.names
            },
        }

    @staticmethod
    def from_json(data: Mapping) -> "Recording":
        """Return the recording that :meth:`to_json` wrote; what was not finite is NaN.

        Raises
        ------
        ValueError
            If ``data`` is not such a dict.
        """
        try:
            recording = Recording(data["series"], quantiles=data["quantiles"], bins=data["bins"], unit=data["unit"])
            steps = np.array(data["steps"], np.int64)
            state = {"settings": np.array(recording._settings()), "steps": steps}
            for name, fields in data["series"].items():
                units = (np.shape(fields["mean"])[1:] or (0,)) if recording.unit == "each" else ()
                for field, shape in recording._shapes().items():
                    array = np.array(fields[field], np.int64 if field == "histograms" else np.float64)
                    # Nested lists of nothing have lost their shape.
                    state[f"{field}.{name}"] = array.reshape(steps.size, *shape, *units)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"this is not the JSON of a recording: {type(error).__name__}: {error}") from None
        recording.load_state_dict(state)
        return recording


class Probes(Recording):
    """Record the distribution of named activations, weights and gradients at chosen steps.

    Parameters
    ----------
    model
        A ``Module``: its ``named_modules()`` and ``parameters()`` are what can be named.
    names
        Any of: a module's path, for its output (``"blocks.3.depthwise_bn"``); a parameter's name, for its value after
        the step (``"blocks.3.depthwise.w"``); a parameter's name and ``.grad``, for its gradient in the step.
    every, steps
        Which steps to record, exactly one of them: every so many, from step 0 on, or these.
    quantiles : Q levels from 0 to 1
        Interpolated linearly; () for none. Figure 1 of the paper has 0.15, 0.50, 0.85.
    bins : (lo, hi, n) or None
        Histograms of n equal bins. What lies outside is not counted: a histogram's sum tells how much lay inside.
    unit
        None: all values of a name together. An index: only that one of the last axis (a neuron, a channel), over the
        batch and, in an image, all its pixels: the paper's "one typical activation". ``"each"``: every index of the
        last axis by itself, as a further axis of the results.
    images : (N, H, W, C) or None
        Look at the activations of these images, in inference mode after the step, and not at those of the training
        batch in training mode. It takes a forward pass for each recorded step.

    Raises
    ------
    ValueError
        For a name the model does not have (with the closest ones it has), and for settings out of range.

    Notes
    -----
    The paper follows one input to the sigmoid in N (its output of the linear layer) and in N_BN^tr (its output of batch
    norm in training mode); it does not say over which examples the percentiles are taken. Here they are those of the
    step's mini-batch unless ``images`` is given.
    """

    def __init__(
        self,
        model,
        names: Iterable[str],
        *,
        every: int | None = None,
        steps: Iterable[int] | None = None,
        quantiles: Sequence[float] = (0.15, 0.50, 0.85),
        bins: tuple[float, float, int] | None = None,
        unit: int | str | None = None,
        images: np.ndarray | None = None,
    ):
        super().__init__(names, quantiles=quantiles, bins=bins, unit=unit)
        if (every is None) == (steps is None):
            raise ValueError("give either every=N or steps=[...], to say which steps to record")
        self._every = None if every is None else integer(every, "every", 1)
        self._chosen = None if steps is None else {integer(step, "steps", 0) for step in steps}
        self.model, self.images = model, images

        modules, parameters = dict(model.named_modules()), {p.name: p for p in model.parameters()}
        self._modules = {name: modules[name] for name in self.names if name in modules}
        self._arrays = {name: (parameters[name], "value") for name in self.names if name in parameters}
        for name in self.names:
            if name.endswith(".grad") and name.removesuffix(".grad") in parameters:
                self._arrays[name] = parameters[name.removesuffix(".grad")], "grad"
        unknown = [name for name in self.names if name not in self._modules and name not in self._arrays]
        if unknown:
            raise ValueError(_unknown(unknown, [*modules, *parameters, *(f"{name}.grad" for name in parameters)]))
        self._attached: list[tuple] = []
        self._seen: dict[str, dict[str, np.ndarray]] = {}

    def chosen(self, step: int) -> bool:
        """Return whether ``step`` is one to record."""
        return step % self._every == 0 if self._chosen is None else step in self._chosen

    @contextmanager
    def at(self, step: int):
        """Record the training step that is made inside the ``with`` block, if it is a chosen one."""
        self.before_step(step)
        try:
            yield
            self.after_step(step)
        finally:
            self.detach()

    def before_step(self, step: int) -> None:
        """Start to watch the modules, if ``step`` is a chosen one. If they run more than once, the last run counts."""
        self.detach()
        self._seen = {}
        if self.chosen(step) and self.images is None:
            self._attach()

    def after_step(self, step: int) -> None:
        """Record what was seen since :meth:`before_step`, and the weights as they are now.

        Raises
        ------
        ValueError
            If a module has not been run, or a parameter has no gradient.
        """
        if not self.chosen(step):
            return
        if self.images is not None:
            self._attach()
            try:
                self.model(self.images, training=False)
            finally:
                self.detach()
        self.detach()
        for name, (parameter, attribute) in self._arrays.items():
            values = getattr(parameter, attribute)
            if values is not None:
                self._see(name, values)
        unseen = [name for name in self.names if name not in self._seen]
        if unseen:
            raise ValueError(
                f"step {step}: nothing was seen of {', '.join(map(repr, unseen))}; "
                "call before_step, then the model and its backward, then after_step"
            )
        self._rows.append((int(step), self._seen))
        self._seen = {}

    def detach(self) -> None:
        """Take the probe off the model, as after a step that was broken off."""
        for module, observer in self._attached:
            module.observers.remove(observer)
        self._attached = []

    def _attach(self) -> None:
        for name, module in self._modules.items():
            observer = partial(self._see, name)
            module.observers.append(observer)
            self._attached.append((module, observer))

    def _see(self, name: str, values: np.ndarray) -> None:
        """Keep the summary of ``values``, not the array: it may be large, and is not ours."""
        columns = _columns(values, self.unit, name)
        summary = _summarize(columns, self.levels, self.bins)
        if self.unit != "each":
            summary = {field: array[..., 0] for field, array in summary.items()}
        self._seen[name] = summary


def _columns(values: np.ndarray, unit: int | str | None, name: str) -> np.ndarray:
    """Return the values to summarize as (values, units): one column, or with ``"each"`` one for each index."""
    if unit is None:
        return values.reshape(-1, 1)
    units = values.shape[-1] if values.ndim else 1
    columns = values.reshape(-1, units)
    if unit == "each":
        return columns
    if unit >= units:
        raise ValueError(f"{name}: there is no unit {unit}, its last axis has {units} (0 to {units - 1})")
    return columns[:, unit : unit + 1]


def _summarize(columns: np.ndarray, levels: np.ndarray, bins) -> dict[str, np.ndarray]:
    """Return mean, variance, norm (U,), quantiles (Q, U) and histograms (B, U) of ``columns`` (M, U).

    In float64 whatever the dtype. A run that diverges must still be recorded, so infinities and NaN pass silently.
    """
    with np.errstate(all="ignore"):
        mean = columns.mean(axis=0, dtype=np.float64)
        variance = columns.var(axis=0, dtype=np.float64)
        return {
            "mean": mean,
            "variance": variance,
            "norm": np.sqrt(len(columns) * (variance + mean**2)),
            "quantiles": np.quantile(columns, levels, axis=0).astype(np.float64),
            "histograms": _histograms(columns, bins),
        }


def _histograms(columns: np.ndarray, bins) -> np.ndarray:
    """Return the counts (B, U) of each column of ``columns`` (M, U)."""
    if bins is None:
        return np.empty((0, columns.shape[1]), dtype=np.int64)
    lo, hi, n = bins
    counts = [np.histogram(column, bins=n, range=(lo, hi))[0] for column in columns.T]
    return np.stack(counts, axis=-1).astype(np.int64)


def _checked_bins(bins) -> tuple[float, float, int] | None:
    """Return ``bins`` as (lo, hi, n), or raise ``ValueError``."""
    if bins is None:
        return None
    try:
        lo, hi, n = bins
        lo, hi = float(lo), float(hi)
    except (TypeError, ValueError):
        raise ValueError(f"bins must be None or (lo, hi, n), got {bins!r}") from None
    if not -np.inf < lo < hi < np.inf:
        raise ValueError(f"bins must go from a lower to a higher finite number, got {bins!r}")
    return lo, hi, integer(n, "the number of bins", 1)


def _unknown(names: list[str], known: Iterable[str]) -> str:
    """Return a message that names what is unknown, and what may have been meant."""
    hints = []
    for name in names:
        close = get_close_matches(name, list(known), n=3)
        hints.append(f"{name!r}" + (f" (did you mean {' or '.join(map(repr, close))}?)" if close else ""))
    return f"there is nothing named {', '.join(hints)}"


def _plain(array: np.ndarray) -> list:
    """Return nested lists of Python numbers, with ``None`` where a value is not finite (JSON has no NaN)."""
    return np.where(np.isfinite(array), array, None).tolist()
