"""The methods that have no diffusion prior, or nothing but its denoiser: what a solver has to beat."""

from __future__ import annotations

from diffinv import posterior
from diffinv.schema import Schema, number, whole
from experiments.methods.declared import SMALL, STEP, Method, Tried, steps_of

PLUGGED: Schema = {
    "steps": steps_of("of the iteration"),
    "level": number("noise at which the prior denoises", above=0, high=1e4, unit="on the [-1, 1] scale"),
    "lam": number("weight of the prior", above=0, high=1e6),
}

BASELINES: dict[str, Method] = {
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
            "steps": steps_of("of the primal-dual iteration"),
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
            "steps": steps_of("of Adam, the fewer the less noise is learnt"),
            "lr": number("of Adam", above=0, high=10),
            "channels": whole("of the network", 1, 1024),
            "levels": whole("how often the network halves the picture", 1, 8),
        },
        tried={"DIP": Tried("lr", SMALL, steps=50, settings={"channels": 4, "levels": 1})},
    ),
}
