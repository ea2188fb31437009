"""Processes: the laws that hold for every one of them, and the papers' own formulas for each."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from registries import FREQUENCIES, ISOTROPIC, PROCESSES, in_dtype

from diffinv import process, times
from diffinv.prior import PARAMETRISATIONS, PRECONDITIONED, NetworkDenoiser

TIMES = (1.0, 0.999, 0.7, 0.5, 0.1, 1e-3, 0.0)
PAIRS = [(t, s) for t in TIMES for s in TIMES if s < t]
INSIDE = [(t, s) for t, s in PAIRS if s > 0]
every_process = pytest.mark.parametrize("name", PROCESSES)


@pytest.fixture
def pictures():
    """A clean sample, noise, and an unrelated state, (8, 8, 2)."""
    return jnp.asarray(np.random.default_rng(0).standard_normal((3, 8, 8, 2)))


def keep(process, t, s, eta):
    """The coefficient of `x_t - alpha_t x_0` in the reverse step."""
    return process.transition(jnp.ones((8, 8, 1)), jnp.zeros((8, 8, 1)), t, s, eta).mean


@pytest.mark.parametrize("eta", [1.0, 0.4, 0.0])
@every_process
def test_transition_after_perturb_gives_perturb(name, eta, pictures):
    process, (x0, _, _) = PROCESSES[name], pictures
    for t, s in PAIRS:
        there, expected = process.perturb(x0, t), process.perturb(x0, s)
        back = process.transition(there.mean, x0, t, s, eta)
        variance = (keep(process, t, s, eta) * there.std) ** 2 + back.std**2
        assert_allclose(back.mean, expected.mean, rtol=1e-12, atol=1e-12)
        assert_allclose(variance, jnp.broadcast_to(expected.std**2, variance.shape), rtol=1e-12)


@every_process
def test_a_step_from_t_to_t_is_the_identity(name, pictures):
    """Also at the ends, where `log sigma` or `log alpha` is minus infinity."""
    process, (x0, _, x) = PROCESSES[name], pictures
    for t in (1.0, 0.5, 0.0):
        for step in (process.transition(x, x0, t, t), process.transition(x, x0, t, t, 0.4), process.forward(x, t, t)):
            assert_array_equal(step.mean, x)
            assert_array_equal(step.std, jnp.zeros_like(step.std))


@every_process
def test_ancestral_step_is_bayes_of_the_forward_kernels(name):
    """`Cov(x_s, x_t)` of the reverse step is that of the forward chain, `(alpha_t / alpha_s) sigma_s^2`."""
    process = PROCESSES[name]
    for t, s in INSIDE:
        ratio = process.forward(jnp.ones((8, 8, 1)), s, t).mean
        covariance = keep(process, t, s, 1.0) * process.sigma(t) ** 2
        assert_allclose(covariance, ratio * process.sigma(s) ** 2, rtol=1e-11, atol=1e-16)


@every_process
def test_forward_kernels_compose(name, pictures):
    process, (x0, _, _) = PROCESSES[name], pictures
    for t, s in PAIRS:
        first, expected = process.perturb(x0, s), process.perturb(x0, t)
        then = process.forward(first.mean, s, t)
        ratio = process.forward(jnp.ones((8, 8, 1)), s, t).mean
        assert_allclose(then.mean, expected.mean, rtol=1e-11, atol=1e-14)
        variance = (ratio * first.std) ** 2 + then.std**2
        assert_allclose(variance, jnp.broadcast_to(expected.std**2, variance.shape), rtol=1e-12)


@every_process
def test_snr_falls_and_the_data_end_is_the_data(name):
    process = PROCESSES[name]
    log_snr = jax.vmap(process.log_snr)(jnp.linspace(0.0, 1.0, 201))
    assert jnp.all(log_snr[1:] <= log_snr[:-1] + 1e-12)
    assert jnp.all(log_snr[-1].min() < log_snr[100].min())
    assert_allclose(process.alpha(0.0), np.ones_like(process.alpha(0.0)), rtol=1e-14)
    assert_allclose(process.sigma(0.0), process.delta if "heat" in name else 0.0, rtol=1e-14)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@every_process
def test_everything_is_finite_and_keeps_its_precision(name, dtype, pictures):
    process, (x0, x, _) = in_dtype(PROCESSES[name], dtype), pictures.astype(dtype)[:3]
    times = [jnp.asarray(t, dtype) for t in TIMES]
    for t in times[:-1]:
        derived = [process.noise(x, x0, t), process.score(x, x0, t), process.velocity(x, x0, t)]
        for value in [*process.perturb(x0, t), *process.rates(t), process.scale(t), *derived]:
            assert value.dtype == dtype and jnp.all(jnp.isfinite(value)), (t, value)
        for s in times[times.index(t) + 1 :]:
            laws = [process.transition(x, x0, t, s, eta) for eta in (0.0, 0.5, 1.0)] + [process.forward(x, s, t)]
            for value in jax.tree.leaves(laws):
                assert value.dtype == dtype and jnp.all(jnp.isfinite(value)), (t, s, value)


@every_process
def test_single_precision_agrees_with_double(name):
    """No cancellation: the reverse step's coefficients keep four digits even where `snr_t / snr_s` is 1e-8."""
    double, single = PROCESSES[name], in_dtype(PROCESSES[name], jnp.float32)
    one, zero = np.ones((8, 8, 1)), np.zeros((8, 8, 1))
    for t, s in [(0.999, 0.7), (0.7, 0.5), (0.5, 0.1), (0.1, 1e-3), (1e-2, 1e-3)]:
        for eta in (0.0, 0.5, 1.0):
            exact = double.transition(one, zero, t, s, eta)
            rounded = single.transition(*np.float32((one, zero)), np.float32(t), np.float32(s), eta)
            assert_allclose(rounded.mean, exact.mean, rtol=3e-4, atol=1e-15)
            assert_allclose(rounded.std, exact.std, rtol=3e-4, atol=1e-7)


