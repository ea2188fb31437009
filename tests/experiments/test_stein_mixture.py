"""The table of Stein discrepancies: the exact score, what exact samples leave, and a small run."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import multivariate_normal

from experiments.lab.problems import Law
from experiments.tables import published, stein_mixture


def test_the_prior_is_the_papers():
    law = stein_mixture.law()
    mean, covariance = law.moments()
    np.testing.assert_allclose(mean, [0.6, 0.6, *[0.0] * 14])
    expected = np.eye(16)
    expected[:2, :2] = 0.8 * np.eye(2) + 0.2 * 2 * np.eye(2) + 0.16 * 9
    np.testing.assert_allclose(covariance, expected, atol=1e-12)
    scales = np.linalg.norm(stein_mixture.MATRICES["many"], axis=1)
    np.testing.assert_allclose(scales, 0.1 + 0.05 * np.arange(14), atol=1e-12)
    assert not stein_mixture.MATRICES["many"][:, :2].any() and stein_mixture.MATRICES["few"].shape == (4, 16)


def test_the_score_is_the_gradient_of_the_log_density():
    rng = np.random.default_rng(0)
    law = stein_mixture.law()
    means, weights = jnp.asarray(law.means), jnp.asarray(law.weights)
    precisions = jnp.asarray(np.linalg.inv(law.covariances))
    logs = jnp.asarray([multivariate_normal(cov=c).logpdf(np.zeros(16)) for c in law.covariances])

    def log_density(x):
        gap = x[None] - means
        return jax.nn.logsumexp(jnp.log(weights) + logs - 0.5 * jnp.einsum("ki,kij,kj->k", gap, precisions, gap))

    x = rng.normal(1, 2, (5, 16))
    np.testing.assert_allclose(stein_mixture.score(law, x), jax.vmap(jax.grad(log_density))(jnp.asarray(x)), rtol=1e-9)


def test_exact_samples_leave_the_least_and_what_is_not_finite_nothing():
    rng = np.random.default_rng(0)
    law = stein_mixture.law()
    exact = law.sample(rng, 300)
    least = stein_mixture.discrepancy(law, exact, 1.0)
    narrow = Law(law.weights, law.means, 0.3 * law.covariances).sample(rng, 300)
    assert least < stein_mixture.discrepancy(law, narrow, 1.0)
    assert least < stein_mixture.discrepancy(law, exact + 0.5, 1.0)
    assert np.isnan(stein_mixture.discrepancy(law, np.where(np.arange(16) == 3, np.nan, exact), 1.0))


def test_what_is_printed_stands_beside_its_own_row():
    setting = stein_mixture.setting("many", 0.2, 2, np.random.default_rng(0))
    assert setting.theirs[0] == 0.35 and len(setting.theirs) == 1 + len(stein_mixture.NAMES)
    assert stein_mixture.setting("few", 0.2, 2, np.random.default_rng(0)).theirs == ()
    order = dict(zip(stein_mixture.NAMES, ([value] for value in setting.theirs[1:])))
    assert stein_mixture._order(setting, order) == ["many, sigma 0.2: rank correlation with the published order 1.00"]
    assert stein_mixture._order(setting, dict(list(order.items())[:2])) == []


def test_a_small_run():
    found = stein_mixture.main(published.values(stein_mixture.OPTIONS, quick=True))
    assert (found.failed, found.whole) == (0, 2)
    exact, ours = found.text.splitlines()[-2:]
    assert exact.startswith("many     0.5    exact samples") and exact.endswith("0.24")
    assert ours.startswith("many     0.5    DDRM") and ours.endswith("0.60")
    floor, score = (float(line.split(" ± ")[0].split()[-1]) for line in (exact, ours))
    assert floor < score
