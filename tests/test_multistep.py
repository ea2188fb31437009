"""Multistep samplers: integrals, orders, UniPC by its own linear systems, and the laws of the noisy ones."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from numpy.testing import assert_allclose
from registries import PROCESSES
from test_samplers import KEY, LATENT, MEAN, VARIANCE, diagonal, linear, many, march, on_the_path

from diffinv import process, samplers, times
from diffinv.denoisers.exact import gaussian
from diffinv.loop import sample
from diffinv.samplers import multistep


def integral(k, f):
    """`int_0^k e^{-(k-u)} f(u) du` by Gauss's rule, exact to rounding for these."""
    nodes, weights = np.polynomial.legendre.leggauss(40)
    u = 0.5 * k * (nodes + 1)
    return 0.5 * k * np.sum(weights * np.exp(u - k) * f(u))


@pytest.mark.parametrize(("dtype", "rtol"), [(jnp.float32, 1e-6), (jnp.float64, 1e-13)])
@pytest.mark.parametrize("k", [1e-3, 0.3, 0.999, 1.0, 5.0])
def test_moments_are_the_integrals(k, dtype, rtol):
    """In float32 too, where the forward recursion alone would lose all digits of the third at k = 1e-3."""
    expected = [integral(float(dtype(k)), lambda u, n=n: u**n) for n in range(4)]
    assert_allclose(multistep.moments(jnp.asarray(k, dtype), 4), expected, rtol=rtol)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_the_mean_integrates_the_polynomial_through_its_nodes(count):
    """With nodes on both sides of the start, as the corrector has, and one that is not there yet."""
    level, k = jnp.array([0.0, 0.4, -0.3, -1.1, -1.3])[: count + 1], 0.4
    polynomial = np.polynomial.Polynomial([0.7, -1.0, 0.4, 2.0][:count])
    live = jnp.arange(count + 1) < count
    x0 = jnp.where(live, jnp.asarray(polynomial(np.asarray(level))), 5.0)[:, None]
    found = multistep.mean(multistep.Nodes(level, x0, live), jnp.asarray(k), "exact")
    assert_allclose(found, [integral(k, polynomial) / -np.expm1(-k)], rtol=1e-12)


def shortened(start, end):
    """n even steps after a first one as short as the square of theirs, whose first order is then not seen."""
    return lambda n: jnp.append(start, jnp.linspace(start - ((start - end) / n) ** 2, end, n))


SPANS = {"vp": (1.0, 0.05), "flow": (0.95, 0.05), "ddpm": (1.0, 0.2)}
ORDERS = [("dpmpp_3m", samplers.dpmpp_3m, 3)]
ORDERS += [
    (f"unipc_{p}_{b}", lambda x, p=p, b=b: samplers.unipc(x, p, b), p + 1) for p in (1, 2, 3) for b in ("bh1", "bh2")
]


@pytest.mark.parametrize("name", ["vp", "flow"])
@pytest.mark.parametrize(("label", "method", "order"), ORDERS)
def test_order_of_convergence(label, method, order, name):
    """UniPC-p with its corrector is one order higher than p: Zhao et al. 2023, theorem 3.1."""
    prior, steps, errors = diagonal(PROCESSES[name]), [128, 256, 512], []
    for n in steps:
        t = shortened(*SPANS[name])(n)
        x = march(method(prior), t, on_the_path(prior.process, t[0]))
        errors.append(np.linalg.norm(x - on_the_path(prior.process, t[-1])))
    assert abs(oracle.slope(steps, errors) - order) < 0.15, errors


def test_sixty_four_steps_are_better_with_every_order():
    prior, t, errors = diagonal(process.Flow()), linear(0.95, 0.05)(64), []
    for method in (samplers.euler, samplers.dpmpp_2m, samplers.dpmpp_3m, samplers.unipc):
        x = march(method(prior), t, on_the_path(prior.process, 0.95))
        errors.append(np.linalg.norm(x - on_the_path(prior.process, 0.05)))
    assert np.all(np.diff(np.log(errors)) < -0.3), errors


def denoised(alpha, sigma, x):
    return MEAN + alpha * VARIANCE / (alpha**2 * VARIANCE + sigma**2) * (x - alpha * MEAN)


def solved(h, ratios, variant, lone):
    """UniPC's `a`: `R a = b`, row k of R the ratios to the power k; `1/2` where it stands alone. And `B(h)`."""
    B = {"bh1": -h, "bh2": np.expm1(-h)}[variant]
    phi, b = np.expm1(-h) / -h - 1, []
    for k in range(1, len(ratios) + 1):
        b.append(phi * np.prod(np.arange(1, k + 1)) / B)
        phi = phi / -h - 1 / np.prod(np.arange(1, k + 2))
    R = np.vander(ratios, increasing=True).T
    return (np.array([0.5]) if lone else np.linalg.solve(R, b)), B


