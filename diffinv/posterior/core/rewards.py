"""Rewards: what guidance climbs, as values. `dps(prior, measurement, reward=rewards.square)`.

A reward is `(measurement, x0) -> R`, a scalar array that is larger where x0 fits better: one's own is a function.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax

from diffinv.checks import require_noise, require_value
from diffinv.linalg import inner
from diffinv.linalg import norm as length
from diffinv.measurement import Measurement
from diffinv.typing import Array

Reward = Callable[[Measurement, Array], Array]


@dataclass(frozen=True)
class Convention:
    """A reward that papers and codes use; it is static, and equal to another of the same contents.

    Attributes:
      value: the function.
      name: what it is called here.
      divides: whether it divides by the level of the noise, which 0 then cannot be.
    """

    value: Callable[[Measurement, Array], Array]
    name: str
    divides: bool = False

    def __call__(self, measurement: Measurement, x0: Array) -> Array:
        return self.value(measurement, x0)

    def __repr__(self) -> str:
        return f"rewards.{self.name}"


def _square(measurement: Measurement, x0: Array) -> Array:
    r = measurement.residual(x0)
    return -inner(r, r)


square = Convention(_square, "square")
"""`-|y - A x0|^2`."""

norm = Convention(lambda measurement, x0: -length(measurement.residual(x0)), "norm")
"""`-|y - A x0|`."""

likelihood = Convention(lambda measurement, x0: measurement.log_likelihood(x0), "likelihood", divides=True)
"""`log p(y | x0)` of whatever law the noise has."""

cloud_norm = Convention(
    lambda measurement, guesses: -length(jax.vmap(measurement.residual)(guesses)) / len(guesses), "cloud_norm"
)
"""`-sqrt(sum_k |y - A x0_k|^2) / n` of a cloud of n guesses (n, *shape)."""

cloud_likelihood = Convention(
    lambda measurement, guesses: jax.nn.logsumexp(jax.vmap(measurement.log_likelihood)(guesses)),
    "cloud_likelihood",
    divides=True,
)
"""`log sum_k p(y | x0_k)` of a cloud of guesses, of whatever law the noise has."""

KNOWN = {reward.name: reward for reward in (square, norm, likelihood)}
"""The three conventions that papers and codes use, by name."""


CLOUDS = {reward.name: reward for reward in (cloud_norm, cloud_likelihood)}
"""Those of a cloud of guesses, which `lgd` takes."""


def require_reward(
    reward: Any, measurement: Measurement, method: str, instead: Convention, known: Mapping[str, Convention] = KNOWN
) -> Measurement:
    """The measurement, with `y` NaN where a traced sigma_y is 0 and the reward divides by it.

    TypeError for a reward that is none, as its name; ValueError for a concrete sigma_y of 0 where the reward divides by
    it. `instead` is named as the one that would do.
    """
    require_value("reward", reward, "rewards", {name: name for name in known})
    if getattr(reward, "divides", False):
        return require_noise(measurement, f"{method} with reward={reward}", f"reward={instead}")
    return measurement
