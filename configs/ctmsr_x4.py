"""CTMSR, one-step super-resolution x4 (You et al. 2025, arXiv:2503.20349), at a size that a laptop trains.

Command:  python -m experiments.train --config=configs/ctmsr_x4.py --config.data=PATH --workdir=DIR
Modes:    ""            stage 1: consistency training, intervals 1 -> 2 -> 3, half of the targets the picture itself
          "dtm"         stage 2: Distribution Trajectory Matching; give --config.start=STAGE1 (its export)
          "distortion"  one interval: plain regression, for PSNR
          "multistep"   ResShift's loss and 15 steps, same network, data and steps as stage 1 and 2 together
          "accelerator" stage 1 for one large GPU, a U-Net with windowed attention; not trained yet
          "published"   stage 1 of the paper: 171.5 M weights, its schedule and degradation; not trained here
          "smoke"       a few seconds, on generated pictures
Data:     a folder of photographs of any size, cut into 64 x 64 patches; trained on the 200 training images of BSDS
Hardware: two CPU cores, each small mode under 30 minutes
Expected: Set5 PSNR-Y 30.70 ("distortion"), 30.30 (""), 30.36 ("dtm"), 28.70 ("multistep"), bicubic 28.43; feature
          distance 0.164, 0.177, 0.176, 0.227, 0.254. The published network, RealSR x4: PSNR 26.18, LPIPS 0.294
"""

from ml_collections import ConfigDict

from configs import prior32

MODES = ("", "dtm", "distortion", "multistep", "accelerator", "published", "smoke")


def base(mode: str) -> ConfigDict:
    """What all modes share: stage 1 of the small network."""
    config = prior32.get_config("smoke" if mode == "smoke" else "")
    config.task = "super_resolution"
    config.name = "ctmsr_x4"
    config.method = "ctmsr"
    config.scale = 4
    config.size = 64
    config.stride = 48
    config.degradation = "bicubic"
    config.turn = True

    config.architecture = "srnet"
    config.net = ConfigDict(
        {
            "channels": 32,
            "blocks": 8,
            "residual": True,
            "cubic": -0.5,
            "dtype": "float32",
        }
    )
    config.sigma_max = 1.0
    config.cubic = -0.5

    config.index = "sample"
    config.anchor = 0.5
    config.first_intervals = 1
    config.last_intervals = 3
    config.curriculum_steps = 0
    config.charbonnier = 1e-3
    config.charbonnier_weight = 1.0
    config.feature_weight = 0.0
    config.feature_taps = 3
    config.feature_size = 0
    config.perceptual = "features"
    config.lpips_vgg = ""
    config.lpips_linear = ""
    config.matching = "l2"
    config.matching_weight = 0.8
    config.matching_weighting = "improved"
    config.matching_t_min = 0.1
    config.matching_t_max = 0.5
    config.refresh = 500
    config.reference = "start"

    config.batch = 16
    config.steps = 4000
    config.warmup = 100
    config.cooldown = 2000
    config.learning_rate = 1e-3
    config.weight_decay = 0.0
    config.ema_half_lives = (8_000, 2_000, 24_000)
    config.eval_every = 1000
    config.eval_images = 128
    config.sample_grid = 4
    config.sample_steps = 15
    return config


SMALL = {
    "": {},
    "distortion": {
        "name": "sr_x4_distortion",
        "last_intervals": 1,
        "anchor": 0.0,
        "steps": 3000,
        "cooldown": 1500,
    },
    "dtm": {
        "name": "ctmsr_x4_dtm",
        "method": "dtm",
        "first_intervals": 3,
        "steps": 1000,
        "cooldown": 500,
        "learning_rate": 2e-4,
    },
    "multistep": {
        "name": "resshift_x4",
        "method": "resshift",
        "sigma_max": 2.0,
        "steps": 5000,
        "cooldown": 1500,
    },
    "smoke": {
        "size": 32,
        "stride": 32,
        "net": {"channels": 8, "blocks": 1},
        "batch": 8,
        "steps": 6,
        "warmup": 2,
        "cooldown": 2,
        "eval_every": 3,
        "eval_images": 8,
        "sample_grid": 2,
        "sample_steps": 3,
    },
}
"""What the modes of the small network change."""
ACCELERATOR = {
    "architecture": "ctmsr",
    "batch": 256,
    "steps": 20_000,
    "curriculum_steps": 0,
    "warmup": 1000,
    "cooldown": 12_000,
    "learning_rate": 1e-4,
    "ema_half_lives": (180_000, 40_000, 700_000),
}
WINDOWED = {
    "channels": 64,
    "multipliers": (1, 2, 2),
    "blocks": 2,
    "heads": 4,
    "resolution": 16,
    "residual": True,
    "cubic": -0.5,
    "dtype": "bfloat16",
    "remat": False,
    "dropout": 0.0,
}
PUBLISHED = {
    "name": "ctmsr_x4_published",
    "size": 256,
    "stride": 0,
    "degradation": "resshift",
    "cubic": -0.75,
    "flip": False,
    "turn": False,
    "net": {
        "channels": 192,
        "multipliers": (1, 2, 2, 2),
        "blocks": 4,
        "heads": 6,
        "resolution": 64,
        "residual": False,
        "cubic": -0.75,
        "dtype": "float32",
        "dropout": 0.13,
    },
    "index": "batch",
    "anchor": 0.0,
    "first_intervals": 4,
    "last_intervals": 3,
    "curriculum_steps": 502_000,
    "charbonnier": 1e-6,
    "charbonnier_weight": 0.5,
    "feature_weight": 0.5,
    "perceptual": "lpips",
    "matching": "perceptual",
    "matching_weight": 0.8,
    "refresh": 1000,
    "batch": 32,
    "steps": 500_000,
    "warmup": 0,
    "cooldown": 0,
    "learning_rate": 2.5e-5,  # 5e-5 until 50,000
    "b1": 0.9,
    "b2": 0.9,
    "clip": 1e9,
    "ema_half_lives": (22_000,),
}


def get_config(mode: str = "") -> ConfigDict:
    """`mode`: see the head of the file."""
    if mode not in MODES:
        raise ValueError(f"mode is {mode!r}; configs/ctmsr_x4.py knows {', '.join(map(repr, MODES))}")
    config = base(mode)
    if mode in SMALL:
        config.update(SMALL[mode])
        return config
    config.update(ACCELERATOR)
    config.net = ConfigDict(WINDOWED)
    if mode == "published":
        config.update(PUBLISHED)
    return config
