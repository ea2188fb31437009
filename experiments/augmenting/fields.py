"""What a configuration of `experiments.augment` may hold."""

from __future__ import annotations

import itertools

from ml_collections import ConfigDict

from diffinv import schema
from diffinv.schema import Schema, choice, number, path, several, switch, text, whole
from experiments.augmenting.baselines import baselines
from experiments.augmenting.classifiers import CLASSIFIERS
from experiments.augmenting.methods import METHODS
from experiments.common.commandline import listed
from experiments.evaluation import embedders
from experiments.tasks import networks

SIZES: dict[str, Schema] = {
    "perceptron": {
        "width": whole("of the hidden layers", 4, 8192),
        "blocks": whole("residual layers", 1, 64),
        "embed": whole("width of a label's embedding", 2, 4096),
    },
    "unet": {name: networks.DECLARED["unet"][name] for name in networks.CHOSEN["unet"].fields},
}
MOVES = itertools.product((1, 0), (False, True), (False, True))
COMPANIONS = tuple(dict.fromkeys(name for moves in MOVES for name in baselines(*moves) if name != "class weights"))
SHARED: Schema = {
    "name": schema.component("the folder of the results under --out"),
    "seed": whole("the first of the seeds", low=0),
    "data": path("a folder of one folder a class, a pack, an .npz, or digits"),
    "data_folder": path("where prepared data are kept; '' for the cache folder"),
    "size": whole("side of the pictures", 4, 1024, "pixels"),
    "channels": choice((3, 1), "3 for colour, 1 for grey"),
    "per_class": whole("pictures of a class that are used at all, drawn once; 0 for every one", low=0),
    "shift": whole("pixels by which pictures may move and stay of their class; 0 for none", 0, 64, "pixels"),
    "flip": switch("whether a mirrored picture is of the same class"),
    "turn": switch("whether a picture that is turned by quarters is of the same class"),
    "moved": switch("whether recipes learn and start from pictures that are shifted, mirrored and turned so"),
    "seeds": whole("splits that the judgement is drawn over; 0 for none: all pictures are for training", 0, 1000),
    "rare": whole("classes that are drawn to be rare, where nothing else says which", 1, 10_000),
    "names": text(
        "rare classes by name, with commas; '' for those that config.model does not know, or see config.shots"
    ),
    "shots": whole(
        "training pictures of a rare class; 0 for all, and the classes of fewer pictures than the mean are rare",
        0,
        10**6,
    ),
    "test": number("share of the pictures that is for testing; 0 for the data's own held-out part", low=0, below=1),
    "validation": number("share of the rest, on which strengths are chosen", above=0, below=1),
    "count": whole("pictures that are made of each rare class; 0 for as many as balance it", 0, 10**6),
    "model": path("a prior that ships, or a path, with labels; '' for one trained on the frequent classes, each split"),
    "architecture": choice(tuple(SIZES), "the network of the prior that is trained here"),
    "steps": whole("of its training", 1, 10**9),
    "batch": whole("pictures a step", 1, 2**20),
    "learning_rate": number("of Adam, falling to 0", above=0, high=1),
    "label_dropout": number("probability that a label is dropped", low=0, below=1),
    "sigma_data": number("deviation of the pictures", above=0, high=100, unit="on [-1, 1]"),
    "log_sigma_mean": number("mean of ln sigma, of training and fine-tuning", -20, 20),
    "log_sigma_std": number("spread of ln sigma", above=0, high=20),
    "embed": {
        "steps": whole("of fine-tuning", 1, 10**9),
        "batch": whole("pictures a step", 1, 2**20),
        "rate": number("of Adam for embeddings", above=0, high=10),
        "weights_rate": number("of Adam for adapters and for all weights", above=0, high=10),
    },
    "methods": schema.choices(tuple(METHODS), "the diffusion recipes"),
    "sigmas": several(
        number("strengths of SDEdit: the noise's deviation; chosen on validation pictures", above=0, high=1000), 1, 16
    ),
    "beside": schema.choices(COMPANIONS, "baselines whose pictures stand beside the made ones; chosen on validation"),
    "guidance": number("classifier-free weight of DA-Fusion; 1 for none", 0, 100),
    "sample_steps": whole("of the sampler", 1, 10_000),
    "sample_batch": whole("pictures made at once", 1, 2**16),
    "confidence": several(number("least and greatest probability of the label in a made picture", 0, 1), 2, 2),
    "copies": number("quantile of real nearest distances under which a made picture is a copy; 0: none", 0, below=1),
    "judges": schema.either(
        schema.exactly("", "'' for those that suit the size of the pictures"),
        schema.choices(tuple(CLASSIFIERS)),
        meaning="the classifiers",
    ),
    **embedders.FIELDS,
}


def fields(config: ConfigDict) -> Schema:
    """The schema of a configuration, by its network."""
    return {**SHARED, "net": SIZES.get(config.get("architecture"), {})}


def check(config: ConfigDict) -> None:
    """Raises ValueError for fields that are right alone and wrong together."""
    embedders.check(config)
    low, high = config.confidence
    rules = [
        (low <= high, f"config.confidence is {tuple(config.confidence)}; give the smaller one first"),
        (config.shift < config.size, f"config.shift is {config.shift}; give less than config.size, {config.size}"),
        (
            len(set(config.sigmas)) == len(config.sigmas),
            f"config.sigmas is {tuple(config.sigmas)}; give strengths that differ",
        ),
    ]
    there = baselines(config.shift, config.flip, config.turn)
    for name in listed(config.beside):
        moves = f"config.shift, config.flip and config.turn leave {', '.join(there)}"
        rules.append((name in there, f"config.beside has {name!r}; {moves}"))
    for holds, line in rules:
        if not holds:
            raise ValueError(line)
