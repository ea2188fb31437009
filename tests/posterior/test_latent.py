"""Latent and blind methods: one step by NumPy through a curved decoder, and what they share with pixel methods."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffinv as di
from diffinv import charts, posterior, samplers, times
from diffinv.operators.base import dense
from diffinv.operators.pixel import Mask
from diffinv.posterior import rewards
from diffinv.posterior.blind import Pair
from diffinv.posterior.latent import CountedState
from posterior.counting import CountingOperator, counted, counting, paid, told
from posterior.published import DIM, MATRIX, PINV, X, Y, ancestral, assert_close, at, levels, normal, problem, step

KEY, T, NEXT = jax.random.key(7), 0.5, 0.35
BEND = 0.3
CHART = charts.latent(lambda x: x - 0.2 * x**2, lambda z: z + BEND * jnp.sin(z), (DIM,))


def decode(z):
    return z + BEND * np.sin(z), np.diag(1 + BEND * np.cos(z))


def test_psld_is_the_published_update():
    prior, m = problem()
    x, info = step(posterior.psld(prior, m, CHART, 0.2, 0.3, eta=0.5), KEY, T, NEXT)
    now = at(T)
    x0, D = decode(now.x0)
    r = Y - MATRIX @ x0
    glued = x0 + PINV @ r
    gap = glued - 0.2 * glued**2 - now.x0
    E = np.diag(1 - 0.4 * glued)
    inner = E @ (np.eye(DIM) - PINV @ MATRIX) @ D - np.eye(DIM)
    gradient = now.J.T @ (0.2 * inner.T @ gap / np.linalg.norm(gap) - 0.3 * D.T @ MATRIX.T @ r / np.linalg.norm(r))
    mean, c = ancestral(now, X, NEXT, 0.5)
    assert_close(x, mean + c * normal(KEY, DIM) - gradient)
    assert_close(info.residual, np.linalg.norm(r))
    assert_close(posterior.psld(prior, m, CHART).final(KEY, jnp.asarray(X)), decode(X)[0])


def fitted(v, space, steps, lr):
    """Adam on the misfit, from a code or from a picture."""
    first, second = np.zeros(DIM), np.zeros(DIM)
    for k in range(1, steps + 1):
        picture, D = decode(v) if space == "latent" else (v, np.eye(DIM))
        g = -2 * D.T @ MATRIX.T @ (Y - MATRIX @ picture)
        first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g**2
        v = v - lr * first / (1 - 0.9**k) / (np.sqrt(second / (1 - 0.999**k)) + 1e-8)
    return v


CASES = [
    ("latent", 9, T), ("pixel", 9, T), ("latent", 3, T), ("latent", 9, 0.8), ("staged", 9, T), ("staged", 9, 0.4),
    ("staged", 3, 0.0),
]  # fmt: skip


@pytest.mark.parametrize(("space", "steps", "t"), CASES)
def test_resample_is_the_published_update(space, steps, t):
    """Hard consistency in every tenth step below 2/3: of pixels, and below `turn` of codes, as at the very end."""
    prior, m = problem()
    fits = {
        "iterations": 5,
        "lr": 0.01,
        "pixel_iterations": 4,
        "pixel_lr": 0.02,
        "turn": {"latent": 1.0, "pixel": 0.0, "staged": 0.45}[space],
    }
    sampler = posterior.resample(prior, m, CHART, 0.5, **fits)
    (t, to), last = (T, 0.0) if t == 0 else (t, NEXT), t == 0
    state, _ = step(sampler, KEY, t, to, CountedState(jnp.asarray(X), jnp.int32(steps)))
    now, (a_s, _) = at(t), levels(to)
    x0, D = decode(now.x0)
    r = Y - MATRIX @ x0
    gradient = -now.J.T @ D.T @ MATRIX.T @ r / np.linalg.norm(r)
    moved = ancestral(now, X, to, 0.0)[0] - 0.5 * now.alpha**2 * gradient
    if last:
        moved = fitted(moved, "latent", 5, 0.01)
    elif steps == 9 and t < 2 / 3:
        codes = space == "latent" or (space == "staged" and t < 0.45)
        v = fitted(now.x0, "latent", 5, 0.01) if codes else fitted(x0, "pixel", 4, 0.02)
        z0 = v if codes else v - 0.2 * v**2
        k = 40 * (1 - a_s**2) / (1 - now.alpha**2) * (1 - now.alpha**2 / a_s**2)
        mean = (k * a_s * z0 + (1 - a_s**2) * moved) / (k + 1 - a_s**2)
        moved = mean + np.sqrt(1 / (1 / k + 1 / (1 - a_s**2))) * normal(KEY, DIM)
    np.testing.assert_allclose(state.z, moved, rtol=1e-6)
    assert int(state.steps) == steps + 1


def test_latent_dps_is_dps_within_a_chart():
    """LDPS: the gradient goes through the decoder, the sample is decoded."""
    prior, m = problem()
    sampler = charts.within(CHART, lambda m: posterior.dps(prior, m, 0.3))(m)
    z, _ = step(sampler, KEY, T, NEXT)
    now = at(T)
    x0, D = decode(now.x0)
    r = Y - MATRIX @ x0
    mean, c = ancestral(now, X, NEXT)
    assert_close(z, mean + c * normal(KEY, DIM) + 0.3 * now.J.T @ D.T @ MATRIX.T @ r / np.linalg.norm(r))
    assert_close(sampler.final(KEY, jnp.asarray(X)), decode(X)[0])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["psld", "resample"])
def test_latent_methods_come_nearer_to_the_measurement(name):
    """Whole runs, batched: finite, decoded, and a smaller residual than the unconditional codes'."""
    prior, m = problem()
    options = {"gamma": 0.02, "omega": 0.2}
    if name == "resample":
        options = {"every": 2, "iterations": 60, "lr": 0.05, "pixel_iterations": 60, "pixel_lr": 0.05}
    solver = di.as_solver(lambda m: getattr(posterior, name)(prior, m, CHART, **options), times.grid(30, power=2.0))
    plain = di.as_solver(lambda m: samplers.ddim(prior, 1.0), times.grid(30, power=2.0))
    keys = jax.random.split(KEY, 20)
    x = jax.jit(jax.vmap(lambda k: (solver(k, m).x, plain(k, m).x)))(keys)
    residual, before = (np.linalg.norm(Y - np.asarray(v) @ MATRIX.T, axis=1).mean() for v in (x[0], decode(x[1])[0]))
    assert np.isfinite(x[0]).all() and residual < 0.75 * before


