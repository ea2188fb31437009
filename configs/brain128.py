"""A prior of grey 128 x 128 slices of the human head by magnetic resonance, of local view: any size, 1.3 M weights.

Command:  python -m experiments.train --config=configs/brain128.py --config.data=PATH --workdir=DIR --half
Data:     Cheng's brain tumour set, T1 with contrast agent, 128 x 128 grey, of which squares of 64 x 64 are cut (CC BY
          4.0, figshare 1512427); a pack whose split 2, neighbours of the held-out slices, is for neither
Method:   EDM (Karras et al. 2022, arXiv:2206.00364)
Network:  `diffinv.nn.convnet` as in configs/photo.py, by the table: after so little the whole matters at noise 40 alone
Hardware: ten thousand steps are four hours of one CPU core
Expected: mean held-out loss over the noise levels is in the card

Each 173 seconds of one core in steps of 32, compilation aside; 208 held-out slices, the better of two averages. This
was measured before, on whole slices that were shrunk to 64 x 64 by area means, not on squares of the slices:

    network                                        weights  pictures/s  mean loss   at 0.1    0.3      1     10     40
    conv, patch 2, 64 x (1, 1.5, 2)                  1.29 M       22.6      0.602    0.936  0.674  0.278  0.289  0.377
    unet, patch 2, 32 x (1, 2, 4, 4), attention      4.17 M       20.6      0.625    0.967  0.776  0.368  0.293  0.305
"""

from ml_collections import ConfigDict

from configs import photo


def get_config(mode: str = "") -> ConfigDict:
    """`mode`: "" for the real run, "smoke" for a few seconds on generated images."""
    config = photo.get_config(mode)
    config.name = "brain128"
    config.channels = 1
    config.turn = False
    if mode == "":
        config.update(
            crop=32,
            steps=10_000,
            cooldown=1000,
            eval_images=216,
        )
    return config
