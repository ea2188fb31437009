"""Diffusion augmentation of your own folder of class folders, at 32 x 32 pixels; classes of few pictures are helped.

Command:  python -m experiments.augment --config=configs/augment_folder.py --config.data=PATH
          add --config.seeds=0 for the augmented folder alone, in which then every picture is for training
Data:     one folder a class, in colour (--config.channels=1 for grey); 20 pictures of a frequent class at least
Method:   as configs/augment_few_shot.py, with a U-Net that is trained on the frequent classes of each split
Hardware: 2 CPU cores, 7 minutes a seed, of which the U-Net takes 5; --config.model names one that is trained already
Expected: the page's own verdict; "no gain" is one
"""

from ml_collections import ConfigDict

from configs import augment_few_shot, prior32


def get_config(mode: str = "") -> ConfigDict:
    """`mode`: "" for the real run, "smoke" for a few seconds."""
    config = augment_few_shot.get_config(mode)
    config.name = "augment_folder"
    config.shots = 0
    config.flip = True
    if mode == "":
        config.data = ""
        config.update(
            size=32,
            channels=3,
            shift=3,
            seeds=3,
            test=0.3,
            count=0,
            architecture="unet",
            steps=1000,
            batch=32,
            learning_rate=1e-3,
            sigma_data=0.5,
            embed={
                "steps": 300,
                "batch": 16,
            },
            methods="SDEdit,words",
            sigmas=(0.1, 0.25, 0.6),
            sample_batch=32,
        )
        config.net = prior32.get_config().net
        config.net.channels = 32
        config.net.multipliers = (1, 2, 3)
        config.net.attention = (4,)
    return config
