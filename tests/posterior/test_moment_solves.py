"""How moment matching solves with the covariance of y: against dense solves in float64."""

import jax
import jax.numpy as jnp
import numpy as np

from diffinv.posterior import moments


def test_the_exact_moment_is_a_dense_solve_where_a_jacobian_is_indefinite_too():
    """As a network's may be, which is no covariance: a factorisation of positive matrices would give no number."""
    C = np.random.default_rng(0).standard_normal((6, 6))
    np.fill_diagonal(C, 1.0)  # what y sees varies, each number of it
    r, noise = jnp.arange(1.0, 7.0), jnp.full(6, 0.1)
    symmetric = 0.5 * (C + C.T) + 0.1 * np.eye(6)
    assert np.linalg.eigvalsh(symmetric)[0] < -0.1
    found = jax.jit(lambda C, r: moments.exact(lambda u: C @ u, r, noise))(jnp.asarray(C), r)
    np.testing.assert_allclose(found, np.linalg.solve(symmetric, r), rtol=1e-10)