@every_process
def test_eta_zero_is_ddim(name, pictures):
    """Song et al. 2021, eq. 12 at eta 0: `alpha_s x0 + sigma_s eps`, no noise."""
    process, (x0, _, x) = PROCESSES[name], pictures
    for t, s in PAIRS:
        step = process.transition(x, x0, t, s, 0.0)
        expected = process.alpha(s) * x0 + process.sigma(s) * process.noise(x, x0, t)
        assert_allclose(step.mean, expected, rtol=1e-12, atol=1e-12)
        assert jnp.all(step.std == 0)


@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_stochastic_ddim_of_the_paper(eta):
    """Song et al. 2021, eq. 16: the noise of a variance-preserving step."""
    vp = process.VP()
    for t, s in INSIDE:
        a_t, a_s = np.float64(vp.alpha(t)) ** 2, np.float64(vp.alpha(s)) ** 2
        sigma = eta * np.sqrt((1 - a_s) / (1 - a_t)) * np.sqrt(1 - a_t / a_s)
        assert_allclose(vp.transition(jnp.ones(()), jnp.ones(()), t, s, eta).std, sigma, rtol=1e-9)


@pytest.mark.parametrize("name", ["heat", "strong_heat"])
def test_constant_noise_is_cold_diffusion(name, pictures):
    """Bansal et al. 2022, algorithm 2: `x_s = x_t - D(x0, t) + D(x0, s)` for the degradation `D = alpha x0`."""
    process, (x0, _, x) = PROCESSES[name], pictures
    for t, s in PAIRS:
        expected = x - process.alpha(t) * x0 + process.alpha(s) * x0
        assert_allclose(process.transition(x, x0, t, s, 0.0).mean, expected, rtol=1e-12, atol=1e-12)


def betas(steps):
    return np.linspace(1e-4, 0.02, steps) * 1000 / steps


