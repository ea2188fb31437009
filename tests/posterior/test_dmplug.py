"""DMPlug on a Gaussian, whose sampler is a known linear map of the noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffinv as di
from diffinv import operators, posterior, samplers, times
from diffinv.posterior import rewards
from diffinv.posterior.core.adam import adam

KEY, STD = jax.random.key(4), np.asarray([2.0, 1.0, 0.5])
A = operators.linear(KEY, lambda x: x[:2] + 0.5 * x[1:], (3,))


@pytest.fixture(scope="module")
def prior():
    return di.gaussian(di.process.VP(), jnp.asarray([0.5, -1.0, 0.0]), jnp.diag(jnp.asarray(STD) ** 2))


def generated(prior, z, steps=3):
    """R(z) by the sampler itself."""
    return di.sample(KEY, samplers.ddim(prior), times.grid(steps), prior.process.sigma(1.0) * z).x


def test_its_step_is_adam_s_on_the_noise(prior):
    m = di.measure(KEY, A, jnp.asarray([1.0, 0.0, 1.0]), sigma=0.1)
    sampler, z = posterior.dmplug(prior, m, 0.05, 2), jax.random.normal(KEY, (3,))
    state = sampler.init(KEY, jnp.asarray(1.0), prior.process.sigma(1.0) * z)
    np.testing.assert_allclose(state.z, z, rtol=1e-12)
    state, info = sampler.step(KEY, state, jnp.asarray(1.0), jnp.asarray(0.5))
    loss = lambda z: jnp.sum(m.residual(generated(prior, z, 2)) ** 2)
    moved, _ = adam(0.05).update(jax.grad(loss)(z), adam(0.05).init(z))
    np.testing.assert_allclose(state.z, z + moved, rtol=1e-10)
    np.testing.assert_allclose(info.residual, jnp.sqrt(loss(z)), rtol=1e-10)
    assert (info.cost.nfe, info.cost.vjps, info.cost.calls) == (2, 2, 3)


def test_it_comes_to_the_nearest_noise_that_explains_the_measurement(prior):
    """R(z) = c + B z is affine; what no measurement sees of z stays where it began (least squares from z_0)."""
    m = di.measure(KEY, A, jnp.asarray([1.0, 0.5, -0.5]), sigma=0.0)
    z = jax.random.normal(KEY, (3,))
    solver = di.as_solver(lambda m: posterior.dmplug(prior, m, 0.02), times.grid(1500))
    x = np.asarray(jax.jit(solver)(KEY, m, prior.process.sigma(1.0) * z).x)
    np.testing.assert_allclose(m.residual(jnp.asarray(x)), 0, atol=2e-3)
    B = np.asarray(jax.jacobian(lambda z: generated(prior, z))(z))
    found = np.linalg.solve(B, x - np.asarray(generated(prior, jnp.zeros(3))))
    assert 0.5 < np.linalg.norm(found) < 4  # noise that a Gaussian has, though nothing but the start asks for it


def test_its_picture_is_the_sampler_s_and_the_start_is_drawn(prior):
    m = di.measure(KEY, A, jnp.zeros(3), sigma=0.1)
    sampler = posterior.dmplug(prior, m, 0.0)
    state, _ = sampler.step(KEY, sampler.init(KEY, jnp.asarray(1.0), None), jnp.asarray(1.0), jnp.asarray(0.5))
    expected = generated(prior, prior.start(KEY, jnp.asarray(1.0)) / prior.process.sigma(1.0))
    np.testing.assert_allclose(sampler.final(KEY, state), expected, rtol=1e-12)


def test_what_does_not_fit_is_named(prior):
    m = di.measure(KEY, A, jnp.zeros(3), sigma=0.0)
    with pytest.raises(ValueError, match="ode_steps is 0"):
        posterior.dmplug(prior, m, ode_steps=0)
    with pytest.raises(TypeError, match="reward is 'square'"):
        posterior.dmplug(prior, m, reward="square")
    with pytest.raises(ValueError, match="sigma_y is 0.0"):
        posterior.dmplug(prior, m, reward=rewards.likelihood)
