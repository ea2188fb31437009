"""The embedded 32x32 prior made into a one-step model: easy consistency tuning (Geng et al. 2024, arXiv:2406.14548).

Command:  python -m experiments.train --config=configs/ect32.py --config.data=PATH --workdir=DIR
          --config.start=PATH for other weights of the same network
Modes:    ""       full length, for one accelerator; not trained yet
          "small"  2,000 steps of 64: two CPU cores, 45 minutes beside other work
          "smoke"  a few seconds, on generated pictures
Data:     that of the prior: Tiny ImageNet (64x64) shrunk to 32 by area means
Method:   from a diffusion model, towards consistency in stages of q = 2: batch 128, RAdam 1e-4, 400,000 steps
Expected: published on CIFAR-10, from EDM's network of 56 M weights: FID 4.54 in one step and 2.20 in two after 100,000
          steps, 3.86 / 2.15 after 200,000, 3.60 / 2.11 after 400,000. This one has 3.8 M weights and other pictures:
          EffNetLite0-FID, printed by `python -m experiments.judge`, is 150.2 / 155.7 after "small", where the
          prior that it starts from has 302.3 / 267.8 in as many steps and 100.3 in 18 of Heun's
"""

from ml_collections import ConfigDict

from configs import ict32


def get_config(mode: str = "") -> ConfigDict:
    """`mode`: see the head of the file."""
    config = ict32.get_config(mode)
    config.name = "ect32"
    config.method = "ect"
    if mode != "smoke":
        config.start = "prior32"
    if mode == "":
        config.update(
            options={"ect": {"every": 25_000}},
            net={"dropout": 0.2},
            batch=128,
            steps=400_000,
            ema_half_lives=(500_000, 2_000_000),
        )
    elif mode == "small":
        config.update(
            options={"ect": {"every": 250}},
            steps=2000,
            cooldown=800,
            learning_rate=4e-4,
        )
    return config
