"""What every method must do: see `methods.METHODS`. All on a six-dimensional Gaussian with three measurements."""

import collections
import functools
import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import FAST
from flax import struct
from oracle import random_covariance

import diffinv as di
from diffinv import charts, posterior, sharding, times
from diffinv.operators.base import Operator, dense
from posterior.counting import counted, paid, told
from posterior.methods import ANY_PROCESS, CORE, GRIDS, METHODS, MORE, blurring, cast

pytestmark = pytest.mark.long

DIM, STEPS, SIGMA = 6, 12, 0.3
LINEAR_ONLY = ("pigdm", "mmps", "tmpd", "ddnm")


def prior_and_operator(process):
    rng = np.random.default_rng(0)
    prior = di.gaussian(process, jnp.asarray(rng.standard_normal(DIM)), jnp.asarray(random_covariance(rng, DIM)))
    rows = np.linalg.qr(rng.standard_normal((DIM, 3)))[0].T
    return prior, dense(jnp.asarray(rows))


def problem(process, seed=1):
    """The prior and one measurement of a draw from it."""
    prior, operator = prior_and_operator(process)
    draw, noise = jax.random.split(jax.random.key(seed))
    return prior, di.measure(noise, operator, prior.denoise.sample(draw), SIGMA)


TRACES = collections.Counter()


@functools.cache
def single(name):
    """The method on one measurement, traced once for `alone` and `batched`; it counts its traces."""

    def run(key, prior, measurement, strength):
        TRACES[name] += 1
        return di.as_solver(lambda m: METHODS[name](prior, m, strength), times.grid(STEPS, power=2.0))(key, measurement)

    return jax.jit(run)


def fast(run):
    return jax.jit(run, compiler_options=FAST)


@functools.cache
def alone(name):
    return fast(lambda *given: single(name)(*given))


@functools.cache
def batched(name):
    return fast(jax.vmap(single(name), (0, None, 0, 0)))


SIZE = 16


@functools.cache
def batch():
    """Sixteen keys, the prior, sixteen measurements with their operators, and strengths."""
    prior, _ = problem(di.process.VP())
    measurements = jax.vmap(lambda seed: problem(di.process.VP(), seed)[1])(jnp.arange(SIZE))
    return jax.random.split(jax.random.key(7), SIZE), prior, measurements, jnp.linspace(0.5, 1.1, SIZE)


def sharded(keys, prior, measurements, strengths):
    """The same arguments on eight devices: two of the batch on each, the prior on all."""
    split = jax.device_put((keys, measurements, strengths), sharding.split(sharding.mesh()))
    return split[0], jax.device_put(prior, sharding.replicated(sharding.mesh())), *split[1:]


def tolerance(name):
    """DAPS starts its chain at noise-to-signal 150 and comes down to 1, which costs two digits."""
    return 1e-10 if name.startswith("daps") else 1e-12


def pick(tree, i):
    return jax.tree.map(lambda a: a[i], tree)


def assert_same(a, b, within):
    for one, other in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(one, other, rtol=within, atol=within)


BLIND = ("blind_dps",)
"""They do not look at the measurement's own operator."""

FUNCTIONS = sorted({name.split()[0] for name in METHODS})


@pytest.mark.parametrize("function", FUNCTIONS)
def test_takes_a_prior_and_a_measurement_and_defaults_the_rest(function):
    parameters = list(inspect.signature(getattr(posterior, function)).parameters.values())
    assert [p.name for p in parameters[:2]] == ["prior", "measurement"]
    asked = [p.name for p in parameters[2:] if p.default is inspect.Parameter.empty]
    assert asked == (["kernel_prior", "build"] if function in BLIND else [])


def slow_unless(quick, *values):
    return pytest.param(*values, marks=() if quick else pytest.mark.slow)


FIRST = ("dps norm", "dps_score heun", "mmps", "ddnm", "daps langevin legacy")
"""One of each kind; the others are left to the continuous check."""

