"""Networks in the cosines: Wiener's filter and EDM as special cases, the papers' losses, and solvers in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from numpy.testing import assert_allclose
from scipy.fft import dctn
from scipy.integrate import solve_ivp

from diffinv import charts, denoisers, linalg, posterior, prior, process, samplers, scalespace, times
from diffinv.loop import as_solver, sample
from diffinv.measurement import GaussianNoise, Measurement
from diffinv.operators.base import dense
from diffinv.scalespace import laws
from diffinv.typing import Solution

SHAPE = (4, 4, 1)
FREQUENCIES = process.dct_frequencies(4, 4)
BLURRING = process.Blurring(FREQUENCIES, sigma_blur=3.0)
HEAT = process.HeatDissipation(FREQUENCIES, blur_max=6.0, delta=0.1)
CHART = scalespace.cosines(SHAPE)


def law(the_process):
    """A field of drawn mean and variances."""
    rng = np.random.default_rng(0)
    mean, variance = rng.standard_normal(SHAPE), rng.uniform(0.2, 2.0, SHAPE)
    return denoisers.GaussianDenoiser(the_process, jnp.asarray(mean), jnp.asarray(variance))


def zero(params, seen, t):
    return jnp.zeros((*seen.shape[:2], seen.shape[2] // 2), seen.dtype)


def draws(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape))


def test_cosines_are_orthonormal_and_tell_grey_from_colour():
    x, chart = draws(0, 4, 6, 3), scalespace.cosines((4, 6, 3))
    assert_allclose(chart.decode(chart.encode(x)), x, atol=1e-14)
    assert_allclose(linalg.norm(chart.encode(x)), linalg.norm(x), rtol=1e-14)
    assert_allclose(chart.encode(x)[..., 0], linalg.dct_hw(jnp.sum(x, -1, keepdims=True) / 3**0.5)[..., 0], atol=1e-14)
    assert_allclose(CHART.encode(x[:, :4, :1]), charts.dct(SHAPE).encode(x[:, :4, :1]), atol=1e-14)


def test_a_network_of_nothing_is_the_exact_denoiser_of_the_field():
    pictures = draws(1, 200, *SHAPE)
    found = scalespace.field(BLURRING, pictures)
    codes = np.stack([dctn(np.asarray(x)[..., 0], norm="ortho") for x in pictures])
    assert_allclose(found.mean[..., 0], codes.mean(0), atol=1e-13)
    assert_allclose(found.variance[..., 0], codes.var(0), rtol=1e-12)
    flat = scalespace.field(BLURRING, jnp.zeros((3, *SHAPE)))
    assert_allclose(flat.variance, (2 / 255) ** 2 / 12)
    z = draws(2, *SHAPE)
    nothing = scalespace.SpectralDenoiser((), found, zero)
    both = jax.jit(jax.vmap(lambda t: (nothing(z, t), found(z, t))))
    assert_allclose(*both(jnp.asarray([1e-3, 0.4, 1.0])), atol=1e-14)


def test_under_a_white_law_it_is_edm():
    """Variances 0.25 and mean 0: EDM's skip and output scale, under any isotropic process; in pixels."""
    vp, weights = process.VP(), draws(3, 16, 16)
    white = denoisers.GaussianDenoiser(vp, jnp.zeros(SHAPE), jnp.full(SHAPE, 0.25))
    net = lambda params, x, condition: jnp.tanh(params @ x[..., :1].ravel()).reshape(SHAPE)
    ours = scalespace.SpectralDenoiser(weights, white, net)
    edm = prior.NetworkDenoiser(weights, vp, net, bounds=(1e-9, 1e9))
    x = draws(4, *SHAPE)
    both = jax.jit(jax.vmap(lambda t: (CHART.decode(ours(CHART.encode(x), t)), edm(x, t))))
    assert_allclose(*both(jnp.asarray([0.02, 0.5, 1.0])), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("the_process", [BLURRING, HEAT], ids=["blurring", "heat"])
def test_every_denoiser_has_a_network(the_process):
    """The posterior mean of a finite set, put through the preconditioning and back; and what the network is shown."""
    data, field = draws(5, 6, *SHAPE), law(the_process)
    finite = laws.law(data, CHART)
    wide = lambda x: jnp.broadcast_to(x, SHAPE)

    def apply(params, seen, t):
        alpha, sigma = wide(the_process.alpha(t)), wide(the_process.sigma(t))
        w = jnp.sqrt(alpha**2 * field.variance + sigma**2)
        z = w * CHART.encode(seen[..., :1]) + alpha * field.mean
        size = jnp.sqrt(jnp.mean((alpha * field.mean) ** 2 + w**2))
        assert_allclose(size * CHART.encode(seen[..., 1:]), z, atol=1e-12)
        mean = finite.denoise(z.reshape(1, -1), alpha.ravel(), sigma.ravel()).reshape(SHAPE)
        return CHART.decode((mean - field(z, t)) * w / (sigma * jnp.sqrt(field.variance)))

    z, t = CHART.encode(data[0]), 0.3
    alpha, sigma = (wide(x).ravel() for x in (the_process.alpha(t), the_process.sigma(t)))
    exact = finite.denoise(z.reshape(1, -1), alpha, sigma).reshape(SHAPE)
    assert_allclose(scalespace.SpectralDenoiser((), field, apply)(z, t), exact, atol=1e-10)


def test_the_weights_are_the_papers_losses():
    """|eps_hat - eps|^2 of blurring diffusion, |u_hat - B_{k-1} x|^2 / delta^2 of heat dissipation, |F - target|^2."""
    key, image, t = jax.random.key(0), draws(6, *SHAPE), 0.4
    net = lambda params, seen, t: jnp.sin(params * seen[..., :1])
    for the_process in (BLURRING, HEAT):
        field = law(the_process)
        denoise = scalespace.SpectralDenoiser(2.0, field, net)
        z0 = CHART.encode(image)
        z = the_process.perturb(z0, t).sample(key)
        x0, sigma = denoise(z, t), the_process.sigma(t)
        value = lambda weighting, denoise=denoise: scalespace.spectral_error(key, denoise, image, t, weighting, 0.1)
        eps = the_process.noise(z, z0, t) - the_process.noise(z, x0, t)
        assert_allclose(value("noise"), jnp.mean(eps**2), rtol=1e-10)
        assert_allclose(value("step"), jnp.mean((the_process.alpha(0.3) * (x0 - z0) / sigma) ** 2), rtol=1e-10)
        w = jnp.sqrt(the_process.alpha(t) ** 2 * field.variance + sigma**2)
        output = (z0 - field(z, t)) * w / (sigma * jnp.sqrt(field.variance))
        seen = CHART.decode((z - the_process.alpha(t) * field.mean) / w)
        assert_allclose(value("posterior"), jnp.mean((output - CHART.encode(jnp.sin(2 * seen))) ** 2), rtol=1e-9)
    with pytest.raises(ValueError, match="weighting is 'edm'; choose one of posterior, noise, step"):
        scalespace.spectral_loss(lambda params: denoise, "edm")


@pytest.mark.parametrize("the_process", [BLURRING, HEAT], ids=["blurring", "heat"])
def test_the_loss_of_a_network_of_nothing_is_one_on_the_field(the_process):
    """At every time, and so for any law of times; for "noise" it is the mean of Wiener's gains."""
    field = law(the_process)
    pictures = jax.vmap(lambda k: CHART.decode(field.sample(k)))(jax.random.split(jax.random.key(1), 4000))
    model = lambda params: scalespace.SpectralDenoiser(params, field, zero)
    value = jax.jit(scalespace.spectral_loss(model))(jax.random.key(2), (), pictures)
    assert abs(value - 1) < 5 * np.sqrt(2 / 16 / 4000)
    keys = jax.random.split(jax.random.key(3), 4000)
    error = jax.vmap(lambda k, x: scalespace.spectral_error(k, model(()), x, 0.3, "noise"))
    alpha, sigma = the_process.alpha(0.3), the_process.sigma(0.3)
    gain = alpha**2 * field.variance / (alpha**2 * field.variance + sigma**2)
    assert abs(jnp.mean(jax.jit(error)(keys, pictures)) - jnp.mean(gain)) < 5 * np.sqrt(2 / 16 / 4000)


@pytest.mark.slow
def test_strong_blur_in_single_precision_and_conditions():
    """Finite values and gradients at every time; labels reach the network."""
    with jax.enable_x64(False):
        heat = process.HeatDissipation(process.dct_frequencies(8, 8), blur_max=100.0)
        blurring = process.Blurring(process.dct_frequencies(8, 8), sigma_blur=1000.0, d_min=1e-30)
        net = lambda params, seen, t, label: params * jnp.tanh(seen[..., :1]) + label
        image = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (8, 8, 1)), jnp.float32)
        batch = {"image": jnp.stack([image] * 64), "label": jnp.arange(64.0)}
        field = scalespace.field(heat, jnp.stack([image, -image, image * 0]))

        @jax.jit
        def run(weight):
            found = []
            for the_process, weighting in ((heat, "step"), (blurring, "posterior")):
                law = field.replace(process=the_process)
                model = lambda p, law=law: scalespace.SpectralDenoiser(p, law, net)
                loss = scalespace.spectral_loss(model, weighting)
                found.append(jax.value_and_grad(loss, 1)(jax.random.key(0), weight, batch))
                found.append([model(weight).given(label=i)(image, 0.5) for i in (0.0, 1.0)])
            return found

        for one, two in run(jnp.float32(1.0)):
            assert one.dtype == two.dtype == jnp.float32 and jnp.isfinite(one).all() and jnp.isfinite(two).all()
            assert jnp.max(jnp.abs(one - two)) > 1e-3


