"""Scale-space properties: every verdict as derived, on digits the recorded numbers, and closed forms elsewhere."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import OPTIMISED
from numpy.testing import assert_allclose

from diffinv import denoisers, prior, process, scalespace
from diffinv.scalespace import axioms, laws, osmosis, truth
from diffinv.scalespace.grey import grey_properties

pytestmark = pytest.mark.long

FREQUENCIES = process.dct_frequencies(8, 8)
FEW = process.dct_frequencies(4, 4)
PROCESSES = {
    "vp": process.VP(),
    "cosine": process.Cosine(),
    "ve": process.VE(),
    "ihd": process.HeatDissipation(FEW),
    "cold": process.HeatDissipation(FEW, delta=1e-4),
    "blurring_1": process.Blurring(FEW, sigma_blur=1.0),
    "blurring_20": process.Blurring(FEW),
    "relay": scalespace.relay(4, 4, 2),
}


@cache
def digits():
    """(1797, 8, 8, 1) in [0, 1]."""
    datasets = pytest.importorskip("sklearn.datasets", reason="the digits come with scikit-learn")
    return jnp.asarray(datasets.load_digits().images[..., None] / 16.0)


@cache
def patterns():
    """Six 4 x 4 pictures and their mirror images, which share a mean grey value."""
    drawn = np.random.default_rng(0).uniform(0, 1, (6, 4, 4, 1))
    return jnp.asarray(np.concatenate([drawn, drawn[:, ::-1]]))


_measure = lambda law, a, s, draws: law.information(jax.random.key(1), a, s, draws)
_information = jax.jit(_measure, static_argnums=3, compiler_options=OPTIMISED)


def information(law, the_process, t, draws=1797):
    a, s = (jnp.broadcast_to(x, (8, 8, 1)).ravel() for x in (the_process.alpha(t), the_process.sigma(t)))
    values = _information(law, a, s, draws)
    return float(jnp.mean(values)), float(jnp.std(values)) / draws**0.5, a, s


QUICK = ("ihd",)


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in PROCESSES])
def test_every_verdict_is_the_truth_table_s(name):
    report = scalespace.properties(PROCESSES[name], patterns(), jax.random.key(0), draws=3000)
    assert not report.disagreements(), [(row.name, row.verdict, row.note) for row in report.disagreements()]
    assert {row.name for row in report.rows} == set(truth.TRUTH) == set(truth.REASONS) | {
        "semigroup", "flips", "transpose", "quarter_turns"
    }  # fmt: skip
    assert report["semigroup"].deviation < 1e-12
    assert name not in ("ihd", "cold") or report["marginal_entropy"].verdict == "fails"
    for row in report.rows:
        assert row.verdict == row.expected or (row.expected == "" and row.verdict in ("holds", "fails")), row
        assert len(row.values) == len(row.times) == len(row.errors)
        assert np.isfinite(row.values).all() or row.name == "conditional_entropy"


@pytest.mark.slow
def test_information_of_the_digits():
    """Section 2.3 of the reference: 400 draws each, so +- 0.1, or three of its own standard errors in mid-fall."""
    vp = {0.02: 7.494, 0.05: 7.465, 0.1: 6.625, 0.2: 3.361, 0.3: 1.456, 0.4: 0.596, 0.6: 0.077, 0.8: 0.007, 1: 0.001}
    law = laws.law(digits(), scalespace.basis(process.VP(), (8, 8, 1)))
    measured = {t: information(law, process.VP(), t) for t in vp}
    for t, value in vp.items():
        found, error, _, _ = measured[t]
        assert abs(found - value) < 0.1 + 3 * np.hypot(error, error * (1797 / 400) ** 0.5), (t, found, error)
    relative = {0.1: 43.9, 0.2: 14.9, 0.4: 1.58, 1: 0.0}
    for t, value in relative.items():
        found, error, a, s = measured[t]
        energy = jnp.sum(a**2 * law.second_moment() + s**2)
        kl = 0.5 * (64 * np.log(2 * np.pi) + energy) - found - laws.conditional_entropy(s)
        assert abs(kl - value) < 0.1 + 9 * error, (t, kl)


@pytest.mark.slow
def test_heat_dissipation_keeps_the_mean_grey_s_information():
    heat = process.HeatDissipation(FREQUENCIES)
    law = laws.law(digits(), scalespace.basis(heat, (8, 8, 1)))
    found, error, _, s = information(law, heat, 1.0)
    assert abs(found - 3.22) < 0.05 and error < 0.03
    start, _, _, _ = information(law, heat, 1e-3)
    assert abs(start - np.log(1797)) < 1e-3
    entropy = laws.conditional_entropy(s)
    assert_allclose([start + entropy, found + entropy], [-196.42, -200.70], atol=0.06)
    mean_grey = law.means[:, :1]
    alone = laws.Mixture(mean_grey, law.log_weights).information(jax.random.key(2), jnp.ones(1), s[:1], 1797)
    assert abs(float(jnp.mean(alone)) - found) < 0.1


@pytest.mark.slow
def test_information_of_a_gaussian_and_of_a_mixture_of_one_agree():
    rng = np.random.default_rng(1)
    chart = scalespace.basis(process.Blurring(FEW), (4, 4, 1))
    mean = jnp.asarray(rng.standard_normal((4, 4, 1)))
    exact = laws.law(denoisers.gaussian(process.VP(), mean, 0.3 * jnp.eye(16)), chart)
    drawn = laws.law(denoisers.mixture(process.VP(), mean[None], jnp.ones(1), jnp.full(1, 0.3)), chart)
    a, s = (jnp.asarray(rng.uniform(0.2, 1, 16)) for _ in range(2))
    closed = float(exact.information(jax.random.key(0), a, s, 1)[0])
    assert_allclose(closed, 0.5 * np.sum(np.log1p(0.3 * a**2 / s**2)), rtol=1e-12)
    values = drawn.information(jax.random.key(0), a, s, 4000)
    assert abs(float(jnp.mean(values)) - closed) < 4.5 * float(jnp.std(values)) / 4000**0.5
    assert_allclose(exact.second_moment(), drawn.second_moment(), rtol=1e-12)


def test_a_spectral_gaussian_has_the_covariance_of_its_field():
    spectrum = jnp.asarray(np.random.default_rng(2).uniform(0.1, 1, (4, 4, 1)))
    field = denoisers.gaussian_field(process.VP(), jnp.zeros((4, 4, 1)), spectrum)
    in_cosines = laws.law(field, scalespace.basis(process.Blurring(FEW), (4, 4, 1)))
    assert_allclose(in_cosines.covariance, jnp.diag(spectrum.ravel()), atol=1e-14)


@pytest.mark.slow
def test_marginal_entropy_is_no_lyapunov_functional_of_vp():
    """Two wide modes far apart: the entropy rises with the noise and then falls to that of N(0, I)."""
    means = jnp.array([-3.0, 3.0]).reshape(2, 1, 1, 1)
    wide = denoisers.mixture(process.VP(), means, jnp.ones(2), jnp.full(2, 0.1))
    report = scalespace.properties(process.VP(), wide, jax.random.key(0), np.linspace(0.05, 1, 9), draws=4000)
    entropy = report["marginal_entropy"]
    assert entropy.verdict == "fails" and max(entropy.values) > entropy.values[-1] + 0.1
    assert report["relative_entropy"].verdict == report["information"].verdict == "holds"
    assert_allclose(entropy.values[-1], 0.5 * (np.log(2 * np.pi) + 1), atol=0.05)


def test_relative_entropy_may_rise_where_the_normal_is_not_invariant():
    blurring = process.Blurring(FEW)
    wide = lambda f, t: float(jnp.broadcast_to(f(t), (4, 4, 1))[0, 1, 0])
    (a, s), (b, r) = ((wide(blurring.alpha, t), wide(blurring.sigma, t)) for t in (0.15, 0.4))
    there, then = truth.counterexample(a, s, b, r)
    assert abs(there) < 1e-12 and then > 0.1
    vp = process.VP()
    assert truth.counterexample(*(float(f(t)) for t in (0.3, 0.5) for f in (vp.alpha, vp.sigma)))[1] < 1e-12


@pytest.mark.slow
def test_commutators_of_the_blur():
    """The blur of tau = 1 on 8 x 8: symmetric under the square's group, doubly stochastic, not under shifts."""
    chart = scalespace.basis(process.Blurring(FREQUENCIES), (8, 8, 1))
    B = axioms.pixel_matrix(chart, jnp.exp(-FREQUENCIES))
    assert_allclose([B.sum(0), B.sum(1)], 1, atol=1e-14)
    assert B.min() > 0
    groups = axioms.elements(jax.random.key(0), 8, 8)
    norms = {name: [axioms.commutator(B, order) for order in orders] for name, orders in groups.items()}
    for name in ("flips", "transpose", "quarter_turns"):
        assert max(norms[name]) < 1e-13
    assert_allclose(norms["shifts"], 1.13, atol=0.005)
    assert abs(norms["permutations"][0] - 2.31) < 0.15


