"""DPnP: its two prior samplers by hand, and the law of its rounds on a Gaussian, by recursion and in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import FAST
from oracle import Law, moment_errors

import diffinv as di
from diffinv import posterior, times
from diffinv.posterior import chains
from posterior.published import (
    COVARIANCE,
    DIM,
    MATRIX,
    MEAN,
    PROCESS,
    ROWS,
    SIGMA,
    X,
    Y,
    assert_close,
    at,
    levels,
    normal,
    problem,
    step,
)

KEY, T, NEXT, EYE = jax.random.key(5), 0.5, 0.35, np.eye(DIM)


def spaced(high, low, steps):
    """EDM's `steps` values from high to low, and 0."""
    return np.append(((1 - (u := np.arange(steps) / (steps - 1))) * high ** (1 / 7) + u * low ** (1 / 7)) ** 7, 0.0)


def denoiser(s):
    """`E[x_0 | v = x_0 + s e] = G v + g`."""
    G = COVARIANCE @ np.linalg.inv(COVARIANCE + s**2 * EYE)
    return G, MEAN - G @ MEAN


def consistent(eta):
    """`z | x = F x + b + N(0, C)`."""
    gain = MATRIX.T @ np.linalg.inv(MATRIX @ MATRIX.T + SIGMA**2 / eta**2 * np.eye(ROWS))
    return EYE - gain @ MATRIX, gain @ Y, eta**2 * (EYE - gain @ MATRIX)


def heat(eta, steps, end):
    """`x | z` by DDS-DDPM, as `x = F z + b + N(0, C)`."""
    s, F, b, C = spaced(eta, end, steps), EYE, np.zeros(DIM), 0 * EYE
    for high, low in zip(s[:-1], s[1:]):
        G, g = denoiser(high)
        move = 2 * (high - low) / high
        M = EYE - move * (EYE - G)
        noise = (high**2 - low**2) * (low > 0)
        F, b, C = M @ F, M @ b + move * g, M @ C @ M.T + noise * EYE
    return F, b, C


def ode(eta, steps, end):
    """`x | z` by DDS-DDIM, likewise: linear in the start u, whose law is N(0, I), and in z."""
    phi, U, Z, b = spaced(np.pi / 2, np.arcsin(end / eta), steps), EYE, 0 * EYE, np.zeros(DIM)
    for high, low in zip(phi[:-1], phi[1:]):
        s = eta * np.sin(high)
        G, g = denoiser(s)
        move = (high - low) / s
        M = EYE - move * eta * np.cos(high) * (EYE - G)
        U, Z, b = M @ U, M @ Z - move * (EYE - G), M @ b + move * g
    return EYE + eta * Z, eta * b, eta**2 * U @ U.T


SAMPLERS = {False: ode, True: heat}


def law_of(rounds, stochastic, steps, end):
    """Mean and covariance of x after rounds at these eta, from 0."""
    mean, covariance = np.zeros(DIM), np.zeros((DIM, DIM))
    for eta in rounds:
        for F, b, C in (consistent(eta), SAMPLERS[stochastic](eta, steps, end)):
            mean, covariance = F @ mean + b, F @ covariance @ F.T + C
    return Law(mean, covariance)


def coupled(eta):
    """The posterior of a measurement with noise `sigma_y^2 I + eta^2 A A^T`."""
    noise = SIGMA**2 * np.eye(ROWS) + (MATRIX * eta**2) @ MATRIX.T
    gain = COVARIANCE @ MATRIX.T @ np.linalg.inv(MATRIX @ COVARIANCE @ MATRIX.T + noise)
    return Law(MEAN + gain @ (Y - MATRIX @ MEAN), COVARIANCE - gain @ MATRIX @ COVARIANCE)


def proximal(key, eta):
    """The conjugate draw about X, by hand."""
    draw, noise = jax.random.split(key)
    z = X + eta * normal(draw, DIM)
    gap = Y + SIGMA * normal(noise, ROWS) - MATRIX @ z
    return z + MATRIX.T @ np.linalg.solve(MATRIX @ MATRIX.T + SIGMA**2 / eta**2 * np.eye(ROWS), gap)


def test_a_round_of_dds_ddpm_is_its_formula():
    prior, m = problem()
    x, info = step(posterior.dpnp(prior, m, 2, stochastic=True, sigma_end=0.1), KEY, T, NEXT)
    chain, reverse = jax.random.split(KEY)
    alpha, sigma = levels(T)
    eta, keys = sigma / alpha, jax.random.split(reverse, 2)
    v = proximal(chain, eta)
    v = v - 2 * (eta - 0.1) * at(T, alpha * v).eps + np.sqrt(eta**2 - 0.01) * normal(keys[0], DIM)
    G, g = denoiser(0.1)
    np.testing.assert_allclose(x, v - 2 * (v - G @ v - g), rtol=1e-6)  # the level's time is found by bisection
    assert_close(info.residual, np.linalg.norm(Y - MATRIX @ np.asarray(x)))
    assert (int(info.cost.nfe), int(info.cost.vjps), int(info.cost.calls)) == (2, 0, 5)


