"""A prior of 32x32 brain slices with two of three kinds of tumour, for augmentation of the third.

Command:  python -m experiments.train --config=configs/brain_base.py --config.data=PATH --workdir=DIR
Data:     Cheng's brain tumour set (CC BY 4.0, figshare 1512427), T1 with contrast agent, grey, shrunk to 32 x 32: the
          training slices with a pituitary tumour or a glioma; a pack or a folder of train/KIND
Method:   EDM (Karras et al. 2022, arXiv:2206.00364); labels dropped at 0.1 (Ho and Salimans 2022, arXiv:2207.12598)
Hardware: one CPU core, 105 images/s
Expected: mean held-out loss over the noise levels and the sample grid (a kind a row) are in the card
"""

from ml_collections import ConfigDict

from configs import satellite_base


def get_config(mode: str = "") -> ConfigDict:
    """`mode`: "" for the real run, "smoke" for a few seconds on generated images."""
    config = satellite_base.get_config(mode)
    config.name = "brain_base"
    config.turn = False
    if mode == "":
        config.update(
            channels=1,
            classes=2,
            only="pituitary,glioma",
            steps=850,
            cooldown=400,
            eval_every=400,
            sample_grid=4,
        )
    return config
