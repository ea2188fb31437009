"""Diffusion augmentation of a rare kind of brain tumour: a prior of two kinds, 5, 10 or 20 slices of the third.

Command:  python -m experiments.augment --config=configs/augment_brain.py --config.data=PATH --config.model=PATH
Data:     Cheng's brain tumour set (CC BY 4.0, figshare 1512427), T1 with contrast agent, grey, shrunk to 32 x 32, three
          kinds; a pack, or a folder of train/KIND and test/KIND: the test is the data's own held-out part
Method:   as configs/augment_eurosat.py, with configs/brain_base.py's prior, which does not know meningioma; slices may
          be mirrored, for the planes are mixed, and not turned
Hardware: one CPU core, a minute a seed
Expected: docs/augmentation.md
"""

from ml_collections import ConfigDict

from configs import augment_eurosat


def get_config(mode: str = "") -> ConfigDict:
    """`mode`: "" for the real run, "smoke" for a few seconds."""
    config = augment_eurosat.get_config(mode)
    config.name = "augment_brain"
    if mode == "":
        config.update(
            channels=1,
            shift=2,
            turn=False,
            beside="none,shift and flip,RandAugment",
        )
    return config
