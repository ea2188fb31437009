"""CTM, IMM and flow maps: the lemmas that tie them to CT and CD, the exact map, and the network's second time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import PROCESSES, VARIANCES, GaussianMap, GaussianMean, context, every_process, gaussian_data, pair, two
from numpy.testing import assert_allclose, assert_array_equal
from oracle import slope

import diffinv as di
from diffinv import consistency, process, samplers, times
from diffinv.consistency import maps
from diffinv.prior import NetworkDenoiser

LOG = jnp.log(VARIANCES)


@pytest.mark.slow
@every_process
def test_jumps_of_the_exact_map_compose_and_sample_exactly(name, key):
    """Any grid gives the same end, `Q_0 / Q_t x`; gamma = 1 is `renoise`, noise for noise."""
    forward = PROCESSES[name]
    prior = di.Prior(forward, GaussianMap(LOG, forward), (4,))
    x, grid = jnp.asarray([0.3, -0.7, 1.1, 0.2]), jnp.asarray([0.9, 0.5, 0.2, 0.0])

    @jax.jit
    def ends():
        run = lambda sampler: di.sample(key, sampler, grid, x).x
        leaps = [run(consistency.leap(prior, gamma)) for gamma in (0.0, 1.0)]
        return prior.denoise(x, 0.9), leaps, run(samplers.renoise(prior))

    end, (straight, noisy), expected = ends()
    assert_allclose(straight, end, rtol=1e-12)
    assert_allclose(noisy, expected, rtol=1e-9)


@pytest.mark.slow
def test_trajectory_models_contain_distillation(key):
    """Grid t, u, 0 and one step of the teacher: where s = 0 the loss is CD's, which is one pair in four."""
    forward, batch = process.EDM(2.0), gaussian_data(key, 256)
    model, teacher = lambda log: GaussianMap(log, forward), lambda log: GaussianMean(log, forward)
    grid, log = jnp.asarray([0.6, 0.4, 0.0]), LOG + 0.2
    trajectory = consistency.ctm(model, forward, grid, teacher, jumps=1, denoising=0.0)
    distillation = consistency.cd(model, forward, pair(0.6, 0.4), two, teacher, target=None)

    @jax.jit
    def each(loss_key):
        about = context(ema=(log + 0.1,), frozen=LOG)
        both = lambda k, x0: [loss(k, log, x0[None], about) for loss in (trajectory, distillation)]
        return jax.vmap(both)(jax.random.split(loss_key, 256), batch)

    found, expected = each(key)
    share = np.mean(np.isclose(found, expected, rtol=1e-10))
    assert abs(share - 0.25) < 5 * np.sqrt(0.25 * 0.75 / 256)


@pytest.mark.slow
def test_trajectory_models_vanish_at_the_exact_map(key):
    """Heun's h^3 over the whole grid leaves order 2, so the square falls at order 4; the denoising part scores 1."""
    forward, x0 = process.Flow(), gaussian_data(key, 64, jnp.full(4, 0.25))
    log = jnp.log(jnp.full(4, 0.25))
    model, teacher = lambda log: GaussianMap(log, forward), lambda log: GaussianMean(log, forward)
    about = context(ema=(log,), frozen=log)

    def measured(n, denoising, metric=consistency.square):
        grid = times.grid(n, 0.9, 2.0)
        loss = consistency.ctm(model, forward, grid, teacher, n - 1, metric, denoising)
        return jax.jit(loss)(key, log, x0, about)

    losses = np.asarray([measured(n, 0.0) for n in (8, 32)])
    assert slope(np.asarray([8, 32]), losses) > 3.5 and losses[-1] < 1e-6
    only_denoising = measured(8, 1.0, lambda a, b: jnp.zeros(()))
    assert abs(only_denoising - 1) < 5 * np.sqrt(2 / x0.size)


