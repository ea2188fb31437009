"""Tasks whose operator is not linear: who may undo them, what is shown of them, which pictures may be given."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cells import NONLINEAR, WITHOUT

import diffinv as di
from configs import reconstruct
from diffinv import operators, process
from experiments.methods import solvers
from experiments.methods.derivative_free import DERIVATIVE_FREE
from experiments.methods.table import METHODS
from experiments.restore import operators as damage

SHAPE = (32, 32, 3)


def operator(task):
    return damage.OPERATORS[task](reconstruct.get_config(), jax.random.key(0), SHAPE)


@pytest.mark.parametrize("name", list(METHODS))
def test_who_needs_a_linear_operator_says_so_before_anything_runs(name):
    vp = process.VP()
    prior = di.Prior(vp, di.denoisers.GaussianDenoiser(vp, jnp.zeros(SHAPE), jnp.ones(1)), SHAPE)
    require = lambda task: solvers.require_able([name], reconstruct.get_config(), task, prior, operator(task))
    if name in [*WITHOUT, "resample"] or name in DERIVATIVE_FREE:
        assert all(require(task) is None for task in NONLINEAR)
        return
    with pytest.raises(ValueError, match="config.task is phase_retrieval: operator PhaseRetrieval is not linear"):
        require("phase_retrieval")


def test_the_settings_reach_the_operators():
    config, key = reconstruct.get_config(), jax.random.key(0)
    config.nonlinear.update({"gain": 3.0, "oversample": 4.0, "contrast": 1.5})
    made = {task: damage.OPERATORS[task](config, key, SHAPE) for task in NONLINEAR}
    x = jnp.full(SHAPE, 0.2)
    np.testing.assert_allclose(made["high_dynamic_range"](x), 0.6, rtol=1e-6)
    assert made["phase_retrieval"](x).shape == (64, 64, 3)  # four eighths on either side
    assert made["nonlinear_blur"].contrast == 1.5
    np.testing.assert_allclose(made["nonlinear_blur"](x), 0.2, rtol=1e-5)


def test_magnitudes_are_shown_by_their_logarithm_and_others_as_they_are():
    x = jax.random.uniform(jax.random.key(1), SHAPE, minval=-1, maxval=1)
    seen = damage.shown(di.measure(jax.random.key(0), operator("phase_retrieval"), x, 0.0), SHAPE)
    assert seen.shape == SHAPE and seen.min() >= -1
    np.testing.assert_allclose(seen.max(), 1, rtol=1e-12)
    assert np.unravel_index(np.argmax(seen), SHAPE)[:2] == (16, 16)  # the sum of all, in the middle
    clipped = damage.shown(di.measure(jax.random.key(0), operator("high_dynamic_range"), x, 0.0), SHAPE)
    np.testing.assert_allclose(clipped, np.clip(2 * x, -1, 1), rtol=1e-6)


def test_a_picture_that_is_too_bright_may_be_given_and_magnitudes_may_not():
    config = reconstruct.get_config()
    assert damage.restored(config, "high_dynamic_range", (5, 7, 3)) == (5, 7, 3)
    for task in ("phase_retrieval", "nonlinear_blur"):
        with pytest.raises(ValueError, match=f"config.task is {task}, which no given picture has suffered"):
            damage.restored(config, task, (8, 8, 3))


def test_a_picture_and_its_half_turn_have_the_same_magnitudes():
    """So that phase retrieval has at least two answers, and a solver may give either."""
    A = operators.phase_retrieval(SHAPE, unit_range=True)
    x = jax.random.uniform(jax.random.key(1), SHAPE, minval=-1, maxval=1)
    np.testing.assert_allclose(A(x), A(x[::-1, ::-1]), rtol=1e-9)
