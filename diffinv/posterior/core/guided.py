r"""What every guidance stands on: one linearisation of the denoiser, and the guided denoiser itself.

All guidance is written in x0 form. With `J = dx0/dx_t`, Tweedie's second formula is
`Cov(x_0 | x_t) = (sigma^2 / alpha) J`, and

    E[x_0 | x_t, y] = x0 + (sigma^2 / alpha) grad_{x_t} log p(y | x_t).

Where alpha vanishes (Flow, ResidualShift at t = 1) that gain is inf x 0, so the denoiser is looked at a thousandth of
the way in, at `0.999 t`: see `process.DEAD`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from diffinv.describe import Described
from diffinv.measurement import Measurement
from diffinv.prior import Prediction, Prior
from diffinv.process import TRUSTED
from diffinv.typing import Array, Cost, Time


def linearise(prior: Prior, x: Array, t: Time) -> tuple[Prediction, Callable[[Array], Array]]:
    r"""The prediction at `x_t` and `v -> Cov(x_0 | x_t) v = (sigma^2 / alpha) J^T v`, from one evaluation.

    Coordinates of a blurring process with `alpha < TRUSTED sigma` have no covariance here: their gain would be noise.

    Source: Meng et al. 2021, arXiv:2111.04726, eq. 9 (second-order Tweedie).
    """
    process = prior.process
    t = process.alive(t)
    prediction, pullback = jax.vjp(lambda x: prior.predict(x, t), x)
    alpha, sigma = process.alpha(t), process.sigma(t)
    alive = alpha > TRUSTED * sigma
    gain = jnp.where(alive, sigma**2 / jnp.where(alive, alpha, 1.0), 0.0).astype(x.dtype)
    zeros = jax.tree.map(jnp.zeros_like, prediction)
    return prediction, lambda v: gain * pullback(zeros._replace(x0=v))[0]


Rule = Callable[..., Prediction]


@struct.dataclass
class Guided(Described):
    """A guided denoiser, a pytree: `rule(prior, measurement, x, t, **weights, **options) -> Prediction`.

    Attributes:
      prior: what is guided.
      measurement: what it is guided to.
      weights: dynamic hyperparameters, which may be swept.
      rule: how the two are combined; static.
      options: (name, value) pairs; static.
      cost: of one call; static.
    """

    prior: Prior
    measurement: Measurement
    weights: dict[str, Any]
    rule: Rule = struct.field(pytree_node=False)
    options: tuple[tuple[str, Any], ...] = struct.field(pytree_node=False)
    cost: Cost = struct.field(pytree_node=False)

    def __call__(self, x: Array, t: Time) -> Array:
        return self.predict(x, t).x0

    def predict(self, x: Array, t: Time) -> Prediction:
        """`Prediction(x0, v)`: the guided mean, and the prior's own variance share."""
        return self.rule(self.prior, self.measurement, x, t, **self.weights, **dict(self.options))

    def given(self, **condition: Any) -> Guided:
        """The same guidance of the conditional prior."""
        return replace(self, prior=self.prior.given(**condition))


def guided(
    prior: Prior,
    measurement: Measurement,
    rule: Rule,
    vjps: int = 0,
    calls: int = 0,
    weights: dict | None = None,
    **options: Any,
) -> Prior:
    """The prior whose denoiser is `rule`; `vjps` and `calls` are what an evaluation adds to its cost."""
    static = tuple(sorted(options.items()))
    cost = prior.cost.plus(vjps, calls)
    return replace(prior, denoise=Guided(prior, measurement, weights or {}, rule, static, cost))
