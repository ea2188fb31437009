"""`best_of` and `warm_start`; ReGuidance has its own file."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from oracle import gaussian_posterior, moment_errors

import diffinv as di
from diffinv import operators, posterior, samplers, times
from diffinv.operators.base import Operator
from posterior.methods import METHODS

DIM = 3


@struct.dataclass
class First(Operator):
    """The first coordinate alone: what the others hold does not touch the residual, not even NaN."""

    @property
    def shape(self):
        return (DIM,)

    def __call__(self, x):
        return x[:1]


def measurement():
    return di.Measurement(First(), jnp.zeros(1), di.GaussianNoise(0.1))


def drawing(spoil=lambda x: x):
    """A solver whose sample is standard normal in its key, and whose info is its own residual."""

    def solver(key, measurement, x=None):
        x = spoil(jax.random.normal(key, (DIM,)))
        return di.Solution(x, measurement.residual(x)[0])

    return solver


@pytest.mark.parametrize("draws", [1, 5])
def test_best_of_takes_the_smallest_residual(draws, key):
    best = jax.jit(posterior.best_of(drawing(), draws))(key, measurement())
    alone = jax.vmap(lambda k: jax.random.normal(k, (DIM,)))(jax.random.split(key, draws))
    np.testing.assert_array_equal(best.x, alone[np.argmin(np.abs(alone[:, 0]))])
    assert best.info.shape == (draws,)


@pytest.mark.parametrize("where", [0, 1])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_best_of_passes_over_draws_that_are_not_finite(where, value, key):
    """In the coordinate that is measured, and in one that the residual does not see."""

    def spoil(x):
        """Spoils the draws nearest to y, so that they would win."""
        return jnp.where((jnp.abs(x[0]) < 0.5) & (jnp.arange(DIM) == where), value, x)

    draws = 12
    best = posterior.best_of(drawing(spoil), draws)(key, measurement())
    alone = np.asarray(jax.vmap(lambda k: jax.random.normal(k, (DIM,)))(jax.random.split(key, draws)))
    sound = alone[np.abs(alone[:, 0]) >= 0.5]
    assert 0 < len(sound) < draws
    np.testing.assert_array_equal(best.x, sound[np.argmin(np.abs(sound[:, 0]))])


@pytest.mark.slow
def test_best_of_is_no_worse_than_its_draws_and_vmaps(key):
    prior, m, solver = gaussian_problem()
    best = posterior.best_of(solver, 4)
    solutions = jax.jit(jax.vmap(lambda k: best(k, m)))(jax.random.split(key, 3))
    every = jax.jit(jax.vmap(jax.vmap(lambda k: solver(k, m).x)))
    for i, draws in enumerate(every(jax.vmap(lambda k: jax.random.split(k, 4))(jax.random.split(key, 3)))):
        residuals = jnp.linalg.norm(jax.vmap(m.residual)(draws), axis=1)
        np.testing.assert_allclose(jnp.linalg.norm(m.residual(solutions.x[i])), residuals.min(), rtol=1e-9)
    assert solutions.info.cost.nfe.shape == (3, 4, 20)


def gaussian_problem(process=None):
    process = di.process.Flow() if process is None else process
    prior = di.gaussian(process, jnp.asarray([0.5, -1.0, 0.0]), jnp.diag(jnp.asarray([0.5, 1.0, 2.0])))
    operator = operators.dense(jnp.asarray([[1.0, 0.5, 0.2]]))
    m = di.measure(jax.random.key(1), operator, jnp.asarray([1.0, 0.0, 1.0]), 0.3)
    return prior, m, di.as_solver(lambda m: samplers.heun(posterior.mmps(prior, m, iterations=3)), times.grid(20))


def constant(x):
    return lambda key, measurement, start=None: di.Solution(x, None)


def test_a_warm_start_at_the_noisy_end_forgets_its_proposal(key):
    """At t = 1 of a process with alpha(1) = 0: the proposal makes no difference, and the start is N(0, sigma_1^2)."""
    prior, m, solver = gaussian_problem()
    far, near = (posterior.warm_start(constant(jnp.full(3, v)), solver, prior, 1.0) for v in (1e3, 0.0))
    np.testing.assert_array_equal(jax.jit(far)(key, m).x, jax.jit(near)(key, m).x)
    law = gaussian_posterior(
        np.asarray(prior.denoise.mean), np.diag([0.5, 1.0, 2.0]), np.array([[1.0, 0.5, 0.2]]), np.asarray(m.y), 0.3
    )
    samples = jax.jit(jax.vmap(lambda k: far(k, m).x))(jax.random.split(key, 4000))
    assert max(moment_errors(np.asarray(samples), law)) < 5


def test_a_warm_start_refines_from_the_noised_proposal(key):
    """The refinement begins at `alpha_t x + sigma_t n`, and a late start stays near its proposal."""
    prior, m, _ = gaussian_problem()
    seen = {}

    def watching(key, measurement, x=None):
        seen["x"] = x
        return di.Solution(x, "refined")

    proposal, noises = jnp.asarray([3.0, -2.0, 1.0]), []
    for t in (0.3, 0.9):
        solution = posterior.warm_start(constant(proposal), watching, prior, t)(key, m)
        assert solution.info == (None, "refined")
        noises.append((seen["x"] - (1 - t) * proposal) / t)
    np.testing.assert_allclose(*noises, rtol=1e-9)
    assert 0.1 < np.abs(noises[0]).max() < 5
    posterior.warm_start(constant(proposal), watching, prior, 0.0)(key, m)
    np.testing.assert_array_equal(seen["x"], proposal)


def test_a_warm_start_from_exact_samples_keeps_their_law(key):
    """A posterior draw, noised to t = 0.4 and refined by the exact guidance, is a posterior draw."""
    prior, m, solver = gaussian_problem()
    grid = times.grid(20, start=0.4)
    refine = di.as_solver(lambda m: samplers.heun(posterior.mmps(prior, m, iterations=3)), grid)
    warm = posterior.warm_start(solver, refine, prior, grid[0])
    law = gaussian_posterior(
        np.asarray(prior.denoise.mean), np.diag([0.5, 1.0, 2.0]), np.array([[1.0, 0.5, 0.2]]), np.asarray(m.y), 0.3
    )
    samples = jax.jit(jax.vmap(lambda k: warm(k, m).x))(jax.random.split(key, 4000))
    assert max(moment_errors(np.asarray(samples), law)) < 5


def test_stages_have_independent_keys(key):
    """The proposal's noise is not the refinement's: their correlation over 2,000 keys vanishes."""
    prior, m, _ = gaussian_problem()
    refine = lambda k, m, x=None: di.Solution((x, jax.random.normal(k, (DIM,))), None)
    wrapped = posterior.warm_start(drawing(), refine, prior, 1.0)
    noised, refined = jax.vmap(lambda k: wrapped(k, m).x)(jax.random.split(key, 2000))
    proposed = jax.vmap(lambda k: jax.random.normal(jax.random.split(k, 3)[0], (DIM,)))(jax.random.split(key, 2000))
    for one, other in ((noised, refined), (noised, proposed), (proposed, refined)):
        assert abs(np.corrcoef(np.ravel(one), np.ravel(other))[0, 1]) < 5 / np.sqrt(2000 * DIM)


def test_restarts_refine_again_and_again_from_fresh_noise(key):
    """Each round begins at the last sample, noised; a round's law is `warm_start`'s, and infos are stacked."""
    prior, m, _ = gaussian_problem()
    halve = lambda k, m, x=None: di.Solution(0.5 * x, x)
    solution = posterior.restarts(constant(jnp.asarray([4.0, -4.0, 8.0])), halve, prior, 0.0, rounds=3)(key, m)
    np.testing.assert_array_equal(solution.x, [0.5, -0.5, 1.0])
    np.testing.assert_array_equal(solution.info[1][:, 0], [4.0, 2.0, 1.0])
    noised = posterior.restarts(constant(jnp.zeros(3)), halve, prior, 0.6, rounds=2)(key, m).info[1]
    assert np.abs(noised[1] - (1 - 0.6) * 0.5 * noised[0]).min() > 1e-3
    with pytest.raises(ValueError, match="rounds is 0; it must be a whole number, at least 1"):
        posterior.restarts(halve, halve, prior, 0.5, 0)
    with pytest.raises(ValueError, match="draws is 0; it must be a whole number, at least 1"):
        posterior.best_of(halve, 0)


@pytest.mark.slow
def test_restarts_forget_a_wrong_proposal(key):
    """A proposal far off, refined by the exact guidance from t = 0.7: six rounds have the posterior's mean, one not."""
    prior, m, _ = gaussian_problem()
    grid = times.grid(12, start=0.7)
    refine = di.as_solver(lambda m: samplers.heun(posterior.mmps(prior, m, iterations=3)), grid)
    law = gaussian_posterior(
        np.asarray(prior.denoise.mean), np.diag([0.5, 1.0, 2.0]), np.array([[1.0, 0.5, 0.2]]), np.asarray(m.y), 0.3
    )

    def shift(rounds):
        solver = posterior.restarts(constant(jnp.full(3, 5.0)), refine, prior, grid[0], rounds)
        x = jax.jit(jax.vmap(lambda k: solver(k, m).x))(jax.random.split(key, 1000))
        return np.abs(np.asarray(x).mean(0) - law.mean).max()

    assert shift(6) < 0.15 < 0.5 < shift(1)