def test_samplers_start_from_the_field_where_the_process_does_not_end_in_noise():
    field = law(HEAT)
    start = scalespace.spectral_prior(scalespace.SpectralDenoiser((), field, zero))
    assert start.shape == SHAPE and start.process is HEAT
    x = np.asarray(jax.vmap(start.start)(jax.random.split(jax.random.key(0), 4000))).reshape(4000, 16)
    alpha = np.asarray(HEAT.alpha(1.0))
    moments = (alpha * np.asarray(field.mean)).ravel(), (alpha**2 * np.asarray(field.variance) + 0.01).ravel()
    assert max(oracle.moment_errors(x, oracle.Law(moments[0], np.diag(moments[1])))) < 5
    assert alpha[0, 0, 0] == 1


class Dense:
    """The same prior and measurement on 16 pixels as matrices, of scipy's cosines and numpy's algebra."""

    def __init__(self, the_process, A, y):
        self.process, self.A, self.y = the_process, A, y
        self.V = np.stack([dctn(e.reshape(4, 4), norm="ortho").ravel() for e in np.eye(16)], 1)
        field = law(the_process)
        self.m, self.v = self.V.T @ np.asarray(field.mean).ravel(), np.asarray(field.variance).ravel()

    def blur(self, scale):
        """`V^T diag(scale) V`."""
        wide = np.broadcast_to(np.asarray(scale), SHAPE).ravel()
        return self.V.T @ (wide[:, None] * self.V)

    def scales(self, t):
        return (np.broadcast_to(np.asarray(f(t)), SHAPE).ravel() for f in (self.process.alpha, self.process.sigma))

    def gain(self, t):
        """`dx0 / dx_t`, and the posterior covariance."""
        a, s = self.scales(t)
        spread = a**2 * self.v + s**2
        return self.blur((a * self.v / spread).reshape(SHAPE)), self.blur((s**2 * self.v / spread).reshape(SHAPE))

    def x0(self, x, t):
        return self.m + self.gain(t)[0] @ (x - self.blur(self.process.alpha(t)) @ self.m)

    def step(self, x, x0, t, s):
        """The frozen step: `B_s x0 + (sigma_s / sigma_t) (x - B_t x0)`."""
        away = x - self.blur(self.process.alpha(t)) @ x0
        return self.blur(self.process.alpha(s)) @ x0 + self.blur(self.process.sigma(s) / self.process.sigma(t)) @ away


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(7)
    A, y = rng.standard_normal((5, 16)), rng.standard_normal(5)
    return A, y, Measurement(dense(A, SHAPE), jnp.asarray(y), GaussianNoise(0.2)), draws(8, *SHAPE)


