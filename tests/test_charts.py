"""Charts: codes and pictures, measurements seen from codes, and plain processes that become the papers' own."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from compiling import OPTIMISED
from numpy.testing import assert_allclose, assert_array_equal
from registries import FREQUENCIES

from diffinv import charts, linalg, process, samplers, times
from diffinv.denoisers.exact import GaussianDenoiser, gaussian
from diffinv.loop import as_solver, sample
from diffinv.measurement import GaussianNoise, Measurement, PoissonNoise, measure
from diffinv.operators.base import LinearOperator, Operator, dense
from diffinv.operators.pixel import identity
from diffinv.posterior import dps
from diffinv.prior import Prior

SHAPE = (4, 4, 2)
RNG = np.random.default_rng(0)
OFFSET = jnp.asarray(RNG.standard_normal(SHAPE))
MIX = jnp.asarray(RNG.standard_normal((6, 32)))

CHARTS = {
    "dct": charts.dct(SHAPE),
    "shift": charts.shift(OFFSET),
    "upsample": charts.upsample(SHAPE, 2),
    "latent": charts.latent(
        lambda x: jnp.arcsinh(jnp.linalg.pinv(MIX.T) @ x.ravel()), lambda z: (jnp.sinh(z) @ MIX).reshape(SHAPE), (6,)
    ),
}
LINEAR = [name for name, chart in CHARTS.items() if chart.linear]
every_chart = pytest.mark.parametrize("name", CHARTS)


@pytest.fixture
def operator():
    return dense(RNG.standard_normal((5, 32)), SHAPE)


def code(chart, seed=1):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(chart.shape))


@every_chart
def test_encoding_a_decoded_code_gives_it_back(name):
    chart = CHARTS[name]
    x = chart.decode(code(chart))
    assert x.shape == SHAPE
    assert_allclose(chart.encode(x), code(chart), atol=1e-9)
    assert_allclose(chart.decode(chart.encode(x)), x, atol=1e-9)


def test_upsample_repeats_and_averages_blocks():
    x = jnp.arange(16.0).reshape(4, 4, 1)
    chart = charts.upsample((4, 4, 1), 2)
    assert_array_equal(chart.encode(x)[..., 0], [[2.5, 4.5], [10.5, 12.5]])
    assert_array_equal(chart.decode(chart.encode(x))[:2, :2, 0], np.full((2, 2), 2.5))
    with pytest.raises(ValueError, match="factor is 3; it must divide 4 and 4"):
        charts.upsample((4, 4, 1), 3)


def test_the_dct_chart_is_an_isometry():
    chart, a, b = CHARTS["dct"], code(CHARTS["dct"], 1), code(CHARTS["dct"], 2)
    assert_allclose(linalg.inner(chart.decode(a), chart.decode(b)), linalg.inner(a, b), rtol=1e-12)


@every_chart
def test_a_pulled_back_measurement_sees_the_picture(name, operator, key):
    chart = CHARTS[name]
    measurement = measure(key, operator, OFFSET, 0.1)
    seen = charts.pull_back(chart, measurement)
    assert seen.operator.shape == chart.shape
    assert isinstance(seen.operator, LinearOperator) == (name in LINEAR)
    z = code(chart)
    assert_allclose(seen.residual(z), measurement.residual(chart.decode(z)), rtol=1e-10, atol=1e-10)
    assert_allclose(seen.log_likelihood(z), measurement.log_likelihood(chart.decode(z)), rtol=1e-10)
    assert_allclose(seen.operator.project(seen.y), measurement.operator.project(seen.y), atol=1e-6)


@pytest.mark.parametrize("name", LINEAR)
def test_a_pulled_back_operator_is_linear_with_its_adjoint_and_solve(name, operator, key):
    chart = CHARTS[name]
    A = charts.pull_back(chart, measure(key, operator, OFFSET)).operator
    z, v = code(chart), jnp.asarray(RNG.standard_normal(5))
    assert_allclose(linalg.norm(A(jnp.zeros(chart.shape))), 0.0, atol=1e-13)
    assert_allclose(linalg.inner(A(z), v), linalg.inner(z, A.adjoint(v)), rtol=1e-11)
    M = oracle.matrix(A)
    assert_allclose(A.solve(v, 0.3), np.linalg.solve(M @ M.T + 0.3 * np.eye(5), v), rtol=1e-8)
    assert_allclose(A.pinv(v).ravel(), np.linalg.pinv(M) @ v, rtol=1e-6, atol=1e-8)


def test_a_linear_decode_puts_its_constant_into_y(operator, key):
    measurement = measure(key, operator, OFFSET)
    seen = charts.pull_back(CHARTS["shift"], measurement)
    assert_allclose(seen.y, measurement.y - operator(OFFSET), atol=1e-12)
    assert_array_equal(charts.pull_back(CHARTS["dct"], measurement).y, measurement.y)


def test_a_law_that_is_not_gaussian_moves_with_y(key):
    """Counts about a picture: the likelihood in codes is that of the pictures, and so is the deviation."""
    noise = PoissonNoise(30.0)
    measurement = measure(key, identity(SHAPE), jnp.tanh(OFFSET), noise=noise)
    for chart in (CHARTS["shift"], CHARTS["dct"]):
        seen = charts.pull_back(chart, measurement)
        assert isinstance(seen.operator, LinearOperator)
        for x in (jnp.tanh(OFFSET), jnp.zeros(SHAPE)):
            assert_allclose(seen.log_likelihood(chart.encode(x)), measurement.log_likelihood(x), rtol=1e-12)
        assert_allclose(seen.sigma, measurement.sigma)
    moved = charts.pull_back(CHARTS["shift"], measurement).noise.sample(key, jnp.zeros(SHAPE))
    assert_allclose(moved, noise.sample(key, OFFSET) - OFFSET, rtol=1e-12)
    assert charts.pull_back(CHARTS["shift"], measure(key, identity(SHAPE), OFFSET)).noise == GaussianNoise(0.0)


class Square(Operator):
    """A measurement that is not linear: its pull-back cannot be, either."""

    shape = SHAPE

    def __call__(self, x):
        return x.ravel() ** 2


def test_an_operator_that_is_not_linear_stays_so():
    measurement = Measurement(Square(), jnp.ones(32), GaussianNoise(0.1))
    seen = charts.pull_back(CHARTS["shift"], measurement)
    assert not isinstance(seen.operator, LinearOperator)
    assert_array_equal(seen.y, measurement.y)
    assert_allclose(seen.residual(jnp.ones(SHAPE)), 1 - (1 + OFFSET.ravel()) ** 2, rtol=1e-12)


def codes_prior(chart, p=None):
    size = int(np.prod(chart.shape))
    return gaussian(p or process.VP(), jnp.zeros(chart.shape), 0.5 * jnp.eye(size))


@every_chart
def test_within_runs_in_codes_and_returns_a_picture(name, operator, key):
    chart, grid = CHARTS[name], times.grid(6)
    measurement, prior = measure(key, operator, OFFSET, 0.1), codes_prior(CHARTS[name])
    method = lambda m: dps(prior, m, 0.1)
    solution = as_solver(charts.within(chart, method), grid)(key, measurement)
    by_hand = sample(key, method(charts.pull_back(chart, measurement)), grid)
    assert_array_equal(solution.x, chart.decode(by_hand.x))
    assert_array_equal(solution.info.residual, by_hand.info.residual)


def test_within_encodes_a_picture_and_takes_a_code_as_it_is(operator, key):
    chart, grid = CHARTS["upsample"], times.grid(3)
    solver = as_solver(charts.within(chart, lambda m: samplers.ddim(codes_prior(chart))), grid)
    z = code(chart)
    measurement = measure(key, operator, OFFSET)
    assert_allclose(solver(key, measurement, chart.decode(z)).x, solver(key, measurement, z).x, atol=1e-12)
    by_hand = sample(key, samplers.ddim(codes_prior(chart)), grid, z).x
    assert_allclose(solver(key, measurement, z).x, chart.decode(by_hand), atol=1e-12)


def test_a_linear_method_keeps_its_exactness_in_a_chart(key):
    """Closed form: the posterior mean in DCT codes, decoded, is that in pixels."""
    A = dense(RNG.standard_normal((3, 16)), (4, 4, 1))
    chart, measurement = charts.dct((4, 4, 1)), measure(key, A, OFFSET[..., :1], 0.2)
    mean = lambda m: m.operator.adjoint(m.operator.solve(m.y, 0.2**2))
    assert_allclose(chart.decode(mean(charts.pull_back(chart, measurement))), mean(measurement), rtol=1e-8, atol=1e-9)


def test_a_blurred_prior_is_not_encoded():
    blurring = process.Blurring(FREQUENCIES)
    prior = Prior(blurring, GaussianDenoiser(blurring, jnp.zeros((8, 8, 1)), jnp.ones(1)), (8, 8, 1))
    with pytest.raises(ValueError, match="charts.encoded needs an isotropic one: use a prior over the codes"):
        charts.encoded(charts.dct((8, 8, 1)), prior)


def test_an_encoded_prior_is_the_prior(key):
    """An orthonormal chart: the same trajectories, seen from codes, and parameters that are leaves."""
    shape, grid = (4, 4, 1), times.grid(8)
    prior = gaussian(process.VP(), OFFSET[..., :1], jnp.asarray(oracle.random_covariance(RNG, 16)))
    chart, x = charts.dct(shape), jnp.asarray(RNG.standard_normal(shape))
    seen = charts.encoded(chart, prior)
    z = sample(key, samplers.heun(seen), grid, chart.encode(x)).x
    assert_allclose(chart.decode(z), sample(key, samplers.heun(prior), grid, x).x, atol=1e-10)
    assert seen.shape == shape and len(jax.tree.leaves(seen.denoise)) == len(jax.tree.leaves(prior))


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["ddim", "ancestral"])
def test_blurring_diffusion_generates_the_field(sampler, key):
    """An exact field prior in DCT codes; in pixels, mean and full covariance of 3000 draws by 150 steps."""
    shape = (8, 8, 1)
    blurring = process.Blurring(FREQUENCIES, sigma_blur=4.0)
    spectrum = 1.0 / (1.0 + FREQUENCIES)
    mean = jnp.asarray(RNG.standard_normal(shape))
    prior = Prior(blurring, GaussianDenoiser(blurring, linalg.dct_hw(mean), spectrum), shape)
    method = charts.within(charts.dct(shape), lambda _: getattr(samplers, sampler)(prior))
    nothing = Measurement(dense(np.zeros((1, 64)), shape), jnp.zeros(1), GaussianNoise(1.0))
    solver = as_solver(method, times.grid(150, power=1.5))
    run = jax.jit(jax.vmap(lambda k: solver(k, nothing).x), compiler_options=OPTIMISED)
    x = np.asarray(run(jax.random.split(key, 3000))).reshape(3000, 64)
    basis = np.asarray(jax.vmap(linalg.dct_hw)(jnp.eye(64).reshape(64, *shape))).reshape(64, 64)
    law = oracle.Law(np.asarray(mean).ravel(), basis @ np.diag(np.asarray(spectrum).ravel()) @ basis.T)
    assert max(oracle.moment_errors(x, law)) < 5


@pytest.mark.parametrize(("kappa", "power"), [(2.0, 0.5), (1.0, 1.0)])
def test_residual_shift_in_its_chart_is_the_paper_line(kappa, power):
    """Yue et al. 2023, eq. 2, and CTMSR: `x_t = x0 + t (y - x0) + kappa t^power eps`."""
    shifted, chart = process.ResidualShift(kappa, power), charts.shift(OFFSET)
    x0, eps = (jnp.asarray(RNG.standard_normal(SHAPE)) for _ in range(2))
    for t in (0.0, 0.3, 1.0):
        x_t = chart.decode(shifted.perturb(chart.encode(x0), t).at(eps))
        assert_allclose(x_t, x0 + t * (OFFSET - x0) + kappa * t**power * eps, rtol=1e-12, atol=1e-12)


def test_residual_shift_starts_at_the_low_resolution_picture(key):
    """Its noisy end is `y + kappa eps`, and an exact denoiser brings it back to the prior's law."""
    shifted, y = process.ResidualShift(0.5), jnp.full((2, 2, 1), 3.0)
    chart = charts.shift(y)
    prior = gaussian(shifted, chart.encode(jnp.ones((2, 2, 1))), 0.3 * jnp.eye(4))
    starts = np.asarray(jax.vmap(lambda k: chart.decode(prior.start(k)))(jax.random.split(key, 3000))).reshape(3000, 4)
    assert max(oracle.moment_errors(starts, oracle.Law(np.full(4, 3.0), 0.25 * np.eye(4)))) < 4.5
    run = jax.jit(jax.vmap(lambda k: chart.decode(sample(k, samplers.heun(prior), times.grid(30)).x)))
    x = np.asarray(run(jax.random.split(key, 3000))).reshape(3000, 4)
    assert max(oracle.moment_errors(x, oracle.Law(np.ones(4), 0.3 * np.eye(4)))) < 4.5


