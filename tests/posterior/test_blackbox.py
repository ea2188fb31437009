"""Methods for operators without a derivative: their published updates in NumPy, their biases, and NumPy operators."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import FAST

import diffinv as di
from diffinv import operators, posterior, times
from diffinv.posterior.blackbox import PolicyState, policy_gradient, smoothed_gradient
from posterior.published import (
    DIM,
    MATRIX,
    PROCESS,
    ROWS,
    SIGMA,
    X,
    Y,
    ancestral,
    assert_close,
    at,
    normal,
    problem,
    step,
)

KEY, T, NEXT = jax.random.key(5), 0.6, 0.45
STEP_KEY, GUESS_KEY = jax.random.split(KEY)


def square(x0):
    return np.sum((Y - x0 @ MATRIX.T) ** 2, -1)


@pytest.mark.parametrize("central", [True, False])
def test_smoothing_has_the_gradient_of_a_quadratic_for_its_mean(central):
    """And the central one the covariance of its docstring; 40,000 estimates of two draws each."""
    x = jnp.asarray([1.0, -2.0, 0.5])
    f = lambda x: jnp.sum(jnp.asarray([1.0, 2.0, 3.0]) * x**2) + x[0]
    run = jax.jit(jax.vmap(lambda key: smoothed_gradient(key, f, x, f(x), 2, 0.1, central)))
    found, g = np.asarray(run(jax.random.split(KEY, 40_000))), np.asarray(jax.grad(f)(x))
    covariance = (g @ g * np.eye(3) + np.outer(g, g)) / 2
    deviations = np.sqrt(np.diag(covariance) / 40_000)
    assert (np.abs(found.mean(0) - g) < 4.5 * deviations * (1 if central else 1.5)).all()
    if central:
        np.testing.assert_allclose(np.cov(found.T), covariance, rtol=0.1, atol=2)


@pytest.mark.parametrize("central", [True, False])
def test_dps_gsg_is_its_formula(central):
    prior, m = problem()
    x_s, info = step(posterior.dps_gsg(prior, m, 0.4, 6, 0.2, central), KEY, T, NEXT)
    now, u = at(T), normal(GUESS_KEY, 6, DIM)
    behind = square(now.x0 - 0.2 * u) if central else square(now.x0)
    slopes = (square(now.x0 + 0.2 * u) - behind) / (0.4 if central else 0.2)
    mean, c = ancestral(now, X, NEXT)
    g = now.J.T @ (slopes @ u / 6) / (2 * np.sqrt(square(now.x0)))
    assert_close(x_s, mean + c * normal(STEP_KEY, DIM) - 0.4 * g)
    assert_close(info.residual, np.sqrt(square(now.x0)))


def test_dps_gsg_tends_to_dps():
    """Of 20,000 draws the gradient errs by `sqrt(d / draws)`, 1.6 %; both share the noise of the step."""
    prior, m = problem()
    x_s, _ = step(posterior.dps_gsg(prior, m, 1.0, 20_000), KEY, T, NEXT)
    exact, _ = step(posterior.dps(prior, m, 1.0), STEP_KEY, T, NEXT)
    none, _ = step(posterior.dps(prior, m, 0.0), STEP_KEY, T, NEXT)
    assert jnp.linalg.norm(x_s - exact) < 0.05 * jnp.linalg.norm(exact - none)


def test_the_policys_gradient_is_that_of_the_mean_reward():
    """`E exp(-|y - x0 - r e|^2 / Z) = (1 + 2 r^2 / Z)^{-d/2} exp(-|y - x0|^2 / (Z + 2 r^2))` for A = I."""
    y, r, Z, count = np.array([1.0, -0.5]), 0.4, 2.0, 200_000
    e = jnp.asarray(np.random.default_rng(0).standard_normal((count, 2)))
    losses = jnp.sum((jnp.asarray(y)[None] - r * e) ** 2, 1)
    found = policy_gradient(e, losses, jnp.asarray(0.0), jnp.asarray(Z)) / r
    mean = (1 + 2 * r**2 / Z) ** -1 * np.exp(-y @ y / (Z + 2 * r**2))
    np.testing.assert_allclose(found, 2 * y / (Z + 2 * r**2) * mean, atol=0.01)


@pytest.mark.parametrize("first", [True, False])
def test_dpg_is_its_formula(first):
    prior, m = problem()
    before = np.linspace(-1, 1, DIM)
    state = PolicyState(jnp.asarray(X), jnp.asarray(0.0 if first else 3.0), jnp.asarray(before))
    found, info = step(posterior.dpg(prior, m, 1.5, 7), KEY, T, NEXT, state)
    now, e = at(T), normal(GUESS_KEY, 7, DIM)
    base = square(now.x0)
    Z = base if first else 0.9 * 3.0 + 0.1 * base
    r = np.sqrt(Z / DIM) / 2
    R = np.exp(-(square(now.x0 + r * e) - base) / Z)
    weights = [R[k] - np.delete(R, k).mean() for k in range(7)]
    g = now.J.T @ (np.asarray(weights) @ e / 7) / r
    v = g if first else (1 - 0.1 * NEXT) * g + 0.1 * NEXT * before
    mean, c = ancestral(now, X, NEXT)
    kernel = 1 - (float(PROCESS.alpha(T)) / float(PROCESS.alpha(NEXT))) ** 2
    expected = mean + c * normal(STEP_KEY, DIM) + 1.5 * kernel * v / np.linalg.norm(v)
    assert_close(found.x, expected)
    assert_close(jnp.stack([found.level, info.residual]), [Z, np.sqrt(base)])
    assert_close(found.gradient, g)


def line(y, sigma=1.0):
    """x ~ N(0, 1) in one dimension, and y = x + N(0, sigma^2): the posterior is N(y / 2, 1 / 2) for sigma 1."""
    prior = di.gaussian(PROCESS, jnp.zeros(1), jnp.eye(1))
    return prior, di.Measurement(operators.identity((1,)), jnp.asarray([y]), di.GaussianNoise(sigma))


@pytest.mark.parametrize("y", [-1.0, 3.0])
def test_dpgs_bias_on_a_line_is_a_step_of_one_length(y):
    """It goes `scale sigma_{t|s}^2` towards y, however far y is, and however strong the noise."""
    prior, m = line(y)
    x, at_ = jnp.asarray([0.2]), (jnp.asarray(T), jnp.asarray(NEXT))
    sampler = posterior.dpg(prior, m, 1.5, 500)
    moved, _ = sampler.step(KEY, PolicyState(x, jnp.zeros(()), jnp.zeros(1)), *at_)
    plain = PROCESS.transition(x, prior.denoise(x, T), *at_).sample(STEP_KEY)
    kernel = PROCESS.kernel_std(*at_) ** 2
    np.testing.assert_allclose(moved.x - plain, jnp.sign(y) * 1.5 * kernel, rtol=1e-4)


def test_scg_takes_the_draw_that_fits_best_and_steps_plainly_elsewhere():
    prior, m = problem()
    sampler, z = posterior.scg(prior, m, 6, begin=0.7), normal(KEY, 6, DIM)
    for t, s in ((T, NEXT), (0.9, 0.8), (0.05, 0.0)):
        x_s, info = step(sampler, KEY, t, s)
        now = at(t)
        mean, c = ancestral(now, X, s)
        guided = t <= 0.7 and s > 0
        fits = [np.sqrt(square(at(s, mean + c * each).x0)) if guided else 0.0 for each in z]
        assert_close(x_s, mean + c * z[np.argmin(fits)])
        assert_close(info.residual, min(fits) if guided else np.sqrt(square(now.x0)))
        assert tuple(info.cost) == ((7, 0, 6) if guided else (1, 0, 1))


def test_scg_of_one_draw_is_the_prior_and_of_many_goes_to_y_itself():
    """The posterior is N(1, 1/2): greedy choice leaves neither its mean nor its spread."""
    prior, m = line(2.0)

    def drawn(draws):
        solver = di.as_solver(lambda m: posterior.scg(prior, m, draws, begin=1.0), times.grid(30, power=2.0))
        return np.asarray(jax.jit(jax.vmap(solver, (0, None)))(jax.random.split(KEY, 500), m).x)

    one, many = drawn(1), drawn(64)
    assert abs(one.mean()) < 4 / np.sqrt(500) and abs(one.std() - 1) < 0.15
    assert abs(many.mean() - 2) < 0.05 and many.std() < 0.1


def by_numpy(x):
    """An operator that JAX cannot look into, nor differentiate."""
    call = lambda x: np.tanh(np.asarray(MATRIX, x.dtype) @ x)
    return jax.pure_callback(call, jax.ShapeDtypeStruct((ROWS,), x.dtype), x, vmap_method="sequential")


def by_jax(x):
    return jnp.tanh(jnp.asarray(MATRIX, x.dtype) @ x)


BLIND = {
    "dps_gsg": lambda prior, m: posterior.dps_gsg(prior, m, 0.2, 4),
    "dpg": lambda prior, m: posterior.dpg(prior, m, 1.0, 4),
    "scg": lambda prior, m: posterior.scg(prior, m, 4, begin=1.0),
    "enkg": lambda prior, m: posterior.enkg(prior, m, particles=4, updates=1, ode_steps=2),
    "eki": lambda prior, m: posterior.eki(prior, m, particles=4, ode_steps=2),
}


@pytest.mark.parametrize("name", BLIND)
def test_a_numpy_operator_under_jit_and_vmap_gives_what_its_twin_in_jax_does(name):
    prior, _ = problem()
    found = []
    for call in (by_numpy, by_jax):
        m = di.Measurement(operators.function(call, (DIM,)), jnp.asarray(np.tanh(Y)), di.GaussianNoise(SIGMA))
        solver = di.as_solver(lambda m: BLIND[name](prior, m), times.grid(3))
        run = jax.jit(jax.vmap(solver, (0, None)), compiler_options=FAST)
        found.append(run(jax.random.split(KEY, 3), m))
    np.testing.assert_allclose(found[0].x, found[1].x, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(found[0].info.residual, found[1].info.residual, rtol=1e-7)


def test_what_does_not_fit_is_named():
    prior, m = problem()
    for method, least in ((posterior.dps_gsg, 1), (posterior.dpg, 2), (posterior.scg, 1)):
        with pytest.raises(ValueError, match=f"draws is {least - 1}; it must be a whole number, at least {least}"):
            method(prior, m, draws=least - 1)
    with pytest.raises(TypeError, match="central is 'x'; give True or False"):
        posterior.dps_gsg(prior, m, central="x")
