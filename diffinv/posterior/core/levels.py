"""Noise-to-signal and clean starts, finite where a process has no signal: see `process.DEAD`."""

from __future__ import annotations

import jax.numpy as jnp

from diffinv.process import DEAD, Process
from diffinv.typing import Array, Time


def noise_to_signal(process: Process, t: Time) -> Array:
    """`sigma_t / alpha_t`, at most `1 / DEAD`: where alpha(1) = 0 (Flow) it would be infinite."""
    return jnp.minimum(jnp.exp(-0.5 * process.log_snr(t)), 1 / DEAD)


def clean_start(process: Process, t: Time, x: Array, otherwise: Array | float) -> Array:
    """The clean estimate `x / alpha_t` of a given start, or `otherwise` where alpha is under `DEAD`."""
    alpha = process.alpha(t)
    return jnp.where(alpha > DEAD, x / jnp.maximum(alpha, DEAD), otherwise)
