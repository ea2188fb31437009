"""CTMSR against its published numbers and, on Gaussian data with a linear network, against closed forms."""

from functools import cache, partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import nets
import numpy as np
import pytest
from compiling import FAST

from diffinv import denoisers, prior, process, samplers, train
from diffinv.consistency import ctmsr
from diffinv.loop import sample
from diffinv.nn import srnet

KAPPA, VARIANCE, SHAPE = 0.8, 0.3, (8, 8, 1)
START = train.Context(jnp.int32(0), (), ())
fast = partial(jax.jit, compiler_options=FAST)


def moments(y, t):
    """Mean of x_0 given y, and mean and standard deviation of x_t."""
    mean = 0.6 * y + 0.1
    return mean, (1 - t) * mean + t * y, jnp.sqrt((1 - t) ** 2 * VARIANCE + (t * KAPPA) ** 2)


def exact_map(x, y, t):
    """Of the probability-flow ODE for `x_0 | y ~ N(0.6 y + 0.1, VARIANCE)`: the standardised code is kept."""
    mean, centre, std = moments(y, t)
    return mean + np.sqrt(VARIANCE) * (x - centre) / std


def preconditioning(t):
    u = KAPPA * t / 0.1
    return 0.25 / (u**2 + 0.25), u / jnp.sqrt(u**2 + 0.25)


def exact_network(params, x, condition, low):
    """F with which the upscaler is `params` times the exact map."""
    t = (jnp.exp(4 * condition) - 0.002) / KAPPA
    skip, out = preconditioning(t)
    inside = (params * exact_map(x, srnet.upsample_cubic(low, 4), t) - skip * x) / out
    return jnp.where(t > 1e-9, inside, 0.0)


def upscaler(params, apply=exact_network, **fields):
    return ctmsr.Upscaler(params, apply, **{"sigma_max": KAPPA, "cubic": srnet.MATLAB, **fields})


@pytest.fixture(scope="module")
def pictures():
    keys = jax.random.split(jax.random.key(0), 3)
    low = jax.random.normal(keys[0], (2, 2, 1), jnp.float64)
    mean = moments(srnet.upsample_cubic(low, 4), 0.0)[0]
    x0 = mean + np.sqrt(VARIANCE) * jax.random.normal(keys[1], SHAPE, jnp.float64)
    return x0, low, jax.random.normal(keys[2], SHAPE, jnp.float64)


def batch_of(x0, low, count=3):
    scaled = jax.vmap(jnp.multiply, (0, None))
    factors = 0.5 + jnp.arange(count) / count
    return {"image": scaled(factors, x0), "low": scaled(factors, low)}


@pytest.mark.parametrize("dtype", [jnp.float32, pytest.param(jnp.float64, marks=pytest.mark.slow)])
def test_at_time_zero_it_is_the_identity_bit_by_bit(dtype):
    net = srnet.SRNet(8, 1)
    params = nets.drawn(shaped(net), 16)
    x = jax.random.normal(jax.random.key(1), (16, 16, 3), dtype)
    made = ctmsr.Upscaler(params, net.apply)
    apply = fast(ctmsr.Upscaler.__call__)
    found = apply(made, x, 0.0, x[::4, ::4])
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, x)
    assert np.abs(apply(made, x, 0.5, x[::4, ::4]) - x).max() > 0.1


def shaped(net):
    """`net` with the signature that `nets.drawn` shapes: the low picture made from the high one."""
    return SimpleNamespace(init=lambda key, x, condition: net.init(key, x, condition, x[::4, ::4]))


def test_preconditioning_has_the_published_values():
    out = lambda t, F: upscaler(None, lambda *_: F * jnp.ones(SHAPE), sigma_max=1.0)(
        jnp.ones(SHAPE), t, jnp.ones((2, 2, 1))
    )
    for t, skip, gain in [
        (0.25, 0.03846, 0.98058),
        (1 / 3, 0.02200, 0.98894),
        (2 / 3, 0.00559, 0.99720),
        (1, 0.00249, 0.99875),
    ]:
        np.testing.assert_allclose(out(t, 0.0), skip, atol=6e-6)
        np.testing.assert_allclose(out(t, 1.0) - out(t, 0.0), gain, atol=6e-6)


def test_points_of_a_pair_lie_on_one_line(pictures):
    x0, low, eps = pictures
    made = upscaler(1.0)
    y = made.upsample(low)
    points = [made.shifted(x0, y, t, eps) for t in (0.0, 1 / 3, 2 / 3, 1.0)]
    np.testing.assert_array_equal(points[0], x0)
    for i in (1, 2):
        np.testing.assert_allclose((points[i + 1] - x0) / (points[i] - x0), (i + 1) / i, rtol=1e-12)
    np.testing.assert_allclose(points[3], y + KAPPA * eps, rtol=1e-12)


