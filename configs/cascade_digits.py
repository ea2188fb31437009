"""A stage of a diffusion cascade on handwritten digits, 8 -> 16 pixels: told of the coarse picture and of its noise.

Command:  python -m experiments.train --config=configs/cascade_digits.py --config.name=digits16 --workdir=DIR
          the other stages: --config.name=digits8 --config.size=8 --config.coarse=4, and, for the first,
          --config.name=digits4 --config.size=4 --config.coarse=0; both with --config.net.patch=1
Data:     scikit-learn's digits, which install with it; the label is the digit
Method:   Ho et al. 2021, arXiv:2106.15282: conditioning augmentation by Gaussian noise, one network for all its levels
Hardware: one CPU core, some minutes a stage
Expected: `held_out_loss` of the card; docs/cascades.md shows what the three make together
"""

from ml_collections import ConfigDict

from configs import prior32


def get_config(mode: str = "") -> ConfigDict:
    """`mode`: "" for the real run, "smoke" for a few seconds on generated images."""
    config = prior32.get_config(mode)
    config.name = "cascade_digits"
    config.classes = 10
    config.coarse = 4
    config.flip = False
    if mode == "":
        config.data = "digits"
        config.update(
            size=16,
            coarse=8,
            channels=1,
            net={
                "channels": 16,
                "multipliers": (1,),
                "attention": (),
                "head_channels": 16,
                "patch": 2,
            },
            sigma_data=0.75,
            log_sigma_mean=-0.6,
            log_sigma_std=1.4,
            steps=4000,
            cooldown=500,
            warmup=50,
            learning_rate=3e-3,
            ema_half_lives=(12_000, 3_000),
            eval_every=1000,
            eval_images=112,
            sample_grid=10,
        )
    return config
