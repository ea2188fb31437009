"""Every solver of `experiments.reconstruct` on magnetic resonance; see cells.py."""

import pytest
from cells import SCANS, assert_restored

pytestmark = [pytest.mark.slow, pytest.mark.long]


@pytest.mark.parametrize("tasks", SCANS)
def test_every_solver_restores_every_task(tasks):
    assert_restored(tasks)
