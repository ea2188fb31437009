"""What ReGuidance makes of a perfect candidate, where everything is known: a Gaussian prior, one pixel, no noise drawn.

The guidance of DPS compares y with the denoiser's mean at each level, which lies nearer to the prior's mean than the
candidate that the path leads back to; so it pulls on a path that needs no pull, and contrast grows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

import diffinv as di
from diffinv import operators, posterior, samplers, times
from diffinv.posterior import rewards
from diffinv.typing import Array

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


def rows(settings: Sequence[tuple[float, float, int]], told: Callable[[tuple], str] = str) -> list[tuple[str, ...]]:
    """A line for each (T, rho, steps): the contrast at each of `DEVIATIONS`."""
    program = jax.jit(jax.vmap(contrast, (0, None, None, None)), static_argnums=3)
    found = [np.asarray(program(jnp.asarray(DEVIATIONS), T, rho, steps)) for T, rho, steps in settings]
    return [(told(each), *(f"{value:.2f}" for value in values)) for each, values in zip(settings, found)]
