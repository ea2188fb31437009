r"""Random walks, Levy processes at whole times, under white noise: their exact denoiser, on a lattice of values.

A walk s_1, s_2, ... starts at 0 and has independent increments. Under noise it is a hidden Markov chain, whose
posterior mean is that of forward and backward messages; each place has a window of the lattice where its likelihood, or
the walk, has mass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from scipy import stats

from diffinv.process import Process
from diffinv.typing import Array, Time

NEAR, FAR, REACH = 31, 104, 6.0
"""Half the near window's places and half the far one's; how many deviations of the noise the near one reaches."""
LEAST = 1e-280
"""Of a transition, so that a state that no walk reaches is taken from the measurement alone."""


class Jumps(NamedTuple):
    """A symmetric law of increments: with probability `share` continuous, of this distribution function, else 0.

    Attributes:
      below: its distribution function, at numbers up to 0.
      draw: `(rng, shape) -> increments` of the continuous part.
      variance: of the increment.
      share: in (0, 1].
    """

    below: Callable[[Array], Array]
    draw: Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
    variance: float
    share: float = 1.0

    def sample(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Increments."""
        return self.draw(rng, shape) * (rng.uniform(size=shape) < self.share)


def _below_student(x: Array) -> Array:
    """Of three degrees of freedom."""
    z = x / np.sqrt(3)
    return 0.5 + (z / (1 + z**2) + jnp.arctan(z)) / np.pi


JUMPS = {
    "Gauss": Jumps(lambda x: jax.scipy.special.ndtr(2 * x), lambda rng, n: 0.5 * rng.standard_normal(n), 0.25),
    "Laplace": Jumps(lambda x: 0.5 * jnp.exp(x), lambda rng, n: rng.laplace(size=n), 2.0),
    "Bernoulli-Laplace": Jumps(lambda x: 0.5 * jnp.exp(x), lambda rng, n: rng.laplace(size=n), 0.2, 0.1),
    "Student 3": Jumps(_below_student, lambda rng, n: stats.t(3).rvs(n, random_state=rng), 3.0),
}
"""Those of arXiv:2509.12821 with a variance: 0.25, Laplace's scale 1, jumps at one place in ten, Student's t(3)."""


def masses(jumps: Jumps, first: Array, count: int, step: Array) -> Array:
    """Of increments at `first`, `first + 1`, ... steps of the lattice, (count,).

    The law's mass of each cell, less a twenty-fourth of its second difference: averaging over a cell adds
    `step^2 / 12` to the variance, which this takes away again. The atom at 0 is a place of the lattice.
    """
    far = jnp.abs(first + jnp.arange(-1, count + 1))
    cell = jumps.below(-(far - 0.5) * step) - jumps.below(-(far + 0.5) * step)
    cell = jnp.where(far == 0, 1 - 2 * jumps.below(-0.5 * step), cell)
    smooth = cell[1:-1] - (cell[2:] - 2 * cell[1:-1] + cell[:-2]) / 24
    return jnp.maximum(jumps.share * smooth + (1 - jumps.share) * (far[1:-1] == 0), LEAST)


Steps = tuple[Callable[[Array, Array], Array], Callable[[Array, Array], Array]]
"""`(message, start) -> message` to the next place and to the one before; start: of its window against this one's."""


def moved(jumps: Jumps, step: Array) -> Steps:
    """Messages between windows of `2 NEAR + 1` places, as convolutions by FFT; the part that does not wrap is kept."""
    size, wave = 4 * NEAR + 1, lambda x: jnp.fft.rfft(x, 4 * NEAR + 4)
    law = lambda start: wave(masses(jumps, start - 2 * NEAR, size, step))
    product = lambda waves: jnp.maximum(jnp.fft.irfft(waves, 4 * NEAR + 4), 0.0)
    ahead = lambda message, start: product(law(start) * wave(message))[2 * NEAR : size]
    back = lambda message, start: product(law(start) * wave(message).conj())[2 * NEAR :: -1]
    return ahead, back


def stayed(jumps: Jumps, step: Array) -> Steps:
    """Messages within one window of `2 FAR + 1` places, by one matrix for all."""
    lag = np.arange(2 * FAR + 1)[:, None] - np.arange(2 * FAR + 1) + 2 * FAR
    matrix = masses(jumps, jnp.asarray(-2.0 * FAR, step.dtype), 4 * FAR + 1, step)[lag]
    return lambda message, _: matrix @ message, lambda message, _: message @ matrix


def smoothed(jumps: Jumps, y: Array, s: Array, step: Array, middle: Array, half: int, steps: Steps) -> Array:
    """`E[walk | y]` for `y = walk + s n`, (L,), on lattice places `middle - half .. middle + half` of each."""
    places = jnp.arange(-half, half + 1, dtype=y.dtype)
    logs = -(((middle[:, None] + places) * step - y[:, None]) ** 2) / (2 * s**2)
    like, rows = jnp.exp(logs - logs.max(1, keepdims=True)), jnp.full(len(places), 1 / len(places), y.dtype)
    ahead, back = steps

    def forward(message: Array, place: tuple[Array, Array]) -> tuple[Array, Array]:
        found = place[0] * ahead(message, place[1])
        return found / found.sum(), message

    def backward(message: Array, place: tuple[Array, Array]) -> tuple[Array, Array]:
        found = back(place[0] * message, place[1])
        return found / found.sum(), message

    first = like[0] * masses(jumps, middle[0] - half, len(places), step)
    chain = like[1:], jnp.diff(middle)
    last, before = jax.lax.scan(forward, first / first.sum(), chain)
    head, after = jax.lax.scan(backward, rows, chain, reverse=True)
    weights = jnp.concatenate([before, last[None]]) * jnp.concatenate([head[None], after])
    return step * (middle + weights @ places / weights.sum(1))


def mean(jumps: Jumps, y: Array, s: Array) -> Array:
    """`E[walk | y]` for `y = walk + s n`, (L,), in float64.

    With d the deviation of a jump: where 6/31 of the noise is less than d / 2, 63 places that far apart follow y; else
    209, d / 2 apart, stand about 0, where 64 jumps reach in 6.5 deviations. Of a Gaussian walk it is the closed form
    within 1e-4 of the posterior's deviation, 1e-3 where the noise is about 2.6 d and the lattice coarsest.
    """
    fine, wide = REACH / NEAR * s, np.sqrt(jumps.variance / jumps.share) / 2 + 0 * s

    def near(y: Array) -> Array:
        middle = jax.lax.stop_gradient(jnp.round(y / fine))
        return smoothed(jumps, y, s, fine, middle, NEAR, moved(jumps, fine))

    far = lambda y: smoothed(jumps, y, s, wide, jnp.zeros_like(y), FAR, stayed(jumps, wide))
    return jax.lax.cond(fine < wide, near, far, y)


@struct.dataclass
class WalkDenoiser:
    r"""`E[s | x_t]` of a walk of shape (L,), for `x_t = alpha s + sigma n`: `mean` of `x_t / alpha`. Original."""

    process: Process
    jumps: Jumps = struct.field(pytree_node=False)

    def __call__(self, x: Array, t: Time) -> Array:
        alpha = self.process.alpha(t)
        return mean(self.jumps, x / alpha, self.process.sigma(t) / alpha)