def published_unipc(t, alpha, sigma, order, variant, correct=True):
    """Zhao et al. 2023 with data prediction, as the authors' code arranges it: predict, evaluate, correct."""
    with np.errstate(divide="ignore"):
        lam = np.log(alpha / sigma)
    x, means = LATENT, [denoised(alpha[0], sigma[0], LATENT)]
    for i in range(1, len(t)):
        h, p = lam[i] - lam[i - 1], min(order, i)
        base = sigma[i] / sigma[i - 1] * x - alpha[i] * np.expm1(-h) * means[-1]
        if t[i] == 0:
            return base
        ratios = [(lam[i - 1 - j] - lam[i - 1]) / h for j in range(1, p)]
        slopes = [(means[-1 - j] - means[-1]) / r for j, r in zip(range(1, p), ratios, strict=True)]
        a, B = solved(h, ratios, variant, p == 2) if p > 1 else ([], 0.0)
        predicted = base - alpha[i] * B * sum(c * d for c, d in zip(a, slopes, strict=True))
        new = denoised(alpha[i], sigma[i], predicted)
        a, B = solved(h, [*ratios, 1.0], variant, p == 1)
        x = base - alpha[i] * B * sum(c * d for c, d in zip(a, [*slopes, new - means[-1]], strict=True))
        x, means = (x if correct else predicted), [*means, new]
    return predicted


@pytest.mark.parametrize("end", [0.0, 0.1])
@pytest.mark.parametrize(("order", "variant"), [(p, b) for p in (1, 2, 3) for b in ("bh1", "bh2")])
def test_unipc_is_zhaos(order, variant, end):
    vp, t = process.VP(), linear(1.0, end)(7)
    expected = published_unipc(np.asarray(t), np.asarray(vp.alpha(t)), np.asarray(vp.sigma(t)), order, variant)
    x = sample(KEY, samplers.unipc(diagonal(vp), order, variant), t, jnp.asarray(LATENT)).x
    assert_allclose(x, expected, rtol=1e-9)


@pytest.mark.parametrize("end", [0.0, 0.1])
def test_dpmpp_3m_is_the_predictor_of_unipc_3(end):
    vp, t = process.VP(), linear(1.0, end)(7)
    expected = published_unipc(np.asarray(t), np.asarray(vp.alpha(t)), np.asarray(vp.sigma(t)), 3, "bh2", correct=False)
    assert_allclose(sample(KEY, samplers.dpmpp_3m(diagonal(vp)), t, jnp.asarray(LATENT)).x, expected, rtol=1e-9)


def test_half_of_the_second_difference_leaves_second_order():
    """What the published code of the third order does, on `x0(u) = u^2`: its local error is of third order."""
    errors = {"whole": [], "half": []}
    for h in (0.1, 0.05, 0.025):
        exact, (_, first, second) = (
            integral(h, lambda u: u**2),
            [float(m) for m in multistep.moments(jnp.asarray(h), 3)],
        )
        slope, bend = -h + h, 1.0  # the divided differences at 0, -h and -2h
        phi_2, phi_3 = np.expm1(-h) / h + 1, (np.expm1(-h) / h + 1) / h - 0.5
        errors["half"].append(abs((slope - h + h) * phi_2 * h - bend * h**2 * phi_3 - exact))
        errors["whole"].append(abs((slope - h) * first + bend * (second + h * first) - exact))
    assert abs(oracle.slope([10, 20, 40], errors["half"]) - 3) < 0.1 and max(errors["whole"]) < 1e-15


@pytest.mark.parametrize("name", ["vp", "flow", "edm"])
@pytest.mark.parametrize(
    ("noisy", "plain"), [(samplers.dpmpp_2m_sde, samplers.dpmpp_2m), (samplers.dpmpp_3m_sde, samplers.dpmpp_3m)]
)
def test_without_noise_they_are_the_ode(noisy, plain, name):
    prior, t = diagonal(PROCESSES[name]), times.grid(7)
    x = prior.process.sigma(1.0) * jnp.asarray(LATENT)
    assert_allclose(march(noisy(prior, 0.0), t, x), march(plain(prior), t, x), rtol=1e-10)


@pytest.mark.parametrize("noisy", [samplers.dpmpp_2m_sde, samplers.dpmpp_3m_sde])
def test_the_first_step_is_ancestral(noisy):
    prior, t, x = diagonal(process.VP()), jnp.array([0.8, 0.5]), jnp.asarray(LATENT)
    expected = sample(KEY, samplers.ancestral(prior), t, x).x
    assert_allclose(sample(KEY, noisy(prior), t, x).x, expected, rtol=1e-12)


