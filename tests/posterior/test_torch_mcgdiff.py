"""The PyTorch program of `benchmarks.mcgdiff`: its samples are of the law of ours."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffinv as di
from diffinv import operators, posterior
from diffinv.metrics.posterior import max_sliced_wasserstein
from experiments.tables import mixture18

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

A, Y, SIGMA = np.array([[1.0, 0.5, 0.0], [0.0, -0.3, 0.4]]), np.array([0.7, -0.4]), 0.2
MEANS, WEIGHTS = np.array([[-3.0, 2.0, 0.0], [1.0, -2.0, 3.0], [2.0, 2.0, -2.0]]), np.array([0.5, 0.2, 0.3])
COUNT, PARTICLES, STEPS, KAPPA, ETA = 2000, 4, 10, 1e-2, 0.6


def ours():
    process = mixture18.table(jnp.float64)
    prior = di.Prior(process, mixture18.UnitMixture(process, jnp.asarray(MEANS), jnp.log(jnp.asarray(WEIGHTS))), (3,))
    measurement = di.Measurement(operators.dense(jnp.asarray(A)), jnp.asarray(Y), di.GaussianNoise(SIGMA))
    grid = jnp.asarray(np.linspace(999, 0, STEPS + 1).round() / 999)
    method = lambda m: posterior.mcgdiff(prior, m, PARTICLES, KAPPA, ETA, posterior.resampling.multinomial)
    run = jax.jit(jax.vmap(lambda key: di.as_solver(method, grid)(key, measurement).x))
    return run(jax.random.split(jax.random.key(0), COUNT))


def theirs(sigma=SIGMA, eta=ETA, **options):
    from benchmarks.torch_mcgdiff import MCGDiff, Problem

    torch.manual_seed(0)
    filters = MCGDiff(Problem(A, Y, sigma, WEIGHTS, MEANS), STEPS, KAPPA, eta)
    return filters(COUNT, **{"particles": PARTICLES, **options}).numpy()


def test_it_has_the_law_of_ours_and_of_no_neighbour():
    """As near as two runs of ours are; with another eta, noise or number of particles far from it."""
    x = ours()
    floor = max_sliced_wasserstein(x[::2], x[1::2])
    assert max_sliced_wasserstein(x, theirs(chunk=900)) < 1.5 * floor
    for change in ({"eta": 0.0}, {"sigma": 1.0}, {"particles": 2}, {"particles": 8}):
        assert max_sliced_wasserstein(x, theirs(**change)) > 3 * floor, change
