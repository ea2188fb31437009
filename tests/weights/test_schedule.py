"""Published schedules by their formulae, and a denoiser used under another process against the exact one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import registries

import diffinv as di
from diffinv import consistency, denoisers, prior, process
from diffinv.weights.convert import schedule

ABAR = {
    "linear": np.cumprod(1 - np.linspace(1e-4, 0.02, 1000)),
    "scaled_linear": np.cumprod(1 - np.linspace(1e-2, 0.02**0.5, 1000) ** 2),
}


@pytest.mark.parametrize("kind", ABAR)
def test_tables_are_cumulative_products(kind):
    found = schedule.discrete(kind)
    assert found.table.dtype == jnp.float32 and found.table[0] == 0
    np.testing.assert_allclose(np.exp(2 * np.asarray(found.table[1:], np.float64)), ABAR[kind], rtol=2e-6)


def test_linear_is_the_process_of_ddpm():
    np.testing.assert_allclose(
        schedule.discrete().table, process.ddpm().table.astype(jnp.float32), rtol=1e-6, atol=1e-9
    )


def test_cosine_follows_its_curve_until_its_bound():
    table = np.asarray(schedule.discrete("cosine").table, np.float64)
    curve = lambda u: np.cos((u + 0.008) / 1.008 * np.pi / 2) ** 2
    steps = np.arange(1000) / 1000
    np.testing.assert_allclose(np.exp(2 * table[:-1]), curve(steps) / curve(0.0), rtol=1e-5)
    assert 2 * (table[-1] - table[-2]) == pytest.approx(np.log(1e-3), rel=1e-6)


@pytest.mark.parametrize(
    "wrong, word", [({"kind": "cosin"}, "'cosin'; known are"), ({"steps": 4000}, "has 4000 steps")]
)
def test_unknown_schedules_are_refused(wrong, word):
    with pytest.raises(ValueError, match=word):
        schedule.discrete(**wrong)


def test_betas_beside_the_weights_are_compared():
    card = {"name": "discrete", "kind": "linear", "steps": 1000}
    schedule.check_betas(np.linspace(1e-4, 0.02, 1000), card)
    with pytest.raises(
        ValueError, match=r"betas are 1000 steps from 0.0015 to 0.0195, its schedule's 1000 .* 0.0001 to"
    ):
        schedule.check_betas(np.linspace(0.0015, 0.0195, 1000), card)
    with pytest.raises(ValueError, match="betas are 500 steps"):
        schedule.check_betas(np.linspace(1e-4, 0.02, 500), card)


MEAN, VARIANCE = 0.3, 0.6


def network(params, x, index):
    """The exact noise of N(MEAN, VARIANCE) under the linear table, at the (fractional) index of its training."""
    own = schedule.discrete()
    t = (index + 1) / 1000
    a, s = own.alpha(t), own.sigma(t)
    return s / (a**2 * VARIANCE + s**2) * (x - a * MEAN)


SLOW = set(registries.ISOTROPIC) - {"vp"}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in registries.ISOTROPIC]
)
def test_under_another_process_it_is_the_same_posterior_mean(name):
    other = registries.in_dtype(registries.PROCESSES[name], jnp.float32)
    trained = schedule.discrete()
    denoiser = denoisers.Rescheduled(prior.NetworkDenoiser({}, trained, network, "eps"), other)
    t = jnp.asarray([0.9, 0.5, 0.2, 0.05], jnp.float32)
    x = jnp.asarray([[0.7, -1.3]], jnp.float32)

    def both(t):
        a, s = other.alpha(t), other.sigma(t)
        expected = MEAN + a * VARIANCE / (a**2 * VARIANCE + s**2) * (a * x + s - a * MEAN)
        return denoiser(a * x + s, t), expected, s / a

    found, expected, ratio = jax.jit(jax.vmap(both))(t)
    inside = np.asarray((ratio > 0.0101) & (ratio < 150))
    assert inside.sum() >= 2
    np.testing.assert_allclose(found[inside], expected[inside], rtol=3e-3, atol=3e-3)


def test_near_the_data_it_is_the_data_and_never_infinite():
    denoiser = denoisers.Rescheduled(prior.NetworkDenoiser({}, schedule.discrete(), network, "eps"), process.Flow())
    x = jnp.asarray([[0.7, -0.3]], jnp.float32)
    for t, tolerance in ((0.0, 1e-6), (1e-4, 1e-3), (1e-3, 2e-3)):
        found = denoiser((1 - t) * x, jnp.float32(t))
        np.testing.assert_allclose(found, x, atol=tolerance + 1e-5)
    assert np.isfinite(denoiser(x, jnp.float32(1.0))).all()


def test_conditions_and_costs_pass_through():
    apply = lambda params, x, index, shift=0.0: 0 * x + shift
    inner = prior.NetworkDenoiser({}, schedule.discrete(), apply, "x0")
    denoiser = denoisers.Rescheduled(inner, process.VP()).given(shift=jnp.float32(2.0))
    assert denoiser.cost == di.Prior(inner.process, inner, (1,)).cost
    np.testing.assert_allclose(denoiser(jnp.ones((1,), jnp.float32), jnp.float32(0.5)), 2.0, rtol=1e-6)


def test_a_flow_map_serves_another_process_as_its_network_does():
    """Told that it goes to 0, by a network that looks at the second time."""
    told = lambda params, x, index, second=jnp.nan: network(params, x, index) + 0 * second
    inner, own = schedule.discrete(), prior.NetworkDenoiser({}, schedule.discrete(), network, "eps")
    flow = consistency.FlowMap(prior.NetworkDenoiser({}, inner, told, "eps"))
    x, t, other = jnp.asarray([[0.7, -1.3]], jnp.float32), jnp.float32(0.4), process.Flow()
    found = denoisers.Rescheduled(flow, other)(x, t)
    np.testing.assert_allclose(found, denoisers.Rescheduled(own, other)(x, t), rtol=1e-5)
    with pytest.raises(ValueError, match="of FlowMap is DDPM"):
        di.Prior(other, flow, x.shape)
