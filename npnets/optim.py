"""How the weights move: optimizers, stale gradients, learning-rate schedules, and averages of the weights.

An optimizer takes the gradients that ``backward`` left in each parameter and changes the weights in place. It knows a
parameter only by four attributes: ``name``, ``value``, ``grad``, and ``decay`` (whether weight decay applies to it). A
schedule is a function of the step, and the training loop joins the two::

    schedule = exponential(0.045, decay_rate=0.98, steps_per_decay=steps_per_epoch)
    optimizer = RMSProp(model.parameters(), schedule(0), weight_decay=4e-5)
    for step in range(steps):
        ...                                       # forward, loss, backward
        optimizer.learning_rate = schedule(step)
        optimizer.step()

These are the settings of MobileNetV2 (section 6.1): RMSProp with decay and momentum 0.9, weight decay 0.00004, and a
learning rate of 0.045 that is multiplied by 0.98 after each epoch.
"""

import math
import numbers
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import contextmanager
from typing import ClassVar

import numpy as np

from npnets.parallel import cut, run
from npnets.shapes import integer


class Optimizer:
    """What all optimizers share: the parameters, their state in flat arrays, saving and loading.

    A subclass names its state arrays in ``slots`` (with the value they start from) and writes the mathematics of one
    step in ``update``. The state of all parameters lies in one flat array for each slot, so that a step is a few passes
    over long arrays, not many over short ones.
    """

    slots: ClassVar[dict[str, float]] = {}
    settings: ClassVar[tuple[str, ...]] = ("weight_decay",)

    def __init__(self, parameters: Iterable, learning_rate: float, *, weight_decay: float = 0.0):
        self.parameters = list(parameters)
        self.learning_rate = learning_rate
        self.weight_decay = _real(weight_decay, "weight_decay")
        self.steps = 0
        self.names = [p.name for p in self.parameters]  # kept: asked from another module, parameters change their names
        values = _by_name(self.names, [p.value for p in self.parameters], type(self).__name__)
        dtypes = sorted({str(value.dtype) for value in values.values()})
        if len(dtypes) > 1 or np.dtype(dtypes[0]).kind != "f":
            raise ValueError(
                f"{type(self).__name__}: the parameters must all be of one floating type, got {', '.join(dtypes)}; "
                "build the model with one dtype"
            )
        self._g, g_of = _flat_like(values, 0.0)
        self._gradients = list(g_of.values())
        self._slots, self._views = {}, {}
        for slot, start in self.slots.items():
            self._slots[slot], views = _flat_like(values, start)
            self._views.update({f"{slot}.{name}": view for name, view in views.items()})

    def __repr__(self) -> str:
        """Tell the settings that stay the same during a training."""
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in self.settings)})"

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step; set it from a schedule."""
        return self._learning_rate

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        self._learning_rate = _real(value, "learning_rate")

    def step(self) -> None:
        """Change every weight in place by one step along its gradient; gradients are not written to.

        Raises
        ------
        ValueError
            If a parameter has no gradient, or one of another shape. Nothing has been changed then.
        """
        self._gather()
        self._apply()

    def _apply(self) -> None:
        """Change every weight by what becomes of the gathered gradients."""

        def work(part: slice) -> None:
            self.update(self._g[part], *(slot[part] for slot in self._slots.values()))

        run(work, cut(self._g.size, bytes_each=self._g.itemsize * (len(self._slots) + 2)))
        for p, change in zip(self.parameters, self._gradients):
            np.subtract(p.value, change, out=p.value)
        self.steps += 1

    def update(self, g: np.ndarray, *slots: np.ndarray) -> None:
        """Replace the gradients ``g`` by what is to be subtracted from the weights; update ``slots`` in place."""
        raise NotImplementedError

    def _gather(self) -> None:
        """Copy all gradients into the flat array, with the gradient of 1/2 wd |w|^2, which is wd w, added."""
        without = [name for name, p in zip(self.names, self.parameters) if p.grad is None]
        if without:
            raise ValueError(
                f"no gradient for {', '.join(without)}: call the model's backward before step(), "
                "or leave these parameters out of the optimizer"
            )
        for name, p, g in zip(self.names, self.parameters, self._gradients):
            if p.grad.shape != g.shape:
                raise ValueError(f"{name}: the gradient has shape {p.grad.shape}, the weights {p.value.shape}")
        for p, g in zip(self.parameters, self._gradients):
            g[...] = p.grad
            if self.weight_decay and p.decay:
                g += self.weight_decay * p.value

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return copies of all that a later step depends on, by name.

        ``steps`` (how many were made), ``learning_rate``, and for each slot and parameter an array of the parameter's
        shape, such as ``momentum.blocks.3.depthwise.w``. The other settings are not state: give them again.
        """
        counts = {"steps": np.array(self.steps, np.int64), "learning_rate": np.array(self.learning_rate)}
        return counts | {name: view.copy() for name, view in self._views.items()}

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """Continue from the state of :meth:`state_dict`, bit for bit.

        Raises
        ------
        ValueError
            With every missing, unexpected and mis-shaped name. Nothing has been changed then.
        """
        state = _fitting_state(state, self.state_dict(), type(self).__name__)
        steps = integer(int(state["steps"]), "steps", 0)
        self.learning_rate = float(state["learning_rate"])
        self.steps = steps
        for name, view in self._views.items():
            view[...] = state[name]


