"""Reconstructions without a prior: closed forms, other minimisers, and what is theirs of a scan."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import diffinv as di
from diffinv import operators, posterior, times
from diffinv.posterior.baselines import differences

KEY = jax.random.key(0)


def prior(shape):
    size = int(np.prod(shape))
    return di.gaussian(di.process.VP(), jnp.zeros(shape), jnp.eye(size))


def solved(method, measurement, steps, x=None, start=1.0, **options):
    solver = di.as_solver(lambda m: method(prior(m.operator.shape), m, **options), times.grid(steps, start))
    return jax.jit(solver)(KEY, measurement, x)


def given(operator, y):
    return di.Measurement(operator, jnp.asarray(y), di.GaussianNoise(0.1))


def step_edge(n):
    return np.where(np.arange(n) < n // 3, -0.5, 0.7)


def variation(x):
    return np.sum(np.sqrt(np.sum(np.asarray(differences(jnp.asarray(x))) ** 2, 0)))


def test_differences_are_those_of_numpy_and_none_across_the_border():
    x = np.random.default_rng(0).standard_normal((4, 5, 2))
    down, right = np.asarray(differences(jnp.asarray(x)))
    np.testing.assert_array_equal(down[:-1], np.diff(x, axis=0))
    np.testing.assert_array_equal(right[:, :-1], np.diff(x, axis=1))
    assert not down[-1].any() and not right[:, -1].any()
    np.testing.assert_array_equal(differences(jnp.asarray([1.0, 3.0, 2.0])), [[2.0, -1.0, 0.0]])


@pytest.mark.parametrize("lam", [0.3, 2.0, 50.0])
def test_of_an_edge_both_sides_draw_near_by_lambda_over_their_length(lam):
    """`argmin |y - x|^2 / 2 + lam |D x|` of one edge: each side moves by lam / its length, until they meet."""
    n, y = 12, step_edge(12)
    left, right = y[0] + lam / (n // 3), y[-1] - lam / (n - n // 3)
    exact = np.where(np.arange(n) < n // 3, left, right) if left < right else np.full(n, y.mean())
    found = solved(posterior.total_variation, given(operators.identity((n,)), y), 4000, lam=lam)
    np.testing.assert_allclose(found.x, exact, atol=1e-6)


def test_denoising_is_scikit_images():
    """Of a grey and of a two-channel picture; its algorithm is Chambolle's of 2004, its weight our lam."""
    restoration = pytest.importorskip("skimage.restoration")
    y = np.random.default_rng(0).standard_normal((9, 8, 2)) + np.linspace(0, 3, 8)[None, :, None]
    theirs = restoration.denoise_tv_chambolle(y, 0.4, eps=1e-12, max_num_iter=20000, channel_axis=-1)
    ours = solved(posterior.total_variation, given(operators.identity(y.shape), y), 2000, lam=0.4).x
    np.testing.assert_allclose(ours, theirs, atol=2e-4)


def test_a_masked_fourier_transform_is_solved_as_by_scipy():
    """A complex measurement of six pixels: the objective lies between those of a smooth minimiser, above and below.

    `sqrt(|D x|^2 + e^2)` is at least `|D x|`, and at most that and e, in each of the pixels.
    """
    shape, lam, e = (3, 2, 1), 0.07, 1e-4
    A = operators.real_mri(jnp.asarray([[1, 0], [1, 1], [0, 1.0]]))
    m = di.measure(KEY, A, jax.random.normal(KEY, shape), 0.1)

    def objective(x, e):
        x = x.reshape(shape)
        lengths = jnp.sqrt(jnp.sum(differences(x) ** 2, 0) + e**2)
        return 0.5 * jnp.sum(jnp.abs(m.residual(x)) ** 2) + lam * jnp.sum(lengths)

    value, slope = jax.jit(objective), jax.jit(jax.grad(objective))
    x = np.zeros(6)
    for rounded in (0.1, 1e-2, 1e-3, e):
        smooth = scipy.optimize.minimize(value, x, args=(rounded,), jac=slope, method="BFGS", options={"gtol": 1e-9})
        x = smooth.x
    ours = float(value(solved(posterior.total_variation, m, 3000, lam=lam).x, 0.0))
    assert smooth.fun - 6 * lam * e <= ours <= float(value(x, 0.0)) + 1e-9
    assert ours < 0.9 * min(float(value(jnp.full(6, level), 0.0)) for level in np.linspace(-2, 2, 41))  # of no edges


def test_an_operator_of_any_norm_takes_the_same_steps():
    """100 times the operator, the measurement and its 10,000 times larger weight: the same picture after any step."""
    y = step_edge(12)
    loud = operators.scale(operators.identity((12,)), 100.0)
    for steps in (3, 300):
        found = solved(posterior.total_variation, given(loud, 100 * y), steps, lam=100**2 * 0.3).x
        plain = solved(posterior.total_variation, given(operators.identity((12,)), y), steps, lam=0.3).x
        np.testing.assert_allclose(found, plain, atol=1e-10)


def test_a_start_is_where_it_begins_and_changes_nothing_in_the_end():
    m, x = given(operators.identity((12,)), step_edge(12)), 3 * jax.random.normal(KEY, (12,))
    options = {"lam": 0.3, "start": 0.4}
    once = [solved(posterior.total_variation, m, 1, x=start, **options).x for start in (None, x)]
    assert np.abs(once[0] - once[1]).max() > 0.1
    ends = [solved(posterior.total_variation, m, 1500, x=start, **options).x for start in (None, x)]
    np.testing.assert_allclose(*ends, atol=1e-6)


def test_of_an_operator_that_sees_nothing_comes_a_flat_picture():
    found = solved(posterior.total_variation, given(operators.dense(jnp.zeros((2, 6))), jnp.zeros(2)), 5)
    np.testing.assert_array_equal(found.x, np.zeros(6))


def test_zero_filled_puts_no_signal_where_nothing_was_sampled():
    """The k-space of `x + 1` is the measured one where it was sampled, and 0 elsewhere."""
    mask = operators.cartesian_mask(KEY, (8, 8), 2, 2)
    A, x = operators.mri(mask), jax.random.uniform(KEY, (8, 8, 2), float, -1.0, 1.0)
    found = solved(posterior.zero_filled, di.measure(KEY, A, x), 1)
    full = operators.mri(jnp.ones((8, 8)))
    np.testing.assert_allclose(full(found.x + 1), mask[None].astype(complex) * full(x + 1), atol=1e-12)
    assert int(found.info.cost.nfe.sum()) == 0 and int(found.info.cost.calls.sum()) == 3


def test_zero_filled_of_coils_is_the_sum_of_their_pictures():
    coils = operators.simulated_coils((8, 6), 3)
    A = operators.real_mri(operators.cartesian_mask(KEY, (8, 6), 2, 2), coils)
    x = jax.random.uniform(KEY, (8, 6, 1), float, -1.0, 1.0)
    pictures = operators.ifft2c(A(x + 1))
    found = solved(posterior.zero_filled, di.measure(KEY, A, x), 1).x
    np.testing.assert_allclose(found[..., 0] + 1, jnp.sum(jnp.conj(coils) * pictures, 0).real, atol=1e-12)


@pytest.mark.parametrize("name", ["zero_filled", "total_variation"])
def test_an_operator_that_is_not_linear_is_refused(name):
    A = operators.phase_retrieval((8, 8, 1))
    m = di.measure(KEY, A, jnp.zeros((8, 8, 1)))
    with pytest.raises(TypeError, match=f"is not linear; {name} needs"):
        getattr(posterior, name)(prior((8, 8, 1)), m)
