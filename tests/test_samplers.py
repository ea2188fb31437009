"""Samplers: orders of convergence on a closed form, the papers' algorithms by hand, and exact laws."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from registries import ANY_PROCESS, ISOTROPIC, PROCESSES, SAMPLERS, in_dtype

from diffinv import process, samplers, times
from diffinv.denoisers.exact import GaussianDenoiser, finite, gaussian, mixture
from diffinv.loop import record, sample
from diffinv.prior import NetworkDenoiser, Prior
from diffinv.typing import Cost

MEAN, VARIANCE, LATENT = np.array([0.3, -0.5, 1.0]), np.array([0.1, 0.5, 2.0]), np.array([0.7, -1.2, 0.9])
KEY = jax.random.key(0)


def diagonal(process):
    """A Gaussian prior with independent coordinates; MEAN and VARIANCE broadcast over blurring coefficients."""
    isotropic = jnp.ndim(process.alpha(0.5)) == 0
    shape = (3,) if isotropic else (8, 8, 3)
    mean, variance = (jnp.broadcast_to(v, shape) for v in (MEAN, VARIANCE))
    return Prior(process, GaussianDenoiser(process, mean, variance), shape)


def spread(process, t):
    """The standard deviation of `x_t` under `diagonal`."""
    return np.sqrt(np.float64(process.alpha(t)) ** 2 * VARIANCE + np.float64(process.sigma(t)) ** 2)


def on_the_path(process, t):
    """The probability-flow solution of `diagonal` through LATENT: `alpha_t m + std_t z`, for every t."""
    return jnp.asarray(np.float64(process.alpha(t)) * MEAN + spread(process, t) * LATENT)


def march(sampler, t, x):
    """`sample` by hand, with one compiled step for grids of every length."""
    step, state = jax.jit(sampler.step), sampler.init(KEY, t[0], x)
    for now, then in zip(t[:-1], t[1:], strict=True):
        state, _ = step(KEY, state, now, then)
    return sampler.final(KEY, state)


def linear(start, end):
    return lambda n: start + (end - start) * (jnp.arange(n + 1) / n)


# VP's clock `sigma / alpha` grows like the root of t: its last uniform step is first order whatever the integrator,
# so VP ends at 0.01. Karras' grid ends at its own smallest level. The half log-SNR, in which DPM-Solver++ steps, is
# singular at both ends, which costs the uniform grid a logarithm: those runs keep away from them.
ORDERS = [
    ("vp", "euler", linear(1.0, 0.01), 1),
    ("vp", "heun", linear(1.0, 0.01), 2),
    ("vp", "dpmpp_2m", linear(1.0, 0.01), 2),
    ("edm", "euler", lambda n: times.karras(n + 1)[:-1], 1),
    ("edm", "heun", lambda n: times.karras(n + 1)[:-1], 2),
    ("edm", "dpmpp_2m", lambda n: times.karras(n + 1)[:-1], 2),
    ("flow", "euler", times.grid, 1),
    ("flow", "heun", times.grid, 2),
    ("flow", "dpmpp_2m", linear(0.95, 0.05), 2),
    ("cosine", "euler", times.grid, 1),
    ("cosine", "heun", times.grid, 2),
    ("cosine", "dpmpp_2m", linear(0.95, 0.05), 2),
]


@pytest.mark.parametrize(("name", "sampler", "grid", "order"), ORDERS)
def test_order_of_convergence(name, sampler, grid, order):
    prior, steps, errors = diagonal(PROCESSES[name]), [32, 64, 128], []
    integrator = SAMPLERS[sampler](prior)
    for n in steps:
        t = grid(n)
        x = march(integrator, t, on_the_path(prior.process, t[0]))
        errors.append(np.linalg.norm(x - on_the_path(prior.process, t[-1])))
    assert abs(oracle.slope(steps, errors) - order) < 0.15, errors


@pytest.mark.parametrize("name", PROCESSES)
def test_euler_is_ddim(name):
    """In every chart and in both directions: the same map, to rounding."""
    prior = diagonal(PROCESSES[name])
    x = prior.process.sigma(1.0) * jax.random.normal(KEY, prior.shape)
    for t, s in [(1.0, 0.6), (0.6, 0.1), (0.1, 0.0), (0.1, 0.6), (0.6, 1.0)]:
        euler, ddim = (sampler(prior).step(KEY, x, t, s)[0] for sampler in (samplers.euler, samplers.ddim))
        assert_allclose(euler, ddim, rtol=1e-11, atol=1e-11 * float(prior.process.sigma(1.0)))


def test_ancestral_is_ddim_at_eta_one():
    prior, t = diagonal(process.VP()), times.grid(10)
    expected = sample(KEY, samplers.ddim(prior, 1.0), t).x
    assert_array_equal(sample(KEY, samplers.ancestral(prior), t).x, expected)


@pytest.mark.parametrize("name", ["cosine", "flow", "vp"])
def test_a_few_heun_steps_from_the_noisy_end_are_good(name):
    """The chart's clock must be finite there: in `sigma / alpha`, which ends at 637, Cosine's error was 6."""
    prior, t = diagonal(PROCESSES[name]), times.grid(8)
    x = march(samplers.heun(prior), t, on_the_path(prior.process, 1.0))
    assert np.linalg.norm(x - on_the_path(prior.process, 0.0)) < 0.15


def test_heun_is_karras_algorithm_1():
    prior, t = diagonal(process.EDM()), times.karras(7)
    D = lambda x, sigma: MEAN + VARIANCE / (VARIANCE + sigma**2) * (x - MEAN)
    x = start = 80.0 * LATENT
    for now, then in zip(80 * np.asarray(t[:-1]), 80 * np.asarray(t[1:]), strict=True):
        d = (x - D(x, now)) / now
        euler = x + (then - now) * d
        x = euler if then == 0 else x + (then - now) * 0.5 * (d + (euler - D(euler, then)) / then)
    assert_allclose(sample(KEY, samplers.heun(prior), t, jnp.asarray(start)).x, x, rtol=1e-10)


@pytest.mark.parametrize("end", [0.0, 0.1])
def test_dpmpp_2m_is_lu_algorithm_2(end):
    """In steps h of half log-SNR: `x <- sigma'/sigma x - alpha' (e^-h - 1) D`, first order at both ends."""
    vp = process.VP()
    prior, t = diagonal(vp), linear(1.0, end)(6)
    alpha, sigma = np.asarray(vp.alpha(t)), np.asarray(vp.sigma(t))
    with np.errstate(divide="ignore"):
        lam = np.log(alpha / sigma)
    x, last = LATENT, None
    for i in range(6):
        x0 = MEAN + alpha[i] * VARIANCE / (alpha[i] ** 2 * VARIANCE + sigma[i] ** 2) * (x - alpha[i] * MEAN)
        h, D = lam[i + 1] - lam[i], x0
        if last is not None and np.isfinite(h):
            r = (lam[i] - lam[i - 1]) / h
            D = (1 + 1 / (2 * r)) * x0 - last / (2 * r)
        x, last = sigma[i + 1] / sigma[i] * x - alpha[i + 1] * np.expm1(-h) * D, x0
    assert_allclose(sample(KEY, samplers.dpmpp_2m(prior), t, jnp.asarray(LATENT)).x, x, rtol=1e-9)


def chain_law(vp, t, eta):
    """Mean and variance of the stochastic chain on `diagonal`, by Ho et al. eq. 7 and Song et al. eq. 12 and 16."""
    alpha, sigma = np.asarray(vp.alpha(t)), np.asarray(vp.sigma(t))
    mean, variance = np.zeros(3), np.full(3, sigma[0] ** 2)
    for i in range(len(t) - 1):
        a, b, s, r = alpha[i], alpha[i + 1], sigma[i], sigma[i + 1]
        gain = a * VARIANCE / (a**2 * VARIANCE + s**2)
        c = eta * r / s * np.sqrt(1 - a**2 / b**2)
        direction = np.sqrt(r**2 - c**2) / s
        slope = b * gain + direction * (1 - a * gain)
        offset = (b - direction * a) * (1 - a * gain) * MEAN
        mean, variance = slope * mean + offset, slope**2 * variance + c**2
    return oracle.Law(mean, np.diag(variance))


def many(prior, sampler, t, count=4000):
    run = jax.jit(jax.vmap(lambda k: sample(k, sampler(prior), t).x))
    return np.asarray(run(jax.random.split(KEY, count))).reshape(count, -1)


@pytest.mark.parametrize(("sampler", "eta"), [("ancestral", 1.0), ("ddim_half", 0.5), ("ddim", 0.0)])
def test_a_few_steps_have_the_law_of_the_published_chain(sampler, eta):
    prior, t = diagonal(process.VP()), linear(1.0, 0.02)(6)
    assert max(oracle.moment_errors(many(prior, SAMPLERS[sampler], t), chain_law(prior.process, t, eta))) < 4.5


@pytest.mark.parametrize("sampler", ["ancestral", "ddim", "heun"])
def test_many_steps_have_the_law_of_the_data(sampler):
    """Mean and full covariance; 200 steps leave a bias well below the standard error of 4000 draws."""
    rng = np.random.default_rng(0)
    law = oracle.Law(rng.standard_normal(4), oracle.random_covariance(rng, 4))
    prior = gaussian(process.Cosine(), jnp.asarray(law.mean), jnp.asarray(law.covariance))
    assert max(oracle.moment_errors(many(prior, SAMPLERS[sampler], times.grid(200, power=1.5)), law)) < 4.5


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_ends_in_the_data(sampler):
    """Under the denoiser of a finite data set each run must end at a member."""
    data = jnp.asarray(np.random.default_rng(0).standard_normal((3, 4)))
    x = many(finite(process.VP(), data), SAMPLERS[sampler], times.grid(40), 30)
    distance = np.linalg.norm(x[:, None] - np.asarray(data), axis=-1)
    assert np.all(distance.min(1) < 1e-6)
    assert len(set(distance.argmin(1))) == 3


def assert_finite(sampler, name, dtype):
    """From t = 1, where Flow has no signal and heat no noise, to an exact 0, where none has noise."""
    prior = diagonal(PROCESSES[name])
    if name.endswith("heat"):
        prior = prior.replace(law=prior.denoise)
    prior, t = in_dtype(prior, dtype), times.grid(6).astype(dtype)
    solution = sample(KEY, record(SAMPLERS[sampler](prior)), t)
    for leaf in jax.tree.leaves((solution.x, solution.info.state)):
        assert leaf.dtype == dtype and jnp.all(jnp.isfinite(leaf))


# Rounding, a signal that vanishes, a clock that starts like a root, and coefficients that underflow.
HARDEST = [("flow", jnp.float32), ("resshift", jnp.float32), ("strong_blurring", jnp.float32)]
ALL = [(name, dtype) for name in PROCESSES for dtype in (jnp.float32, jnp.float64)]


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(
    ("name", "dtype"), HARDEST + [pytest.param(*case, marks=pytest.mark.slow) for case in ALL if case not in HARDEST]
)
def test_every_sampler_is_finite_on_every_process(sampler, name, dtype):
    if sampler in ANY_PROCESS or name in ISOTROPIC:
        assert_finite(sampler, name, dtype)
        return
    kind = type(PROCESSES[name]).__name__
    with pytest.raises(
        ValueError, match=rf"{kind} has an alpha of shape \(8, 8, 1\); {sampler} needs an isotropic one"
    ):
        SAMPLERS[sampler](diagonal(PROCESSES[name]))


REPEATED = jnp.asarray([1.0, 1.0, 1.0, 0.7, 0.7, 0.4, 0.4, 0.4, 0.1, 0.0])


@pytest.mark.parametrize("sampler", ["ddim", "euler", "heun", "dpmpp_2m", "dpmpp_3m", "unipc"])
def test_a_repeated_time_changes_nothing(sampler):
    """As where a bfloat16 grid ties, or a level lies beyond the process's last."""
    method = SAMPLERS[sampler](diagonal(process.VE()))
    x = march(method, REPEATED, jnp.ones(3))
    assert_allclose(x, march(method, jnp.unique(REPEATED)[::-1], jnp.ones(3)), rtol=1e-13)


