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
    config.task, config.name, config.method = "super_resolution", "ctmsr_x4", "ctmsr"
    config.scale, config.size, config.stride = 4, 64, 48
    config.degradation, config.turn = "bicubic", True
    config.architecture = "srnet"
    config.net = ConfigDict({"channels": 32, "blocks": 8, "residual": True, "cubic": -0.5, "dtype": "float32"})
    config.sigma_max, config.cubic = 1.0, -0.5
    config.index, config.anchor = "sample", 0.5
    config.first_intervals, config.last_intervals, config.curriculum_steps = 1, 3, 0
    config.charbonnier, config.charbonnier_weight = 1e-3, 1.0
    config.feature_weight, config.feature_taps, config.feature_size = 0.0, 3, 0
    config.perceptual, config.lpips_vgg, config.lpips_linear = "features", "", ""
    config.matching, config.matching_weight, config.matching_weighting = "l2", 0.8, "improved"
    config.matching_t_min, config.matching_t_max, config.refresh, config.reference = 0.1, 0.5, 500, "start"
    config.batch, config.steps, config.warmup, config.cooldown = 16, 4000, 100, 2000
    config.learning_rate, config.weight_decay = 1e-3, 0.0
    config.ema_half_lives = (8_000, 2_000, 24_000)
    config.eval_every, config.eval_images, config.sample_grid, config.sample_steps = 1000, 128, 4, 15
    return config


def small(config: ConfigDict, mode: str) -> None:
    """The modes of the small network."""
    if mode == "distortion":
        config.name, config.last_intervals, config.anchor, config.steps = "sr_x4_distortion", 1, 0.0, 3000
        config.cooldown = 1500
    elif mode == "dtm":
        config.name, config.method, config.steps, config.cooldown = "ctmsr_x4_dtm", "dtm", 1000, 500
        config.first_intervals, config.learning_rate = 3, 2e-4
    elif mode == "multistep":
        config.name, config.method, config.sigma_max, config.steps = "resshift_x4", "resshift", 2.0, 5000
        config.cooldown = 1500


def large(config: ConfigDict, mode: str) -> None:
    """The modes for accelerators."""
    config.architecture = "ctmsr"
    fields = {"dtype": "bfloat16", "remat": False, "dropout": 0.0, "residual": True, "cubic": -0.5}
    config.net = ConfigDict(
        {"channels": 64, "multipliers": (1, 2, 2), "blocks": 2, "heads": 4, "resolution": 16, **fields}
    )
    config.batch, config.steps, config.curriculum_steps, config.cooldown = 256, 20_000, 0, 12_000
    config.learning_rate, config.warmup = 1e-4, 1000
    config.ema_half_lives = (180_000, 40_000, 700_000)
    if mode == "published":
        config.size, config.stride, config.degradation, config.cubic = 256, 0, "resshift", -0.75
        config.perceptual, config.name = "lpips", "ctmsr_x4_published"
        config.net.update({"channels": 192, "multipliers": (1, 2, 2, 2), "blocks": 4, "heads": 6, "resolution": 64})
        config.net.update({"dropout": 0.13, "residual": False, "cubic": -0.75, "dtype": "float32"})
        config.flip, config.turn, config.index, config.anchor = False, False, "batch", 0.0
        config.first_intervals, config.last_intervals, config.curriculum_steps = 4, 3, 502_000
        config.charbonnier, config.charbonnier_weight, config.feature_weight = 1e-6, 0.5, 0.5
        config.matching, config.matching_weight, config.refresh = "perceptual", 0.8, 1000
        config.batch, config.steps, config.warmup, config.cooldown = 32, 500_000, 0, 0
        config.learning_rate, config.b1, config.b2, config.clip = 2.5e-5, 0.9, 0.9, 1e9  # 5e-5 until 50,000
        config.ema_half_lives = (22_000,)


def get_config(mode: str = "") -> ConfigDict:
    """`mode`: see the head of the file."""
    if mode not in MODES:
        raise ValueError(f"mode is {mode!r}; configs/ctmsr_x4.py knows {', '.join(map(repr, MODES))}")
    config = base(mode)
    if mode in ("accelerator", "published"):
        large(config, mode)
    else:
        small(config, mode)
    if mode == "smoke":
        config.size, config.stride, config.batch, config.steps, config.warmup, config.cooldown = 32, 32, 8, 6, 2, 2
        config.net.update({"channels": 8, "blocks": 1})
        config.eval_every, config.eval_images, config.sample_grid, config.sample_steps = 3, 8, 2, 3
    return config