def spectral_gaussian(the_process):
    return scalespace.spectral_prior(scalespace.SpectralDenoiser((), law(the_process), zero))


@pytest.mark.parametrize("the_process", [BLURRING, HEAT], ids=["blurring", "heat"])
def test_ddnm_and_dps_on_a_blurring_prior_are_their_closed_forms(the_process, problem):
    """Both as affine (DDNM) and explicit (DPS) recursions of matrices on the pixels, without noise."""
    A, y, measurement, start = problem
    exact, grid, reference = spectral_gaussian(the_process), times.grid(6), Dense(the_process, A, y)
    zeta, pinv = 0.05, np.linalg.pinv(A)

    @jax.jit
    def run(z):
        ddnm = charts.within(CHART, lambda m: samplers.ddim(posterior.ddnm(exact, m), 0.0))
        dps = charts.within(CHART, lambda m: posterior.dps(exact, m, zeta, eta=0.0))
        return [as_solver(method, grid)(jax.random.key(0), measurement, z).x for method in (ddnm, dps)]

    found = run(CHART.encode(start))
    x, u = np.asarray(start).ravel(), np.asarray(start).ravel()
    for t, s in zip(np.asarray(grid)[:-1], np.asarray(grid)[1:]):
        x0 = reference.x0(x, t)
        x = reference.step(x, x0 + pinv @ (y - A @ x0), t, s)
        u0 = reference.x0(u, t)
        r = y - A @ u0
        u = reference.step(u, u0, t, s) + zeta * reference.gain(t)[0].T @ A.T @ r / np.linalg.norm(r)
    assert_allclose(found[0].ravel(), x, rtol=1e-6, atol=1e-7)
    assert_allclose(found[1].ravel(), u, rtol=1e-8, atol=1e-9)
    if the_process is BLURRING:
        assert_allclose(A @ np.asarray(found[0]).ravel(), y, atol=1e-7)  # sigma(0) = 0: consistent at the end