class RMSProp(Optimizer):
    """TensorFlow's RMSProp with momentum, the optimizer of both MobileNets and of EfficientNet.

    The gradient is divided by the root of its mean square ``ms`` (Tieleman and Hinton, 2012, lecture 6.5)::

        ms  <- decay * ms + (1 - decay) * g^2
        mom <- momentum * mom + learning_rate * g / sqrt(ms + eps)
        w   <- w - mom

    How it differs from what the reader may know (PyTorch's RMSprop, or the lecture):

    1. The mean square starts at one, not at zero. The first steps are small: with g = 0.01 and eps = 1e-3 the first is
       0.0105 learning rates; from zero, and with eps outside the root, it would be 2.40.
    2. eps stands inside the square root: sqrt(ms + eps), not sqrt(ms) + eps. The same number does far more there:
       eps = 1e-3 inside bounds the divisor from below by 0.03.
    3. The learning rate is multiplied into the momentum buffer. When it falls, steps already in the buffer keep their
       size; with the learning rate outside, they would shrink with it.
    4. It is not centred: the square of the mean gradient is not subtracted from ms.
    5. The momentum is the plain one, not Nesterov's.
    6. Weight decay is part of the gradient g, so it is divided by sqrt(ms + eps) too (AdamW's is not).

    MobileNetV2 (section 6.1) and EfficientNet (section 5.2) give decay = momentum = 0.9. No paper gives eps;
    EfficientNet's published code has 1e-3, TensorFlow's default is 1e-10, and TF-Slim's training script has 1.0.

    Parameters
    ----------
    parameters
        Objects with ``name``, ``value`` (written in place), ``grad`` and ``decay``; all of one floating type.
    learning_rate
        Of the next step; finite, 0 or more.
    decay
        Weight of the old mean square, in [0, 1).
    momentum
        Weight of the old buffer, in [0, 1).
    eps
        Above 0. A weight whose gradient stays zero would otherwise divide 0 by 0 in the end.
    weight_decay
        wd of the penalty 1/2 wd |w|^2, on the parameters whose ``decay`` is true.

    Raises
    ------
    ValueError
        For a setting out of its range, no parameters, two of one name, or mixed dtypes.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> w = SimpleNamespace(name="w", value=np.array([1.0]), grad=np.array([0.01]), decay=True)
    >>> RMSProp([w], learning_rate=1.0).step()
    >>> print((1.0 - w.value).round(4))
    [0.0105]
    """

    slots: ClassVar[dict[str, float]] = {"mean_square": 1.0, "momentum": 0.0}
    settings: ClassVar[tuple[str, ...]] = ("decay", "momentum", "eps", "weight_decay")

    def __init__(self, parameters, learning_rate, *, decay=0.9, momentum=0.9, eps=1e-3, weight_decay=0.0):
        self.decay = _real(decay, "decay", below=1.0)
        self.momentum = _real(momentum, "momentum", below=1.0)
        self.eps = _real(eps, "eps")
        if self.eps == 0.0:
            raise ValueError("eps must be above 0: it keeps the division finite where gradients stay zero")
        super().__init__(parameters, learning_rate, weight_decay=weight_decay)

    def update(self, g: np.ndarray, ms: np.ndarray, mom: np.ndarray) -> None:
        """One step on a part of the flat arrays, all of shape (n,). One temporary, which serves twice."""
        scratch = g * g
        scratch *= 1.0 - self.decay
        ms *= self.decay
        ms += scratch
        np.add(ms, self.eps, out=scratch)
        np.sqrt(scratch, out=scratch)
        g *= self.learning_rate
        g /= scratch
        mom *= self.momentum
        mom += g
        g[...] = mom