EVERY = [slow_unless(name in FIRST, name) for name in CORE]
FINITE = [slow_unless(False, name, process) for name in CORE for process in GRIDS if process != "Flow"]
SPARE = ("dps_score heun", "mmps", "tmpd exact", "tmpd diagonal")
"""Heun's last step evaluates once more than it uses, which it does not charge."""


def assert_sound(solution, prior, measurement):
    """Finite in all that it tells, of the prior's shape, and nearer to the measurement than the prior's own draws."""
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(solution))
    assert solution.x.shape == prior.shape
    assert jnp.linalg.norm(measurement.residual(solution.x)) < 1.2 * typical_residual(prior, measurement)


@pytest.mark.parametrize(("name", "process"), FINITE)
def test_is_finite_and_fits_better_than_the_prior(name, process, key):
    make, grid = GRIDS[process]
    prior, measurement = problem(make())
    if process == "VP":  # whose program others run too
        solution = alone(name)(key, prior, measurement, jnp.ones(()))
    else:
        run = fast(lambda key, prior, m: di.as_solver(lambda m: METHODS[name](prior, m), grid(STEPS))(key, m))
        solution = run(key, prior, measurement)
    assert_sound(solution, prior, measurement)


@pytest.mark.parametrize("name", EVERY)
def test_is_sound_where_alpha_is_zero_and_the_cost_told_is_the_cost_paid(name, key):
    """At Flow's start. Evaluations, pullbacks and calls of the operator, counted as they run, against `info.cost`."""
    make, grid = GRIDS["Flow"]
    prior, measurement = problem(make())
    solution, tally = counted(METHODS[name], prior, measurement, grid(STEPS), key)
    assert_sound(solution, prior, measurement)
    nfe, vjps, calls = told(solution)
    spare = 1 if name in SPARE else 0
    assert paid(tally) == (nfe + spare, vjps + spare * vjps // nfe, calls + spare * calls // nfe)


def typical_residual(prior, measurement, decode=lambda x: x):
    """Root mean square of `|y - A x|` over the prior's own draws, for this y."""
    draws = jax.vmap(prior.denoise.sample)(jax.random.split(jax.random.key(3), 500))
    residuals = jax.vmap(lambda x: measurement.residual(decode(x)))(draws)
    return jnp.sqrt(jnp.mean(jnp.sum(residuals.reshape(500, -1) ** 2, axis=1)))


CHARTED = ("dps norm", "mmps")


@pytest.mark.parametrize("name", [slow_unless(name in CHARTED, name) for name in ANY_PROCESS])
def test_runs_where_alpha_is_an_array(name, key):
    """Blurring diffusion in the DCT chart: a Gaussian field, its box hidden, by the methods that claim no isotropy."""
    shape = (3, 3, 1)
    process = blurring(shape)
    spectrum = 1 / (1 + process.frequencies)
    prior = di.Prior(process, di.denoisers.GaussianDenoiser(process, jnp.zeros(shape), spectrum), shape)
    mask = jnp.ones(shape).at[1, 1].set(0.0)
    x = di.linalg.idct_hw(prior.denoise.sample(key))
    measurement = di.measure(key, di.operators.inpainting(shape, mask), x, SIGMA)
    method = charts.within(charts.dct(shape), lambda m: METHODS[name](prior, m))
    solution = fast(di.as_solver(method, times.grid(STEPS)))(key, measurement)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(solution))
    typical = typical_residual(prior, measurement, di.linalg.idct_hw)
    assert jnp.linalg.norm(measurement.residual(solution.x)) < 1.2 * typical


LEVELLED = ("pigdm", "mcg", "pgdm", "ddrm", "ddnm_plus", "repaint", "diffpir", "mcgdiff", "fps", "tds", "ddsmc", "daps")