def test_mmps_on_a_blurring_prior_is_the_posterior_mean(problem):
    """`E[x_0 | x_t, y]` of the Gaussian, conditioned on both in pixels."""
    A, y, measurement, x_t = problem
    reference, t = Dense(BLURRING, A, y), 0.3
    guided = posterior.mmps(spectral_gaussian(BLURRING), charts.pull_back(CHART, measurement), 16)
    found = CHART.decode(guided.denoise(CHART.encode(x_t), t))
    B, (_, s) = reference.blur(BLURRING.alpha(t)), reference.scales(t)
    both, prior_covariance = np.concatenate([B, A]), reference.V.T @ np.diag(reference.v) @ reference.V
    noise = np.diag(np.concatenate([s**2, np.full(5, 0.2**2)]))
    gain = prior_covariance @ both.T @ np.linalg.inv(both @ prior_covariance @ both.T + noise)
    seen = np.concatenate([np.asarray(x_t).ravel(), y])
    assert_allclose(found.ravel(), reference.m + gain @ (seen - both @ reference.m), rtol=1e-8, atol=1e-8)


def given(key, measurement, x=None):
    return Solution(x, ())


@pytest.mark.slow
def test_reguidance_on_a_blurring_prior_is_the_linear_flow(problem):
    """Inversion in closed form, then the DPS-ODE by an adaptive solver on the pixels; Heun's order in between."""
    A, y, measurement, candidate = problem
    exact, reference, rho, errors = spectral_gaussian(BLURRING), Dense(BLURRING, A, y), 0.05, []

    def guided(x, t):
        x0 = reference.x0(x, t)
        return x0 + 2 * rho * reference.gain(t)[1] @ A.T @ (y - A @ x0)

    def velocity(t, x):
        (a_rate, s_rate), (a, s) = BLURRING.rates(t), reference.scales(t)
        x0 = guided(x, t)
        return reference.blur(a_rate) @ x0 + float(s_rate) / s * (x - reference.blur(a.reshape(SHAPE)) @ x0)

    for steps in (24, 48):
        grid = times.grid(steps, 0.8)
        refine = as_solver(lambda m: samplers.heun(posterior.dps_score(exact, m, rho)), grid)
        solver = charts.through(CHART, posterior.reguidance(given, refine, exact, grid))
        found = jax.jit(solver)(jax.random.key(0), measurement, CHART.encode(candidate)).x.ravel()
        first, last = float(times.ascending(grid)[0]), float(grid[-2])
        spread = lambda t: np.sqrt(np.sum([x**2 * v for x, v in zip(reference.scales(t), (reference.v, 1))], 0))
        away = reference.blur(BLURRING.alpha(first)) @ (np.asarray(candidate).ravel() - reference.m)
        ratio = (spread(0.8) / spread(first)).reshape(SHAPE)
        latent = reference.blur(BLURRING.alpha(0.8)) @ reference.m + reference.blur(ratio) @ away
        x = solve_ivp(velocity, (0.8, last), latent, rtol=1e-7, atol=1e-8).y[:, -1]
        errors.append(float(np.linalg.norm(found - guided(x, last))))
    assert errors[1] < 0.01 * float(jnp.linalg.norm(candidate)) and np.log2(errors[0] / errors[1]) > 1.6


