"""Samplers by the names that configurations give them; `config.guided.sampler` runs a guided prior."""

from __future__ import annotations

from collections.abc import Callable

from diffinv import Prior, samplers
from diffinv.typing import Array, Sampler

SAMPLERS: dict[str, Callable[[Prior, int, Array | float], Sampler]] = {
    "ddim": lambda prior, steps, eta: samplers.ddim(prior, eta),
    "ancestral": lambda prior, steps, eta: samplers.ancestral(prior),
    "euler": lambda prior, steps, eta: samplers.euler(prior),
    "heun": lambda prior, steps, eta: samplers.heun(prior),
    "churn": lambda prior, steps, eta: samplers.churn(prior, steps),
    "dpmpp_2m": lambda prior, steps, eta: samplers.dpmpp_2m(prior),
    "dpmpp_3m": lambda prior, steps, eta: samplers.dpmpp_3m(prior),
    "dpmpp_2m_sde": lambda prior, steps, eta: samplers.dpmpp_2m_sde(prior, eta),
    "dpmpp_3m_sde": lambda prior, steps, eta: samplers.dpmpp_3m_sde(prior, eta),
    "unipc": lambda prior, steps, eta: samplers.unipc(prior),
    "predictor_corrector": lambda prior, steps, eta: samplers.predictor_corrector(prior),
    "annealed_langevin": lambda prior, steps, eta: samplers.annealed_langevin(prior),
    "adaptive": lambda prior, steps, eta: samplers.adaptive(prior),
}
"""`(prior, steps of the grid, eta) -> Sampler`; `eta` is the fresh noise of those that have such a setting."""
