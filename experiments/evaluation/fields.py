"""What `experiments.evaluate` may be told: the fields of its configuration."""

from __future__ import annotations

from ml_collections import ConfigDict

from diffinv import schema
from experiments.evaluation import cells, choosing, embedders, late, printed
from experiments.methods import solvers
from experiments.restore import operators
from experiments.restore.fields import require_together

FIELDS: schema.Schema = {
    "name": schema.component("folder under --out"),
    "tasks": schema.text("with commas: NAME FIELD=VALUE ..., or TITLE = NAME FIELD=VALUE ...", 65536),
    "solvers": schema.text("with commas, likewise; a wrapper as reguidance(BASE), BASE another of the list", 65536),
    "prior": schema.path(
        "of a checkpoint or .onnx, or the name of one that ships: photo, satellite64, brain128, prior32"
    ),
    "data": schema.path("a folder, a glob, a pack, or the name of bundled pictures: satellite, photographs, digits"),
    "first": schema.whole("pictures that are left out before, by which settings with several values are chosen", 0),
    "criterion": schema.choice(tuple(choosing.ERRORS), "what they are chosen by"),
    "rounds": schema.whole("of the choice; from the second on values halfway to the neighbours of the best", 1, 20),
    "presets": schema.path("presets.json of an earlier table, or the name of one in configs/tables; '' to choose"),
    "pictures": schema.whole("pictures that are reported, drawn by the seed", 1),
    "reference": schema.whole(
        "other held-out pictures, to which restored ones are compared as a set; 0: not, else 4 at least", 0, 1_000_000
    ),
    "training": schema.whole("training pictures that teach a classifier of what is restored; 0: none", 0, 1_000_000),
    "draws": schema.whole("reconstructions of each picture by each solver", 1, 100_000),
    "size": schema.whole("side of the pictures, under a prior of any size", 8, 8192, "pixels"),
    "tile": schema.whole("longest side that is denoised at once, under a prior of any size; 0: no tiles", 0, 65536),
    "sigma_y": schema.number("deviation of the measurement's noise", 0, 1000, unit="on the [-1, 1] scale"),
    "group": schema.whole("items at once on each device, at most", 1, 65536),
    "memory": schema.number(
        "what a solver's program may take on all devices; fewer items at once; 0: all", 0, unit="GiB"
    ),
    "seed": schema.whole("of the draw of pictures, of masks, kernels, noise and solvers", 0),
    "optimisation": schema.whole("of XLA's code generator; 0 compiles twice as fast and runs at half the speed", 0, 3),
    "published": schema.choice(["", *printed.TABLES], "a paper's numbers, printed beside ours"),
    **late.FIELDS,
    **embedders.FIELDS,
    **operators.FIELDS,
    **solvers.FIELDS,
}


def check(config: ConfigDict) -> None:
    """Raises ValueError for cells that say nothing, and for settings that are right alone and wrong together."""
    late.check(config)
    embedders.check(config)
    for cell in cells.cells(config, FIELDS):
        require_together(cell.config, {cell.solver.name})
        if cell.solver.open and not config.first and not config.presets:
            told = f"config.solvers has {cell.solver.text!r} with several values, and config.first is 0"
            raise ValueError(f"{told}; say how many pictures choose one, or give config.presets")