@pytest.mark.parametrize("steps", [1000, 100])
def test_ddpm_table_is_the_published_product(steps):
    times = np.arange(steps + 1) / steps
    table = np.append(1.0, np.cumprod(1 - betas(steps)))
    ddpm = process.ddpm(steps)
    assert_allclose(ddpm.alpha(times) ** 2, table, rtol=1e-12)
    assert_allclose(ddpm.sigma(times) ** 2, 1 - table, rtol=1e-10)


def test_ddpm_posterior_is_the_published_one(pictures):
    """Ho et al. 2020, eq. 6 and 7."""
    ddpm, (x0, _, x), beta = process.ddpm(), pictures, betas(1000)
    product = np.append(1.0, np.cumprod(1 - beta))
    for k in (1000, 500, 3, 2, 1):
        b, now, before = beta[k - 1], product[k], product[k - 1]
        mean = (np.sqrt(before) * b * x0 + np.sqrt(1 - b) * (1 - before) * x) / (1 - now)
        step = ddpm.transition(x, x0, k / 1000, (k - 1) / 1000)
        assert_allclose(step.mean, mean, rtol=1e-9, atol=1e-9)
        assert_allclose(step.std**2, b * (1 - before) / (1 - now), rtol=1e-9)


def test_ddpm_refuses_a_beta_of_one():
    assert jnp.all(jnp.isfinite(process.ddpm(21).table))
    with pytest.raises(ValueError, match="steps is 20 .* below 1; add steps"):
        process.ddpm(20)


def test_published_levels():
    """Each schedule at a time where its paper gives it in closed form."""
    half = 0.5
    assert_allclose(process.VP().log_alpha(1.0), -0.25 * 19.9 - 0.05, rtol=1e-14)
    assert_allclose(process.VE().sigma(half) ** 2, 0.01**2 * (50 / 0.01 - 1), rtol=1e-12)
    assert_array_equal(process.EDM().sigma(half), 40.0)
    assert_allclose(process.Cosine(0.0).alpha(half), np.sqrt(0.5), rtol=1e-14)
    assert_array_equal(process.Flow().sigma(0.25), 0.25)
    assert_allclose(process.ResidualShift(2.0, 0.5).sigma(0.25), 1.0, rtol=1e-14)
    assert_allclose(PROCESSES["heat"].alpha(1.0)[0, 1, 0], np.exp(-((np.pi / 8) ** 2) * 19.5**2 / 2), rtol=1e-12)
    blurring = process.Blurring(FREQUENCIES, sigma_blur=3.0, d_min=0.1, margin=0.0)
    dissipated = 0.9 * np.exp(-((np.pi / 8) ** 2) * (3.0 * 0.5) ** 2 / 2) + 0.1
    assert_allclose(blurring.alpha(half)[1, 0, 0], np.sqrt(0.5) * dissipated, rtol=1e-12)


def test_frequencies_are_the_laplacian_of_the_dct():
    """The heat equation on the reflected line: cosine (i, j) decays at `(pi i / H)^2 + (pi j / W)^2`."""
    frequencies = process.dct_frequencies(4, 6)
    assert frequencies.shape == (4, 6, 1)
    assert_allclose(frequencies[3, 2, 0], (3 * np.pi / 4) ** 2 + (2 * np.pi / 6) ** 2)


@every_process
def test_velocity_is_the_rate_of_the_trajectory(name, pictures):
    """Central differences of `alpha_t x0 + sigma_t eps`, inside DDPM's linear pieces."""
    process, (x0, eps, _) = PROCESSES[name], pictures
    path = lambda t: process.alpha(t) * x0 + process.sigma(t) * eps
    for t in (0.9995, 0.5005, 0.0505):
        rate = (path(t + 1e-6) - path(t - 1e-6)) / 2e-6
        assert_allclose(process.velocity(path(t), x0, t), rate, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["flow", "ctmsr"])
def test_straight_paths_have_their_velocity_at_both_ends(name, pictures):
    process, (x0, eps, _) = PROCESSES[name], pictures
    assert_allclose(process.rates(0.0), (-1.0, 1.0))
    assert_allclose(process.velocity(eps, x0, 1.0), eps - x0, rtol=1e-14)


