"""On a CUDA device: what the CPU computes, to a stated tolerance, and what only a GPU has.

    JAX_PLATFORMS=cuda,cpu python -m pytest -n 0 -m gpu

In products of float32 an accelerator may round to fewer bits; the comparisons ask for all of them. With DIFFINV_GPU=cpu
the last virtual CPU device stands for the GPU, which tries the tests themselves.
"""

import os

import jax
import jax.numpy as jnp
import nets
import numpy as np
import optax
import pytest

from diffinv import operators, process, sharding, train, weights
from diffinv.denoisers.exact import GaussianDenoiser
from diffinv.loop import as_solver, sample
from diffinv.measurement import measure
from diffinv.nn import convnet
from diffinv.posterior import dps
from diffinv.prior import NetworkDenoiser, Prior
from diffinv.samplers import ancestral, heun
from diffinv.times import grid

pytestmark = pytest.mark.gpu
PLATFORM = os.environ.get("DIFFINV_GPU", "gpu")
SHAPE, BATCH = (8, 8, 3), 4
DOUBLE, SINGLE = 1e-10, 5e-5
"""Relative differences to the CPU that rounding may make in a chain of a few steps: with an exact denoiser in float64,
and with a network in float32, whose chain moves by 4e-7 where every weight moves by its last bit."""


@pytest.fixture(scope="module")
def gpu():
    try:
        return jax.devices(PLATFORM)[-1]
    except RuntimeError as error:
        pytest.skip(f"no CUDA device: {str(error).splitlines()[0]}")


@pytest.fixture(autouse=True, scope="module")
def optimised(plainly):
    """As users compile; where a CPU stands in, plainly, as most tests."""
    jax.config.update("jax_disable_most_optimizations", PLATFORM == "cpu")


@pytest.fixture(scope="module")
def cpu():
    return jax.devices("cpu")[0]


@pytest.fixture(autouse=True)
def all_bits():
    with jax.default_matmul_precision("highest"):
        yield


def exact():
    generator = np.random.default_rng(0)
    mean, variance = jnp.asarray(generator.standard_normal(SHAPE)), jnp.asarray(generator.uniform(0.1, 1.0, SHAPE))
    return Prior(process.VP(), GaussianDenoiser(process.VP(), mean, variance), SHAPE)


def tiny(**changes):
    """A network and its variables; where a CPU stands in, the network that compiles fastest."""
    if PLATFORM != "cpu":
        return nets.tiny(**changes)
    net = convnet.ConvUNet(channels=8, multipliers=(1,), blocks=1, **changes)
    return net, nets.drawn(net)


def network(**changes):
    net, params = tiny(**changes)
    return Prior(process.VP(), NetworkDenoiser(params, process.VP(), net.apply, "edm", sigma_data=0.5), SHAPE)


PRIORS = {"exact": (exact, DOUBLE), "network": (network, SINGLE)}


def steps(prior, count=12):
    """A grid of times in the prior's type."""
    return grid(count).astype(jnp.float64 if isinstance(prior.denoise, GaussianDenoiser) else jnp.float32)


def problem(prior, key, batch=BATCH):
    """Keys, and a batch of measurements with a box cut out, in the prior's type."""
    dtype = steps(prior).dtype
    A = operators.box_inpainting(SHAPE, 2, 2, 4)
    truth = 0.5 * jax.random.normal(key, (batch, *SHAPE), dtype)
    keys = jax.random.split(key, batch)
    return keys, jax.vmap(lambda k, x: measure(k, A, x, 0.05))(keys, truth)


def on(device, function, *args):
    """What the jitted function gives on a device, in host memory."""
    placed = jax.device_put(args, device)
    found = jax.jit(function)(*placed)
    assert {d for leaf in jax.tree.leaves(found) for d in leaf.devices()} == {device}
    return jax.device_get(found)


def difference(found, expected):
    """Relative, over everything."""
    join = lambda tree: np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(tree)])
    return np.linalg.norm(join(found) - join(expected)) / np.linalg.norm(join(expected))


@pytest.mark.parametrize("name, sampler", [("exact", ancestral), ("exact", heun), ("network", heun)])
def test_a_sampler_gives_what_it_gives_on_the_cpu(name, sampler, key, gpu, cpu):
    make, tolerance = PRIORS[name]
    prior = make()
    keys, _ = problem(prior, key)
    start = jax.random.normal(key, (BATCH, *SHAPE), steps(prior).dtype)
    run = jax.vmap(lambda key, prior, x: sample(key, sampler(prior), steps(prior), x).x, (0, None, 0))
    found, expected = (on(device, run, keys, prior, start) for device in (gpu, cpu))
    assert np.isfinite(found).all() and difference(found, expected) < tolerance


@pytest.mark.parametrize("name", PRIORS)
def test_dps_gives_what_it_gives_on_the_cpu(name, key, gpu, cpu):
    make, tolerance = PRIORS[name]
    prior = make()
    keys, measurements = problem(prior, key)
    solve = lambda key, prior, m: as_solver(lambda m: dps(prior, m, 0.3), steps(prior))(key, m)
    run = jax.vmap(lambda *args: (lambda found: (found.x, found.info.residual))(solve(*args)), (0, None, 0))
    found, expected = (on(device, run, keys, prior, measurements) for device in (gpu, cpu))
    assert np.isfinite(found[0]).all() and difference(found, expected) < tolerance


