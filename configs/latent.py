"""Restores satellite pictures under a prior over codes: a hidden box and a quarter of the resolution, 64 x 64.

Command:  python -m experiments.reconstruct --config=configs/latent.py
          with --config.prior=DIR/NAME for a prior of your own: configs/latent_prior.py trains one, docs/latent.md
          imports one
Pictures: held-out ones of EuroSAT that ship with the package (MIT; modified Copernicus Sentinel data)
Papers:   PSLD, Rout et al. 2023 (arXiv:2307.00619); ReSample, Song et al. 2024 (arXiv:2307.08123);
          latent DPS: DPS, Chung et al. 2023 (arXiv:2209.14687), its gradient through the decoder
Hardware: two CPU cores, some minutes, compilation included; `:smoke` in 30 seconds
Expected: the table of docs/latent.md, of its smaller run
"""

from ml_collections import ConfigDict

from configs import reconstruct


def get_config(mode: str = "") -> ConfigDict:
    """`mode`: "" for the real run, "smoke" for 30 seconds."""
    config = reconstruct.get_config(mode)
    config.update(
        also="",
        bundled="satellite",
        prior="eurosat_latent",
        task="box_inpainting,super_resolution",
        solver="psld,resample,dps",
        pictures=4,
        group=4,
        optimisation=0,
        box={"top": 24, "left": 24, "size": 16},
        dps={"steps": 100, "zeta": 1.0, "clip": False},
        psld={"omega": 0.3, "gamma": 0.1},
    )
    if mode == "smoke":
        config.update(
            task="super_resolution",
            solver="psld,resample",
            pictures=2,
            psld={"steps": 20, "omega": 1.0},
            resample={"steps": 10, "iterations": 20, "pixel_iterations": 20},
        )
    return config
