r"""Phi-divergences: one function for the grey values of osmosis and for the densities of a diffusion process.

Both are Markov chains, and no phi-divergence between two laws grows when the same kernel acts on both.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jax.scipy.special import xlogy

from diffinv.typing import Array

Phi = Callable[[Array], Array]

PHI: dict[str, Phi] = {
    "kl": lambda r: xlogy(r, r) - r + 1,
    "reverse_kl": lambda r: r - 1 - jnp.log(r),
    "chi2": lambda r: (r - 1) ** 2,
    "tv": lambda r: 0.5 * jnp.abs(r - 1),
    "hellinger": lambda r: (jnp.sqrt(r) - 1) ** 2,
}


def phi_divergence(p: Array, q: Array, phi: Phi) -> Array:
    r"""`D_phi(p | q) = sum_i q_i phi(p_i / q_i)` over all coordinates; dimensionless (nats for "kl").

    Source: Csiszar 1967, Studia Sci. Math. Hungar. 2.

    Args:
      p, q: of one shape, of one sum: images and guides over their sums, or densities times the cell of a grid. `q > 0`.
      phi: convex, `phi(1) = 0`, see `PHI`.
    """
    return jnp.sum(q * phi(p / q))