def chain_law(vp, t, order, eta):
    """The law of the chain on `diagonal`, by recursion over (x, the last two means), in which k-diffusion is linear.

    At order three the parabola's whole integral, in k-diffusion's form with 2 phi_3.
    """
    alpha, sigma = np.asarray(vp.alpha(t)), np.asarray(vp.sigma(t))
    lam = np.log(alpha / sigma)
    m, S = np.zeros((3, 3)), np.zeros((3, 3, 3))  # of (x, D_1, D_2), for each coordinate
    S[:, 0, 0] = sigma[0] ** 2
    for i in range(len(t) - 1):
        h = lam[i + 1] - lam[i]
        k, gain = (1 + eta) * h, alpha[i] * VARIANCE / (alpha[i] ** 2 * VARIANCE + sigma[i] ** 2)
        weights = np.array([-np.expm1(-k), 0.0, 0.0])  # of D, D_1, D_2
        if i == 1 or (i > 1 and order == 2):
            r = (lam[i] - lam[i - 1]) / h
            weights += -0.5 * np.expm1(-k) / r * np.array([1, -1, 0])
        elif i > 1:
            r0, r1 = (lam[i] - lam[i - 1]) / h, (lam[i - 1] - lam[i - 2]) / h
            d0, d1 = np.array([1, -1, 0]) / r0, np.array([0, 1, -1]) / r1
            phi_2 = np.expm1(-k) / k + 1
            bend = (d0 - d1) / (r0 + r1)
            weights += phi_2 * (d0 + r0 * bend) - 2 * (phi_2 / k - 0.5) * bend
        M, c = np.zeros((3, 3, 3)), np.zeros((3, 3))
        M[:, 0, 0] = sigma[i + 1] / sigma[i] * np.exp(-eta * h) + alpha[i + 1] * weights[0] * gain
        M[:, 0, 1:] = alpha[i + 1] * weights[1:]
        M[:, 1, 0], M[:, 2, 1], c[:, 1] = gain, 1.0, (1 - gain * alpha[i]) * MEAN
        c[:, 0] = alpha[i + 1] * weights[0] * c[:, 1]
        m, S = np.einsum("dij,dj->di", M, m) + c, M @ S @ M.transpose(0, 2, 1)
        S[:, 0, 0] -= sigma[i + 1] ** 2 * np.expm1(-2 * eta * h)
    return oracle.Law(m[:, 0], np.diag(S[:, 0, 0]))


@pytest.mark.parametrize("eta", [1.0, 0.4])
@pytest.mark.parametrize(("noisy", "order"), [(samplers.dpmpp_2m_sde, 2), (samplers.dpmpp_3m_sde, 3)])
def test_a_few_steps_have_the_law_of_the_published_chain(noisy, order, eta):
    prior, t = diagonal(process.VP()), linear(1.0, 0.05)(6)
    x = many(prior, lambda prior: noisy(prior, eta), t)
    assert max(oracle.moment_errors(x, chain_law(prior.process, t, order, eta))) < 4.5


@pytest.mark.parametrize("method", [samplers.dpmpp_2m_sde, samplers.dpmpp_3m_sde, samplers.dpmpp_3m, samplers.unipc])
def test_many_steps_have_the_law_of_the_data(method):
    rng = np.random.default_rng(0)
    law = oracle.Law(rng.standard_normal(4), oracle.random_covariance(rng, 4))
    prior = gaussian(process.Cosine(), jnp.asarray(law.mean), jnp.asarray(law.covariance))
    assert max(oracle.moment_errors(many(prior, method, times.grid(200, power=1.5)), law)) < 4.5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"order": 4}, "order is 4; give 1, 2 or 3"),
        ({"order": 0}, "order is 0; give 1, 2 or 3"),
        ({"variant": "bh3"}, "variant is 'bh3'; give 'bh1' or 'bh2'"),
    ],
)
def test_unipc_refuses_what_it_is_not(settings, message):
    with pytest.raises(ValueError, match=message):
        samplers.unipc(diagonal(process.VP()), **settings)


def test_the_noise_may_be_swept():
    """One compiled program over `eta`, each entry what it is alone."""
    prior, t, etas = diagonal(process.VP()), times.grid(5), jnp.array([0.0, 0.5, 1.0])
    run = lambda eta: sample(KEY, samplers.dpmpp_2m_sde(prior, eta), t).x
    assert_allclose(jax.jit(jax.vmap(run))(etas), jnp.stack([run(eta) for eta in etas]), rtol=1e-10)
