"""Random walks: the lattice's denoiser against closed forms and sums, and the table of gaps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from diffinv import process
from experiments.lab import walks
from experiments.tables import levy, published

DENSITY = {
    "Gauss": (stats.norm(scale=0.5).pdf, 1.0),
    "Laplace": (stats.laplace.pdf, 1.0),
    "Bernoulli-Laplace": (stats.laplace.pdf, 0.1),
    "Student 3": (stats.t(3).pdf, 1.0),
}


@pytest.fixture(autouse=True)
def as_experiments_run():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(scope="module")
def best():
    """`mean` of each law, compiled once a length."""
    return {name: jax.jit(lambda y, s, law=law: walks.mean(law, y, s)) for name, law in walks.JUMPS.items()}


def by_sum(name, y, s, reach=12.0, count=1201):
    """`E[s | y]` of walks of two places, on a fine grid of both increments and on the axes of the atom."""
    pdf, share = DENSITY[name]
    u = np.linspace(-reach, reach, count)
    mass = share * pdf(u) * (u[1] - u[0])
    mass[count // 2] += 1 - share
    logs = -((y[0] - u) ** 2)[:, None] / (2 * s**2) - (y[1] - u[:, None] - u) ** 2 / (2 * s**2)
    w = mass[:, None] * mass * np.exp(logs - logs.max())
    first = (w.sum(1) @ u) / w.sum()
    return np.array([first, first + (w.sum(0) @ u) / w.sum()])


@pytest.mark.parametrize("s", [0.05, 0.4, 1.2, 2.0, 30.0])
def test_of_a_gaussian_walk_it_is_the_closed_form(best, s):
    """In posterior deviations; the lattice errs by its step's fourth power, most at the change of windows, 1.29."""
    T = np.tri(64)
    C = 0.25 * T @ T.T
    y = T @ walks.JUMPS["Gauss"].sample(np.random.default_rng(0), (64,)) + s * np.random.default_rng(1).normal(size=64)
    gain = C @ np.linalg.inv(C + s**2 * np.eye(64))
    deviation = np.sqrt(np.diag(C - gain @ C))
    found = best["Gauss"](jnp.asarray(y), jnp.asarray(s))
    np.testing.assert_array_less(np.abs(found - gain @ y) / deviation, 1e-3 if 1 < s < 3 else 1e-4)


@pytest.mark.parametrize("s", [0.3, 1.5, 6.0])
@pytest.mark.parametrize("name", ["Laplace", "Bernoulli-Laplace", "Student 3"])
def test_of_two_places_it_is_the_sum_over_both_increments(best, name, s):
    """With an atom at 0 and with heavy tails, whose sum is cut at 60; to 2e-3 of the noise."""
    y = np.array([0.7, -1.1]) * max(s, 0.5)
    expected = by_sum(name, y, s, *((60.0, 2401) if name == "Student 3" else ()))
    np.testing.assert_allclose(best[name](jnp.asarray(y), jnp.asarray(s)), expected, atol=2e-3 * s)


@pytest.mark.parametrize("name", list(walks.JUMPS))
def test_the_lattice_keeps_mass_and_variance(name):
    """Student's variance is in its tails: of 1000 steps one part in a hundred is beyond."""
    law, half = walks.JUMPS[name], 1000
    step = np.sqrt(law.variance / law.share) / 2
    found = np.asarray(walks.masses(law, jnp.asarray(-float(half)), 2 * half + 1, jnp.asarray(step)))
    far = np.arange(-half, half + 1) * step
    assert found.sum() == pytest.approx(1, abs=1e-6) and found.min() > 0
    assert found @ far**2 == pytest.approx(law.variance, rel=1e-2 if name == "Student 3" else 1e-3)


def test_a_walk_far_from_what_was_measured_is_a_number(best):
    """No increment of a Gaussian walk is 400: the measurement alone is left."""
    y = jnp.asarray([0.0, 400.0, 0.0])
    np.testing.assert_allclose(best["Gauss"](y, jnp.asarray(0.1)), y, atol=0.7)


