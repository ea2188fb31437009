"""Diffusion augmentation of rare classes of clothes: three of Fashion-MNIST's ten have 5 pictures each.

Command:  python -m experiments.augment --config=configs/augment_fashion.py --config.data=PATH
Data:     Fashion-MNIST (Xiao, Rasul and Vollgraf 2017), MIT; PATH is the folder of its IDX files, gzipped or not.
          600 pictures of a class, brought from 28 x 28 to 32 x 32 pixels; half of them are the test, 10 splits
Method:   as configs/augment_few_shot.py, with a U-Net that is trained on the seven frequent classes of each split
Hardware: 2 CPU cores, 6 minutes a seed, of which the U-Net takes 4
Expected: docs/augmentation.md
"""

from ml_collections import ConfigDict

from configs import augment_folder


def get_config(mode: str = "") -> ConfigDict:
    """`mode`: "" for the real run, "smoke" for a few seconds."""
    config = augment_folder.get_config(mode)
    config.name = "augment_fashion"
    config.shots = 5
    if mode == "":
        config.update(
            channels=1,
            per_class=600,
            shift=2,
            seeds=10,
            test=0.5,
            count=60,
            steps=800,
            methods="SDEdit,words",
            sigmas=(0.3, 0.6, 1.2),
            sample_steps=10,
            sample_batch=60,
            judges="logistic regression of features,RBF-SVM of features",
        )
    return config