@pytest.mark.slow
def test_relay_blurs_inside_its_blocks_and_ends_at_their_average():
    chart, x = scalespace.block_dct((8, 8, 2)), jnp.asarray(np.random.default_rng(0).standard_normal((8, 8, 2)))
    assert_allclose(chart.decode(chart.encode(x)), x, atol=1e-14)
    assert_allclose(jnp.linalg.norm(chart.encode(x)), jnp.linalg.norm(x), rtol=1e-13)
    hard = scalespace.relay(8, 8, sigma_blur=100.0, d_min=1e-300)
    average = jnp.repeat(jnp.repeat(x.reshape(2, 4, 2, 4, 2).mean((1, 3)), 4, 0), 4, 1)
    assert_allclose(chart.decode(hard.alpha(1.0) * chart.encode(x)), average, atol=1e-12)
    assert_allclose(scalespace.relay(8, 8).alpha(1.0)[0, 1, 0], 0.063, atol=0.001)
    kernel = axioms.pixel_matrix(chart._replace(shape=(8, 8, 2)), scalespace.relay(8, 8).alpha(0.5))
    whole = np.roll(np.arange(64).reshape(8, 8), 4, 0).ravel()
    assert axioms.commutator(kernel, whole) < 1e-13
    with pytest.raises(ValueError, match="block is 3; it must divide 8 and 8"):
        scalespace.relay(8, 8, 3)


