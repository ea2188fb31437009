"""The times at which `experiments.reconstruct` runs its methods: `(process, steps, config) -> Array`, from 1 to 0."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from diffinv import posterior, times
from diffinv.process import Process
from diffinv.typing import Array

Grid = Callable[[Process, int, ConfigDict], Array]


def even(process: Process, steps: int, config: ConfigDict) -> Array:
    """Equal steps of time."""
    return times.grid(steps)


def near_the_data(process: Process, steps: int, config: ConfigDict) -> Array:
    """Squared equal steps, of guided priors."""
    return times.grid(steps, power=2.0)


def annealing(process: Process, steps: int, config: ConfigDict) -> Array:
    """DAPS's noise levels (EDM's spacing, the last replaced by 0) as times of the prior's process."""
    low, high = config.daps.sigma_min, config.daps.sigma_max
    return times.from_sigma(process, high * times.karras(steps, low, high))


def cooling(process: Process, steps: int, config: ConfigDict) -> Array:
    """PnP-DM's noise levels, `max(10 0.9^k, 0.3)` and 0, as times of the prior's process."""
    sigmas = np.append(np.maximum(10 * 0.9 ** np.arange(steps), 0.3), 0.0)
    return times.from_sigma(process, jnp.asarray(sigmas, float))


def proximal(process: Process, steps: int, config: ConfigDict) -> Array:
    """DPnP's noise levels: a quarter of them at 0.4, the others by equal ratios to 0.16, and 0."""
    first = steps // 4
    sigmas = [*np.full(first, 0.4), *np.geomspace(0.4, 0.16, steps - first), 0.0]
    return times.from_sigma(process, jnp.asarray(sigmas, float))


def clocked(process: Process, steps: int, config: ConfigDict) -> Array:
    """FLAIR's: even between 1 and 0.18 by rectified flow's clock, without both ends, and 0."""
    even = jnp.linspace(1, 0.18, steps + 2)[1:-1]
    return jnp.append(posterior.calibration.clocked(process, even), 0.0)


def fitted(process: Process, steps: int, config: ConfigDict) -> Array:
    """DDRM's and DDNM's published indices, but for a last third that goes down to the noise of y."""
    return times.fitted(process, times.leading(steps), config.sigma_y)


def quadratic(process: Process, steps: int, config: ConfigDict) -> Array:
    """DiffPIR's "quad" levels, `1 - sqrt(k / (steps - 1))`, dense near the data.

    The last is one step of a thousand, or half of the one before where that is less.
    """
    falling = 1 - np.sqrt(np.arange(steps - 1) / (steps - 1))
    return jnp.asarray([*falling, min(1e-3, falling[-1] / 2), 0.0], float)


def purifying(process: Process, steps: int, config: ConfigDict) -> Array:
    """DCDP's noise levels, from 0.4 to one step of a thousand, and 0."""
    return jnp.append(jnp.linspace(0.4, 1e-3, steps), 0.0)


def travelling(process: Process, steps: int, config: ConfigDict) -> Array:
    """RePaint's way, down and up again."""
    return posterior.travel(times.grid(steps))


def from_horizon(process: Process, steps: int, config: ConfigDict) -> Array:
    """ReGuidance's times, which begin where the candidate is noised to."""
    return times.grid(steps, config.reguidance.horizon, config.reguidance.power)
