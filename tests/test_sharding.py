"""Eight virtual devices must give what one gives, bit for bit: samples share nothing, keys know of no device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from numpy.testing import assert_allclose, assert_array_equal

from diffinv import process, samplers, sharding, times
from diffinv.denoisers.exact import GaussianDenoiser
from diffinv.loop import as_solver, sample
from diffinv.measurement import measure
from diffinv.operators.base import dense
from diffinv.posterior import dps
from diffinv.prior import NetworkDenoiser, Prior

SHAPE, COUNT, GRID = (3, 3, 1), 16, times.grid(5)

pytestmark = pytest.mark.skipif(jax.device_count() < 8, reason="needs 8 (virtual) devices")


@pytest.fixture
def prior():
    rng = np.random.default_rng(0)
    mean, variance = jnp.asarray(rng.standard_normal(SHAPE)), jnp.asarray(rng.uniform(0.1, 1.0, SHAPE))
    return Prior(process.VP(), GaussianDenoiser(process.VP(), mean, variance), SHAPE)


@pytest.fixture
def measurements(key, prior):
    A = dense(np.random.default_rng(1).standard_normal((4, 9)), SHAPE)
    return jax.vmap(lambda k: measure(k, A, prior.denoise.sample(k), 0.1))(jax.random.split(key, COUNT))


def unconditional(key, prior, measurement):
    return sample(key, samplers.ancestral(prior), GRID)


def guided(key, prior, measurement):
    return as_solver(lambda m: dps(prior, m, 0.3), GRID)(key, measurement)


def batched(method):
    return jax.vmap(method, (0, None, 0))


def assert_same(result, expected):
    for leaf, other in zip(jax.tree.leaves(result), jax.tree.leaves(expected), strict=True):
        assert_array_equal(leaf, other)


both = pytest.mark.parametrize("method", [unconditional, guided])


@both
def test_sharded_inputs_give_the_same_bits(method, key, prior, measurements):
    keys, mesh = jax.random.split(key, COUNT), sharding.mesh()
    expected = jax.jit(batched(method))(keys, prior, measurements)
    along, everywhere = sharding.split(mesh), sharding.replicated(mesh)
    inputs = (jax.device_put(keys, along), jax.device_put(prior, everywhere), jax.device_put(measurements, along))
    run = jax.jit(batched(method))
    result = run(*inputs)
    assert len(result.x.sharding.device_set) == 8
    assert result.x.addressable_shards[0].data.shape == (COUNT // 8, *SHAPE)
    assert_same(result, expected)
    compiled = run.lower(*inputs).compile().as_text()
    assert not any(word in compiled for word in ("all-reduce", "all-gather", "all-to-all", "collective-permute"))


@both
def test_pmap_gives_the_same_bits(method, key, prior, measurements):
    keys = jax.random.split(key, COUNT)
    expected = jax.jit(batched(method))(keys, prior, measurements)
    share = lambda tree: jax.tree.map(lambda a: a.reshape(8, COUNT // 8, *a.shape[1:]), tree)
    result = jax.pmap(batched(method), in_axes=(0, None, 0))(share(keys), prior, share(measurements))
    assert_same(result, share(expected))


@pytest.mark.slow
def test_fsdp_parameters_give_the_same_sample(key):
    """Parameters split over `fsdp` are summed in another order: equal to rounding, 1e-12."""
    params = {"w": jax.random.normal(key, (9, 16)) / 4, "v": jax.random.normal(key, (16, 9)) / 4, "b": jnp.ones(9)}

    def network(params, x, condition):
        return (jnp.tanh(x.ravel() @ params["w"]) @ params["v"] + params["b"]).reshape(x.shape)

    def run(params, keys):
        prior = Prior(process.VP(), NetworkDenoiser(params, process.VP(), network), SHAPE)
        return jax.vmap(lambda k: sample(k, samplers.ancestral(prior), GRID).x)(keys)

    mesh, keys = sharding.mesh(data=2, fsdp=4), jax.random.split(key, 4)
    placed = jax.device_put(params, sharding.fsdp(mesh, params))
    assert placed["w"].addressable_shards[0].data.shape == (9, 4)
    result = jax.jit(run)(placed, jax.device_put(keys, sharding.split(mesh)))
    assert_allclose(result, jax.jit(run)(params, keys), rtol=1e-12, atol=1e-12)


def test_a_sharded_gradient_is_the_gradient(key, prior, measurements):
    """Of a mean over the sharded batch with respect to replicated parameters: the all-reduce is a mean, not a sum."""
    keys, mesh = jax.random.split(key, COUNT), sharding.mesh()

    def loss(mean, keys, measurements):
        moved = prior.replace(denoise=prior.denoise.replace(mean=mean))
        return jnp.mean(jax.vmap(lambda k, m: guided(k, moved, m).x.sum())(keys, measurements))

    inputs = jax.device_put((keys, measurements), sharding.split(mesh))
    mean = jax.device_put(prior.denoise.mean, sharding.replicated(mesh))
    expected = jax.jit(jax.grad(loss))(prior.denoise.mean, keys, measurements)
    assert_allclose(jax.jit(jax.grad(loss))(mean, *inputs), expected, rtol=1e-12, atol=1e-13)
    assert jnp.linalg.norm(expected.ravel()) > 1e-2


def test_meshes_use_every_device():
    assert dict(sharding.mesh().shape) == {"data": 8, "fsdp": 1}
    assert dict(sharding.mesh(fsdp=4).shape) == {"data": 2, "fsdp": 4}
    assert dict(sharding.mesh(1, 8).shape) == {"data": 1, "fsdp": 8}


@pytest.mark.parametrize(("data", "fsdp"), [(3, 2), (None, 3), (None, 16), (None, 0), (8, 8)])
def test_a_mesh_that_does_not_fit_is_refused(data, fsdp):
    with pytest.raises(ValueError, match=f"fsdp is {fsdp}: their product must be the device count, 8"):
        sharding.mesh(data, fsdp)


def test_fsdp_splits_the_largest_axis_that_divides():
    tree = {"kernel": (3, 3, 8, 16), "tall": (64, 6), "odd": (7, 5), "bias": (12,), "scalar": (), "later": (10, 8)}
    specs = jax.tree.map(
        lambda shape: sharding.fsdp(sharding.mesh(fsdp=4), jax.ShapeDtypeStruct(shape, jnp.float32)).spec,
        tree,
        is_leaf=lambda leaf: isinstance(leaf, tuple),
    )
    expected = {"kernel": P(None, None, None, "fsdp"), "tall": P("fsdp"), "odd": P(), "bias": P("fsdp"), "scalar": P()}
    assert specs == expected | {"later": P(None, "fsdp")}


def test_fsdp_of_one_replicates():
    mesh = sharding.mesh()
    assert sharding.fsdp(mesh, jnp.zeros((8, 8))).spec == sharding.replicated(mesh).spec == P()
    assert sharding.split(mesh).spec == P("data")
