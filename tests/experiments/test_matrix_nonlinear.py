"""Every solver of `experiments.reconstruct` that needs no linear operator, on operators that are none; see cells.py."""

import pytest
from cells import NONLINEAR, assert_restored

pytestmark = [pytest.mark.slow, pytest.mark.long]


@pytest.mark.parametrize("tasks", NONLINEAR)
def test_every_solver_restores_every_task(tasks):
    assert_restored(tasks)
