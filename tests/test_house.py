"""The rules of the house: who may import whom, what is documented, and what no file may hold."""

import ast
import graphlib
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import npnets

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "npnets"

ORDER = [
    "shapes",
    "parallel",
    "gradcheck",
    "ops",
    "reference",
    "nn",
    "models",
    "cost",
    "optim",
    "datasets",
    "augment",
    "probes",
    "training",
    "profiling",
    "latency",
    "quantization",
    "manifold",
    "checkpoint",
    "plots",
    "course",
    "course_map",
    "notebooks",
    "runs",
    "publish",
    "experiments",
    "benchmarks",
    "cli",
    "__main__",
]
"""The reading order: a file or folder imports only from those above it."""

LATER = {("gradcheck", "ops"), ("gradcheck", "nn")}
"""The exceptions, inside functions only: the checks stand first, and look up what they check when they are called."""

FILES = sorted(PACKAGE.rglob("*.py"))
MODULES = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in FILES}


def imports(path):
    """Return (names of the imported modules, whether inside a function) for each import statement of a file."""
    found = []

    def visit(node, inside):
        if isinstance(node, ast.Import):
            found.extend((alias.name, inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: a relative import; this project writes them absolute"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.append((full if full in MODULES else node.module, inside))
        inside = inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            visit(child, inside)

    visit(ast.parse(path.read_text(encoding="utf-8")), False)
    return found


def place(module):
    """Return where a module of npnets stands in the reading order."""
    if module == "npnets":  # its first lines import these; whoever imports it stands below them
        return max(place(name) for name, inside in imports(MODULES["npnets"]) if name in MODULES and not inside) + 0.5
    return ORDER.index(module.split(".")[1])


def test_every_file_has_a_place_in_the_reading_order():
    assert {module.split(".")[1] for module in MODULES if module != "npnets"} <= set(ORDER)


@pytest.mark.parametrize("module", [module for module in MODULES if module != "npnets"])
def test_a_file_imports_only_from_files_above_it(module):
    for name, inside in imports(MODULES[module]):
        if name in MODULES and place(name) > place(module):
            exception = (module.split(".")[1], name.split(".")[-1])
            assert inside and exception in LATER, f"{module} stands above {name} and imports it"


def test_imports_form_no_circle():
    """Inside a package, too, where the reading order says nothing."""
    graph = {
        module: {name for name, inside in imports(path) if name in MODULES and name != module and not inside}
        for module, path in MODULES.items()
    }
    order = list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError
    assert set(order) == set(MODULES)


def test_the_first_page_lists_the_files_in_this_order():
    listed = re.findall(r"^``(\w+)`` {2,}\S", npnets.__doc__.partition("In reading order")[2], re.MULTILINE)
    assert listed == [name for name in ORDER if name in listed] and len(listed) >= 15
    assert all(f"npnets.{name}" in MODULES for name in listed)


def test_every_public_name_can_be_reached():
    for name in npnets.__all__:
        assert getattr(npnets, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'opps'"):
        _ = npnets.opps


@pytest.mark.parametrize("module", [module for module in MODULES if module.startswith(("npnets.ops", "npnets.ref"))])
def test_the_mathematics_depends_on_numpy_alone(module):
    ours = ("npnets.ops", "npnets.shapes", "npnets.parallel")
    for name, _ in imports(MODULES[module]):
        top = name.split(".")[0]
        assert name.startswith(ours) or top == "numpy" or top in sys.stdlib_module_names, f"{module} imports {name}"


def test_no_state_in_ops():
    """No classes but the caches, which are tuples, and no global that a call could change."""
    for module in MODULES:
        if module.startswith("npnets.ops"):
            tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
            assert not any(isinstance(node, ast.Global | ast.Nonlocal) for node in ast.walk(tree)), module
            for _, item in inspect.getmembers(importlib.import_module(module), inspect.isclass):
                assert item.__module__ != module or issubclass(item, tuple), item


@pytest.mark.parametrize("module", MODULES)
def test_nothing_is_unpickled(module):
    """``np.load`` says so each time, since an ``allow_pickle=True`` would run whatever a file tells it to."""
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    unsafe = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    for name, _ in imports(MODULES[module]):
        assert name.split(".")[0] not in unsafe, f"{module} imports {name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            keywords = {keyword.arg: keyword.value for keyword in node.keywords}
            allowed = keywords.get("allow_pickle")
            assert allowed is None or getattr(allowed, "value", None) is False, f"{module}:{node.lineno}"
            if ast.unparse(node.func) in ("np.load", "numpy.load"):
                assert allowed is not None, f"{module}:{node.lineno}: np.load without allow_pickle=False"
            assert ast.unparse(node.func) not in ("eval", "exec"), f"{module}:{node.lineno}"


@pytest.mark.parametrize("module", MODULES)
def test_randomness_is_explicit(module):
    """No ``np.random.seed`` and no global generator: the same seed would not give the same numbers twice."""
    allowed = {"default_rng", "Generator", "SeedSequence", "PCG64", "BitGenerator"}
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("np.random", "numpy.random"):
            assert node.attr in allowed, f"{module}:{node.lineno}: np.random.{node.attr}"
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("default_rng"):
            assert node.args or node.keywords, f"{module}:{node.lineno}: default_rng() without a seed"
    assert not {"random", "secrets"} & {name for name, _ in imports(MODULES[module])}


def public(module):
    """Yield (name, object) for the public functions and classes that a module defines, and their public methods."""
    for name, item in vars(module).items():
        if name.startswith("_") or getattr(item, "__module__", None) != module.__name__:
            continue
        if inspect.isfunction(item) or inspect.isclass(item):
            yield f"{module.__name__}.{name}", item
        if inspect.isclass(item):
            for method, function in vars(item).items():
                if inspect.isfunction(function) and not method.startswith("_"):
                    yield f"{module.__name__}.{name}.{method}", getattr(item, method)


DOCUMENTED = [
    "shapes", "parallel", "ops", "nn", "models", "cost", "optim", "profiling", "latency", "quantization", "manifold",
]  # fmt: skip


@pytest.mark.parametrize("package", DOCUMENTED)
def test_everything_public_has_a_docstring(package):
    modules = [module for module in MODULES if f"{module}.".startswith(f"npnets.{package}.")]
    seen = 0
    for module in map(importlib.import_module, modules):
        assert module.__doc__, module
        for name, item in public(module):
            seen += 1
            assert inspect.getdoc(item), f"{name} has no docstring"  # an overridden method inherits it
            if inspect.isclass(item):
                assert item.__doc__ and not item.__doc__.startswith(f"{item.__name__}("), f"{name} has no docstring"
    assert seen


def test_every_module_tells_what_it_is_for():
    for module, path in MODULES.items():
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), module


def test_importing_npnets_is_light_and_silent():
    """matplotlib, tqdm and threadpoolctl cost more than all of npnets, and are needed only to draw, show and run."""
    heavy = ["matplotlib", "tqdm", "threadpoolctl", "safetensors", "torch", "urllib.request", "PIL"]
    code = (
        "import sys, npnets\n"
        "npnets.threads, npnets.ops.conv2d_forward, npnets.models.build, npnets.cost.profile\n"
        f"sys.exit([name for name in {heavy} if name in sys.modules] or None)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_modules_can_be_imported_from_last_to_first():
    """No file counts on another having been imported before it."""
    others = ("torch_worker", "chainer_worker")  # they belong to another Python
    names = [name for _, name, _ in pkgutil.walk_packages([str(PACKAGE)], "npnets.") if not name.endswith(others)]
    code = f"import importlib\nfor name in {sorted(names, reverse=True)}:\n    importlib.import_module(name)"
    code = code.replace("'npnets.__main__', ", "")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def project_files():
    """Yield (path from the root, text) of every text file of the project."""
    skipped = {".git", ".hypothesis", ".pytest_cache", ".ruff_cache", ".venv", "__pycache__", "runs", "build"}
    for path in sorted(ROOT.rglob("*")):
        parts = path.relative_to(ROOT).parts
        if not path.is_file() or skipped & set(parts) or any(part.endswith(".egg-info") for part in parts):
            continue
        content = path.read_bytes()
        if b"\0" not in content[:4096]:
            yield path.relative_to(ROOT), content.decode("utf-8")


def test_no_file_names_a_folder_of_one_machine():
    """A clone must work anywhere: no paths into a home directory, none beside the repository."""
    beside = re.compile(r"\.\./" + r"shared\b")
    absolute = re.compile(r"(?<![\w.~:/-])/(?:work|root|home|Users|mnt|opt)/\w")
    found = [
        f"{path}:{number}: {line.strip()[:100]}"
        for path, text in project_files()
        for number, line in enumerate(text.splitlines(), 1)
        if beside.search(line) or absolute.search(line)
    ]
    assert not found, "\n".join(found)


def test_the_oldest_numpy_has_what_is_used():
    """Names that came with NumPy 2, or went with it: the tests run on one version only."""
    new_or_gone = {"matvec", "vecmat", "vecdot", "concat", "permute_dims", "matrix_transpose", "astype", "bool_", "pow"}
    new_or_gone |= {"cumulative_sum", "unstack", "isdtype", "unique_values", "acos", "float_", "in1d", "product", "Inf"}
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "np":
                assert node.attr not in new_or_gone, f"{module}:{node.lineno}: np.{node.attr}"
    assert hasattr(np.random.Generator, "spawn")  # 1.25: weights have streams of their own
