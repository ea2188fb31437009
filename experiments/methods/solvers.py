"""The methods as `experiments.reconstruct` runs them: solvers out of its configuration and a prior."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from diffinv import GaussianNoise, LatentPrior, Measurement, Prior, Solution, Solver, as_solver, charts, guard
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


def times_of(method: Method, config: ConfigDict, prior: Prior | LatentPrior) -> Array:
    """A method's times, under the prior's process."""
    steps = method.steps(config) if callable(method.steps) else config.steps or method.steps
    return method.grid(prior.process, steps, config)


def solver(name: str, config: ConfigDict, prior: Prior | LatentPrior) -> Solver:
    """The method of this name; a wrapper is around the candidate that the solver is given.

    Under a prior over codes it runs in these, and sees the measurement through the decoder.
    """
    method = METHODS[own(name)]
    grid, settings = times_of(method, config, prior), method.settings(config)
    if isinstance(prior, LatentPrior):
        return _in_codes(method, prior, grid, settings)
    plain = as_solver(lambda m: guard(method.build(prior, m, **settings)), grid)
    return method.wrap(given, plain, prior, grid) if method.wrap else plain


def _in_codes(method: Method, prior: LatentPrior, grid: Array, settings: Mapping[str, Any]) -> Solver:
    chart = prior.codec.chart()
    if method.codes:
        return as_solver(lambda m: guard(method.build(prior.prior, m, chart=chart, **settings)), grid)
    plain = as_solver(lambda m: guard(method.build(prior.prior, m, **settings)), grid)
    return charts.through(chart, method.wrap(given, plain, prior.prior, grid) if method.wrap else plain)


def require_codes(names: Iterable[str], config: ConfigDict, prior: Prior | LatentPrior) -> None:
    """ValueError for methods of codes under a prior over pictures, and for pictures' settings under one over codes."""
    coded = [name for name in names if METHODS[name].codes]
    if coded and not isinstance(prior, LatentPrior):
        raise ValueError(
            f"config.prior is {config.prior!r}, of pictures, and {', '.join(sorted(coded))} restore through an "
            "autoencoder; give a prior over codes, see docs/latent.md"
        )
    if isinstance(prior, LatentPrior) and "dps" in names and config.dps.clip:
        raise ValueError("config.dps.clip is True, and the codes of config.prior are not in [-1, 1]: give False")


def require_able(
    names: Iterable[str], config: ConfigDict, task: str, prior: Prior | LatentPrior, operator: Operator
) -> None:
    """ValueError where one of these methods cannot be built around this operator, whose numbers need not be known."""
    latent = isinstance(prior, LatentPrior)

    def built(operator: Operator) -> Array:
        y = jnp.zeros_like(jax.eval_shape(operator, jnp.zeros(prior.shape)))
        for name in names:
            method = METHODS[name]
            seen = Measurement(operator, y, GaussianNoise(config.sigma_y))
            seen = charts.pull_back(prior.codec.chart(), seen) if latent and not method.codes else seen
            chart = {"chart": prior.codec.chart()} if latent and method.codes else {}
            method.build(prior.prior if latent else prior, seen, **chart, **method.settings(config))
        return y

    try:
        jax.eval_shape(built, operator)
    except TypeError as error:
        why = "config.prior is over codes, whose decoder is not linear" if latent else f"config.task is {task}"
        raise ValueError(f"{why}: {error}") from None


def wrappers() -> list[str]:
    """The methods that refine the outcome of each `config.base`."""
    return [name for name, method in METHODS.items() if method.wrap]


def label(name: str, config: ConfigDict) -> str:
    """What the report calls a solver."""
    method = METHODS[own(name)]
    return f"{method.label}({METHODS[base(name, config)].label})" if method.wrap else method.label
