"""A stage of a diffusion cascade on satellite pictures by their class, 16 -> 32 -> 64 pixels; free of restrictions.

Command:  python -m experiments.train --config=configs/cascade_eurosat.py:16 --config.data=PATH --workdir=DIR
          and `:32`, `:64` for the finer stages, which are told of the coarse picture and of its noise; then
          python -m experiments.generate --model=DIR/satellite16_stage,DIR/satellite32_stage,DIR/satellite64_stage
Data:     EuroSAT (Helber et al. 2019), RGB, 64 x 64, ten classes of land use; a folder of one folder a class, or a pack
Method:   Ho et al. 2021, arXiv:2106.15282: conditioning augmentation by Gaussian noise, one network for all its levels
Optimizer: Muon; at 16 pixels 1,000 steps of it have the held-out losses of 3,000 steps of Adam (at noise 0.1 0.192 and
          0.191, at 10 0.236 and 0.229), at 0.9 of its images/s: one run of each, one seed, both at a rate of 1e-3,
          which was tuned for neither
Hardware: one CPU core, images/s by stage: 105, 98 and 33; at 16 pixels 64 channels x (1, 2) gave 33
Expected: `held_out_loss` of the card; `experiments.judge --classes` says how many are taken for their class
"""

from ml_collections import ConfigDict

from configs import satellite64

MULTIPLIERS = {16: (1, 2, 4), 32: (1, 2, 4), 64: (1, 2, 2)}
"""Of 32 channels, by the stage's side; a patch of 2 x 2 but for the first, attention at the coarsest levels."""


def get_config(mode: str = "") -> ConfigDict:
    """`mode`: the stage's side, "16", "32" or "64", or "smoke" for a few seconds on generated images; "" is "16"."""
    config = satellite64.get_config("smoke" if mode == "smoke" else "")
    config.name = "cascade_eurosat"
    if mode != "smoke":
        side = int(mode or 16)
        config.update(name=f"satellite{side}_stage", size=side, coarse=side // 2 if side > 16 else 0)
        config.net.multipliers = MULTIPLIERS[side]
        config.net.attention = (4,) if side == 64 else (2, 4)
        config.net.patch = 1 if side == 16 else 2
        config.batch = 64
    return config
