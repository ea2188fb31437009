"""What a process must be so that it begins in noise and ends in data. Traced values are not checked."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def require_rates(**rates: Any) -> None:
    """ValueError where a rate of noise, a Python float, is negative or NaN."""
    if any(isinstance(rate, float) and not rate >= 0 for rate in rates.values()):
        given = ", ".join(f"{name} {rate}" for name, rate in rates.items())
        raise ValueError(f"rates are {given}; the signal-to-noise ratio must fall: give rates of at least 0")


def require_table(table: Any) -> None:
    """ValueError where a known table of `log alpha`, (K + 1,), does not start at 0, the data, or rises."""
    if isinstance(table, jax.core.Tracer) or not isinstance(table, jax.Array | np.ndarray) or not table.ndim:
        return
    known = np.asarray(table, np.float64)
    if np.any(known[..., 0] != 0):
        raise ValueError(f"table starts at {known.flat[0]:.3g}; log alpha at time 0, the data, is 0: put a 0 before it")
    if not np.all(known[..., 1:] <= known[..., :-1]):
        raise ValueError(
            "table rises, or has no numbers; log alpha falls with time: give 0 and 0.5 cumsum(log1p(-beta))"
        )


def require_noisy_end(process: Any) -> None:
    """Raises ValueError where a known process has `alpha > sigma / 5` at time 1: noise alone would be a wrong start."""
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(process)):
        return
    with jax.ensure_compile_time_eval():
        alpha, sigma = float(jnp.max(process.alpha(1.0))), float(jnp.min(process.sigma(1.0)))
    if alpha > 0.2 * sigma:
        found = f"{type(process).__name__} ends at alpha {alpha:.3g}, sigma {sigma:.3g}"
        raise ValueError(f"{found}: no noise alone; give a schedule that ends in noise, a start x, or Prior(law=...)")


def require_same(process: Any, denoise: Any) -> None:
    """ValueError where a denoiser's own process is of another kind, or has other Python floats."""
    own = getattr(denoise, "process", None)
    if not (hasattr(own, "log_alpha") and hasattr(process, "log_alpha")):
        return
    given, inner = (_floats(one) for one in (process, own))
    if type(process) is type(own) and (len(given) != len(inner) or given == inner):
        return
    owner, kinds = type(denoise).__name__, [type(one).__name__ for one in (process, own)]
    names = f"process is {kinds[0]} {given}, that of {owner} is {kinds[1]} {inner}"
    raise ValueError(f"{names}; build both for one process (a network serves another by denoisers.Rescheduled)")


def _floats(process: Any) -> list[float]:
    return [leaf for leaf in jax.tree.leaves(process) if isinstance(leaf, float)]
