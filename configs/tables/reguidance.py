"""ReGuidance's table: what it adds to DDRM, DPS and DAPS, on large holes, strong down-scaling and blur with much noise.

Command:  python -m experiments.evaluate --config=configs/tables/reguidance.py
          --config=configs/tables/reguidance.py:eurosat --config.data=EUROSAT for docs/tables/reguidance, and
          --config=configs/tables/reguidance.py:ablation --config.data=EUROSAT for its steps
          --config=configs/tables/reguidance.py:paper --config.prior=PATH --config.data=PATH for the paper's own
Pictures: "": those of EuroSAT that ship with the package, 64 x 64; "eurosat": 200 held-out ones, and 12 others choose T
          and rho; "ablation": 24 held-out ones, T x rho x steps; "paper": 100 of ImageNet's
Papers:   ReGuidance, Karan et al. 2025 (arXiv:2506.10955); DDRM, Kawar et al. 2022 (arXiv:2201.11793);
          DPS, Chung et al. 2023 (arXiv:2209.14687); DAPS, Zhang et al. 2024 (arXiv:2407.01521)
Modes:    "" with the settings that "eurosat" chose; "eurosat" about five hours of two cores, --config.pictures=60 110
          minutes; "ablation" an hour; "smoke" in a minute; "paper" as the paper has it: ADM's ImageNet model of 256 x
          256, days of one GPU, not run; rho and T it does not say, and they are ours; its nonlinear blur is a trained
          network, ours a closed form, which DDRM cannot undo
Expected: docs/tables/reguidance.md: feature distance falls for every base on every task, by 0.003 to 0.032
"""

from ml_collections import ConfigDict

from configs import satellite
from configs.tables import defaults

BASES = ("ddrm", "dps", "daps")
OPEN = "reguidance.horizon=0.05|0.2|0.5 reguidance.rho=1|3|8"
"""What is chosen for each task and base; the least horizon is little more than the candidate itself."""
GRID = [(horizon, rho, steps) for horizon in (0.2, 0.5) for rho in (1, 3) for steps in (10, 20, 40)]
"""Of the ablation: T, rho, and the steps of the inversion and of the refinement."""


def get_config(mode: str = "") -> ConfigDict:
    """`mode`: "" for shipped pictures, "eurosat" to choose settings, "ablation", "paper" for one's own, "smoke"."""
    config = defaults.get_config("smoke" if mode == "smoke" else "")
    config.name = "reguidance"
    config.solvers = ", ".join([*BASES, *(f"reguidance({base}) {OPEN}" for base in BASES)])
    config.presets = "reguidance"
    config.tasks = ", ".join(
        [
            "box 1/4 = box_inpainting box.top=24 box.left=24 box.size=16",
            "box 1/2 = box_inpainting box.top=16 box.left=16 box.size=32",
            "box 5/8 = box_inpainting box.top=12 box.left=12 box.size=40",
            "x4 = super_resolution factor=4",
            "x8 = super_resolution factor=8",
            "blur = gaussian_blur blur.size=33 blur.std=4.0 sigma_y=0.2",
        ]
    )
    if mode == "smoke":
        config.tasks = "x4 = super_resolution factor=4"
        config.solvers = "ddrm, reguidance(ddrm)"
        config.pictures = 4
        config.presets = ""
    elif mode == "paper":
        config.name = "reguidance_paper"
        config.prior = ""
        config.data = ""
        config.pictures = 100
        config.group = 4
        config.steps = 0
        config.solvers = ", ".join([*BASES, *(f"reguidance({base})" for base in BASES)])
        config.presets = ""
        config.tasks = ", ".join(
            [
                "box 1/2 = box_inpainting box.top=64 box.left=64 box.size=128",
                "box 5/8 = box_inpainting box.top=48 box.left=48 box.size=160",
                "x4 = super_resolution factor=4",
                "x8 = super_resolution factor=8",
                "x16 = super_resolution factor=16",
                "blur = gaussian_blur blur.size=61 blur.std=3.0 sigma_y=0.5",
                "nonlinear blur = nonlinear_blur blur.size=61 sigma_y=0.2",
            ]
        )
        config.dps = {"steps": 1000, "zeta": 1.0, "clip": True}
    else:
        config.update({name: satellite.get_config()[name] for name in ("dps", "reguidance")})
    if mode == "ablation":
        settings = [f"reguidance.horizon={T} reguidance.rho={rho} reguidance.steps={n}" for T, rho, n in GRID]
        config.solvers = ", ".join(["daps", *(f"reguidance(daps) {each}" for each in settings)])
        config.tasks = ", ".join(each for each in config.tasks.split(", ") if each.startswith(("box 1/2 ", "x8 ")))
        config.update(name="reguidance_ablation", pictures=24, first=12, group=12, presets="")
    if mode == "eurosat":
        config.update(pictures=200, first=12, reference=500, training=2000, group=12, presets="")
    return config
