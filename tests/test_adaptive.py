"""The adaptive sampler: its error follows its tolerance, and it says what it cost."""

import builtins

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from registries import PROCESSES
from test_samplers import KEY, LATENT, VARIANCE, diagonal, on_the_path, spread

from diffinv import process, samplers
from diffinv.loop import sample

WHOLE = [1.0, 0.0]


def test_without_diffrax_it_says_how_to_get_it(monkeypatch):
    found = builtins.__import__

    def blocked(name, *rest, **named):
        if name == "diffrax":
            raise ImportError("blocked")
        return found(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", blocked)
    with pytest.raises(ImportError, match=r'diffrax; pip install "diffinv\[ode\]"'):
        samplers.adaptive(diagonal(process.VP()))


@pytest.mark.parametrize("name", ["vp", "flow", "edm", "ve"])
def test_one_solve_reaches_the_data(name):
    """The grid [1, 0]; the last step of Euler's method, from a ratio of 0.002, leaves far less."""
    pytest.importorskip("diffrax")
    prior = diagonal(PROCESSES[name])
    x = jax.jit(lambda x: sample(KEY, samplers.adaptive(prior, 1e-6, 1e-6), jnp.array(WHOLE), x).x)
    found = x(on_the_path(prior.process, 1.0))
    assert_allclose(found, on_the_path(prior.process, 0.0), atol=5e-5)


def test_the_error_follows_the_tolerance_and_the_cost_rises():
    pytest.importorskip("diffrax")
    prior, errors, costs = diagonal(process.Flow()), [], []
    for tolerance in (1e-2, 1e-4, 1e-6):
        sampler = samplers.adaptive(prior, tolerance, tolerance)
        solution = sample(KEY, sampler, jnp.array([0.95, 0.05]), on_the_path(prior.process, 0.95))
        errors.append(np.linalg.norm(solution.x - on_the_path(prior.process, 0.05)))
        costs.append(int(solution.info.cost.nfe.sum()))
    assert np.all(np.array(errors) < 30 * np.array([1e-2, 1e-4, 1e-6])) and errors[0] > errors[1] > errors[2]
    assert costs[0] < costs[1] < costs[2] < 200


def test_examples_choose_their_steps_alone():
    """Under vmap each is what it is by itself; the gradient is the exact path's, std_0 / std_1 of each coordinate."""
    pytest.importorskip("diffrax")
    prior = diagonal(process.VP())
    run = lambda x: sample(KEY, samplers.adaptive(prior), jnp.array(WHOLE), x).x
    starts = jnp.outer(jnp.array([1.0, 5.0, 0.1]), jnp.asarray(LATENT))
    assert_allclose(jax.jit(jax.vmap(run))(starts), jnp.stack([run(x) for x in starts]), rtol=1e-9)
    total, way = (lambda x: jnp.sum(run(x) ** 2)), jnp.array([0.3, 1.0, -0.6])
    exact = jnp.vdot(jax.grad(total)(starts[0]), way)
    end = np.asarray(on_the_path(prior.process, 0.0))
    slope = 2 * np.sum(end * np.sqrt(VARIANCE) / spread(prior.process, 1.0) * way)
    assert_allclose(exact, slope, rtol=0.02)


def test_a_solve_that_does_not_end_is_not_finite():
    pytest.importorskip("diffrax")
    prior = diagonal(process.VP())
    x = sample(KEY, samplers.adaptive(prior, 1e-8, 1e-8, most=2), jnp.array(WHOLE), jnp.asarray(LATENT)).x
    assert np.isnan(x).all()


def test_it_needs_an_isotropic_process():
    pytest.importorskip("diffrax")
    with pytest.raises(ValueError, match="adaptive needs an isotropic one: use heun"):
        samplers.adaptive(diagonal(PROCESSES["blurring"]))