def coils(key):
    mask = operators.cartesian_mask(key, (16, 16), 4, 4)
    real, imaginary = jax.random.normal(key, (2, 3, 16, 16))
    return operators.mri(mask, jax.lax.complex(real, imaginary))


OPERATORS = {
    "bicubic": lambda key: operators.bicubic((16, 16, 3), 4),
    "blur": lambda key: operators.gaussian_blur((16, 16, 3), 5, 1.0),
    "mri": coils,
}


@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_and_its_adjoint_are_those_of_the_cpu(name, key, gpu, cpu):
    """In float64, by convolution, matrix product and FFT."""
    A = OPERATORS[name](key)
    x = jax.random.normal(key, A.shape, float)
    both = lambda A, x: (lambda y: (y, A.adjoint(y)))(A(x))
    found, expected = (on(device, both, A, x) for device in (gpu, cpu))
    join = lambda pair: [np.stack([each.real, each.imag]) for each in pair]
    assert difference(join(found), join(expected)) < DOUBLE


def test_three_steps_of_training_are_those_of_the_cpu(key, gpu, cpu):
    """By gradient descent, which, unlike Adam, does not hide a gradient that is off by a factor."""
    net, params = tiny(plain_conv=True)
    model = lambda params: NetworkDenoiser(params, process.EDM(), net.apply, "edm", sigma_data=0.5)
    trainer = train.trainer(train.denoising_loss(model, process.EDM()), optax.sgd(1e-2))
    images = 0.5 * jax.random.normal(key, (BATCH, *SHAPE), jnp.float32)

    def three(key, params, images):
        step = lambda state, key: trainer.step(key, state, images)
        state, metrics = jax.lax.scan(step, trainer.init(params), jax.random.split(key, 3))
        return jax.tree.map(jnp.subtract, state.params, params), metrics.loss

    found, expected = (on(device, three, key, params, images) for device in (gpu, cpu))
    assert difference(found[1], expected[1]) < SINGLE and difference(found[0], expected[0]) < 10 * SINGLE


def test_the_embedded_network_in_bfloat16_is_finite_and_close(key, gpu):
    """To 2 % of its values: bfloat16 keeps 8 bits, so that one rounding is up to 0.4 %."""
    x = jax.random.normal(key, (BATCH, 32, 32, 3), jnp.float32)

    def evaluate(**changes):
        prior = weights.load_prior(weights.embedded(), process.VP(), **changes)
        return on(gpu, jax.vmap(lambda d, x: d(x, jnp.float32(0.6)), (None, 0)), prior.denoise, x)

    whole, half = evaluate(), evaluate(dtype=jnp.bfloat16)
    assert whole.dtype == half.dtype == np.float32 and np.isfinite(half).all()
    assert 1e-6 < difference(half, whole) < 0.02


def test_dps_through_a_network_in_bfloat16_stays_finite(key, gpu):
    prior = network(dtype=jnp.bfloat16)
    keys, measurements = problem(prior, key)
    run = jax.vmap(lambda k, prior, m: as_solver(lambda m: dps(prior, m, 0.3), steps(prior))(k, m).x, (0, None, 0))
    found = on(gpu, run, keys, prior, measurements)
    assert found.dtype == np.float32 and np.isfinite(found).all()


def test_memory_does_not_grow_with_the_steps(key, gpu):
    """As planned, and on a GPU as its allocator counts it: 50 times the steps take at most 5 % more.

    There 512 pictures, of which 500 steps kept would be 200 MB, more than the tests before have left as a peak.
    """
    prior, batch = network(), BATCH if PLATFORM == "cpu" else 512
    solve = lambda k, m, prior, times: as_solver(lambda m: dps(prior, m, 0.3), times)(k, m).x
    run = jax.jit(jax.vmap(solve, (0, 0, None, None)))
    plans, peaks = [], []
    for count in (10, 100 if PLATFORM == "cpu" else 500):
        placed = jax.device_put((*problem(prior, key, batch), prior, steps(prior, count)), gpu)
        compiled = run.lower(*placed).compile()
        plan = compiled.memory_analysis()
        plans.append(plan.temp_size_in_bytes + plan.output_size_in_bytes)
        jax.block_until_ready(compiled(*placed))
        peaks.append((gpu.memory_stats() or {}).get("peak_bytes_in_use", 1))
    assert plans[1] <= 1.05 * plans[0] and peaks[1] <= 1.05 * peaks[0]


def test_devices_sum_by_their_own_links(gpu):
    """A sum over all devices (NCCL on GPUs); two processes: `benchmarks.accelerator --only=nccl`."""
    devices = jax.devices(PLATFORM)
    if len(devices) < 2:
        pytest.skip("one device; a sum over devices needs two")
    mesh = sharding.mesh()
    x = jax.device_put(np.arange(float(len(devices))), sharding.split(mesh))
    found = jax.jit(lambda x: jnp.sum(x), out_shardings=sharding.replicated(mesh))(x)
    assert len(found.sharding.device_set) == len(devices) and float(found) == sum(range(len(devices)))
