"""Restores photographs at 256 x 256 from four kinds of damage, each by a fast solver and by DPS; any of your own.

Command:  python -m experiments.reconstruct
          python -m experiments.reconstruct --images='photos/*.jpg' --config.task=motion_blur --config.solver=dps
Papers:   DPS, Chung et al. 2023 (arXiv:2209.14687); DDNM+, Wang et al. 2023 (arXiv:2212.00490);
          DAPS, Zhang et al. 2024 (arXiv:2407.01521); ReGuidance, Karan et al. 2025 (arXiv:2506.10955)
Hardware: two CPU cores, under five minutes with the satellite pictures, compilation included; `:smoke` in 30 seconds
Expected: the table of README
"""

from ml_collections import ConfigDict


def get_config(mode: str = "") -> ConfigDict:
    """`mode`: "" for the real run, "smoke" for 30 seconds."""
    config = ConfigDict()
    config.name = ""  # folder under runs/; default: the tasks
    config.task = "motion_blur,gaussian_blur,bicubic,random_inpainting"
    config.solver = "ddnm_plus,dps"
    config.base = "daps"  # what ReGuidance wraps
    config.prior = "photo"  # path of a checkpoint, or the name of one that ships
    config.also = "satellite"  # configs/satellite.py, in the same report, where nothing else is asked for
    config.bundled = "photographs"
    config.kspace = ""
    config.size = 256  # of the bundled photographs
    config.tile = 512  # longest side that is denoised at once
    config.pixels = 2**19  # of the pictures that are restored at once
    config.sigma_y = 0.05  # on the [-1, 1] scale
    config.pictures = 2  # at most; 0: all
    config.every = 1  # of the pictures that are found
    config.group = 8  # pictures that are restored at once
    config.seed = 0
    config.optimisation = 3  # of XLA's code generator; 0 compiles twice as fast and runs at half the speed

    config.mask = ""
    config.kernel = ""
    config.box = {"top": 8, "left": 8, "size": 16}
    config.random = {"masked": 0.7}
    config.factor = 4  # of both super-resolutions
    config.mri = {"acceleration": 4, "centre": 0.08, "coils": 1}
    config.nonlinear = {"contrast": 2.5, "gain": 2.0, "oversample": 2.0}  # the latter two of DAPS
    config.blur = {
        "size": 31,
        "std": 2.0,
        "threshold": 0.03,  # as DDRM's code has it for blurs
    }

    config.steps = 20  # of the solvers that run with their paper's defaults; 0: the paper's
    config.dps = {"steps": 50, "zeta": 18.0, "clip": True}  # zeta for 50 steps; 1 for 1000
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
    config.psld = {
        "steps": 200,
        "gamma": 0.1,
        "omega": 0.1,
        "eta": 0.0,
    }
    config.resample = {
        "steps": 100,
        "scale": 0.5,
        "every": 10,
        "start": 2 / 3,
        "turn": 1 / 3,
        "gamma": 40.0,
        "lr": 0.01,
        "pixel_lr": 0.01,
        "iterations": 100,
        "pixel_iterations": 100,
    }
    config.lgd = {"scale": 1.0}
    config.flowdps = {"lr": 10.0}
    config.diffstategrad = {"steps": 50, "zeta": 18.0, "share": 0.99}  # as dps
    config.dmplug = {"steps": 200, "lr": 0.02, "ode_steps": 3}
    config.dapspp = {"iterations": 4, "lr": 0.5}
    config.dpnp = {"reverse_steps": 100, "stochastic": False}
    config.flair = {"weight": 0.5, "lr": 1.0, "iterations": 15}
    config.mgdm = {
        "iterations": 5,
        "lr": 0.03,
        "repeats": 1,
        "denoise_steps": 10,
    }
    config.tds = {"spread": 1.0}  # far modes want up to 100: docs/choosing.md
    config.enkg = {
        "steps": 40,
        "scale": 1.0,
        "particles": 32,
        "updates": 1,
        "ode_steps": 4,
    }
    config.eki = {
        "steps": 10,
        "particles": 64,
        "ode_steps": 10,
        "codes": True,
    }
    config.dps_gsg = {
        "steps": 100,
        "zeta": 1.0,
        "draws": 32,
        "central": True,
    }
    config.dpg = {"steps": 100, "scale": 600.0, "draws": 64}  # 1.4 the root of 256 x 256 x 3
    config.scg = {"steps": 100, "draws": 8, "begin": 0.75}
    config.total_variation = {"steps": 200, "lam": 0.05}
    config.tikhonov = {"lam": 0.01}
    config.wiener = {"variance": 0.25, "power": 2.0}
    config.pnp_admm = {"steps": 50, "level": 0.1, "lam": 1.0}
    config.red = {"steps": 50, "level": 0.1, "lam": 1.0}
    config.deep_image_prior = {
        "steps": 1000,
        "lr": 0.01,
        "channels": 32,
        "levels": 3,
    }
    config.reguidance = {
        "steps": 20,
        "rho": 1.0,
        "convention": "square",
        "horizon": 0.2,
        "power": 2.0,
    }
    config.guided = {  # pigdm, mmps, tmpd, ddnm
        "steps": 50,
        "iterations": 4,
        "sampler": "ddim",
        "eta": 0.85,
    }
    if mode == "smoke":
        config.update(
            solver="dps,daps,reguidance",
            task="box_inpainting",
            also="",
            size=64,
            optimisation=0,
            steps=5,
            dps={"steps": 10},
            daps={"steps": 5, "mcmc_steps": 10},
            reguidance={"steps": 12},
            guided={"steps": 5},
            deep_image_prior={"steps": 20, "channels": 8},
            enkg={"steps": 5, "particles": 4, "ode_steps": 2},
            eki={"steps": 2, "particles": 4, "ode_steps": 2},
            dps_gsg={"steps": 5, "draws": 4},
            dpg={"steps": 5, "draws": 4},
            scg={"steps": 5, "draws": 4},
        )
    elif mode:
        raise ValueError(f"mode is {mode!r}; configs/reconstruct.py knows '' and 'smoke'")
    return config
