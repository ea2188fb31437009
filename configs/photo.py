"""A prior of natural pictures of any size: a network without a view of the whole, trained on crops; 1.3 M weights.

Command:  python -m experiments.train --config=configs/photo.py --config.data=PATH --workdir=DIR
Data:     a folder of photographs of any size, which are cut into squares of 64 x 64; BSDS's 200 of its training part
Method:   EDM (Karras et al. 2022, arXiv:2206.00364)
Network:  `diffinv.nn.convnet`: what it makes of a pixel depends on the 68 pixels about it, wherever the picture ends
Hardware: bare gradients, 64 x 64 crops for each second of one CPU core: patch 2 and channels 64 x (1, 1.5, 2), one
          block 25, two blocks 13; 48 x (1, 1.5, 2), two blocks 16; 48 x (1, 2, 3), two blocks 14; 96 x (1, 1), two
          blocks 7; patch 1, 32 x (1, 1.5, 2), one block 16
Expected: mean held-out loss over the noise levels is in the card
"""

from ml_collections import ConfigDict

from configs import prior32


def get_config(mode: str = "") -> ConfigDict:
    """`mode`: "" for the real run, "smoke" for a few seconds on generated images."""
    config = prior32.get_config(mode)
    config.name = "photo"
    config.architecture = "conv"
    config.optimizer = "muon"
    config.turn = True
    config.crop = 16
    with config.unlocked():
        config.net = ConfigDict(
            {
                "channels": 8,
                "multipliers": (1, 2),
                "blocks": 1,
                "patch": 2,
                "time_scale": 40.0,
                "remat": False,
                "dtype": "float32",
            }
        )
    if mode == "":
        config.update(
            size=64,
            crop=40,
            net={
                "channels": 64,
                "multipliers": (1, 1.5, 2),
            },
            batch=32,
            steps=40_000,
            cooldown=2000,
            warmup=300,
            learning_rate=1e-3,
            ema_half_lives=(20_000, 5_000, 60_000),
            eval_every=1000,
            eval_images=256,
            sample_grid=6,
        )
    return config
