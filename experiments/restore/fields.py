"""What `experiments.reconstruct` may be told: the fields of its configuration, and and the priors that fit."""

from __future__ import annotations

import numpy as np
from ml_collections import ConfigDict

from diffinv import schema
from experiments.common.commandline import listed
from experiments.methods import solvers
from experiments.methods.table import METHODS
from experiments.restore import operators, shots

FIELDS = {
    "name": schema.component("folder under --out; '' for the tasks and a digest of the settings", empty=True),
    "task": schema.choices(list(operators.OPERATORS), "what is undone"),
    "solver": schema.choices(list(METHODS), "what restores"),
    "base": schema.choices(
        [name for name in METHODS if name not in solvers.wrappers()], "what reguidance starts from, each"
    ),
    "prior": schema.path(
        "of a checkpoint or .onnx, or the name of one that ships: photo, satellite64, brain128, prior32"
    ),
    "also": schema.choice(["", "satellite"], "another configuration, run in the same report, of the main job alone"),
    "bundled": schema.choice(shots.BUNDLED, "the pictures that are restored without --images"),
    "kspace": schema.path("of mri, mri_4 and mri_8: a .npz file or a glob, with `kspace` (coil, ky, kx); '' simulates"),
    "size": schema.whole("side of the bundled photographs, under a prior of any size", 8, 8192, "pixels"),
    "tile": schema.whole("longest side that is denoised at once, under a prior of any size; 0: no tiles", 0, 65536),
    "pixels": schema.whole("of all pictures that are restored at once, about: what fits the memory", 1),
    "sigma_y": schema.number("deviation of the measurement's noise", 0, 1000, unit="on the [-1, 1] scale"),
    "pictures": schema.whole("at most so many; 0 for all", 0),
    "every": schema.whole("of the pictures of --images each so many-th alone", 1, 2**31),
    "group": schema.whole("pictures that are restored at once", 1, 65536),
    "seed": schema.whole("of masks, kernels, noise and solvers", 0),
    "optimisation": schema.whole("of XLA's code generator; 0 compiles twice as fast and runs at half the speed", 0, 3),
    **operators.FIELDS,
    **solvers.FIELDS,
}


def check(config: ConfigDict) -> None:
    """Raises ValueError where fields that are right alone are wrong together, for the chosen solvers."""
    used = set(listed(config.solver))
    require_together(config, used | (set(listed(config.base)) if "reguidance" in used else set()))


def require_together(config: ConfigDict, used: set[str]) -> None:
    """Raises ValueError where settings of these methods, right alone, are wrong together."""
    c = config.daps
    if c.sigma_min >= c.sigma_max and "daps" in used:
        raise ValueError(f"config.daps.sigma_min is {c.sigma_min}; give a number below sigma_max, {c.sigma_max}")
    dividing = sorted(name for name in used if METHODS[name].needs_noise)
    if "reguidance" in used and config.reguidance.convention == "likelihood":
        dividing.append('reguidance with convention "likelihood"')
    if np.square(np.float32(config.sigma_y)) == 0 and dividing:
        why = "by which" if config.sigma_y == 0 else "whose square is 0 in single precision, by which"
        raise ValueError(
            f"config.sigma_y is {config.sigma_y:g}, {why} {', '.join(dividing)} divides; give a number above "
            f"{'0' if config.sigma_y == 0 else '1e-15'}"
        )
