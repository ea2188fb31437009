"""The examples run as they stand, and print what they are there to show."""

import runpy
from pathlib import Path

import jax
import pytest

FOLDER = Path(__file__).parents[1] / "examples"


def ran(name):
    """What the example's `main` returns, under the settings of a user's own script."""
    with jax.enable_x64(False), jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        return runpy.run_path(str(FOLDER / name))["main"]()


def test_each_has_a_test_here():
    assert {path.name for path in FOLDER.glob("*.py")} == {"own_solver.py", "own_operator.py", "sweep.py"}


@pytest.mark.slow
def test_own_solver_is_near_the_posterior_and_mmps_nearer():
    errors = ran("own_solver.py")
    assert errors["mmps"] < 0.02 and errors["mmps"] < errors["ddnm_plus"] < errors["null_space"] < 0.1


def test_own_operator_is_fitted_to_its_noise():
    assert ran("own_operator.py") == pytest.approx(0.05, abs=0.03)


def test_a_sweep_tells_every_value_and_its_cost():
    errors, cost = ran("sweep.py")
    assert errors.shape == (4,) and len(set(errors.tolist())) == 4
    assert (cost.nfe, cost.vjps, cost.calls) == (100, 100, 200)
