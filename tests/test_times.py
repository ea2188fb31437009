"""Time grids: exact ends, the papers' formulas, and noise levels found again."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from registries import ISOTROPIC, PROCESSES

from diffinv import process, times

GRIDS = {
    "grid": times.grid,
    "quadratic": lambda steps: times.grid(steps, power=2.0),
    "karras": times.karras,
    "log_snr": lambda steps: times.log_snr(process.VP(), steps),
}
every_grid = pytest.mark.parametrize("name", GRIDS)


@pytest.mark.parametrize("double", [True, False])
@every_grid
def test_grids_fall_from_noise_to_an_exact_zero(name, double):
    with jax.enable_x64(double):
        grid = np.asarray(GRIDS[name](50))
    assert grid.dtype == (np.float64 if double else np.float32)
    assert grid.shape == (51,) and grid[-1] == 0
    assert np.all(np.diff(grid) < 0)
    assert 0.9 < grid[0] <= 1 + 1e-6


@every_grid
def test_grids_need_a_step(name):
    assert GRIDS[name](1).shape == (2,)
    with pytest.raises(ValueError, match="steps is 0; a time grid needs at least 1 step"):
        GRIDS[name](0)


def test_uniform_and_power_grids():
    assert_allclose(times.grid(4), [1, 0.75, 0.5, 0.25, 0], rtol=1e-15)
    assert_allclose(times.grid(4, start=0.8, power=2.0), 0.8 * np.array([1, 0.75, 0.5, 0.25, 0]) ** 2, rtol=1e-14)


def test_karras_is_equation_5_in_units_of_sigma_max():
    i = np.arange(18)
    sigma = (80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    assert_allclose(80 * times.karras(18)[:-1], sigma, rtol=1e-12)
    assert_allclose(80 * times.karras(18)[-2], 0.002, rtol=1e-12)


@pytest.mark.parametrize("name", ISOTROPIC)
def test_a_noise_level_is_found_again(name):
    process = PROCESSES[name]
    ratio = lambda t: jnp.exp(-0.5 * process.log_snr(t))
    sigma = jnp.geomspace(float(ratio(1e-4)), float(ratio(0.999)), 12).reshape(3, 4)
    found = times.from_sigma(process, sigma)
    assert found.shape == (3, 4)
    assert_allclose(ratio(found), sigma, rtol=1e-9)
    assert_array_equal(times.from_sigma(process, jnp.array([0.0, 1e20])), [0.0, 1.0])


def test_noise_levels_in_closed_form():
    sigma = jnp.array([0.01, 1.0, 50.0])
    assert_allclose(times.from_sigma(process.Flow(), sigma), sigma / (1 + sigma), rtol=1e-12)
    assert_allclose(times.from_sigma(process.EDM(), sigma), sigma / 80, rtol=1e-12)


def test_log_snr_steps_are_equal():
    vp = process.VP()
    levels = vp.log_snr(times.log_snr(vp, 20, 0.01, 50.0)[:-1])
    assert_allclose(levels[0], -2 * np.log(50.0), rtol=1e-9)
    assert_allclose(levels[-1], -2 * np.log(0.01), rtol=1e-9)
    assert_allclose(np.diff(levels), np.log(50.0 / 0.01) * 2 / 19, rtol=1e-8)


@pytest.mark.parametrize("first", [1e-3, 0.9])
def test_inversion_starts_at_a_small_positive_time(first):
    down = times.grid(10)
    up = times.ascending(down, first)
    assert_array_equal(up[1:], down[::-1][1:])
    assert_allclose(up[0], min(first, 0.05), rtol=1e-14)
    assert np.all(np.diff(up) > 0)