def test_curriculum_is_the_published_one():
    published, rising = ctmsr.curriculum(4, 3, 502_000), ctmsr.curriculum(1, 3, 9)
    at = [int(published(k)) for k in (0, 250_999, 251_000, 501_999, 600_000)]
    assert at == [4, 4, 3, 3, 3]
    assert [int(rising(k)) for k in range(10)] == [1, 1, 1, 2, 2, 2, 3, 3, 3, 3]
    assert int(ctmsr.curriculum(3, 3, 5)(7)) == 3
    for wrong in [(0, 3, 100), (4, 3, 1)]:
        with pytest.raises(ValueError, match="give N >= 1 and at least"):
            ctmsr.curriculum(*wrong)


def test_the_published_range_of_matching_is_one_index():
    assert list(range(*ctmsr.matching_levels())) == [1]
    assert ctmsr.matching_levels(0.1, 0.9, 10) == (1, 9)
    with pytest.raises(ValueError, match="no index is left"):
        ctmsr.matching_levels(0.1, 0.2, 3)


def test_the_map_is_the_probability_flow_odes(pictures):
    """Heun's solution with the exact denoiser of the codes, from each time, and the prior's own one step."""
    x0, low, eps = pictures
    made = upscaler(1.0)
    y = made.upsample(low)
    exact = denoisers.gaussian(made.process, (moments(y, 0.0)[0] - y), VARIANCE * jnp.eye(y.size))
    solve = fast(lambda x, grid: sample(jax.random.key(0), samplers.heun(exact), grid, x).x)
    for t in (1.0, 0.4):
        x = made.shifted(x0, y, t, eps)
        solution = y + solve(x - y, t * jnp.linspace(1, 0, 513))
        np.testing.assert_allclose(made(x, t, low), solution, atol=5e-6)
        np.testing.assert_allclose(y + made.prior(low).denoise(x - y, t), made(x, t, low), atol=1e-12)
    key, z = jax.random.key(3), jax.random.normal(jax.random.key(4), SHAPE)
    once = jnp.clip(made(y + KAPPA * z, 1.0, low), -1, 1)
    np.testing.assert_allclose(ctmsr.super_resolve(key, made, low, noise=z), once, atol=1e-12)
    renoised = ctmsr.super_resolve(key, made, low, jnp.asarray([1.0, 0.0]), z)
    np.testing.assert_allclose(renoised, once, atol=1e-6)
    drawn = ctmsr.super_resolve(key, made, low)
    assert not np.allclose(drawn, once) and np.array_equal(drawn, ctmsr.super_resolve(key, made, low))


def test_semigroup_error_has_its_closed_form(pictures):
    x0, low, _ = pictures
    mean, times = moments(srnet.upsample_cubic(low, 4), 0.0)[0], jnp.asarray([0.2, 0.6, 1.0])
    draws = mean[None] + np.sqrt(VARIANCE) * jax.random.normal(jax.random.key(5), (400, *SHAPE))
    each = jax.vmap(ctmsr.self_consistency_error, (None, 0, 0, None, None))
    found = fast(each)(upscaler(1.0), jax.random.split(jax.random.key(6), 400), draws, low, times)
    slope = lambda t: np.asarray([1 - t, t * KAPPA]) / moments(jnp.zeros(()), t)[2]
    change = [slope(t) - slope(s) for s, t in [(0.2, 0.6), (0.6, 1.0)]]
    expected = [np.sqrt(2 / np.pi * VARIANCE * (a**2 * VARIANCE + b**2)) for a, b in change]
    np.testing.assert_allclose(found.mean(0), expected, rtol=0.02)


def test_equal_pictures_have_no_discrepancy(pictures):
    x0, low, eps = pictures
    np.testing.assert_array_equal(ctmsr.discrepancy(upscaler(1.0), x0, x0, low, 1 / 3, eps), 0.0)


def constant_network(params, x, condition, low):
    """`f(x_1, 1) = params["a"] y + params["b"]`, and no other time asked."""
    skip, out = preconditioning(1.0)
    return (params["a"] * srnet.upsample_cubic(low, 4) + params["b"] - skip * x) / out


