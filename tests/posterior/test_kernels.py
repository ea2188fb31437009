"""DAPS's chains beside Langevin, and the guidance that knows no measurement, against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import Law, gaussian_posterior, moment_errors

import diffinv as di
from diffinv import posterior, samplers, times
from diffinv.posterior import chains
from posterior.published import COVARIANCE, DIM, MATRIX, MEAN, PROCESS, SIGMA, X, Y, assert_close, at, problem

KEY, R, TAU = jax.random.key(6), 0.6, 0.5


def target(force):
    return gaussian_posterior(X, R**2 * np.eye(DIM), MATRIX, Y, TAU / np.sqrt(force))


def inner_law(measurement):
    return chains.Coupled(measurement, jnp.asarray(X), jnp.asarray(R), jnp.asarray(TAU), jnp.asarray(R))


@pytest.mark.parametrize("steps", [1, 40])
@pytest.mark.parametrize("force", [1.0, pytest.param(2.0, marks=pytest.mark.slow)])
def test_hmc_has_the_law_derived_by_hand(force, steps):
    """`(x, v)` is a Gaussian autoregression from v ~ N(0, I): its moments by NumPy's recursion, for momentum 0.6."""
    _, m = problem()
    lr, momentum = 0.1, 0.6
    chain = lambda k: chains.hmc(steps, lr, momentum, force)(k, inner_law(m))
    samples = np.asarray(jax.jit(jax.vmap(chain))(jax.random.split(KEY, 10_000)))
    law, eye = target(force), np.eye(DIM)
    H, eta = np.linalg.inv(law.covariance), lr / (1 / R**2 + force / TAU**2)
    kick = np.block([[eye, np.zeros((DIM, DIM))], [-np.sqrt(eta) * H, momentum * eye]])
    drift = np.block([[eye, np.sqrt(eta) * eye], [np.zeros((DIM, DIM)), eye]])
    push = drift @ np.concatenate([np.zeros(DIM), np.sqrt(eta) * H @ law.mean])
    noise = drift @ np.diag(np.repeat([0, 2 * (1 - momentum)], DIM)) @ drift.T
    mean, covariance = np.concatenate([X, np.zeros(DIM)]), np.diag(np.repeat([0.0, 1.0], DIM))
    for _ in range(steps):
        mean, covariance = drift @ kick @ mean + push, drift @ kick @ covariance @ (drift @ kick).T + noise
    assert max(moment_errors(samples, Law(mean[:DIM], covariance[:DIM, :DIM]))) < 5


def test_hmc_without_momentum_is_langevin():
    _, m = problem()
    law = inner_law(m)
    assert_close(chains.hmc(20, 0.1, 0.0)(KEY, law), chains.langevin(20, 0.1)(jax.random.split(KEY)[1], law))


def test_a_chain_is_a_value_whose_rates_are_swept_and_whose_counts_are_static():
    """Of one program each; equal values are one program, and a rate of each lane gives what it gives alone."""
    _, m = problem()
    law, traces = inner_law(m), []

    @jax.jit
    def run(chain, law):
        traces.append(chain)
        return chain(KEY, law)

    alone = [run(chains.hmc(7, jnp.asarray(lr), jnp.asarray(0.3)), law) for lr in (0.1, 0.4)]
    assert len(traces) == 1
    run(chains.hmc(8, jnp.asarray(0.1), jnp.asarray(0.3)), law)
    assert len(traces) == 2
    swept = jax.vmap(lambda lr: run(chains.hmc(7, lr, jnp.asarray(0.3)), law))(jnp.asarray([0.1, 0.4]))
    assert_close(swept, np.stack(alone))
    assert np.abs(alone[0] - alone[1]).max() > 1e-2
    assert hash(chains.langevin()) == hash(chains.langevin(100, 0.1)) and chains.langevin() != chains.langevin(99)
    for make in (chains.langevin, chains.hmc, chains.metropolis):
        with pytest.raises(ValueError, match="steps is 0; it must be a whole number, at least 1"):
            make(0)


