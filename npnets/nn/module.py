"""Who owns which array: Parameter, Module, and the three ways to put modules together.

A module's children and parameters are its attributes, in the order in which they were set, and that order is the order
of the forward. Their names are paths: attribute ``w`` of attribute ``depthwise`` of the fourth of the list ``blocks``
is ``blocks.3.depthwise.w``.
"""

import contextlib
import os

import numpy as np

from npnets.parallel import cut, run
from npnets.shapes import floating


class Parameter:
    """A learned array: its value, and the gradient that the last backward left.

    The value is drawn when it is first asked for, from a generator of its own. So a network can be described, printed
    and costed without allocating its weights, and a weight does not depend on which others were drawn before it.

    Parameters
    ----------
    shape : tuple of int
    initializer : callable (shape, rng) -> ndarray
        See :mod:`npnets.nn.init`.
    rng : numpy.random.Generator, optional
        Not needed for constants.
    dtype : numpy dtype
        float32 or float64.
    decay : bool
        Whether weight decay applies to it.

    Attributes
    ----------
    name : str
        Its path, set by the ``parameters()`` of the module it was asked from.
    value, grad : ndarray of ``shape``
        ``grad`` is None before the first backward; a backward replaces it.
    """

    def __init__(self, shape, initializer, rng=None, *, dtype=np.float32, decay=True):
        self.name = ""
        self.shape = tuple(shape)
        self.dtype = floating(dtype)
        self.decay = decay
        self.grad = None
        self._initializer, self._rng = initializer, rng
        self._value = None

    @property
    def value(self):
        if self._value is None:
            self._value = self._initializer(self.shape, self._rng).astype(self.dtype)
        return self._value

    @value.setter
    def value(self, value):
        if np.shape(value) != self.shape:
            name = self.name or "Parameter"
            raise ValueError(f"{name}: the value must have the shape {self.shape}, got {np.shape(value)}")
        self._value = np.array(value, self.dtype)

    @property
    def size(self):
        """How many numbers it holds."""
        return int(np.prod(self.shape))

    def __repr__(self):
        return f"Parameter({self.name!r}, shape={self.shape}, dtype={self.dtype}, decay={self.decay})"