@pytest.mark.parametrize("weighting", ["improved", pytest.param("simple", marks=pytest.mark.slow)])
def test_gradient_of_matching_has_its_closed_form(pictures, weighting):
    """The reference is the exact, linear map of slope c, so that `g = c (1 - t) (xhat - x_0)` whatever eps' is."""
    x0, low, _ = pictures
    batch, params = batch_of(x0, low), {"a": jnp.float64(0.7), "b": jnp.float64(-0.2)}
    model = lambda p: upscaler(p, constant_network) if isinstance(p, dict) else upscaler(p)
    loss = ctmsr.matching_loss(
        model, ctmsr.curriculum(1, 1, 1), lambda x, y: 0.0 * jnp.sum(x), ctmsr.l2, 0.8, weighting
    )
    context = train.Context(jnp.int32(0), (), jnp.float64(1.0))
    found = fast(jax.grad(loss, 1))(jax.random.key(2), params, batch, context)
    y = jax.vmap(lambda low: srnet.upsample_cubic(low, 4))(batch["low"])
    slope = np.sqrt(VARIANCE) / moments(y, 1 / 3)[2] * (1 - 1 / 3)
    gap = 0.7 * y - 0.2 - batch["image"]
    w = 1 / jnp.mean(jnp.abs(gap), (1, 2, 3), keepdims=True) if weighting == "improved" else 1.0
    expected = {"a": 0.8 * jnp.mean(w * slope * gap * y), "b": 0.8 * jnp.mean(w * slope * gap)}
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-9)


def timed_network(params, x, condition, low):
    """F whose upscaler is `params` times the time, everywhere."""
    t = (jnp.exp(4 * condition) - 0.002) / KAPPA
    skip, out = preconditioning(t)
    return jnp.where(t > 1e-9, (params * t - skip * x) / out, 0.0)


@pytest.fixture(scope="module")
def first_stage(pictures):
    """`(index, distance, key, anchor) -> loss` of the network that says the time, with N = 4 on 32 examples."""
    batch = batch_of(*pictures[:2], 32)

    @cache
    def compiled(index, distance, anchor):
        steps = ctmsr.curriculum(4, 4, 1)
        return fast(ctmsr.consistency_loss(lambda p: upscaler(p, timed_network), steps, distance, index, anchor=anchor))

    def value(index, distance, key, anchor=0.0):
        return compiled(index, distance, anchor)(jax.random.key(key), jnp.float64(1.0), batch, START)

    return value, batch


@pytest.mark.slow
def test_one_index_for_the_batch_or_one_each(first_stage):
    value, _ = first_stage
    mean_time = lambda x, y: jnp.mean(x)
    one = [float(value("batch", mean_time, key)) * 4 for key in range(3)]
    np.testing.assert_allclose(one, np.round(one), atol=1e-9)
    assert set(np.round(one)) <= {1, 2, 3, 4}
    assert abs(value("sample", mean_time, 0) - 2.5 / 4) < 0.2 and value("sample", mean_time, 0) * 4 % 1 > 1e-3
    with pytest.raises(ValueError, match="index is 'each'"):
        value("each", mean_time, 0)


@pytest.mark.slow
def test_targets_are_the_picture_at_the_first_index_and_where_anchored(first_stage):
    value, batch = first_stage
    of_target = lambda x, y: jnp.mean(jnp.where(jnp.abs(y - jnp.mean(y)) < 1e-9, 0.0, 1.0))
    share = value("sample", of_target, 1)
    assert 0.05 < share < 0.5
    np.testing.assert_allclose(value("sample", of_target, 1, anchor=1.0), 1.0)
    np.testing.assert_allclose(value("sample", lambda x, y: jnp.mean(y), 2, anchor=1.0), jnp.mean(batch["image"]))


def test_the_target_has_no_gradient(pictures):
    """With l2 the gradient at i = N - 1 is `(t - s) t`, not `(t - s)^2`."""
    batch = batch_of(*pictures[:2], 1)
    loss = ctmsr.consistency_loss(lambda p: upscaler(p, timed_network), ctmsr.curriculum(2, 2, 1), ctmsr.l2)
    gradient = fast(jax.grad(loss, 1))
    found = [gradient(jax.random.key(k), jnp.float64(1.0), batch, START) for k in range(6)]
    assert np.isclose(found, 0.5).any()
    np.testing.assert_allclose([g for g in found if np.isclose(g, 0.5, atol=0.05)], 0.5, rtol=1e-9)


def test_residual_shifting_times_are_the_published_ones():
    roots = [
        0.99,
        0.9086,
        0.83,
        0.754,
        0.6807,
        0.6099,
        0.5417,
        0.4759,
        0.4124,
        0.351,
        0.2916,
        0.2336,
        0.1763,
        0.1172,
        0.02,
    ]
    np.testing.assert_allclose(np.sqrt(ctmsr.shift_times(15))[:-1], roots, atol=6e-5)
    np.testing.assert_allclose(np.sqrt(ctmsr.shift_times(4, min_noise=0.2)), [0.99, 0.7614, 0.5201, 0.1, 0], atol=6e-5)
    with pytest.raises(ValueError, match="at least 2"):
        ctmsr.shift_times(1)


