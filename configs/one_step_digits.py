"""A stage of a cascade in one step, 8 -> 16 pixels: that of configs/cascade_digits.py, tuned to be consistent.

Command:  python -m experiments.train --config=configs/one_step_digits.py --config.start=DIR/digits16 --workdir=OTHER
          the other stages, and their names, as there
Data:     scikit-learn's digits, which install with it; the label is the digit
Method:   easy consistency tuning (Geng et al. 2024, arXiv:2406.14548), told of the coarse picture and of its noise as
          there; the stage is then one evaluation, `cascade.jumping`
Hardware: one CPU core, some minutes a stage
Expected: `held_out_loss` of the card: energy distances of one and two steps
"""

from ml_collections import ConfigDict

from configs import cascade_digits, ict32


def get_config(mode: str = "") -> ConfigDict:
    """`mode`: "" for the real run, "smoke" for a few seconds on generated images."""
    config = ict32.get_config(mode and "smoke")
    config.update(cascade_digits.get_config(mode))
    config.name = "one_step_digits"
    config.task = "consistency"
    config.method = "ect"
    config.options.ect.every = 1000
    config.optimizer = "radam"
    config.clip = 1e6
    config.learning_rate = 1e-3
    return config