LATENT = {
    "psld": (posterior.psld, {}),
    "resample": (posterior.resample, {"every": 2, "iterations": 3, "pixel_iterations": 4}),
    "resample pixel": (posterior.resample, {"every": 3, "iterations": 2, "pixel_iterations": 2, "turn": 0.0}),
}


@pytest.mark.parametrize("name", LATENT)
def test_the_cost_told_is_the_cost_paid(name):
    """Evaluations, pullbacks and calls of the operator, counted as they run; hard consistency in some steps alone."""
    (function, options), (prior, m) = LATENT[name], problem()
    solution, tally = counted(lambda p, m: function(p, m, CHART, **options), prior, m, times.grid(8), KEY)
    assert paid(tally) == told(solution) and paid(tally)[:2] == (8, 8)
    assert len(set(solution.info.cost.calls.tolist())) == {"psld": 1, "resample": 3, "resample pixel": 2}[name]


KERNEL = np.array([0.4, -0.2, 0.7])


def build(kernel):
    """`A(k) x = (k_0 + k_1 i + k_2^2) x_i`: curved in the kernel."""
    return Mask(kernel[0] + kernel[1] * jnp.arange(float(DIM)) + kernel[2] ** 2, (DIM,))


def test_blind_dps_is_the_published_update():
    """Both gradients of the one norm, the kernel's with its 1-norm; two chains of their own noise."""
    prior, _ = problem()
    kernel_prior = di.gaussian(di.process.VP(), jnp.zeros(3), 0.5 * jnp.eye(3))
    y = np.linspace(-1, 1, DIM)
    m = di.Measurement(dense(jnp.eye(DIM)), jnp.asarray(y), di.GaussianNoise(0.1))
    sampler = posterior.blind_dps(prior, m, kernel_prior, build, 0.3, 0.2, sparsity=0.05)
    pair, info = step(sampler, KEY, T, NEXT, Pair(jnp.asarray(X), jnp.asarray(KERNEL)))
    now = at(T)
    gain = now.alpha * 0.5 / (now.alpha**2 * 0.5 + now.sigma**2)
    k0 = gain * KERNEL
    weights = k0[0] + k0[1] * np.arange(DIM) + k0[2] ** 2
    r = y - weights * now.x0
    unit = r / np.linalg.norm(r)
    image_key, kernel_key = jax.random.split(KEY)
    mean, c = ancestral(now, X, NEXT)
    assert_close(pair.image, mean + c * normal(image_key, DIM) + 0.3 * now.J.T @ (weights * unit))
    rows = np.stack([np.ones(DIM), np.arange(DIM), 2 * k0[2] * np.ones(DIM)])
    gradient = gain * (-rows @ (now.x0 * unit) + 0.05 * np.sign(k0))
    mean, c = ancestral(now._replace(x0=k0, eps=(KERNEL - now.alpha * k0) / now.sigma), KERNEL, NEXT)
    assert_close(pair.kernel, mean + c * normal(kernel_key, 3) - 0.2 * gradient)
    assert_close(info.kernel, pair.kernel)
    assert (int(info.cost.nfe), int(info.cost.vjps)) == (2, 2)


