"""An autoencoder of 64x64 satellite pictures: codes of 16 x 16 in eight channels, a sixth of the values.

Command:  python -m experiments.train --config=configs/autoencoder.py --config.data=PATH --workdir=DIR
          add --half --export=DIR for the weights and their card; then configs/latent_prior.py, a prior over its codes
Data:     EuroSAT (Helber et al. 2019), RGB, 64x64; a folder, a pack, or any pictures of your own
Method:   Rombach et al. 2022, arXiv:2112.10752, section 3.1, with a divergence of small weight and no judges
Hardware: one CPU core: see docs/latent.md
Expected: errors of held-out pictures are in the card; samples are held-out pictures and what is made of their codes
"""

from ml_collections import ConfigDict

from configs import prior32

UNREAD = "architecture coarse coarse_level sigma_data log_sigma_mean log_sigma_std net".split()


def get_config(mode: str = "") -> ConfigDict:
    """`mode`: "" for the real run, "smoke" for a few seconds on generated images."""
    config = prior32.get_config(mode)
    config.task = "autoencoder"
    config.name = "eurosat_codes"
    config.turn = True
    config.distance = "l2"
    config.divergence_weight = 1e-5
    config.principal = True
    config.statistics_images = 1024
    with config.unlocked():
        for name in UNREAD:
            del config[name]
        config.net = {
            "channels": 32,
            "multipliers": (1,),
            "blocks": 1,
            "code_channels": 8,
            "groups": 1,
            "attention": False,
            "patch": 4,
            "dtype": "float32",
        }
    if mode == "smoke":
        config.update(statistics_images=8, net={"channels": 12, "patch": 2, "code_channels": 4})
        return config
    config.update(
        size=64,
        batch=16,
        steps=500,
        cooldown=350,
        warmup=100,
        learning_rate=7e-4,
        ema_half_lives=(4_000, 1_000, 10_000),
        eval_every=300,
        eval_images=128,
    )
    return config
