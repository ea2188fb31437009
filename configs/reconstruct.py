"""Restores photographs: DPS, DAPS and ReGuidance(DAPS) on a large box and on super-resolution x4, at 32 x 32.

Command:  python -m experiments.reconstruct
          python -m experiments.reconstruct --images='photos/*.jpg' --config=configs/reconstruct.py \
              --config.task=box_inpainting --config.solver=reguidance --config.base=daps --config.prior=PATH
Papers:   DPS, Chung et al. 2023 (arXiv:2209.14687); DAPS, Zhang et al. 2024 (arXiv:2407.01521);
          ReGuidance, Karan et al. 2025 (arXiv:2506.10955)
Hardware: two CPU cores, under five minutes, compilation included; `:smoke` in 30 seconds
Expected: on super-resolution ReGuidance(DAPS) 1.023 against DAPS 1.026 in feature distance, at a residual of 0.84
          against 0.88 of the floor; on the box it loses (0.66 against 0.58)
"""

from ml_collections import ConfigDict


def get_config(mode: str = "") -> ConfigDict:
    """`mode`: "" for the real run, "smoke" for 30 seconds."""
    config = ConfigDict()
    config.name = ""  # folder under runs/; default: the tasks
    config.task = "box_inpainting,super_resolution"
    config.solver = "dps,daps,reguidance"
    config.base = "daps"  # what ReGuidance wraps
    config.prior = ""  # path of a checkpoint; default: the embedded one
    config.sigma_y = 0.05  # on the [-1, 1] scale
    config.pictures = 8  # at most; 0: all
    config.group = 8  # pictures that are restored at once
    config.seed = 0
    config.optimisation = 3  # of XLA's code generator; 0 compiles twice as fast and runs at half the speed

    config.box = {"top": 8, "left": 8, "size": 16}
    config.random = {"masked": 0.7}
    config.factor = 4  # of both super-resolutions
    config.blur = {
        "size": 9,
        "std": 1.5,
        "threshold": 0.03,  # as DDRM's code has it for blurs
    }

    config.steps = 0  # of the solvers that run with their paper's defaults; 0: the paper's
    config.dps = {"steps": 300, "zeta": 1.0, "clip": True}
    config.daps = {
        "steps": 50,
        "ode_steps": 5,
        "mcmc_steps": 100,
        "chain": "langevin",
        "spread": 1.0,
        "lr": 1.0,  # as published: 1e-4 falling to 1e-6
        "tau": 0.01,
        "decay": 0.01,
        "sigma_max": 100.0,
        "sigma_min": 0.02,
        "sigma_end": 0.005,
    }
    config.lgd = {"scale": 1.0}
    config.tds = {"spread": 1.0}  # far modes want up to 100: docs/choosing.md
    config.reguidance = {
        "steps": 60,
        "rho": 20.0,
        "convention": "square",
        "horizon": 0.3,
        "power": 2.0,
    }
    config.guided = {  # pigdm, mmps, tmpd, ddnm
        "steps": 50,
        "iterations": 4,
        "eta": 0.85,
    }
    if mode == "smoke":
        config.update(
            task="box_inpainting",
            pictures=2,
            group=2,
            optimisation=0,
            steps=5,
            dps={"steps": 10},
            daps={"steps": 5, "mcmc_steps": 10},
            reguidance={"steps": 12},
            guided={"steps": 5},
        )
    elif mode:
        raise ValueError(f"mode is {mode!r}; configs/reconstruct.py knows '' and 'smoke'")
    return config
