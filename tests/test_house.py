"""House rules: layers, purity, docstrings, sizes and what `import diffinv` may need."""

import ast
import importlib
import pkgutil
import re
import statistics
import subprocess
import sys
from collections import defaultdict
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
LIBRARY = ROOT / "diffinv"
FILES = sorted(LIBRARY.rglob("*.py"))

LAYERS = [
    ["typing", "callables", "describe", "ends"],
    ["process", "times", "fft", "linalg", "sharding", "tiles", "schema", "limits", "atomic", "seeds", "text"],
    ["prior", "adapters", "operators", "nn", "degrade"],
    ["loop", "charts", "codec", "measurement", "noises", "checks", "denoisers", "watch"],
    ["samplers"],
    ["posterior", "consistency", "cascade", "scalespace", "adversarial", "generator"],
    ["train", "data", "weights", "metrics", "display"],
    ["augmentation"],
]
LAYER = {room: height for height, rooms in enumerate(LAYERS) for room in rooms}
CITED = ["posterior", "samplers", "process", "times", "charts", "consistency", "scalespace"]
METHODS = {
    "Sampler",
    "Prior",
    "Solver",
    "Loss",
    "Curriculum",
    "Metric",
    "Points",
    "Chart",
    "Process",
    "Explicit",
    "Drift",
    "Rates",
}
SHARED = {
    "imported": "a family of public checkpoints as parameters and card: adm, autoencoder, diffusers, edm, terrain",
    "detect": "the network's fields that a family's state dict shows: adm, edm",
    "architecture_fields": "the card's `architecture` of a family: adm, diffusers",
    "to_adm": "a family's tensors under ADM's names: diffusers, edm",
    "from_torch": "a network's own parameters from torch's names: classifier, vgg",
}
"""Public names that several modules define, each with the one thing that it means in all of them."""
OPTIONAL = (
    "tensorflow tensorflow_datasets grain tensorboard sklearn ml_collections PIL matplotlib skimage safetensors tqdm"
    " torch diffrax equinox"
).split()

every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(LIBRARY).as_posix())


@cache
def tree(path):
    return ast.parse(path.read_text())


def room(path):
    """The first name under `diffinv`: a module or a package."""
    return path.relative_to(LIBRARY).with_suffix("").parts[0]


def imports(path):
    """Dotted names under `diffinv` that the file imports, also inside functions."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "diffinv")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}, line {node.lineno}: write imports in full"
            if node.module == "diffinv":
                yield from (f"diffinv.{alias.name}" for alias in node.names)
            elif node.module.startswith("diffinv."):
                yield node.module


def outside(path):
    """The top-level names of everything else that the file imports."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module.split(".")[0]


@every_file
def test_imports_point_down(path):
    if path == LIBRARY / "__init__.py":
        return
    assert room(path) in LAYER, f"{room(path)} has no layer: add it to docs/design.md and to this table"
    for name in imports(path):
        target = name.split(".")[1]
        assert target in LAYER, f"{path.name} imports {name}: import from the module that defines it"
        assert LAYER[target] <= LAYER[room(path)], f"{path.name} (layer {LAYER[room(path)]}) imports {name}"


@every_file
def test_rooms_that_do_not_know_each_other(path):
    """Posterior methods share nothing but their core and what lies below; networks know nothing of diffusion."""
    if room(path) == "posterior" and path.name != "__init__.py":
        known = [name for name in imports(path) if name.startswith("diffinv.posterior")]
        assert all(name.startswith("diffinv.posterior.core") for name in known), known
    if room(path) == "nn":
        assert {name.split(".")[1] for name in imports(path)} <= {"nn", "typing", "linalg", "describe"}
    assert not {"experiments", "configs", "tests"} & set(outside(path))


@pytest.mark.parametrize(
    "path", [path for path in FILES if path.name == "__init__.py"], ids=lambda path: path.parent.name
)
def test_no_exported_name_shadows_a_module(path):
    """`package.name` is then what `from package import name` and `import package.name` both say it is."""
    package = importlib.import_module(".".join(path.parent.relative_to(ROOT).parts))
    modules = {entry.name for entry in pkgutil.iter_modules(package.__path__)}
    shadowing = [name for name in getattr(package, "__all__", ()) if name in modules]
    wrong = [name for name in shadowing if not isinstance(getattr(package, name), ModuleType)]
    assert not wrong, f"{package.__name__} exports {wrong}, which are modules too: rename these"


