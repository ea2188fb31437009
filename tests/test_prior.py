"""Exact denoisers against dense linear algebra and against the gradient of their own log density."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from registries import ISOTROPIC, PROCESSES
from scipy.stats import multivariate_normal

from diffinv import process
from diffinv.denoisers.exact import GaussianDenoiser, finite, gaussian, gaussian_field, gaussian_mixture, mixture
from diffinv.linalg import dct_hw, square_distances
from diffinv.prior import NetworkDenoiser, Prior

SHAPE, SIZE = (2, 3, 1), 6
TIMES = (1.0, 0.6, 0.02)
every_isotropic = pytest.mark.parametrize("name", ISOTROPIC)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def gaussian_law(rng):
    return oracle.Law(rng.standard_normal(SIZE), oracle.random_covariance(rng, SIZE))


def mixture_law(rng):
    return rng.standard_normal((3, SIZE)), np.array([0.5, 0.3, 0.2]), np.array([0.3, 0.05, 1.0])


def a_gaussian(process, law):
    return gaussian(process, jnp.asarray(law.mean).reshape(SHAPE), jnp.asarray(law.covariance))


def a_mixture(process, means, weights, variances):
    return mixture(process, jnp.asarray(means).reshape(-1, *SHAPE), jnp.asarray(weights), jnp.asarray(variances))


@every_isotropic
def test_gaussian_denoiser_is_the_conditional_mean(name, rng):
    law, x = gaussian_law(rng), rng.standard_normal(SIZE)
    prior = a_gaussian(PROCESSES[name], law)
    for t in TIMES:
        alpha, sigma = float(prior.process.alpha(t)), float(prior.process.sigma(t))
        exact = oracle.gaussian_posterior(law.mean, law.covariance, alpha * np.eye(SIZE), sigma * x, sigma)
        assert_allclose(prior.denoise(sigma * x.reshape(SHAPE), t).ravel(), exact.mean, rtol=1e-9, atol=1e-9)


@every_isotropic
def test_mixture_denoiser_is_the_conditional_mean(name, rng):
    means, weights, variances = mixture_law(rng)
    prior = a_mixture(PROCESSES[name], means, 7 * weights, variances)
    for t in TIMES:
        alpha, sigma = float(prior.process.alpha(t)), float(prior.process.sigma(t))
        x = alpha * means[0] + sigma * rng.standard_normal(SIZE)
        w, laws = oracle.mixture_posterior(means, weights, variances, alpha * np.eye(SIZE), x, sigma)
        exact = sum(w * law.mean for w, law in zip(w, laws, strict=True))
        assert_allclose(prior.denoise(x.reshape(SHAPE), t).ravel(), exact, rtol=1e-8, atol=1e-8)
        assert_allclose(prior.denoise.responsibilities(x.reshape(SHAPE), t), w, rtol=1e-7, atol=1e-12)


def a_full_mixture(process, rng):
    """(prior, means, weights, covariances) of three components."""
    means, weights, _ = mixture_law(rng)
    covariances = np.stack([oracle.random_covariance(rng, SIZE, 0.1, 1.0 + k) for k in range(3)])
    parts = jnp.asarray(means).reshape(-1, *SHAPE), jnp.asarray(4 * weights), jnp.asarray(covariances)
    return gaussian_mixture(process, *parts), means, weights, covariances


@pytest.mark.parametrize("name", ["vp", "flow"])
def test_full_mixture_denoiser_is_the_conditional_mean_and_has_the_density(name, rng):
    prior, means, weights, covariances = a_full_mixture(PROCESSES[name], rng)
    for t in TIMES:
        alpha, sigma = float(prior.process.alpha(t)), float(prior.process.sigma(t))
        x = alpha * means[1] + sigma * rng.standard_normal(SIZE)
        joint = [
            w * multivariate_normal.pdf(x, alpha * m, alpha**2 * C + sigma**2 * np.eye(SIZE))
            for w, m, C in zip(weights, means, covariances, strict=True)
        ]
        laws = [oracle.gaussian_posterior(m, C, alpha * np.eye(SIZE), x, sigma) for m, C in zip(means, covariances)]
        exact = sum(share * law.mean for share, law in zip(joint, laws, strict=True)) / sum(joint)
        x = jnp.asarray(x).reshape(SHAPE)
        assert_allclose(prior.denoise(x, t).ravel(), exact, rtol=1e-9, atol=1e-9)
        assert_allclose(prior.denoise.log_prob(x, t), np.log(sum(joint)), rtol=1e-10)


def test_full_mixture_of_round_components_is_the_round_one(rng):
    means, weights, variances = mixture_law(rng)
    round_one = a_mixture(process.VP(), means, weights, variances)
    covariances = jnp.asarray(variances[:, None, None] * np.eye(SIZE))
    full = gaussian_mixture(process.VP(), round_one.denoise.means, jnp.asarray(weights), covariances)
    x = jnp.asarray(rng.standard_normal(SHAPE))
    for t in TIMES:
        assert_allclose(full.denoise(x, t), round_one.denoise(x, t), rtol=1e-9, atol=1e-12)


def log_normal(x, mean, covariance):
    """`log N(x; mean, covariance)`, written out so that it can be differentiated."""
    r = x.ravel() - mean
    return -0.5 * r @ jnp.linalg.solve(covariance, r) - 0.5 * jnp.linalg.slogdet(2 * jnp.pi * covariance)[1]


@every_isotropic
def test_tweedie_for_the_gaussian(name, rng):
    law = gaussian_law(rng)
    prior, process = a_gaussian(PROCESSES[name], law), PROCESSES[name]
    for t in TIMES:
        alpha, sigma = process.alpha(t), process.sigma(t)
        x = alpha * law.mean.reshape(SHAPE) + sigma * rng.standard_normal(SHAPE)
        noisy = alpha**2 * law.covariance + sigma**2 * jnp.eye(SIZE)
        score = jax.grad(log_normal)(x, alpha * law.mean, noisy)
        assert_allclose(process.score(x, prior.denoise(x, t), t), score, rtol=1e-7, atol=1e-7 / sigma)


@every_isotropic
def test_tweedie_and_the_density_of_the_mixture(name, rng):
    means, weights, variances = mixture_law(rng)
    prior, process = a_mixture(PROCESSES[name], means, weights, variances), PROCESSES[name]
    for t in TIMES:
        alpha, sigma = process.alpha(t), process.sigma(t)
        spreads = [(alpha**2 * v + sigma**2) * jnp.eye(SIZE) for v in variances]

        def log_density(x, alpha=alpha, spreads=spreads):
            parts = [log_normal(x, alpha * m, spread) for m, spread in zip(means, spreads, strict=True)]
            return jax.nn.logsumexp(jnp.stack(parts), b=jnp.asarray(weights))

        x = alpha * means[1].reshape(SHAPE) + sigma * rng.standard_normal(SHAPE)
        value, score = jax.value_and_grad(log_density)(x)
        assert_allclose(process.score(x, prior.denoise(x, t), t), score, rtol=1e-7, atol=1e-7 / sigma)
        assert_allclose(prior.denoise.log_prob(x, t), value, rtol=1e-9)


def cosine_matrix(height, width):
    """Row-major 2-D orthonormal DCT as a matrix, from the cosines themselves."""
    line = lambda n: np.cos(np.pi * np.outer(np.arange(n), np.arange(n) + 0.5) / n)
    unit = lambda B: B / np.linalg.norm(B, axis=1, keepdims=True)
    return np.kron(unit(line(height)), unit(line(width)))


def test_spectral_prior_is_the_full_covariance_of_the_field(rng):
    spectrum, mean = rng.uniform(0.1, 2.0, (4, 3, 1)), rng.standard_normal((4, 3, 1))
    B = cosine_matrix(4, 3)
    dense = gaussian(process.VP(), jnp.asarray(mean), jnp.asarray(B.T @ np.diag(spectrum.ravel()) @ B))
    field = gaussian_field(process.VP(), jnp.asarray(mean), jnp.asarray(spectrum))
    x = jnp.asarray(rng.standard_normal((4, 3, 1)))
    for t in TIMES:
        assert_allclose(field.denoise(x, t), dense.denoise(x, t), rtol=1e-9, atol=1e-10)
    assert_allclose(field.denoise.log_prob(x), dense.denoise.log_prob(x), rtol=1e-9)


@pytest.mark.slow
def test_spectral_prior_covers_every_channel(rng):
    x = jnp.asarray(rng.standard_normal((4, 4, 3)))
    field = gaussian_field(process.VP(), jnp.zeros((4, 4, 3)), jnp.asarray(rng.uniform(0.1, 2.0, (4, 4, 1))))
    alone = field.denoise.replace(mean=jnp.zeros((4, 4, 1)))
    for c in range(3):
        assert_allclose(field.denoise(x, 0.5)[..., c : c + 1], alone(x[..., c : c + 1], 0.5), rtol=1e-12)
    apart = sum(alone.log_prob(x[..., c : c + 1]) for c in range(3))
    assert_allclose(field.denoise.log_prob(x), apart, rtol=1e-12)


@pytest.mark.parametrize("name", ["blurring", "heat"])
def test_blurred_prior_is_exact_in_the_coefficients(name, rng):
    """Per-coefficient alpha: the dense posterior of `z = diag(alpha) c + sigma n`."""
    process, mean, spectrum = PROCESSES[name], rng.standard_normal((8, 8, 1)), rng.uniform(0.1, 2.0, (8, 8, 1))
    denoise = GaussianDenoiser(process, dct_hw(jnp.asarray(mean)), jnp.asarray(spectrum))
    z = jnp.asarray(rng.standard_normal((8, 8, 1)))
    for t in (0.9, 0.3):
        A, sigma = np.diag(np.asarray(process.alpha(t)).ravel()), float(process.sigma(t))
        flat_mean, C = np.asarray(dct_hw(jnp.asarray(mean))).ravel(), np.diag(spectrum.ravel())
        exact = oracle.gaussian_posterior(flat_mean, C, A, np.asarray(z).ravel(), sigma)
        assert_allclose(denoise(z, t).ravel(), exact.mean, rtol=1e-8, atol=1e-8)


def test_finite_data_gives_the_weighted_mean_and_then_the_nearest(rng):
    data, flow = rng.standard_normal((5, *SHAPE)), process.Flow()
    prior = finite(flow, jnp.asarray(data))
    for t in (0.9, 0.3, 0.05):
        x = (1 - t) * data[2] + 0.3 * t * rng.standard_normal(SHAPE)
        logs = -0.5 * np.sum((x - (1 - t) * data) ** 2, (1, 2, 3)) / t**2
        weights = np.exp(logs - logs.max())
        exact = np.tensordot(weights / weights.sum(), data, 1)
        assert_allclose(prior.denoise(jnp.asarray(x), t), exact, rtol=1e-8, atol=1e-10)
    assert_allclose(prior.denoise((1 - 1e-3) * data[2], 1e-3), data[2], rtol=1e-14)
    assert_allclose(prior.denoise(jnp.asarray(rng.standard_normal(SHAPE)), 1.0), data.mean(0), rtol=1e-12)


@pytest.mark.parametrize("name", ["flow", "resshift"])
def test_where_the_signal_is_gone_the_answer_is_the_mean(name, rng):
    law = gaussian_law(rng)
    x = jnp.asarray(rng.standard_normal(SHAPE))
    assert_allclose(a_gaussian(PROCESSES[name], law).denoise(x, 1.0).ravel(), law.mean, rtol=1e-13)


@every_isotropic
def test_denoisers_stay_finite_in_single_precision(name, rng):
    with jax.enable_x64(False):
        process = jax.tree.map(lambda leaf: jnp.float32(leaf), PROCESSES[name])
        for prior in (a_gaussian(process, gaussian_law(rng)), a_mixture(process, *mixture_law(rng))):
            for t in (1.0, 0.5, 1e-2, 1e-3, 1e-5):
                x0 = prior.denoise(prior.start(jax.random.key(0), t), jnp.float32(t))
                assert x0.dtype == jnp.float32 and jnp.all(jnp.isfinite(x0))


def draws(prior, key, count):
    return np.asarray(jax.vmap(prior.denoise.sample)(jax.random.split(key, count))).reshape(count, -1)


def test_samples_have_the_gaussian_law(rng, key):
    law = gaussian_law(rng)
    errors = oracle.moment_errors(draws(a_gaussian(process.VP(), law), key, 4000), law)
    assert max(errors) < 4.5


def test_samples_have_the_law_of_the_field(rng, key):
    spectrum, B = rng.uniform(0.1, 2.0, (4, 3, 1)), cosine_matrix(4, 3)
    field = gaussian_field(process.VP(), jnp.ones((4, 3, 1)), jnp.asarray(spectrum))
    law = oracle.Law(np.ones(12), B.T @ np.diag(spectrum.ravel()) @ B)
    assert max(oracle.moment_errors(draws(field, key, 4000), law)) < 4.5


def test_samples_have_the_mixture_law(rng, key):
    means, weights, variances = mixture_law(rng)
    mean = weights @ means
    spread = (weights[:, None] * (means - mean)).T @ (means - mean) + weights @ variances * np.eye(SIZE)
    x = draws(a_mixture(process.VP(), means, weights, variances), key, 4000)
    errors = np.abs(x.mean(0) - mean) / np.sqrt(np.diag(spread) / 4000)
    products = np.einsum("ni,nj->nij", x - mean, x - mean)
    assert errors.max() < 4.5
    assert np.all(np.abs(products.mean(0) - spread) < 4.5 * products.std(0) / np.sqrt(4000))


def test_samples_have_the_law_of_the_full_mixture(rng, key):
    prior, means, weights, covariances = a_full_mixture(process.VP(), rng)
    mean = weights @ means
    inside = np.einsum("k,kij->ij", weights, covariances)
    covariance = inside + np.einsum("k,ki,kj->ij", weights, means - mean, means - mean)
    samples = np.asarray(draws(prior, key, 40_000))
    assert max(oracle.moment_errors(samples, oracle.Law(mean, covariance))) < 5


def test_samples_of_finite_data_are_its_members(rng, key):
    data = rng.standard_normal((3, *SHAPE))
    x = draws(finite(process.VP(), jnp.asarray(data)), key, 300)
    which = np.argmin(np.sum((x[:, None] - data.reshape(3, -1)) ** 2, -1), 1)
    assert_array_equal(x, data.reshape(3, -1)[which])
    assert np.all(np.abs(np.bincount(which) - 100) < 4.5 * np.sqrt(300 * 2 / 9))


def test_log_densities_of_clean_samples(rng):
    law, x = gaussian_law(rng), rng.standard_normal(SIZE)
    exact = multivariate_normal(law.mean, law.covariance).logpdf(x)
    assert_allclose(a_gaussian(process.VP(), law).denoise.log_prob(x.reshape(SHAPE)), exact, rtol=1e-10)
    means, weights, variances = mixture_law(rng)
    parts = [w * multivariate_normal(m, v).pdf(x) for m, w, v in zip(means, weights, variances, strict=True)]
    value = a_mixture(process.VP(), means, weights, variances).denoise.log_prob(x.reshape(SHAPE))
    assert_allclose(value, np.log(sum(parts)), rtol=1e-10)


@every_isotropic
def test_the_start_is_noise_of_the_level_of_its_time(name, key):
    prior = Prior(PROCESSES[name], None, (30, 30, 2))
    for t in (1.0, 0.3):
        x = prior.start(key, t) / prior.process.sigma(t)
        assert x.shape == (30, 30, 2)
        assert abs(x.mean()) < 4.5 / np.sqrt(1800) and abs(x.var() - 1) < 4.5 * np.sqrt(2 / 1800)
    with jax.enable_x64(False):
        assert Prior(process.VP(), None, (3,)).start(key, jnp.float32(1.0)).dtype == jnp.float32


def test_conditions_reach_the_network_by_name():
    network = lambda params, x, condition, shift=0.0, scale=1.0: scale * x + shift
    prior = Prior(process.VP(), NetworkDenoiser((), process.VP(), network, "x0"), (3,))
    conditioned = prior.given(shift=2.0).given(scale=3.0)
    assert_array_equal(conditioned.denoise(jnp.ones(3), 0.5), np.full(3, 5.0))
    assert_array_equal(prior.denoise(jnp.ones(3), 0.5), np.ones(3))
    assert conditioned.predict(jnp.ones(3), 0.5).v is None


def test_a_prior_is_a_pytree_whose_parameters_are_leaves(rng):
    """`jit` sees new parameters, means and process constants without a new trace."""
    traces, law = [], gaussian_law(rng)

    @jax.jit
    def run(prior, x):
        traces.append(1)
        return prior.denoise(x, 0.5)

    prior, x = a_gaussian(process.VP(), law), jnp.zeros(SHAPE)
    first = run(prior, x)
    second = run(prior.replace(denoise=prior.denoise.replace(mean=2 * prior.denoise.mean)), x)
    third = run(a_gaussian(process.VP(beta_max=10.0), law), x)
    assert len(traces) == 1
    assert_allclose(second, 2 * first, rtol=1e-12)
    assert jnp.max(jnp.abs(third - first)) > 1e-3


def test_mistakes_are_named():
    vp, mean = process.VP(), jnp.zeros(SHAPE)
    with pytest.raises(ValueError, match=r"covariance has shape \(5, 5\); a mean of \(2, 3, 1\) needs \(6, 6\)"):
        gaussian(vp, mean, jnp.eye(5))
    with pytest.raises(ValueError, match="2 means, 3 weights and 2 variances: give K of each"):
        mixture(vp, jnp.zeros((2, 3)), jnp.ones(3), jnp.ones(2))
    with pytest.raises(ValueError, match=r"give K of each, covariances \(3, 3\)"):
        gaussian_mixture(vp, jnp.zeros((2, 3)), jnp.ones(2), jnp.ones((2, 4, 4)))
    with pytest.raises(TypeError, match="GaussianDenoiser takes no condition; use a NetworkDenoiser"):
        gaussian(vp, mean, jnp.eye(6)).given(label=1)


@pytest.mark.parametrize("compiled", [False, True])
def test_mixture_distances_are_exact_at_little_noise_in_float32(compiled, rng):
    """12288 numbers at t = 1e-3: a product of x and m is as large as 1e8 times the variance that it is divided by."""
    vp, t = process.VP(), 1e-3
    alpha, sigma = float(vp.alpha(t)), float(vp.sigma(t))
    first = rng.uniform(-1, 1, (64, 64, 3))
    data = np.stack([first, first + 2.6e-4 * rng.standard_normal(first.shape), rng.uniform(-1, 1, first.shape)])
    data = data.astype(np.float32)
    x = (alpha * data[1] + sigma * rng.standard_normal(first.shape)).astype(np.float32)
    square = np.sum((x[None].astype(np.float64) - alpha * data) ** 2, axis=(1, 2, 3))
    exact = -0.5 * square / sigma**2 - 0.5 * x.size * np.log(2 * np.pi * sigma**2) - np.log(3)
    shares = np.exp(exact - exact.max()) / np.sum(np.exp(exact - exact.max()))
    assert 1e-3 < shares[0] < 0.1
    with jax.enable_x64(False):
        denoise = finite(vp, jnp.asarray(data)).denoise
        tell = lambda x, t: (denoise.log_prob(x, t), denoise.responsibilities(x, t))
        log_prob, found = (jax.jit(tell) if compiled else tell)(jnp.asarray(x), jnp.float32(t))
    assert_allclose(log_prob, exact.max() + np.log(np.sum(np.exp(exact - exact.max()))), rtol=1e-6)
    assert_allclose(found, shares, atol=2e-3)


def test_both_forms_of_the_distance_and_their_gradients_agree(rng):
    """Spreads on either side of the choice, in float32."""
    x, centres = (jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in ((3, 4), (5, 3, 4)))
    exact = np.sum((np.float64(x)[None] - 0.7 * np.float64(centres)) ** 2, axis=(1, 2))
    form = jax.jit(jax.vmap(lambda spread: square_distances(x, centres, 0.7, jnp.full(5, spread, jnp.float32))))
    slope = jax.jit(jax.grad(lambda x, spread: square_distances(x, centres, 0.7, spread)[2]))
    assert_allclose(form(jnp.asarray([1.0, 1e-6], jnp.float32)), np.stack([exact, exact]), rtol=1e-5)
    for spread in (1.0, 1e-6):
        assert_allclose(slope(x, jnp.full(5, spread, jnp.float32)), 2 * (x - 0.7 * centres[2]), rtol=1e-4, atol=1e-5)


def test_a_mixture_is_exact_under_a_blurring_process(rng):
    """Coordinates have spreads of their own; one component is the Gaussian denoiser."""
    blurring, x = PROCESSES["blurring"], jnp.asarray(rng.standard_normal((8, 8, 2)))
    means, variances = jnp.asarray(rng.standard_normal((2, 8, 8, 2))), np.array([0.5, 0.2])
    alone = mixture(blurring, means[:1], jnp.ones(1), jnp.asarray(variances[:1]))
    field = GaussianDenoiser(blurring, means[0], jnp.full((8, 8, 2), 0.5))
    both = mixture(blurring, means, jnp.asarray([0.3, 0.7]), jnp.asarray(variances)).denoise
    for t in (0.9, 0.3):
        assert_allclose(alone.denoise(x, t), field(x, t), rtol=1e-10)
        alpha, sigma = np.asarray(blurring.alpha(t)), np.asarray(blurring.sigma(t))
        laws = [(alpha * m, alpha**2 * v + sigma**2) for m, v in zip(np.asarray(means), variances)]
        terms = [-0.5 * np.sum((np.asarray(x) - m) ** 2 / s + np.log(2 * np.pi * s)) for m, s in laws]
        terms = np.log([0.3, 0.7]) + np.array(terms)
        assert_allclose(both.log_prob(x, t), np.logaddexp(*terms), rtol=1e-11)
        shares = np.exp(terms - np.logaddexp(*terms))
        parts = [GaussianDenoiser(blurring, m, jnp.full((8, 8, 2), v))(x, t) for m, v in zip(means, variances)]
        assert_allclose(both(x, t), shares[0] * parts[0] + shares[1] * parts[1], rtol=1e-9)


def test_laws_that_no_blurring_process_has_are_refused():
    blurring = PROCESSES["blurring"]
    with pytest.raises(ValueError, match=r"an alpha of shape \(8, 8, 1\); gaussian needs an isotropic one"):
        gaussian(blurring, jnp.zeros((8, 8, 1)), jnp.eye(64))
    with pytest.raises(ValueError, match="gaussian_mixture needs an isotropic one: use mixture"):
        gaussian_mixture(blurring, jnp.zeros((2, 64)), jnp.ones(2), jnp.stack([jnp.eye(64)] * 2))


@pytest.mark.parametrize("parametrisation", ["eps", "score"])
@pytest.mark.parametrize("name", ["flow", "resshift", "ctmsr"])
def test_a_network_that_says_nothing_of_x0_where_alpha_is_0_is_taken_in_its_limit(name, parametrisation):
    """At t = 1 it was 0/0. In float32 the limit holds to the rounding of eps, a thousandfold."""
    forward, mean = PROCESSES[name], jnp.asarray([0.3, -0.2, 0.5], jnp.float32)
    with jax.enable_x64(False):
        law = gaussian(forward, mean, 0.25 * jnp.eye(3))
        tell = forward.noise if parametrisation == "eps" else forward.score
        network = NetworkDenoiser(
            {}, forward, lambda _, x, t: tell(x, law.denoise(x, t), t), parametrisation, lambda process, t: t
        )
        x0 = network(law.start(jax.random.key(0)), 1.0)
    assert_allclose(x0, mean, atol=3e-3)
