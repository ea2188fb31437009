"""What ReGuidance makes of a perfect candidate, where everything is known: a Gaussian prior, one pixel, no noise drawn.

The guidance of DPS compares y with the denoiser's mean at each level, which lies nearer to the prior's mean than the
candidate that the path leads back to; so it pulls on a path that needs no pull, and contrast grows. Each cell is the
factor by which a departure from the prior's mean comes back, 1 where nothing is lost or gained.

    python -m experiments.tables.contrast [--horizons=0.05,0.2] [--rhos=1,8] [--steps=20]
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from types import SimpleNamespace

from experiments.common import runtime  # noqa: F401  isort: skip  (before jax)

import jax
import jax.numpy as jnp
import numpy as np

import diffinv as di
from diffinv import operators, posterior, samplers, schema, times
from diffinv.posterior import rewards
from diffinv.typing import Array
from experiments.tables import published
from experiments.tables.published import Option, numbers

DEVIATIONS = (0.1, 0.3, 0.5)
"""Of pictures in [-1, 1] from their mean."""


def contrast(deviation: Array, horizon: Array, rho: Array, steps: int, power: float = 2.0) -> Array:
    """The reconstruction of x = 1 from y = 1 and the candidate 1, under the prior N(0, deviation^2): 1 is perfect.

    Under the process EDM with the DPS-ODE of `rewards.square`, as ReGuidance is defined; the map is linear, so that it
    is the factor by which every departure from the prior's mean comes back.
    """
    process = di.process.EDM()
    prior = di.gaussian(process, jnp.zeros(1), deviation**2 * jnp.eye(1))
    measurement = di.Measurement(operators.identity((1,)), jnp.ones(1), di.GaussianNoise(0.0))
    grid = times.grid(steps, horizon, power)
    refine = di.as_solver(lambda m: samplers.heun(posterior.dps_score(prior, m, rho, rewards.square)), grid)
    given = lambda key, m, x=None: di.Solution(x, ())
    return posterior.reguidance(given, refine, prior, grid)(di.seed_key(0), measurement, jnp.ones(1)).x[0]


def rows(settings: Sequence[tuple[float, float, int]]) -> list[np.ndarray]:
    """For each (T, rho, steps) the contrast at each of `DEVIATIONS`."""
    program = jax.jit(jax.vmap(contrast, (0, None, None, None)), static_argnums=3)
    return [np.asarray(program(jnp.asarray(DEVIATIONS), T, rho, steps)) for T, rho, steps in settings]


NUMBERS = {
    "horizons": schema.number("T", above=0, high=1),
    "rhos": schema.number("weight of the guidance", above=0, high=1e6),
    "steps": schema.whole("of the inversion, and of the return", 2, 10_000),
}
DEFAULTS = {"horizons": [0.05, 0.2, 0.5], "rhos": [1.0, 3.0, 8.0], "steps": [20]}
OPTIONS = {name: Option(DEFAULTS[name], DEFAULTS[name][:1], numbers(field)) for name, field in NUMBERS.items()}


def main(options: SimpleNamespace) -> published.Table:
    settings = list(itertools.product(options.horizons, options.rhos, options.steps))
    found = rows(settings)
    lines = [
        (f"T {T:g}, rho {rho:g}, {steps} steps", *(f"{value:.2f}" for value in values))
        for (T, rho, steps), values in zip(settings, found)
    ]
    head = ("perfect candidate", *(f"N(0, {deviation}²)" for deviation in DEVIATIONS))
    return published.table(published.columns([head, *lines]), found)


if __name__ == "__main__":
    published.run(main, OPTIONS)
