"""diffinv: inverse problems with diffusion priors, as composable pure functions in JAX."""

from diffinv import (
    charts,
    consistency,
    degrade,
    linalg,
    operators,
    osmosis,
    posterior,
    process,
    samplers,
    scalespace,
    sharding,
    tiles,
    times,
)
from diffinv.guided import Guided, guided
from diffinv.measure import GaussianNoise, Measurement, Noise, PoissonNoise, measure
from diffinv.prior import NetworkDenoiser, Prior, finite, gaussian, gaussian_field, gaussian_mixture, mixture
from diffinv.progress import interruptible, progress
from diffinv.sample import as_solver, first_bad_step, guard, markov, record, remat, sample, sweep
from diffinv.seeds import seed_key
from diffinv.show import show
from diffinv.train import trainer
from diffinv.typing import Cost, Gaussian, Sampler, Solution, Solver, StepInfo

__version__ = "0.1.0"

__all__ = [
    "Cost",
    "Gaussian",
    "GaussianNoise",
    "Guided",
    "Measurement",
    "NetworkDenoiser",
    "Noise",
    "PoissonNoise",
    "Prior",
    "Sampler",
    "Solution",
    "Solver",
    "StepInfo",
    "as_solver",
    "charts",
    "consistency",
    "degrade",
    "finite",
    "first_bad_step",
    "gaussian",
    "gaussian_field",
    "gaussian_mixture",
    "guard",
    "guided",
    "interruptible",
    "linalg",
    "markov",
    "measure",
    "mixture",
    "operators",
    "osmosis",
    "posterior",
    "process",
    "progress",
    "record",
    "remat",
    "sample",
    "samplers",
    "scalespace",
    "seed_key",
    "sharding",
    "show",
    "sweep",
    "tiles",
    "times",
    "trainer",
]