@pytest.mark.parametrize("name", (*LEVELLED, "pnpdm", "dpnp", "dapspp", "flair"))
def test_what_needs_one_noise_level_refuses_a_blur(name):
    """A level for every frequency of x would be laid over the pixels of y, which have the same shape."""
    process = blurring((3, 3, 1))
    prior = di.Prior(process, di.denoisers.GaussianDenoiser(process, jnp.zeros((3, 3, 1)), jnp.ones(1)), (3, 3, 1))
    measurement = di.Measurement(di.operators.identity((3, 3, 1)), jnp.ones((3, 3, 1)), di.GaussianNoise(0.1))
    message = rf"process Blurring has an alpha of shape \(3, 3, 1\); {name} needs an isotropic one: use mmps"
    with pytest.raises(ValueError, match=message):
        getattr(di.posterior, name)(prior, measurement)


@pytest.mark.parametrize("name", ["ddrm", "mmps", "dps", "mgps", "reddiff"])
def test_a_level_for_each_pixel_is_refused(name):
    """Its use differs by operator: a blur's `solve` would lay it over the frequencies."""
    prior = di.gaussian(di.process.VP(), jnp.zeros((2, 2, 1)), jnp.eye(4))
    noise = di.GaussianNoise(jnp.full((2, 2, 1), 0.1))
    measurement = di.Measurement(di.operators.identity((2, 2, 1)), jnp.ones((2, 2, 1)), noise)
    with pytest.raises(ValueError, match=rf"{name}: sigma_y has shape \(2, 2, 1\); one number serves a sample: whiten"):
        getattr(di.posterior, name)(prior, measurement)


@pytest.mark.parametrize("name", EVERY)
def test_knows_no_batch_and_no_device(name):
    """Sixteen measurements on eight devices, each with its own key and strength, are the same as each alone on one.

    Again they are the same bit by bit, alone to rounding; the result stays split, and one trace serves them all.
    """
    keys, prior, measurements, strengths = batch()
    together = batched(name)(*sharded(*batch()))
    assert_same(together, batched(name)(*sharded(*batch())), 0)
    assert len(together.x.sharding.device_set) == 8 and not together.x.is_fully_replicated
    TRACES.clear()
    for i in (0, 5, 10, 15):
        one = alone(name)(keys[i], prior, pick(measurements, i), strengths[i])
        assert_same(pick(together, i), one, tolerance(name))
    other = prior.replace(denoise=prior.denoise.replace(mean=prior.denoise.mean + 1))
    moved = alone(name)(keys[5], other, pick(measurements, 5), strengths[5])
    assert not np.allclose(moved.x, together.x[5])
    assert TRACES[name] <= 1
    assert len({float(x[0]) for x in together.x}) == SIZE


@pytest.mark.parametrize("name", EVERY)
def test_a_strength_is_swept_by_vmap(name):
    """Sixteen strengths on one key and measurement are what a loop over them gives, and they matter."""
    keys, prior, measurements, strengths = batch()
    keys, measurements = jax.tree.map(lambda a: jnp.stack([a[0]] * SIZE), (keys, measurements))
    sweep = batched(name)(*sharded(keys, prior, measurements, strengths))
    for i in (0, 15):
        assert_same(pick(sweep, i), alone(name)(keys[0], prior, pick(measurements, 0), strengths[i]), tolerance(name))
    assert np.abs(sweep.x[0] - sweep.x[-1]).max() > 1e-4


FLOAT32 = [slow_unless(process == "EDM", name, process) for name in CORE for process in ("VP", "EDM", "Flow")]
FLOAT32 += [slow_unless(False, name, process) for name in MORE for process in ("VP", "Flow")]


@pytest.mark.parametrize(("name", "process"), FLOAT32)
def test_float32_stays_float32(name, process):
    """Under strict promotion with float64 enabled: nothing on the way makes or needs a float64 array."""
    make, grid = GRIDS[process]
    prior, measurement = cast(problem(make()), jnp.float32)
    solver = di.as_solver(lambda m: METHODS[name](prior, m), grid(STEPS).astype(jnp.float32))
    for x in (None, jax.ShapeDtypeStruct(prior.shape, jnp.float32)):
        shape = jax.eval_shape(solver, jax.random.key(0), measurement, x)
        assert {leaf.dtype for leaf in jax.tree.leaves(shape)} <= {jnp.dtype("float32"), jnp.dtype("int32")}


