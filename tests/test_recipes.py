"""CONTRIBUTING's recipes, followed with toys in a copy of the project: so many files, and the commands know them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from training_command import FLAGS, environment

ROOT = Path(__file__).parents[1]
NEW = "a new file"

SOLVER = {
    "diffinv/posterior/projection.py": (
        "",
        """

def toy(prior: Prior, measurement: Measurement, eta: Array | float = 0.85) -> Sampler:
    \"\"\"Replaces the range of x0 by the measurement. Source: Wang et al. 2023, arXiv:2212.00490.\"\"\"
    A, process = measurement.operator, prior.process

    def step(key: Key, x: Array, t: Time, s: Time) -> tuple[Array, Array]:
        x0 = prior.denoise(x, t)
        x0 = x0 + A.pinv(measurement.residual(x0))
        return process.transition(x, x0, t, s, eta).sample(key), norm(measurement.residual(x0))

    return markov(prior, step, cost=prior.cost.plus(calls=3))
""",
    ),
    "diffinv/posterior/__init__.py": ("", "\nfrom diffinv.posterior.projection import toy  # noqa: E402, F401\n"),
    "experiments/methods/table.py": (
        "METHODS: dict[str, Method] = {\n",
        '    "toy": Method("Toy", posterior.toy, 5, tried={"Toy": Tried("eta", ETA)}),\n',
    ),
    "tests/posterior/methods.py": (
        "CORE = {\n",
        '    "toy": lambda prior, measurement, strength=1.0: posterior.toy(prior, measurement, 0.85 * strength),\n',
    ),
}
OPERATOR = {
    "diffinv/operators/toys.py": (
        NEW,
        """\"\"\"A toy.\"\"\"

from flax import struct

from diffinv.operators.base import LinearOperator
from diffinv.typing import Array


@struct.dataclass
class Mirror(LinearOperator):
    \"\"\"Left is right: `(H, W, C)` to the same.\"\"\"

    input_shape: tuple[int, ...] = struct.field(pytree_node=False)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.input_shape

    def __call__(self, x: Array) -> Array:
        return x[:, ::-1]


def mirror(shape: tuple[int, ...]) -> Mirror:
    \"\"\"The mirror of pictures of `shape`.\"\"\"
    return Mirror(shape)
""",
    ),
    "diffinv/operators/__init__.py": ("", "\nfrom diffinv.operators.toys import mirror  # noqa: E402, F401\n"),
    "experiments/restore/operators.py": (
        "OPERATORS: dict[str, Damage] = {\n",
        '    "mirror": Damage(lambda config, key, shape: operators.mirror(shape)),\n',
    ),
}
NETWORK = {
    "diffinv/nn/toynet.py": (
        NEW,
        """\"\"\"A toy.\"\"\"

from typing import Any

import jax.numpy as jnp
from flax import linen as nn


class ToyNet(nn.Module):
    \"\"\"Two layers a pixel, told the noise.\"\"\"

    width: int = 8
    out_channels: int = 3
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, condition):
        h = nn.gelu(nn.Dense(self.width)(x) + nn.Dense(self.width)(jnp.reshape(condition, (1, 1, 1))))
        return nn.Dense(self.out_channels)(h)
""",
    ),
    "diffinv/weights/cards/fields.py": (
        'NONE = exactly(None, "null")\n',
        """from diffinv.nn import toynet  # noqa: E402

ARCHITECTURES["toy"] = toynet.ToyNet
""",
    ),
}
DECLARED = (
    "NETWORKS: dict[str, Schema] = {\n",
    '    "toy": {"width": whole("of the layer", 1, 64), "out_channels": whole("of the result", 1, 64)'
    ', "dtype": choice(("float32",))},\n',
)
TASK = {
    "experiments/tasks/toys.py": (
        NEW,
        """\"\"\"A toy.\"\"\"

from experiments.tasks.denoising import Denoising


class Brighter(Denoising):
    \"\"\"Denoising of pictures that are brighter.\"\"\"

    def examples(self, key, batch):
        return super().examples(key, batch) + 0.1
