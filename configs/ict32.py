"""Consistency models of 32x32 pictures from data alone: iCT (Song and Dhariwal 2023, arXiv:2310.14189) in full length.

Command:  python -m experiments.train --config=configs/ict32.py --config.data=PATH --workdir=DIR
          --config.method=scm (ct, meanflow, shortcut, ctm, imm) for another loss, --config.options.METHOD.x for its own
Modes:    ""       full length, for several accelerators; not trained yet
          "small"  2,000 steps of 64 and iCT's first stages, for two CPU cores; not run to its end
          "smoke"  a few seconds, on generated pictures
Data:     a folder, glob or .npz of images, or a TFDS name, as for configs/prior32.py
Method:   lognormal levels, pseudo-Huber, 10 to 1,280 steps in eight doublings; batch 1024, RAdam, as published
Expected: published on CIFAR-10, with a DDPM++ network of 56 M weights, 400,000 steps of 1,024: FID 2.83 in one step and
          2.46 in two (sCT 2.85 / 2.06, MeanFlow 2.92 in one, IMM 3.20 / 1.98, CT 8.70 / 5.83). This one has 3.8 M, so
          worse is to be expected; `python -m experiments.judge` prints its EffNetLite0-FID in one and in two steps
"""

from ml_collections import ConfigDict

from configs import prior32


def get_config(mode: str = "") -> ConfigDict:
    """`mode`: see the head of the file."""
    if mode not in ("", "small", "smoke"):
        raise ValueError(f"mode is {mode!r}; configs/ict32.py knows '', 'small' and 'smoke'")
    config = prior32.get_config("" if mode == "small" else mode)
    config.name = "ict32"
    config.task = "consistency"
    config.method = "ict"
    config.middle = 0.821
    config.consistency_levels = (80.0, 0.821)
    config.optimizer = "radam"
    config.clip = 1e6
    config.options = {
        "ct": {},
        "cd": {"n": 18},
        "ict": {
            "s0": 10,
            "s1": 1280,
            "log_sigma_mean": -1.1,
            "log_sigma_std": 2.0,
        },
        "ect": {
            "every": 12_500,
            "q": 2.0,
            "c": 0.0,
            "k": 8.0,
            "b": 1.0,
        },
        "scm": {
            "log_sigma_mean": -1.0,
            "log_sigma_std": 1.4,
            "warmup": 10_000,
            "constant": 0.1,
        },
        "ctm": {"n": 18, "denoising": 1.0},
        "shortcut": {
            "sections": 128,
            "bootstrap": 0.125,
            "clip": 4.0,
        },
        "meanflow": {
            "mean": -2.0,
            "std": 2.0,
            "distinct": 0.75,
            "power": 0.75,
            "constant": 0.01,
        },
        "imm": {
            "group": 4,
            "a": 1.0,
            "b": 5.0,
            "halvings": 15,
        },
    }
    if mode == "":
        config.update(
            net={"dropout": 0.3},
            batch=1024,
            steps=400_000,
            cooldown=1,
            warmup=1,
            learning_rate=1e-4,
            b2=0.999,
            ema_half_lives=(10_000_000, 2_000_000),
            eval_every=10_000,
        )
    elif mode == "small":
        config.update(
            options={"ict": {"s1": 80}},
            steps=2000,
            cooldown=800,
            warmup=50,
            learning_rate=1e-3,
            b2=0.99,
            ema_half_lives=(6_000, 20_000),
            eval_every=500,
            eval_images=512,
        )
    return config