@pytest.mark.slow
def test_moment_matching_of_single_samples_is_consistency_training(key):
    """M = 1 and `k = -|a - b|^2`: `2 w |G(x_t, t, s) - sg G(x_r, r, s)|^2`, and so is its gradient."""
    forward, x0 = process.ResidualShift(0.5), gaussian_data(key, 1)
    minus = lambda a, b, scale: -jnp.sum((a - b) ** 2)
    model, log = lambda log: GaussianMap(log, forward), LOG + 0.3
    loss = consistency.imm(model, forward, group=1, kernel=minus, halvings=3)

    def by_hand(log):
        clock, noise, _ = jax.random.split(jax.random.split(key, 1)[0], 3)
        t, r, s = maps._imm_times(forward, clock, (0.006, 0.994), 3, float)
        z = jax.random.normal(jax.random.split(noise, 1)[0], (4,), float)
        at = lambda t: (1 - t) * x0[0] + 0.5 * t * z
        go = lambda log, t: maps.jump(forward, at(t), model(log).to(s)(at(t), t), t, s)
        error = jnp.sum((go(log, t) - jax.lax.stop_gradient(go(log, r))) ** 2)
        snr = ((1 - t) / t) ** 2  # IMM's own: noise in units of sigma_data
        weight = 0.5 * jax.nn.sigmoid(5 - jnp.log(snr)) * 2 / (t * (1 - t)) * (1 - t) / ((1 - t) ** 2 + t**2)
        return 2 * weight * error, (t, r, s)

    both = lambda: (
        jax.value_and_grad(loss, 1)(key, log, x0, context()),
        jax.value_and_grad(by_hand, has_aux=True)(log),
    )
    (value, gradient), ((expected, (t, r, s)), expected_gradient) = jax.jit(both)()
    assert s <= r < t
    assert_allclose(value, expected, rtol=1e-10)
    assert_allclose(gradient, expected_gradient, rtol=1e-10)


@pytest.mark.slow
def test_moment_matching_sees_laws_not_samples(key):
    """The exact map's samples have one law wherever they come from, and a wrong one's have not: halvings = 1 is far."""
    forward, x0 = process.Flow(), gaussian_data(key, 1024, jnp.full(4, 0.25))
    log, model = jnp.log(jnp.full(4, 0.25)), lambda log: GaussianMap(log, forward)
    loss = jax.jit(consistency.imm(model, forward, group=512, halvings=1))
    right, wrong = (float(loss(key, log + shift, x0, context())) for shift in (0.0, 1.5))
    assert 0 <= right < 0.2 * wrong
    with pytest.raises(ValueError, match="group is 5"):
        consistency.imm(model, forward, group=5)(key, log, x0, context())


def linear(params, x, condition):
    """One weight for the picture, one for the channel of the second time."""
    return params[0] * x[..., :-1] + params[1] * x[..., -1:]


@pytest.mark.parametrize("parametrisation", ["edm", "boundary", "velocity"])
def test_a_second_time_reaches_the_network_as_a_channel(parametrisation, key):
    """`log(r_s) / 4` for "edm", else the condition of s; to 0 it is a `Prior` for any sampler."""
    forward, clock = process.Flow(), lambda process, t: t
    told = consistency.second_channel(linear)
    made = NetworkDenoiser(jnp.asarray([0.5, 2.0]), forward, told, parametrisation, clock)
    flow = consistency.FlowMap(made)
    x = jax.random.normal(key, (2, 2, 3), float)
    second = np.log(0.25 / 0.75) / 4 if parametrisation != "velocity" else 0.25
    plain = NetworkDenoiser(
        None, forward, lambda p, x, c: 0.5 * x + 2.0 * second, parametrisation, lambda process, t: t
    )
    assert_allclose(flow.to(0.25)(x, 0.6), plain(x, 0.6), rtol=1e-12)
    assert_array_equal(flow(x, jnp.asarray(0.6)), flow.to(0.0)(x, 0.6))
    prior = di.Prior(forward, flow, (2, 2, 3))
    assert jnp.isfinite(di.sample(key, samplers.renoise(prior), times.grid(2)).x).all()
    with pytest.raises(TypeError, match="no second time"):
        consistency.leap(di.Prior(forward, made, (2, 2, 3)))
