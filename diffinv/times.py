"""Time grids: arrays that run from noise to data and end at an exact 0.

All functions take a static number of `steps` and return `steps + 1` decreasing times; reverse one (`grid[::-1]`) to
go from data to noise, after replacing its 0 (see `ascending`). A grid of numbers known beforehand is computed while the
program is built, in float64, so that no compiler rounds its ends.
"""

from __future__ import annotations

import contextlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffinv.process import Process
from diffinv.typing import Array


def _known(*values: Any) -> bool:
    """True where all values are known while the program is built, not only when it runs."""
    return not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(values))


def _steps(steps: int) -> int:
    if isinstance(steps, bool) or not isinstance(steps, int | np.integer | float) or steps % 1 != 0:
        raise ValueError(f"steps is {steps!r}; a time grid needs a whole number of steps")
    if not 1 <= steps <= 2**24:
        raise ValueError(f"steps is {steps}; a time grid needs at least 1 step, at most 2^24")
    return int(steps)


def _number(name: str, value: Any, most: float = np.inf, least: float = 0.0) -> Any:
    """The value where it is above `least`, finite and at most `most`; else ValueError, or NaN where it is traced."""
    if not _known(value):
        return jnp.where((value > least) & (value <= most) & jnp.isfinite(value), value, jnp.nan)
    number = np.asarray(value, np.float64)
    if number.ndim or not (least < number <= most and np.isfinite(number)):
        limit = "" if most == np.inf else f", at most {most:g}"
        raise ValueError(f"{name} is {value}; give a number above {least:g}{limit}")
    return number


def _ended(positive: Any, message: str) -> Array:
    """The positive times and a last one, an exact 0; ValueError (or NaN) where they do not fall in their precision."""
    if _known(positive):
        with jax.ensure_compile_time_eval():
            times = jnp.asarray(np.append(positive, 0.0), jnp.result_type(float))
            if not np.all(np.diff(times) < 0):
                raise ValueError(f"{message}: the times do not fall in {times.dtype}; give fewer steps or other levels")
            return times
    times = jnp.append(positive, jnp.zeros(1, positive.dtype))
    return jnp.where(jnp.all(jnp.diff(times) < 0), times, jnp.nan)


def _like(ramp: np.ndarray, *values: Any) -> Any:
    """The ramp as NumPy holds it, or in the precision of the first traced value."""
    traced = [value for value in values if not _known(value)]
    return jnp.asarray(ramp, traced[0].dtype) if traced else ramp


def grid(steps: int, start: float = 1.0, power: float = 1.0) -> Array:
    """`t_i = start (1 - i/steps)^power`, the last exactly 0; `power = 2` puts more times near the data.

    Original. Everything is dimensionless, with `0 < start <= 1` and `power > 0`. A traced argument that is out of range
    gives NaN.

    Raises ValueError for steps that are no whole number above 0, a start or a power out of range, and times that repeat
    in their precision.
    """
    steps = _steps(steps)
    start, power = _number("start", start, 1.0), _number("power", power)
    ramp = _like(np.arange(steps, 0, -1) / steps, start, power)
    return _ended(start * ramp**power, f"steps is {steps} with power {power}")


