"""Restores satellite pictures: a hidden box and a quarter of the resolution, 64 x 64, with and without ReGuidance.

Command:  python -m experiments.reconstruct --config=configs/satellite.py
Pictures: held-out ones of EuroSAT that ship with the package (MIT; modified Copernicus Sentinel data)
Papers:   DDRM, Kawar et al. 2022 (arXiv:2201.11793); DPS, Chung et al. 2023 (arXiv:2209.14687);
          DAPS, Zhang et al. 2024 (arXiv:2407.01521); ReGuidance, Karan et al. 2025 (arXiv:2506.10955)
Hardware: two CPU cores, four minutes, compilation included; `:main`, its part in the main job, in a minute and a half
Expected: the table of README
"""

from ml_collections import ConfigDict

from configs import reconstruct


def get_config(mode: str = "") -> ConfigDict:
    """`mode`: "" for the real run, "main" for its part in the main job, "smoke" for 30 seconds."""
    config = reconstruct.get_config("" if mode == "main" else mode)
    config.update(
        also="",
        bundled="satellite",
        prior="satellite64",
        task="box_inpainting,super_resolution",
        solver="ddrm,dps,daps,reguidance",
        base="ddrm,dps,daps",
        pictures=4 if mode == "smoke" else 8,
        group=8,
        box={"top": 16, "left": 16, "size": 32},
    )
    if mode != "smoke":
        config.update(
            dps={"steps": 100, "zeta": 4.0},
            reguidance={"steps": 20, "rho": 1.0, "horizon": 0.2},  # by docs/tables/reguidance.md
        )
    if mode == "main":
        config.update(task="box_inpainting", solver="ddrm,daps,reguidance", base="ddrm,daps")
    return config
