"""A prior of 32x32 satellite pictures of five land-use classes, for augmentation of the other five; no restrictions.

Command:  python -m experiments.train --config=configs/satellite_base.py --config.data=PATH --workdir=DIR
Data:     EuroSAT (Helber et al. 2019), RGB, shrunk to 32 x 32: the training pictures of the five classes of config.only
Method:   EDM (Karras et al. 2022, arXiv:2206.00364); labels dropped at 0.1 (Ho and Salimans 2022, arXiv:2207.12598)
Hardware: one CPU core, 105 images/s; the whole run three quarters of an hour beside others
Expected: mean held-out loss over the noise levels and the sample grid (a class a row) are in the card
"""

from ml_collections import ConfigDict

from configs import prior32


def get_config(mode: str = "") -> ConfigDict:
    """`mode`: "" for the real run, "smoke" for a few seconds on generated images."""
    config = prior32.get_config(mode)
    config.name = "satellite_base"
    config.optimizer = "muon"
    config.turn = True
    if mode == "":
        config.update(
            classes=5,
            only="AnnualCrop,HerbaceousVegetation,Industrial,PermanentCrop,River",
            net={
                "channels": 32,
                "multipliers": (1, 2, 4),
            },
            steps=3400,
            cooldown=800,
            learning_rate=1e-3,
            ema_half_lives=(20_000, 5_000, 60_000),
            eval_every=1000,
            eval_images=256,
            sample_grid=5,
        )
    return config
