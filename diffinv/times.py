"""Time grids: arrays that run from noise to data and end at an exact 0.

All functions take a static number of `steps` and return `steps + 1` decreasing times; reverse one (`grid[::-1]`) to
go from data to noise, after replacing its 0 (see `ascending`).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from diffinv.process import Process
from diffinv.typing import Array


def _checked(steps: int) -> int:
    if steps < 1:
        raise ValueError(f"steps is {steps}; a time grid needs at least 1 step")
    return steps


def grid(steps: int, start: float = 1.0, power: float = 1.0) -> Array:
    """`t_i = start (1 - i/steps)^power`, the last exactly 0. `power = 2` puts more times near the data.

    Original. Dimensionless. Raises ValueError for fewer than 1 step.
    """
    return start * (1 - jnp.arange(_checked(steps) + 1) / steps) ** power


def karras(steps: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> Array:
    r"""EDM's grid for the `EDM` process, as `t = sigma / sigma_max`:

        sigma_i = (sigma_max^{1/rho} + i/(steps-1) (sigma_min^{1/rho} - sigma_max^{1/rho}))^rho,  sigma_steps = 0.

    Source: Karras et al. 2022, arXiv:2206.00364, eq. 5. Raises ValueError for fewer than 1 step.
    """
    ramp = jnp.arange(_checked(steps)) / max(steps - 1, 1)
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    return jnp.append((high + ramp * (low - high)) ** rho / sigma_max, 0.0)


def from_sigma(process: Process, sigma: Array) -> Array:
    """The times at which an isotropic process has noise-to-signal `sigma_t / alpha_t = sigma`, by 60 bisections.

    Original. `sigma` of any shape; 0 gives time 0, and a level beyond the process's last gives 1.
    """
    target = -2 * jnp.log(jnp.asarray(sigma))

    def halve(_: int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        middle = 0.5 * (ends[0] + ends[1])
        noisy = process.log_snr(middle) < target
        return jnp.where(noisy, ends[0], middle), jnp.where(noisy, middle, ends[1])

    low, high = jax.lax.fori_loop(0, 60, halve, (jnp.zeros_like(target), jnp.ones_like(target)))
    return jnp.where(jnp.isposinf(target), 0.0, 0.5 * (low + high))


def log_snr(process: Process, steps: int, sigma_min: float = 0.002, sigma_max: float = 80.0) -> Array:
    """Times equally spaced in the log-SNR of an isotropic process, between two noise-to-signal ratios, then 0.

    Source: Lu et al. 2022, arXiv:2206.00927, section 3.4 (uniform lambda). Raises ValueError for fewer than 1 step.
    """
    ramp = jnp.linspace(0.0, 1.0, _checked(steps))
    return jnp.append(from_sigma(process, sigma_max ** (1 - ramp) * sigma_min**ramp), 0.0)


def ascending(times: Array, first: float = 1e-3) -> Array:
    """The grid of an inversion, data to noise: `times` reversed, its 0 replaced by the small positive `first`.

    Original. `first` is a time (dimensionless); the first step's error is set by it, so it is an argument.
    """
    times = times[::-1]
    return times.at[0].set(jnp.minimum(first, 0.5 * times[1]))
