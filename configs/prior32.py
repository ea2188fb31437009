"""The embedded prior: unconditional 32x32 RGB natural images, EDM preconditioning (Karras et al. 2022), 3.8 M weights.

Command:  python -m experiments.train --config=configs/prior32.py --config.data=PATH --workdir=DIR
          add --export=DIR to write the EMA weights and their card from the latest checkpoint instead of training
Data:     Tiny ImageNet (64x64) shrunk to 32 by area means; any folder, glob or .npz of images works.
          The card says which, as the data do; of your own, give --config.data_name and --config.data_licence
Network:  config.architecture and its fields, config.net; of the other ones, `experiments/tasks/networks.py` has a list
Hardware: one to two CPU cores (AVX-512), 50 to 110 images/s; the embedded weights: 4,000 steps of 64, 100 minutes
Expected: mean held-out loss over the noise levels and the sample grid are in the card
"""

from ml_collections import ConfigDict


def get_config(mode: str = "") -> ConfigDict:
    """`mode`: "" for the real run, "smoke" for a few seconds on generated images."""
    config = ConfigDict()
    config.name = "prior32"
    config.task = "denoising"
    config.start = ""
    config.seed = 0

    config.data = ""
    config.data_name = ""  # what the card says of the pictures; "" for what they say themselves
    config.data_licence = ""
    config.data_folder = ""
    config.download = False
    config.resident = True
    config.threads = 4
    config.size = 32
    config.crop = 0
    config.only = ""
    config.coarse = 0
    config.coarse_level = 1.0
    config.channels = 3
    config.classes = 0
    config.label_dropout = 0.1
    config.flip = True
    config.shift = 0
    config.turn = False

    config.architecture = "unet"
    config.net = {
        "channels": 64,
        "multipliers": (1, 1.5, 2),
        "blocks": 1,
        "attention": (2, 4),
        "head_channels": 32,
        "patch": 2,
        "time_scale": 40.0,
        "resample_blocks": False,
        "dropout": 0.0,
        "remat": False,
        "dtype": "float32",
    }
    config.sigma_data = 0.5
    config.log_sigma_mean = -1.2
    config.log_sigma_std = 1.2

    config.fsdp = 1
    config.batch = 64
    config.accumulate = 1
    config.steps = 4000
    config.cooldown = 1200
    config.warmup = 300
    config.learning_rate = 1.5e-3
    config.weight_decay = 0.01
    config.clip = 1.0
    config.optimizer = "adamw"
    config.b1 = 0.9
    config.b2 = 0.99
    config.ema_half_lives = (44_000, 12_000, 160_000)
    config.patience = 10

    config.log_every = 20
    config.eval_every = 2000
    config.eval_images = 2000
    config.eval_levels = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 40.0)
    config.sample_grid = 8
    config.sample_steps = 18
    config.checkpoint_minutes = 4.0
    config.checkpoint_every = 1000
    config.permanent_every = 10_000
    config.keep = 2
    if mode == "smoke":
        config.update(
            data="gradients",
            size=8,
            net={
                "channels": 8,
                "multipliers": (1, 2),
                "attention": (2,),
                "head_channels": 8,
            },
            batch=8,
            steps=6,
            cooldown=2,
            warmup=2,
            ema_half_lives=(100, 20),
            log_every=1,
            eval_every=3,
            eval_images=8,
            sample_grid=2,
            sample_steps=3,
            checkpoint_every=1,
        )
    elif mode:
        raise ValueError(f"mode is {mode!r}; configs/prior32.py knows '' and 'smoke'")
    return config
