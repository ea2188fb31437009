"""The documentation as it is printed: Python runs or names what there is, commands have the flags they are given."""

import ast
import functools
import importlib
import importlib.util
import re
import shlex
import shutil
from pathlib import Path

import equinox
import jax
import jax.numpy as jnp
import pytest
from flax import linen, nnx, struct

import diffinv as di
from diffinv import weights
from diffinv.denoisers.exact import GaussianDenoiser
from diffinv.metrics import features, image
from experiments.common import pictures

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
page = pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)


def blocks(path, language="python"):
    """The fenced blocks of a language, without the indentation of a list."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```", path.read_text(), re.S | re.M)
    return [re.sub(rf"^{indent}", "", text, flags=re.M) for indent, text in found]


def dotted(tree):
    """Names like `posterior.dps` of a tree."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            text = ast.unparse(node)
            if re.fullmatch(r"[\w.]+", text):
                yield text


@page
def test_python_names_what_there_is(path):
    rooms = {"di": di} | {name: getattr(di, name) for name in di.__all__ if not callable(getattr(di, name))}
    rooms["checkpoint"] = weights
    for block in blocks(path):
        tree = ast.parse(block)
        bound = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
        for name in dotted(tree):
            root, *rest = name.split(".")
            if root in rooms and root not in bound:
                assert functools.reduce(lambda at, part: getattr(at, part, None), rest, rooms[root]) is not None, name


def names():
    """What the pages take as given."""
    modules = {name: getattr(di, name) for name in di.__all__}
    given = dict(di=di, jax=jax, jnp=jnp, nnx=nnx, struct=struct, partial=functools.partial, checkpoint=weights)
    return {**modules, **given, "key": jax.random.key(0)}


def run(path, space):
    """All blocks of a page, one after the other."""
    with jax.enable_x64(False), jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        for block in blocks(path):
            if block.startswith("import torch"):
                continue
            exec(compile(block, path.name, "exec"), space)
    return space


def test_your_own_runs():
    space = run(ROOT / "docs" / "your-own.md", names())
    assert space["x"].shape == (8, 8, 3) and space["picture"].mode == "RGB"
    assert space["pictures"].shape == (len(jax.devices()), 8, 8, 3)


def test_networks_run(monkeypatch, tmp_path):
    """All but what needs PyTorch, on the file of the example."""
    shutil.copy(ROOT / "examples" / "denoiser.onnx", tmp_path / "net.onnx")
    monkeypatch.chdir(tmp_path)
    space = run(ROOT / "docs" / "networks.md", {**names(), "linen": linen, "eqx": equinox})
    assert space["picture"].shape == (8, 8, 1) and 0.2 < float(jnp.std(space["picture"])) < 1.0
    half = jnp.full((8, 8, 1), 0.5)
    assert float(jnp.max(jnp.abs(space["prior"].denoise(half, 1e-4) - half))) < 1e-2


def test_readme_runs(monkeypatch):
    """With white noise in place of the network, and few steps."""

    def white(path, process):
        shape = (32, 32, 3)
        return di.Prior(process, GaussianDenoiser(process, jnp.zeros(shape), jnp.ones(shape)), shape)

    grid = di.times.grid
    monkeypatch.setattr(weights, "load_prior", white)
    monkeypatch.setattr(di.times, "grid", lambda steps, *rest, **more: grid(3, *rest, **more))
    monkeypatch.setattr(
        di.posterior, "daps", functools.partial(di.posterior.daps, ode_steps=1, chain=di.posterior.chains.langevin(2))
    )
    with jax.enable_x64(False):
        space = names() | {"image": jnp.zeros((32, 32, 3)), "zetas": jnp.asarray([0.1, 0.5])}
    space = run(ROOT / "README.md", space)
    assert space["solution"].x.shape == (32, 32, 3) and space["sweep"].x.shape == (2, 32, 32, 3)


def commands():
    for path in PAGES:
        for block in re.findall(r"^```(?:bash)?\n(.*?)^```", path.read_text(), re.S | re.M):
            for line in block.replace("\\\n", " ").splitlines():
                if match := re.search(r"python -m ((?:experiments|benchmarks)[\w.]*)(.*)", line):
                    if "..." not in line and "NAME" not in match[1] and "[" not in line:
                        yield pytest.param(match[1], match[2].split("   #")[0], id=f"{path.stem}: {match[0][10:70]}")


def config_of(value):
    file, _, mode = value.partition(":")
    module = importlib.import_module(file.removesuffix(".py").replace("/", "."))
    return module.get_config(mode)


@pytest.mark.parametrize(("module", "rest"), [*commands()])
def test_commands_have_their_flags(module, rest):
    spec = importlib.util.find_spec(module)
    assert spec, f"no module {module}"
    source = Path(spec.origin).read_text() + (ROOT / "experiments" / "common" / "runtime.py").read_text()
    options = [word for word in shlex.split(rest) if word.startswith("--")]
    default = re.search(r'"configs" / "(\w+)\.py"|configs/(\w+)\.py', source)
    config = config_of(f"configs/{default[1] or default[2]}.py") if default else None
    for option in options:
        name, _, value = option[2:].partition("=")
        if name == "config":
            config = config_of(value)
        elif name.startswith("config."):
            *path, last = name.split(".")[1:]
            assert last in functools.reduce(lambda at, part: at[part], path, config), f"{option}: no such field"
        else:
            assert re.search(rf'["\'-]{name.removeprefix("no")}\b', source), f"{module} has no flag --{name}"


@pytest.mark.slow
def test_reguidance_as_printed_keeps_what_the_candidate_had_and_looks_more_like_the_truth():
    """With the prior that ships, on one photograph: it lost 4 dB and left the range under other settings."""
    space = names()
    with jax.enable_x64(False), jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        space["prior"] = prior = weights.load_prior(weights.embedded(), di.process.VP())
        truth = jnp.asarray(pictures.photographs(32, 1).pixels[0])
        box = di.operators.box_inpainting(prior.shape, top=8, left=8, size=16)
        space["measurement"] = di.measure(space["key"], box, truth, sigma=0.05)
        exec(compile(blocks(ROOT / "README.md")[1], "README.md", "exec"), space)
        solution = space["solution"]
        psnr = lambda x: float(image.psnr(truth, jnp.clip(x, -1, 1), (-1, 1)))
        assert psnr(solution.x) > psnr(solution.info.candidate) - 0.2 and jnp.max(jnp.abs(solution.x)) < 2
        eye = features.efficientnet_features()
        apart = jax.jit(lambda x: image.feature_distance(eye, truth, jnp.clip(x, -1, 1)))
        assert apart(solution.x) < 0.9 * apart(solution.info.candidate)
