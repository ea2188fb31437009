"""DPS's table: five linear tasks with the step of the released configurations, beside the printed numbers.

Command:  python -m experiments.evaluate --config=configs/tables/dps.py
          --config=configs/tables/dps.py:ffhq --config.prior=PATH --config.data=PATH, or :imagenet, for the paper's own
Pictures: those of EuroSAT that ship with the package, 64 x 64; of the paper the first 1,000 of FFHQ's or ImageNet's
          validation part at 256 x 256, from files of one's own
Paper:    DPS, Chung et al. 2023 (arXiv:2209.14687), table 1; zeta as configs/*.yaml of its repository has it. Differs:
          the box is in the middle, not drawn; hidden pixels have no noise, so that the step along the residual's
          direction is a little longer; FID and LPIPS are printed beside, not computed, without their networks' files
Modes:    "" an hour of two CPU cores, not timed; "smoke" a minute; "ffhq" and "imagenet" days of one GPU, not run
Expected: not computed yet
"""

from ml_collections import ConfigDict

from configs import satellite
from configs.tables import defaults

PAPER = {
    "super-resolution x4": "bicubic factor=4",
    "box": "box_inpainting box.top=64 box.left=64 box.size=128",
    "random": "random_inpainting random.masked=0.7",
    "Gaussian blur": "gaussian_blur blur.size=61 blur.std=3.0",
    "motion blur": "motion_blur blur.size=61",
}
SMALL = {
    **PAPER,
    "box": "box_inpainting box.top=16 box.left=16 box.size=32",
    "Gaussian blur": "gaussian_blur blur.size=17 blur.std=1.5",
    "motion blur": "motion_blur blur.size=17",
}


def named(tasks: dict[str, str]) -> str:
    """Tasks by their titles, as a table takes them."""
    return ", ".join(f"{title} = {text}" for title, text in tasks.items())


def get_config(mode: str = "") -> ConfigDict:
    """`mode`: "" for the shipped prior, "ffhq" or "imagenet" for files of one's own, "smoke" for a minute."""
    config = defaults.get_config("smoke" if mode == "smoke" else "")
    config.name = f"dps_{mode}" if mode else "dps"
    config.solvers = "DPS = dps"
    config.tasks = named(SMALL)
    if mode == "smoke":
        config.tasks = named({"random": SMALL["random"]})
        config.pictures = 4
    elif mode in ("ffhq", "imagenet"):
        config.prior = ""
        config.data = ""
        config.pictures = 1000
        config.group = 4
        config.tasks = named(PAPER)
        config.solvers = "DPS = dps dps.zeta=0.3|0.5"
        config.presets = "dps"
        config.published = f"dps_{mode}"
        config.dps = {"steps": 1000, "zeta": 0.3, "clip": True}
    elif mode:
        raise ValueError(f"mode is {mode!r}; configs/tables/dps.py knows '', 'ffhq', 'imagenet' and 'smoke'")
    else:
        config.dps = satellite.get_config().dps
    return config