class Module:
    """A piece of a network with a forward and a backward.

    A subclass sets its parameters and children as attributes and defines ``forward(x, training=False)`` and
    ``backward(dy)``. ``backward`` returns dx and sets the ``grad`` of each parameter; it belongs to the last forward.

    Attributes
    ----------
    observers : list of callables
        Each is called with the output after a forward (see :mod:`npnets.probes`). They must not write into it.
    running : tuple of str
        Names of the arrays that are part of the state but not learned.
    """

    running = ()

    def __init__(self):
        self.observers = []

    def forward(self, x, training=False):
        """Return the output for a batch x; ``training`` selects batch statistics and dropout."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward")

    def backward(self, dy):
        """Return dx for the last forward and set the gradient of every parameter."""
        raise NotImplementedError(f"{type(self).__name__} does not define backward")

    def __call__(self, x, training=False):
        y = self.forward(x, training)
        self.show(y)
        return y

    def show(self, y):
        """Call the observers with the output; for who goes through its children and so takes its place."""
        for observer in self.observers:
            observer(y)

    # What it is made of

    def children(self):
        """Yield (name, module) for the modules it is made of, in forward order; those of a list are numbered."""
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield name, value
            elif isinstance(value, (list, tuple)):
                yield from ((f"{name}.{k}", item) for k, item in enumerate(value) if isinstance(item, Module))

    def named_modules(self, path=""):
        """Yield (path, module) for itself (path "") and for everything below it, in forward order."""
        yield path, self
        for name, child in self.children():
            yield from child.named_modules(f"{path}.{name}" if path else name)

    def _named_values(self, kind):
        for path, module in self.named_modules():
            for name, value in vars(module).items():
                if isinstance(value, kind):
                    yield (f"{path}.{name}" if path else name), value

    def parameters(self):
        """Return the list of parameters in forward order, and set the name of each to its path from here."""
        named = dict(self._named_values(Parameter))
        for name, parameter in named.items():
            parameter.name = name
        return list(named.values())

    def generators(self):
        """Yield (path, numpy.random.Generator) for everything that draws random numbers in the forward."""
        yield from self._named_values(np.random.Generator)

    # Its state

    def state_dict(self):
        """Return name -> copy of the array: parameters and running statistics, in forward order."""
        return {name: array.copy() for name, array in self._state()}

    def load_state_dict(self, state):
        """Take over the arrays of a state, converted to the own dtypes.

        Parameters
        ----------
        state : mapping of str to ndarray, or str or Path
            What :meth:`state_dict` returned. Or an ``.npz`` or ``.safetensors`` file with such arrays, or with the
            weights of a network that was trained in PyTorch; see :func:`npnets.nn.weights.read_state`.

        Raises
        ------
        ValueError
            If a name is missing, unexpected, or has another shape; all of them are listed and nothing is changed. If it
            is a file, also if it is damaged or of another kind.
        FileNotFoundError
            If there is no such file.
        """
        if isinstance(state, (str, os.PathLike)):
            return self._load_file(state)
        own = dict(self._state())
        state = {name: np.asarray(array) for name, array in state.items()}
        problems = [f"missing: {name} {own[name].shape}" for name in own if name not in state]
        problems += [f"unexpected: {name} {np.shape(state[name])}" for name in state if name not in own]
        problems += [
            f"another shape: {name} is {np.shape(state[name])}, this model needs {own[name].shape}"
            for name in own
            if name in state and np.shape(state[name]) != own[name].shape
        ]
        problems += [
            f"not real numbers: {name} has the dtype {state[name].dtype}"
            for name in own
            if name in state and state[name].dtype.kind not in "fiub"
        ]
        if problems:
            raise ValueError("the state does not belong to this model:\n  " + "\n  ".join(problems))
        for name, array in own.items():
            array[...] = state[name]

    def _load_file(self, path):
        from npnets.nn import weights  # stands below this file

        state = weights.read_state(path, self)
        try:
            self.load_state_dict(state)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    def _state(self):
        for path, module in self.named_modules():
            for name, value in vars(module).items():
                full_name = f"{path}.{name}" if path else name
                if isinstance(value, Parameter):
                    yield full_name, value.value
                elif name in module.running:
                    yield full_name, value

    # Its cost

    def trace(self, shape, visit, path=""):
        """Send the shape of one image, (H, W, C) or (C,), through the network and return the output's.

        For each layer, ``visit(path, layer, shape, output_shape)`` is called. No array is allocated.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define trace")

    def __repr__(self):
        lines = [f"({name}): {child!r}".replace("\n", "\n  ") for name, child in self.children()]
        return f"{type(self).__name__}({self.describe()}" + "".join(f"\n  {line}" for line in lines) + ")"

    def describe(self):
        """Return its settings in a few words, for printing."""
        return ""


class Sequential(Module):
    """Modules one after another.

    >>> from npnets import nn
    >>> nn.Sequential(nn.ReLU(), nn.GlobalAvgPool())                  # names 0, 1
    Sequential(
      (0): ReLU()
      (1): GlobalAvgPool())
    >>> nn.Sequential(act=nn.ReLU(), blocks=[nn.ReLU6(), nn.ReLU6()])  # names act, blocks.0, blocks.1
    Sequential(
      (act): ReLU()
      (blocks.0): ReLU6()
      (blocks.1): ReLU6())
    """

    def __init__(self, *layers, **named_layers):
        super().__init__()
        _set_children(self, layers, named_layers)

    def chain(self):
        """Return the (name, module) pairs that the input passes, in this order."""
        return list(self.children())

    def forward(self, x, training=False):
        for name, layer in self.chain():
            with path_in_errors(name):
                x = layer(x, training)
        return x

    def backward(self, dy):
        for _, layer in reversed(self.chain()):
            dy = layer.backward(dy)
        return dy

    def trace(self, shape, visit, path=""):
        for name, layer in self.chain():
            with path_in_errors(name):
                shape = layer.trace(shape, visit, f"{path}.{name}" if path else name)
        return shape


class Residual(Sequential):
    """A chain of modules whose input is added to its output: ``y = shortcut(x) + chain(x)``.

    Parameters
    ----------
    *layers, **named_layers
        The chain, as in :class:`Sequential`.
    shortcut : Module, optional
        Applied to x before it is added; by default x itself, and then the chain must keep the shape.

    Attributes
    ----------
    adds_input : bool
        A block that has a residual only where its input fits sets it to False elsewhere, and is a plain chain there.
    """

    adds_input = True

    def __init__(self, *layers, shortcut=None, **named_layers):
        super().__init__(*layers, **named_layers)
        self.shortcut = shortcut

    def chain(self):
        return [(name, child) for name, child in self.children() if child is not self.shortcut]

    def forward(self, x, training=False):
        y = super().forward(x, training)
        if not self.adds_input:
            return y
        straight = x
        if self.shortcut is not None:
            with path_in_errors("shortcut"):
                straight = self.shortcut(x, training)
        _check_same(straight.shape, y.shape)
        return _add(straight, y)

    def backward(self, dy):
        dx = super().backward(dy)
        if not self.adds_input:
            return dx
        return _add(dx, dy if self.shortcut is None else self.shortcut.backward(dy))

    def trace(self, shape, visit, path=""):
        out = super().trace(shape, visit, path)
        if not self.adds_input:
            return out
        if self.shortcut is not None:
            with path_in_errors("shortcut"):
                shape = self.shortcut.trace(shape, visit, f"{path}.shortcut" if path else "shortcut")
        _check_same(shape, out)
        return out


