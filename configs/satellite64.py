"""A class-conditional prior of 64x64 satellite pictures, EDM preconditioning, 4.3 M weights; free of restrictions.

Command:  python -m experiments.train --config=configs/satellite64.py --config.data=PATH --workdir=DIR
          add --config.start=satellite64 to go on from the shipped weights, with a warm-up, and --half for their form
Data:     EuroSAT (Helber et al. 2019), RGB, 64x64, ten classes of land use; a folder of one folder a class, or a pack
Method:   EDM (Karras et al. 2022, arXiv:2206.00364); labels dropped at 0.1 (Ho and Salimans 2022, arXiv:2207.12598)
Hardware: one CPU core without AVX-512, bare gradients of 32 pictures, images/s: patch 2, 32 channels x (1, 2, 4, 4)
          15; the same x (1, 2, 4, 6) 15; patch 2, 64 x (1, 1.5, 2) 4.5; patch 4, 64 x (1, 1.5, 2) 33. Patch 2 costs
          twice patch 4 and keeps the finest detail; narrow fine levels and wide coarse ones cost a third of even ones
Expected: mean held-out loss over the noise levels and the sample grid (a class a row) are in the card
"""

from ml_collections import ConfigDict

from configs import prior32


def get_config(mode: str = "") -> ConfigDict:
    """`mode`: "" for the real run, "smoke" for a few seconds on generated images."""
    config = prior32.get_config(mode)
    config.name = "satellite64"
    config.classes = 2
    config.optimizer = "muon"
    config.turn = True  # seen from above, every quarter turn is a picture of the same kind
    if mode == "":
        config.update(
            size=64,
            classes=10,
            net={
                "channels": 32,
                "multipliers": (1, 2, 4, 4),
                "attention": (4, 8),
                "head_channels": 32,
            },
            batch=32,
            steps=20_000,
            cooldown=1000,
            warmup=300,
            learning_rate=1e-3,
            ema_half_lives=(20_000, 5_000, 60_000),
            eval_every=1000,
            eval_images=256,
            sample_grid=10,
        )
    return config
