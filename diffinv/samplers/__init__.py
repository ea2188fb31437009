"""Unconditional samplers `Prior -> Sampler`, the probability-flow ODE's inversion and its likelihood."""

from diffinv.samplers.embedded import adaptive
from diffinv.samplers.likelihood import Likelihood, divergence, invert, log_likelihood
from diffinv.samplers.multistep import MultistepState, dpmpp_2m, dpmpp_2m_sde, dpmpp_3m, dpmpp_3m_sde, unipc
from diffinv.samplers.single import ancestral, ddim, euler, heun, learned_range, renoise
from diffinv.samplers.stochastic import annealed_langevin, churn, predictor_corrector

__all__ = [
    "Likelihood",
    "MultistepState",
    "adaptive",
    "ancestral",
    "annealed_langevin",
    "churn",
    "ddim",
    "divergence",
    "dpmpp_2m",
    "dpmpp_2m_sde",
    "dpmpp_3m",
    "dpmpp_3m_sde",
    "euler",
    "heun",
    "invert",
    "learned_range",
    "log_likelihood",
    "predictor_corrector",
    "renoise",
    "unipc",
]
