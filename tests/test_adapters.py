"""One exact denoiser, as a network of every framework: the posterior it gives is that of the closed form."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx
from numpy.testing import assert_allclose, assert_array_equal

import diffinv as di
from diffinv import adapters, operators, posterior, process, samplers, times
from diffinv.denoisers import GaussianDenoiser, Rescheduled

SHAPE = (4, 3, 2)
EDM = process.EDM(sigma_max=80.0)
rng = np.random.default_rng(0)
MEAN, VARIANCE = rng.standard_normal(SHAPE), rng.uniform(0.2, 2.0, SHAPE)
EXACT = di.Prior(EDM, GaussianDenoiser(EDM, jnp.asarray(MEAN), jnp.asarray(VARIANCE)), SHAPE)


def plain(params, x, sigma):
    """`E[x_0 | x_0 + sigma noise]` of independent normal pixels."""
    mean, variance = params["mean"], params["variance"]
    return (variance * x + sigma**2 * mean) / (variance + sigma**2)


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x, sigma):
        given = {name: self.param(name, nn.initializers.zeros, SHAPE) for name in ("mean", "variance")}
        return plain(given, x, sigma)


class Nnx(nnx.Module):
    def __init__(self):
        self.mean, self.variance = nnx.Param(jnp.asarray(MEAN)), nnx.Param(jnp.asarray(VARIANCE))

    def __call__(self, x, sigma):
        return plain({"mean": self.mean[...], "variance": self.variance[...]}, x, sigma)


class Equinox(eqx.Module):
    mean: jax.Array
    variance: jax.Array
    rule: object = eqx.field(static=True, default=plain)

    def __call__(self, x, sigma):
        return self.rule({"mean": self.mean, "variance": self.variance}, x, sigma)


PARAMS = {"mean": jnp.asarray(MEAN), "variance": jnp.asarray(VARIANCE)}
FIRST = {name: jnp.moveaxis(leaf, -1, 0)[None] for name, leaf in PARAMS.items()}


def torchlike(params, x, sigma):
    """A batch, channels first."""
    assert x.shape == (1, 2, 4, 3) and sigma.shape == (1,)
    return plain(params, x, sigma[:, None, None, None]), "a second output"


def batched(params, x, sigma):
    assert x.shape == (1, *SHAPE) and sigma.shape == (1,)
    return plain({name: leaf[None] for name, leaf in params.items()}, x, sigma[:, None, None, None])


NETWORKS = {
    "plain": lambda: (plain, PARAMS),
    "linen": lambda: (Linen().apply, {"params": PARAMS}),
    "nnx": lambda: adapters.from_nnx(Nnx()),
    "equinox": lambda: adapters.from_equinox(Equinox(*PARAMS.values())),
    "channels first": lambda: (adapters.channels_first(torchlike), FIRST),
    "a batch": lambda: (adapters.batch_of_one(batched), PARAMS),
}


def prior_of(name):
    apply, params = NETWORKS[name]()
    return di.Prior(EDM, di.NetworkDenoiser(params, EDM, apply, "x0", adapters.noise_level), SHAPE)


@jax.jit
def restored(key, prior, measurement):
    return di.as_solver(lambda m: posterior.ddrm(prior, m), times.grid(5))(key, measurement).x


@pytest.fixture(scope="module")
def measurement():
    truth = MEAN + np.sqrt(VARIANCE) * rng.standard_normal(SHAPE)
    return di.measure(jax.random.key(1), operators.box_inpainting(SHAPE, 1, 1, 2), jnp.asarray(truth), sigma=0.1)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_framework_restores_what_the_closed_form_does(name, measurement, key):
    keys = jax.random.split(key, 2)
    run = jax.vmap(restored, (0, None, None))
    exact, found = run(keys, EXACT, measurement), run(keys, prior_of(name), measurement)
    assert_allclose(found, exact, rtol=1e-9, atol=1e-9)
    assert np.max(np.abs(found[0] - found[1])) > 1e-3


@pytest.mark.parametrize("name", NETWORKS)
def test_the_same_network_made_twice_is_one_program(name):
    once, again = prior_of(name), prior_of(name)
    assert jax.tree.structure(once) == jax.tree.structure(again)
    assert hash(once.denoise.apply) == hash(again.denoise.apply)


def test_under_another_process_it_is_the_same_law(key):
    vp = process.VP()
    exact, found = GaussianDenoiser(vp, PARAMS["mean"], PARAMS["variance"]), Rescheduled(prior_of("plain").denoise, vp)
    x = jax.random.normal(key, SHAPE)
    for t in (0.1, 0.5, 0.9):
        assert_allclose(found(x, t), exact(x, t), rtol=1e-8, atol=1e-8)


def velocity(params, x, t):
    """From noise to data, of a flow whose data are at time 1."""
    flow, t = process.Flow(), 1 - t
    x0 = GaussianDenoiser(flow, params["mean"], params["variance"])(x, t)
    return -flow.velocity(x, x0, t)


def test_a_flow_whose_data_are_at_time_1(key):
    flow = process.Flow()
    found = di.NetworkDenoiser(PARAMS, flow, adapters.negated(velocity), "velocity", adapters.reversed_time)
    exact, x = GaussianDenoiser(flow, PARAMS["mean"], PARAMS["variance"]), jax.random.normal(key, SHAPE)
    for t in (0.2, 0.9):
        assert_allclose(found(x, t), exact(x, t), rtol=1e-9)


def test_what_a_network_is_told():
    t, vp = 0.3, process.VP()
    alpha, sigma = float(vp.alpha(t)), float(vp.sigma(t))
    want = {
        "index": 299, "whole_index": 299, "unit": t, "thousand": 300, "score_sde": 299.7, "reversed": 0.7,
        "sigma": sigma / alpha, "log_sigma": np.log(sigma / alpha), "log_half_sigma": np.log(sigma / alpha / 2),
        "edm": np.log(sigma / alpha) / 4, "log_snr": 2 * np.log(alpha / sigma),
    }  # fmt: skip
    assert adapters.TIMES.keys() == want.keys()
    for name, value in want.items():
        assert_allclose(adapters.TIMES[name](vp, jnp.asarray(t)), value, rtol=1e-12, err_msg=name)
    whole = jax.vmap(partial(adapters.whole_index, vp))(jnp.asarray([0.0, 0.00049, 0.5004, 1.0]))
    assert_array_equal(whole, [0, 0, 499, 999], strict=False)
    assert whole.dtype == jnp.int32
    assert adapters.step_index(4000, vp, 0.5) == 1999 and adapters.scaled_time(999.0, vp, 0.5) == 499.5


def test_conditions_get_their_axis_and_dtypes_stay():
    def network(params, x, t, label):
        assert label.shape == (1,) and label.dtype == jnp.int32
        return x * label.astype(x.dtype)[:, None, None, None] + t[:, None, None, None]

    apply = adapters.channels_first(network)
    x = jnp.ones(SHAPE, jnp.float32)
    assert_array_equal(apply({}, x, jnp.float32(2.0), label=np.int32(3)), np.full(SHAPE, 5, np.float32))


def test_samples_of_an_imported_network_can_be_differentiated(key):
    prior, grid = prior_of("channels first"), times.karras(3, sigma_max=80.0)

    def drawn(mean):
        told = {**FIRST, "mean": mean}
        return di.sample(key, samplers.ddim(prior.replace(denoise=prior.denoise.replace(params=told))), grid).x.sum()

    slope = jax.jit(jax.grad(drawn))(FIRST["mean"])
    assert slope.shape == FIRST["mean"].shape and np.isfinite(slope).all() and np.all(slope > 0)
