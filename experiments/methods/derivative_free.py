"""The methods that ask the operator for values alone, so that it may be any program."""

from __future__ import annotations

from diffinv import posterior
from diffinv.schema import number, switch, whole
from experiments.methods.declared import NOISE, STEP, Method, Tried, steps_of, told

PARTICLES = whole("that move along each other's differences", 2, 100_000)
ODE_STEPS = whole("of the ODE from a particle to its clean picture", 1, 10_000)
DRAWS = whole("at which the operator is asked in a step", 1, 1_000_000)

DERIVATIVE_FREE: dict[str, Method] = {
    "enkg": Method(
        "EnKG",
        posterior.enkg,
        lambda config: config.enkg.steps,
        settings=lambda config: {name: config.enkg[name] for name in ("scale", "particles", "updates", "ode_steps")},
        fields={
            "steps": steps_of("noise levels", 2),
            "scale": number("length of an update, in units of the particles' spread", above=0, high=1e4),
            "particles": PARTICLES,
            "updates": whole("at each level", 1, 10_000),
            "ode_steps": ODE_STEPS,
        },
        tried={
            "EnKG": Tried(
                "scale",
                (0.03, 0.1, 0.2, 0.5, 1.0, 1.5, 2.0, 3.0),
                steps=50,
                settings={"particles": 16, "updates": 1, "ode_steps": 4},
            )
        },
    ),
    "eki": Method(
        "EKI",
        told(posterior.eki),
        lambda config: config.eki.steps,
        settings=lambda config: {name: config.eki[name] for name in ("particles", "ode_steps", "codes")},
        fields={
            "steps": steps_of("shares of the likelihood"),
            "particles": PARTICLES,
            "ode_steps": ODE_STEPS,
            "codes": switch("whether codes of the prior move, so that pictures stay its own, or pictures"),
        },
        needs_noise=True,
        tried={"EKI 64": Tried("noise", NOISE, "asymptotic", 10, {"particles": 64, "ode_steps": 20})},
    ),
    "dps_gsg": Method(
        "DPS-GSG",
        posterior.dps_gsg,
        lambda config: config.dps_gsg.steps,
        settings=lambda config: {name: config.dps_gsg[name] for name in ("zeta", "draws", "central")},
        fields={
            "steps": steps_of("of the ancestral chain"),
            "zeta": number("step along the smoothed gradient of the un-squared residual", above=0, high=1e4),
            "draws": DRAWS,
            "central": switch("whether differences are central, at twice the calls, or forward"),
        },
        tried={
            "DPS-cGSG": Tried("zeta", STEP, settings={"draws": 16}),
            "DPS-fGSG": Tried("zeta", STEP, settings={"draws": 32, "central": False}),
        },
    ),
    "dpg": Method(
        "DPG",
        posterior.dpg,
        lambda config: config.dpg.steps,
        settings=lambda config: {name: config.dpg[name] for name in ("scale", "draws")},
        fields={
            "steps": steps_of("of the ancestral chain"),
            "scale": number("length of a step, times the step's variance", above=0, high=1e6),
            "draws": whole("at which the operator is asked in a step", 2, 1_000_000),
        },
        tried={"DPG": Tried("scale", STEP, settings={"draws": 32})},
    ),
    "scg": Method(
        "SCG",
        posterior.scg,
        lambda config: config.scg.steps,
        settings=lambda config: {name: config.scg[name] for name in ("draws", "begin")},
        fields={
            "steps": steps_of("of the ancestral chain"),
            "draws": DRAWS,
            "begin": number("time from which on the best draw is taken", 0, 1),
        },
        tried={"SCG": Tried("begin", (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0), settings={"draws": 8})},
    ),
}
