"""Training: losses against closed forms, the trainer against by-hand updates, resumption bit by bit."""

import jax
import jax.numpy as jnp
import nets
import numpy as np
import optax
import pytest
from flax import struct

from diffinv import prior, process, sharding, train
from diffinv.weights import snapshots

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
        np.testing.assert_allclose(state.ema[0]["w"], [expected], rtol=1e-5)


def test_warm_up_of_the_average():
    rates = [float(train.warmed_rate(0.999, jnp.asarray(n))) for n in (0, 90, 10**6)]
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


def test_several_averages_are_kept_at_once(key):
    made = train.trainer(quadratic, optax.sgd(0.5), ema=(0.0, 0.3))
    alone = [train.trainer(quadratic, optax.sgd(0.5), ema=rate) for rate in (0.0, 0.3)]
    step, batch, params = jax.jit(made.step), jnp.zeros((1, 1), jnp.float32), {"w": jnp.ones(1, jnp.float32)}
    state, singles = made.init(params), [each.init(params) for each in alone]
    for _ in range(3):
        state = step(key, state, batch)[0]
        singles = [each.step(key, single, batch)[0] for each, single in zip(alone, singles)]
    np.testing.assert_allclose(state.ema[0]["w"], state.params["w"], rtol=1e-6)
    for average, single in zip(state.ema, singles, strict=True):
        np.testing.assert_allclose(average["w"], single.ema[0]["w"], rtol=1e-6)


def test_half_life_halves():
    rate = train.half_life(examples=6400, batch=64)
    np.testing.assert_allclose(rate**100, 0.5, rtol=1e-12)
    with pytest.raises(ValueError, match="examples is 0"):
        train.half_life(0, 64)


@pytest.mark.parametrize(("change", "word"), [({"ema": 1.0}, "ema is 1.0"), ({"accumulate": 0}, "accumulate is 0")])
def test_bad_arguments_are_named(change, word):
    with pytest.raises(ValueError, match=word):
        train.trainer(quadratic, optax.sgd(0.5), **change)


def mean_square(key, params, batch):
    return 0.5 * jnp.mean(jnp.sum((params["w"][None] - batch) ** 2, -1))


def test_accumulated_gradients_are_those_of_the_whole_batch(key):
    batch, params = jax.random.normal(key, (12, 3), float), {"w": jnp.ones(3)}
    whole, parts = (train.trainer(mean_square, optax.sgd(0.1), accumulate=n) for n in (1, 4))
    (one, seen), (many, told) = (jax.jit(each.step)(key, each.init(params), batch) for each in (whole, parts))
    np.testing.assert_allclose(many.params["w"], one.params["w"], rtol=1e-12)
    np.testing.assert_allclose(jax.tree.leaves(told), jax.tree.leaves(seen), rtol=1e-12)


def test_a_poisoned_slice_spoils_the_whole_step(key):
    made = train.trainer(mean_square, optax.sgd(0.1), accumulate=2)
    state, metrics = made.step(key, made.init({"w": jnp.ones(3)}), jnp.ones((4, 3)).at[1, 0].set(np.nan))
    np.testing.assert_array_equal(state.params["w"], 1.0)
    assert int(metrics.row) == 1


def test_skipped_steps_in_a_row_are_counted(key):
    made = train.trainer(mean_square, optax.sgd(0.1))
    state, rows = made.init({"w": jnp.ones(3)}), []
    for poison in (np.nan, np.inf, 0.0, np.nan):
        state, metrics = made.step(key, state, jnp.full((2, 3), poison))
        rows.append((int(metrics.row), int(metrics.skipped)))
    assert rows == [(1, 1), (2, 2), (0, 2), (1, 3)]


def test_labels_are_dropped_at_the_rate(key):
    labels = jax.vmap(lambda k: train.drop_label(k, jnp.asarray(3, jnp.int32), 7, 0.25))(jax.random.split(key, 4000))
    assert labels.dtype == jnp.int32 and set(np.unique(labels)) == {3, 7}
    assert abs(np.mean(np.asarray(labels) == 7) - 0.25) < 5 * np.sqrt(0.25 * 0.75 / 4000)


def losses():
    """The training loss of `nets.Mini`, and its variables."""
    net, params = nets.mini()
    forward = process.EDM()
    return train.denoising_loss(lambda p: prior.NetworkDenoiser(p, forward, net.apply), forward), params


@pytest.mark.slow
def test_conditions_in_the_batch_reach_the_network(key):
    loss, params = losses()
    images, loss = gaussian_data(key, 8, (4, 4, 1)), jax.jit(loss)
    plain = loss(key, params, images)
    zero, one = (loss(key, params, {"image": images, "label": jnp.full(8, i, jnp.int32)}) for i in (0, 1))
    np.testing.assert_allclose(zero, plain, rtol=1e-6)
    assert abs(float(one - zero)) > 1e-4


