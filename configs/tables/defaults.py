"""What tables start from: the settings of configs/reconstruct.py, satellite pictures that ship, and no tasks yet.

Command:  none of its own; configs/tables/*.py change it
Hardware: as each of these says
Expected: as each of these says
"""

from ml_collections import ConfigDict

from configs import reconstruct

OTHERS = ("task", "solver", "base", "also", "bundled", "kspace", "pixels", "every")


def get_config(mode: str = "") -> ConfigDict:
    """`mode`: "" for the real run, "smoke" for a minute."""
    config = reconstruct.get_config(mode)
    for name in OTHERS:
        del config[name]
    config.name = "table"
    config.tasks = ""  # with commas; NAME FIELD=VALUE ..., or TITLE = NAME FIELD=VALUE ...
    config.solvers = ""  # likewise; wrappers as reguidance(BASE)
    config.prior = "satellite64"
    config.data = "satellite"
    config.first = 0  # left out before; settings with several values are chosen by these
    config.criterion = "feature_distance"
    config.rounds = 1
    config.presets = ""
    config.reference = 0  # other pictures, for distances of sets
    config.training = 0  # labelled ones, for a classifier
    config.pictures = 20
    config.draws = 1
    config.group = 8  # items at once on each device
    config.memory = 0.0  # GiB that a solver's program may take; 0: no limit
    config.published = ""
    config.lpips_vgg = ""
    config.lpips_linear = ""
    config.dists_vgg = ""
    config.dists_weights = ""
    config.niqe = ""
    for name in ("inception", "clip", "dino"):  # ONNX files of papers' networks, for distances of sets
        config[name] = config[f"{name}_takes"] = ""
    return config
