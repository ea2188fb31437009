r"""Ensemble Kalman methods: N particles of one sample, which move along each other's differences.

What the operator gives of the particles stands in for its derivative, so that it may be any program: a callback, a
simulator. The particles never leave the span of their first positions. The particle axis is the first one; `final`
takes one particle, so that a solver returns one sample.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from diffinv.checks import require_count, require_fit, require_noise, require_switch
from diffinv.describe import described
from diffinv.linalg import cg, norm
from diffinv.measurement import Measurement
from diffinv.posterior.core.clouds import ParticleInfo, started
from diffinv.prior import Prior
from diffinv.samplers import euler
from diffinv.times import grid
from diffinv.typing import Array, Cost, Key, Sampler, Time


def _decoder(prior: Prior, ode_steps: int) -> Callable[[Array, Time], Array]:
    """`(x, t) -> x_0` of N particles by Euler's method on the probability-flow ODE."""
    flow = euler(prior).step

    def decode(x: Array, t: Time) -> Array:
        levels = jnp.asarray(t) * grid(ode_steps, power=2.0).astype(x.dtype)
        down = lambda x, now: (flow(jax.random.key(0), x, *now)[0], None)
        return jax.lax.scan(down, x, (levels[:-1], levels[1:]))[0]

    return jax.vmap(decode, (0, None))


def _begun(prior: Prior, key: Key, t: Time, x: Array | None, particles: int) -> Array:
    """N draws of the noisy end; a given start is denoised, and noised again for each: copies would never part."""
    if x is None:
        return started(prior, key, t, x, particles)
    again = prior.process.perturb(prior.denoise(x, t), t)
    return jax.vmap(again.sample)(jax.random.split(key, particles))


def _rows(values: Array) -> Array:
    """(N, ...) as real rows (N, m)."""
    rows = values.reshape(len(values), -1)
    return jnp.concatenate([rows.real, rows.imag], 1) if jnp.iscomplexobj(rows) else rows


def _centred(values: Array) -> Array:
    return values - jnp.mean(values, 0, keepdims=True)


def _products(a: Array, b: Array) -> Array:
    """The inner product of each row of a with each of b."""
    return jnp.einsum("jm,km->jk", a, b, precision="highest")


def _moved(x: Array, weights: Array) -> Array:
    """`x_j + sum_k weights_jk (x_k - mean)`."""
    return x + jnp.einsum("jk,k...->j...", weights, _centred(x), precision="highest")


def _told(cost: Cost, residuals: Array) -> ParticleInfo:
    """The info of N particles of equal weight, `cost` being one particle's."""
    each = jax.vmap(norm)(residuals)
    return ParticleInfo(cost.times(len(each)), jnp.mean(each), jnp.asarray(len(each), jnp.float32))


def _sum(a: Cost, b: Cost) -> Cost:
    return Cost(*(m + n for m, n in zip(a, b, strict=True)))


def enkg(
    prior: Prior,
    measurement: Measurement,
    scale: Array | float = 2.0,
    particles: int = 64,
    updates: int = 2,
    ode_steps: int = 5,
) -> Sampler:
    r"""Ensemble Kalman diffusion guidance. Before each Euler step of the probability-flow ODE, `updates` times

        x0_j = ODE(x_j, t to 0),   D_jk = <y - A x0_j, A x0_k - mean_l A x0_l> / N
        x_j  = x_j + scale / |D|_F  sum_k D_jk (x_k - mean_l x_l)

    which is `x_j - w C grad |y - A x0_j|^2 / 2`, C the particles' covariance, where `A x0` is affine in x.

    Noise: least squares, whatever the law. The operator is never differentiated, nor is the denoiser.

    Source: Zheng et al. 2024, arXiv:2409.20175, algorithm 1 and eq. 11, with the length of a step as in their code and
    InverseBench (Navier-Stokes: scale 2, 2048 particles, 2 updates, 80 levels). Differs: as many ODE steps at all
    levels, where theirs fall from 20 to 1; the first level is guided, too.

    Biased: it descends on the residual by steps whose length does not know the noise, so that it fits that, too, and
    its particles draw together as they fit: on a Gaussian to a tenth of the posterior's deviation and less. There a
    scale of 4 runs away.

    Args:
      measurement: with any operator.
      scale: of a step, dimensionless.
      particles: N, static, at least 2, best above the number of directions that matter. updates, ode_steps: static.

    Raises ValueError for a count that is none, or a y that does not fit.
    """
    measurement = require_fit(prior, measurement, "enkg")
    require_count("particles", particles, 2)
    for name, count in (("updates", updates), ("ode_steps", ode_steps)):
        require_count(name, count)
    decode, forward = _decoder(prior, ode_steps), jax.vmap(euler(prior).step, (None, 0, None, None))

    def step(key: Key, x: Array, t: Time, s: Time) -> tuple[Array, ParticleInfo]:
        def update(x: Array, _: None) -> tuple[Array, Array]:
            seen = jax.vmap(measurement.operator)(decode(x, t))
            residuals = measurement.y[None] - seen
            D = _products(_rows(residuals), _centred(_rows(seen))) / particles
            size = norm(D)
            return _moved(x, jnp.where(size > 0, scale / jnp.where(size > 0, size, 1.0), 0.0) * D), residuals

        x, residuals = jax.lax.scan(update, x, None, updates)
        cost = prior.cost.times(updates * ode_steps + 1).plus(calls=updates)
        return forward(key, x, t, s)[0], _told(cost, residuals[-1])

    init = lambda key, t, x: _begun(prior, key, t, x, particles)
    return Sampler(init, step, lambda key, x: x[jax.random.randint(key, (), 0, particles)])


