"""Codes of unit variance and priors over them; a linear autoencoder, whose posteriors are known, as the oracle."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from flax import linen as nn

import diffinv as di
from diffinv import charts, codec, posterior, process, times
from diffinv.operators.base import dense
from diffinv.posterior import moments

SHAPE, CODES = (4, 4, 1), (2, 2, 2)
RNG = np.random.default_rng(0)
MIX = np.linalg.qr(RNG.standard_normal((16, 8)))[0]
UNSEEN = np.eye(16) - MIX @ MIX.T  # pictures that no code decodes to
SHIFT, SCALE = np.asarray([0.5, -1.0]), np.asarray([2.0, 0.25])


class Linear(nn.Module):
    """Codes are 8 orthonormal coefficients of a picture of 4 x 4, in two channels."""

    factor, code_channels = 2, 2

    def setup(self):
        self.mix = self.param("mix", lambda key: jnp.asarray(MIX))

    def encode(self, x):
        mean = (self.mix.T @ x.ravel()).reshape(CODES)
        return mean, jnp.full(CODES, -jnp.inf)

    def decode(self, z):
        return (self.mix @ z.ravel()).reshape(SHAPE)


def coder(shift=SHIFT, scale=SCALE):
    codes = {"shift": jnp.asarray(shift), "scale": jnp.asarray(scale)}
    return codec.Codec({"params": {"mix": jnp.asarray(MIX)}, "codes": codes}, Linear(), SHAPE)


def law():
    """Of codes: mean and covariance."""
    return oracle.Law(
        np.random.default_rng(4).standard_normal(8), oracle.random_covariance(np.random.default_rng(1), 8)
    )


def latent(found, codes):
    return codec.LatentPrior(di.gaussian(process.VP(), codes.mean.reshape(CODES), jnp.asarray(codes.covariance)), found)


def matrix(found, operator):
    """`A decode` of the codes, and its value at 0."""
    decode = lambda z: operator(found.decode(z.reshape(CODES)))
    return np.asarray(jax.jacobian(decode)(jnp.zeros(8))), np.asarray(decode(jnp.zeros(8)))


def test_codes_are_shifted_and_scaled_channel_by_channel():
    found = coder()
    x = jnp.asarray(RNG.standard_normal(SHAPE))
    raw = (MIX.T @ np.asarray(x).ravel()).reshape(CODES)
    z = found.encode(x)
    np.testing.assert_allclose(z, (raw - SHIFT) * SCALE, rtol=1e-12)
    np.testing.assert_allclose(found.decode(z).ravel(), MIX @ raw.ravel(), rtol=1e-12)
    np.testing.assert_allclose(found.encode(found.decode(z)), z, rtol=1e-12)
    assert found.shape == CODES and found.chart().shape == CODES


def test_standard_codes_of_numbers_and_of_channels():
    numbers = codec.standard(3, 0.5, 0.18215)
    assert {name: leaf.shape for name, leaf in numbers.items()} == {"shift": (3,), "scale": (3,)}
    assert {leaf.dtype for leaf in numbers.values()} == {jnp.dtype("float32")}
    np.testing.assert_allclose(numbers["scale"], np.float32(0.18215))
    np.testing.assert_array_equal(codec.standard(2, jnp.asarray([1.0, 2.0], jnp.float32))["shift"], [1, 2])


def test_weights_are_arguments_of_a_compiled_program():
    """Another autoencoder of the same network is not another program, and its chart holds the new weights."""
    traces = []

    def reconstruct(found, x):
        traces.append(1)
        chart = found.chart()
        return chart.decode(chart.encode(x) + 1)

    run, x = jax.jit(reconstruct), jnp.ones(SHAPE)
    first, second = run(coder(), x), run(coder(scale=2 * SCALE), x)
    assert len(traces) == 1
    np.testing.assert_allclose(np.asarray(first - second).ravel(), MIX @ np.tile(1 / SCALE - 0.5 / SCALE, 4), rtol=1e-9)


def test_pairs_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"picture is \(5, 4, 1\); its sides must be multiples of 2"):
        codec.Codec({}, Linear(), (5, 4, 1))
    with pytest.raises(ValueError, match=r"prior is of shape \(2, 2, 1\) and the codes are \(2, 2, 2\)"):
        codec.LatentPrior(di.gaussian(process.VP(), jnp.zeros((2, 2, 1)), jnp.eye(4)), coder())


def test_a_latent_prior_is_of_pictures_under_the_process_of_its_codes():
    found = latent(coder(), law())
    assert found.shape == SHAPE and found.process == process.VP()


def test_a_guided_prior_in_codes_has_the_posterior_mean(key):
    """With the promise that decode is linear plus a constant, which here is not 0: `E[z_0 | z_t, y]` in closed form."""
    found, codes, A = coder(), law(), dense(RNG.standard_normal((5, 16)), SHAPE)
    prior = latent(found, codes).prior
    measurement = di.measure(key, A, found.decode(jnp.ones(CODES)), 0.3)
    pulled = charts.pull_back(found.chart()._replace(linear=True), measurement)
    M, origin = matrix(found, A)
    assert np.abs(origin).max() > 0.1
    z, t = jnp.asarray(RNG.standard_normal(CODES)), 0.4
    alpha, sigma = (float(level(t)) for level in (prior.process.alpha, prior.process.sigma))
    rows = np.concatenate([M / 0.3, alpha / sigma * np.eye(8)])
    seen = np.concatenate([(np.asarray(measurement.y) - origin) / 0.3, np.asarray(z).ravel() / sigma])
    precision = np.linalg.inv(codes.covariance)
    exact = np.linalg.solve(precision + rows.T @ rows, precision @ codes.mean + rows.T @ seen)
    given = jax.jit(lambda z: posterior.tmpd(prior, pulled, moments.exact).denoise(z, t))(z)
    np.testing.assert_allclose(np.asarray(given).ravel(), exact, rtol=1e-8)


def recovered(method, sigma, grid, **settings):
    """The code that a method finds, the true one and the one that fits y best."""
    generator = np.random.default_rng(3)
    left, right = (np.linalg.qr(generator.standard_normal((size, 8)))[0] for size in (10, 8))
    A = dense(left * np.linspace(0.5, 1, 8) @ right @ MIX.T + generator.standard_normal((10, 16)) @ UNSEEN, SHAPE)
    found, codes = coder(np.zeros(2), np.ones(2)), law()
    truth = codes.mean + np.linalg.cholesky(codes.covariance) @ np.random.default_rng(2).standard_normal(8)
    measurement = di.measure(jax.random.key(1), A, found.decode(jnp.asarray(truth).reshape(CODES)), sigma)
    prior = latent(found, codes).prior
    solver = di.as_solver(lambda m: method(prior, m, found.chart(), **settings), grid)
    z = found.encode(jax.jit(solver)(jax.random.key(0), measurement).x)
    best = np.linalg.lstsq(matrix(found, A)[0], np.asarray(measurement.y), rcond=None)[0]
    return np.asarray(z).ravel(), truth, best


def test_psld_finds_the_code_that_a_clean_measurement_determines():
    """Rout et al. 2023, theorem 3.4: the posterior is a point. Steps are of fixed length: so is the error."""
    errors = []
    for steps, step in ((200, 0.2), (800, 0.05)):
        z, truth, _ = recovered(posterior.psld, 0.0, times.grid(steps), gamma=step, omega=step)
        errors.append(np.linalg.norm(z - truth))
    assert np.linalg.norm(truth) > 1 and errors[0] < 0.3 and errors[1] < 0.25 * errors[0]


def test_resample_ends_at_the_code_that_fits_best():
    """Its last optimisation: least squares in codes, noise and all."""
    options = {"every": 5, "iterations": 600, "lr": 0.02, "pixel_iterations": 50}
    z, truth, best = recovered(posterior.resample, 0.1, times.grid(12), **options)
    assert np.linalg.norm(z - best) < 1e-9 and np.linalg.norm(truth - best) > 0.05


def test_within_a_latent_chart_a_sampler_draws_the_decoded_law(key):
    """No measurement: the deterministic map of the ODE, decoded, is that of the codes."""
    found, codes = coder(), law()
    prior = latent(found, codes)
    nothing = di.Measurement(dense(np.zeros((1, 16)), SHAPE), jnp.zeros(1), di.GaussianNoise(1.0))
    grid, z = times.grid(5), jnp.asarray(RNG.standard_normal(CODES))
    solver = di.as_solver(charts.within(found.chart(), lambda m: di.samplers.ddim(prior.prior)), grid)
    by_hand = found.decode(di.sample(key, di.samplers.ddim(prior.prior), grid, z).x)
    np.testing.assert_allclose(solver(key, nothing, z).x, by_hand, rtol=1e-12)
