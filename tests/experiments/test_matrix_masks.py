"""Every solver of `experiments.reconstruct` on every task that keeps some of the picture; see cells.py."""

import pytest
from cells import MASKS, assert_restored

pytestmark = [pytest.mark.slow, pytest.mark.long]


@pytest.mark.parametrize("tasks", MASKS)
def test_every_solver_restores_every_task(tasks):
    assert_restored(tasks)