def _set_children(module, children, named_children):
    """Make modules, or lists of modules, attributes: names 0, 1, ... and those that were given."""
    for name, child in (*enumerate(children), *named_children.items()):
        if hasattr(module, str(name)):
            raise ValueError(f"{type(module).__name__}: {name} is the name of something else here; choose another")
        for item in child if isinstance(child, (list, tuple)) else [child]:
            if not isinstance(item, Module):
                raise ValueError(f"{type(module).__name__}: {name} must be a Module, got {item!r}")
        setattr(module, str(name), child)


@contextlib.contextmanager
def path_in_errors(name):
    """Put a child's name before the message of a shape error, so that it tells the path of the layer."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _check_same(straight, branch):
    if straight != branch:
        raise ValueError(
            f"Residual: the shortcut has the shape {straight}, but the branch {branch}; "
            "a shortcut without a module of its own needs stride 1 and equal channels"
        )


def _check_branches(shapes):
    if len({shape[:-1] for shape in shapes}) != 1:
        raise ValueError(f"Concat: the branches' outputs do not fit together: {shapes}")


def _add(a, b, *more):
    """Return the sum of two arrays or more, their images spread over the threads."""
    total = np.empty(a.shape, np.result_type(a, b, *more))

    def add_up(piece):
        part = np.add(a[piece], b[piece], out=total[piece])
        for other in more:
            part += other[piece]

    run(add_up, _pieces(total))
    return total


def _join(arrays):
    """Return the arrays side by side along the channels, their images spread over the threads."""
    ends = np.cumsum([array.shape[-1] for array in arrays])
    joined = np.empty((*arrays[0].shape[:-1], ends[-1]), np.result_type(*arrays))

    def copy(piece):
        for array, end in zip(arrays, ends):
            joined[piece, ..., end - array.shape[-1] : end] = array[piece]

    run(copy, _pieces(joined))
    return joined


def _split(joined, widths):
    """Return copies of the parts of an array that :func:`_join` made, for arrays with so many channels."""
    parts = [np.empty((*joined.shape[:-1], width), joined.dtype) for width in widths]

    def copy(piece):
        end = 0
        for part in parts:
            start, end = end, end + part.shape[-1]
            part[piece] = joined[piece, ..., start:end]

    run(copy, _pieces(joined))
    return parts


def _pieces(x):
    return cut(len(x), x.nbytes / max(len(x), 1))


class Concat(Module):
    """Branches side by side: all get the same input, and their outputs are joined along the channels.

    Parameters
    ----------
    *branches, **named_branches : Module
        Named as in :class:`Sequential`. Their outputs must agree in everything but the channels.
    """

    def __init__(self, *branches, **named_branches):
        super().__init__()
        self.widths = None  # of the branches' outputs in the last forward
        _set_children(self, branches, named_branches)

    def forward(self, x, training=False):
        outputs = []
        for name, branch in self.children():
            with path_in_errors(name):
                outputs.append(branch(x, training))
        _check_branches([y.shape for y in outputs])
        self.widths = [y.shape[-1] for y in outputs]
        return _join(outputs)

    def backward(self, dy):
        if self.widths is None:
            raise RuntimeError(
                f"{type(self).__name__}: backward was called before forward, and there is nothing to go back through"
            )
        branches = [branch for _, branch in self.children()]
        gradients = [branch.backward(part) for branch, part in zip(branches, _split(dy, self.widths))]
        return _add(*gradients) if len(gradients) > 1 else gradients[0]

    def trace(self, shape, visit, path=""):
        outs = []
        for name, branch in self.children():
            with path_in_errors(name):
                outs.append(branch.trace(shape, visit, f"{path}.{name}" if path else name))
        _check_branches(outs)
        return (*outs[0][:-1], sum(out[-1] for out in outs))
