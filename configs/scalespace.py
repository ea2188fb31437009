"""Probabilistic scale-spaces, measured: the truth table, curves and image strips, on digits and on natural images.

Command:  python -m experiments.scalespace --config=configs/scalespace.py
Papers:   Peter 2023 (arXiv:2303.07900) and Peter et al. 2024 (arXiv:2309.08511): diffusion probabilistic models as
          scale-spaces; Weickert et al. 2013 (EMMCVPR): osmosis
Hardware: two CPU cores; the digits in under 3 minutes, their reverse side half a minute; `:smoke` in under one
Expected: every verdict as the truth table derives it; I(U_0; U_1) of heat dissipation on the digits 3.22 nats,
          and of VP and blurring 0
"""

from ml_collections import ConfigDict


def get_config(mode: str = "") -> ConfigDict:
    """`mode`: "" for the page, "smoke" for small patterns in place of both data sets."""
    config = ConfigDict()
    config.name = "scalespace"  # folder under runs/
    config.data = "digits,photographs"  # of digits (needs scikit-learn), photographs, patterns
    config.crops = 192  # 32 x 32 pixels, grey, out of the photographs
    config.draws = 1797  # of the Monte-Carlo estimates
    config.times = 11  # of the truth table
    config.curve = 13  # times of the curves
    config.strip = 7  # pictures of a strip
    config.sigma_blur = (1.0, 10.0, 20.0)  # pixels, of blurring diffusion; the last is also in the curves
    config.blur_max = 20.0  # pixels, of heat dissipation and of homogeneous diffusion
    config.delta = 0.01  # units of grey values 0..1: heat dissipation's noise, and the curves' resolution
    config.offset = 6.0  # of the noise guide, in standard deviations, and added to pictures for osmosis
    config.features = 96  # pixels, input of the feature network; 0: pixels themselves as features
    config.reverse = "digits"  # of digits (exact denoisers) and network (the embedded prior, two minutes)
    config.levels = 121  # SNRs of the I-MMSE integrals
    config.matched = 300  # samples a side of marginal matching
    config.pictures = ""  # the network's own data (Tiny ImageNet), for memorisation; "": photographs in their place
    config.network_images = 48
    config.network_levels = 25
    config.seed = 0
    if mode == "smoke":
        config.update(
            name="scalespace-smoke",
            data="patterns",
            draws=400,
            times=5,
            curve=4,
            strip=3,
            sigma_blur=(20.0,),
            features=0,
            reverse="",
        )
    elif mode:
        raise ValueError(f"mode is {mode!r}; configs/scalespace.py knows '' and 'smoke'")
    return config
