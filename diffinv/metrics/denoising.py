r"""Whether a denoiser is the mean `E[x_0 | x_t]` that posterior methods take it for.

Variance divides: of a mean D, `E|x_0 - c|^2 = E|D - c|^2 + E|x_0 - D|^2` for any constant c. So the ratio

    (V - var D) / MSE,    V = E|x_0 - c|^2,  var D = E|D - c|^2,  MSE = E|x_0 - D|^2,

is 1. It is 0 for a map whose answers have the law of the data, such as a consistency model that is exact (an endpoint
map), and below 0 for one that leaves noise in. A ratio of 1 is necessary for a mean, and not sufficient.
"""

from __future__ import annotations

import warnings

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from diffinv.prior import Prior
from diffinv.typing import Array, Key


def mean_ratio(x0: Array, denoised: Array) -> Array:
    """`(V - var D) / MSE` of samples and what a denoiser made of their noisy copies, both (n, ...); a scalar.

    `c` is the mean of `x0` over everything. Dimensionless; original. Raises ValueError for shapes that differ.
    """
    if x0.shape != denoised.shape:
        raise ValueError(f"denoised is {denoised.shape} and x0 is {x0.shape}; give one for each sample")
    centre = jnp.mean(x0)
    lost = jnp.mean((x0 - centre) ** 2) - jnp.mean((denoised - centre) ** 2)
    return lost / jnp.mean((x0 - denoised) ** 2)


def mean_ratios(key: Key, prior: Prior, x0: Array, times: Array) -> Array:
    """`mean_ratio` at each time, shape (levels,), over samples of the prior's law, one noise each.

    The samples are denoised one after the other, in the memory of one. Its error falls with their number. Original.

    Args:
      key: of the noise. prior: any.
      x0: (n, *prior.shape), of the law that the prior is meant to be of.
      times: (levels,), above 0; see `times.from_sigma`.

    Raises ValueError for samples of another shape.
    """
    if x0.shape[1:] != prior.shape or not x0.size:
        raise ValueError(f"x0 is {x0.shape}; give samples (n, {', '.join(map(str, prior.shape))})")

    def denoised(each: tuple[Key, Array, Array]) -> Array:
        key, x, t = each
        return prior.denoise(prior.process.perturb(x, t).sample(key), t)

    def at(each: tuple[Key, Array]) -> Array:
        key, t = each
        keys = jax.random.split(key, len(x0))
        return mean_ratio(x0, jax.lax.map(denoised, (keys, x0, jnp.broadcast_to(t, len(x0)))))

    times = jnp.asarray(times)
    return jax.lax.map(at, (jax.random.split(key, len(times)), times))


def warn_of_ratios(ratios: ArrayLike, levels: ArrayLike, tolerance: float = 0.25) -> None:
    """A UserWarning where a ratio is further than `tolerance` from 1, with the worst of them and its level.

    Args:
      ratios: of `mean_ratios`, (levels,); known numbers, not traced.
      levels: what each is called: a noise-to-signal ratio, or a time.
    """
    far = np.abs(np.asarray(ratios, np.float64) - 1)
    if not (far <= tolerance).all():
        worst = int(np.argmax(np.where(np.isnan(far), np.inf, far)))
        warnings.warn(
            f"the denoiser is no posterior mean: (V - var D) / MSE is {np.asarray(ratios)[worst]:.2g} at noise level "
            f"{np.asarray(levels)[worst]:.3g}, and a mean has 1; 0 is an endpoint map, below 0 it leaves noise in",
            UserWarning,
            stacklevel=2,
        )
