"""DiffStateGrad beside DPS, of which it is a part, and its projection in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffinv as di
from diffinv import operators, posterior, times
from diffinv.posterior import rewards

SHAPE, KEY = (6, 4, 2), jax.random.key(3)


@pytest.fixture(scope="module")
def problem():
    prior = di.gaussian_field(di.process.VP(), jnp.zeros(SHAPE), 1 / (1 + jnp.arange(48.0).reshape(SHAPE)))
    return prior, di.measure(KEY, operators.average_pool(SHAPE, 2), prior.denoise.sample(KEY), sigma=0.1)


def stepped(sampler, x, t=0.6, s=0.4):
    """x_s of one step, and its residual."""
    return sampler.step(jax.random.key(9), x, jnp.asarray(t), jnp.asarray(s))


@pytest.mark.parametrize("reward", [rewards.norm, rewards.likelihood])
@pytest.mark.parametrize("shape", [(4, 4, 2), (8,)], ids=["square", "no picture"])
def test_with_all_of_the_energy_it_is_dps(shape, reward):
    """A square picture has as many singular vectors as sides; a vector has none, and no share of them."""
    vp = di.process.VP()
    prior = di.Prior(vp, di.denoisers.GaussianDenoiser(vp, jnp.zeros(shape), jnp.ones((1,) * len(shape))), shape)
    m = di.measure(KEY, operators.function(lambda x: jnp.tanh(x[:3]), shape), jnp.full(shape, 0.5), sigma=0.1)
    x = jax.random.normal(KEY, shape)
    mine, info = stepped(posterior.diffstategrad(prior, m, 0.3, 1.0, reward), x)
    theirs, told = stepped(posterior.dps(prior, m, 0.3, reward), x)
    np.testing.assert_allclose(mine, theirs, rtol=1e-11, atol=1e-13)
    if reward is rewards.norm:
        np.testing.assert_allclose(info.residual, told.residual, rtol=1e-12)


@pytest.mark.parametrize("share", [0.3, 0.9, 0.99])
def test_the_gradient_keeps_to_the_leading_singular_vectors(problem, share):
    """What DPS moves, projected by NumPy's own decomposition of each channel."""
    prior, m = problem
    x = jax.random.normal(KEY, SHAPE)
    still = posterior.dps(prior, m, 0.0)
    moved = np.asarray(stepped(posterior.dps(prior, m, 1.0), x)[0] - stepped(still, x)[0])
    mine = np.asarray(stepped(posterior.diffstategrad(prior, m, 1.0, share), x)[0] - stepped(still, x)[0])
    ranks = []
    for c in range(SHAPE[2]):
        u, s, vt = np.linalg.svd(np.asarray(x)[..., c], full_matrices=False)
        ranks.append(r := int(np.argmax(np.cumsum(s**2) >= share * np.sum(s**2))) + 1)
        expected = u[:, :r] @ u[:, :r].T @ moved[..., c] @ vt[:r].T @ vt[:r]
        np.testing.assert_allclose(mine[..., c], expected, rtol=1e-9, atol=1e-12)
    assert min(ranks) < 4 or share > 0.9


def test_a_state_of_rank_one_moves_along_itself(problem):
    prior, m = problem
    row, column = jnp.arange(1.0, 7.0), jnp.asarray([1.0, -1.0, 2.0, 0.5])
    x = jnp.repeat(jnp.outer(row, column)[..., None], 2, -1)
    still = stepped(posterior.dps(prior, m, 0.0), x)[0]
    moved = np.asarray(stepped(posterior.diffstategrad(prior, m, 1.0, 0.99), x)[0] - still)
    for c in range(2):
        scale = np.vdot(moved[..., c], x[..., c]) / np.vdot(x[..., c], x[..., c])
        np.testing.assert_allclose(moved[..., c], scale * np.asarray(x[..., c]), atol=1e-10)
        assert abs(scale) > 1e-6


def test_it_fits_the_measurement(problem):
    prior, m = problem
    left = {}
    for zeta in (0.0, 0.4):
        solver = di.as_solver(lambda m, zeta=zeta: posterior.diffstategrad(prior, m, zeta), times.grid(60))
        left[zeta] = float(jnp.linalg.norm(m.residual(jax.jit(solver)(KEY, m).x).ravel()))
    assert left[0.4] < 0.6 * left[0.0]


def test_what_does_not_fit_is_named(problem):
    prior, m = problem
    with pytest.raises(TypeError, match="reward is 'norm'"):
        posterior.diffstategrad(prior, m, reward="norm")
