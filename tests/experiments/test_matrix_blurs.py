"""Every solver of `experiments.reconstruct` on every blur, and groupings of the pictures; see cells.py."""

import numpy as np
import pytest
from cells import BLURS, ENLARGEMENTS, MASKS, NONLINEAR, SCANS, assert_restored, rows

from experiments.restore.operators import OPERATORS

pytestmark = [pytest.mark.slow, pytest.mark.long]


@pytest.mark.parametrize("tasks", BLURS)
def test_every_solver_restores_every_task(tasks):
    assert_restored(tasks)


def test_no_task_is_left_out():
    assert sorted(",".join(MASKS + BLURS + ENLARGEMENTS + SCANS + NONLINEAR).split(",")) == sorted(OPERATORS)


def test_groupings_restore_the_same_pictures():
    """Groups of 1 are filled up to one for each device; in groups of 8 each device has four pictures."""
    names = ["dps", "daps", "mmps", "ddrm", "pnpdm", "reguidance"]
    found = rows(BLURS[0], dict.fromkeys(names, 1), "1,8")
    for task in BLURS[0].split(","):
        for name in names:
            few, whole = (found[task, name, group] for group in (1, 8))
            assert (few["at_once"], whole["at_once"]) == (2, 8)
            apart = np.abs(np.asarray(few["x"]) - np.asarray(whole["x"]))
            assert apart.max() < 1e-3, f"{task}, {name}: groups of 1 and of 8 differ by {apart.max():.1e}"
