"""Names of tasks and solvers to operators and solvers; one place to add one's own."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from diffinv import Measurement, Prior, Solution, Solver, as_solver, guard, operators, posterior, samplers, times
from diffinv.operators.base import Operator
from diffinv.typing import Array, Key

Build = Callable[[ConfigDict, Prior], Solver]


def annealing(config: ConfigDict, prior: Prior) -> Array:
    """DAPS's noise levels (EDM's spacing, the last replaced by 0) as times of the prior's process."""
    sigmas = config.daps.sigma_max * times.karras(config.daps.steps, config.daps.sigma_min, config.daps.sigma_max)
    return times.from_sigma(prior.process, sigmas)


def dps(config: ConfigDict, prior: Prior) -> Solver:
    """DPS as published: ancestral, one gradient of the un-squared residual norm a step."""
    method = lambda m: guard(posterior.dps(prior, m, config.dps.zeta, clip=config.dps.clip))
    return as_solver(method, times.grid(config.dps.steps))


def daps(config: ConfigDict, prior: Prior) -> Solver:
    """DAPS."""
    c = config.daps
    inner = {"tau": c.tau, "chain": c.chain, "sigma_end": c.sigma_end, "spread": c.spread, "decay": c.decay}
    method = lambda m: guard(posterior.daps(prior, m, c.ode_steps, c.mcmc_steps, c.lr, **inner))
    return as_solver(method, annealing(config, prior))


def guided(transform: Callable) -> Build:
    """A guided prior under DDIM."""

    def build(config: ConfigDict, prior: Prior) -> Solver:
        method = lambda m: guard(samplers.ddim(transform(config, prior, m), config.guided.eta))
        return as_solver(method, times.grid(config.guided.steps, power=2.0))

    return build


def given(key: Key, measurement: Measurement, x: Array | None = None) -> Solution:
    """The solver that proposes the candidate it is given: what `config.base` made before, so that both are compared."""
    return Solution(x, ())


def reguidance(config: ConfigDict, prior: Prior) -> Solver:
    """ReGuidance around the outcome of `config.base`."""
    c = config.reguidance
    grid = times.grid(c.steps, c.horizon, c.power)
    score = lambda m: posterior.dps_score(prior, m, c.rho, c.convention)
    refine = as_solver(lambda m: guard(samplers.heun(score(m))), grid)
    return posterior.reguidance(given, refine, prior, grid)


SOLVERS: dict[str, Build] = {
    "dps": dps,
    "daps": daps,
    "pigdm": guided(lambda config, prior, m: posterior.pigdm(prior, m)),
    "mmps": guided(lambda config, prior, m: posterior.mmps(prior, m, config.guided.iterations)),
    "tmpd": guided(lambda config, prior, m: posterior.tmpd(prior, m, "diagonal")),
    "ddnm": guided(lambda config, prior, m: posterior.ddnm(prior, m)),
    "reguidance": reguidance,
}
LABELS = {"dps": "DPS", "daps": "DAPS", "pigdm": "PiGDM", "mmps": "MMPS", "tmpd": "TMPD", "ddnm": "DDNM"}


def label(name: str, config: ConfigDict) -> str:
    """What the report calls a solver."""
    return f"ReGuidance({LABELS[config.base]})" if name == "reguidance" else LABELS[name]


def _box(config: ConfigDict, key: Key, shape: tuple[int, ...]) -> Operator:
    return operators.box_inpainting(shape, config.box.top, config.box.left, config.box.size)


TASKS: dict[str, Callable[[ConfigDict, Key, tuple[int, ...]], Operator]] = {
    "box_inpainting": _box,
    "random_inpainting": lambda config, key, shape: operators.random_inpainting(key, shape, config.random.masked),
    "freeform_inpainting": lambda config, key, shape: operators.freeform_inpainting(key, shape),
    "super_resolution": lambda config, key, shape: operators.average_pool(shape, config.factor),
    "bicubic": lambda config, key, shape: operators.bicubic(shape, config.factor),
    "colourisation": lambda config, key, shape: operators.grayscale(shape),
    "gaussian_blur": lambda config, key, shape: operators.gaussian_blur(shape, config.blur.size, config.blur.std),
    "motion_blur": lambda config, key, shape: operators.motion_blur(key, shape, config.blur.size),
}


def shown(y: Array, shape: tuple[int, ...]) -> Array:
    """A real measurement as a picture of `shape`: low resolution by nearest, grey in three channels."""
    y = jnp.broadcast_to(y, (*y.shape[:2], shape[2])) if y.ndim == 3 else y
    return jax.image.resize(y, shape, "nearest")
