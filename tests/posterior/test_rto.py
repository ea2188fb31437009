"""Randomise, then optimise: the conjugate draw for a linear operator, a minimiser for any other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffinv as di
from diffinv import operators, posterior
from diffinv.posterior import chains
from posterior.published import DIM, MATRIX, X, Y, problem

KEY = jax.random.key(3)
SCALE = np.linalg.norm(MATRIX, 2)


def coupled(operator, y=Y, tau=0.3):
    m = di.Measurement(operator, jnp.asarray(y), di.GaussianNoise(tau))
    return chains.Coupled(m, jnp.asarray(X), *(jnp.asarray(each) for each in (0.7, tau, 0.7)))


@pytest.mark.parametrize("complex_rows", [False, True])
def test_for_a_linear_operator_it_is_the_conjugate_draw(complex_rows):
    """Key by key, not in law alone: both perturb alike, and one of them solves."""
    rows = MATRIX / SCALE * (1 if not complex_rows else np.exp(1j * np.arange(3)[:, None]))
    law = coupled(operators.dense(jnp.asarray(rows)), Y.astype(rows.dtype))
    for key in jax.random.split(KEY, 3):
        np.testing.assert_allclose(chains.rto(800, 1.0)(key, law), chains.conjugate()(key, law), atol=1e-7)


def test_fewer_steps_come_near_and_a_step_too_long_is_seen():
    law = coupled(operators.dense(jnp.asarray(MATRIX / SCALE)))
    error = lambda steps, lr: jnp.linalg.norm(chains.rto(steps, lr)(KEY, law) - chains.conjugate()(KEY, law))
    assert error(100, 0.9) < 1e-2 < error(2, 0.9) and error(100, 3.0) > 1e3


def test_for_another_operator_it_minimises_what_was_perturbed():
    """Its gradient is 0 there: z and e are drawn again by the same keys."""
    bent = operators.function(lambda x: jnp.tanh(jnp.asarray(MATRIX / SCALE) @ x), (DIM,))
    law = coupled(bent, np.tanh(Y))
    x = chains.rto(2000, 0.9)(KEY, law)
    z_key, e_key = jax.random.split(KEY)
    z = law.x0 + 0.7 * jax.random.normal(z_key, (DIM,))
    y = law.measurement.y + 0.3 * jax.random.normal(e_key, (3,))
    objective = lambda x: jnp.sum((y - bent(x)) ** 2) / (2 * 0.3**2) + jnp.sum((x - z) ** 2) / (2 * 0.7**2)
    assert jnp.linalg.norm(jax.grad(objective)(x)) < 1e-6 * jnp.linalg.norm(jax.grad(objective)(z))


def test_what_does_not_fit_is_named():
    prior, m = problem()
    with pytest.raises(ValueError, match="steps is 0"):
        chains.rto(0)
    with pytest.raises(
        TypeError, match=r"daps with chain=chains.rto\(\) draws from Gaussian noise, and this is Poisson"
    ):
        posterior.daps(prior, m.replace(y=jnp.ones(3), noise=di.PoissonNoise(10.0)), chain=chains.rto())
