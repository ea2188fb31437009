"""StackGAN-v2 on satellite pictures, 16 -> 32 -> 64 pixels, from the names of their classes; free of restrictions.

Command:  python -m experiments.train --config=configs/stackgan_v2_eurosat.py --config.data=PATH --workdir=DIR
          add --config.start=DIR/stackgan_eurosat to go on from an export in another folder, and --half for float16
Data:     EuroSAT (Helber et al. 2019), RGB, 64 x 64, ten classes of land use; a folder of one folder a class, or a pack
Method:   Zhang et al. 2018, arXiv:1710.10916, with a seventieth of its weights; see configs/stackgan_v2_digits.py
Hardware: one CPU core, bare gradients of 32 pictures, images/s, by channels of the tree, of the
          condition and of the judges: 48, 16, 24 25; 32, 32, 16 55; 64, 32, 16 27; 32, 32, 32 31
Expected: `held_out_loss` of the card; a row of the samples is a class
"""

from ml_collections import ConfigDict

from configs import stackgan_v2_digits


def get_config(mode: str = "") -> ConfigDict:
    """`mode`: "" for the real run, "smoke" for a few seconds on generated images."""
    config = stackgan_v2_digits.get_config(mode)
    config.name = "stackgan_eurosat"
    config.flip = config.turn = True
    if mode == "":
        config.update(
            data="",
            size=64,
            channels=3,
            net={
                "features": 48,
                "width": 16,
                "noise": 64,
                "judge_features": 16,
                "viewer_features": 12,
            },
            batch=32,
            steps=40_000,
            cooldown=2000,
            ema_half_lives=(20_000, 5_000, 60_000),
            eval_every=500,
            eval_images=256,
        )
    return config
