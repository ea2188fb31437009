"""A prior over the codes of the autoencoder that ships: 16 x 16 x 8 numbers of a 64x64 satellite picture.

Command:  python -m experiments.train --config=configs/latent_prior.py --config.data=PATH --workdir=DIR
          with --config.autoencoder=DIR/NAME for one of your own, as configs/autoencoder.py trains it
Data:     EuroSAT (Helber et al. 2019), RGB, 64x64, as the autoencoder's
Method:   Rombach et al. 2022, arXiv:2112.10752, section 3.2, by EDM's loss; codes have variance 1, and sigma_data is 1
Hardware: one CPU core: see docs/latent.md
Expected: mean held-out loss over the noise levels and decoded samples are in the card
"""

from ml_collections import ConfigDict

from configs import prior32


def get_config(mode: str = "") -> ConfigDict:
    """`mode`: "" for the real run, "smoke" for a few seconds on generated images."""
    config = prior32.get_config(mode)
    config.task = "latent"
    config.name = "eurosat_latent"
    config.autoencoder = "eurosat_codes"
    config.turn = True
    config.sigma_data = 1.0
    config.log_sigma_mean = -0.2
    config.log_sigma_std = 1.2
    config.architecture = "conv"
    with config.unlocked():
        config.net = {
            "channels": 32 if mode == "" else 8,
            "multipliers": (1, 1.5),
            "blocks": 1,
            "patch": 1,
            "time_scale": 40.0,
            "remat": False,
            "dtype": "float32",
        }
    if mode == "":
        config.update(
            size=64,
            batch=32,
            steps=3000,  # the shipped weights: 280, without a cooldown
            cooldown=1000,
            warmup=100,
            ema_half_lives=(6_000, 2_000, 15_000),
            eval_every=500,
            eval_images=128,
            sample_grid=6,
        )
    return config
