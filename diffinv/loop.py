"""The one loop: `sample` scans a sampler's step over a time grid. Wrappers record, rematerialise and guard it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from diffinv.describe import described
from diffinv.linalg import LOST
from diffinv.times import settled
from diffinv.typing import Array, Cost, Info, Key, Sampler, Solution, Solver, State, StepInfo, Time
from diffinv.watch import walking


def sample(key: Key, sampler: Sampler, times: Array, x: Array | None = None) -> Solution:
    """Runs `sampler` over `times` (n + 1 values) by one `lax.scan`; info is stacked over the n steps.

    Step i's key is `fold_in(key, i + 1)`, so that it depends on neither the batch nor the device.

    Args:
      key: of this one sample.
      sampler: init, step and final.
      times: decreasing for sampling, increasing for inversion; its length is static. A grid that ends a rounding error
        beside 0 or 1 ends there; traced times outside [0, 1] give NaN: see `times.settled`.
      x: a start at time `times[0]`; None draws one from the noisy end.

    Raises ValueError for times known beforehand that are outside [0, 1], or 0 before the end.

    >>> import jax, jax.numpy as jnp, diffinv as di
    >>> prior = di.gaussian(di.process.VP(), jnp.full(2, 3.0), 1e-8 * jnp.eye(2))
    >>> solution = di.sample(jax.random.key(0), di.samplers.ddim(prior), di.times.grid(20))
    >>> solution.x.round(2).tolist(), solution.info.cost.nfe.shape
    ([3.0, 3.0], (20,))
    """
    times = settled(times)
    state = sampler.init(jax.random.fold_in(key, 0), times[0], x)

    def body(state: State, now: tuple[Array, Array, Array]) -> tuple[State, Info]:
        i, t, s = now
        with walking(i, len(times) - 1):
            state, info = sampler.step(jax.random.fold_in(key, i), state, t, s)
        return state, tallied(info)

    steps = jnp.arange(1, len(times))
    state, info = jax.lax.scan(body, state, (steps, times[:-1], times[1:]))
    return Solution(sampler.final(jax.random.fold_in(key, len(times)), state), info)


def tallied(info: Info) -> Info:
    """The info with the counts of every `Cost`, which may be Python ints, as int32 arrays."""

    def arrays(node: Any) -> Any:
        return Cost(*(jnp.asarray(count, jnp.int32) for count in node)) if isinstance(node, Cost) else node

    return jax.tree.map(arrays, info, is_leaf=lambda node: isinstance(node, Cost))


def as_solver(method: Callable[[Any], Sampler], times: Array) -> Solver:
    """A solver from `method(measurement) -> Sampler` and a time grid: `(key, measurement, x=None) -> Solution`.

    >>> import jax, jax.numpy as jnp, diffinv as di
    >>> from diffinv import operators, posterior, samplers, times
    >>> prior = di.gaussian(di.process.VP(), jnp.zeros(2), jnp.eye(2))
    >>> solver = di.as_solver(lambda m: samplers.heun(posterior.mmps(prior, m)), times.grid(32, power=2.0))
    >>> A = operators.identity((2,))
    >>> measurement = di.measure(jax.random.key(0), A, jnp.asarray([0.5, 1.0]), sigma=0.01)
    >>> abs(float(solver(jax.random.key(1), measurement).x[0]) - 0.5) < 0.1  # what was measured
    True
    """

    def solver(key: Key, measurement: Any, x: Array | None = None) -> Solution:
        return sample(key, method(measurement), times, x)

    return solver


def markov(
    prior: Any,
    step: Callable[[Key, Array, Time, Time], tuple[Array, Any]],
    init: Callable[[Key, Time, Array | None], Array] | None = None,
    final: Callable[[Key, Array], Array] | None = None,
    cost: Cost | None = None,
) -> Sampler:
    """A sampler whose whole state is `x`: `step(key, x, t, s) -> (x, info)`.

    Args:
      prior: at whose noisy end it starts.
      step: from time t to s.
      init: `(key, t, x) -> x`, another start; by default x itself, where one is given.
      final: `(key, x) -> x`; by default the identity.
      cost: of one step, where all cost the same. Then `step` returns `(x, residual)`, the norm `|y - A x0|` or None,
        and the info is `StepInfo(cost, residual)`. Without it the step tells all of its info.
    """

    def start(key: Key, t: Time, x: Array | None) -> Array:
        return prior.start(key, t) if x is None else x

    return Sampler(init or start, step if cost is None else _costed(step, cost), final or (lambda key, x: x))


def _costed(step: Callable[[Key, Array, Time, Time], tuple[Array, Any]], cost: Cost) -> Callable[..., Any]:
    """The step that tells its cost beside its residual."""

    def costed(key: Key, x: Array, t: Time, s: Time) -> tuple[Array, StepInfo]:
        x, residual = step(key, x, t, s)
        return x, StepInfo(cost, residual)

    return costed


@described
class Recorded(NamedTuple):
    """What `record` makes of a step's info.

    Attributes:
      info: the sampler's own.
      state: after the step.
    """

    info: Info
    state: State


def record(sampler: Sampler) -> Sampler:
    """Adds the state after every step to the info: memory grows with the number of steps."""

    def step(key: Key, state: State, t: Time, s: Time) -> tuple[State, Recorded]:
        state, info = sampler.step(key, state, t, s)
        return state, Recorded(info, state)

    return sampler._replace(step=step)


def remat(sampler: Sampler) -> Sampler:
    """Forgets each step's intermediates, so that a gradient through the whole scan recomputes them."""
    return sampler._replace(step=jax.checkpoint(sampler.step))


