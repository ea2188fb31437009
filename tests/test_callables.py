"""Static callables by value: what is loaded twice is compiled once."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import diffinv as di
from diffinv import charts, consistency, scalespace, weights
from diffinv.callables import by_value
from diffinv.consistency import ctmsr
from diffinv.nn import song, unet
from diffinv.operators.functions import Function
from tests import nets


def counted():
    """A jitted function of one struct that tells how often it was traced."""
    traces = []
    return jax.jit(lambda thing: traces.append(thing) or jnp.zeros(())), traces


def assert_one_program(*things):
    """Asserts that one program serves all of them."""
    program, traces = counted()
    for thing in things:
        program(thing)
    assert len(traces) == 1, traces


def test_one_checkpoint_loaded_twice_is_traced_once():
    first, second = (weights.load_prior(weights.embedded(), di.process.VP()) for _ in range(2))
    other = weights.load_prior(weights.embedded(), di.process.VP(), plain_conv=True)
    program, traces = counted()
    for prior in (first, second, first.given(), other):
        program(prior)
    assert len(traces) == 2  # the other one's network is not the same


def test_an_upscaler_loaded_twice_is_traced_once():
    first, second = (weights.load_upscaler(weights.embedded("ctmsr_x4")) for _ in range(2))
    other = weights.load_upscaler(weights.embedded("ctmsr_x4"), plain_conv=True)
    program, traces = counted()
    for upscaler in (first, second, other):
        program(upscaler)
    assert len(traces) == 2  # the other one's network is not the same


def denoiser(**changes):
    net, params = nets.Mini(), {"params": {"w": jnp.zeros(3)}}
    return di.NetworkDenoiser(params, di.process.EDM(), net.apply, **changes)


def test_networks_of_equal_settings_are_one_program():
    assert_one_program(*[denoiser() for _ in range(3)])
    assert_one_program(
        *[consistency.FlowMap(denoiser().replace(apply=consistency.second_channel(nets.Mini().apply))) for _ in "ab"]
    )
    assert_one_program(*[Function(nets.Mini().apply, (), (2, 2, 1)) for _ in "ab"])
    law = di.gaussian(di.process.VP(), jnp.zeros(2), jnp.eye(2)).denoise
    assert_one_program(*[scalespace.SpectralDenoiser({}, law, nets.Mini().apply) for _ in "ab"])
    assert_one_program(*[ctmsr.Upscaler({}, nets.Mini().apply) for _ in "ab"])
    program, traces = counted()
    for apply in (unet.UNet().apply, song.SongUNet().apply, unet.UNet(channels=8).apply, unet.UNet().init):
        program(denoiser().replace(apply=by_value(apply)))
    assert len(traces) == 4


def test_charts_of_equal_settings_are_one_program():
    A = di.operators.identity((4, 4, 1))
    for make in (lambda: charts.upsample((4, 4, 1), 2), lambda: charts.dct((4, 4, 1))):
        assert_one_program(*[charts.LinearDecoded(A, make()) for _ in "ab"])
    net = nets.Mini()
    assert_one_program(*[charts.Decoded(A, charts.latent(net.init, nets.Mini().apply, (2,))) for _ in "ab"])
    chart = charts.upsample((4, 6, 1), 2)
    x = jnp.arange(24.0).reshape(4, 6, 1)
    assert chart.encode(x).shape == chart.shape == (2, 3, 1)
    np.testing.assert_allclose(chart.encode(chart.decode(chart.encode(x))), chart.encode(x))


class Linear(nnx.Module):
    def __init__(self, rngs):
        self.inner = nnx.Linear(3, 3, rngs=rngs)

    def __call__(self, x, t):
        return self.inner(x) * t


def apply(graph, params, x, condition):
    return nnx.merge(graph, params)(x, condition)


def test_networks_of_other_libraries():
    """NNX splits a module into a hashable definition and a tree of arrays; a plain function needs nothing."""

    def made():
        graph, params = nnx.split(Linear(nnx.Rngs(0)))
        return di.NetworkDenoiser(params, di.process.VP(), partial(apply, graph), "v", di.prior.unit_time)

    assert_one_program(made(), made())
    assert made()(jnp.ones((4, 3), jnp.float32), jnp.float32(0.5)).shape == (4, 3)
    plain = di.NetworkDenoiser({"w": jnp.eye(3)}, di.process.VP(), lambda p, x, c: x @ p["w"], "x0")
    np.testing.assert_allclose(plain(jnp.ones((4, 3)), 0.5), 1)


def test_bound_calls_what_it_holds():
    function = by_value(partial(lambda a, b, *, c: (a, b, c), 1, c=3))
    assert function(2) == (1, 2, 3) and function(2, c=4) == (1, 2, 4)
    assert by_value(partial(max, 1)) == by_value(partial(max, 1)) != by_value(partial(max, 2))
    assert repr(by_value(unet.UNet().apply)) == "UNet.apply" and repr(by_value(partial(max, 1))) == "max"
    assert by_value("a, b".split)(", ") == ["a", "b"]


@pytest.mark.parametrize("call", [max, lambda x: x, partial(max, np.zeros(3)), unet.UNet(multipliers=[1, 2]).apply])
def test_what_has_no_value_stays_as_it_is(call):
    assert by_value(call) is call
