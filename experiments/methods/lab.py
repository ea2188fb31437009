"""The methods of the exact lab: each with its grid and the values of its own hyperparameter that are tried.

Another method is one more line: name: Method(`(prior, measurement, value) -> Sampler`, values, steps, what it claims).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

import diffinv as di
from diffinv import posterior, samplers, times
from diffinv.typing import Array, Solver


class Method(NamedTuple):
    """One row of the table.

    Attributes:
      build: `(prior, measurement, value) -> Sampler`.
      knob: the hyperparameter's name; values: what is tried, the published default among them.
      claim: "exact" for Gaussian posteriors, "asymptotic" (in particles or steps), or "biased".
      steps: of the grid. wrap: `(solver, prior, grid, value) -> Solver` around it.
    """

    build: Callable
    knob: str
    values: tuple[float, ...]
    claim: str
    steps: int = 100
    wrap: Callable | None = None
    linear: bool = True


def _under(sampler: Callable, transform: Callable) -> Callable:
    """A guided prior under a sampler."""
    return lambda prior, m, value: sampler(transform(prior, m, value))


def _ddim(prior: di.Prior) -> di.Sampler:
    return samplers.ddim(prior, 1.0)


def _assuming(measurement: di.Measurement, factor: Array) -> di.Measurement:
    """The measurement with its noise's deviation scaled."""
    return measurement.replace(noise=di.GaussianNoise(factor * measurement.sigma))


def _reguidance(solver: Solver, prior: di.Prior, grid: Array, value: Array) -> Solver:
    """ReGuidance around a solver; `value` is its rho."""
    score = lambda m: samplers.heun(posterior.dps_score(prior, m, value, "likelihood"))
    return posterior.reguidance(solver, di.as_solver(score, grid), prior, grid)


NOISE = (0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0, 3.0)
STEP = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
ETA = (0.0, 0.2, 0.4, 0.6, 0.7, 0.85, 0.95, 1.0)
SMALL = (1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 0.6, 1.0)
WIDE = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)

METHODS: dict[str, Method] = {
    "TMPD exact": Method(
        _under(samplers.heun, lambda p, m, v: posterior.tmpd(p, _assuming(m, v))), "noise", NOISE, "exact", 64
    ),
    "MMPS": Method(
        _under(samplers.heun, lambda p, m, v: posterior.mmps(p, _assuming(m, v))), "noise", NOISE, "exact", 64
    ),
    "TMPD diagonal": Method(
        _under(samplers.heun, lambda p, m, v: posterior.tmpd(p, _assuming(m, v), "diagonal")), "noise", NOISE, "biased"
    ),
    "PiGDM likelihood": Method(_under(_ddim, lambda p, m, v: posterior.pigdm(p, m, v)), "weight", STEP, "biased"),
    "PiGDM published": Method(lambda p, m, v: posterior.pgdm(p, m, v, eta=1.0), "weight", STEP, "biased"),
    "DPS": Method(lambda p, m, v: posterior.dps(p, m, v), "zeta", STEP, "biased"),
    "DPS likelihood": Method(lambda p, m, v: posterior.dps(p, m, v, "likelihood"), "zeta", SMALL, "biased"),
    "MCG": Method(lambda p, m, v: posterior.mcg(p, m, v), "zeta", SMALL, "biased"),
    "LGD": Method(lambda p, m, v: posterior.lgd(p, m, v), "scale", STEP, "biased"),
    "DDNM": Method(lambda p, m, v: samplers.ddim(posterior.ddnm(p, m), v), "eta", ETA, "biased"),
    "DDNM+": Method(lambda p, m, v: posterior.ddnm_plus(p, m, v), "eta", ETA, "biased"),
    "DDRM": Method(lambda p, m, v: posterior.ddrm(p, m, v), "eta", ETA, "biased"),
    "RePaint": Method(lambda p, m, v: posterior.repaint(p, m, v), "eta", ETA, "biased"),
    "DiffPIR": Method(lambda p, m, v: posterior.diffpir(p, m, v), "lam", STEP, "biased"),
    "RED-diff": Method(lambda p, m, v: posterior.reddiff(p, m, v), "lr", SMALL, "biased", 200),
    "SITCOM": Method(lambda p, m, v: posterior.sitcom(p, m, 5, v), "lr", SMALL, "biased", 30),
    "DCDP": Method(lambda p, m, v: posterior.dcdp(p, m, 10, v, purify_steps=5), "lr", SMALL, "biased", 20),
    "DAPS": Method(lambda p, m, v: posterior.daps(p, m, lr=v, mcmc_steps=40), "lr", SMALL, "biased", 50),
    "DAPS conjugate": Method(
        lambda p, m, v: posterior.daps(p, m, chain="conjugate", spread=v), "spread", (0.1, *NOISE[:7]), "biased", 50
    ),
    "PnP-DM": Method(
        lambda p, m, v: posterior.pnpdm(p, _assuming(m, v), 20, "conjugate"), "noise", NOISE, "asymptotic", 50
    ),
    "MCGDiff 16": Method(lambda p, m, v: posterior.mcgdiff(p, m, 16, eta=v), "eta", ETA[1:], "asymptotic"),
    "MCGDiff 64": Method(lambda p, m, v: posterior.mcgdiff(p, m, 64, eta=v), "eta", ETA[1:], "asymptotic"),
    "TDS 16": Method(lambda p, m, v: posterior.tds(p, m, 16, spread=v), "spread", WIDE, "asymptotic"),
    "FPS 16": Method(lambda p, m, v: posterior.fps(p, m, 16, v), "c", ETA[1:], "asymptotic"),
    "DDSMC 16": Method(lambda p, m, v: posterior.ddsmc(p, m, 16, v), "eta", ETA, "biased"),
    "MGPS": Method(lambda p, m, v: posterior.mgps(p, m, lr=v, threshold=2.0), "lr", SMALL, "biased", 50),
    "ReGuidance(DDRM)": Method(lambda p, m, v: posterior.ddrm(p, m), "rho", STEP, "biased", 50, _reguidance),
    "ReGuidance(DPS)": Method(lambda p, m, v: posterior.dps(p, m, 0.3), "rho", STEP, "biased", 50, _reguidance),
}


def solver(method: Method, prior: di.Prior, value: Array) -> Solver:
    """The solver of one row at one value of its hyperparameter, guarded and with its grid."""
    grid = times.grid(method.steps, power=2.0)
    plain = di.as_solver(lambda m: di.guard(method.build(prior, m, value)), grid)
    return method.wrap(plain, prior, grid, jnp.asarray(value)) if method.wrap else plain