def code_names(path):
    """Every name, attribute and imported name that code (not text) uses, with its line."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Name):
            yield node.id, node.lineno
        elif isinstance(node, ast.Attribute):
            yield node.attr, node.lineno
        elif isinstance(node, ast.ImportFrom):
            yield from ((alias.name, node.lineno) for alias in node.names)


@every_file
def test_the_library_never_compiles_places_or_prints(path):
    used = [(name, line) for name, line in code_names(path) if name in ("jit", "pmap", "device_put", "print")]
    assert not used, f"{path.name}: leave {used} to experiments"


def public(body):
    """The public functions and classes of a module's or a class's body."""
    kinds = (ast.FunctionDef, ast.ClassDef)
    return [node for node in body if isinstance(node, kinds) and not node.name.startswith("_")]


def test_one_public_name_is_one_thing():
    """A name that two modules define is looked up twice, unless the modules are of one kind and mean the same by it."""
    homes = defaultdict(list)
    for path in FILES:
        for node in public(tree(path).body):
            homes[node.name].append(path.relative_to(LIBRARY).as_posix())
    twice = {name: paths for name, paths in homes.items() if len(paths) > 1}
    shown = [f"{name}: {', '.join(paths)}" for name, paths in twice.items() if name not in SHARED]
    assert not shown, "rename or merge:\n" + "\n".join(shown)
    assert SHARED.keys() == twice.keys(), f"no longer shared: {SHARED.keys() - twice.keys()}"


@cache
def documented_methods():
    """Method names that some class documents: an override inherits the text."""
    classes = [node for path in FILES for node in ast.walk(tree(path)) if isinstance(node, ast.ClassDef)]
    return {method.name for node in classes for method in public(node.body) if ast.get_docstring(method)}


@every_file
def test_everything_public_is_documented(path):
    if path.read_text().strip():
        assert ast.get_docstring(tree(path)), f"{path.name} does not say what it defines"
    for node in public(tree(path).body):
        assert ast.get_docstring(node), f"{path.name}: {node.name} has no docstring"
        for method in public(node.body) if isinstance(node, ast.ClassDef) else []:
            assert method.name in documented_methods(), f"{path.name}: {node.name}.{method.name} has no docstring"


def fields(node):
    """The annotated fields of a class."""
    inner = [each.target for each in node.body if isinstance(each, ast.AnnAssign)]
    return [target.id for target in inner if isinstance(target, ast.Name) and not target.id.startswith("_")]


@every_file
def test_attributes_stand_one_a_line(path):
    """`Attributes:` in Google's style, a line `name: what it is` for each field, which documentation tools read."""
    for node in public(tree(path).body):
        if isinstance(node, ast.ClassDef) and fields(node):
            _, _, section = ast.get_docstring(node).partition("\n\nAttributes:\n")
            unsaid = [name for name in fields(node) if f"\n  {name}: " not in f"\n{section}"]
            assert not unsaid, f"{path.name}: {node.name} has no line `name: ...` under `Attributes:` for {unsaid}"


def methods(path):
    """What a module offers as methods: functions that give one of `METHODS`, grids of times, and processes."""
    for node in public(tree(path).body):
        if isinstance(node, ast.ClassDef):
            given = {ast.unparse(base) for base in node.bases if "abstractmethod" not in ast.unparse(node)}
        else:
            given = {ast.unparse(node.returns)} if node.returns else set()
        if given & METHODS or (room(path) == "times" and given == {"Array"}):
            yield node


@pytest.mark.parametrize(
    "path",
    [path for path in FILES if room(path) in CITED and not {"core", "base"} & {path.parent.name, path.stem}],
    ids=lambda path: path.relative_to(LIBRARY).as_posix(),
)
def test_every_method_says_where_it_comes_from(path):
    """A method is published somewhere, and says where with its equation, or is original here, and says that."""
    says = re.compile(r"Source:|\b[Oo]riginal\b")
    unsaid = [node.name for node in methods(path) if not says.search(ast.get_docstring(node))]
    assert not unsaid, f"{path.name}: {unsaid} need `Source:` with a number, or the word original"


def tracked(pattern=""):
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *([pattern] if pattern else [])]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if result.returncode:
        pytest.skip(f"not a git checkout: {result.stderr.strip()}")
    return [ROOT / line for line in result.stdout.splitlines() if (ROOT / line).is_file()]


def test_no_machine_paths():
    """A path of somebody's machine in a tracked text works nowhere else."""
    pattern = re.compile(r"(?<![\w./~-])/(?:home|root|Users|work|mnt|scratch|data)/[\w.-]|\b[A-Z]:\\\\?\w")
    found = []
    for path in tracked():
        raw = path.read_bytes()
        if b"\0" in raw[:8192]:
            continue
        lines = enumerate(raw.decode("utf-8", "replace").splitlines(), 1)
        found += [f"{path.relative_to(ROOT)}:{i}: {line.strip()[:80]}" for i, line in lines if pattern.search(line)]
    assert not found, "\n".join(found)


def test_files_fit_in_the_head_and_have_names_that_say_something():
    for path in tracked("*.py"):
        assert len(path.read_text().splitlines()) <= 400, f"{path.relative_to(ROOT)} is over 400 lines: split it"
        assert path.stem not in ("utils", "util", "helpers", "misc", "common"), f"{path}: name it by what it holds"


def test_no_two_test_files_have_one_name():
    """Where a folder is no package, pytest imports its test files by their names alone."""
    files = (ROOT / "tests").rglob("test_*.py")
    names = [path.name for path in files if not (path.parent / "__init__.py").exists()]
    assert sorted({name for name in names if names.count(name) > 1}) == []


def function_length(node):
    """Lines of a function without its docstring."""
    first = node.body[0]
    documented = ast.get_docstring(node) is not None
    return node.end_lineno - node.lineno + 1 - documented * (first.end_lineno - first.lineno + 1)


def test_functions_are_short():
    lengths = [
        function_length(node) for path in FILES for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef)
    ]
    assert statistics.median(lengths) < 8
    assert statistics.quantiles(lengths, n=10)[-1] <= 30


def lines(folder):
    return sum(bool(line.strip()) for path in folder.rglob("*.py") for line in path.read_text().splitlines())


def test_tests_weigh_enough():
    assert lines(ROOT / "tests") >= 0.6 * lines(LIBRARY)


IMPORT = """
import sys, time
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked}:
            raise ImportError("blocked: " + name)
sys.meta_path.insert(0, Blocker())
start = time.process_time()
import diffinv
assert time.process_time() - start < 10, time.process_time() - start
assert diffinv.posterior.dps and diffinv.samplers.ddim and diffinv.operators.dense
"""


def test_import_needs_jax_flax_optax_orbax_and_numpy_alone():
    """Accelerator images often lack the rest; it is imported where it is used."""
    command = [sys.executable, "-c", IMPORT.format(blocked=OPTIONAL)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
