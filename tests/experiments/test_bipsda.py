"""BIPSDA's table: its discrepancies in closed form, its references against exact posteriors, and a small run."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

from diffinv import samplers
from diffinv.process import EDM, VP
from experiments.lab import problems
from experiments.tables import bipsda, published


def test_the_kernel_distance_of_two_points():
    """`2 (5 - sum_j exp(-d^2 / (2^j w)))` for one sample each."""
    x, y = np.zeros((1, 3)), np.array([[1.0, 2.0, 2.0]])
    exact = 2 * (5 - sum(np.exp(-9 / (4.0 * 2.0**j)) for j in range(-2, 3)))
    np.testing.assert_allclose(bipsda.mmd(x, y, 4.0), exact)
    assert bipsda.mmd(y, y, 4.0) == 0


def test_the_moment_discrepancy_of_two_coins():
    """+-1 against +-2 about 0 and about 3: even moments 1 and 2^k, odd ones 0."""
    x, y = np.array([[-1.0], [1.0]]), np.array([[-2.0], [2.0]])
    np.testing.assert_allclose(bipsda.cmd(x, y, 2.0), 3 / 4 + 15 / 16)
    np.testing.assert_allclose(bipsda.cmd(x, y + 3, 2.0), 3 / 2 + 3 / 4 + 15 / 16)


def test_weighed_draws_have_the_exact_posteriors_moments_where_there_is_one():
    rng = np.random.default_rng(0)
    law, A = problems.bipsda_law(rng), np.eye(10)[list(problems.BIPSDA_SEEN)]
    y = A @ law.sample(rng, 1)[0] + 5 * rng.standard_normal(8)
    likelihood = lambda x: -0.5 * np.sum((y - x @ A.T) ** 2, 1) / 25
    x, size = bipsda.weighed(rng, law, likelihood, 4000, 100_000, moves=20)
    mean, covariance = problems.posterior(law, A, y, 5.0).moments()
    assert size > 4000 and max(oracle.moment_errors(x, oracle.Law(mean, covariance))) < 6


def test_metropolis_keeps_the_posterior_and_the_density_is_the_laws():
    """Started at exact draws of a Gaussian, whose density it is told."""
    rng = np.random.default_rng(1)
    law = problems.Law(np.ones(1), np.zeros((1, 2)), np.diag([0.05, 0.2])[None])
    np.testing.assert_allclose(
        bipsda.log_prior(law, np.array([[0.1, 0.2]])) - bipsda.log_prior(law, np.zeros((1, 2))), -0.1 - 0.1
    )
    x, _ = bipsda.weighed(rng, law, lambda x: np.zeros(len(x)), 4000, 4000, moves=50)
    assert max(oracle.moment_errors(x, oracle.Law(np.zeros(2), law.covariances[0]))) < 6


def test_photons_are_counted_on_the_scale_of_the_noise():
    task, rng = bipsda.PROBLEMS["x-ray"], np.random.default_rng(2)
    options = published.values(bipsda.OPTIONS, True)
    each = bipsda.trial(rng, problems.bipsda_law(rng), task, options)
    counts = bipsda.PHOTONS * (each.measurement.y + 1) / 2
    np.testing.assert_allclose(counts, np.round(counts), atol=1e-9)
    rate = bipsda.PHOTONS * jnp.exp(-each.measurement.operator.matrix @ jnp.full(10, 10.0))
    np.testing.assert_allclose(bipsda.PHOTONS * (each.measurement.operator(jnp.zeros(10)) + 1) / 2, rate)
    assert each.exact.shape == each.other.shape == (options.samples, 10) and 1 < each.size < options.draws


def test_variances_are_compared_in_the_norm_and_printed_ones_are_marked():
    rng = np.random.default_rng(4)
    task, x = bipsda.PROBLEMS["inpainting low"], rng.standard_normal((50, 10))
    each = bipsda.Trial(None, 0.1, x, x, float("inf"))
    assert bipsda.scores(task, x, each)[2] == 0
    expected = 3 * np.linalg.norm(x.var(0, ddof=1))
    np.testing.assert_allclose(bipsda.scores(task, 2 * x, each)[2], expected)
    assert np.isnan(bipsda.scores(task, x + 1000, each)).all()
    assert bipsda._told("x-ray", "DAPS RTO") == "variances 0.19 (unverified)"
    assert bipsda._told("x-ray", "DPS") == "not at hand"


def test_a_misspelt_problem_names_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'x-ray'"):
        bipsda.main(published.values(bipsda.OPTIONS, True, problems=["x-rai"]))


@pytest.mark.slow
@pytest.mark.parametrize("forward", [EDM(sigma_max=bipsda.HIGH), VP()], ids=["EDM", "VP"])
def test_chains_that_heed_no_measurement_sample_the_prior(forward):
    """The noisy end is not white at 10: a Gaussian start would lose some of the prior's variance."""
    law = problems.bipsda_law(np.random.default_rng(3))
    row = bipsda.Row(lambda prior, m, v, tau: samplers.ddim(prior, 1.0), (1.0,), forward=forward)
    run = bipsda.program(row, law, published.values(bipsda.OPTIONS, samples=4000))
    x = np.asarray(run(jax.random.key(0), None, None, None))
    assert max(oracle.moment_errors(x, oracle.Law(*law.moments()))) < 6


@pytest.mark.slow
def test_a_small_run_has_a_line_for_every_row_that_applies():
    text, failed, whole = bipsda.main(published.values(bipsda.OPTIONS, True, problems=["inpainting low", "x-ray"]))
    assert failed == 0 and whole == 2 * 3 * 3  # trials, numbers, rows
    assert text.count("inpainting low") == 3 and text.count("DPS") == 2 and text.count("DDRM") == 1
    assert "effective reference draws" in text and "not at hand" in text