@pytest.fixture(scope="module")
def network():
    """A small network's trainer, its first state and its compiled step."""
    loss, params = losses()
    made = train.trainer(loss, optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-2)))
    return made.init(params), jax.jit(made.step)


def test_resumed_run_is_bitwise_the_same(key, network, tmp_path, promoting):
    (state, step), batch = network, gaussian_data(key, 8, (4, 4, 1))
    advance = lambda state: step(jax.random.fold_in(key, state.step), state, batch)[0]
    half = advance(advance(state))
    like = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding), half)
    with snapshots.snapshots(tmp_path / "run") as manager:
        assert snapshots.save_snapshot(manager, 2, half, {"data": {"next_index": 2}})
    with snapshots.snapshots(tmp_path / "run") as manager:
        found = snapshots.latest(manager, like)
    restored, about = found.state, found.about
    straight, resumed = advance(advance(half)), advance(advance(restored))
    assert int(resumed.step) == 4 and about == {"data": {"next_index": 2}}
    jax.tree.map(np.testing.assert_array_equal, straight, resumed)
    assert any(np.any(a != b) for a, b in zip(jax.tree.leaves(straight.params), jax.tree.leaves(half.params)))


@pytest.mark.parametrize("fsdp", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_sharded_step_is_the_step(key, network, promoting, fsdp):
    """SGD would show a gradient that is wrong by the device count, and so does the norm; sums differ in order: 1e-4."""
    state, step = network
    mesh, batch = sharding.mesh(fsdp=fsdp), gaussian_data(key, 16, (4, 4, 1))
    alone, one = step(key, state, batch)
    placed = jax.device_put(state, sharding.fsdp(mesh, state))
    after, many = step(key, placed, jax.device_put(batch, sharding.rows(mesh)))
    np.testing.assert_allclose(many.loss, one.loss, rtol=1e-5)
    np.testing.assert_allclose(many.grad_norm, one.grad_norm, rtol=1e-4)
    assert float(one.grad_norm) > 0
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), after.ema, alone.ema)


def test_network_learns(key, network, promoting):
    state, step = network
    losses = []
    for i in range(200):
        batch = gaussian_data(jax.random.fold_in(key, i), 16, (4, 4, 1)) + 0.5
        state, metrics = step(jax.random.fold_in(key, i), state, batch)
        losses.append(float(metrics.loss))
    assert np.mean(losses[-20:]) < 0.8 * np.mean(losses[:20])


def towards(key, params, batch, context):
    """Pulls to the frozen weights, the first average and the step, so that each shows in the update."""
    target = context.frozen["w"] + 10 * context.ema[0]["w"] + 100 * context.step.astype(jnp.float32)
    return 0.5 * jnp.sum((params["w"] - target) ** 2) + 0 * jnp.sum(batch)


def test_a_contextual_loss_sees_step_averages_and_the_frozen_copy(key):
    made = train.trainer(towards, optax.sgd(1.0), ema=lambda n: 0.5, contextual=True, refresh=2)
    state, batch = made.init({"w": jnp.ones(1, jnp.float32)}), jnp.zeros((1, 1), jnp.float32)
    w, average, frozen = 1.0, 1.0, 1.0
    for n in range(5):
        frozen = w if n and n % 2 == 0 else frozen
        w = frozen + 10 * average + 100 * n
        average = 0.5 * (average + w)
        state, _ = made.step(key, state, batch)
        np.testing.assert_allclose([state.params["w"][0], state.ema[0]["w"][0]], [w, average], rtol=1e-6)
        np.testing.assert_allclose(state.frozen["w"], [frozen])


def test_the_frozen_copy_may_be_given_and_then_stays(key):
    made = train.trainer(towards, optax.sgd(1.0), contextual=True, accumulate=2)
    given, batch = {"w": jnp.full(1, 7.0, jnp.float32)}, jnp.zeros((2, 1), jnp.float32)
    state = made.init({"w": jnp.zeros(1, jnp.float32)}, given)
    np.testing.assert_allclose(made.step(key, state, batch)[0].params["w"], [7])
    np.testing.assert_allclose(made.step(key, state, batch)[0].frozen["w"], [7])


@pytest.mark.parametrize("change", [{"refresh": -1, "contextual": True}, {"refresh": 3}])
def test_refresh_is_checked(change):
    with pytest.raises(ValueError, match="refresh is"):
        train.trainer(towards, optax.sgd(1.0), **change)
