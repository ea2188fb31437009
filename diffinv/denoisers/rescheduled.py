r"""A network that was trained under one process, used under any other."""

from __future__ import annotations

from dataclasses import replace

import jax.numpy as jnp
from flax import struct

from diffinv import times
from diffinv.describe import Described
from diffinv.prior import NetworkDenoiser, Prediction
from diffinv.process import Process
from diffinv.typing import Array, Cost, Sample, Time


@struct.dataclass
class Rescheduled(Described):
    """A denoiser of one process, used under another: the same posterior mean at the same noise-to-signal ratio.

        x0 = D(n'_s / n_t x, s),   sigma'_s / alpha'_s = r = sigma_t / alpha_t,   n^2 = alpha^2 + sigma^2,

    with primes for the process that D was trained with. Below its first noise level r' the denoiser is asked at r', and
    the noise that it finds there counts in proportion: `x0 = u + r/r' (D - u)` with `u = x / alpha_t`, which is exact
    at r = 0. Above its last noise level it is asked at that level.

    Source: original.

    Attributes:
      denoise: D, under its own process.
      process: the process to use it under; isotropic.
      first: the earliest time at which D is asked; static.
    """

    denoise: NetworkDenoiser
    process: Process
    first: float = struct.field(pytree_node=False, default=1e-3)

    @property
    def cost(self) -> Cost:
        """One evaluation of the network."""
        return Cost()

    def given(self, **condition: Array) -> Rescheduled:
        """The same network under `condition`."""
        return replace(self, denoise=self.denoise.given(**condition))

    def __call__(self, x: Sample, t: Time) -> Sample:
        return self.predict(x, t).x0

    def predict(self, x: Sample, t: Time) -> Prediction:
        """`Prediction(x0, v)`; `v` is the share that the network learned at its own nearest time."""
        own, alpha, sigma = self.denoise.process, self.process.alpha(t), self.process.sigma(t)
        s = jnp.clip(times.from_sigma(own, jnp.exp(-0.5 * self.process.log_snr(t))), self.first, 1.0).astype(x.dtype)
        scale = jnp.sqrt((own.alpha(s) ** 2 + own.sigma(s) ** 2) / (alpha**2 + sigma**2)).astype(x.dtype)
        x0, v = self.denoise.predict(scale * x, s)
        gap = jnp.maximum(1 - sigma / jnp.maximum(alpha, 1e-30) * own.alpha(s) / own.sigma(s), 0.0).astype(x.dtype)
        clean = x / jnp.where(gap > 0, alpha, 1.0).astype(x.dtype)
        return Prediction(x0 + gap * (clean - x0), v)
