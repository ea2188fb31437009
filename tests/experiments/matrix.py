"""Tasks with every solver of `experiments.reconstruct`, compiled as that command compiles them; JSON lines.

    python -m tests.experiments.matrix TASKS SOLVER:OPTIMISATION,... GROUPS

Tasks that are given together have measurements that differ in numbers alone, as masks do: one program restores pictures
of all in turn.

The prior is a tiny network whose last layer is still zero, so that under EDM's preconditioning it is the exact denoiser
of N(0, 0.09): of pictures that are drawn from it, it is known where a solver's residual must lie, and the program still
contains a network. It starts like the command: with the command's devices, in float32. What is no solver compiles
plainly, and so do the solvers whose optimisation is 0; with 1 the code is better, and still the older emitters'. With
-1 a solver is lowered, so that it is known to fit the task, and not compiled.
"""

import json
import os
import sys
from pathlib import Path

from experiments.common import runtime  # isort: skip  (before jax)

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

import diffinv as di
from configs import reconstruct as configuration
from diffinv import linalg, process
from experiments.restore.bench import Bench
from tests.compiling import FAST, FUSED, SPLIT, flags

SHAPE, GREY, COUNT = (8, 8, 3), (8, 8, 1), 8


class Thin(nn.Module):
    """One hidden layer a pixel, and a last one of zeros: it compiles in no time."""

    @nn.compact
    def __call__(self, x, condition):
        h = nn.gelu(nn.Dense(8)(x) + nn.Dense(8)(jnp.reshape(condition, (1, 1, 1))))
        return nn.Dense(x.shape[-1], kernel_init=nn.initializers.zeros)(h)


class Fused(Bench):
    """Solvers with its optimisation compile as the command compiles them."""

    def options(self):
        return super().options() | (FUSED if self.config.optimisation > 1 else {})

    def fits(self, name: str) -> dict:
        """Lowers a solver that is no wrapper."""
        chosen = self.members(0)
        keys, measurements = jax.random.split(self.key, len(chosen)), self.place(self.measurements, chosen)
        x, *_ = self.lowered(name, (keys, self.prior, measurements, None, {})).out_info
        return {"task": self.task, "solver": name, "group": self.config.group, "lowered": x.shape}


def gaussian_prior(shape: tuple[int, ...]) -> di.Prior:
    """N(0, 0.09) through a network, under the command's own process."""
    net, vp = Thin(), process.VP()
    params = jax.jit(net.init)(jax.random.key(0), jnp.zeros(shape), 0.0)
    return di.Prior(vp, di.NetworkDenoiser(params, vp, net.apply, parametrisation="edm", sigma_data=0.3), shape)


def settings(task: str, group: int):
    """The shipped configuration, with every method's own steps, at 8 x 8."""
    config = configuration.get_config()
    config.task, config.group, config.pictures = task, group, COUNT
    config.box.update({"top": 2, "left": 2, "size": 4})
    config.mask = str(Path(__file__).with_name("mask8.png"))
    config.blur.size, config.factor, config.steps = 5, 2, 0
    config.dps.update({"steps": 300, "zeta": 1.0})  # at 8 x 8
    config.diffstategrad.update({"steps": 300, "zeta": 1.0})
    config.deep_image_prior.update({"steps": 150, "channels": 8, "levels": 1})
    config.enkg.update({"steps": 20, "particles": 192, "ode_steps": 2})
    config.eki.update({"steps": 4, "particles": 192, "ode_steps": 4})
    config.dps_gsg.update({"steps": 200, "zeta": 1.0, "draws": 64})
    config.dpg.update({"steps": 100, "scale": 60.0, "draws": 96})
    config.scg.update({"steps": 60, "draws": 32})
    if task.startswith("mri"):  # a step's length does not know how little is measured, by two to four lines of eight
        config.dps.zeta, config.diffstategrad.zeta, config.lgd.scale = 0.15, 0.4, 0.5
    if task == "high_dynamic_range":  # nor by how much the operator brightens
        config.dps.zeta = 0.2
    if task == "nonlinear_blur":  # nor how steep light is
        config.flowdps.lr *= 0.3
    return config


def in_turn(*leaves):
    """Picture i from the task i, counted round."""
    return jnp.stack([leaves[i % len(leaves)][i] for i in range(COUNT)])


def mixed(tasks: list[str], prior: di.Prior, truth: np.ndarray, group: int) -> Bench:
    """The first task's bench, with the measurements of all in turn."""
    first, *others = [Fused(settings(task, group), prior, task, truth) for task in tasks]
    first.measurements = jax.tree.map(in_turn, first.measurements, *(each.measurements for each in others))
    first.floors = in_turn(first.floors, *(each.floors for each in others))
    return first


@jax.jit
def residuals(measurements, x):
    return jax.vmap(lambda m, x: linalg.norm(m.residual(x)))(measurements, x)


def cells(tasks: list[str], bench: Bench, name: str):
    """What is told of one solver on each task."""
    found = [bench.run(name, i) for i in range(-(-COUNT // bench.group))]
    x = np.concatenate([np.asarray(each.x) for each in found])
    failed = np.concatenate([np.asarray(each.failed) for each in found])
    ratios = np.asarray(residuals(bench.measurements, x) / bench.floors)
    for i, task in enumerate(tasks):
        of = slice(i, None, len(tasks))
        row = {"task": task, "solver": name, "group": bench.config.group, "at_once": bench.group}
        row |= {"ratio": ratios[of].tolist(), "failed": failed[of].tolist(), "largest": float(np.abs(x[of]).max())}
        yield row | {"x": x[of].ravel()[::31].tolist(), "compiling": round(found[0].compiling, 1)}


def main(tasks: str, solvers: str, groups: str) -> None:
    os.environ["XLA_FLAGS"] += f" {flags(FAST | SPLIT)}"
    runtime.start()
    together = tasks.split(",")
    shape = GREY if together[0].startswith("mri") else SHAPE
    prior, draw = gaussian_prior(shape), np.random.default_rng(0).standard_normal
    truth = 0.3 * draw((COUNT, *shape)).astype(np.float32)
    for group in map(int, groups.split(",")):
        bench = mixed(together, prior, truth, group)
        for name, level in (each.split(":") for each in solvers.split(",")):
            bench.config.optimisation = int(level)
            for row in cells(together, bench, name) if int(level) >= 0 else [bench.fits(name)]:
                print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