@described
class Ensemble(NamedTuple):
    """The state of `eki`.

    Attributes:
      codes: the particles, (N, *shape).
      start: the time at which they are codes.
    """

    codes: Array
    start: Time


def eki(
    prior: Prior,
    measurement: Measurement,
    particles: int = 64,
    ode_steps: int = 10,
    codes: bool = True,
    iterations: int = 64,
) -> Sampler:
    r"""Ensemble Kalman inversion, in the codes of a diffusion prior or in its samples. With G = A ODE or G = A,

        C_zg, C_gg: sample covariances of z_j and G(z_j),   h = (t - s) / t_0,   e_j standard normal
        z_j = z_j + C_zg (C_gg + sigma_y^2 / h)^{-1} (y + sigma_y / sqrt(h) e_j - G(z_j))

    and x = ODE(z) in the end, or x = z. The shares h sum to 1 on every grid from t_0 to 0: each step takes the power h
    of the likelihood. A code is a draw x_{t_0} of the noisy end, so that a sample stays one of the prior's; with
    `codes` False (static) the particles begin as samples of the prior, and leave it as they move.

    Noise: taken as Gaussian of `measurement.sigma`, whatever its law. The operator is never differentiated.

    Source: Iglesias, Law & Stuart 2013, arXiv:1209.2736, eq. 8; the shares as in Emerick & Reynolds 2013,
    doi:10.1016/j.cageo.2012.03.011 (ES-MDA), where they are 1 / K. Differs: InverseBench's moves 512 draws of a
    Gaussian field 500 times by a step of fixed length, and without noise. The last step is charged for the last ODE.

    Exact for Gaussian posteriors as N grows, for any grid. Few particles have too little variance, by a share of about
    the number of measured directions over N, and see correlations that are none.

    Args:
      measurement: with any operator; sigma_y above 0.
      particles: N, static, at least 2. ode_steps: of G, static.
      iterations: of conjugate gradients, by which the inverse is applied among the particles, static; twice the smaller
        of N and the numbers of y at most, which is exact. (LAPACK's solve hangs where several CPU devices share it.)

    Raises ValueError for a count that is none, a concrete sigma_y of 0, or a y that does not fit; TypeError for a
    switch that is none.
    """
    measurement = require_fit(prior, measurement, "eki")
    measurement = require_noise(measurement, "eki", "enkg")
    require_count("particles", particles, 2)
    require_count("ode_steps", ode_steps)
    require_count("iterations", iterations)
    require_switch("codes", codes)
    numbers = measurement.y.size * (2 if jnp.iscomplexobj(measurement.y) else 1)
    iterations, flow = min(iterations, 2 * min(particles, numbers)), _decoder(prior, ode_steps)
    decode = flow if codes else lambda z, start: z
    cost = prior.cost.times(ode_steps if codes else 0).plus(calls=1)

    def init(key: Key, t: Time, x: Array | None) -> Ensemble:
        z = _begun(prior, key, t, x, particles)
        return Ensemble(z if codes else flow(z, t), jnp.asarray(t, z.dtype))

    def step(key: Key, state: Ensemble, t: Time, s: Time) -> tuple[Ensemble, ParticleInfo]:
        z, start = state
        seen = jax.vmap(measurement.operator)(decode(z, start))
        residuals = measurement.y[None] - seen
        gaps, share = _rows(residuals), jnp.maximum((t - s) / start, 0).astype(z.dtype)
        sigma = jnp.asarray(measurement.sigma, z.dtype)
        pull = share * gaps + jnp.sqrt(share) * sigma * jax.random.normal(key, gaps.shape, z.dtype)
        apart = _centred(_rows(seen)) / jnp.sqrt(particles - 1.0).astype(z.dtype)
        gram = share * _products(apart, apart) + sigma**2 * jnp.eye(particles, dtype=z.dtype)
        solve = lambda b: cg(lambda v: jnp.dot(gram, v, precision="highest"), b, iterations)
        weights = jax.vmap(solve)(_products(pull, apart)) / jnp.sqrt(particles - 1.0).astype(z.dtype)
        info, last = _told(cost, residuals), prior.cost.times(ode_steps * jnp.asarray(s <= 0, jnp.int32))
        return Ensemble(_moved(z, weights), start), info._replace(cost=_sum(info.cost, last) if codes else info.cost)

    def final(key: Key, state: Ensemble) -> Array:
        one = state.codes[jax.random.randint(key, (1,), 0, particles)]
        return decode(one, state.start)[0]

    return Sampler(init, step, final)
