"""Every method, declared once: how it is built, its times, its settings, and what the exact lab tries of it.

One's own method is one entry of `METHODS`. `experiments.reconstruct` knows it by its key, the exact lab by the names of
its rows. Where it has settings of its own, they are its `fields`, a section of the configuration of the same name, with
defaults in configs/reconstruct.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffinv as di
from diffinv import posterior, samplers
from diffinv.posterior import chains, moments, rewards
from diffinv.schema import Schema, choice, number, switch, whole
from diffinv.typing import Array, Sampler
from experiments.methods import grids
from experiments.methods.baselines import BASELINES
from experiments.methods.declared import (
    ETA,
    NOISE,
    SMALL,
    STEP,
    WIDE,
    Method,
    Tried,
    guided,
    level_of,
    steps_of,
    told,
)
from experiments.methods.derivative_free import DERIVATIVE_FREE
from experiments.methods.latent import LATENT
from experiments.methods.running import SAMPLERS

CHAINS: dict[str, Callable[..., chains.InnerChain]] = {
    "langevin": chains.langevin,
    "hmc": chains.hmc,
    "metropolis": chains.metropolis,
    "conjugate": lambda steps, lr: chains.conjugate(),
    "rto": chains.rto,
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


GUIDED: Schema = {
    "steps": steps_of("of pigdm, mmps, tmpd and ddnm", 2),
    "iterations": whole("of conjugate gradients, of mmps", 1, 10_000),
    "sampler": choice(tuple(SAMPLERS), "that runs them; churn has EDM's settings for pictures"),
    "eta": number("share of fresh noise in each step of ddim and the sde samplers; 0 is the ODE", 0, 1),
}
"""The section that guided priors share."""
_guided = {"steps": lambda config: config.guided.steps, "grid": grids.near_the_data}
_run = lambda config: {"eta": config.guided.eta, "sampler": config.guided.sampler, "steps": config.guided.steps}

METHODS: dict[str, Method] = {
    "dps": Method(
        "DPS",
        posterior.dps,
        lambda config: config.dps.steps,
        settings=lambda config: {"zeta": config.dps.zeta, "clip": config.dps.clip},
        fields={
            "steps": steps_of("of the ancestral chain"),
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
            "steps": steps_of("noise levels", 2),
            "ode_steps": whole("of the inner ODE", 1, 10_000),
            "mcmc_steps": whole("of the chain at each level", 1, 100_000),
            "chain": choice(tuple(CHAINS), "the inner chain"),
            "spread": number("of the inner law, relative to the noise", above=0, high=1e3),
            "lr": number("step of the chain, relative to both variances; stable below 2", above=0, high=1e3),
            "tau": number("noise that the chain assumes", above=0, high=1e3, unit="of y, on the [-1, 1] scale"),
            "decay": number("what lr has fallen to at the last levels", above=0, high=1),
            "sigma_max": level_of("first level"),
            "sigma_min": level_of("last level before 0, below sigma_max"),
            "sigma_end": level_of("where the inner ODE stops"),
        },
        tried={
            "DAPS": Tried("lr", SMALL, steps=50, settings={"mcmc_steps": 40}),
            "DAPS RTO": Tried("lr", SMALL, steps=50, settings={"chain": "rto", "mcmc_steps": 40}),
            "DAPS conjugate": Tried("spread", (0.1, *NOISE[:7]), steps=50, settings={"chain": "conjugate"}),
        },
    ),
    "dapspp": Method(
        "DAPS++",
        posterior.dapspp,
        50,
        grids.annealing,
        settings=lambda config: {name: config.dapspp[name] for name in ("iterations", "lr")},
        fields={
            "iterations": whole("of the chain on the likelihood at each level", 1, 10_000),
            "lr": number("of that chain, relative to the noise's variance; stable below 2", above=0, high=1e3),
        },
        needs_noise=True,
        tried={"DAPS++": Tried("lr", SMALL, steps=50)},
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
    "diffstategrad": Method(
        "DiffStateGrad",
        posterior.diffstategrad,
        lambda config: config.diffstategrad.steps,
        settings=lambda config: {name: config.diffstategrad[name] for name in ("zeta", "share")},
        fields={
            "steps": steps_of("of the ancestral chain"),
            "zeta": number("step along the projected gradient of the un-squared residual", above=0, high=1e4),
            "share": number("of the state's energy that the gradient keeps to", above=0, high=1),
        },
        tried={"DiffStateGrad": Tried("zeta", STEP)},
    ),
    "dmplug": Method(
        "DMPlug",
        posterior.dmplug,
        lambda config: config.dmplug.steps,
        settings=lambda config: {name: config.dmplug[name] for name in ("lr", "ode_steps")},
        fields={
            "steps": steps_of("of Adam, the fewer the less noise is learnt"),
            "lr": number("of Adam, on noise of unit variance", above=0, high=10),
            "ode_steps": whole("from the noise to its picture", 1, 1000),
        },
        tried={"DMPlug": Tried("lr", SMALL, steps=100)},
    ),
    "diffpir": Method("DiffPIR", posterior.diffpir, 100, grids.quadratic, tried={"DiffPIR": Tried("lam", STEP)}),
    "repaint": Method(
        "RePaint", posterior.repaint, 250, grids.travelling, needs_spectrum=True, tried={"RePaint": Tried("eta", ETA)}
    ),
    "reddiff": Method("RED-diff", posterior.reddiff, 1000, tried={"RED-diff": Tried("lr", SMALL, steps=200)}),
    "flowdps": Method(
        "FlowDPS",
        posterior.flowdps,
        28,
        settings=lambda config: {"lr": config.flowdps.lr},
        fields={"lr": number("step along the gradient of the un-squared residual", above=0, high=1e4)},
        tried={"FlowDPS": Tried("lr", STEP)},
    ),
    "flair": Method(
        "FLAIR",
        posterior.flair,
        50,
        grids.clocked,
        settings=lambda config: {name: config.flair[name] for name in ("weight", "lr", "iterations")},
        fields={
            "weight": number("of the prior against the measurement", above=0, high=1e3),
            "lr": number("of the descent on the residual, which the weight multiplies", above=0, high=1e4),
            "iterations": whole("of that descent at each level", 1, 10_000),
        },
        tried={"FLAIR": Tried("weight", SMALL, steps=50)},
    ),
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
    "dpnp": Method(
        "DPnP",
        told(posterior.dpnp),
        16,
        grids.proximal,
        settings=lambda config: {name: config.dpnp[name] for name in ("reverse_steps", "stochastic")},
        fields={
            "reverse_steps": whole("evaluations of the denoiser in each round", 1, 10_000),
            "stochastic": switch("whether the reverse heat flow draws from the prior, in place of an ODE"),
        },
        tried={
            "DPnP": Tried("noise", NOISE, "asymptotic", 50, {"reverse_steps": 20}),
            "DPnP stochastic": Tried("noise", NOISE, "asymptotic", 50, {"reverse_steps": 20, "stochastic": True}),
        },
    ),
    "mgps": Method(
        "MGPS",
        posterior.mgps,
        300,
        needs_noise=True,
        tried={"MGPS": Tried("lr", SMALL, steps=50, settings={"threshold": 2.0})},
    ),
    "mgdm": Method(
        "MGDM",
        posterior.mgdm,
        100,
        settings=lambda config: {name: config.mgdm[name] for name in ("iterations", "lr", "repeats", "denoise_steps")},
        fields={
            "iterations": whole("of Adam in each Gibbs sweep", 1, 10_000),
            "lr": number("of Adam, on states of unit variance", above=0, high=10),
            "repeats": whole("Gibbs sweeps at each level", 1, 10_000),
            "denoise_steps": whole("of the reverse chain in each sweep", 1, 10_000),
        },
        needs_noise=True,
        tried={"MGDM": Tried("lr", SMALL, steps=50)},
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
    **LATENT,
    **DERIVATIVE_FREE,
    **BASELINES,
    "reguidance": Method(
        "ReGuidance",
        refinement,
        lambda config: config.reguidance.steps,
        grids.from_horizon,
        lambda config: {"rho": config.reguidance.rho, "convention": config.reguidance.convention},
        fields={
            "steps": steps_of("of Heun's method", 2),
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