class SGD(Optimizer):
    """Stochastic gradient descent with momentum, plain or Nesterov's.

    The buffer ``v`` sums gradients, and the learning rate is applied to it from outside (the convention of PyTorch and
    of TensorFlow's MomentumOptimizer; :class:`RMSProp` has the learning rate inside)::

        v <- momentum * v + g
        w <- w - learning_rate * v                       plain
        w <- w - learning_rate * (g + momentum * v)      Nesterov

    So with a constant gradient the steps grow to learning_rate / (1 - momentum) times it. Nesterov's is the form of
    Sutskever et al. (2013), written for the weights at the point looked ahead to.

    Parameters
    ----------
    parameters, learning_rate, weight_decay
        As for :class:`RMSProp`.
    momentum
        Weight of the old buffer, in [0, 1).
    nesterov
        Whether the step looks ahead; needs a momentum above 0.

    Raises
    ------
    ValueError
        For a setting out of its range, no parameters, two of one name, or mixed dtypes.
    """

    slots: ClassVar[dict[str, float]] = {"momentum": 0.0}
    settings: ClassVar[tuple[str, ...]] = ("momentum", "nesterov", "weight_decay")

    def __init__(self, parameters, learning_rate, *, momentum=0.0, nesterov=False, weight_decay=0.0):
        self.momentum = _real(momentum, "momentum", below=1.0)
        self.nesterov = bool(nesterov)
        if self.nesterov and self.momentum == 0.0:
            raise ValueError("nesterov=True needs a momentum above 0, for example momentum=0.9")
        super().__init__(parameters, learning_rate, weight_decay=weight_decay)

    def update(self, g: np.ndarray, v: np.ndarray) -> None:
        """One step on a part of the flat arrays, both of shape (n,)."""
        v *= self.momentum
        v += g
        if self.nesterov:
            g += self.momentum * v
        else:
            g[...] = v
        g *= self.learning_rate


