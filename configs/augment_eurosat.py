"""Diffusion augmentation of scarce land-use classes: a prior of five classes, five others of 5, 10 or 20 pictures each.

Command:  python -m experiments.augment --config=configs/augment_eurosat.py --config.data=PATH --config.model=PATH
          --config.shots=10 and 20 for the other rows
Data:     EuroSAT (Helber et al. 2019), RGB, shrunk to 32 x 32, ten classes of land use; a pack, or a folder of
          train/CLASS and test/CLASS: the test is the data's own held-out part, which the prior must not have seen
Method:   configs/satellite_base.py's prior, which knows AnnualCrop, HerbaceousVegetation, Industrial, PermanentCrop and
          River; embeddings of the other five are learnt from their few pictures, as configs/augment_few_shot.py does
Hardware: one CPU core, two minutes a seed
Expected: docs/augmentation.md
"""

from ml_collections import ConfigDict

from configs import augment_few_shot


def get_config(mode: str = "") -> ConfigDict:
    """`mode`: "" for the real run, "smoke" for a few seconds."""
    config = augment_few_shot.get_config(mode)
    config.name = "augment_eurosat"
    if mode == "":
        config.data = ""
        config.update(
            size=32,
            channels=3,
            per_class=120,
            shift=3,
            flip=True,
            turn=True,
            moved=True,
            test=0.0,
            count=60,
            confidence=(0.0, 1.0),
            log_sigma_mean=-1.2,
            embed={
                "steps": 300,
                "batch": 25,
            },
            methods="Diff-II,SDEdit",
            sigmas=(0.6,),
            beside="none,shift and flip and turn,RandAugment",
            sample_steps=10,
            sample_batch=50,
            judges="logistic regression of features,RBF-SVM of features",
        )
    return config