MULTISTEP = ["dpmpp_2m", "dpmpp_3m", "dpmpp_2m_sde", "dpmpp_3m_sde", "unipc"]


@pytest.mark.parametrize("sampler", MULTISTEP)
@pytest.mark.parametrize("forward", [process.VE(), process.EDM(10.0), process.Flow()])
def test_multistep_samplers_are_finite_over_their_own_grid_of_any_process(forward, sampler):
    """Karras's 80 is beyond the last level of the first two."""
    x = march(SAMPLERS[sampler](diagonal(forward)), times.log_snr(forward, 40), None)
    assert np.isfinite(x).all()


@pytest.mark.parametrize("sampler", MULTISTEP)
def test_levels_that_half_precision_does_not_tell_apart_are_first_order(sampler):
    """bfloat16: 1000 times fall on 256 numbers, and neighbours have the same log-SNR."""
    prior = in_dtype(diagonal(process.VP()), jnp.bfloat16)
    x = march(SAMPLERS[sampler](prior), times.grid(1000).astype(jnp.bfloat16)[:40], None)
    assert x.dtype == jnp.bfloat16 and np.isfinite(x.astype(jnp.float32)).all()


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_has_its_gradient(sampler):
    """Through the whole compiled scan, against central differences in float64, with every draw held."""
    prior = mixture(process.VP(), jnp.array([MEAN, -MEAN]), jnp.ones(2), jnp.array([0.2, 0.3]))
    total = jax.jit(lambda x: jnp.sum(sample(KEY, SAMPLERS[sampler](prior), times.grid(4, start=0.4), x).x ** 2))
    x, way = jnp.asarray(LATENT), jnp.array([0.3, 1.0, -0.6])
    difference = (total(x + 1e-5 * way) - total(x - 1e-5 * way)) / 2e-5
    assert abs(difference) > 1e-6
    assert_allclose(jnp.vdot(jax.grad(total)(x), way), difference, rtol=1e-5)


