"""The one loop and its wrappers: keys, traces, recording, gradients and frozen samples."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from numpy.testing import assert_allclose, assert_array_equal
from registries import SAMPLERS

from diffinv import process, times
from diffinv.denoisers.exact import GaussianDenoiser
from diffinv.linalg import norm
from diffinv.loop import as_solver, failed_step, first_bad_step, guard, markov, record, remat, sample, sweep, total_cost
from diffinv.prior import NetworkDenoiser, Prior
from diffinv.samplers import ancestral, ddim, heun
from diffinv.typing import Cost, Solution, StepInfo

SHAPE, GRID = (4, 4, 1), times.grid(6)
every_sampler = pytest.mark.parametrize("name", SAMPLERS)


@pytest.fixture
def prior():
    rng = np.random.default_rng(0)
    mean, variance = jnp.asarray(rng.standard_normal(SHAPE)), jnp.asarray(rng.uniform(0.1, 1.0, SHAPE))
    return Prior(process.VP(), GaussianDenoiser(process.VP(), mean, variance), SHAPE)


def primitives(jaxpr):
    """The names of the loops in a program, those inside a loop's body excluded."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("scan", "while"):
            yield equation.primitive.name
        else:
            for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda v: hasattr(v, "eqns")):
                inner = getattr(inner, "jaxpr", inner)
                yield from primitives(inner) if hasattr(inner, "eqns") else ()


@every_sampler
def test_sampling_is_one_scan(name, prior, key):
    program = jax.make_jaxpr(lambda key, prior: sample(key, SAMPLERS[name](prior), GRID))(key, prior)
    assert list(primitives(program.jaxpr)) == ["scan"]


@every_sampler
def test_one_trace_serves_all_values_of_a_shape(name, key):
    traces = []

    def network(params, x, condition):
        traces.append(x.shape)
        return params * x

    @jax.jit
    def run(key, prior, grid):
        return sample(key, SAMPLERS[name](prior), grid).x

    build = lambda scale, shape: Prior(process.VP(), NetworkDenoiser(scale, process.VP(), network, "x0"), shape)
    trace = lambda key, *arguments: jax.eval_shape(run, key, build(*arguments[:2]), arguments[2])
    trace(key, 0.3, SHAPE, GRID)
    calls = len(traces)
    assert 1 <= calls <= 2
    trace(jax.random.key(1), 0.9, SHAPE, times.grid(6, power=2.0))
    assert len(traces) == calls
    trace(key, 0.3, (2, 2, 1), GRID)
    assert len(traces) == 2 * calls


def sample_key(base, item, draw):
    return jax.random.fold_in(jax.random.fold_in(base, item), draw)


@pytest.mark.parametrize("name", ["ancestral", "renoise"])
def test_a_sample_depends_on_its_key_alone(name, prior, key):
    """The same (item, draw) in any batch, at any place in it."""
    run = jax.jit(jax.vmap(lambda k: sample(k, SAMPLERS[name](prior), GRID).x))
    keys = [sample_key(key, item, draw) for item in range(3) for draw in range(2)]
    whole = run(jnp.stack(keys))
    assert_array_equal(run(jnp.stack(keys[::-1]))[::-1], whole)
    assert_array_equal(run(jnp.stack(keys[2:5])), whole[2:5])
    alone = jax.jit(lambda k: sample(k, SAMPLERS[name](prior), GRID).x)(keys[4])
    assert_allclose(alone, whole[4], rtol=1e-12, atol=1e-12)
    assert len(np.unique(np.asarray(whole)[:, 0, 0, 0])) == 6


def test_every_step_has_its_own_key_and_times(key):
    """Step i gets `fold_in(key, i + 1)`, init `fold_in(key, 0)`, final the next; times in the grid's order."""
    seen = lambda k: jax.random.key_data(k)
    sampler = markov(None, lambda k, x, t, s: (x, (seen(k), t, s)))
    sampler = sampler._replace(init=lambda k, t, x: seen(k), final=lambda k, x: (x, seen(k)))
    (first, last), (steps, t, s) = sample(key, sampler, GRID)
    expected = [seen(jax.random.fold_in(key, i)) for i in range(8)]
    assert_array_equal(jnp.stack([first, *steps, last]), jnp.stack(expected))
    assert_array_equal(t, GRID[:-1])
    assert_array_equal(s, GRID[1:])