def endpoint(forward, mean, variance):
    """Where the probability-flow ODE from time t ends, for N(mean, variance I): a consistency model in closed form."""

    def to_the_end(x, t):
        alpha, sigma = forward.alpha(t), forward.sigma(t)
        return mean + (x - alpha * mean) * jnp.sqrt(variance / (alpha**2 * variance + sigma**2))

    return Prior(forward, to_the_end, SHAPE)


@pytest.mark.parametrize("forward", [process.EDM(), process.VP(), process.Flow()], ids=lambda p: type(p).__name__)
def test_a_generators_codes_are_standard_normal(forward, key):
    """`decode` is `renoise` in one step, and its Jacobian J has `J J^T = v sigma^2 / (alpha^2 v + sigma^2) I`."""
    prior = endpoint(forward, OFFSET, 0.3)
    chart = charts.generated(prior)
    one = sample(key, samplers.renoise(prior), jnp.asarray([1.0, 0.0]), forward.sigma(1.0) * code(chart)).x
    assert_allclose(chart.decode(code(chart)), one, rtol=1e-12)
    J = jax.jacobian(chart.decode)(code(chart)).reshape(32, 32)
    alpha, sigma = forward.alpha(1.0), forward.sigma(1.0)
    assert_allclose(J @ J.T, 0.3 * sigma**2 / (alpha**2 * 0.3 + sigma**2) * np.eye(32), atol=1e-12)


def test_a_generator_only_decodes(key):
    with pytest.raises(ValueError, match=r"no encoder for x of shape \(4, 4, 2\)"):
        charts.generated(endpoint(process.EDM(), OFFSET, 0.3)).encode(OFFSET)
    with pytest.raises(ValueError, match="a law to start from"):
        law = GaussianDenoiser(process.EDM(), OFFSET, jnp.ones(SHAPE))
        charts.generated(Prior(process.EDM(), law, SHAPE, law))
    frequencies = process.dct_frequencies(4, 4)
    with pytest.raises(ValueError, match="noise"):
        charts.generated(Prior(process.HeatDissipation(frequencies), lambda x, t: x, SHAPE))