def test_account_tells_the_same_of_every_solver(key):
    """Costs over stages and draws, the final residual, and a flag for each sample that blew up, vmapped."""
    prior, m, solver = gaussian_problem()
    wrapped = posterior.warm_start(solver, posterior.best_of(solver, 3), prior, 1.0)
    solution = jax.jit(posterior.account(wrapped))(key, m)
    assert (int(solution.info.cost.nfe), int(solution.info.cost.vjps)) == (4 * 39, 4 * 39 * 4)
    np.testing.assert_allclose(solution.info.residual, jnp.linalg.norm(m.residual(solution.x)))
    assert not solution.info.diverged and solution.info.finite and int(solution.info.failed_step) == -1

    def run(zeta):
        method = lambda m: di.guard(posterior.dps(prior, m, zeta, posterior.rewards.square))
        return posterior.account(di.as_solver(method, times.grid(20)))(key, m)

    solutions = jax.jit(jax.vmap(run))(jnp.asarray([0.05, 1e2, 1e200]))
    np.testing.assert_array_equal(solutions.info.diverged, [False, True, True])
    assert int(solutions.info.failed_step[2]) >= 0 and np.isfinite(solutions.x).all()
    spoilt = posterior.account(drawing(lambda x: x.at[1].set(jnp.nan)))(key, measurement())
    assert spoilt.info.diverged and not spoilt.info.finite