def test_learned_variance_lies_between_the_posterior_and_the_kernel():
    """Nichol & Dhariwal 2021, eq. 15, on the published table: `exp(v log beta + (1 - v) log beta~)`."""
    ddpm, k, v = process.ddpm(), 400, jnp.array([0.0, 0.3, 1.0])
    beta = np.linspace(1e-4, 0.02, 1000)
    product = np.append(1.0, np.cumprod(1 - beta))
    posterior = (1 - product[k - 1]) / (1 - product[k]) * beta[k - 1]
    expected = np.exp(v * np.log(beta[k - 1]) + (1 - v) * np.log(posterior))
    prior, zeros = Prior(ddpm, None, (3,)), jnp.zeros(3)
    std = lambda t, s, v: samplers.learned_range(prior, zeros, t, s, zeros, v)[1]
    assert_allclose(std(k / 1000, (k - 1) / 1000, v) ** 2, expected, rtol=1e-9)
    assert_allclose(std(k / 1000, (k - 1) / 1000, None) ** 2, posterior, rtol=1e-9)
    assert_array_equal(std(1e-3, 0.0, v), np.zeros(3))


def test_ancestral_uses_the_variance_that_the_network_learned():
    """v = 1 everywhere: the first step's noise has the forward kernel's deviation, not the posterior's."""
    vp = process.VP()
    network = lambda params, x, c: jnp.concatenate([jnp.zeros_like(x), jnp.ones_like(x)], -1)
    prior = Prior(vp, NetworkDenoiser((), vp, network, "x0", learned_variance=True), (1000, 1))
    x = sample(KEY, samplers.ancestral(prior), jnp.array([0.5, 0.2]), jnp.zeros((1000, 1))).x
    kernel = vp.forward(jnp.zeros(()), 0.2, 0.5).std
    assert abs(jnp.std(x) / kernel - 1) < 4.5 / np.sqrt(2000)
    assert vp.transition(jnp.zeros(()), jnp.zeros(()), 0.5, 0.2).std < 0.7 * kernel


