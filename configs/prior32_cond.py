"""A class-conditional prior: 32x32 RGB natural images in 200 classes, with label dropout for classifier-free guidance.

Command:  python -m experiments.train --config=configs/prior32_cond.py --config.data=PATH --workdir=DIR
Data:     Tiny ImageNet with its 200 labels; a folder of one folder a class, or a .npz with `labels`, works too
Method:   EDM (Karras et al. 2022, arXiv:2206.00364); labels dropped at 0.1 (Ho and Salimans 2022, arXiv:2207.12598)
Hardware: meant for one accelerator, a few hours; not trained yet
Expected: held-out loss below that of configs/prior32.py at the high noise levels
"""

from ml_collections import ConfigDict

from configs import prior32


def get_config(mode: str = "") -> ConfigDict:
    """`mode`: "" for the real run, "smoke" for a few seconds on generated images."""
    config = prior32.get_config(mode)
    config.name = "prior32_cond"
    config.classes = 2
    if mode == "":
        config.update(
            classes=200,
            net={"dtype": "bfloat16"},
            batch=256,
            steps=100_000,
            cooldown=20_000,
            warmup=1000,
            ema_half_lives=(500_000, 100_000, 2_000_000),
        )
    return config