def karras(steps: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> Array:
    r"""EDM's grid for the `EDM` process, as `t = sigma / sigma_max`:

        sigma_i = (sigma_max^{1/rho} + i/(steps-1) (sigma_min^{1/rho} - sigma_max^{1/rho}))^rho,  sigma_steps = 0.

    Source: Karras et al. 2022, arXiv:2206.00364, eq. 5. Raises ValueError for steps that are no whole number above 0
    and levels that are not `0 < sigma_min < sigma_max`.
    """
    steps = _steps(steps)
    sigma_min, sigma_max, rho = _levels(sigma_min, sigma_max, rho)
    ramp = _like(np.arange(steps) / max(steps - 1, 1), sigma_min, sigma_max, rho)
    low = (sigma_min / sigma_max) ** (1 / rho)
    return _ended((1 + ramp * (low - 1)) ** rho, f"steps is {steps} from {sigma_max} to {sigma_min}")


def _levels(sigma_min: Any, sigma_max: Any, rho: Any = 1.0) -> tuple[Any, Any, Any]:
    low, high, rho = _number("sigma_min", sigma_min), _number("sigma_max", sigma_max), _number("rho", rho)
    if _known(low, high) and low >= high:
        raise ValueError(f"sigma_min is {sigma_min}, sigma_max {sigma_max}; give a sigma_min below sigma_max")
    return low, high, rho


def _ratio(process: Process, t: Any, caller: str) -> Array:
    """Noise-to-signal `sigma_t / alpha_t`, or ValueError where the process has one for every frequency."""
    shape = jax.eval_shape(process.log_snr, 0.5).shape
    if shape:
        raise ValueError(f"{type(process).__name__} has noise levels of shape {shape}; {caller} needs an isotropic one")
    return jnp.exp(-0.5 * process.log_snr(t))


def from_sigma(process: Process, sigma: Array) -> Array:
    """The times at which an isotropic process has the noise-to-signal ratio `sigma_t / alpha_t = sigma`.

    Original. They are found by 60 bisections. `sigma` has any shape. Its value 0 gives time 0; the process's last
    level, and all values beyond it, give time 1.

    Raises ValueError for a process that is not isotropic and for a sigma that is negative or NaN (NaN where it is
    traced).
    """
    sigma = jnp.asarray(sigma)
    if _known(sigma) and not np.all(np.asarray(sigma) >= 0):
        raise ValueError(f"sigma is {sigma}; give noise levels of at least 0")
    last = _ratio(process, jnp.ones((), sigma.dtype), "from_sigma").astype(sigma.dtype)
    target = -2 * jnp.log(sigma)

    def halve(_: int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        middle = 0.5 * (ends[0] + ends[1])
        noisy = process.log_snr(middle) < target
        return jnp.where(noisy, ends[0], middle), jnp.where(noisy, middle, ends[1])

    low, high = jax.lax.fori_loop(0, 60, halve, (jnp.zeros_like(target), jnp.ones_like(target)))
    inner = jnp.where(sigma >= last, 1.0, jnp.where(sigma == 0, 0.0, 0.5 * (low + high)))
    return jnp.where(sigma >= 0, inner, jnp.nan)


def log_snr(process: Process, steps: int, sigma_min: float = 0.002, sigma_max: float = 80.0) -> Array:
    """Times equally spaced in the log-SNR of an isotropic process, between two noise-to-signal ratios, then 0.

    A `sigma_max` beyond the process's last level is that level. Source: Lu et al. 2022, arXiv:2206.00927, section 3.4
    (uniform lambda). Raises ValueError for steps that are no whole number above 0, levels that are not
    `0 < sigma_min < sigma_max`, a process that ends below sigma_min or is not isotropic.
    """
    steps = _steps(steps)
    sigma_min, sigma_max, _ = _levels(sigma_min, sigma_max)
    with jax.ensure_compile_time_eval() if _known(process, sigma_min, sigma_max) else contextlib.nullcontext():
        last = _ratio(process, jnp.ones(()), "log_snr")
        low, high = jnp.log(jnp.asarray(sigma_min, last.dtype)), jnp.log(jnp.minimum(sigma_max, last))
        ramp = jnp.asarray(np.linspace(0.0, 1.0, steps), last.dtype)
        positive = from_sigma(process, jnp.exp(high + ramp * (low - high)))
    name = type(process).__name__
    return _ended(positive, f"steps is {steps} from noise-to-signal {sigma_max} to {sigma_min} of {name}")


def leading(steps: int, trained: int = 1000) -> Array:
    """The indices `floor(k trained / steps)`, k < steps, of a network trained at `trained` times, as times; then 0.

    Index i is the time `(i + 1) / trained`. So the last positive time is `1 / trained` and the first time is below 1;
    `grid` goes from 1 instead, and from `1 / steps` to 0.

    Source: Song et al. 2021, arXiv:2010.02502, appendix D.2 (linear), as in DDRM's and DDNM's codes; it is "leading" in
    diffusers. Raises ValueError for steps that are no whole number from 1 to `trained`.
    """
    steps, trained = _steps(steps), _steps(trained)
    if steps > trained:
        raise ValueError(f"steps is {steps}; a network trained at {trained} times has no more: give at most {trained}")
    return _ended((1 + np.arange(steps - 1, -1, -1) * trained // steps) / trained, f"steps is {steps} of {trained}")


def fitted(process: Process, times: Array, sigma: Array | float) -> Array:
    """`times` with a last third that falls geometrically in the noise-to-signal ratio, to half of `sigma`.

    Original. It is for methods that weigh a step's noise against the measurement's (DDRM, DDNM+): without a level near
    sigma_y the picture keeps the noise of the last positive time. Where `times` already ends lower than half of
    `sigma`, it ends as low as before. At `sigma = 0`, and for fewer than two steps, `times` stays as it is.

    Args:
      process: isotropic.
      times: a falling grid that ends at 0.
      sigma: of y, in units of the data.

    Raises ValueError for a sigma that is negative or NaN, and for a process that is not isotropic.
    """
    if _known(sigma) and not np.asarray(sigma) >= 0:
        raise ValueError(f"sigma is {sigma}; give the noise of y, at least 0")
    steps = len(times) - 1
    head = steps - round(steps / 3)
    if head < 1 or head == steps:
        return times
    high = jnp.minimum(_ratio(process, times[head - 1], "fitted"), 1e3).astype(times.dtype)
    last = _ratio(process, times[steps - 1], "fitted").astype(times.dtype)
    low = jnp.where(jnp.asarray(sigma) > 0, jnp.minimum(0.5 * jnp.asarray(sigma, times.dtype), last), last)
    ramp = jnp.asarray(np.arange(1, steps - head + 1) / (steps - head), times.dtype)
    tail = from_sigma(process, jnp.where(jnp.asarray(sigma) >= 0, high * (low / high) ** ramp, jnp.nan))
    kept = jnp.where(jnp.asarray(sigma) == 0, times[head:-1], tail)
    return jnp.concatenate([times[:head], kept, times[-1:]])


def ascending(times: Array, first: float = 1e-3) -> Array:
    """The grid of an inversion, from data to noise: `times` reversed, with `first` in the place of its 0.

    Original. The first time, small, positive and dimensionless, sets the error of the first step, so it is an argument.
    Raises ValueError for fewer than two times and a first that is not in (0, 1].
    """
    if len(times) < 2:
        raise ValueError(f"times has shape {times.shape}; an inversion needs at least two")
    first, times = _number("first", first, 1.0), times[::-1]
    return times.at[0].set(jnp.minimum(jnp.asarray(first, times.dtype), 0.5 * times[1]))


def rising(times: Array, name: str = "times") -> Array:
    """The grid of an inversion, checked: its times do not fall, and the first is above 0.

    Original. Raises ValueError for known times that are otherwise, such as a sampler's own grid; traced ones become
    NaN.
    """
    if not _known(times):
        return jnp.where((times[0] > 0) & jnp.all(jnp.diff(times) >= 0), times, jnp.nan)
    known = np.asarray(times, np.float64)
    if known.ndim != 1 or len(known) < 2 or not (known[0] > 0 and np.all(np.diff(known) >= 0)):
        ends = f"{known.flat[0]:g} to {known.flat[-1]:g}" if known.size else "nothing"
        raise ValueError(f"{name} run from {ends}; data to noise is upwards, from above 0: use times.ascending(grid)")
    return jnp.asarray(times)


def settled(times: Array) -> Array:
    """The grid as `sample` runs it, with its ends cleared of rounding errors.

    Original. A last time within four rounding units of 0 becomes 0, and a first one as near to 1 becomes at most 1. The
    state at time 0 is the data, from which no step goes on, so a 0 may stand at the end only. Known times outside [0,
    1] are refused; traced ones become NaN, so that a sample over them is NaN too.

    Raises ValueError for times that are not one axis of at least one number in [0, 1], or that have a 0 before the end.
    """
    times = jnp.asarray(times)
    if times.ndim != 1 or not len(times):
        raise ValueError(f"times has shape {times.shape}; give one axis of times, (steps + 1,)")
    times = times if jnp.issubdtype(times.dtype, jnp.floating) else times.astype(jnp.result_type(float))
    slack = 4 * jnp.finfo(times.dtype).eps
    if _known(times):
        _refuse(np.asarray(times, np.float64), float(slack))
    inside = (times >= -slack) & (times <= 1 + slack)
    times = jnp.where(inside, jnp.clip(times, 0, 1), jnp.nan)
    return times.at[-1].set(jnp.where(times[-1] <= slack, 0.0, times[-1]))


def _refuse(times: np.ndarray, slack: float) -> None:
    bad = np.flatnonzero(~((times >= -slack) & (times <= 1 + slack)))
    if len(bad):
        raise ValueError(f"times[{bad[0]}] is {times[bad[0]]:g}; times run from 1 (noise) to 0 (data): scale the grid")
    early = np.flatnonzero(times[:-1] <= 0)
    if len(early):
        raise ValueError(f"times[{early[0]}] is 0, before the end; start an inversion with times.ascending(times)")
