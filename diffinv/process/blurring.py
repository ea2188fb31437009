"""Processes that blur: their alpha is a number for each coefficient of the discrete cosine transform, (H, W, 1)."""

from __future__ import annotations

import jax.numpy as jnp
from flax import struct

from diffinv.process.base import Process, real_time
from diffinv.process.isotropic import Cosine
from diffinv.typing import Array, Coefficient, Time


def dct_frequencies(height: int, width: int) -> Array:
    """Eigenvalues of the negative Laplacian with reflecting ends, `(pi i / H)^2 + (pi j / W)^2`: shape (H, W, 1).

    Units: 1 / pixel^2. `height` and `width` are static. Source: Rissanen et al. 2022, arXiv:2206.13397, eq. 8.
    """
    rows, columns = (jnp.pi * (jnp.arange(n) / n) for n in (height, width))
    return (rows[:, None] ** 2 + columns[None, :] ** 2)[..., None]


@struct.dataclass
class Blurring(Process):
    r"""Blurring diffusion, in the coordinates of `charts.dct`:

        alpha_t = cos(pi t'/2) d_t,  d_t = (1 - d_min) exp(-lambda tau_t) + d_min,  sigma_t = sin(pi t'/2),
        tau_t = sigma_blur^2 sin(pi t / 2)^4 / 2,  t' = (1 - margin) t.

    Source: Hoogeboom & Salimans 2022, arXiv:2209.05557, section 4 and appendix A. Differs: sigma(0) = 0 exactly, where
    their log-SNR starts at 10; the other end keeps a margin.

    Attributes:
      frequencies: eigenvalues of the Laplacian, (H, W, 1), from `dct_frequencies`.
      sigma_blur: the width of the blur at time 1, in pixels.
      d_min: the least factor by which the blur damps a frequency, dimensionless.
      margin: as in `Cosine`, dimensionless.
    """

    frequencies: Array
    sigma_blur: float = 20.0
    d_min: float = 1e-3
    margin: float = 1e-3

    def log_alpha(self, t: Time) -> Coefficient:
        tau = 0.5 * (self.sigma_blur * jnp.sin(0.5 * jnp.pi * jnp.asarray(t)) ** 2) ** 2
        blur = jnp.log1p(-self.d_min) - self.frequencies * tau
        return Cosine(self.margin).log_alpha(t) + jnp.logaddexp(blur, jnp.log(self.d_min).astype(blur.dtype))

    def log_sigma(self, t: Time) -> Coefficient:
        return Cosine(self.margin).log_sigma(t)

    def sigma(self, t: Time) -> Coefficient:
        return Cosine(self.margin).sigma(t)

    def scale(self, t: Time) -> Coefficient:
        return self.alpha(t) + self.sigma(t)


@struct.dataclass
class HeatDissipation(Process):
    r"""Inverse heat dissipation, in the coordinates of `charts.dct`: `alpha_t = exp(-lambda tau_t)`, constant noise.

        tau_t = sigma_blur(t)^2 / 2,  sigma_blur(t) = blur_min (blur_max / blur_min)^t - blur_min,  sigma_t = delta.

    sigma(0) = delta: the paper's initial state is the data convolved with N(0, delta^2), and never the data itself.

    Source: Rissanen et al. 2022, arXiv:2206.13397, eq. 8 and section 3. Differs: the blur width has `blur_min`
    subtracted, so that alpha(0) = 1.

    Attributes:
      frequencies: eigenvalues of the Laplacian, (H, W, 1), from `dct_frequencies`.
      blur_min: the width from which the blur grows, in pixels.
      blur_max: the width to which it grows at time 1, before `blur_min` is subtracted, in pixels.
      delta: the deviation of the noise at every time, in units of the data.
    """

    frequencies: Array
    blur_min: float = 0.5
    blur_max: float = 20.0
    delta: float = 0.01

    def log_alpha(self, t: Time) -> Coefficient:
        width = self.blur_min * jnp.expm1(jnp.asarray(t) * jnp.log(self.blur_max / self.blur_min))
        return -0.5 * self.frequencies * width**2

    def log_sigma(self, t: Time) -> Coefficient:
        return jnp.full_like(real_time(t), jnp.log(self.delta))

    def scale(self, t: Time) -> Coefficient:
        return self.alpha(t) + self.sigma(t)
