"""One DPS step against the published update, computed by hand in NumPy with explicit Jacobians.

The network is linear in x, `eps = W x + b + 1e-4 k u` with k the published index, so that `dx0/dx_t` is
`(I - sqrt(1 - abar) W) / sqrt(abar)`; its second half of channels is the learned variance share `tanh(V x)`.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

import diffinv as di
from diffinv import operators, posterior
from diffinv.operators.base import Operator
from diffinv.posterior import rewards

DIM, ZETA, SIGMA = 4, 0.3, 0.2
RNG = np.random.default_rng(11)
W, V = 0.3 * RNG.standard_normal((DIM, DIM)), RNG.standard_normal((DIM, DIM))
b, u = RNG.standard_normal(DIM), RNG.standard_normal(DIM)
MATRIX = RNG.standard_normal((3, DIM))
BETA = np.linspace(1e-4, 0.02, 1000)
ABAR = np.cumprod(1 - BETA)
CONVENTIONS = tuple(rewards.KNOWN)


def apply(params, x, index):
    eps = jnp.dot(params["W"], x) + params["b"] + 1e-4 * index * params["u"]
    return jnp.concatenate([eps, jnp.tanh(jnp.dot(params["V"], x))]) if "V" in params else eps


def network(learned=True):
    params = {"W": W, "b": b, "u": u} | ({"V": V} if learned else {})
    process = di.process.ddpm()
    params = jax.tree.map(jnp.asarray, params)
    denoise = di.NetworkDenoiser(params, process, apply, "eps", learned_variance=learned)
    return di.Prior(process, denoise, (DIM,))


def published(x, index, z, jacobian, value, convention, clip):
    """`gaussian_diffusion.py` and `condition_methods.py`: `(x_{t-1}, gradient)`.

    `value(x0)` is `y - A(x0)`, `jacobian(x0)` that of A.
    """
    abar, beta = ABAR[index], BETA[index]
    abar_previous = ABAR[index - 1] if index else 1.0
    eps = W @ x + b + 1e-4 * index * u
    x0 = np.sqrt(1 / abar) * x - np.sqrt(1 / abar - 1) * eps
    inside = np.abs(x0) <= 1 if clip else np.ones(DIM, bool)
    J = inside[:, None] * (np.eye(DIM) - np.sqrt(1 - abar) * W) / np.sqrt(abar)
    x0 = np.clip(x0, -1, 1) if clip else x0
    coef1 = beta * np.sqrt(abar_previous) / (1 - abar)
    coef2 = (1 - abar_previous) * np.sqrt(1 - beta) / (1 - abar)
    tilde = BETA * (1 - np.append(1.0, ABAR[:-1])) / (1 - ABAR)
    tilde[0] = tilde[1]
    f = (np.tanh(V @ x) + 1) / 2
    log_variance = f * np.log(beta) + (1 - f) * np.log(tilde[index])
    moved = coef1 * x0 + coef2 * x + (index > 0) * np.exp(0.5 * log_variance) * z
    r = value(x0)
    factor = {"norm": 1 / np.linalg.norm(r), "square": 2.0, "likelihood": 1 / SIGMA**2}[convention]
    gradient = -factor * J.T @ np.real(np.conj(jacobian(x0)).T @ r)
    return moved - ZETA * gradient, gradient


def one_step(measurement, x, index, learned=True, **options):
    """The step of published index `index`: from `t = (index + 1) / 1000` to `index / 1000`; and its noise."""
    key = jax.random.key(index)
    sampler = posterior.dps(network(learned), measurement, ZETA, **options)
    x_s, info = sampler.step(key, jnp.asarray(x), (index + 1) / 1000, index / 1000)
    return np.asarray(x_s), np.asarray(jax.random.normal(key, (DIM,), jnp.float64)), info


def gaussian(operator, y):
    return di.Measurement(operator, jnp.asarray(y), di.GaussianNoise(SIGMA))


def start(index):
    """A state of the size that the chain has at `index`."""
    rng = np.random.default_rng(index)
    return np.sqrt(ABAR[index]) * rng.uniform(-1.5, 1.5, DIM) + np.sqrt(1 - ABAR[index]) * rng.standard_normal(DIM)


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("index", [0, 1, 37, 500, 999])
def test_one_step_is_the_published_update(index, convention, clip):
    y, x = RNG.standard_normal(3), start(index)
    measurement = gaussian(operators.dense(jnp.asarray(MATRIX)), y)
    x_s, z, info = one_step(measurement, x, index, reward=rewards.KNOWN[convention], clip=clip)
    expected, _ = published(x, index, z, lambda x0: MATRIX, lambda x0: y - MATRIX @ x0, convention, clip)
    np.testing.assert_allclose(x_s, expected, rtol=1e-9, atol=1e-9)
    assert (int(info.cost.nfe), int(info.cost.vjps)) == (1, 1)


def test_the_last_step_adds_no_noise_and_the_others_do():
    measurement = gaussian(operators.dense(jnp.asarray(MATRIX)), np.zeros(3))
    sampler = posterior.dps(network(), measurement, ZETA)
    x = jnp.asarray(start(1))
    for index, noisy in ((0, False), (1, True)):
        draws = [sampler.step(jax.random.key(i), x, (index + 1) / 1000, index / 1000)[0] for i in range(2)]
        assert bool(jnp.any(draws[0] != draws[1])) == noisy


def test_the_clamp_has_no_gradient_where_it_clips():
    """All of x0 outside [-1, 1]: the step is the ancestral one alone; without the clamp it is not."""
    index, x = 500, 8 * np.ones(DIM)
    measurement = gaussian(operators.dense(jnp.asarray(MATRIX)), np.zeros(3))
    _, gradient = published(x, index, 0.0, lambda x0: MATRIX, lambda x0: -MATRIX @ x0, "norm", True)
    np.testing.assert_array_equal(gradient, 0)
    clipped, z, _ = one_step(measurement, x, index, clip=True)
    ancestral = published(x, index, z, lambda x0: 0 * MATRIX, lambda x0: 1 + MATRIX @ x0, "norm", True)[0]
    np.testing.assert_allclose(clipped, ancestral, rtol=1e-10)
    assert np.abs(one_step(measurement, x, index)[0] - clipped).max() > 0.1


def test_the_clamp_of_the_network_is_the_same():
    """`NetworkDenoiser(clip=True)` and `dps(clip=True)` are one thing."""
    x = start(500) * 2
    measurement = gaussian(operators.dense(jnp.asarray(MATRIX)), np.ones(3))
    prior = network()
    inside = prior.replace(denoise=prior.denoise.replace(clip=True))
    steps = [
        posterior.dps(p, measurement, ZETA, clip=clip).step(jax.random.key(0), jnp.asarray(x), 0.501, 0.5)[0]
        for p, clip in ((inside, False), (prior, True))
    ]
    np.testing.assert_allclose(*steps, rtol=1e-12)
    assert jnp.abs(prior.denoise(jnp.asarray(x), 0.501)).max() > 1.1


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_eta_is_that_of_ddim_without_a_learned_variance(eta):
    """`x_s = sqrt(abar_s) x0 + sqrt(1 - abar_s - c^2) eps + c z` (Song et al. 2021, eq. 12), minus the gradient."""
    index, y = 300, RNG.standard_normal(3)
    x, abar, abar_s = start(300), ABAR[300], ABAR[299]
    x_s, z, _ = one_step(gaussian(operators.dense(jnp.asarray(MATRIX)), y), x, index, learned=False, eta=eta)
    eps = W @ x + b + 1e-4 * index * u
    x0 = (x - np.sqrt(1 - abar) * eps) / np.sqrt(abar)
    c = eta * np.sqrt((1 - abar_s) / (1 - abar) * (1 - abar / abar_s))
    r = y - MATRIX @ x0
    gradient = -(np.eye(DIM) - np.sqrt(1 - abar) * W).T @ MATRIX.T @ r / np.sqrt(abar) / np.linalg.norm(r)
    expected = np.sqrt(abar_s) * x0 + np.sqrt(1 - abar_s - c**2) * eps + c * z - ZETA * gradient
    np.testing.assert_allclose(x_s, expected, rtol=1e-9, atol=1e-9)


@struct.dataclass
class Bent(Operator):
    """`A(x) = tanh(M x)`, with the Jacobian `diag(1 - A(x)^2) M`."""

    matrix: jax.Array

    @property
    def shape(self):
        return (DIM,)

    def __call__(self, x):
        return jnp.tanh(jnp.dot(self.matrix, x))


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_the_gradient_goes_through_a_nonlinear_operator(convention):
    y, x, index = np.array([0.3, -0.5, 0.1]), start(200), 200
    x_s, z, info = one_step(gaussian(Bent(jnp.asarray(MATRIX)), y), x, index, reward=rewards.KNOWN[convention])
    jacobian = lambda x0: (1 - np.tanh(MATRIX @ x0) ** 2)[:, None] * MATRIX
    expected, _ = published(x, index, z, jacobian, lambda x0: y - np.tanh(MATRIX @ x0), convention, False)
    np.testing.assert_allclose(x_s, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_a_complex_measurement_has_a_real_gradient(convention):
    A = RNG.standard_normal((3, DIM)) + 1j * RNG.standard_normal((3, DIM))
    y, x, index = RNG.standard_normal(3) + 1j * RNG.standard_normal(3), start(400), 400
    x_s, z, _ = one_step(gaussian(operators.dense(jnp.asarray(A)), y), x, index, reward=rewards.KNOWN[convention])
    assert x_s.dtype == np.float64
    expected, _ = published(x, index, z, lambda x0: A, lambda x0: y - A @ x0, convention, False)
    np.testing.assert_allclose(x_s, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("clip", [False, True])
def test_the_residual_told_is_that_of_the_denoised_mean(clip):
    index, x, y = 250, start(250) * 1.5, RNG.standard_normal(3)
    _, _, info = one_step(gaussian(operators.dense(jnp.asarray(MATRIX)), y), x, index, clip=clip)
    x0 = np.sqrt(1 / ABAR[index]) * x - np.sqrt(1 / ABAR[index] - 1) * (W @ x + b + 1e-4 * index * u)
    x0 = np.clip(x0, -1, 1) if clip else x0
    np.testing.assert_allclose(info.residual, np.linalg.norm(y - MATRIX @ x0), rtol=1e-9)


def test_a_met_measurement_gives_no_nan():
    """At `y = A x0` the norm has no direction: the step is the ancestral one, and finite."""
    prior, x = network(), jnp.asarray(start(300))
    operator = operators.dense(jnp.asarray(MATRIX))
    measurement = gaussian(operator, operator(prior.denoise(x, 0.301)))
    moved = [posterior.dps(prior, measurement, z).step(jax.random.key(0), x, 0.301, 0.3)[0] for z in (0.0, 1.0)]
    assert np.isfinite(moved[1]).all()
    np.testing.assert_array_equal(*moved)
