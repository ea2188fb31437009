"""Blurring diffusion on 32x32 handwritten digits: frequencies fade at their own rates while noise comes in.

Command:  python -m experiments.train --config=configs/blurring32.py --config.data=mnist.npz --workdir=DIR
Data:     MNIST, 28 pixels enlarged to 32; any folder, glob or .npz of images works, in colour by --config.channels=3
Method:   Hoogeboom and Salimans 2022 (arXiv:2209.05557); a network beside the data's Gaussian field, see
          diffinv/denoisers/spectral.py
Hardware: one CPU core, a quarter of an hour
Expected: digits in the sample grid; the held-out error, 1 for no network, is in the card, per time
"""

from ml_collections import ConfigDict

from configs import prior32


def get_config(mode: str = "") -> ConfigDict:
    """`mode`: "" for the real run, "smoke" for a few seconds on generated images."""
    config = prior32.get_config(mode)
    config.name = "blurring32"
    config.task = "spectral"
    config.process = {"name": "Blurring", "sigma_blur": 10.0}
    config.weighting = "posterior"
    config.sampler = "ancestral"
    config.field_images = 10_000
    config.weight_decay = 0.0
    config.flip = False
    config.eval_levels = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8)
    if mode == "":
        config.update(
            channels=1,
            net={
                "channels": 32,
                "multipliers": (1, 2),
                "attention": (2,),
                "patch": 4,
            },
            batch=32,
            steps=4000,
            cooldown=1200,
            warmup=200,
            ema_half_lives=(8000, 3000),
            eval_every=2000,
            eval_images=1024,
            sample_steps=100,
        )
    return config