def sweep(build: Callable[..., Solver], **values: Array) -> Solver:
    """Every combination of numeric hyperparameters in one compiled program: `sweep(build, zeta=zetas, eta=etas)`.

    The solution's leaves get one leading axis for each name, in the order given: (zetas, etas, ...). All points share
    the key and the measurement, so that they differ by the hyperparameter alone.

    Args:
      build: `(**hyperparameters) -> Solver`, as `lambda zeta: as_solver(lambda m: dps(prior, m, zeta), times)`.
      **values: (n,) each.

    Raises ValueError for values that are not one axis of numbers.

    >>> import jax, jax.numpy as jnp, diffinv as di
    >>> prior = di.gaussian(di.process.VP(), jnp.zeros(2), jnp.eye(2))
    >>> measurement = di.measure(jax.random.key(0), di.operators.identity((2,)), jnp.ones(2), sigma=0.1)
    >>> build = lambda zeta: di.as_solver(lambda m: di.posterior.dps(prior, m, zeta), di.times.grid(10))
    >>> di.sweep(build, zeta=jnp.asarray([0.1, 0.3, 1.0]))(jax.random.key(1), measurement).x.shape
    (3, 2)
    """
    arrays = {name: jnp.asarray(value) for name, value in values.items()}
    for name, array in arrays.items():
        if array.ndim != 1 or not array.size:
            raise ValueError(f"{name} has shape {array.shape}; give the values to try as one axis, (n,)")

    def solver(key: Key, measurement: Any, x: Array | None = None) -> Solution:
        def run(*point: Array) -> Solution:
            return build(**dict(zip(arrays, point, strict=True)))(key, measurement, x)

        for axis in reversed(range(len(arrays))):
            run = jax.vmap(run, [0 if i == axis else None for i in range(len(arrays))])
        return run(*arrays.values())

    return solver


@described
class Health(NamedTuple):
    """What `guard` makes of a step's info.

    Attributes:
      info: the sampler's own.
      alive: True for every step up to the first that was not finite.
    """

    info: Info
    alive: Array


def _finite(tree: Any) -> Array:
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(jnp.asarray(leaf).dtype, jnp.inexact)]
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(leaf) & (jnp.abs(leaf) < LOST)) for leaf in leaves]))


def guard(sampler: Sampler) -> Sampler:
    """Freezes a sample at its last finite state: later steps leave it, and `info.alive` tells from where.

    A state with a number beyond 1e18, whose square overflows in float32, counts as not finite. What grows less is seen
    by its residual: `posterior.account` flags a sample that fits the measurement 100 times worse than 0 does.
    """

    def init(key: Key, t: Time, x: Array | None) -> tuple[State, Array]:
        return sampler.init(key, t, x), jnp.array(True)

    def step(key: Key, guarded: tuple[State, Array], t: Time, s: Time) -> tuple[tuple[State, Array], Health]:
        state, alive = guarded
        proposal, info = sampler.step(key, state, t, s)
        alive = alive & _finite(proposal)
        return (jax.tree.map(lambda new, old: jnp.where(alive, new, old), proposal, state), alive), Health(info, alive)

    return Sampler(init, step, lambda key, guarded: sampler.final(key, guarded[0]))


def first_bad_step(alive: Array) -> Array:
    """The index of the first step that was not finite, -1 where all were; `alive` is (steps,)."""
    return jnp.where(jnp.all(alive), -1, jnp.argmin(alive))


def _nodes(info: Any, kind: type) -> list[Any]:
    return [node for node in jax.tree.leaves(info, is_leaf=lambda n: isinstance(n, kind)) if isinstance(node, kind)]


def total_cost(info: Any) -> Cost:
    """All `Cost`s of a finished solution's info, added up over steps, stages and draws."""
    costs = _nodes(info, Cost)

    def total(parts: Iterable[Array | int]) -> Array:
        return sum((jnp.sum(jnp.asarray(part, jnp.int32), dtype=jnp.int32) for part in parts), jnp.int32(0))

    return Cost(*(total(cost[i] for cost in costs) for i in range(len(Cost._fields))))


def failed_step(info: Any) -> Array:
    """The first step at which a guarded solver was frozen, counted within its stage; -1 where none was."""
    steps = [first_bad_step(node.alive) for node in _health(info)]
    worst = jnp.array(-1)
    for step in reversed(steps):
        worst = jnp.where(step >= 0, step, worst)
    return worst


def _health(info: Any) -> list[Health]:
    """Every `Health` in a tree, nested ones too."""
    found = _nodes(info, Health)
    return found + [inner for node in found for inner in _health(node.info)]
