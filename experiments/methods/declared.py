"""How a method is declared: what an entry of `table.METHODS` holds, and what several entries share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

import diffinv as di
from diffinv import samplers
from diffinv.schema import Schema, number, whole
from diffinv.typing import Array, Sampler, Solver
from experiments.methods import grids
from experiments.methods.running import SAMPLERS

Build = Callable[..., Sampler]


class Tried(NamedTuple):
    """What the exact lab tries of a method, a row of its table: each of some values of one hyperparameter.

    Attributes:
      knob: the hyperparameter's name, a setting of the method.
      values: what is tried, the published default among them.
      claim: "exact" for Gaussian posteriors, "asymptotic" (in particles or steps), or "biased".
      steps: of the lab's grid.
      settings: what else the method is given.
      base: `(prior, measurement) -> Sampler`, whose outcome is refined where the method is a wrapper.
    """

    knob: str
    values: tuple[float, ...]
    claim: str = "biased"
    steps: int = 100
    settings: Mapping[str, Any] = {}
    base: Build | None = None


class Method(NamedTuple):
    """A method.

    Attributes:
      label: what reports call it.
      build: `(prior, measurement, **settings) -> Sampler`, with its paper's defaults.
      steps: its paper's, in whose place `config.steps` stands where that is not 0; or those of its own section.
      grid: its times.
      settings: what the configuration gives to `build`.
      fields: the section of the configuration that is its own.
      needs_noise: it divides by the noise, which 0 then is not.
      needs_spectrum: it asks the operator for its singular values, or inverts it as if there were no noise, which is
        bounded only where the operator knows which of them to cut.
      codes: it takes the `chart` of a prior over codes, and restores under such a prior alone.
      wrap: `(propose, refine, prior, times) -> Solver`, where it refines the outcome of `config.base`.
      tried: its rows in the exact lab.
    """

    label: str
    build: Build
    steps: int | Callable[[ConfigDict], int]
    grid: grids.Grid = grids.even
    settings: Callable[[ConfigDict], Mapping[str, Any]] = lambda config: {}
    fields: Schema = {}
    needs_noise: bool = False
    needs_spectrum: bool = False
    codes: bool = False
    wrap: Callable[..., Solver] | None = None
    tried: Mapping[str, Tried] = {}


def guided(transform: Callable[..., di.Prior]) -> Build:
    """A guided prior under the sampler of this name with its `eta`; Heun's method where no `eta` is given."""

    def build(
        prior: di.Prior,
        m: di.Measurement,
        eta: Array | float | None = None,
        sampler: str = "ddim",
        steps: int = 0,
        **settings: Any,
    ) -> Sampler:
        chosen = transform(prior, m, **settings)
        return samplers.heun(chosen) if eta is None else SAMPLERS[sampler](chosen, steps, eta)

    return build


def assuming(measurement: di.Measurement, factor: Array | float) -> di.Measurement:
    """The measurement with its noise's deviation scaled."""
    return measurement.replace(noise=di.GaussianNoise(factor * measurement.sigma))


def told(build: Build) -> Build:
    """A method with one more setting, `noise`, the factor of the deviation that it is told."""
    return lambda prior, m, noise=None, **settings: build(prior, m if noise is None else assuming(m, noise), **settings)


NOISE = (0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0, 3.0)
STEP = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
ETA = (0.0, 0.2, 0.4, 0.6, 0.7, 0.85, 0.95, 1.0)
SMALL = (1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 0.6, 1.0)
WIDE = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)

steps_of = lambda meaning, low=1: whole(meaning, low, 100_000)
level_of = lambda meaning: number(meaning, above=0, high=1e4, unit="noise-to-signal")
