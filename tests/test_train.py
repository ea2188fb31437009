"""Training: losses against closed forms, the trainer against by-hand updates, resumption bit by bit."""

import jax
import jax.numpy as jnp
import nets
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import struct
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from diffinv import prior, process, train

SIGMA_DATA = 0.5


@pytest.fixture
def promoting():
    """Optax's Adam raises a Python float to an int32 step, which strict promotion refuses."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@struct.dataclass
class Wiener:
    """The exact denoiser of N(0, sigma_data^2), times `gain`."""

    gain: jax.Array
    process: process.Process

    def __call__(self, x, t):
        alpha, variance = self.process.alpha(t), SIGMA_DATA**2
        return self.gain * alpha * variance / (alpha**2 * variance + self.process.sigma(t) ** 2) * x


def gaussian_data(key, count=64, shape=(8, 8, 3)):
    return SIGMA_DATA * jax.random.normal(key, (count, *shape), jnp.float32)


@pytest.mark.parametrize("forward", [process.EDM(), process.VP()])
def test_the_exact_denoiser_scores_one_at_every_level(key, forward):
    levels = jnp.asarray([0.05, 0.5, 5.0], jnp.float32)
    loss = jax.jit(train.noise_levels_loss(lambda g: Wiener(g, forward), forward, levels))
    np.testing.assert_allclose(loss(key, jnp.float32(1), gaussian_data(key)), 1.0, rtol=0.05)
    assert np.all(loss(key, jnp.float32(1.2), gaussian_data(key)) > 1.005)


@pytest.mark.parametrize("forward", [process.EDM(), process.VP()])
def test_denoising_loss_of_the_exact_and_of_the_empty_denoiser(key, forward):
    loss = jax.jit(train.denoising_loss(lambda g: Wiener(g, forward), forward, log_sigma_mean=-1.0, log_sigma_std=0.4))
    np.testing.assert_allclose(loss(key, jnp.float32(1), gaussian_data(key)), 1.0, rtol=0.03)
    inverse_square = np.exp(2.0 + 2 * 0.4**2)
    expected = 1 + SIGMA_DATA**2 * inverse_square
    found = loss(key, jnp.float32(0), gaussian_data(key, 2048, (2, 2, 3)))
    np.testing.assert_allclose(found, expected, rtol=0.1)


def quadratic(key, params, batch):
    return 0.5 * jnp.sum((params["w"] - jnp.mean(batch, axis=0)) ** 2)


def test_steps_are_gradient_descent(key):
    made = train.trainer(quadratic, optax.sgd(0.5), ema=0.0)
    state = made.init({"w": jnp.zeros(2, jnp.float32)})
    state, metrics = made.step(key, state, jnp.asarray([[2.0, 4.0]], jnp.float32))
    np.testing.assert_allclose(state.params["w"], [1, 2])
    np.testing.assert_allclose(metrics.grad_norm, np.sqrt(20), rtol=1e-6)
    np.testing.assert_allclose(metrics.loss, 10)
    assert (int(state.step), int(state.skipped)) == (1, 0)


def test_average_has_its_closed_form(key):
    made = train.trainer(quadratic, optax.sgd(0.5), ema=0.3)
    state, batch = made.init({"w": jnp.ones(1, jnp.float32)}), jnp.zeros((1, 1), jnp.float32)
    expected = 1.0
    for n in range(6):
        state, _ = made.step(key, state, batch)
        rate = min(0.3, (1 + n) / (10 + n))
        expected = rate * expected + (1 - rate) * 0.5 ** (n + 1)
        np.testing.assert_allclose(state.ema["w"], [expected], rtol=1e-5)


def test_warm_up_of_the_average():
    rates = [float(train.ema_rate(0.999, jnp.asarray(n))) for n in (0, 90, 10**6)]
    np.testing.assert_allclose(rates, [0.1, 0.91, 0.999], rtol=1e-6)


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_a_step_that_is_not_finite_is_left_out_and_counted(key, poison, promoting):
    made = train.trainer(quadratic, optax.adam(0.1), ema=0.9)
    step, good = jax.jit(made.step), jnp.ones((2, 3), jnp.float32)
    before, _ = step(key, made.init({"w": jnp.zeros(3, jnp.float32)}), good)
    after, metrics = step(key, before, good.at[0, 0].set(poison))
    for name in ("params", "opt_state", "ema"):
        jax.tree.map(np.testing.assert_array_equal, getattr(after, name), getattr(before, name))
    assert (int(after.step), int(after.skipped), int(metrics.skipped)) == (2, 1, 1)
    last, _ = step(key, after, good)
    straight, _ = step(key, before, good)
    jax.tree.map(np.testing.assert_array_equal, last.params, straight.params)
    jax.tree.map(np.testing.assert_array_equal, last.ema, straight.ema)


@pytest.fixture(scope="module")
def network():
    """A tiny network's trainer and its first state."""
    net, params = nets.tiny(plain_conv=True)
    forward = process.EDM()
    loss = train.denoising_loss(lambda p: prior.NetworkDenoiser(p, forward, net.apply), forward)
    made = train.trainer(loss, optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3)))
    return made, made.init(params)


def test_resumed_run_is_bitwise_the_same(key, network, tmp_path, promoting):
    made, state = network
    step, batch = jax.jit(made.step), gaussian_data(key, 8)
    advance = lambda state: step(jax.random.fold_in(key, state.step), state, batch)[0]
    half = advance(advance(state))
    options = ocp.CheckpointManagerOptions(enable_async_checkpointing=False)
    with ocp.CheckpointManager(tmp_path, options=options) as manager:
        manager.save(2, args=ocp.args.StandardSave(half))
        restored = manager.restore(2, args=ocp.args.StandardRestore(jax.eval_shape(lambda: half)))
    straight, resumed = advance(advance(half)), advance(advance(restored))
    assert int(resumed.step) == 4
    jax.tree.map(np.testing.assert_array_equal, straight, resumed)
    assert any(np.any(a != b) for a, b in zip(jax.tree.leaves(straight.params), jax.tree.leaves(half.params)))


def test_sharded_gradient_is_the_gradient(key, network, promoting):
    made, state = network
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    batch, step = gaussian_data(key, 8), jax.jit(made.step)
    _, one = step(key, state, batch)
    whole = jax.device_put(state, NamedSharding(mesh, PartitionSpec()))
    _, many = step(key, whole, jax.device_put(batch, NamedSharding(mesh, PartitionSpec("data"))))
    np.testing.assert_allclose(many.loss, one.loss, rtol=1e-5)
    np.testing.assert_allclose(many.grad_norm, one.grad_norm, rtol=1e-4)
    assert float(one.grad_norm) > 0


def test_network_learns(key, network, promoting):
    made, state = network
    step, losses = jax.jit(made.step), []
    for i in range(30):
        state, metrics = step(jax.random.fold_in(key, i), state, gaussian_data(jax.random.fold_in(key, i), 16) + 0.5)
        losses.append(float(metrics.loss))
    assert np.mean(losses[-5:]) < 0.95 * np.mean(losses[:5])
