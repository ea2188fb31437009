"""Time grids: exact ends, the papers' formulas, and noise levels found again."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from registries import ISOTROPIC, PROCESSES

import diffinv as di
from diffinv import posterior, process, samplers, times

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


property_based = settings(max_examples=40, deadline=None, derandomize=True)


@property_based
@given(st.integers(1, 2000), st.floats(1e-3, 1.0), st.floats(0.25, 2.5), st.booleans())
def test_every_grid_starts_at_its_start_falls_and_ends_at_an_exact_zero(steps, start, power, double):
    with jax.enable_x64(double):
        grid = np.asarray(times.grid(steps, start, power))
    assert grid.dtype == (np.float64 if double else np.float32) and grid.shape == (steps + 1,)
    assert grid[0] == grid.dtype.type(start) and grid[-1] == 0 and np.all(np.diff(grid) < 0)


@property_based
@given(st.integers(1, 300), st.floats(1e-4, 1.0), st.floats(1.5, 1e3), st.floats(0.5, 9.0))
def test_every_karras_grid_falls_from_one_to_an_exact_zero(steps, sigma_min, factor, rho):
    grid = np.asarray(times.karras(steps, sigma_min, sigma_min * factor, rho))
    assert grid[0] == 1 and grid[-1] == 0 and np.all(np.diff(grid) < 0)
    assert steps == 1 or np.isclose(grid[-2], 1 / factor)


def test_grids_end_at_zero_however_they_are_compiled():
    """In float32: multiplied by a rounded 1/n, 135 of the n up to 1000 end at 6e-8 or -5e-8."""
    with jax.enable_x64(False):
        traced = jax.jit(lambda start: [times.grid(n, start, 1.5)[-1] for n in (41, 47, 250)])
        assert traced(0.7) == [0, 0, 0]
        travelled = jax.jit(lambda: posterior.travel(times.grid(250)))()
        assert travelled[-1] == 0 and travelled[0] == 1


def assert_refused(words, make, *arguments):
    with pytest.raises(ValueError, match=words):
        make(*arguments)


@property_based
@given(st.one_of(st.integers(max_value=0), st.floats(allow_nan=False).filter(lambda n: n < 1 or n % 1)))
def test_steps_that_are_no_number_of_steps_are_refused(steps):
    for make in (times.grid, times.karras, lambda n: times.log_snr(process.VP(), n)):
        assert_refused("^steps is .*; a time grid needs", make, steps)


@property_based
@given(st.one_of(st.just(float("nan")), st.floats(max_value=0), st.floats(1.001)))
def test_starts_and_powers_out_of_range_are_refused_by_name(value):
    assert_refused("^start is .*; give a number above 0, at most 1", times.grid, 5, value)
    assert_refused("^first is .*; give a number above 0, at most 1", times.ascending, times.grid(5), value)
    if not 0 < value < np.inf:
        assert_refused("^power is .*; give a number above 0", times.grid, 5, 1.0, value)
        assert_refused("^sigma_min is .*; give a number above 0", times.karras, 5, value)
        assert_refused("^rho is .*; give a number above 0", times.karras, 5, 0.1, 1.0, value)


def test_levels_that_no_grid_has_are_refused():
    assert_refused("steps is 1000 with power 200.*: the times do not fall in float", times.grid, 1000, 1.0, 200.0)
    assert_refused("sigma_min is 2.0, sigma_max 1.0; give a sigma_min below", times.log_snr, process.VP(), 5, 2.0, 1.0)
    assert_refused("from noise-to-signal 80.* to 0.002 of EDM: the times do not", times.log_snr, process.EDM(1e-3), 5)
    assert_refused("sigma is -1.0; give noise levels of at least 0", times.from_sigma, process.VP(), -1.0)
    blurring = PROCESSES["blurring"]
    assert_refused(r"Blurring has noise levels of shape \(8, 8, 1\); from_sigma needs", times.from_sigma, blurring, 1.0)
    assert_refused("Blurring has noise levels of .*; log_snr needs an isotropic one", times.log_snr, blurring, 5)


def test_a_traced_number_out_of_range_gives_nan():
    def traced(start, sigma):
        return jnp.stack([times.grid(3, start)[0], times.grid(3, 1.0, start)[0], times.from_sigma(process.VP(), sigma)])

    traced = jax.jit(traced)
    assert np.isfinite(traced(0.5, 0.5)).all()
    for value in (-0.5, np.nan):
        assert np.isnan(traced(value, value)).all()


@pytest.mark.parametrize("name", ISOTROPIC)
def test_log_snr_stops_at_the_last_level_of_the_process(name):
    grid = np.asarray(times.log_snr(PROCESSES[name], 40))
    assert 0.9 < grid[0] <= 1 and grid[-1] == 0 and np.all(np.diff(grid) < 0)


def test_sample_takes_a_grid_that_ends_a_rounding_error_off_as_ending_there():
    grid = 1 - jnp.float32(1 / 41) * jnp.arange(42, dtype=jnp.float32)
    assert grid[-1] != 0
    for last in (grid[-1], -grid[-1], 1e-7):
        settled = times.settled(grid.at[-1].set(last).at[0].set(1 + 1e-7))
        assert settled[-1] == 0 and settled[0] == 1
        assert_array_equal(settled[1:-1], grid[1:-1])
    assert_array_equal(times.settled(jnp.asarray([1, 0])), [1.0, 0.0])
    assert_array_equal(times.settled(jnp.asarray([1e-3, 0.5, 1.0])), [1e-3, 0.5, 1.0])


def test_a_small_deviation_is_the_same_at_neighbouring_numbers_of_steps():
    """A Gaussian of deviation 0.01, in float32: n = 41 added the noise of a last time of 6e-8."""
    with jax.enable_x64(False):
        prior = di.gaussian(process.VP(), jnp.zeros(1), 1e-4 * jnp.eye(1))
        rough = lambda n: 1 - jnp.arange(n + 1.0) * (1 / n)

        def ends(x):
            heun = samplers.heun(prior)
            runs = [(heun, times.grid(n)) for n in (40, 41, 42)]
            runs += [(heun, rough(41)), (samplers.dpmpp_2m(prior), rough(41))]
            return jnp.stack([di.sample(jax.random.key(0), walk, grid, x).x[0] for walk, grid in runs])

        deviations = np.asarray(jax.jit(ends)(jnp.ones(1)))
    assert_allclose(deviations, deviations[0], rtol=0.05)
    assert 5e-4 < deviations[0] < 2e-3


def test_times_that_are_none_are_refused_or_come_out_as_nan():
    assert_refused(r"times\[0\] is 1000; times run from 1 \(noise\) to 0", times.settled, jnp.asarray([1000.0, 500, 0]))
    assert_refused(r"times\[2\] is -0.05; times run", times.settled, jnp.asarray([1.0, 0.5, -0.05]))
    assert_refused(r"times\[1\] is nan; times run", times.settled, jnp.asarray([1.0, jnp.nan, 0.0]))
    assert_refused(
        r"times\[0\] is 0, before the end; start an inversion with times.ascending", times.settled, times.grid(4)[::-1]
    )
    assert_refused(r"times has shape \(2, 2\); give one axis", times.settled, jnp.ones((2, 2)))
    assert_refused(r"times has shape \(0,\); give one axis", times.settled, jnp.ones(0))
    traced = np.asarray(jax.jit(times.settled)(jnp.asarray([1.2, 0.5, -0.05])))
    assert np.isnan(traced[[0, 2]]).all() and traced[1] == 0.5


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


def test_leading_times_are_the_published_indices():
    """DDRM's and DDNM's `range(0, 1000, skip)`, taken one up."""
    assert_allclose(times.leading(20), np.append((np.arange(950, -1, -50) + 1) / 1000, 0), rtol=1e-15)
    assert_allclose(times.leading(1000), times.grid(1000), rtol=1e-15)
    assert_allclose(times.leading(3, 10), [0.7, 0.4, 0.1, 0.0], rtol=1e-15)
    assert_refused("steps is 1001; a network trained at 1000 times has no more", times.leading, 1001)


@pytest.mark.parametrize("name", ["vp", "ve", "flow"])
def test_a_fitted_grid_goes_down_to_half_the_noise_of_y(name):
    forward, plain = PROCESSES[name], times.leading(20)
    lowest = float(jnp.exp(-0.5 * forward.log_snr(plain[-2])))
    for sigma in (1.0, 0.01, 1e-3):
        grid = np.asarray(times.fitted(forward, plain, sigma))
        assert_array_equal(grid[:13], plain[:13])
        assert np.all(np.diff(grid) < 0) and grid[-1] == 0
        assert_allclose(jnp.exp(-0.5 * forward.log_snr(grid[-2])), min(0.5 * sigma, lowest), rtol=1e-6)


def test_a_grid_is_fitted_to_some_noise_only():
    vp, plain = process.VP(), times.leading(20)
    assert_array_equal(times.fitted(vp, plain, 0.0), plain)
    assert_array_equal(jax.jit(times.fitted)(vp, plain, 0.0), plain)
    assert np.isnan(jax.jit(times.fitted)(vp, plain, -1.0)).any()
    assert_array_equal(times.fitted(vp, times.grid(1), 0.1), times.grid(1))
    assert_refused("sigma is nan; give the noise of y, at least 0", times.fitted, vp, plain, np.nan)


@pytest.mark.parametrize("first", [1e-3, 0.9])
def test_inversion_starts_at_a_small_positive_time(first):
    down = times.grid(10)
    up = times.ascending(down, first)
    assert_array_equal(up[1:], down[::-1][1:])
    assert_allclose(up[0], min(first, 0.05), rtol=1e-14)
    assert np.all(np.diff(up) > 0)