@pytest.mark.slow
def test_metropolis_keeps_its_target_and_reaches_it():
    """Exact at any step: 200 moves, of which some were refused; five standard errors of 2,000 chains."""
    _, m = problem()
    chain = lambda k: chains.metropolis(200, 1.0)(k, inner_law(m))
    samples = np.asarray(jax.jit(jax.vmap(chain))(jax.random.split(KEY, 2000)))
    assert max(moment_errors(samples, target(1.0))) < 5
    one = lambda k: chains.metropolis(1, 1.0)(k, inner_law(m))
    stayed = (np.asarray(jax.vmap(one)(jax.random.split(KEY, 1000))) == X).all(1).mean()
    assert 0.1 < stayed < 0.9


def test_autoguidance_and_cfg_are_the_tilted_score():
    """`w s_c + (1 - w) s_u` is the score of the normalised `p_c^w p_u^{1 - w}` at each time: Gaussian, by hand."""
    prior, m = problem()
    law = gaussian_posterior(MEAN, COVARIANCE, MATRIX, Y, SIGMA)
    conditional = di.gaussian(PROCESS, jnp.asarray(law.mean), jnp.asarray(law.covariance))
    alpha, sigma = float(PROCESS.alpha(0.5)), float(PROCESS.sigma(0.5))
    precision = lambda C: np.linalg.inv(alpha**2 * C + sigma**2 * np.eye(DIM))
    for w in (0.0, 1.0, 2.5):
        tilted = w * precision(law.covariance) @ (alpha * law.mean - X)
        tilted = tilted + (1 - w) * precision(COVARIANCE) @ (alpha * MEAN - X)
        for guide in (posterior.cfg, posterior.autoguidance):
            guided = guide(conditional, prior, w)
            assert_close(guided.denoise(jnp.asarray(X), 0.5), (X + sigma**2 * tilted) / alpha)
    assert guided.cost == di.Cost(2, 0)
    assert_close(posterior.cfg(conditional, prior, 0.0).denoise(jnp.asarray(X), 0.5), at(0.5).x0)


def test_guidance_of_conditions_reaches_networks_and_follows_every_sampler():
    """Under `given`, vmap over the weight, and with a measurement's guidance on top."""
    apply = lambda params, x, t, label=0.0: params * x + label
    network = di.Prior(PROCESS, di.NetworkDenoiser(jnp.asarray(0.3), PROCESS, apply, "x0"), (DIM,))
    guided = posterior.cfg(network.given(label=2.0), network.given(label=-1.0), 3.0)
    assert_close(guided.denoise(jnp.asarray(X), 0.5), 0.3 * X - 1 + 3 * 3)
    weak = network.replace(denoise=network.denoise.replace(params=jnp.asarray(0.1)))
    auto = posterior.autoguidance(network, weak, 2.0)
    assert_close(auto.given(label=1.0).denoise(jnp.asarray(X), 0.5), 0.5 * X + 1)
    _, m = problem()
    run = lambda w: di.sample(
        KEY, samplers.ddim(posterior.mmps(posterior.cfg(network.given(label=2.0), network, w), m)), times.grid(4)
    )
    solutions = jax.jit(jax.vmap(run))(jnp.asarray([1.0, 2.0]))
    assert np.isfinite(solutions.x).all() and np.abs(solutions.x[0] - solutions.x[1]).max() > 1e-3
    np.testing.assert_array_equal(solutions.info.cost.nfe, 2)


def test_tmpd_by_its_entries_keeps_the_matrix_diagonal():
    """`C_yy = diag(A Cov A^T) + sigma_y^2` by NumPy; where rows do not overlap it is the whole matrix."""
    prior, m = problem()
    now = at(0.5)
    covariance = now.sigma**2 / now.alpha * now.J
    C = np.diag(MATRIX @ covariance @ MATRIX.T) + SIGMA**2
    expected = now.x0 + covariance @ MATRIX.T @ ((Y - MATRIX @ now.x0) / C)
    assert_close(posterior.tmpd(prior, m, posterior.moments.entries).denoise(jnp.asarray(X), 0.5), expected)
    sums = (MATRIX @ covariance @ MATRIX.T).sum(1)
    assert np.abs(sums - C).max() > 0.1