class Stale:
    """Asynchronous gradient descent with ``workers`` machines and one server, simulated on one machine.

    Each worker fetches the weights from the server, computes a gradient on its own batch, and sends it; the server's
    optimizer applies it at once, and does not wait for the others (Dean et al. 2012, "Large scale distributed deep
    networks"; MobileNetV1, section 3.2; 16 workers in MobileNetV2, section 6.1). Meanwhile the others have changed the
    weights. Here they take turns, so with n workers each gradient is n - 1 updates old when it arrives::

        g_t     = gradient of the loss of batch t at w_s,    s = max(t - (n - 1), 0)
        w_{t+1} = w_t - step of the optimizer with g_t

    All workers start from w_0. What the optimizer keeps, its mean squares and its momentum, is the server's and never
    old. The penalty of weight decay is a part of the loss, so its gradient is as old as the rest.

    It is used like the optimizer inside, with one call more: :meth:`fetch` before the forward pass::

        optimizer = Stale(RMSProp(model.parameters(), 0.045), workers=16)
        for step in range(steps):
            optimizer.fetch()      # the model has the weights of the worker whose turn it is
            ...                    # forward, loss, backward
            optimizer.step()       # the model has the server's weights again, one update newer

    Between ``step`` and ``fetch`` the model has the server's weights: to evaluate and to save there is nothing to do.
    In training mode batch norm normalizes with the worker's own batch, so that no worker needs the others' statistics.
    The running averages for inference are the server's, as in TensorFlow: the workers send it their batches' means and
    variances, and these are as old as the gradients. So the model is evaluated with the newest weights and with
    statistics of weights that were n - 1 updates older, which matters less the smaller the learning rate has become.

    *Differs* from real machines: their delays vary, and they may read weights that are half updated.

    Parameters
    ----------
    optimizer : RMSProp or SGD
        The server's.
    workers : int
        n, at least 1; with one it is the optimizer itself, bit for bit.

    Raises
    ------
    ValueError
        If there is no worker.
    """

    def __init__(self, optimizer: Optimizer, workers: int):
        self.optimizer, self.workers = optimizer, integer(workers, "workers", 1)
        now = self._weights()
        self._past = np.tile(now, (self.workers, 1))  # (n, W): from n - 1 updates ago to now; before the first, w_0
        self._fetched = False

    def __repr__(self) -> str:
        """Tell the settings that stay the same during a training."""
        return f"Stale({self.optimizer!r}, workers={self.workers})"

    @property
    def learning_rate(self) -> float:
        """The learning rate of the server's next step."""
        return self.optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        self.optimizer.learning_rate = value

    def fetch(self) -> None:
        """Put the weights into the model that the worker fetched whose gradient comes next."""
        self._put(self._past[0])
        self._fetched = True

    def step(self) -> None:
        """Let the server make a step with the worker's gradients, and put its weights into the model.

        Raises
        ------
        ValueError
            If the weights were not fetched, or as ``Optimizer.step``. Nothing has been changed then.
        """
        if not self._fetched:
            raise ValueError("call fetch() before the forward pass: the gradient would not be that of a worker")
        self.optimizer._gather()  # before the weights change: the gradient of the penalty is the worker's, too
        self._put(self._past[-1])
        self.optimizer._apply()
        self._past[:-1] = self._past[1:]
        self._past[-1] = self._weights()
        self._fetched = False

    def lag(self) -> float:
        """Return ``|w_t - w_s| / |w_t|``: how far the next worker's weights are from the server's."""
        now = self._past[-1].astype(np.float64)
        return float(np.linalg.norm(now - self._past[0]) / np.linalg.norm(now))

    def norm(self) -> float:
        """Return ``|w_t|``, the length of the server's weights."""
        return float(np.linalg.norm(self._past[-1].astype(np.float64)))

    def _weights(self) -> np.ndarray:
        return np.concatenate([p.value.ravel() for p in self.optimizer.parameters])  # (W,)

    def _put(self, weights: np.ndarray) -> None:
        sizes = [p.value.size for p in self.optimizer.parameters]
        for p, part in zip(self.optimizer.parameters, np.split(weights, np.cumsum(sizes)[:-1])):
            p.value[...] = part.reshape(p.value.shape)

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return copies: the state of the optimizer inside, and ``past``, the weights (n, W) of the last n updates."""
        return self.optimizer.state_dict() | {"past": self._past.copy()}

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """Continue from the state of :meth:`state_dict`, bit for bit.

        Raises
        ------
        ValueError
            With every missing, unexpected and mis-shaped name. Nothing has been changed then.
        """
        state = _fitting_state(state, self.state_dict(), "Stale")
        past = state.pop("past")
        self.optimizer.load_state_dict(state)
        self._past[...] = past
        self._fetched = False


class Schedule:
    """A learning rate as a function of the step, which counts from 0; printed as the call that made it."""

    def __init__(self, text: str, formula: Callable[[int], float]):
        self.text, self.formula = text, formula

    def __call__(self, step: int) -> float:
        return self.formula(integer(step, "step", 0))

    def __repr__(self) -> str:
        return self.text


def constant(initial: float) -> Schedule:
    """Return the schedule that is ``initial`` at every step.

    >>> constant(0.1)(1000)
    0.1
    """
    initial = _real(initial, "initial")
    return Schedule(f"constant({initial})", lambda step: initial)


def exponential(
    initial: float, *, decay_rate: float = 0.98, steps_per_decay: float, staircase: bool = True
) -> Schedule:
    """Return ``initial * decay_rate ** (step / steps_per_decay)``.

    With ``staircase`` the exponent is rounded down: the rate stays for ``steps_per_decay`` steps, then falls at once.
    MobileNetV2 (section 6.1): 0.045, times 0.98 an epoch, "following MobileNetV1". EfficientNet (section 5.2): 0.256,
    times 0.97 every 2.4 epochs; ``steps_per_decay`` need not be whole. A ``decay_rate`` above 1 makes the rate grow, as
    a learning-rate range test wants it.

    Raises
    ------
    ValueError
        If ``decay_rate`` or ``steps_per_decay`` is not above 0.

    Examples
    --------
    >>> schedule = exponential(0.045, decay_rate=0.98, steps_per_decay=100)
    >>> [round(schedule(step), 6) for step in (0, 99, 100, 250)]
    [0.045, 0.045, 0.0441, 0.043218]
    """
    initial = _real(initial, "initial")
    decay_rate = _real(decay_rate, "decay_rate")
    steps_per_decay = _real(steps_per_decay, "steps_per_decay")
    if min(decay_rate, steps_per_decay) == 0.0:
        raise ValueError(f"decay_rate and steps_per_decay must be above 0, got {decay_rate} and {steps_per_decay}")

    def formula(step: int) -> float:
        decays = step // steps_per_decay if staircase else step / steps_per_decay
        return initial * decay_rate**decays

    settings = f"decay_rate={decay_rate}, steps_per_decay={steps_per_decay}, staircase={bool(staircase)}"
    return Schedule(f"exponential({initial}, {settings})", formula)


def cosine(initial: float, total_steps: int, final: float = 0.0) -> Schedule:
    """Return half a cosine from ``initial`` at step 0 down to ``final`` at ``total_steps``, and ``final`` after it.

    ``final + 1/2 (initial - final) (1 + cos(pi * step / total_steps))``: equation 5 of Loshchilov and Hutter, "SGDR"
    (2017), with one period and no restart.

    >>> schedule = cosine(0.1, total_steps=100)
    >>> [round(schedule(step), 6) for step in (0, 50, 100, 200)]
    [0.1, 0.05, 0.0, 0.0]
    """
    initial, final = _real(initial, "initial"), _real(final, "final")
    total_steps = integer(total_steps, "total_steps", 1)

    def formula(step: int) -> float:
        done = min(step, total_steps) / total_steps
        return final + 0.5 * (initial - final) * (1.0 + math.cos(math.pi * done))

    return Schedule(f"cosine({initial}, total_steps={total_steps}, final={final})", formula)


def warmup(schedule: Callable[[int], float], steps: int) -> Schedule:
    """Return ``schedule(step) * min(1, (step + 1) / steps)``: a linear rise to ``schedule`` (Goyal et al., 2017).

    The rise starts from ``1 / steps`` of the rate, so that no step is made with a rate of zero, and reaches the whole
    rate at step ``steps - 1``. ``schedule`` is not delayed: its own steps go on counting meanwhile. ``steps=0`` leaves
    it as it is.

    >>> schedule = warmup(constant(0.1), steps=4)
    >>> [schedule(step) for step in (0, 1, 3, 4)]
    [0.025, 0.05, 0.1, 0.1]
    """
    steps = integer(steps, "steps", 0)

    def formula(step: int) -> float:
        return (step + 1) / steps * schedule(step) if step < steps else schedule(step)

    return Schedule(f"warmup({schedule!r}, steps={steps})", formula)


class ExponentialMovingAverage:
    """An average of the weights over the last steps, to evaluate with (TensorFlow's ExponentialMovingAverage).

    After each optimizer step, ``update()`` moves the averages towards the weights::

        average <- average - (1 - d) * (average - w),    d = min(decay, (1 + n) / (10 + n))

    ``n`` is the number of updates made before this one; it lets the average forget the initial weights quickly: d is
    0.1 at first and reaches 0.999 after 8,990 updates. The averages start as copies of the weights.

    The running statistics of batch norm are not parameters. Left alone, they stay those of the latest weights, and the
    averaged weights are evaluated with statistics that are not quite theirs. Give them as ``extra``, and they are
    averaged, swapped in and restored like weights; EfficientNet's published code does so.

    Parameters
    ----------
    parameters
        Objects with ``name`` and ``value``.
    decay
        Weight of the old average, in [0, 1).
    num_updates
        Whether d starts small as above; else it is ``decay`` from the first update.
    extra
        More arrays to average, by name. They must be the arrays that the model itself uses and writes to, not copies:
        ``{f"{path}.{name}": getattr(m, name) for path, m in model.named_modules() for name in m.running}``.

    Raises
    ------
    ValueError
        For a decay out of its range, no parameters, or two arrays of one name.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> w = SimpleNamespace(name="w", value=np.array([0.0]))
    >>> ema = ExponentialMovingAverage([w])
    >>> w.value[...] = 1.0
    >>> ema.update()
    >>> with ema.applied():
    ...     print(w.value)
    [0.9]
    >>> print(w.value)
    [1.]
    """

    def __init__(
        self,
        parameters: Iterable,
        decay: float = 0.999,
        *,
        num_updates: bool = True,
        extra: Mapping[str, np.ndarray] | None = None,
    ):
        self.parameters, self.extra = list(parameters), dict(extra or {})
        self.decay = _real(decay, "decay", below=1.0)
        self.num_updates = bool(num_updates)
        self.updates = 0
        self.names = [p.name for p in self.parameters] + list(self.extra)
        arrays = _by_name(self.names, self._arrays(), "ExponentialMovingAverage")
        self.averages = {name: array.copy() for name, array in arrays.items()}

    def _arrays(self) -> list[np.ndarray]:
        """Return the arrays in use; asked for anew each time, since a parameter may have got a new array."""
        return [p.value for p in self.parameters] + list(self.extra.values())

    def update(self) -> None:
        """Move every average towards its weight; call it once after each optimizer step."""
        d = min(self.decay, (1 + self.updates) / (10 + self.updates)) if self.num_updates else self.decay
        for average, array in zip(self.averages.values(), self._arrays()):
            difference = average - array
            difference *= 1.0 - d
            average -= difference
        self.updates += 1

    @contextmanager
    def applied(self):
        """Put the averages into the model inside the ``with`` block, and bring the weights back at its end.

        They come back bit for bit, after an exception too. Only to evaluate: what is done to the weights inside the
        block is lost.
        """
        weights = [array.copy() for array in self._arrays()]
        try:
            for array, average in zip(self._arrays(), self.averages.values()):
                array[...] = average
            yield
        finally:
            for array, weight in zip(self._arrays(), weights):
                array[...] = weight

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return copies: ``updates`` (how many were made), and ``average.<name>`` for each array."""
        averages = {f"average.{name}": average.copy() for name, average in self.averages.items()}
        return {"updates": np.array(self.updates, np.int64)} | averages

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """Continue from the state of :meth:`state_dict`, bit for bit.

        Raises
        ------
        ValueError
            With every missing, unexpected and mis-shaped name. Nothing has been changed then.
        """
        state = _fitting_state(state, self.state_dict(), "ExponentialMovingAverage")
        self.updates = integer(int(state["updates"]), "updates", 0)
        for name, average in self.averages.items():
            average[...] = state[f"average.{name}"]


def _real(value, name: str, *, below: float = math.inf) -> float:
    """Return ``value`` as a float in [0, below), or raise a ``ValueError`` that names it."""
    if not isinstance(value, numbers.Real) or not 0.0 <= value < below:
        limit = "finite and at least 0" if below == math.inf else f"at least 0 and below {below:g}"
        raise ValueError(f"{name} must be a number, {limit}; got {value!r}")
    return float(value)


def _by_name(names: list[str], arrays: list[np.ndarray], owner: str) -> dict[str, np.ndarray]:
    """Return the arrays by name; raise ``ValueError`` if there are none, or a name stands twice."""
    if not names:
        raise ValueError(f"{owner}: there are no parameters; pass model.parameters()")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"{owner}: every name must be unique, but these stand more than once: {', '.join(twice)}")
    return dict(zip(names, arrays))


