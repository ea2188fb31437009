"""The methods as `experiments.reconstruct` runs them: solvers out of its configuration and a prior."""

from __future__ import annotations

from collections.abc import Iterable

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from diffinv import GaussianNoise, Measurement, Prior, Solution, Solver, as_solver, guard
from diffinv.operators.base import Operator
from diffinv.schema import Schema, either, exactly, whole
from diffinv.typing import Array, Key
from experiments.common.commandline import listed
from experiments.methods.table import GUIDED, METHODS, Method

FIELDS: Schema = {
    "steps": either(
        exactly(0, "0 for the paper's"),
        whole("", 2, 100_000),
        meaning="of the solvers that run with their paper's defaults",
    ),
    **{name: method.fields for name, method in METHODS.items() if method.fields},
    "guided": GUIDED,
}


def own(name: str) -> str:
    """The method's name, without the base that a wrapper refines."""
    return name.partition("(")[0]


def base(name: str, config: ConfigDict) -> str:
    """What a wrapper refines: the name in its parentheses, else the first of `config.base`."""
    return name.partition("(")[2].rstrip(")") or listed(config.base)[0]


def chosen(config: ConfigDict) -> list[str]:
    """The methods of a run, in order; a wrapper once for each `config.base`, as "reguidance(ddrm)"."""
    bases = listed(config.base)
    return [f"{name}({each})" if each else name for name in listed(config.solver) for each in _bases(name, bases)]


def _bases(name: str, bases: list[str]) -> list[str]:
    return bases if METHODS[name].wrap else [""]


def given(key: Key, measurement: Measurement, x: Array | None = None) -> Solution:
    """The solver that proposes the candidate it is given: what `config.base` made before, so that both are compared."""
    return Solution(x, ())


def times_of(method: Method, config: ConfigDict, prior: Prior) -> Array:
    """A method's times, under the prior's process."""
    steps = method.steps(config) if callable(method.steps) else config.steps or method.steps
    return method.grid(prior.process, steps, config)


def solver(name: str, config: ConfigDict, prior: Prior) -> Solver:
    """The method of this name; a wrapper is around the candidate that the solver is given."""
    method = METHODS[own(name)]
    grid, settings = times_of(method, config, prior), method.settings(config)
    plain = as_solver(lambda m: guard(method.build(prior, m, **settings)), grid)
    return method.wrap(given, plain, prior, grid) if method.wrap else plain


def require_able(names: Iterable[str], config: ConfigDict, task: str, prior: Prior, operator: Operator) -> None:
    """ValueError where one of these methods cannot be built around this operator, whose numbers need not be known."""

    def built(operator: Operator) -> Array:
        y = jnp.zeros_like(jax.eval_shape(operator, jnp.zeros(prior.shape)))
        for name in names:
            method = METHODS[name]
            method.build(prior, Measurement(operator, y, GaussianNoise(config.sigma_y)), **method.settings(config))
        return y

    try:
        jax.eval_shape(built, operator)
    except TypeError as error:
        raise ValueError(f"config.task is {task}: {error}") from None


def wrappers() -> list[str]:
    """The methods that refine the outcome of each `config.base`."""
    return [name for name, method in METHODS.items() if method.wrap]


def label(name: str, config: ConfigDict) -> str:
    """What the report calls a solver."""
    method = METHODS[own(name)]
    return f"{method.label}({METHODS[base(name, config)].label})" if method.wrap else method.label
