"""Every sampler runs a guided prior: with the exact one of Gaussian data, to the posterior's mean and covariance."""

import jax
import pytest
from oracle import moment_errors
from registries import SAMPLERS

import diffinv as di
from diffinv import posterior, process, samplers, times
from experiments.methods.running import SAMPLERS as NAMED
from posterior.test_exact import problem

EXACT = ["heun", "churn", "dpmpp_2m", "dpmpp_3m", "dpmpp_2m_sde", "dpmpp_3m_sde", "unipc"]
FIRST = ["ddim", "euler", "ancestral"]
"""These two in the limit of many steps; the law of the others is their own."""


@pytest.mark.parametrize("name", EXACT + [pytest.param(name, marks=pytest.mark.slow) for name in FIRST])
def test_many_steps_have_the_moments_of_the_posterior(name):
    prior, measurement, law = problem(process.VP())
    method = SAMPLERS[name] if name != "churn" else lambda guided: samplers.churn(guided, 200, 10.0, s_noise=1.0)
    grid = times.grid(300 if name in FIRST else 120, power=2.0)
    solver = di.as_solver(lambda m: method(posterior.tmpd(prior, m)), grid)
    samples = jax.jit(jax.vmap(lambda k: solver(k, measurement).x))(jax.random.split(jax.random.key(8), 4000))
    assert max(moment_errors(samples, law)) < 4.5


@pytest.mark.parametrize("name", ["annealed_langevin", "predictor_corrector", "churn"])
def test_the_others_come_near(name):
    """Against the measurement: the residual of their samples is the noise's, not the prior's."""
    prior, measurement, law = problem(process.VP())
    solver = di.as_solver(lambda m: SAMPLERS[name](posterior.tmpd(prior, m)), times.grid(60, power=2.0))
    x = jax.jit(jax.vmap(lambda k: solver(k, measurement).x))(jax.random.split(jax.random.key(8), 500))
    assert abs(x.mean(0) - law.mean).max() < 0.25
    assert abs(jax.numpy.cov(x.T) - law.covariance).max() < 0.5


def test_configurations_name_all_of_them():
    published = {name for name in samplers.__all__ if name.islower()}
    others = {"divergence", "invert", "learned_range", "log_likelihood", "renoise"}
    assert set(NAMED) == published - others


@pytest.mark.parametrize("name", [name for name in NAMED if name != "adaptive"])
def test_a_named_sampler_is_the_librarys(name):
    prior = di.gaussian(process.VP(), jax.numpy.zeros(3), jax.numpy.eye(3))
    grid = times.grid(5)
    found = di.sample(jax.random.key(0), NAMED[name](prior, 5, 0.5), grid).x
    noisy = {"eta": 0.5} if name in ("ddim", "dpmpp_2m_sde", "dpmpp_3m_sde") else {}
    plain = getattr(samplers, name)(prior, *([5] if name == "churn" else []), **noisy)
    assert (found == di.sample(jax.random.key(0), plain, grid).x).all()