def _flat_like(arrays: dict[str, np.ndarray], fill: float) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return one flat array, and by name the views of it that have the shapes of ``arrays``."""
    sizes = [array.size for array in arrays.values()]
    flat = np.full(sum(sizes), fill, dtype=next(iter(arrays.values())).dtype)
    parts = np.split(flat, np.cumsum(sizes)[:-1])
    return flat, {name: part.reshape(arrays[name].shape) for name, part in zip(arrays, parts)}


def _fitting_state(state: Mapping, expected: dict[str, np.ndarray], owner: str) -> dict[str, np.ndarray]:
    """Return ``state`` as arrays if it has the names, shapes and kinds of ``expected``, else raise ``ValueError``."""
    state = {name: np.asarray(state[name]) for name in state}
    problems = [f"missing {name}" for name in expected if name not in state]
    problems += [f"unexpected {name}" for name in state if name not in expected]
    for name, want in expected.items():
        got = state.get(name, want)
        if got.shape != want.shape:
            problems.append(f"{name} has shape {got.shape}, not {want.shape}")
        elif not np.can_cast(got.dtype, want.dtype, "same_kind"):
            problems.append(f"{name} has type {got.dtype}, not {want.dtype}")
    if problems:
        raise ValueError(f"{owner}: the state does not fit these parameters: {'; '.join(problems)}")
    return state
