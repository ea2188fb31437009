"""Tasks and solvers by name, each one entry, and the fields of the configuration that they read.

One's own solver is a function from configuration and prior to a `Solver`, and one entry of `SOLVERS`; its settings are
fields of `FIELDS`, with defaults in configs/reconstruct.py. One's own task is an entry of `TASKS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from diffinv import Measurement, Prior, Solution, Solver, as_solver, guard, operators, posterior, samplers, times
from diffinv.operators.base import Operator
from diffinv.schema import Schema, choice, either, exactly, number, switch, whole
from diffinv.typing import Array, Key

Build = Callable[[ConfigDict, Prior], Solver]


class Entry(NamedTuple):
    """A solver: what the report calls it, how it is made, and whether it divides by the noise, which 0 then is not."""

    label: str
    build: Build
    needs_noise: bool = False

    def __call__(self, config: ConfigDict, prior: Prior) -> Solver:
        return self.build(config, prior)


class Task(NamedTuple):
    """A task: its operator for one picture's shape, and whether it needs three channels."""

    operator: Callable[[ConfigDict, Key, tuple[int, ...]], Operator]
    colour: bool = False

    def __call__(self, config: ConfigDict, key: Key, shape: tuple[int, ...]) -> Operator:
        return self.operator(config, key, shape)


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


Grid = Callable[[int, ConfigDict, Prior], Array]


def published(method: Callable, steps: int, grid: Grid = lambda n, config, prior: times.grid(n)) -> Build:
    """A method with its paper's defaults and number of steps (`config.steps`, where that is not 0)."""

    def build(config: ConfigDict, prior: Prior) -> Solver:
        return as_solver(lambda m: guard(method(prior, m)), grid(config.steps or steps, config, prior))

    return build


def lgd(config: ConfigDict, prior: Prior) -> Solver:
    """LGD-MC, whose scale is a task's own: the published ones, 3e-3 and the like, belong to problems of other units."""
    method = lambda m: guard(posterior.lgd(prior, m, config.lgd.scale))
    return as_solver(method, times.grid(config.steps or 1000))


def tds(config: ConfigDict, prior: Prior) -> Solver:
    """TDS, whose `spread` takes the data to have unit variance."""
    method = lambda m: guard(posterior.tds(prior, m, spread=config.tds.spread))
    return as_solver(method, times.grid(config.steps or 100))


def _cooling(steps: int, config: ConfigDict, prior: Prior) -> Array:
    """PnP-DM's noise levels, `max(10 0.9^k, 0.3)` and 0, as times of the prior's process."""
    sigmas = np.append(np.maximum(10 * 0.9 ** np.arange(steps), 0.3), 0.0)
    return times.from_sigma(prior.process, jnp.asarray(sigmas, float))


def _fitted(steps: int, config: ConfigDict, prior: Prior) -> Array:
    """The published indices, but for a last third that goes down to the noise of y."""
    return times.fitted(prior.process, times.leading(steps), config.sigma_y)


def _quadratic(steps: int, config: ConfigDict, prior: Prior) -> Array:
    """DiffPIR's "quad" levels, `1 - sqrt(k / (steps - 1))`, dense near the data; the last is one step of a thousand, or
    half of the one before where that is less."""
    falling = 1 - np.sqrt(np.arange(steps - 1) / (steps - 1))
    return jnp.asarray([*falling, min(1e-3, falling[-1] / 2), 0.0], float)


def _purifying(steps: int, config: ConfigDict, prior: Prior) -> Array:
    """DCDP's noise levels, from 0.4 to one step of a thousand, and 0."""
    return jnp.append(jnp.linspace(0.4, 1e-3, steps), 0.0)


def _travelling(steps: int, config: ConfigDict, prior: Prior) -> Array:
    """RePaint's way, down and up again."""
    return posterior.travel(times.grid(steps))


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


SOLVERS: dict[str, Entry] = {
    "dps": Entry("DPS", dps),
    "daps": Entry("DAPS", daps),
    "pigdm": Entry("PiGDM", guided(lambda config, prior, m: posterior.pigdm(prior, m))),
    "mmps": Entry("MMPS", guided(lambda config, prior, m: posterior.mmps(prior, m, config.guided.iterations))),
    "tmpd": Entry("TMPD", guided(lambda config, prior, m: posterior.tmpd(prior, m, "diagonal"))),
    "ddnm": Entry("DDNM", guided(lambda config, prior, m: posterior.ddnm(prior, m))),
    "ddrm": Entry("DDRM", published(posterior.ddrm, 20, _fitted)),
    "ddnm_plus": Entry("DDNM+", published(posterior.ddnm_plus, 100, _fitted)),
    "pgdm": Entry("PiGDM as published", published(posterior.pgdm, 100)),
    "mcg": Entry("MCG", published(posterior.mcg, 1000)),
    "lgd": Entry("LGD-MC", lgd),
    "diffpir": Entry("DiffPIR", published(posterior.diffpir, 100, _quadratic)),
    "repaint": Entry("RePaint", published(posterior.repaint, 250, _travelling)),
    "reddiff": Entry("RED-diff", published(posterior.reddiff, 1000)),
    "sitcom": Entry("SITCOM", published(posterior.sitcom, 20)),
    "dcdp": Entry("DCDP", published(posterior.dcdp, 10, _purifying)),
    "pnpdm": Entry("PnP-DM", published(posterior.pnpdm, 100, _cooling)),
    "mgps": Entry("MGPS", published(posterior.mgps, 300), True),
    "mcgdiff": Entry("MCGDiff", published(posterior.mcgdiff, 100)),
    "tds": Entry("TDS", tds, True),
    "fps": Entry("FPS-SMC", published(posterior.fps, 1000)),
    "ddsmc": Entry("DDSMC", published(posterior.ddsmc, 200), True),
    "reguidance": Entry("ReGuidance", reguidance),
}


