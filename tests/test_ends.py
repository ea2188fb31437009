"""What a process must be: each wrong one is refused where its numbers are known, and passes where they are traced."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import diffinv as di
from diffinv import process, samplers, times
from diffinv.denoisers.exact import gaussian
from diffinv.posterior.core.levels import clean_start, noise_to_signal
from diffinv.prior import NetworkDenoiser, Prior

BETA = np.linspace(1e-4, 0.02, 1000)
TABLE = np.append(0.0, 0.5 * np.cumsum(np.log1p(-BETA)))
MEAN = jnp.asarray([0.3, -0.2])


@pytest.mark.parametrize("rates", [(-0.1, 20.0), (0.1, -5.0), (float("nan"), 20.0)])
def test_rates_of_noise_are_not_negative(rates):
    """At (5, -100) alpha would reach 2e10."""
    with pytest.raises(ValueError, match=r"rates are beta_min .*: give rates of at least 0"):
        process.VP(*rates)


def test_a_table_of_betas_of_ones_own_starts_at_the_data():
    """Without its 0 every sample would keep the first beta's noise, 0.01; with it the table is the published one."""
    with pytest.raises(ValueError, match=r"table starts at -5e-05; log alpha at time 0, the data, is 0: put a 0"):
        process.DDPM(jnp.asarray(TABLE[1:]))
    with pytest.raises(ValueError, match="table rises, or has no numbers"):
        process.DDPM(jnp.asarray(TABLE).at[5].set(0.0))
    own = process.DDPM(jnp.asarray(TABLE))
    assert_allclose(own.table, process.ddpm(1000).table, rtol=1e-12)
    assert own.sigma(0.0) == 0
    sharp = gaussian(own, MEAN, 1e-12 * jnp.eye(2))
    assert_allclose(di.sample(jax.random.key(0), samplers.ddim(sharp, 1.0), times.grid(20)).x, MEAN, atol=1e-5)


def test_tables_that_are_traced_or_batched_pass():
    tables = jnp.stack([jnp.asarray(TABLE), 2 * jnp.asarray(TABLE)])
    levels = jax.jit(jax.vmap(lambda table: process.DDPM(table).log_alpha(1.0)))(tables)
    assert_array_equal(levels, tables[:, -1])
    assert process.DDPM(tables).table.shape == (2, 1001)


def test_noise_alone_starts_no_process_that_keeps_the_picture():
    """VP of 0.1 to 1 leaves 0.76 of the picture at time 1: N(0, sigma^2) is not its law there."""
    short = process.VP(0.1, 1.0)
    prior, key = gaussian(short, MEAN, 0.04 * jnp.eye(2)), jax.random.key(0)
    with pytest.raises(ValueError, match=r"VP ends at alpha 0.76, sigma 0.65: no noise alone; .* Prior\(law=...\)"):
        di.sample(key, samplers.heun(prior), times.grid(20))
    with pytest.raises(ValueError, match="VP ends at alpha 0.76"):
        jax.jit(lambda key: di.sample(key, samplers.heun(prior), times.grid(20)).x)(key)
    lawful = prior.replace(law=prior.denoise)
    run = jax.jit(jax.vmap(lambda key: di.sample(key, samplers.heun(lawful), times.grid(40)).x))
    x = np.asarray(run(jax.random.split(key, 4000)))
    assert_allclose(x.mean(0), MEAN, atol=4.5 * 0.2 / 4000**0.5)
    assert_allclose(x.std(0), 0.2, rtol=0.06)
    assert np.isfinite(di.sample(key, samplers.heun(prior), times.grid(20), MEAN).x).all()


def test_a_prior_and_its_denoiser_have_one_process():
    """EDM's levels in a denoiser of VP's would be those of other times, without a word."""
    prior = gaussian(process.VP(), MEAN, jnp.eye(2))
    with pytest.raises(ValueError, match=r"process is EDM \[80.0\], that of GaussianDenoiser is VP \[0.1, 20.0\]"):
        replace(prior, process=process.EDM())
    with pytest.raises(ValueError, match=r"process is VP \[0.1, 10.0\], that of NetworkDenoiser is VP"):
        Prior(process.VP(0.1, 10.0), NetworkDenoiser({}, process.VP(), lambda p, x, t: x), (2,))
    batched = jax.vmap(lambda beta: prior.replace(process=process.VP(beta_max=beta)).process.alpha(1.0))
    assert_allclose(batched(jnp.asarray([20.0])), prior.process.alpha(1.0)[None])


def test_flow_has_a_signal_that_is_trusted_at_the_time_it_is_looked_at():
    """At 0.999 Flow's is `DEAD` of the noise, up to rounding, and twice what a linearisation trusts."""
    flow = process.Flow()
    t = flow.alive(1.0)
    share = float(flow.alpha(t) / flow.sigma(t))
    assert share == pytest.approx(process.DEAD, rel=2e-3) and share > 1.9 * process.TRUSTED
    assert_allclose(t, 1 - process.DEAD, rtol=1e-12)


@pytest.mark.parametrize("t", [1.0, 0.9999, 0.5, 1e-3])
def test_noise_to_signal_and_clean_starts_are_finite_without_a_signal(t):
    """Flow's `sigma / alpha` is `t / (1 - t)`, cut at 1000, where a start has no clean estimate either."""
    flow, x = process.Flow(), jnp.asarray([0.3, -2.0])
    lost = t > 0.999
    assert_allclose(noise_to_signal(flow, t), 1000.0 if lost else t / (1 - t), rtol=1e-9)
    assert_allclose(clean_start(flow, t, x, 7.0), [7.0, 7.0] if lost else x / (1 - t), rtol=1e-9)


def test_the_limit_of_a_lost_signal_is_below_1_in_half_precision():
    """0.999 is 1 in bfloat16, whose alpha would be 0 again."""
    for dtype, inward in [(jnp.float32, 0.999), (jnp.bfloat16, 1 - 2.0**-7)]:
        t = process.Flow().alive(jnp.asarray(1, dtype))
        assert t == jnp.asarray(inward, dtype) and process.Flow().alpha(t) > 0
