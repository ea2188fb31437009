"""The solvers that know singular values or a closed-form step, beside one another: DDRM, DDNM, DDNM+ and DiffPIR.

Command:  python -m experiments.evaluate --config=configs/tables/spectral.py
          --config=configs/tables/spectral.py:imagenet --config.prior=PATH --config.data=PATH for the papers' own
Pictures: those of EuroSAT that ship with the package, 64 x 64; of the papers 1,000 of ImageNet at 256 x 256, from files
          of one's own
Papers:   DDRM, Kawar et al. 2022 (arXiv:2201.11793); DDNM and DDNM+, Wang et al. 2023 (arXiv:2212.00490); DiffPIR, Zhu
          et al. 2023 (arXiv:2305.08995). The codes of the first two double the noise that they are told, for the range
          [-1, 1]; sigma_y here is on that range: 0.1 is their 0.05
Modes:    "" half an hour of two CPU cores, not timed; "smoke" a minute; "imagenet" hours of one GPU, not run
Expected: not computed yet
"""

from ml_collections import ConfigDict

from configs.tables import defaults
from configs.tables.dps import named

TASKS = {
    "x4": "super_resolution factor=4",
    "bicubic x4": "bicubic factor=4",
    "colour": "colourisation",
    "denoising": "denoise sigma_y=0.5",
}
SMALL = {**TASKS, "blur": "gaussian_blur blur.size=17 blur.std=2.0", "random": "random_inpainting random.masked=0.5"}
PAPER = {**TASKS, "blur": "gaussian_blur blur.size=61 blur.std=10.0", "random": "random_inpainting random.masked=0.5"}


def get_config(mode: str = "") -> ConfigDict:
    """`mode`: "" for the shipped prior, "imagenet" for files of one's own, "smoke" for a minute."""
    config = defaults.get_config("smoke" if mode == "smoke" else "")
    config.name = f"spectral_{mode}" if mode else "spectral"
    config.tasks = named(SMALL)
    config.solvers = "DDRM = ddrm, DDNM = ddnm, DDNM+ = ddnm_plus, DiffPIR = diffpir"
    config.sigma_y = 0.1
    config.steps = 0
    if mode == "smoke":
        config.tasks = named({"colour": SMALL["colour"]})
        config.solvers = "DDRM = ddrm, DDNM+ = ddnm_plus"
        config.pictures = 4
        config.steps = 5
    elif mode == "imagenet":
        config.prior = ""
        config.data = ""
        config.pictures = 1000
        config.tasks = named(PAPER)
    elif mode:
        raise ValueError(f"mode is {mode!r}; configs/tables/spectral.py knows '', 'imagenet' and 'smoke'")
    return config