def label(name: str, config: ConfigDict) -> str:
    """What the report calls a solver."""
    return f"ReGuidance({SOLVERS[config.base].label})" if name == "reguidance" else SOLVERS[name].label


def _box(config: ConfigDict, key: Key, shape: tuple[int, ...]) -> Operator:
    top, left, size = config.box.top, config.box.left, config.box.size
    if top == left == 0 and size >= max(shape[:2]):
        raise ValueError(f"config.box.size is {size}, which hides the whole picture; give less than {max(shape[:2])}")
    return operators.box_inpainting(shape, top, left, size)


def _gaussian_blur(config: ConfigDict, key: Key, shape: tuple[int, ...]) -> Operator:
    if config.blur.size > min(shape[:2]):
        raise ValueError(f"config.blur.size is {config.blur.size}; give a size that the picture has room for")
    return operators.gaussian_blur(shape, config.blur.size, config.blur.std, threshold=config.blur.threshold)


def _motion_blur(config: ConfigDict, key: Key, shape: tuple[int, ...]) -> Operator:
    return operators.motion_blur(key, shape, config.blur.size, threshold=config.blur.threshold)


TASKS: dict[str, Task] = {
    "box_inpainting": Task(_box),
    "random_inpainting": Task(lambda config, key, shape: operators.random_inpainting(key, shape, config.random.masked)),
    "freeform_inpainting": Task(lambda config, key, shape: operators.freeform_inpainting(key, shape)),
    "super_resolution": Task(lambda config, key, shape: operators.average_pool(shape, config.factor)),
    "bicubic": Task(lambda config, key, shape: operators.bicubic(shape, config.factor)),
    "colourisation": Task(lambda config, key, shape: operators.grayscale(shape), colour=True),
    "gaussian_blur": Task(_gaussian_blur),
    "motion_blur": Task(_motion_blur),
}


_steps = lambda meaning, low=1: whole(meaning, low, 100_000)
FIELDS: Schema = {
    "box": {
        "top": whole("first hidden row, of box_inpainting", 0, 65535, unit="pixels"),
        "left": whole("first hidden column", 0, 65535, unit="pixels"),
        "size": whole("side of the hidden square", 1, 65535, unit="pixels"),
    },
    "random": {"masked": number("share of hidden pixels, of random_inpainting", 0, below=1)},
    "factor": whole("of super_resolution and bicubic; it divides the prior's sides", 1, 1024),
    "blur": {
        "size": whole("side of the kernel of both blurs, odd", 1, 65535, unit="pixels"),
        "std": number("deviation of gaussian_blur", above=0, high=1e4, unit="pixels"),
        "threshold": number("transfer, relative to its greatest, under which a frequency counts as lost", 0, below=1),
    },
    "steps": either(
        exactly(0, "0 for the paper's"), _steps("", 2), meaning="of the solvers that run with their paper's defaults"
    ),
    "dps": {
        "steps": _steps("of the ancestral chain"),
        "zeta": number("step along the gradient of the un-squared residual", above=0, high=1e4),
        "clip": switch("whether the denoised picture is clipped to [-1, 1]"),
    },
    "daps": {
        "steps": _steps("noise levels", 2),
        "ode_steps": whole("of the inner ODE", 1, 10_000),
        "mcmc_steps": whole("of the chain at each level", 1, 100_000),
        "chain": choice(("langevin", "hmc", "metropolis", "conjugate"), "the inner chain"),
        "spread": number("of the inner law, relative to the noise", above=0, high=1e3),
        "lr": number("step of the chain, relative to both variances; stable below 2", above=0, high=1e3),
        "tau": number("noise that the chain assumes", above=0, high=1e3, unit="of y, on the [-1, 1] scale"),
        "decay": number("what lr has fallen to at the last levels", above=0, high=1),
        "sigma_max": number("first level", above=0, high=1e4, unit="noise-to-signal"),
        "sigma_min": number("last level before 0, below sigma_max", above=0, high=1e4, unit="noise-to-signal"),
        "sigma_end": number("where the inner ODE stops", above=0, high=1e4, unit="noise-to-signal"),
    },
    "lgd": {"scale": number("step along the gradient of the un-squared residual", above=0, high=1e4)},
    "tds": {"spread": number("of the twist, for data of unit variance; wider keeps far modes", above=0, high=1e6)},
    "reguidance": {
        "steps": _steps("of Heun's method", 2),
        "rho": number("weight of the guidance", above=0, high=1e6),
        "convention": choice(("square", "norm", "likelihood"), "which residual the guidance descends"),
        "horizon": number("time to which the candidate is noised", above=0, high=1),
        "power": number("of the time grid; 2 has more times near the data", above=0, high=100),
    },
    "guided": {
        "steps": _steps("of pigdm, mmps, tmpd and ddnm", 2),
        "iterations": whole("of conjugate gradients, of mmps", 1, 10_000),
        "eta": number("share of fresh noise in each step; 0 is DDIM", 0, 1),
    },
}


def shown(y: Array, shape: tuple[int, ...]) -> Array:
    """A real measurement as a picture of `shape`: low resolution by nearest, grey in three channels."""
    y = jnp.broadcast_to(y, (*y.shape[:2], shape[2])) if y.ndim == 3 else y
    return jax.image.resize(y, shape, "nearest")
