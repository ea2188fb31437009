"""The methods as the exact lab runs them: rows, each a way to build a sampler and the values of a hyperparameter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

import diffinv as di
from diffinv import posterior, times
from diffinv.typing import Array, Sampler, Solver
from experiments.methods.table import METHODS, Method, Tried


class Row(NamedTuple):
    """A method at the values of one hyperparameter, `build(prior, measurement, value) -> Sampler`; as `table.Tried`."""

    build: Callable[..., Sampler]
    knob: str
    values: tuple[float, ...]
    claim: str
    steps: int = 100
    base: Callable[..., Sampler] | None = None


def row(method: Method, tried: Tried) -> Row:
    """The row of what is tried of a method."""

    def build(prior: di.Prior, measurement: di.Measurement, value: Any) -> Sampler:
        return method.build(prior, measurement, **{**tried.settings, tried.knob: value})

    return Row(build, tried.knob, tried.values, tried.claim, tried.steps, tried.base)


ROWS: dict[str, Row] = {name: row(method, tried) for method in METHODS.values() for name, tried in method.tried.items()}


def solver(row: Row, prior: di.Prior, value: Array) -> Solver:
    """The solver of one row at one value of its hyperparameter, guarded and with its grid."""
    grid = times.grid(row.steps, power=2.0)
    if row.base is None:
        return di.as_solver(lambda m: di.guard(row.build(prior, m, value)), grid)
    propose = di.as_solver(lambda m: di.guard(row.base(prior, m)), grid)
    refine = di.as_solver(lambda m: row.build(prior, m, jnp.asarray(value)), grid)
    return posterior.reguidance(propose, refine, prior, grid)