""",
    ),
    "experiments/tasks/table.py": (
        "TASKS: dict[str, type[Task]] = {\n",
        '    "brighter": __import__("experiments.tasks.toys", fromlist=["toys"]).Brighter,\n',
    ),
}
TABLE = {
    "experiments/tables/toy.py": (
        NEW,
        """\"\"\"A toy of a table.\"\"\"

from experiments.tables import published
from experiments.tables.published import Option, counted

OPTIONS = {"seeds": Option(8, 2, counted("repetitions", 100))}


def main(options) -> published.Table:
    scores = [float(i) for i in range(options.seeds)]
    return published.table(published.columns([("method", "score"), ("toy", published.cell(scores))]), [scores])


if __name__ == "__main__":
    published.run(main, OPTIONS)
""",
    ),
}
CONFIG = """from configs import prior32


def get_config(mode=""):
    config = prior32.get_config("smoke")
    config.name, config.task, config.architecture, config.size = "toy", "brighter", "toy", 8
    with config.unlocked():
        config.net = {"width": 4, "dtype": "float32"}
    config.steps, config.cooldown, config.warmup = 3, 1, 1
    return config
"""
LIMITS = {
    "solver": (SOLVER, 4),
    "operator": (OPERATOR, 3),
    "network": (NETWORK, 2),
    "task": (TASK, 2),
    "table": (TABLE, 1),
}


@pytest.mark.parametrize("what", LIMITS)
def test_a_recipe_touches_few_files(what):
    recipe, limit = LIMITS[what]
    assert len(recipe) <= limit
    for path, (anchor, _) in recipe.items():
        assert (ROOT / path).exists() == (anchor != NEW) and (
            anchor in (NEW, "") or anchor in (ROOT / path).read_text()
        )


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The project, with every toy added."""
    folder = tmp_path_factory.mktemp("copy")
    for room in ("diffinv", "experiments", "configs"):
        shutil.copytree(ROOT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "tests/posterior").mkdir(parents=True)
    shutil.copy(ROOT / "tests/posterior/methods.py", folder / "tests/posterior")
    for recipe, _ in LIMITS.values():
        for path, (anchor, more) in recipe.items():
            added(folder / path, anchor, more)
    added(folder / "diffinv/weights/cards/fields.py", *DECLARED)
    (folder / "configs/toy.py").write_text(CONFIG)
    return folder


def added(path, anchor, more):
    """`more` after `anchor`, at the end of the file or in a new one."""
    before = "" if anchor == NEW else path.read_text()
    path.write_text(before.replace(anchor, anchor + more, 1) if anchor not in (NEW, "") else before + more)


def ran(folder, *command):
    """What a command in the copy printed."""
    env = environment(PYTHONPATH=str(folder), XLA_FLAGS=FLAGS)
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=folder, env=env, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_reconstruct_knows_a_new_solver_and_a_new_operator(copy):
    config = "--config=configs/reconstruct.py:smoke"
    said = ran(copy, "experiments.reconstruct", config, "--config.solver=toy", "--config.task=mirror", "--out=runs")
    assert "Toy" in said and "mirror" in said


@pytest.mark.slow
def test_train_knows_a_new_task_and_a_new_network_and_its_weights_load(copy):
    ran(copy, "experiments.train", "--config=configs/toy.py", "--workdir=run")
    load = "import diffinv as di; print(di.weights.load_prior('run/toy').shape)"
    env = environment(PYTHONPATH=str(copy))
    done = subprocess.run([sys.executable, "-c", load], cwd=copy, env=env, capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "(8, 8, 3)", done.stderr[-2000:]


def test_a_new_table_runs(copy):
    assert "toy" in ran(copy, "experiments.tables.toy", "--quick")


def test_the_copy_is_what_runs(copy):
    """A package that is installed elsewhere would answer in its place."""
    where = "import diffinv; print(diffinv.__file__)"
    env = {**os.environ, "PYTHONPATH": str(copy)}
    done = subprocess.run([sys.executable, "-c", where], cwd=copy, env=env, capture_output=True, text=True, timeout=300)
    assert Path(done.stdout.strip()).parent == copy / "diffinv"
