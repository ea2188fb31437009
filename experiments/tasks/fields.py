"""What a configuration of `experiments.train` may hold, for every task, and what must fit together."""

from __future__ import annotations

from ml_collections import ConfigDict

from diffinv import schema
from diffinv.schema import Schema, choice, number, path, several, switch, text, whole
from experiments.tasks.networks import ANY
from experiments.tasks.table import TASKS

STEPS = 10**9

SHARED: Schema = {
    "name": schema.component("of the exported files"),
    "task": choice(tuple(TASKS), "what is trained"),
    "start": path("a checkpoint to start from, a path or one that ships, '' for drawn weights"),
    "seed": whole("of weights, order and noise", low=0),
    "data": path("a folder, a quoted glob, an .npz, a public TFDS name, or digits, photographs, gradients"),
    "data_name": text("what the card says of the pictures; '' for what the data say of themselves"),
    "data_licence": text("what the card says of their licence; '' for what the data say of themselves"),
    "data_folder": path("where prepared data are kept; '' for the cache folder"),
    "download": switch("let TFDS fetch a public set"),
    "resident": switch("keep the decoded pictures in memory"),
    "threads": whole("that read ahead", 1, 1024),
    "size": whole("side of the pictures", 4, 4096, "pixels"),
    "channels": choice((3, 1), "3 for colour, 1 for grey"),
    "classes": whole("labels, 0 for none", 0, 2**20),
    "label_dropout": number("probability that a label is dropped", low=0, high=1),
    "flip": switch("mirror pictures at random"),
    "shift": whole("move pictures at random by up to so many", 0, 4096, "pixels"),
    "turn": switch("turn pictures at random by quarters"),
    "fsdp": whole("devices among which the weights are split", 1, 2**16),
    "batch": whole("pictures a step", 1, 2**20),
    "accumulate": whole("slices of a batch, one after the other", 1, 2**20),
    "steps": whole("of the whole run; may be moved on a restart", 1, STEPS),
    "cooldown": whole("steps in which the learning rate falls to 0", 0, STEPS),
    "warmup": whole("steps in which it rises", 0, STEPS),
    "learning_rate": number("of the optimizer", above=0, high=1),
    "weight_decay": number("of adamw and muon", low=0, high=10),
    "clip": number("global norm of the gradient", above=0),
    "optimizer": choice(("adamw", "radam", "muon"), "Adam, rectified Adam, or Muon, which turns kernels"),
    "b1": number("decay of the gradient's mean", low=0, below=1),
    "b2": number("decay of the gradient's square", low=0, below=1),
    "ema_half_lives": several(number("averages of the weights to choose from", above=0, unit="pictures"), 1, 16),
    "patience": whole("steps in a row that may be not finite", 1, STEPS),
    "log_every": whole("steps from line to line", 1, STEPS),
    "eval_every": whole("steps from evaluation to evaluation", 1, STEPS),
    "eval_images": whole("held-out pictures of an evaluation", 1, 10**7),
    "eval_levels": several(number("noise levels, or times, of the held-out loss", above=0, high=1e6), 1, 64),
    "sample_grid": whole("samples along a side of the picture of samples", 1, 64),
    "sample_steps": whole("of the sampler", 1, 10_000),
    "checkpoint_minutes": number("from checkpoint to checkpoint", above=0),
    "checkpoint_every": whole("steps from checkpoint to checkpoint", 1, STEPS),
    "permanent_every": whole("checkpoints of multiples of so many steps stay", 1, STEPS),
    "keep": whole("of the newest checkpoints", 1, 1000),
}


def fields(config: ConfigDict) -> Schema:
    """The schema of a configuration, by its task; of another task, the field `task` alone."""
    if config.get("task") not in TASKS:
        return {**dict.fromkeys(config, ANY), "task": SHARED["task"]}
    return {**SHARED, **TASKS[config.task].fields(config)}


def check(config: ConfigDict) -> None:
    """Raises ValueError for fields that are right alone and wrong together, before any picture is read."""
    for holds, line in _rules(config):
        if not holds:
            raise ValueError(line)
    TASKS[config.task].check(config)


def _rules(config: ConfigDict) -> list[tuple[bool, str]]:
    size, values = config.size, config.batch * config.size**2 * config.channels
    return [
        (config.data != "", "config.data is ''; name the pictures, such as --config.data=PATH"),
        (config.shift < size, f"config.shift is {config.shift}; give less than config.size, which is {size}"),
        (values <= 2**31, f"config.batch is {config.batch}; pictures of {size} pixels make {values} values: give less"),
        (config.batch % config.accumulate == 0, f"config.accumulate is {config.accumulate}; it must divide the batch"),
    ]