@struct.dataclass
class Cubic(Operator):
    """A nonlinear operator."""

    @property
    def shape(self):
        return (DIM,)

    def __call__(self, x):
        return x[:3] ** 3


def test_what_is_not_linear_is_refused_by_name_of_the_method():
    prior, measurement = problem(di.process.VP())
    bent = measurement.replace(operator=Cubic())
    for name in LINEAR_ONLY:
        with pytest.raises(TypeError, match=f"Cubic is not linear; {name} needs"):
            getattr(posterior, name)(prior, bent)
    with pytest.raises(TypeError, match=r"daps with chain=chains.conjugate\(\) needs"):
        posterior.daps(prior, bent, chain=posterior.chains.conjugate())
    for method in (posterior.dps, posterior.dps_score, posterior.daps):
        assert isinstance(method(prior, bent), di.Sampler | di.Prior)


@pytest.mark.parametrize(
    ("function", "argument", "name", "values"),
    [("dps", "reward", "square", "rewards.square"), ("dps_score", "reward", "norm", "rewards.norm"),
     ("mcg", "reward", "nonsense", "rewards.square, posterior.rewards.norm, posterior.rewards.likelihood"),
     ("daps", "chain", "hmc", "chains.hmc()"), ("pnpdm", "chain", "conjugate", "chains.conjugate()"),
     ("daps", "chain", 100, "chains.langevin(), posterior.chains.hmc(), posterior.chains.metropolis(), "
      "posterior.chains.conjugate(), posterior.chains.rto()")],
)  # fmt: skip
def test_a_name_is_refused_with_the_value_to_give(function, argument, name, values):
    prior, measurement = problem(di.process.VP())
    expected = f"{argument} is {name!r}; give a value, not a name: posterior.{values}"
    with pytest.raises(TypeError, match=f"^{re.escape(expected)}$"):
        getattr(posterior, function)(prior, measurement, **{argument: name})


def test_daps_refuses_a_chain_without_temperature():
    """A noiseless measurement has no sigma to take tau from; an exact draw needs none."""
    prior, measurement = problem(di.process.VP())
    noiseless = measurement.replace(noise=di.GaussianNoise(0.0))
    with pytest.raises(ValueError, match="tau is 0.0; Langevin needs one above 0"):
        posterior.daps(prior, noiseless)
    for options in ({"tau": 0.01}, {"chain": posterior.chains.conjugate()}):
        assert isinstance(posterior.daps(prior, noiseless, **options), di.Sampler)


NOISELESS = [slow_unless(name == "mmps", name) for name in ("pigdm likelihood", "mmps", "tmpd exact", "tmpd diagonal")]
NOISELESS += [slow_unless(False, name) for name in ("ddnm", "daps conjugate legacy")]


@pytest.mark.parametrize("name", NOISELESS)
def test_a_noiseless_mask_is_finite_and_met(name, key):
    """`sigma_y = 0` where A has rows of zeros: nothing divides by their variance, and the seen pixels come out as y."""
    shape = (2, 3, 1)
    prior = di.gaussian_field(di.process.VP(), jnp.zeros(shape), jnp.linspace(0.5, 1.5, 6).reshape(shape))
    operator = di.operators.inpainting(shape, jnp.asarray([1.0, 1, 0, 0, 1, 0]).reshape(shape))
    measurement = di.measure(key, operator, prior.denoise.sample(key), 0.0)
    solver = di.as_solver(lambda m: METHODS[name](prior, m), times.grid(STEPS, power=2.0))
    x = fast(solver)(key, measurement).x
    assert jnp.isfinite(x).all()
    assert jnp.linalg.norm(measurement.residual(x)) < 0.05
    assert jnp.linalg.norm(jnp.where(operator.mask == 0, x, 0.0)) > 0.05