def test_residual_shifting_keeps_the_marginal():
    """`q(x_s | x_t, x_0)` over `q(x_t | x_0)` has the mean and the variance of `q(x_s | x_0)`."""
    forward, x0, (t, s) = process.ResidualShift(2.0, 0.5), jnp.float64(0.7), (0.6, 0.25)
    mean, std = forward.perturb(x0, t)
    step = ctmsr.shift_posterior(forward, mean, x0, t, s)
    slope = ctmsr.shift_posterior(forward, mean + 1, x0, t, s).mean - step.mean
    np.testing.assert_allclose([step.mean, jnp.hypot(slope * std, step.std)], forward.perturb(x0, s), rtol=1e-12)


def test_residual_shiftings_chain_refuses_another_process():
    with pytest.raises(TypeError, match="process is VP; shift_sampler needs process.ResidualShift"):
        ctmsr.shift_sampler(prior.Prior(process.VP(), lambda x, t: x, (2,)))


def test_the_multistep_loss_of_the_exact_denoiser_is_the_posterior_variance(pictures):
    _, low, _ = pictures
    y, times = srnet.upsample_cubic(low, 4), jnp.asarray([0.7, 0.0])
    mean = moments(y, 0.0)[0]
    gain = 0.3 * VARIANCE / (0.3**2 * VARIANCE + 4 * 0.7)

    def denoiser(params, x, condition, low):
        return mean + gain * (x * jnp.sqrt(1 + 4 * 0.7) - 0.3 * mean - 0.7 * y)

    data = {"image": mean[None] + np.sqrt(VARIANCE) * jax.random.normal(jax.random.key(8), (500, *SHAPE))}
    data["low"] = jnp.broadcast_to(low, (500, *low.shape))
    model = lambda p: upscaler(p, denoiser, sigma_max=2.0, method="resshift")
    found = fast(ctmsr.shift_loss(model, times))(jax.random.key(9), None, data)
    np.testing.assert_allclose(found, VARIANCE * (1 - 0.3 * gain), rtol=0.02)


def test_several_steps_run_and_end_at_the_network(pictures):
    _, low, _ = pictures
    still = lambda params, x, condition, low: 0.3 * jnp.ones_like(x)
    made = upscaler(None, still, sigma_max=2.0, method="resshift")
    np.testing.assert_allclose(fast(ctmsr.super_resolve)(jax.random.key(0), made, low), 0.3, atol=1e-6)


@pytest.mark.slow
def test_dropout_masks_are_independent_unless_shared(pictures):
    batch = batch_of(*pictures[:2], 2)

    def dropped(params, x, condition, low, rngs=None):
        drawn = 0.5 if rngs is None else jax.random.uniform(rngs["dropout"])
        return drawn * jnp.ones_like(x) + 0.0 * x

    def gap(masks):
        model = lambda p: upscaler(p, dropped, stochastic=True, boundary=1e-9)
        near = lambda x, y: jnp.abs(jnp.mean(x) - jnp.mean(y))
        loss = ctmsr.consistency_loss(model, ctmsr.curriculum(900, 900, 1), near, masks=masks)
        return float(fast(loss)(jax.random.key(4), None, batch, START))

    assert gap("shared") < 1e-6 < gap("prediction") != gap("independent") > 1e-6
    with pytest.raises(ValueError, match="masks is 'none'"):
        gap("none")


def test_wrong_arguments_say_what_to_do(pictures):
    x0, low, _ = pictures
    with pytest.raises(ValueError, match="this upscaler's scale is 4"):
        upscaler(1.0)(x0, 0.5, low[:1])
    with pytest.raises(ValueError, match="choose one of ctmsr, resshift"):
        upscaler(1.0, method="sinsr").prior(low)
    with pytest.raises(ValueError, match="choose 'improved' or 'simple'"):
        ctmsr.matching_loss(upscaler, ctmsr.curriculum(1, 1, 1), ctmsr.l2, ctmsr.l2, weighting="w")


def test_distances():
    x, y = jnp.asarray([3.0, 0.0]), jnp.asarray([0.0, 0.0])
    np.testing.assert_allclose(ctmsr.charbonnier(4.0)(x, y), 4.5)
    np.testing.assert_allclose(jax.grad(ctmsr.charbonnier())(y, y), 0.0)
    np.testing.assert_allclose(ctmsr.l2(x, y), 2.25)
    np.testing.assert_allclose(jax.grad(ctmsr.l2)(x, y), x / 2)
    np.testing.assert_allclose(ctmsr.weighted((2.0, ctmsr.l2), (1.0, ctmsr.charbonnier(4.0)))(x, y), 9.0)
