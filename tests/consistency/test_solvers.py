"""A consistency model is a prior: solvers take it where they solve the probability-flow ODE, or for its samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import VARIANCES, GaussianMap, GaussianMean
from numpy.testing import assert_allclose

import diffinv as di
from diffinv import operators, posterior, process, samplers, times
from diffinv.posterior import chains, rewards

EDM = process.EDM(8.0)
GRID = times.karras(6, 0.02, 8.0)


@pytest.fixture
def priors():
    """(the ODE's map, the denoiser) of the same Gaussian."""
    with jax.enable_x64():
        log = jnp.log(jnp.asarray(VARIANCES, jnp.float64))
        yield di.Prior(EDM, GaussianMap(log, EDM), (4,)), di.Prior(EDM, GaussianMean(log, EDM), (4,))


@pytest.fixture
def measurement(priors):
    operator = operators.dense(jnp.asarray([[1.0, 0.5, 0.0, 0.0], [0.0, 0.0, 1.0, -0.5]]))
    return di.Measurement(operator, jnp.asarray([0.7, -0.4]), di.GaussianNoise(jnp.asarray(0.1)))


def test_one_evaluation_is_dapss_inner_solve(key, priors, measurement):
    """The same draws by one step of the map and by n of Euler's; the gap is of first order in 1 / n."""
    made, denoiser = priors

    def run(prior, steps):
        solver = di.as_solver(
            lambda m: posterior.daps(prior, m, steps, chains.conjugate(), sigma_end=1e-6, rho=3.0), GRID
        )
        return np.asarray(jax.jit(solver)(key, measurement).x)

    exact = run(made, 1)
    gaps = [np.abs(run(denoiser, steps) - exact).max() for steps in (100, 200)]
    assert gaps[1] < 0.01
    assert_allclose(gaps[0] / gaps[1], 2.0, atol=0.2)


@pytest.mark.slow
def test_its_sample_is_a_proposal_for_reguidance(key, priors, measurement):
    """Where the guidance is 0 the candidate comes back: the denoiser's ODE inverts what the map had solved."""
    made, denoiser = priors
    propose = di.as_solver(lambda m: samplers.renoise(made), jnp.asarray([1.0, 0.0]))

    def distance(steps):
        grid = times.karras(steps, 0.002, 8.0)
        refine = di.as_solver(lambda m: samplers.heun(posterior.dps_score(denoiser, m, rho=0.0)), grid)
        solution = jax.jit(posterior.reguidance(propose, refine, denoiser, grid))(key, measurement)
        return solution, float(np.abs(solution.x - solution.info.candidate).max())

    (solution, coarse), (_, fine) = distance(20), distance(40)
    assert int(np.sum(np.asarray(solution.info.proposal.cost.nfe))) == 1
    assert fine < 0.01 and coarse / fine > 2.0


def test_two_steps_under_guidance_lower_the_residual(key, priors, measurement):
    """`dps_score` differentiates through the map as through any denoiser."""
    made, _ = priors
    guided = di.as_solver(lambda m: samplers.ddim(posterior.dps_score(made, m, rho=1.0, reward=rewards.norm)), GRID)
    plain = di.as_solver(lambda m: samplers.ddim(made), GRID)
    residual = lambda solver: float(jnp.linalg.norm(measurement.residual(jax.jit(solver)(key, measurement).x)))
    assert residual(guided) < 0.5 * residual(plain)