def test_renoise_in_one_step_is_the_denoiser():
    prior, x = diagonal(process.EDM()), jnp.asarray(80.0 * LATENT)
    assert_array_equal(sample(KEY, samplers.renoise(prior), jnp.array([1.0, 0.0]), x).x, prior.denoise(x, 1.0))


def test_renoise_is_song_algorithm_1():
    prior, x = diagonal(process.EDM()), jnp.asarray(80.0 * LATENT)
    z = jax.random.normal(jax.random.fold_in(KEY, 1), (3,))
    expected = prior.denoise(prior.denoise(x, 1.0) + 80.0 * 0.1 * z, 0.1)
    assert_allclose(sample(KEY, samplers.renoise(prior), jnp.array([1.0, 0.1, 0.0]), x).x, expected, rtol=1e-12)


CALLS = [("heun", 9), ("churn", 9), ("dpmpp_2m", 5), ("unipc", 5), ("ancestral", 5)]
CALLS += [("predictor_corrector", 10), ("annealed_langevin", 26)]


@pytest.mark.parametrize(("sampler", "calls"), CALLS)
def test_cost_is_what_the_result_used(sampler, calls):
    """Heun's last step is Euler's; a guided denoiser's own cost is multiplied."""
    prior = diagonal(process.VP())
    cost = sample(KEY, SAMPLERS[sampler](prior), times.grid(5)).info.cost
    assert cost.nfe.shape == cost.vjps.shape == (5,)
    assert cost.nfe.sum() == calls and cost.vjps.sum() == 0
    costly = jax.tree_util.Partial(prior.denoise)
    costly.cost = Cost(2, 3)
    cost = sample(KEY, SAMPLERS[sampler](prior.replace(denoise=costly)), times.grid(5)).info.cost
    assert cost.nfe.sum() == 2 * calls and cost.vjps.sum() == 3 * calls