def test_the_denoiser_takes_the_process_scale(best):
    denoise = walks.WalkDenoiser(process.VP(), walks.JUMPS["Laplace"])
    x, t = jnp.asarray([0.3, 0.1, -0.4]), jnp.asarray(0.3)
    alpha, sigma = denoise.process.alpha(t), denoise.process.sigma(t)
    np.testing.assert_allclose(jax.jit(denoise)(x, t), best["Laplace"](x / alpha, sigma / alpha), rtol=1e-12)


def test_exact_samples_have_the_least_gap_and_their_interval_its_share():
    rng = np.random.default_rng(0)
    truth, best = rng.normal(size=(2000, 64)), np.zeros((2000, 64))
    x = rng.normal(size=(2000, 20, 64))
    assert np.mean(levy.gap(x, truth, best)) == pytest.approx(10 * np.log10(1 + 1 / 20), abs=0.02)
    np.testing.assert_allclose(levy.gap(x * 0 + best[:, None], truth, best), 0)
    wide = levy.held_within(rng.normal(size=(40, 2000, 64)), truth[:40])
    assert np.mean(wide) == pytest.approx(90, abs=2)


def test_the_measurement_is_as_loud_as_said():
    where = levy.setting("deconvolution", "Gauss", 300)
    clean = where.truth @ levy.MATRICES["deconvolution"].T
    power = np.median(np.mean(clean**2, 1))
    noise = np.std(np.asarray(where.measurements.y) - clean)
    assert 10 * np.log10(power / noise**2) == pytest.approx(25, abs=0.1)
    np.testing.assert_allclose(levy.MATRICES["deconvolution"].sum(1), 1)
    assert np.mean((where.mean - where.truth) ** 2) < 0.5 * np.mean((where.measurements.y - where.truth) ** 2)


def test_a_sampled_reference_is_near_the_closed_form(monkeypatch):
    """Seen at every place, the Gibbs sampler's mean is the lattice's, to its Monte-Carlo error."""
    where = levy.setting("denoising", "Laplace", 3)
    monkeypatch.setitem(levy.MATRICES, "again", np.eye(64))
    gibbs = levy.levy.gibbs
    monkeypatch.setattr(levy.levy, "gibbs", lambda *given: gibbs(*given[:5], 16, 16, 6, 60))
    y = np.asarray(where.measurements.y)
    sampled = levy.reference("again", "Laplace", y, where.sigma, np.random.default_rng(0))
    assert np.sqrt(np.mean((sampled - where.mean) ** 2)) < 0.05 * where.sigma


def test_levels_cool_as_theirs():
    found = levy.VP.sigma(levy.cooling(40, jnp.asarray(3.0))) / levy.VP.alpha(levy.cooling(40, jnp.asarray(3.0)))
    np.testing.assert_allclose(found[:2], 3.0, rtol=1e-6)
    np.testing.assert_allclose(found[-2:], [0.1, 0], rtol=1e-6, atol=1e-12)
    assert (np.diff(found) <= 1e-9).all() and len(found) == 11


def test_what_has_no_reference_is_said_and_what_is_printed_is_marked():
    with pytest.raises(ValueError, match="the posterior of imputation with Student 3 is not known here"):
        levy.reference("imputation", "Student 3", np.zeros((1, 32)), 0.1, np.random.default_rng(0))
    assert levy._told("denoising", "Laplace", "DiffPIR") == "0.09 (unverified)"
    assert levy._told("denoising", "Student 3", "DiffPIR") == levy._told("imputation", "Gauss", "DPnP") == "not at hand"


@pytest.mark.slow
def test_a_small_run(monkeypatch):
    monkeypatch.setitem(levy.ROWS, "DiffPIR", levy.ROWS["DiffPIR"]._replace(values=(1.0,)))
    options = published.values(levy.OPTIONS, quick=True, problems=["denoising", "imputation"], jumps=["Student 3"])
    found = levy.main(options)
    assert (found.failed, found.whole) == (0, 3)
    assert "denoising  Student 3  DiffPIR  1" in found.text and found.text.endswith(
        "leave it out of --problems or --jumps"
    )
    assert "0.97 dB" in found.text.splitlines()[0]