def target(parametrisation, process, x, x0, eps, t):
    """What the network must say, by each paper's definition."""
    alpha, sigma, s = process.alpha(t), process.sigma(t), 0.5
    if parametrisation == "edm":
        weight = np.sqrt(sigma**2 + (s * alpha) ** 2)
        return (x0 - s**2 * alpha / weight**2 * x) * weight / (sigma * s)
    if parametrisation == "boundary":
        beyond = sigma - 0.002 * alpha
        weight, far = np.sqrt(sigma**2 + (s * alpha) ** 2), np.sqrt(beyond**2 + (s * alpha) ** 2)
        return (x0 - s**2 * alpha / far**2 * x) * weight / (beyond * s)
    truths = {"eps": eps, "x0": x0, "v": alpha * eps - sigma * x0, "score": -eps / sigma}
    return truths[parametrisation] if parametrisation in truths else process.velocity(x, x0, t)


def is_defined(parametrisation, name, t):
    """eps and score say nothing of x0 where alpha is 0, nor the velocity of a coordinate that does not move."""
    gone = bool(jnp.any(PROCESSES[name].alpha(t) == 0))
    return not (gone and parametrisation in ("eps", "score") or parametrisation == "velocity" and "heat" in name)


@pytest.mark.parametrize("parametrisation", [*PRECONDITIONED, *PARAMETRISATIONS])
@every_process
def test_parametrisations_give_back_x0(name, parametrisation, pictures):
    process, (x0, eps, _) = PROCESSES[name], pictures
    for t in [t for t in (1.0, 0.9995, 0.5005, 0.0105) if is_defined(parametrisation, name, t)]:
        x = process.alpha(t) * x0 + process.sigma(t) * eps
        out = target(parametrisation, process, x, x0, eps, t)
        denoise = NetworkDenoiser(out, process, lambda params, x, condition: params, parametrisation)
        lost = parametrisation in ("eps", "score", "velocity")
        tolerance = 1e-10 + lost * 1e-14 * process.sigma(t) / jnp.maximum(process.alpha(t), 1e-300)
        assert jnp.all(jnp.abs(denoise(x, t) - x0) <= tolerance)


@pytest.mark.parametrize("name", ISOTROPIC)
def test_edm_preconditioning_is_karras_in_the_scaled_picture(name, pictures):
    """Karras et al. 2022, table 1: with `r = sigma / alpha` the network sees `c_in x / alpha` and `log(r) / 4`."""
    process, (_, _, x), t, seen = PROCESSES[name], pictures, 0.3, []

    def network(params, x, condition):
        seen.extend([x, condition])
        return params

    out = jnp.ones_like(x)
    result = NetworkDenoiser(out, process, network)(x, t)
    r, scaled = process.sigma(t) / process.alpha(t), x / process.alpha(t)
    c_skip, c_out = 0.25 / (r**2 + 0.25), 0.5 * r / np.sqrt(r**2 + 0.25)
    assert_allclose(seen[0], scaled / np.sqrt(r**2 + 0.25), rtol=1e-12)
    assert_allclose(seen[1], np.log(r) / 4, rtol=1e-12)
    assert_allclose(result, c_skip * scaled + c_out * out, rtol=1e-12)


@pytest.mark.parametrize("name", ISOTROPIC)
def test_a_boundary_network_is_a_consistency_model_in_the_scaled_picture(name, pictures):
    """Song et al. 2023, appendix C: `c_skip = s^2 / ((r - r_0)^2 + s^2)`, `c_out = s (r - r_0) / sqrt(r^2 + s^2)`."""
    process, (_, _, x), seen = PROCESSES[name], pictures, []

    def network(params, x, condition):
        seen.extend([x, condition])
        return params

    bounds, out = (0.05, 80.0), jnp.ones_like(x)
    denoise = NetworkDenoiser(out, process, network, "boundary", bounds=bounds)
    r, scaled = process.sigma(0.3) / process.alpha(0.3), x / process.alpha(0.3)
    c_skip, c_out = 0.25 / ((r - 0.05) ** 2 + 0.25), 0.5 * (r - 0.05) / np.sqrt(r**2 + 0.25)
    assert_allclose(denoise(x, 0.3), c_skip * scaled + c_out * out, rtol=1e-12)
    assert_allclose(seen[0], scaled / np.sqrt(r**2 + 0.25), rtol=1e-12)
    assert_allclose(seen[1], np.log(r) / 4, rtol=1e-12)
    least = times.from_sigma(process, 0.04)
    assert process.sigma(least) / process.alpha(least) < 0.05, "the network would act here"
    assert_allclose(denoise(x, least), x / process.alpha(least), rtol=1e-12)
    assert_array_equal(denoise(x, 0.0), x)


