"""Inverse heat dissipation on 32x32 handwritten digits: pictures are made by undoing their blur, over a little noise.

Command:  python -m experiments.train --config=configs/heat32.py --config.data=mnist.npz --workdir=DIR
Data:     as configs/blurring32.py
Method:   Rissanen et al. 2022 (arXiv:2206.13397): its loss; blur up to 36 pixels, where of 32 the mean grey is left
Hardware: one CPU core, a quarter of an hour
Expected: strokes like digits' in the sample grid, grainier than those of configs/blurring32.py
"""

from ml_collections import ConfigDict

from configs import blurring32


def get_config(mode: str = "") -> ConfigDict:
    """`mode`: "" for the real run, "smoke" for a few seconds on generated images."""
    config = blurring32.get_config(mode)
    config.name = "heat32"
    config.process = ConfigDict(
        {
            "name": "HeatDissipation",
            "blur_max": 36.0,
            "delta": 0.01,
        }
    )
    config.weighting = "step"
    return config
