"""Every solver of `experiments.reconstruct` on every task that enlarges; see cells.py."""

import pytest
from cells import ENLARGEMENTS, assert_restored

pytestmark = [pytest.mark.slow, pytest.mark.long]


@pytest.mark.parametrize("tasks", ENLARGEMENTS)
def test_every_solver_restores_every_task(tasks):
    assert_restored(tasks)
