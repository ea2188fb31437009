"""StackGAN-v2 on emoji, 16 -> 32 -> 64 pixels, from their names: every picture has a text of its own.

Command:  python -m experiments.train --config=configs/stackgan_v2_emoji.py --config.data=PATH --workdir=DIR
          then python -m experiments.generate "red apple" --model=DIR/stackgan_emoji
Data:     a pack of PNG files with names, or a folder of pictures NAME.png with their texts NAME.txt
Method:   Zhang et al. 2018, arXiv:1710.10916; see configs/stackgan_v2_eurosat.py, whose networks these are
Hardware: as there, about 35 images/s of one CPU core
Expected: `held_out_loss` of the card; held-out pictures have texts that training never read as a whole
"""

from ml_collections import ConfigDict

from configs import stackgan_v2_eurosat


def get_config(mode: str = "") -> ConfigDict:
    """`mode`: "" for the real run, "smoke" for a few seconds on generated images."""
    config = stackgan_v2_eurosat.get_config(mode)
    config.name = "stackgan_emoji"
    config.turn = False
    config.flip = False
    if mode == "":
        config.captions = True
        config.shift = 2
        config.net.embedding = 64
    return config