@pytest.mark.parametrize("reward", [rewards.norm, rewards.likelihood])
def test_blind_dps_charges_both_networks_and_every_call(reward):
    """The operator is the one that it builds of the kernel; the measurement's own is never called."""
    tally = collections.Counter()
    prior, _ = problem()
    kernel_prior = counting(di.gaussian(di.process.VP(), jnp.zeros(3), 0.5 * jnp.eye(3)), tally)
    m = di.Measurement(dense(jnp.eye(DIM)), jnp.linspace(-1.0, 1.0, DIM), di.GaussianNoise(0.1))
    own = lambda kernel: CountingOperator(build(kernel), tally)
    method = lambda p, m: posterior.blind_dps(p, m, kernel_prior, own, 0.1, 0.1, reward=reward)
    solution, tally = counted(method, prior, m, times.grid(5), KEY, tally)
    assert paid(tally) == told(solution) == (10, 10, 15)


@pytest.mark.slow
def test_blind_deblurring_explains_the_measurement():
    """A smooth picture behind an unknown 3 x 3 blur: the guided pair fits y far better than two unguided chains."""
    shape, process = (8, 8, 1), di.process.VP()
    prior = di.gaussian_field(process, jnp.zeros(shape), 1 / (0.05 + di.process.dct_frequencies(8, 8)))
    mean = di.operators.gaussian_kernel(3, 0.8)
    kernel_prior = di.gaussian(process, mean[:, :, None], 0.01 * jnp.eye(9))
    blur = lambda kernel: di.operators.blur(shape, kernel[:, :, 0])
    truth = mean + 0.1 * jax.random.normal(jax.random.key(1), (3, 3))
    m = di.measure(KEY, blur(truth[:, :, None]), prior.denoise.sample(jax.random.key(2)), 0.02)

    def run(key, zeta):
        sampler = posterior.blind_dps(prior, m, kernel_prior, blur, zeta, 0.05 * zeta)
        solution = di.sample(key, sampler, times.grid(60))
        return solution, jnp.linalg.norm(m.y - blur(solution.info.kernel[-1])(solution.x))

    solution, residual = jax.jit(jax.vmap(jax.vmap(run, (0, None)), (None, 0)))(
        jax.random.split(KEY, 8), jnp.asarray([0.0, 0.4])
    )
    assert solution.info.kernel.shape == (2, 8, 60, 3, 3, 1)
    assert jnp.isfinite(solution.x).all() and residual[1].mean() < 0.5 * residual[0].mean()
