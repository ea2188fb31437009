"""DAPS's table of five linear and three nonlinear tasks: DAPS, and the solvers that it is printed beside.

Command:  python -m experiments.evaluate --config=configs/tables/daps.py
          --config=configs/tables/daps.py:ffhq --config.prior=PATH --config.data=PATH, or :imagenet, for the paper's own
Pictures: those of EuroSAT that ship with the package, 64 x 64; of the paper 100 of FFHQ or ImageNet at 256 x 256, from
          files of one's own
Paper:    DAPS, Zhang et al. 2024 (arXiv:2407.01521); steps of the chain as its repository has them, in units of 1e-4.
          Differs: the box is in the middle, not drawn; the nonlinear blur is a closed form in place of a trained
          network, so that its numbers are not printed beside; phase retrieval is one run, where the paper keeps the
          best of four
Modes:    "" two hours of two CPU cores, not timed; "smoke" a minute; "ffhq" and "imagenet" days of one GPU, not run
Expected: not computed yet
"""

from ml_collections import ConfigDict

from configs import satellite
from configs.tables import defaults
from configs.tables.dps import PAPER, SMALL, named

NONLINEAR = {
    "phase retrieval": "phase_retrieval",
    "nonlinear blur": "nonlinear_blur blur.size=61 daps.mcmc_steps=200",
    "high dynamic range": "high_dynamic_range",
}
NONLINEAR_SMALL = {**NONLINEAR, "nonlinear blur": "nonlinear_blur blur.size=17"}
BESIDE = "DPS = dps, DDRM = ddrm, DDNM = ddnm, DCDP = dcdp"


def get_config(mode: str = "") -> ConfigDict:
    """`mode`: "" for the shipped prior, "ffhq" or "imagenet" for files of one's own, "smoke" for a minute."""
    config = defaults.get_config("smoke" if mode == "smoke" else "")
    config.name = f"daps_{mode}" if mode else "daps"
    config.tasks = named({**SMALL, **NONLINEAR_SMALL})
    config.solvers = f"DAPS = daps, {BESIDE}"
    if mode == "smoke":
        config.tasks = named({"box": SMALL["box"]})
        config.solvers = "DAPS = daps, DDRM = ddrm"
        config.pictures = 4
    elif mode in ("ffhq", "imagenet"):
        config.prior = ""
        config.data = ""
        config.pictures = 100
        config.group = 4
        config.steps = 0
        config.tasks = named({**PAPER, **NONLINEAR})
        config.solvers = f"DAPS = daps daps.lr=0.1|0.2|0.5|1.0, {BESIDE}"
        config.presets = "daps"
        config.published = f"daps_{mode}"
        config.dps = {"steps": 1000, "zeta": 0.5, "clip": True}
        config.daps = {
            **config.daps.to_dict(),
            **{"steps": 200, "sigma_min": 0.1, "sigma_end": 0.01},
        }
    elif mode:
        raise ValueError(f"mode is {mode!r}; configs/tables/daps.py knows '', 'ffhq', 'imagenet' and 'smoke'")
    else:
        config.dps = satellite.get_config().dps
    return config
