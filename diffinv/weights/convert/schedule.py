"""The discrete schedules of public checkpoints."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from diffinv.process import DDPM


def _betas(kind: str, steps: int, beta_min: float, beta_max: float) -> np.ndarray:
    if kind == "linear":
        return np.linspace(beta_min, beta_max, steps)
    if kind == "scaled_linear":
        return np.linspace(beta_min**0.5, beta_max**0.5, steps) ** 2
    bar = np.cos((np.arange(steps + 1) / steps + 0.008) / 1.008 * np.pi / 2) ** 2
    return np.minimum(1 - bar[1:] / bar[:-1], 0.999)


def discrete(kind: str = "linear", steps: int = 1000, beta_min: float = 1e-4, beta_max: float = 0.02) -> DDPM:
    """A published table of `steps` betas as a process, in float32 from float64 sums; arguments static.

    Source: "linear", Ho et al. 2020, arXiv:2006.11239, section 4; "cosine", Nichol & Dhariwal 2021, arXiv:2102.09672,
    eq. 17 with its offset and its bound 0.999; "scaled_linear", linear in the root (Rombach et al. 2022's code).
    Raises ValueError for another kind, and for other than the 1000 steps whose indices the networks take.
    """
    if kind not in ("linear", "scaled_linear", "cosine"):
        raise ValueError(f"schedule is {kind!r}; known are linear, scaled_linear and cosine")
    if steps != 1000:
        raise ValueError(f"the schedule has {steps} steps, and 1000 are supported; use a network of 1000 steps")
    beta = _betas(kind, steps, beta_min, beta_max)
    return DDPM(jnp.asarray(np.append(0.0, 0.5 * np.cumsum(np.log1p(-beta))), jnp.float32))


def check_betas(betas: np.ndarray, card: dict) -> None:
    """Raises ValueError where `betas`, found beside the weights, are not those of the card's process."""
    expected = _betas(card["kind"], card["steps"], card.get("beta_min", 1e-4), card.get("beta_max", 0.02))
    if len(betas) != len(expected) or np.abs(betas - expected).max() > 1e-4 * expected.max():
        show = lambda b: f"{len(b)} steps from {b[0]:.3g} to {b[-1]:.3g}"
        raise ValueError(
            f"the checkpoint's betas are {show(betas)}, its schedule's {show(expected)}; name the right one"
        )
