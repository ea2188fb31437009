"""Zhao's outliers: weighted particles under a Gaussian mixture, sliced W1 to the exact posterior of a far-off y.

    python -m experiments.tables.gfk [--quick] [--dim=32] [--particles=4096] [--offsets=0,5,10] [--seeds=20]

10 components with means U(-8, 8)^d and covariances I + c c^T, one measurement of random direction and noise, y at the
prior's mean plus an offset; the Ornstein-Uhlenbeck process up to T = 2, started at its exact marginal, 100 steps; all
as Zhao 2025 (arXiv:2506.01083) and its repository zgbkdlm/gfk draw and run them.
Differs: 32 dimensions, 4,096 particles and 20 runs (256, 16,384 and 100 there); steps are ancestral where theirs are
Euler's; systematic resampling where theirs is stratified; particles are drawn by weight before the distance
is taken; Tweedie's mean uses the process's own alpha, where their script halves its exponent. MCGDiff starts from a
Gaussian and gets VP noise up to beta 20 for that (they run it without noise in y, and so at another y).
"""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

from experiments.common import runtime  # noqa: F401  isort: skip  (before jax)

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

import diffinv as di
from diffinv import operators, posterior, process, samplers, schema, times
from diffinv.denoisers.exact import gaussian_mixture
from diffinv.linalg import inner, norm
from diffinv.posterior import rewards
from diffinv.posterior.core.clouds import ParticleInfo, Particles
from diffinv.posterior.core.resampling import effective_size, resampled
from diffinv.process import Process
from diffinv.typing import Array, Key, Sampler, Time
from experiments.lab.problems import Law
from experiments.lab.problems import posterior as bayes
from experiments.tables import published
from experiments.tables.published import Option, counted, named, numbers

STEPS, THRESHOLD, COMPONENTS = 100, 0.7, 10
OU, VP = process.VP(4.0, 4.0), process.VP()
"""`alpha = exp(-2 t)`, that is exp(-1 T) over their T = 2; and the library's own, nearly white at its end."""


def path_widths(forward: Process, variance: Array, t: Time) -> tuple[Array, Array]:
    """`(w_t, d_t)` of `auxiliary`."""
    alpha = forward.alpha(t)
    return -2 * alpha**2 * forward.log_alpha(t), alpha**2 * variance + forward.sigma(t) ** 2


def auxiliary(prior: di.Prior, measurement: di.Measurement, particles: int) -> Sampler:
    r"""Zhao's sampler: y is noised along with x, by the same process, on the path without noise `y_t = alpha_t y`.

        p~(y_t | x_t) = N(alpha_t y; alpha_t A x_t, w_t A A^T + d_t I),
        w_t = -2 alpha_t^2 log alpha_t,   d_t = alpha_t^2 sigma_y^2 + sigma_t^2
        x_s ~ N(m, c^2 I) p~(y_s | x_s), normalised;   weighed by the mean of p~ under N(m, c^2 I) over p~(y_t | x_t)

    with m, c of the ancestral step. At t = 0 it is the likelihood, so the particles' target is the posterior.

    Source: Zhao 2025, arXiv:2506.01083, as `make_fk_normal_likelihood` in its code; w_t sums their recursion, whose
    reverse kernels have variance 2 dt. For processes with `alpha^2 + sigma^2 = 1`, operators with an exact `solve`.
    """
    A, forward, variance = measurement.operator, prior.process, jnp.asarray(measurement.sigma) ** 2

    widths = partial(path_widths, forward, variance)

    def solve(r: Array, w: Array, d: Array) -> Array:
        w = jnp.maximum(w, 1e-9 * d)
        return A.solve(r, d / w) / w

    def gap(x: Array, t: Time) -> Array:
        return forward.alpha(t) * measurement.residual(x)

    def step(key: Key, state: Particles, t: Time, s: Time) -> tuple[Particles, ParticleInfo]:
        pick_key, noise_key = jax.random.split(key)
        alpha, (w, d), (w_s, d_s) = forward.alpha(s), widths(t), widths(s)

        def look(x: Array) -> tuple[Array, Array, Array]:
            x0 = prior.denoise(x, t)
            mean, c = forward.transition(x, x0, t, s)
            behind, ahead = gap(x, t), gap(mean, s)
            before, after = inner(behind, solve(behind, w, d)), inner(ahead, solve(ahead, (c * alpha) ** 2 + w_s, d_s))
            return 0.5 * (before - after), mean, norm(measurement.residual(x0))

        ratio, mean, residuals = jax.vmap(look)(state.x)
        _, c = forward.transition(mean[0], mean[0], t, s)
        log_weights = state.log_weights + ratio.astype(jnp.float32)
        size = effective_size(log_weights)
        log_weights, mean = resampled(pick_key, log_weights, mean, THRESHOLD)

        def move(key: Key, mean: Array) -> Array:
            own, wide, white = jax.random.split(key, 3)
            x = mean + c * jax.random.normal(own, mean.shape, mean.dtype)
            y = alpha * A(x) + jnp.sqrt(w_s) * A(jax.random.normal(wide, mean.shape, mean.dtype))
            y = y + jnp.sqrt(d_s) * jax.random.normal(white, measurement.y.shape, mean.dtype)
            return x + c**2 * alpha * A.adjoint(solve(alpha * measurement.y - y, (c * alpha) ** 2 + w_s, d_s))

        x = jax.vmap(move)(jax.random.split(noise_key, particles), mean)
        return Particles(x, log_weights), ParticleInfo(prior.cost.times(particles), jnp.mean(residuals), size)

    def init(key: Key, t: Time, x: Array | None) -> Particles:
        x = jax.vmap(lambda k: prior.start(k, t))(jax.random.split(key, particles))
        r = jax.vmap(lambda x: gap(x, t))(x)
        return Particles(x, jax.vmap(lambda r: -0.5 * inner(r, solve(r, *widths(t))))(r).astype(jnp.float32))

    def final(key: Key, state: Particles) -> Array:
        return state.x[jax.random.categorical(key, state.log_weights)]

    return Sampler(init, step, final)


