"""Every method, declared once: how it is built, its times, its settings, and what the exact lab tries of it.

One's own method is one entry of `METHODS`. `experiments.reconstruct` knows it by its key, the exact lab by the names of
its rows. Where it has settings of its own, they are its `fields`, a section of the configuration of the same name, with
defaults in configs/reconstruct.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

import diffinv as di
from diffinv import posterior, samplers
from diffinv.posterior import chains, moments, rewards
from diffinv.schema import Schema, choice, number, switch, whole
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


CHAINS: dict[str, Callable[..., chains.InnerChain]] = {
    "langevin": chains.langevin,
    "hmc": chains.hmc,
    "metropolis": chains.metropolis,
    "conjugate": lambda steps, lr: chains.conjugate(),
}
"""The chains that a configuration names."""


def daps(
    prior: di.Prior,
    m: di.Measurement,
    chain: str = "langevin",
    mcmc_steps: int = 100,
    lr: Array | float = 0.1,
    decay: Array | float = 1.0,
    **settings: Any,
) -> Sampler:
    """DAPS with the chain of this name."""
    return posterior.daps(prior, m, chain=CHAINS[chain](mcmc_steps, chains.decayed(lr, decay)), **settings)


def refinement(prior: di.Prior, m: di.Measurement, rho: Array | float, convention: str) -> Sampler:
    """ReGuidance's second half: Heun's method on the ODE of DPS, with the reward of this name."""
    return samplers.heun(posterior.dps_score(prior, m, rho, rewards.KNOWN[convention]))


def small_dps(prior: di.Prior, m: di.Measurement) -> Sampler:
    """DPS with a small step, a candidate that is worth to be refined."""
    return posterior.dps(prior, m, 0.3)


NOISE = (0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0, 3.0)
STEP = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
ETA = (0.0, 0.2, 0.4, 0.6, 0.7, 0.85, 0.95, 1.0)
SMALL = (1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 0.6, 1.0)
WIDE = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)

_steps = lambda meaning, low=1: whole(meaning, low, 100_000)
_level = lambda meaning: number(meaning, above=0, high=1e4, unit="noise-to-signal")
GUIDED: Schema = {
    "steps": _steps("of pigdm, mmps, tmpd and ddnm", 2),
    "iterations": whole("of conjugate gradients, of mmps", 1, 10_000),
    "sampler": choice(tuple(SAMPLERS), "that runs them; churn has EDM's settings for pictures"),
    "eta": number("share of fresh noise in each step of ddim and the sde samplers; 0 is the ODE", 0, 1),
}
"""The section that guided priors share."""
_guided = {"steps": lambda config: config.guided.steps, "grid": grids.near_the_data}
_run = lambda config: {"eta": config.guided.eta, "sampler": config.guided.sampler, "steps": config.guided.steps}

PLUGGED: Schema = {
    "steps": _steps("of the iteration"),
    "level": number("noise at which the prior denoises", above=0, high=1e4, unit="on the [-1, 1] scale"),
    "lam": number("weight of the prior", above=0, high=1e6),
}

METHODS: dict[str, Method] = {
    "dps": Method(
        "DPS",
        posterior.dps,
        lambda config: config.dps.steps,
        settings=lambda config: {"zeta": config.dps.zeta, "clip": config.dps.clip},
        fields={
            "steps": _steps("of the ancestral chain"),
            "zeta": number("step along the gradient of the un-squared residual", above=0, high=1e4),
            "clip": switch("whether the denoised picture is clipped to [-1, 1]"),
        },
        tried={
            "DPS": Tried("zeta", STEP),
            "DPS likelihood": Tried("zeta", SMALL, settings={"reward": rewards.likelihood}),
        },
    ),
    "daps": Method(
        "DAPS",
        daps,
        lambda config: config.daps.steps,
        grids.annealing,
        lambda config: {
            name: config.daps[name]
            for name in ("ode_steps", "mcmc_steps", "lr", "tau", "chain", "sigma_end", "spread", "decay")
        },
        fields={
            "steps": _steps("noise levels", 2),
            "ode_steps": whole("of the inner ODE", 1, 10_000),
            "mcmc_steps": whole("of the chain at each level", 1, 100_000),
            "chain": choice(tuple(CHAINS), "the inner chain"),
            "spread": number("of the inner law, relative to the noise", above=0, high=1e3),
            "lr": number("step of the chain, relative to both variances; stable below 2", above=0, high=1e3),
            "tau": number("noise that the chain assumes", above=0, high=1e3, unit="of y, on the [-1, 1] scale"),
            "decay": number("what lr has fallen to at the last levels", above=0, high=1),
            "sigma_max": _level("first level"),
            "sigma_min": _level("last level before 0, below sigma_max"),
            "sigma_end": _level("where the inner ODE stops"),
        },
        tried={
            "DAPS": Tried("lr", SMALL, steps=50, settings={"mcmc_steps": 40}),
            "DAPS conjugate": Tried("spread", (0.1, *NOISE[:7]), steps=50, settings={"chain": "conjugate"}),
        },
    ),
    "pigdm": Method(
        "PiGDM",
        guided(posterior.pigdm),
        **_guided,
        settings=_run,
        tried={"PiGDM likelihood": Tried("weight", STEP, settings={"eta": 1.0})},
    ),
    "mmps": Method(
        "MMPS",
        told(guided(posterior.mmps)),
        **_guided,
        settings=lambda config: {**_run(config), "iterations": config.guided.iterations},
        tried={"MMPS": Tried("noise", NOISE, "exact", 64)},
    ),
    "tmpd": Method(
        "TMPD",
        told(guided(posterior.tmpd)),
        **_guided,
        settings=lambda config: {**_run(config), "moment": moments.diagonal},
        tried={
            "TMPD exact": Tried("noise", NOISE, "exact", 64),
            "TMPD diagonal": Tried("noise", NOISE, settings={"moment": moments.diagonal}),
        },
    ),
    "ddnm": Method(
        "DDNM", guided(posterior.ddnm), **_guided, settings=_run, needs_spectrum=True, tried={"DDNM": Tried("eta", ETA)}
    ),
    "ddrm": Method("DDRM", posterior.ddrm, 20, grids.fitted, needs_spectrum=True, tried={"DDRM": Tried("eta", ETA)}),
    "ddnm_plus": Method(
        "DDNM+", posterior.ddnm_plus, 100, grids.fitted, needs_spectrum=True, tried={"DDNM+": Tried("eta", ETA)}
    ),
    "pgdm": Method(
        "PiGDM as published",
        posterior.pgdm,
        100,
        tried={"PiGDM published": Tried("weight", STEP, settings={"eta": 1.0})},
    ),
    "mcg": Method("MCG", posterior.mcg, 1000, needs_spectrum=True, tried={"MCG": Tried("zeta", SMALL)}),
    "lgd": Method(
        "LGD-MC",
        posterior.lgd,
        1000,
        settings=lambda config: {"scale": config.lgd.scale},  # the published 3e-3 belongs to problems of other units
        fields={"scale": number("step along the gradient of the un-squared residual", above=0, high=1e4)},
        tried={"LGD": Tried("scale", STEP)},
    ),
    "diffpir": Method("DiffPIR", posterior.diffpir, 100, grids.quadratic, tried={"DiffPIR": Tried("lam", STEP)}),
    "repaint": Method(
        "RePaint", posterior.repaint, 250, grids.travelling, needs_spectrum=True, tried={"RePaint": Tried("eta", ETA)}
    ),
    "reddiff": Method("RED-diff", posterior.reddiff, 1000, tried={"RED-diff": Tried("lr", SMALL, steps=200)}),
    "sitcom": Method(
        "SITCOM", posterior.sitcom, 20, tried={"SITCOM": Tried("lr", SMALL, steps=30, settings={"iterations": 5})}
    ),
    "dcdp": Method(
        "DCDP",
        posterior.dcdp,
        10,
        grids.purifying,
        tried={"DCDP": Tried("lr", SMALL, steps=20, settings={"iterations": 10, "purify_steps": 5})},
    ),
    "pnpdm": Method(
        "PnP-DM",
        told(posterior.pnpdm),
        100,
        grids.cooling,
        tried={
            "PnP-DM": Tried("noise", NOISE, "asymptotic", 50, {"reverse_steps": 20}),
        },
    ),
    "mgps": Method(
        "MGPS",
        posterior.mgps,
        300,
        needs_noise=True,
        tried={"MGPS": Tried("lr", SMALL, steps=50, settings={"threshold": 2.0})},
    ),
    "mcgdiff": Method(
        "MCGDiff",
        posterior.mcgdiff,
        100,
        needs_spectrum=True,
        tried={
            "MCGDiff 16": Tried("eta", ETA[1:], "asymptotic", settings={"particles": 16}),
            "MCGDiff 64": Tried("eta", ETA[1:], "asymptotic", settings={"particles": 64}),
        },
    ),
    "tds": Method(
        "TDS",
        posterior.tds,
        100,
        settings=lambda config: {"spread": config.tds.spread},
        fields={"spread": number("of the twist, for data of unit variance; wider keeps far modes", above=0, high=1e6)},
        needs_noise=True,
        tried={"TDS 16": Tried("spread", WIDE, "asymptotic", settings={"particles": 16})},
    ),
    "fps": Method(
        "FPS-SMC",
        posterior.fps,
        1000,
        needs_spectrum=True,
        tried={"FPS 16": Tried("c", ETA[1:], "asymptotic", settings={"particles": 16})},
    ),
    "ddsmc": Method(
        "DDSMC",
        posterior.ddsmc,
        200,
        needs_noise=True,
        needs_spectrum=True,
        tried={"DDSMC 16": Tried("eta", ETA, settings={"particles": 16})},
    ),
    "zero_filled": Method(
        "zero-filled",
        posterior.zero_filled,
        lambda config: 1,
        tried={"zero-filled": Tried("ground", (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0), steps=1)},
    ),
    "total_variation": Method(
        "TV",
        posterior.total_variation,
        lambda config: config.total_variation.steps,
        settings=lambda config: {"lam": config.total_variation.lam},
        fields={
            "steps": _steps("of the primal-dual iteration"),
            "lam": number("weight of the variation", above=0, high=1e4, unit="on the [-1, 1] scale"),
        },
        tried={"TV": Tried("lam", STEP, steps=200)},
    ),
    "tikhonov": Method(
        "Tikhonov",
        posterior.tikhonov,
        lambda config: 1,
        settings=lambda config: {"lam": config.tikhonov.lam},
        fields={"lam": number("weight of the square, in units of |A|^2", above=0, high=1e6)},
        tried={"Tikhonov": Tried("lam", STEP, steps=1)},
    ),
    "wiener": Method(
        "Wiener",
        posterior.wiener,
        lambda config: 1,
        settings=lambda config: {"variance": config.wiener.variance, "power": config.wiener.power},
        fields={
            "variance": number("of a pixel", above=0, high=1e6, unit="on the [-1, 1] scale, squared"),
            "power": number("of the spectrum's fall, 1 / f^power; 0 is white", 0, 10),
        },
        tried={"Wiener": Tried("variance", STEP, steps=1)},
    ),
    "pnp_admm": Method(
        "PnP-ADMM",
        posterior.pnp_admm,
        lambda config: config.pnp_admm.steps,
        settings=lambda config: {name: config.pnp_admm[name] for name in ("level", "lam")},
        fields=PLUGGED,
        tried={"PnP-ADMM": Tried("level", STEP)},
    ),
    "red": Method(
        "RED",
        posterior.red,
        lambda config: config.red.steps,
        settings=lambda config: {name: config.red[name] for name in ("level", "lam")},
        fields=PLUGGED,
        tried={"RED": Tried("level", STEP)},
    ),
    "deep_image_prior": Method(
        "deep image prior",
        posterior.deep_image_prior,
        lambda config: config.deep_image_prior.steps,
        settings=lambda config: {name: config.deep_image_prior[name] for name in ("lr", "channels", "levels")},
        fields={
            "steps": _steps("of Adam, the fewer the less noise is learnt"),
            "lr": number("of Adam", above=0, high=10),
            "channels": whole("of the network", 1, 1024),
            "levels": whole("how often the network halves the picture", 1, 8),
        },
        tried={"DIP": Tried("lr", SMALL, steps=50, settings={"channels": 4, "levels": 1})},
    ),
    "reguidance": Method(
        "ReGuidance",
        refinement,
        lambda config: config.reguidance.steps,
        grids.from_horizon,
        lambda config: {"rho": config.reguidance.rho, "convention": config.reguidance.convention},
        fields={
            "steps": _steps("of Heun's method", 2),
            "rho": number("weight of the guidance", above=0, high=1e6),
            "convention": choice(tuple(rewards.KNOWN), "which residual the guidance descends"),
            "horizon": number("time to which the candidate is noised", above=0, high=1),
            "power": number("of the time grid; 2 has more times near the data", above=0, high=100),
        },
        wrap=posterior.reguidance,
        tried={
            "ReGuidance(DDRM)": Tried("rho", STEP, "biased", 50, {"convention": "likelihood"}, posterior.ddrm),
            "ReGuidance(DPS)": Tried("rho", STEP, "biased", 50, {"convention": "likelihood"}, small_dps),
        },
    ),
}
