"""The methods that know of an autoencoder: they restore under a prior over codes, and under no other."""

from __future__ import annotations

from diffinv import posterior
from diffinv.schema import Schema, number, whole
from experiments.methods.declared import Method, steps_of

ADAM: Schema = {
    "lr": number("of Adam in codes", above=0, high=10),
    "pixel_lr": number("of Adam in pixels", above=0, high=10),
    "iterations": whole("of Adam in codes", 1, 100_000),
    "pixel_iterations": whole("of Adam in pixels", 1, 100_000),
}

LATENT: dict[str, Method] = {
    "psld": Method(
        "PSLD",
        posterior.psld,
        lambda config: config.psld.steps,
        settings=lambda config: {name: config.psld[name] for name in ("gamma", "omega", "eta")},
        fields={
            "steps": steps_of("of DDIM"),
            "gamma": number("step along the gradient of the un-squared gluing", low=0, high=1e4),
            "omega": number("step along the gradient of the un-squared residual", low=0, high=1e4),
            "eta": number("share of fresh noise in each step; 0 is the ODE", 0, 1),
        },
        needs_spectrum=True,
        codes=True,
    ),
    "resample": Method(
        "ReSample",
        posterior.resample,
        lambda config: config.resample.steps,
        settings=lambda config: {
            name: config.resample[name] for name in ("scale", "every", "start", "turn", "gamma", *ADAM)
        },
        fields={
            "steps": steps_of("of DDIM"),
            "scale": number("step along the gradient of the un-squared residual, times alpha^2", low=0, high=1e4),
            "every": whole("steps from one optimisation to the next", 1, 100_000),
            "start": number("time from which on there are optimisations", 0, 1),
            "turn": number("time from which on they are of codes, and of pixels before", 0, 1),
            "gamma": number("variance of the renoising, over that of the ancestral step", above=0, high=1e6),
            **ADAM,
        },
        codes=True,
    ),
}