ROWS = {
    "aux": (OU, auxiliary),
    "TDS p(y | x0)": (OU, lambda prior, m, n: posterior.tds(prior, m, n, THRESHOLD, 0.0)),
    "TDS widened": (OU, lambda prior, m, n: posterior.tds(prior, m, n, THRESHOLD)),
    "DPS": (
        OU,
        lambda prior, m, n: samplers.ancestral(posterior.dps_score(prior, m, 1.0, rewards.likelihood)),
    ),
    "MCGDiff": (VP, lambda prior, m, n: posterior.mcgdiff(prior, m, n, 1e-2)),
}
LONE = ("DPS",)
THEIRS = {"aux": "aux", "TDS p(y | x0)": "wu-tweedie", "DPS": "dps-tweedie"}
OPTIONS = {
    "dim": Option(32, 8, counted("dimension of x", 1000)),
    "particles": Option(4096, 256, counted("and samples of the posterior", 100_000)),
    "offsets": Option([0.0, 5.0, 10.0], [0.0, 10.0], numbers(schema.number("of y from the prior's mean"))),
    "seeds": Option(20, 2, counted("instances", 10_000)),
    "directions": Option(1000, 100, counted("of the sliced distance", 100_000, low=1)),
    "methods": Option(list(ROWS), None, named(ROWS)),
}


def instance(rng: np.random.Generator, dim: int, offset: float) -> tuple[Law, np.ndarray, np.ndarray, float]:
    """(the prior's law, matrix, y, sigma); sigma^2 = u^2 + s^2 as their runs have it, u ~ U(0, 1)."""
    weights, means = rng.standard_normal(COMPONENTS) ** 2, rng.uniform(-8, 8, (COMPONENTS, dim))
    spikes = rng.uniform(0, 1, (COMPONENTS, dim))
    law = Law(weights / weights.sum(), means, np.eye(dim) + np.einsum("ki,kj->kij", spikes, spikes))
    direction, s = rng.standard_normal((1, dim)), rng.uniform() + 1e-3
    A = s * direction / np.linalg.norm(direction)
    return law, A, A @ (law.weights @ means) + offset, float(np.hypot(rng.uniform(), s))


def exact_prior(law: Law, forward: Process) -> di.Prior:
    """The law under a process, its noisy end drawn exactly, `alpha_T x_0 + sigma_T z`: at T = 2 modes still show."""
    prior = gaussian_mixture(forward, *map(jnp.asarray, (law.means, law.weights, law.covariances)))
    return prior.replace(law=prior.denoise)


def program(name: str, particles: int):
    """`(key, prior, measurement) -> (particles, d)`, compiled once."""
    row, grid = ROWS[name][1], times.grid(STEPS)

    def run(key: Key, prior: di.Prior, measurement: di.Measurement) -> Array:
        sampler = row(prior, measurement, particles)
        if name in LONE:
            return jax.vmap(lambda k: di.sample(k, sampler, grid).x)(jax.random.split(key, particles))
        draws = lambda key, state: jax.vmap(lambda k: sampler.final(k, state))(jax.random.split(key, particles))
        return di.sample(key, sampler._replace(final=draws), grid).x

    return jax.jit(run)


def errors(options: SimpleNamespace, offset: float, programs: dict, bar: tqdm) -> dict[str, list[float]]:
    """Sliced W1 of every method, and of other exact samples, over the instances."""
    found = {name: [] for name in ["exact", *programs]}
    for seed in range(options.seeds):
        rng = np.random.default_rng([seed, options.dim])
        law, A, y, sigma = instance(rng, options.dim, offset)
        measurement = di.Measurement(
            operators.dense(jnp.asarray(A)), jnp.asarray(y), di.GaussianNoise(jnp.asarray(sigma))
        )
        right = bayes(law, A, y, sigma)
        reference, other = (right.sample(rng, options.particles) for _ in range(2))
        found["exact"].append(published.sliced(other, reference, options.directions, seed))
        for name, each in programs.items():
            x = np.asarray(each(jax.random.key(seed), exact_prior(law, ROWS[name][0]), measurement))
            found[name].append(published.sliced(x, reference, options.directions, seed))
            bar.update()
    return found


def main(options: SimpleNamespace) -> published.Table:
    jax.config.update("jax_enable_x64", True)
    names = published.rows("methods", options.methods, list(ROWS))
    programs = {name: program(name, options.particles) for name in names}
    lines, results = [("offset", "exact (floor)", *names)], []
    with tqdm(total=len(options.offsets) * options.seeds * len(names), unit="run") as bar:
        for offset in options.offsets:
            found = errors(options, float(offset), programs, bar)
            lines.append((f"{float(offset):g}", *(published.cell(each) for each in found.values())))
            results += [found[name] for name in names]
    lines.append(("published", "", *(published.told(None) if name in THEIRS else "none" for name in names)))
    what = f"sliced W1, {options.dim} dimensions, {options.particles} particles, mean ± 1.96 s / sqrt({options.seeds})"
    calls = ", ".join(f"{ours} is {theirs}" for ours, theirs in THEIRS.items())
    text = f"Published values: the paper's table was not at hand, and its repository has none. There {calls}."
    return published.table(f"{what}\n{published.columns(lines)}\n\n{text}", results)


if __name__ == "__main__":
    published.run(main, OPTIONS)
