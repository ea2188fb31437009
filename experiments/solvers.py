"""Names of tasks and solvers to operators and solvers; one place to add one's own."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from diffinv import Measurement, Prior, Solution, Solver, as_solver, guard, operators, posterior, samplers, times
from diffinv.operators.base import Operator
from diffinv.process import VP
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


def published(method: Callable, steps: int, grid: Callable[[int], Array] = times.grid) -> Build:
    """A method with its paper's defaults and number of steps (`config.steps`, where that is not 0)."""
    return lambda config, prior: as_solver(lambda m: guard(method(prior, m)), grid(config.steps or steps))


def _cooling(steps: int) -> Array:
    """PnP-DM's noise levels, `max(10 0.9^k, 0.3)` and 0."""
    sigmas = jnp.append(jnp.maximum(10 * 0.9 ** jnp.arange(steps), 0.3), 0.0)
    return times.from_sigma(VP(), sigmas)


def _purifying(steps: int) -> Array:
    """DCDP's noise levels, from 0.4 to one step of a thousand, and 0."""
    return jnp.append(jnp.linspace(0.4, 1e-3, steps), 0.0)


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
    "ddrm": published(posterior.ddrm, 20),
    "ddnm_plus": published(posterior.ddnm_plus, 100),
    "pgdm": published(posterior.pgdm, 100),
    "mcg": published(posterior.mcg, 1000),
    "lgd": published(posterior.lgd, 1000),
    "diffpir": published(posterior.diffpir, 100),
    "repaint": published(posterior.repaint, 250, lambda n: posterior.travel(times.grid(n))),
    "reddiff": published(posterior.reddiff, 1000),
    "sitcom": published(posterior.sitcom, 20),
    "dcdp": published(posterior.dcdp, 10, _purifying),
    "pnpdm": published(posterior.pnpdm, 100, _cooling),
    "mgps": published(posterior.mgps, 300),
    "mcgdiff": published(posterior.mcgdiff, 100),
    "tds": published(posterior.tds, 100),
    "fps": published(posterior.fps, 1000),
    "ddsmc": published(posterior.ddsmc, 200),
    "reguidance": reguidance,
}
LABELS = {
    "dps": "DPS", "daps": "DAPS", "pigdm": "PiGDM", "mmps": "MMPS", "tmpd": "TMPD", "ddnm": "DDNM", "ddrm": "DDRM",
    "ddnm_plus": "DDNM+", "pgdm": "PiGDM as published", "mcg": "MCG", "lgd": "LGD-MC", "diffpir": "DiffPIR",
    "repaint": "RePaint", "reddiff": "RED-diff", "sitcom": "SITCOM", "dcdp": "DCDP", "pnpdm": "PnP-DM", "mgps": "MGPS",
    "mcgdiff": "MCGDiff", "tds": "TDS", "fps": "FPS-SMC", "ddsmc": "DDSMC",
}  # fmt: skip


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
