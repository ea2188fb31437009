"""A prior of 64x64 RGB natural images, EDM preconditioning, 33 M weights.

Command:  python -m experiments.train --config=configs/prior64.py --config.data=PATH --workdir=DIR
Data:     Tiny ImageNet at its own 64 pixels (JPEG at quality 75: its error is part of the data)
Method:   EDM (Karras et al. 2022, arXiv:2206.00364)
Hardware: meant for one accelerator, most of a day; not trained yet
Expected: a sample grid in which scenes are told apart
"""

from ml_collections import ConfigDict

from configs import prior32


def get_config(mode: str = "") -> ConfigDict:
    """`mode`: "" for the real run, "smoke" for a few seconds on generated images."""
    config = prior32.get_config(mode)
    config.name = "prior64"
    if mode == "":
        config.update(
            size=64,
            net={
                "channels": 128,
                "multipliers": (1, 1.5, 2, 2),
                "blocks": 2,
                "attention": (4, 8),
                "head_channels": 64,
                "patch": 2,
                "dtype": "bfloat16",
            },
            batch=256,
            steps=200_000,
            cooldown=40_000,
            warmup=1000,
            learning_rate=1e-3,
            ema_half_lives=(500_000, 100_000, 2_000_000),
        )
    return config