def test_a_round_of_dds_ddim_is_its_formula_in_the_words_of_its_own_diffusion():
    """`x_a = a (x - z) + sqrt(1 - a^2) w`, whose denoised mean is the prior's own at a Gaussian product."""
    prior, m = problem()
    x, _ = step(posterior.dpnp(prior, m, 3, sigma_end=0.1), KEY, T, NEXT)
    chain, reverse = jax.random.split(KEY)
    eta = np.divide(*levels(T)[::-1])
    z, u = proximal(chain, eta), normal(reverse, DIM)
    angles = spaced(np.pi / 2, np.arcsin(0.1 / eta), 3)
    for phi, after in zip(angles[:-1], angles[1:]):
        a2 = 1 / (1 + (eta * np.tan(phi)) ** 2)  # their alpha-bar, of their tan(phi) = sqrt(1 - a^2) / (eta a)
        coef = 1 - a2 + eta**2 * a2
        s = eta * np.sqrt((1 - a2) / coef)
        v = z + eta**2 * np.sqrt(a2) * (np.sqrt(coef) * u) / coef
        G, g = denoiser(s)
        u = u - (phi - after) * (v - G @ v - g) / s
    np.testing.assert_allclose(x, z + eta * u, rtol=1e-6)


@pytest.mark.parametrize("stochastic", [False, True])
def test_rounds_have_the_law_of_the_recursion(stochastic):
    prior, m = problem()
    t = float(times.from_sigma(PROCESS, jnp.asarray(1.0)))
    sampler = posterior.dpnp(prior, m, 8, stochastic=stochastic)
    run = jax.jit(jax.vmap(lambda k: di.sample(k, sampler, jnp.full(5, t)).x), compiler_options=FAST)
    x = np.asarray(run(jax.random.split(KEY, 2000)))
    assert max(moment_errors(x, law_of([1.0] * 4, stochastic, 8, 0.002))) < 5


def kept_law(eta, stochastic, steps, end):
    """The law that a round at this eta keeps."""
    (F, b, C), (G, g, D) = consistent(eta), SAMPLERS[stochastic](eta, steps, end)
    F, b, C = G @ F, G @ b + g, G @ C @ G.T + D
    covariance = np.linalg.solve(np.eye(DIM**2) - np.kron(F, F), C.ravel()).reshape(DIM, DIM)
    return Law(np.linalg.solve(EYE - F, b), covariance)


@pytest.mark.parametrize("stochastic", [False, True])
def test_its_bias_is_that_of_the_last_coupling(stochastic):
    """A round keeps the coupled posterior, to first order in its steps; and that is the posterior, as eta falls."""
    gaps = [
        max(np.abs(a - b).max() for a, b in zip(kept_law(eta, stochastic, steps, 1e-4), coupled(eta)))
        for eta in (0.5, 0.05)
        for steps in (100, 400)
    ]
    assert max(gaps) < 0.1 and 3 < gaps[0] / gaps[1] < 5 and 3 < gaps[2] / gaps[3] < 5
    for found, right, before in zip(kept_law(0.05, stochastic, 800, 1e-4), coupled(0.0), Law(MEAN, COVARIANCE)):
        np.testing.assert_allclose(found, right, atol=0.02)
        assert np.abs(right - before).max() > 0.3
    biases = [max(np.abs(a - b).max() for a, b in zip(coupled(eta), coupled(0.0))) for eta in (0.02, 0.01)]
    assert 3.9 < biases[0] / biases[1] < 4.1


def test_the_samplers_need_no_linear_operator_with_a_chain_that_needs_none():
    prior, m = problem()
    bent = m.replace(operator=di.operators.function(lambda x: x[:ROWS] ** 3, (DIM,)))
    x, info = step(posterior.dpnp(prior, bent, 3, chains.metropolis(4)), KEY, T, NEXT)
    assert np.isfinite(x).all() and int(info.cost.calls) == 9


@pytest.mark.parametrize("process", [di.process.VE(), di.process.Flow()], ids=["ve", "flow"])
def test_levels_are_those_of_the_priors_own_process(process):
    """One evaluation, at z of level 0.7: the noise that it finds there is taken off twice."""
    prior, m = problem(process=process)
    t = times.from_sigma(process, jnp.asarray(0.7))
    chain, _ = jax.random.split(KEY)
    z = proximal(chain, 0.7)
    G, g = denoiser(0.7)
    x, _ = step(posterior.dpnp(prior, m, 1, stochastic=True), KEY, t, 0.0)
    np.testing.assert_allclose(x, z - 2 * (z - G @ z - g), rtol=1e-6, atol=1e-7)
