"""Posterior sampling: guidance transforms the prior, methods write a step, wrappers take a solver."""

from diffinv.posterior.annealing import daps
from diffinv.posterior.gradient import dps
from diffinv.posterior.guidance import dps_score, mmps, pigdm, tmpd
from diffinv.posterior.projection import ddnm
from diffinv.posterior.wrappers import best_of, reguidance, warm_start

__all__ = ["best_of", "daps", "ddnm", "dps", "dps_score", "mmps", "pigdm", "reguidance", "tmpd", "warm_start"]
