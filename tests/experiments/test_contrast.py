"""The contrast of a perfect candidate against the differential equation that it solves, integrated by scipy."""

import jax
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from experiments.tables import contrast, published


def exact(deviation, sigma_max, rho):
    """`dx/dsigma = -sigma (score + rho grad -(1 - x0)^2)`, `x0 = s^2 x / (s^2 + sigma^2)`, from the inverted candidate.

    The unconditional flow multiplies by `sqrt(s^2 + sigma^2)`; guidance adds `2 rho (1 - x0) s^2 / (s^2 + sigma^2)`.
    """
    s2 = deviation**2

    def slope(sigma, x):
        shrink = s2 / (s2 + sigma**2)
        return -sigma * (-x / (s2 + sigma**2) + 2 * rho * (1 - shrink * x) * shrink)

    start = np.sqrt((s2 + sigma_max**2) / s2)
    return solve_ivp(slope, (sigma_max, 0), [start], rtol=1e-10, atol=1e-12, method="Radau").y[0, -1]


@pytest.mark.parametrize("deviation", contrast.DEVIATIONS)
@pytest.mark.parametrize("horizon", [0.02, 0.2])
def test_fine_steps_tend_to_the_differential_equation(deviation, horizon):
    program = jax.jit(contrast.contrast, static_argnums=3)
    for rho in (1.0, 8.0):
        expected = exact(deviation, 80 * horizon, rho)
        coarse, fine = (abs(float(program(deviation, horizon, rho, n)) - expected) for n in (200, 400))
        assert fine < 2e-3 * expected and fine < 0.5 * coarse


def test_without_guidance_nothing_is_gained_and_with_it_contrast_grows():
    """The guidance pulls on a path that is right already; at rho 8 departures of 0.3 come back larger by 39 %."""
    program = jax.jit(contrast.contrast, static_argnums=3)
    assert float(program(0.3, 0.2, 0.0, 400)) == pytest.approx(1, abs=1e-3)
    assert float(program(0.3, 0.2, 8.0, 400)) == pytest.approx(1.39, abs=0.01)


def test_the_table_has_a_line_for_each_setting_and_a_cell_for_each_deviation():
    found = contrast.main(published.values(contrast.OPTIONS, horizons=[0.2], rhos=[1.0, 8.0], steps=[40]))
    head, _, line = found.text.splitlines()
    assert (found.failed, found.whole) == (0, 6) and head.split()[-1] == "0.5²)"
    assert line.startswith("T 0.2, rho 8, 40 steps")
    assert [float(cell) for cell in line.split()[-3:]] == pytest.approx([1.07, 1.39, 1.40], abs=0.02)
