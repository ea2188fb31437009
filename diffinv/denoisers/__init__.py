"""Denoisers `(x, t) -> E[x_0 | x_t]` beside the network's: exact, spectral, of another process or size, symmetric."""

from collections.abc import Callable

from diffinv.denoisers.equivariant import FLIPS, MIRROR, SQUARE, Motion, Symmetric, symmetric
from diffinv.denoisers.exact import (
    FullMixtureDenoiser,
    GaussianDenoiser,
    MixtureDenoiser,
    finite,
    gaussian,
    gaussian_field,
    gaussian_mixture,
    mixture,
)
from diffinv.denoisers.rescheduled import Rescheduled
from diffinv.denoisers.sized import Sized
from diffinv.denoisers.spectral import SpectralDenoiser, spectral_prior
from diffinv.prior import Prior

EXACT: dict[str, Callable[..., Prior]] = {
    "gaussian": gaussian,
    "gaussian_field": gaussian_field,
    "mixture": mixture,
    "gaussian_mixture": gaussian_mixture,
    "finite": finite,
}
"""Priors that are known exactly, by name: `(process, *numbers) -> Prior`."""

__all__ = [
    "EXACT",
    "FLIPS",
    "FullMixtureDenoiser",
    "GaussianDenoiser",
    "MIRROR",
    "MixtureDenoiser",
    "Motion",
    "Rescheduled",
    "SQUARE",
    "Sized",
    "SpectralDenoiser",
    "Symmetric",
    "finite",
    "gaussian",
    "gaussian_field",
    "gaussian_mixture",
    "mixture",
    "spectral_prior",
    "symmetric",
]
