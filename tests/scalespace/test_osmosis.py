"""Osmosis: the generator against a dense matrix, its laws to rounding, the schemes, cloning and shadow removal."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.linalg import eigvals, expm, null_space

from diffinv.scalespace import PHI, osmosis, phi_divergence

pytestmark = pytest.mark.long


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def positive(rng, *shape):
    return jnp.asarray(rng.uniform(0.2, 2.0, shape))


def dense(rates):
    """The generator as a matrix on one channel, column by column."""
    shape = rates.weight.shape
    unit = jnp.eye(int(np.prod(shape))).reshape(-1, *shape)
    return np.asarray(jax.vmap(rates)(unit)).reshape(len(unit), -1).T


def random_drift(rng, height, width):
    """A drift of no guide: its circulation does not vanish."""
    return osmosis.Drift(
        *(jnp.asarray(rng.uniform(-1.8, 1.8, s)) for s in ((height - 1, width, 1), (height, width - 1, 1)))
    )


def test_generator_is_the_closed_form(rng):
    v = positive(rng, 5, 4, 1)
    A, flat = dense(osmosis.osmosis(v)), np.asarray(v).ravel()
    index = np.arange(20).reshape(5, 4)
    expected = np.zeros((20, 20))
    for a, b in [*zip(index[:-1].ravel(), index[1:].ravel()), *zip(index[:, :-1].ravel(), index[:, 1:].ravel())]:
        expected[a, b], expected[b, a] = 2 * flat[a] / (flat[a] + flat[b]), 2 * flat[b] / (flat[a] + flat[b])
    expected -= np.diag(expected.sum(0))
    assert_allclose(A, expected, atol=1e-14)
    assert np.abs(A.sum(0)).max() < 4e-15 and np.abs(A @ flat).max() < 1e-14
    balance = A * flat
    assert_allclose(balance, balance.T, atol=1e-15)
    assert_allclose(dense(osmosis.osmosis(7 * v)), A, atol=1e-14)


def test_explicit_steps_are_stochastic_just_below_an_eighth(rng):
    for drift in (osmosis.canonical(jnp.asarray(10 ** rng.uniform(-4, 4, (6, 6, 1)))), random_drift(rng, 6, 6)):
        P = np.eye(36) + 0.1249 * dense(osmosis.generator(drift))
        assert P.min() >= 0 and np.diag(P).min() > 0
        assert_allclose(P.sum(0), 1, atol=1e-13)
    with pytest.raises(ValueError, match="tau is 0.125; the explicit scheme is stable for 0 < tau < 1/8"):
        osmosis.explicit(osmosis.osmosis(positive(rng, 4, 4, 1)), positive(rng, 4, 4, 1), 0.125)


@pytest.mark.slow
def test_explicit_scheme_reaches_the_rescaled_guide_and_every_divergence_falls(rng):
    v, u = positive(rng, 8, 8, 1), positive(rng, 8, 8, 1)
    rates = osmosis.osmosis(v)

    @jax.jit
    def run(u):
        step = lambda u, _: (osmosis.explicit(rates, u, 0.12),) * 2
        return jax.lax.scan(step, u, None, 6000)[1]

    path = jnp.concatenate([u[None], run(u)])
    assert_allclose(path[-1], osmosis.rescaled(v, u), atol=1e-12)
    assert jnp.min(path) > 0
    assert jnp.max(jnp.abs(jnp.mean(path, (1, 2)) - jnp.mean(u))) < 1e-13
    share = lambda x: x / jnp.sum(x)
    for name, phi in PHI.items():
        values = jax.vmap(lambda u, phi=phi: phi_divergence(share(u), share(v), phi))(path)
        assert jnp.all(jnp.diff(values) <= 1e-12) and values[0] > 0.01 and abs(values[-1]) < 1e-12, name


@pytest.mark.parametrize("shape", [(7, 5, 2), pytest.param((1, 6, 1), marks=pytest.mark.slow)])
def test_implicit_step_is_the_dense_solution(rng, shape):
    v, u = positive(rng, *shape), positive(rng, *shape)
    rates = osmosis.osmosis(v)
    implicit = jax.jit(osmosis.implicit)
    for tau in (0.5, 1000.0):
        exact = np.linalg.solve(np.eye(u.size) - tau * dense(rates), np.asarray(u).ravel())
        stepped = implicit(rates, u, tau, 1e-13)
        assert_allclose(stepped.ravel(), exact, rtol=1e-9)
        assert osmosis.residual(rates, stepped, u, tau) < 1e-11


@pytest.mark.slow
def test_implicit_steps_contract_by_the_spectral_gap(rng):
    v, u = positive(rng, 8, 8, 1), positive(rng, 8, 8, 1)
    rates = osmosis.osmosis(v)
    gap = np.sort(-eigvals(dense(rates)).real)[1]
    path = jax.jit(osmosis.trajectory)(rates, u, jnp.full(3, 1000.0), tolerance=1e-14)
    errors = [float(jnp.linalg.norm(x - osmosis.rescaled(v, u))) for x in (u, *path)]
    for before, after in zip(errors[:2], errors[1:]):
        assert after <= before * 3 / (1 + 1000 * gap)
    assert errors[3] < 1e-6 * errors[0]


def test_a_drift_of_no_guide_has_one_positive_steady_state(rng):
    """Not symmetric under any weight: complex eigenvalues, or a current that does not vanish."""
    rates = osmosis.generator(random_drift(rng, 6, 5))
    u = positive(rng, 6, 5, 1)
    A = dense(rates)
    kernel = null_space(A)
    assert kernel.shape == (30, 1) and (np.sign(kernel) == np.sign(kernel[0])).all()
    limit = kernel[:, 0] / kernel.sum() * float(jnp.sum(u))
    current = A * limit
    assert np.abs(current - current.T).max() > 0.1
    assert_allclose(jax.jit(osmosis.steady)(rates, u, tolerance=1e-13).ravel(), limit, rtol=1e-6)
    assert_allclose(expm(1e3 * A) @ np.asarray(u).ravel(), limit, rtol=1e-9)


@pytest.mark.slow
def test_constant_guide_is_homogeneous_diffusion(rng):
    u = positive(rng, 8, 8, 1)
    rates = osmosis.osmosis(jnp.ones((8, 8, 1)))
    path = jax.jit(osmosis.trajectory)(rates, u, jnp.full(12, 0.7), tolerance=1e-13)
    p = jnp.concatenate([u[None], path]) / jnp.sum(u)
    entropy = -jnp.sum(p * jnp.log(p), (1, 2, 3))
    assert jnp.all(jnp.diff(entropy) > 0)
    assert_allclose(dense(rates), dense(rates).T, atol=1e-15)


@pytest.mark.slow
def test_a_barred_shadow_is_removed(rng):
    """The steady state of a shadowed picture, drift 0 across the border: both sides meet at one brightness."""
    v = np.asarray(positive(rng, 16, 16, 1)) * 0.02 + 1
    shadow = np.zeros((16, 16, 1), bool)
    shadow[:, 8:] = True
    guide = jnp.asarray(np.where(shadow, 0.3 * v, v))
    border = jnp.zeros((16, 16, 1), bool).at[:, 7:9].set(True)
    rates = osmosis.generator(osmosis.barred(osmosis.canonical(guide), border), guide)
    lit = jax.jit(lambda r, u: osmosis.steady(r, u, 3, tolerance=1e-12))(rates, guide)
    ratio = float(jnp.mean(lit[:, 9:]) / jnp.mean(lit[:, :7]))
    before = float(jnp.mean(guide[:, 9:]) / jnp.mean(guide[:, :7]))
    assert before < 0.32 and abs(ratio - 1) < 0.02
    texture = lit[:, 9:] / v[:, 9:]
    assert jnp.std(texture) < 0.01 * jnp.mean(texture)
    assert_allclose(jnp.mean(lit), jnp.mean(guide), rtol=1e-12)


def test_cloning_keeps_the_drift_of_each_side(rng):
    inside, outside = positive(rng, 8, 8, 1), positive(rng, 8, 8, 1)
    mask = jnp.zeros((8, 8, 1), bool).at[2:6, 2:6].set(True)
    a, b = osmosis.canonical(inside), osmosis.canonical(outside)
    fused = osmosis.fused(mask, a, b)
    assert_allclose(fused.rows[2:5, 2:6], a.rows[2:5, 2:6])
    assert_allclose(fused.rows[6:], b.rows[6:])
    assert_allclose(fused.rows[1, 3], 0.5 * (a.rows[1, 3] + b.rows[1, 3]))
    same = osmosis.fused(mask, a, a)
    assert_allclose(same.columns, a.columns)


@pytest.mark.slow
def test_single_precision_and_vmap(rng):
    v, u = positive(rng, 12, 10, 3), positive(rng, 12, 10, 3)
    with jax.enable_x64(False):
        single = jax.jit(lambda v, u: osmosis.implicit(osmosis.osmosis(v), u, 10.0))(
            v.astype("float32"), u.astype("float32")
        )
    both = jax.jit(jax.vmap(lambda v, u: osmosis.implicit(osmosis.osmosis(v), u, 10.0)))(
        jnp.stack([v, u]), jnp.stack([u, v])
    )
    assert single.dtype == jnp.float32
    assert_allclose(single, both[0], rtol=1e-4)
    assert_allclose(jnp.mean(both, (1, 2)), jnp.mean(jnp.stack([u, v]), (1, 2)), rtol=1e-12)


def test_mistakes_are_named(rng):
    u = positive(rng, 4, 4, 1)
    with pytest.raises(ValueError, match="guide has the value -0.5; .* add an offset above 0.5"):
        osmosis.osmosis(u.at[0, 0].set(-0.5))
    with pytest.raises(ValueError, match="image has the value 0; .* add an offset"):
        osmosis.implicit(osmosis.osmosis(u), u.at[0, 0].set(0.0), 1.0)
    with pytest.raises(ValueError, match=r"image is \(4, 4, 1\) and the guide is \(5, 4, 1\)"):
        osmosis.implicit(osmosis.osmosis(positive(rng, 5, 4, 1)), u, 1.0)
    with pytest.raises(ValueError, match="give one image"):
        osmosis.canonical(u[..., 0])
    with pytest.raises(ValueError, match="weight is"):
        osmosis.generator(osmosis.canonical(u), positive(rng, 5, 4, 1))
