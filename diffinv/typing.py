"""The vocabulary: what passes between the rooms.

A sample is one example of shape `(H, W, C)` (or any shape), never a batch; time runs from 1 (noise) to 0 (data);
`t` is the time a step starts from and `s` the time it goes to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from diffinv.describe import described

Array = jax.Array
Key = jax.Array
"""One typed key of `jax.random`, shape ()."""
Time = jax.Array | float
"""A time in [0, 1], shape ()."""
Scalar = jax.Array | float
"""A real number, shape (); a Python number is a constant of the program."""
Sample = jax.Array
"""One sample, of the prior's shape, such as (H, W, C); floating point, never a batch."""
Measured = jax.Array
"""One measurement `y`, of the shape that the operator gives; real or complex."""
Coefficient = jax.Array
"""A number of a process at one time, such as alpha: () or (H, W, 1), which broadcasts against one sample."""
State = Any
"""What a sampler carries from step to step, a pytree."""
Info = Any
"""What a step tells, a pytree with a `cost`."""


class Denoiser(Protocol):
    """`(x_t, t) -> E[x_0 | x_t]`; a pytree that is callable."""

    def __call__(self, x: Sample, t: Time, /) -> Sample: ...


@described
class Gaussian(NamedTuple):
    """`N(mean, std^2)` with independent coordinates.

    Attributes:
      mean: of any shape.
      std: the standard deviations, which broadcast against `mean` and may be 0.

    >>> import jax.numpy as jnp
    >>> from diffinv.typing import Gaussian
    >>> law = Gaussian(jnp.zeros(2), jnp.asarray(2.0))
    >>> law.at(jnp.asarray([1.0, -1.0])).tolist()
    [2.0, -2.0]
    """

    mean: Array
    std: Array

    def at(self, z: Array) -> Array:
        """The value at the standardised coordinate `z`: `mean + std z`."""
        return self.mean + self.std * z

    def sample(self, key: Key) -> Array:
        """One draw, of the mean's shape and dtype."""
        return self.at(jax.random.normal(key, self.mean.shape, self.mean.dtype))

    def log_prob(self, x: Array) -> Array:
        """Log density in nats, summed over coordinates; needs `std > 0`."""
        z = (x - self.mean) / self.std
        log_std = jnp.broadcast_to(jnp.log(self.std), z.shape)
        return jnp.sum(-0.5 * z**2 - log_std - 0.5 * jnp.log(2 * jnp.pi).astype(z.dtype))


@described
class Cost(NamedTuple):
    """What a step costs: evaluations of the denoiser, pullbacks through it, and calls of the measurement's operator.

    Attributes:
      nfe: denoiser evaluations, a Python int where every step has as many, as the other two; `sample` makes arrays.
      vjps: pullbacks through the denoiser.
      calls: applications of the operator in any form, one each: `A x`, `A^H y`, `solve`, `pinv`, `project`, a transform
        of its spectrum (`V^T x`, `V c`, `U^T y`), and the pullback of any of these. The residual that a step tells is
        counted; what is done once, before the first step or after the last, is not.
    """

    nfe: int | Array = 1
    vjps: int | Array = 0
    calls: int | Array = 0

    def times(self, n: int | Array) -> Cost:
        """The cost of `n` such steps."""
        return Cost(*(count * n for count in self))

    def plus(self, vjps: int | Array = 0, calls: int | Array = 0) -> Cost:
        """The cost with more pullbacks and more calls of the operator."""
        return Cost(self.nfe, self.vjps + vjps, self.calls + calls)


@described
class StepInfo(NamedTuple):
    """What every sampler tells of a step.

    Attributes:
      cost: of the step.
      residual: the norm `|y - A x0|`, or None where the sampler knows none.
    """

    cost: Cost
    residual: Array | None = None


@described
class Sampler(NamedTuple):
    """Three pure functions; `sample` scans `step` over a time grid.

    Attributes:
      init: `(key, t, x) -> state`; `x` is a start at time `t`, or None for a draw from the noisy end.
      step: `(key, state, t, s) -> (state, info)`.
      final: `(key, state) -> x`: decode, draw a particle, or the identity.
    """

    init: Callable[[Key, Time, Sample | None], State]
    step: Callable[[Key, State, Time, Time], tuple[State, Info]]
    final: Callable[[Key, State], Sample]


@described
class Solution(NamedTuple):
    """What a solver or `sample` gives.

    Attributes:
      x: the finished sample.
      info: what the steps tell, stacked over the steps.
    """

    x: Sample
    info: Info


class Solver(Protocol):
    """`(key, measurement, x=None) -> Solution`: a sampler with its time grid."""

    def __call__(self, key: Key, measurement: Any, x: Sample | None = None) -> Solution: ...