def test_a_given_start_is_used_and_none_is_drawn(prior, key):
    x = jnp.ones(SHAPE)
    assert_allclose(sample(key, ddim(prior), GRID[:2], x).x, ddim(prior).step(key, x, 1.0, GRID[1])[0], rtol=1e-13)
    drawn = sample(key, markov(prior, lambda k, x, t, s: (x, None)), GRID).x
    assert_array_equal(drawn, prior.start(jax.random.fold_in(key, 0), 1.0))


@pytest.mark.parametrize("wrap", [lambda sampler: sampler, remat])
def test_a_chain_takes_its_start_its_end_and_the_cost_of_a_step(key, wrap):
    """The step then tells the residual alone; counts that were Python ints are int32, one a step."""
    step = lambda k, x, t, s: (x + 1, t)
    begin, end = lambda k, t, x: jnp.zeros(2) if x is None else x, lambda k, x: 2 * x
    solution = sample(key, wrap(markov(None, step, begin, end, Cost(2, calls=3))), GRID)
    assert_array_equal(solution.x, [12.0, 12.0])
    assert_array_equal(solution.info.residual, GRID[:-1])
    for count, expected in zip(solution.info.cost, (2, 0, 3), strict=True):
        assert count.dtype == jnp.int32
        assert_array_equal(count, np.full(6, expected))


def test_a_cost_is_counted_wherever_it_stands_in_the_info(prior, key):
    step = lambda k, x, t, s: (x, {"inner": StepInfo(Cost(1, calls=jnp.where(t > 0.5, 2, 0))), "more": t})
    info = sample(key, guard(markov(prior, step)), GRID).info.info
    assert info["inner"].cost.calls.dtype == info["inner"].cost.nfe.dtype == jnp.int32
    assert_array_equal(info["inner"].cost.calls, np.where(GRID[:-1] > 0.5, 2, 0))
    assert_array_equal(info["more"], GRID[:-1])


def test_record_keeps_every_state(prior, key):
    solution = sample(key, record(ancestral(prior)), GRID)
    assert_array_equal(solution.x, sample(key, ancestral(prior), GRID).x)
    assert solution.info.state.shape == (6, *SHAPE)
    assert_array_equal(solution.info.state[-1], solution.x)
    assert_allclose(solution.info.state[2], sample(key, ancestral(prior), GRID[:4]).x, rtol=1e-13)
    assert solution.info.info.cost.nfe.shape == (6,)


@pytest.mark.slow
def test_remat_changes_memory_and_nothing_else(prior, key):
    def loss(scale, wrap):
        scaled = prior.replace(denoise=prior.denoise.replace(variance=scale * prior.denoise.variance))
        return jnp.sum(sample(key, wrap(heun(scaled)), GRID).x ** 2)

    plain, light = (jax.value_and_grad(loss)(1.3, wrap) for wrap in (lambda sampler: sampler, remat))
    assert_allclose(light, plain, rtol=1e-13)
    difference = (loss(1.3 + 1e-5, remat) - loss(1.3 - 1e-5, remat)) / 2e-5
    assert_allclose(light[1], difference, rtol=1e-6)
    assert "remat" in str(jax.make_jaxpr(lambda scale: loss(scale, remat))(1.3))


@struct.dataclass
class Faulty:
    """A denoiser that gives NaN in one coordinate at one time, for a sample that is marked."""

    denoise: Any
    bad: Any
    time: Any

    def __call__(self, x, t):
        fault = self.bad & (jnp.abs(t - self.time) < 1e-6)
        return self.denoise(x, t).at[0, 0, 0].add(jnp.where(fault, jnp.nan, 0.0))


