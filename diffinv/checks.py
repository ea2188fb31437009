"""What a method may be given: each check names the argument, its value and what to do instead."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffinv.linalg import LOST
from diffinv.measurement import GaussianNoise, Measurement, require_linear
from diffinv.operators.arguments import concrete
from diffinv.operators.base import LinearOperator, require_operator
from diffinv.operators.spectra import Spectrum
from diffinv.prior import Prior
from diffinv.process import require_isotropic
from diffinv.typing import Array


def require_fit(prior: Prior, measurement: Measurement, method: str, isotropic: bool = False) -> Measurement:
    """The measurement, as `require_sound` gives it; ValueError where operator, `y` and the prior's shape do not fit.

    `isotropic` says that the method gives y a noise level of the process, which blurring ones have for each frequency
    of x alone: ValueError for those.
    """
    operator, y = measurement.operator, measurement.y
    if isotropic:
        require_isotropic(prior.process, method, "mmps, dps or ddnm")
    require_operator(operator)
    if tuple(operator.shape) != tuple(prior.shape):
        name = type(operator).__name__
        raise ValueError(f"{method}: operator {name} takes {operator.shape}, the prior has {prior.shape}: match them")
    like = jax.eval_shape(operator, jax.ShapeDtypeStruct(prior.shape, jnp.finfo(y.dtype).dtype))
    if tuple(like.shape) != tuple(y.shape):
        raise ValueError(f"{method}: y has shape {y.shape}; {type(operator).__name__} gives {like.shape}: reshape y")
    return require_sound(measurement, method)


def require_sound(measurement: Measurement, method: str) -> Measurement:
    """The measurement, with `y` NaN where it is traced and has numbers beyond 1e18, or its noise a level that is none.

    So no finite sample comes of them: methods hand NaN on. A level is none that is negative, infinite or NaN.
    ValueError for a concrete `y` or level of the kind, and for a level that is no scalar.
    """
    y = measurement.y
    if concrete(y):
        bad = int(np.sum(~(np.abs(np.asarray(y)) < LOST)))
        if bad:
            raise ValueError(f"{method}: y has {bad} values that are not finite or beyond 1e18; mask them (inpainting)")
    else:
        measurement = _only_where(jnp.abs(y) < LOST, measurement)
    return _supported(_leveled(measurement, method), method)


def _leveled(measurement: Measurement, method: str) -> Measurement:
    """The measurement, with `y` NaN where the noise's level is traced and none; ValueError where it is known."""
    name, level = _level(measurement)
    if np.ndim(level):
        mended = "whiten its parts, operators.scale and operators.stack, or write a law of your own (Noise)"
        raise ValueError(f"{method}: {name} has shape {np.shape(level)}; one number serves a sample: {mended}")
    if not concrete(level):
        return _only_where((level >= 0) & jnp.isfinite(level), measurement)
    if not np.all((np.asarray(level) >= 0) & np.isfinite(np.asarray(level))):
        raise ValueError(f"{method}: {name} is {level}; give a finite number, at least 0")
    return measurement


def _supported(measurement: Measurement, method: str) -> Measurement:
    """The measurement, with `y` NaN where it is traced and holds what its law never gives; ValueError where known."""
    support, y = getattr(measurement.noise, "support", None), measurement.y
    if support is None:
        return measurement
    if not concrete(y):
        return _only_where(support(y), measurement)
    with jax.ensure_compile_time_eval():  # under jit even what is made of a known y would be traced
        given = np.asarray(support(y))
    if bad := int(np.sum(~given)):
        law = type(measurement.noise).__name__
        raise ValueError(
            f"{method}: y has {bad} values below -1, which {law} never gives; mask them, or check its scale"
        )
    return measurement


def require_noise(measurement: Measurement, method: str, instead: str) -> Measurement:
    """The measurement, with `y` NaN where a traced `sigma_y` is 0; ValueError where a concrete one is not above 0.

    `instead` names what would do.
    """
    name, level = _level(measurement)
    if not concrete(level):
        return _only_where(level > 0, measurement)
    if not np.all(np.asarray(level) > 0):
        raise ValueError(f"{method}: {name} is {level}, and it divides by it; give one above 0, or use {instead}")
    return measurement


def _level(measurement: Measurement) -> tuple[str, Any]:
    """What says how strong the noise is: a law of one's own may have nothing of the kind, which passes."""
    noise = measurement.noise
    if hasattr(noise, "peak"):
        return "peak", noise.peak
    return "sigma_y", getattr(noise, "sigma", 1.0)


def _only_where(sound: Array, measurement: Measurement) -> Measurement:
    return replace(measurement, y=jnp.where(jnp.all(sound), measurement.y, jnp.nan))


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


def require_value(name: str, value: Any, room: str, known: Mapping[str, str]) -> None:
    """TypeError where what should be a value that is called is none, as a name: it says which values there are.

    `known` has the names and how their values are written, in `posterior.room`.
    """
    if not callable(value):
        fitting = [known[value]] if isinstance(value, str) and value in known else list(known.values())
        values = ", ".join(f"posterior.{room}.{one}" for one in fitting)
        raise TypeError(f"{name} is {value!r}; give a value, not a name: {values}")


def require_switch(name: str, value: bool) -> None:
    """TypeError where a switch is neither True nor False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}; give True or False")


def require_spectrum(measurement: Measurement, method: str) -> Spectrum:
    """The operator's singular value decomposition, or TypeError that says which methods need none."""
    operator = require_linear(measurement, method)
    if type(operator).spectrum is LinearOperator.spectrum:
        name = type(operator).__name__
        raise TypeError(f"operator {name} has no spectrum(), which {method} needs: use ddnm, pigdm, diffpir or mmps")
    return operator.spectrum()
