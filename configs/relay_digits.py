"""A relay on handwritten digits, 8 -> 16 pixels: blur within blocks of 2 x 2 is undone, from the coarse picture on.

Command:  python -m experiments.train --config=configs/relay_digits.py --config.name=relay16 --workdir=DIR
          from 4 to 8: --config.name=relay8 --config.size=8 --config.net.patch=1; the first stage is that of
          configs/cascade_digits.py
Data:     scikit-learn's digits, which install with it; the label is the digit
Method:   Teng et al. 2023, arXiv:2309.03350: no network is told of the coarse picture, from which `cascade.relaying`
          starts; the noise is variance exploding, of independent pixels; a network beside the data's Gaussian field
Hardware: one CPU core, some minutes a stage
Expected: `held_out_loss` of the card, 1 for no network, per time; from time 0.5 the sampler starts
"""

from ml_collections import ConfigDict

from configs import blurring32, cascade_digits


def get_config(mode: str = "") -> ConfigDict:
    """`mode`: "" for the real run, "smoke" for a few seconds on generated images."""
    spectral = blurring32.get_config(mode and "smoke")
    config = blurring32.get_config(mode and "smoke")
    config.update(cascade_digits.get_config(mode))
    config.name = "relay_digits"
    config.task = "spectral"
    config.coarse = 0
    config.process = ConfigDict(
        {
            "name": "Relay",
            "sigma_blur": 3.0,
            "block": 2,
        }
    )
    config.weight_decay = 0.0
    config.eval_levels = spectral.eval_levels
    return config