def test_guard_freezes_the_sample_that_failed_and_no_other(prior, key):
    keys, marked = jax.random.split(key, 4), jnp.array([False, False, True, False])
    others = np.array([0, 1, 3])

    def batch(wrap):
        def run(key, bad, time):
            return sample(key, wrap(ancestral(prior.replace(denoise=Faulty(prior.denoise, bad, time)))), GRID)

        return jax.jit(jax.vmap(run, (0, 0, None)))

    guarded, bare = batch(lambda sampler: record(guard(sampler))), batch(lambda sampler: sampler)
    healthy = guarded(keys, jnp.zeros(4, bool), 0.0)
    for at in (0, 3, 5):
        frozen = guarded(keys, marked, GRID[at])
        assert_array_equal(frozen.x[others], healthy.x[others])
        before = prior.start(jax.random.fold_in(keys[2], 0)) if at == 0 else healthy.info.state[0][2, at - 1]
        assert_allclose(frozen.x[2], before, rtol=1e-14)
        assert_array_equal(jax.vmap(first_bad_step)(frozen.info.info.alive), [-1, -1, at, -1])
        assert_array_equal(jax.vmap(failed_step)(frozen.info), [-1, -1, at, -1])
        assert not jnp.all(jnp.isfinite(bare(keys, marked, GRID[at]).x[2]))


def test_guard_watches_every_part_of_the_state_but_integers(key):
    """A NaN in a carried statistic counts; counters and keys do not."""
    step = lambda k, state, t, s: ((state[0], state[1] + 1, jnp.where(t < 0.5, jnp.inf, state[2]), state[3]), None)
    sampler = markov(None, step, init=lambda k, t, x: (jnp.zeros(2), 0, 0.0, k))
    solution = sample(key, guard(sampler), GRID)
    assert_array_equal(solution.info.alive, GRID[:-1] >= 0.5)
    assert solution.x[1] == 4 and solution.x[2] == 0


def test_a_solver_is_a_method_and_its_grid(prior, key):
    def method(measurement):
        def step(k, x, t, s):
            x0 = prior.denoise(x, t)
            return prior.process.transition(x, x0, t, s).sample(k), StepInfo(Cost(), norm(measurement - x0))

        return markov(prior, step)

    solver, y = as_solver(method, GRID), jnp.ones(SHAPE)
    expected = sample(key, method(y), GRID)
    for leaf, same in zip(jax.tree.leaves(solver(key, y)), jax.tree.leaves(expected), strict=True):
        assert_array_equal(leaf, same)
    assert expected.info.residual.shape == (6,)
    assert_array_equal(solver(key, y, x=jnp.ones(SHAPE)).x, sample(key, method(y), GRID, jnp.ones(SHAPE)).x)


def test_costs_add_up_over_stages_draws_and_wrappers(prior, key):
    one = sample(key, record(guard(heun(prior))), GRID).info
    drawn = jax.vmap(lambda k: sample(k, heun(prior), GRID).info)(jax.random.split(key, 3))
    total = total_cost({"stage": one, "draws": drawn, "inversion": Cost(5, 2)})
    assert total == Cost(11 + 3 * 11 + 5, 2)
    assert total_cost(None) == Cost(0, 0)
    assert total.nfe.dtype == jnp.int32


def test_the_first_stage_to_fail_is_named(prior, key):
    healthy = sample(key, guard(ddim(prior)), GRID).info
    broken = healthy._replace(alive=jnp.arange(6) < 4)
    worse = healthy._replace(alive=jnp.arange(6) < 2)
    assert failed_step((healthy, broken, worse)) == 4
    assert failed_step((healthy, {"inner": worse})) == 2
    assert failed_step(healthy) == -1 and failed_step(()) == -1
    assert failed_step(healthy._replace(info=broken)) == 4


def test_a_sweep_is_every_point_on_its_own(key):
    """One trace, leading axes in the order of the names, and the same bits as each point alone."""
    traces = []

    def build(scale, shift):
        def solver(key, measurement, x=None):
            traces.append(None)
            return Solution(scale * measurement + shift + jax.random.normal(key, (2,)), {"seen": scale})

        return solver

    scales, shifts, y = jnp.asarray([1.0, 2.0, 3.0]), jnp.asarray([0.0, 10.0]), jnp.asarray([5.0, 7.0])
    found = jax.jit(sweep(build, scale=scales, shift=shifts))(key, y)
    assert found.x.shape == (3, 2, 2) and found.info["seen"].shape == (3, 2) and len(traces) == 1
    for i, j in np.ndindex(3, 2):
        assert_array_equal(found.x[i, j], build(scales[i], shifts[j])(key, y).x)


@pytest.mark.parametrize("value", [1.0, [[1.0]], []])
def test_a_sweep_needs_one_axis(value):
    with pytest.raises(ValueError, match="eta has shape"):
        sweep(lambda eta: None, eta=value)