def test_account_has_nothing_to_compare_with_where_0_fits(key):
    """A mid-grey picture, measured without noise: any residual is infinitely worse than none."""
    m = measurement().replace(y=jnp.zeros_like(measurement().y))
    assert not posterior.account(drawing(lambda x: x))(key, m).info.diverged
    assert posterior.account(drawing(lambda x: x.at[1].set(jnp.inf)))(key, m).info.diverged


STRUCTURES = ["ddrm", "mcgdiff", "reddiff mean", "pnpdm conjugate", "ddnm_plus svd"]


@pytest.mark.parametrize("name", STRUCTURES)
def test_all_wrappers_wrap_methods_of_every_structure(name, key):
    """By abstract tracing: states of all kinds inside, one sample outside, one account on top."""
    prior, m, refine = gaussian_problem()
    grid = times.grid(4)
    solver = di.as_solver(lambda m: METHODS[name](prior, m), grid)
    again = di.as_solver(lambda m: METHODS[name](prior, m), grid[2:])
    for wrapped in (
        posterior.best_of(solver, 2),
        posterior.warm_start(solver, again, prior, grid[2]),
        posterior.restarts(solver, again, prior, grid[2], 2),
        posterior.reguidance(solver, refine, prior, grid),
    ):
        solution = jax.eval_shape(posterior.account(wrapped), key, m)
        assert solution.x.shape == (DIM,) and solution.info.cost.nfe.shape == solution.info.diverged.shape == ()