def test_edm_condition_stays_within_the_trained_levels():
    read = lambda t: NetworkDenoiser((), process.Flow(), lambda params, x, c: jnp.full(x.shape, c))(jnp.zeros(()), t)
    assert_allclose(read(1.0), 0.5 * np.log(80.0) / 4, rtol=1e-12)
    assert_allclose(read(0.002) / read(0.0015) * 0.0015 / 0.002, 1.0, rtol=1e-3)
    assert jnp.isfinite(read(0.0))


def test_plain_networks_see_the_state_and_the_published_index(pictures):
    seen, x = [], pictures[0]

    def network(params, x, condition, label):
        seen.extend([x, condition, label])
        return params * x

    denoise = NetworkDenoiser(2.0, process.ddpm(), network, "x0").given(label=7)
    assert_array_equal(denoise(x, 0.25), 2 * x)
    assert_array_equal(seen[0], x)
    assert seen[1] == 249.0 and seen[2] == 7


def test_learned_variance_is_the_second_half_of_the_channels(pictures):
    """ADM: raw outputs -1 and 1 are the posterior's and the forward kernel's variance."""
    vp, (x0, eps, _) = process.VP(), pictures
    x = vp.perturb(x0, 0.5).at(eps)
    raw = jnp.full_like(x, -1.0).at[0].set(1.0).at[1].set(0.0)
    out = jnp.concatenate([eps, raw], axis=-1)
    denoise = NetworkDenoiser(out, vp, lambda params, x, c: params, "eps", learned_variance=True)
    prediction = denoise.predict(x, 0.5)
    assert_allclose(prediction.x0, x0, rtol=1e-10, atol=1e-10)
    assert_array_equal(prediction.v, 0.5 * (raw + 1))
    assert NetworkDenoiser(eps, vp, lambda params, x, c: params, "eps").predict(x, 0.5).v is None


@pytest.mark.parametrize("parametrisation", ["edm", "eps"])
def test_half_precision_networks_do_not_lower_the_sampler(parametrisation, pictures):
    network = lambda params, x, c: jnp.concatenate([x, x], axis=-1).astype(jnp.bfloat16)
    denoise = NetworkDenoiser((), process.VP(), network, parametrisation, learned_variance=True)
    prediction = denoise.predict(pictures[0].astype(jnp.float32), jnp.float32(0.5))
    assert prediction.x0.dtype == prediction.v.dtype == jnp.float32


def test_clipping_stops_value_and_gradient():
    denoise = NetworkDenoiser(3.0, process.VP(), lambda params, x, c: params * x, "x0", clip=True)
    x = jnp.array([-0.9, -0.1, 0.2, 0.8])
    assert_allclose(denoise(x, 0.5), [-1.0, -0.3, 0.6, 1.0])
    assert_array_equal(jax.grad(lambda x: jnp.sum(denoise(x, 0.5)))(x), [0.0, 3.0, 3.0, 0.0])


def test_unknown_parametrisation_names_the_known_ones():
    denoise = NetworkDenoiser((), process.VP(), lambda params, x, c: x, "epsilon")
    with pytest.raises(ValueError, match="'epsilon'; choose one of edm, boundary, eps, v, x0, score, velocity"):
        denoise(jnp.zeros(3), 0.5)