def test_ratios_are_never_nan_under_strong_blur():
    for blur in (20.0, 1e3, 1e6):
        heat = process.HeatDissipation(FREQUENCIES, blur_max=blur)
        for q, s, t in ((0.0, 0.5, 1.0), (0.8, 0.9, 1.0)):
            ratio, std = heat.forward(jnp.ones((8, 8, 1)), s, t)
            assert jnp.isfinite(ratio).all() and jnp.isfinite(std).all()
            assert scalespace.chapman_kolmogorov(heat, q, s, t) < 1e-12


@pytest.mark.slow
def test_osmosis_has_its_column():
    rng = np.random.default_rng(0)
    guide, images = (jnp.asarray(rng.uniform(0.5, 2, shape)) for shape in ((6, 6, 1), (5, 6, 6, 1)))
    report = grey_properties(guide, images, jax.random.key(0))
    assert not report.disagreements(), [(row.name, row.verdict, row.note) for row in report.disagreements()]
    assert report["shifts"].deviation > 1e-2 and report["kl_to_guide"].values[0] > 0.01


def test_phi_divergences_of_densities_are_their_integrals():
    """Of N(m, 1) to N(0, 1) on a grid: m^2 / 2, exp(m^2) - 1, and one Lyapunov test along VP for all of them."""
    x = jnp.linspace(-12, 12, 4001)
    density = lambda m, v: jnp.exp(-0.5 * (x - m) ** 2 / v) / jnp.sqrt(2 * jnp.pi * v) * (x[1] - x[0])
    phi = scalespace.PHI
    assert_allclose(scalespace.phi_divergence(density(0.7, 1), density(0, 1), phi["kl"]), 0.245, rtol=1e-9)
    assert_allclose(scalespace.phi_divergence(density(0.7, 1), density(0, 1), phi["chi2"]), np.expm1(0.49), rtol=1e-9)
    times = jnp.linspace(0.01, 1, 60)
    law = lambda t: (
        sum(density(process.VP().alpha(t) * m, 1 - 0.91 * process.VP().alpha(t) ** 2) for m in (-1.0, 1.5)) / 2
    )
    for name in ("kl", "chi2", "tv", "hellinger"):
        values = jnp.stack([scalespace.phi_divergence(law(t), density(0, 1), phi[name]) for t in times])
        assert jnp.all(jnp.diff(values) < 1e-12) and values[-1] < 0.01 * values[0]


def test_what_cannot_be_judged_is_not():
    report = scalespace.properties(process.VP(), patterns(), jax.random.key(0), draws=8)
    row = report["information"]
    assert row.verdict == "undecided" and "too few draws" in row.note and max(row.errors) > 0
    verdict, deviation, _ = axioms.trend(np.array([[1.0], [1.0]]), rising=True, strict=True)
    assert verdict == "fails" and deviation == 0


def test_mistakes_are_named():
    class Rising(process.VP):
        def log_snr(self, t):
            return jnp.asarray(t) * 3.0

    with pytest.raises(ValueError, match="Rising has an SNR that rises from time 0 to 0.01"):
        scalespace.properties(Rising(), patterns(), jax.random.key(0))
    with pytest.raises(ValueError, match="give at least 3 that increase"):
        scalespace.properties(process.VP(), patterns(), jax.random.key(0), [0.0, 1.0])
    with pytest.raises(ValueError, match="samples of shape"):
        scalespace.properties(process.VP(), patterns()[..., 0], jax.random.key(0))
    network = prior.NetworkDenoiser((), process.VP(), lambda p, x, c: x, "x0")
    with pytest.raises(TypeError, match="NetworkDenoiser is not exact"):
        scalespace.properties(process.VP(), prior.Prior(process.VP(), network, (4, 4, 1)), jax.random.key(0))
    assert osmosis.positive(patterns()[0] + 1).shape == (4, 4, 1)
