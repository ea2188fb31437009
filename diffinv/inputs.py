"""What a method may be given: each check names the argument, its value and what to do instead."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffinv.measure import GaussianNoise, Measurement, require_linear
from diffinv.operators.base import LinearOperator
from diffinv.operators.spectra import Spectrum
from diffinv.prior import Prior


def concrete(value: Any) -> bool:
    """True where the value is known while the program is built, not only when it runs."""
    return not isinstance(value, jax.core.Tracer)


def require_fit(prior: Prior, measurement: Measurement, method: str) -> None:
    """ValueError where operator, `y` and the prior's shape do not fit, or a concrete `y` is not finite."""
    operator, y = measurement.operator, measurement.y
    if tuple(operator.shape) != tuple(prior.shape):
        name = type(operator).__name__
        raise ValueError(f"{method}: operator {name} takes {operator.shape}, the prior has {prior.shape}: match them")
    like = jax.eval_shape(operator, jax.ShapeDtypeStruct(prior.shape, jnp.finfo(y.dtype).dtype))
    if tuple(like.shape) != tuple(y.shape):
        raise ValueError(f"{method}: y has shape {y.shape}; {type(operator).__name__} gives {like.shape}: reshape y")
    bad = int(np.sum(~np.isfinite(np.asarray(y)))) if concrete(y) else 0
    if bad:
        raise ValueError(f"{method}: y has {bad} values that are not finite; mask them with operators.inpainting")


def require_noise(measurement: Measurement, method: str, instead: str) -> None:
    """ValueError where a concrete `sigma_y` is not above 0; `instead` names what would do."""
    if not (hasattr(measurement.noise, "sigma") or hasattr(measurement.noise, "peak")):
        return  # a law of one's own without a level
    sigma = measurement.sigma
    if concrete(sigma) and not np.all(np.asarray(sigma) > 0):
        raise ValueError(f"{method}: sigma_y is {sigma}, and it divides by it; give a sigma above 0, or use {instead}")


def require_gaussian(measurement: Measurement, method: str, instead: str) -> None:
    """TypeError where the noise has another law than Gaussian; `instead` names what honours it."""
    if not isinstance(measurement.noise, GaussianNoise):
        name = type(measurement.noise).__name__
        raise TypeError(f"{method} draws from Gaussian noise, and this is {name}; use {instead}, which honours it")


def require_count(name: str, value: int, least: int = 1) -> None:
    """ValueError where a static count is under `least`, or no whole number."""
    if isinstance(value, bool) or int(value) != value or value < least:
        raise ValueError(f"{name} is {value}; it must be a whole number, at least {least}")


def require_choice(name: str, value: str, known: Collection[str]) -> None:
    """ValueError where the value is not one of the known ones."""
    if value not in known:
        raise ValueError(f"{name} is {value!r}; choose one of {', '.join(known)}")


def require_spectrum(measurement: Measurement, method: str) -> Spectrum:
    """The operator's singular value decomposition, or TypeError that says which methods need none."""
    operator = require_linear(measurement, method)
    if type(operator).spectrum is LinearOperator.spectrum:
        name = type(operator).__name__
        raise TypeError(f"operator {name} has no spectrum(), which {method} needs: use ddnm, pigdm, diffpir or mmps")
    return operator.spectrum()