def generated_variance(name, steps):
    """Of each coefficient after all steps: each step is a slope on the state and noise, by hand."""
    wide = lambda x: np.broadcast_to(np.asarray(x), SHAPE).ravel()
    v, grid = np.asarray(law(HEAT).variance).ravel(), np.linspace(1, 0, steps + 1)
    alphas = np.stack([wide(alpha) for alpha in jax.vmap(HEAT.alpha)(grid)])
    variance = alphas[0] ** 2 * v + 0.01
    for a, b in zip(alphas[:-1], alphas[1:]):
        gain, r = a * v / (a**2 * v + 0.01), a / b
        slope, added = (b * gain + r * (1 - a * gain), 0.01 * (1 - r**2)) if name == "ancestral" else (b * gain, 0.01)
        variance = slope**2 * variance + added
    return variance


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ancestral", "renoise"])
def test_heat_dissipation_generates_by_the_one_step(name):
    """Exact denoiser: the law of the samples is the recursion's; by ancestral steps it tends to the data's own."""
    exact, steps = spectral_gaussian(HEAT), 60
    run = jax.jit(jax.vmap(lambda k: sample(k, getattr(samplers, name)(exact), times.grid(steps)).x))
    z = np.asarray(run(jax.random.split(jax.random.key(0), 4000))).reshape(4000, 16)
    m, v = (np.asarray(x).ravel() for x in (law(HEAT).mean, law(HEAT).variance))
    assert max(oracle.moment_errors(z, oracle.Law(m, np.diag(generated_variance(name, steps))))) < 5
    if name == "ancestral":
        away = [np.abs(generated_variance(name, n) / (v + 0.01) - 1).max() for n in (200, 400, 800)]
        assert_allclose(oracle.slope([200, 400, 800], away), 1.0, atol=0.15)
