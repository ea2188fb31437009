"""diffinv: inverse problems with diffusion priors, as composable pure functions in JAX."""

from importlib import import_module as _import_module
from types import ModuleType as _ModuleType

from diffinv import (
    adapters,
    adversarial,
    augmentation,
    cascade,
    charts,
    consistency,
    degrade,
    denoisers,
    linalg,
    noises,
    operators,
    posterior,
    process,
    samplers,
    scalespace,
    sharding,
    tiles,
    times,
)
from diffinv.codec import Codec, LatentPrior
from diffinv.denoisers import finite, gaussian, gaussian_field, gaussian_mixture, mixture
from diffinv.display import show
from diffinv.loop import as_solver, first_bad_step, guard, markov, record, remat, sample, sweep
from diffinv.measurement import GaussianNoise, Measurement, Noise, PoissonNoise, measure
from diffinv.posterior.core.guided import Guided, guided
from diffinv.prior import NetworkDenoiser, Prior
from diffinv.scalespace import osmosis
from diffinv.seeds import seed_key
from diffinv.train import trainer
from diffinv.typing import Cost, Gaussian, Sampler, Solution, Solver, StepInfo
from diffinv.watch import interruptible, progress

__version__ = "0.1.0"

__all__ = [
    "Codec",
    "Cost",
    "Gaussian",
    "GaussianNoise",
    "Guided",
    "LatentPrior",
    "Measurement",
    "NetworkDenoiser",
    "Noise",
    "PoissonNoise",
    "Prior",
    "Sampler",
    "Solution",
    "Solver",
    "StepInfo",
    "adapters",
    "adversarial",
    "as_solver",
    "augmentation",
    "cascade",
    "charts",
    "consistency",
    "data",
    "degrade",
    "denoisers",
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
    "metrics",
    "mixture",
    "nn",
    "noises",
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
    "weights",
]

_LATER = (
    "data",
    "metrics",
    "nn",
    "weights",
)  # heavy, or in want of packages that an accelerator often lacks


def __getattr__(name: str) -> _ModuleType:
    """The rooms of `_LATER` where they are first asked for."""
    if name in _LATER:
        return _import_module(f"diffinv.{name}")
    raise AttributeError(f"module 'diffinv' has no attribute {name!r}")
