"""Probabilistic scale-spaces: what a process does to the law of the data, measured beside what is derived."""

from diffinv.denoisers.spectral import SpectralDenoiser, cosines, field, spectral_error, spectral_loss, spectral_prior
from diffinv.scalespace.axioms import Property, PropertyReport, chapman_kolmogorov, properties
from diffinv.scalespace.blocks import Relay, basis, block_dct, relay, spectral_codes
from diffinv.scalespace.divergences import PHI, phi_divergence

__all__ = [
    "PHI",
    "Property",
    "PropertyReport",
    "Relay",
    "SpectralDenoiser",
    "basis",
    "block_dct",
    "chapman_kolmogorov",
    "cosines",
    "field",
    "phi_divergence",
    "properties",
    "relay",
    "spectral_codes",
    "spectral_error",
    "spectral_loss",
    "spectral_prior",
]
