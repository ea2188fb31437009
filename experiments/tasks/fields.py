"""What a configuration of `experiments.train` may hold, for every task, and what must fit together."""

from __future__ import annotations

import math

from ml_collections import ConfigDict

from diffinv import schema
from diffinv.nn.leaves import leaves
from diffinv.schema import Field, Schema, choice, number, path, several, switch, text, whole
from diffinv.weights import cards
from diffinv.weights.cards.fields import NETWORKS

TASKS = ("denoising", "spectral", "consistency", "super_resolution")
METHODS = ("ct", "cd", "ict", "ect", "scm", "ctm", "shortcut", "meanflow", "imm")
WEIGHTINGS = ("posterior", "noise", "step")
STEPS, WEIGHTS = 10**9, 2**32

SHARED: Schema = {
    "name": schema.component("of the exported files"),
    "task": choice(TASKS, "what is trained"),
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
    "weight_decay": number("of adamw", low=0, high=10),
    "clip": number("global norm of the gradient", above=0),
    "optimizer": choice(("adamw", "radam"), "Adam with decayed weights, or rectified Adam"),
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
_spread = number("spread of ln sigma", above=0, high=20)
_mean = number("mean of ln sigma", -20, 20)
LEVELS: Schema = {
    "sigma_data": number("deviation of the pictures", above=0, high=100, unit="on [-1, 1]"),
    "log_sigma_mean": _mean,
    "log_sigma_std": _spread,
}
_network = lambda name, *fields: {field: NETWORKS[name][field] for field in fields}
UNET = _network("unet", *"channels multipliers blocks attention head_channels patch time_scale".split())
UNET |= _network("unet", "resample_blocks", "dropout", "remat", "dtype")
SPECTRAL: Schema = {
    "weighting": choice(WEIGHTINGS, "of the loss"),
    "sampler": choice(("ancestral", "renoise", "ddim"), "of the picture of samples"),
    "field_images": whole("pictures of which the Gaussian field is measured", 2, 10**7),
}
_width = lambda meaning: number(meaning, above=0, high=1e4, unit="pixels")
BLURS: dict[str, Schema] = {
    "Blurring": {"sigma_blur": _width("largest blur")},
    "HeatDissipation": {"blur_max": _width("largest blur"), "delta": number("noise", above=0, high=10)},
}
OPTIONS: Schema = {
    "ct": {},
    "cd": {"n": whole("points", 2, 100_000)},
    "ict": {
        "s0": whole("first points", 1, 100_000),
        "s1": whole("last points", 1, 1_000_000),
        "log_sigma_mean": _mean,
        "log_sigma_std": _spread,
    },
    "ect": {
        "every": whole("steps a stage", 1, STEPS),
        "q": number("shrinks the gap from stage to stage", above=1, high=1e6),
        "c": number("of the pseudo-Huber distance", low=0, high=1e3),
        "k": number("of the mapping", low=0, high=1e3),
        "b": number("of the mapping", low=0, high=1e3),
    },
    "scm": {
        "log_sigma_mean": _mean,
        "log_sigma_std": _spread,
        "warmup": whole("steps until the tangent counts in full", 1, STEPS),
        "constant": number("of the tangent's normalisation", above=0, high=1e3),
    },
    "ctm": {"n": whole("points", 2, 100_000), "denoising": number("weight of the denoising loss", low=0, high=1e6)},
    "shortcut": {
        "sections": whole("smallest steps, a power of 2", 1, 2**20),
        "bootstrap": number("share of the batch", low=0, high=1),
        "clip": number("of the targets", above=0, high=1e6),
    },
    "meanflow": {
        "mean": number("of the logit of time", -20, 20),
        "std": number("of the logit of time", above=0, high=20),
        "distinct": number("share of pairs of two times", low=0, high=1),
        "power": number("of the adaptive weight", low=0, high=8),
        "constant": number("of the adaptive weight", above=0, high=1e3),
    },
    "imm": {
        "group": whole("pictures of a kernel", 1, 2**20),
        "a": number("exponent of the weight", low=0, high=8),
        "b": number("shift of the weight", -50, 50),
        "halvings": whole("of the log-SNR's range", 1, 64),
    },
}
CONSISTENCY: Schema = {
    "method": choice(METHODS, "the loss"),
    "middle": number("noise of the second step", above=0, high=1e4),
    "consistency_levels": several(number("at which two near levels are compared", above=0, high=1e4), 1, 16),
    "options": OPTIONS,
}
UPSCALING: Schema = {
    "method": choice(("ctmsr", "dtm", "resshift"), "stage 1, stage 2, or several steps"),
    "scale": whole("of the sides", 2, 16),
    "stride": whole("from patch to patch, 0 for the size", 0, 4096, "pixels"),
    "degradation": choice(("bicubic", "resshift"), "that makes the low resolution"),
    "architecture": choice(("srnet", "ctmsr"), "the network"),
    "sigma_max": number("noise at time 1", above=0, high=100),
    "cubic": number("of the upsampling", -1, 0),
    "index": choice(("sample", "batch"), "an interval a picture, or one a batch"),
    "anchor": number("share of targets that are the picture itself", low=0, high=1),
    "first_intervals": whole("of the curriculum", 1, 10_000),
    "last_intervals": whole("of the curriculum", 1, 10_000),
    "curriculum_steps": whole("0 for all steps", 0, STEPS),
    "charbonnier": number("of the Charbonnier distance", above=0, high=1),
    "charbonnier_weight": number("of that distance of pixels", low=0, high=1e6),
    "feature_weight": number("of the perceptual distance", low=0, high=1e6),
    "feature_taps": whole("of the feature network", 1, 5),
    "feature_size": whole("its input's side, 0 for the size", 0, 4096, "pixels"),
    "perceptual": choice(("features", "lpips"), "the perceptual distance"),
    "lpips_vgg": path("LPIPS's network, a file"),
    "lpips_linear": path("LPIPS's weights, a file"),
    "matching": choice(("l2", "perceptual"), "distance of the matched trajectories, of dtm"),
    "matching_weight": number("of the matching", low=0, high=1e6),
    "matching_weighting": choice(("improved", "simple"), "of its times"),
    "matching_t_min": number("first time", low=0, high=1),
    "matching_t_max": number("last time", low=0, high=1),
    "refresh": whole("steps from one reference to the next", 0, STEPS),
    "reference": choice(("start", "random"), "the reference before that"),
}
SR_NETWORKS: dict[str, Schema] = {
    "srnet": _network("srnet", "channels", "blocks", "residual", "cubic", "dtype"),
    "ctmsr": _network("ctmsr", *"channels multipliers blocks heads resolution residual cubic dtype".split())
    | _network("ctmsr", "remat", "dropout"),
}
ANY = Field(lambda _: True, "anything")


def fields(config: ConfigDict) -> Schema:
    """The schema of a configuration, by its task; of another task, the field `task` alone."""
    task = config.get("task")
    if task not in TASKS:
        return {**dict.fromkeys(config, ANY), "task": SHARED["task"]}
    if task == "super_resolution":
        networks = SR_NETWORKS.get(config.get("architecture"), dict.fromkeys(config.get("net", {}), ANY))
        return {**SHARED, **_unused(config, LEVELS), **UPSCALING, "net": networks}
    if task == "spectral":
        return {**SHARED, **LEVELS, **SPECTRAL, "net": UNET, "process": _blur(config)}
    return {**SHARED, **LEVELS, **(CONSISTENCY if task == "consistency" else {}), "net": UNET}


def _unused(config: ConfigDict, known: Schema) -> Schema:
    """Fields that configurations share and this task does not read."""
    return {name: field for name, field in known.items() if name in config}


def _blur(config: ConfigDict) -> Schema:
    process = config.get("process", {})
    name = process.get("name") if isinstance(process, ConfigDict) else None
    own = BLURS.get(name, dict.fromkeys(process, ANY)) if isinstance(process, ConfigDict) else {}
    return {**own, "name": choice(tuple(BLURS), "the process")}


def check(config: ConfigDict) -> None:
    """Raises ValueError for fields that are right alone and wrong together, before any picture is read."""
    for holds, line in _rules(config):
        if not holds:
            raise ValueError(line)
    if config.task != "super_resolution":
        _check_network(config)


def _rules(config: ConfigDict) -> list[tuple[bool, str]]:
    size, values = config.size, config.batch * config.size**2 * config.channels
    rules = [
        (config.data != "", "config.data is ''; name the pictures, such as --config.data=PATH"),
        (config.shift < size, f"config.shift is {config.shift}; give less than config.size, which is {size}"),
        (values <= 2**31, f"config.batch is {config.batch}; pictures of {size} pixels make {values} values: give less"),
        (config.batch % config.accumulate == 0, f"config.accumulate is {config.accumulate}; it must divide the batch"),
    ]
    if config.task == "consistency":
        ict = config.options.ict
        rules += [(ict.s0 <= ict.s1, f"config.options.ict.s1 is {ict.s1}; give at least s0, which is {ict.s0}")]
    if config.task == "spectral":
        rules += [(max(config.eval_levels) <= 1, "config.eval_levels are times; give numbers up to 1")]
    if config.task == "super_resolution":
        low, high = config.matching_t_min, config.matching_t_max
        rules += [(low < high, f"config.matching_t_min is {low}; give less than matching_t_max, which is {high}")]
        files = config.lpips_vgg and config.lpips_linear
        rules += [(config.perceptual != "lpips" or bool(files), "config.lpips_vgg and lpips_linear are wanted: files")]
    return rules


def _check_network(config: ConfigDict) -> None:
    """The network by the rules of a card: widths, groups, heads, and the picture's sides."""
    net = cards.build_network({"name": "unet", **config.net.to_dict()}, "config.net")
    if config.size % (unit := cards.side_multiple(net)):
        raise ValueError(f"config.size is {config.size}; config.net wants a multiple of {unit} (patch, multipliers)")
    count = sum(map(math.prod, leaves(net, config.channels).values()))
    if count > WEIGHTS:
        raise ValueError(f"config.net makes {count:,} weights; give fewer channels or levels, for at most {WEIGHTS:,}")
