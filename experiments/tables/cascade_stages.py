"""Rows of staged generation's table that are cascades of diffusion models: their stages, trained one by one.

Every stage is trained by `experiments.train`, with configs/cascade_digits.py and what `part` changes, on the pictures
of the table's configuration; the classes are the texts. The stages' widths are those at which they together weigh about
as much as the generator that they are compared with.
"""

from __future__ import annotations

import bisect
import functools
import importlib
import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from diffinv import samplers, scalespace, times, weights
from diffinv.cascade import CascadeStage, Generate, as_it_is, cascade, jumping, relaying, sampling, with_noise
from diffinv.nn.leaves import leaves
from diffinv.prior import Prior
from diffinv.typing import Array, Key, Scalar
from diffinv.weights import cards
from experiments.tables import trainings
from experiments.tasks import networks

SHARED = ("size", "channels", "batch", "flip", "turn", "shift", "data")
WIDEST = 512
HEUN = 18
"""Steps of a stage's sampler."""
RELAY = 0.5
"""The time at which a relay starts: noise of 0.7, and of 2 x 2 pixels 6 % of all but their mean."""


def diffused(prior: Prior) -> Generate:
    """A stage by Heun's method."""
    return sampling(prior, samplers.heun, times.karras(HEUN))


def relayed(prior: Prior) -> Generate:
    """A stage of as many evaluations, from where the blur has left little but the blocks' means."""
    grid = RELAY * times.grid(2 * HEUN - 1)
    return relaying(prior, samplers.ancestral, grid, scalespace.spectral_codes(prior.process, prior.shape))


class Kind(NamedTuple):
    """What a row's stages are.

    `file` is their configuration, `several` whether there are several, `start` the row from whose stages they go on,
    "" for drawn weights, `first` the row whose first stage theirs is, `told` whether they are told of the coarse
    picture, `generate` how each makes its own, `more` what else is changed, by the number of steps.
    """

    file: str = "cascade_digits"
    several: bool = True
    start: str = ""
    first: str = ""
    told: bool = True
    generate: Callable[[Prior], Generate] = diffused
    more: Callable[[int], dict[str, Any]] = lambda steps: {}


DIFFUSION = "diffusion cascade"
ROWS = {
    DIFFUSION: Kind(),
    "one diffusion stage": Kind(several=False),
    "relay": Kind("relay_digits", first=DIFFUSION, told=False, generate=relayed),
    "one-step stages": Kind(
        "one_step_digits",
        start=DIFFUSION,
        generate=jumping,
        more=lambda steps: {"options.ect.every": max(steps // 4, 1)},
    ),
}


class Part(NamedTuple):
    """A stage to be trained: its configuration's file, what is changed in it, both together, what it starts from."""

    file: str
    changes: dict[str, Any]
    config: Any
    start: Part | None


def part(row: str, tree: Any, side: int, coarse: int, width: int, classes: int) -> Part:
    """The row's stage that makes pictures of a side out of those of the side `coarse`, 0 for none.

    `tree` is the configuration of the generator that the row is compared with.
    """
    kind = ROWS[row]
    if kind.first and not coarse:
        return part(kind.first, tree, side, coarse, width, classes)
    patch = 1 + (side > 8)
    changes = {**{name: tree[name] for name in SHARED}, "name": f"stage{side}", "size": side, "classes": classes}
    changes |= {
        "coarse": coarse if kind.told else 0,
        "steps": tree.steps,
        "cooldown": tree.cooldown,
        "eval_every": tree.steps,
    }
    levels = (1,) * max((side // patch).bit_length() - 3, 1)
    changes |= {"net.channels": width, "net.head_channels": width, "net.multipliers": levels, "net.patch": patch}
    changes |= kind.more(tree.steps)
    config = importlib.import_module(f"configs.{kind.file}").get_config()
    config.update_from_flattened_dict(changes)
    start = part(kind.start, tree, side, coarse, width, classes) if kind.start else None
    return Part(kind.file, changes, config, start)


def sides(row: str, tree: Any) -> list[int]:
    """Of the row's pictures, from coarse to fine, in pixels."""
    return [tree.size >> i for i in reversed(range(tree.net.branches if ROWS[row].several else 1))]


def parts(row: str, tree: Any, widths: Sequence[int], classes: int) -> list[Part]:
    """A row's stages from coarse to fine, each of its own width."""
    found = sides(row, tree)
    return [part(row, tree, *sized, classes) for sized in zip(found, [0, *found], widths)]


def architecture(config: Any) -> dict[str, Any]:
    """What the stage's card says of its network."""
    low = {"low_channels": config.channels} if config.coarse else {}
    return networks.card(config, out_channels=config.channels, classes=config.classes + 1, **low)


def weighs(stages: list[Part]) -> int:
    """Weights of all stages; a spectral network sees its picture twice."""
    seen = lambda config: config.channels * (1 + (config.task == "spectral"))
    nets = [(cards.build_network(architecture(stage.config)), seen(stage.config)) for stage in stages]
    return sum(math.prod(shape) for net, channels in nets for shape in leaves(net, channels).values())


def as_many(row: str, tree: Any, count: int, classes: int) -> list[Part]:
    """The row's stages with about `count` weights in all: of one width, or the finer ones of the next larger."""
    stages = len(sides(row, tree))
    known = [width for width in range(4, WIDEST, 2) if divided(width)]
    mixed = [(low,) * (stages - finer) + (high,) * finer for low, high in pairwise(known) for finer in range(stages)]
    weight = lambda widths: weighs(parts(row, tree, widths, classes))
    above = bisect.bisect_left(mixed, count, key=weight)
    return parts(row, tree, min(mixed[max(above - 1, 0) : above + 1], key=lambda w: abs(weight(w) - count)), classes)


def divided(width: int) -> bool:
    """Whether the norms of a network of the width divide its channels, as they divide those of its sums and joints."""
    return all(channels % min(32, channels // 4) == 0 for channels in (width, 2 * width))


def trained(models: str, row: str, seed: int, stages: list[Part]) -> tuple[Prior, ...]:
    """The row's priors of a seed, trained where they are not there yet. Raises ValueError where a training failed."""
    return tuple(weights.load_prior(export(models, row, seed, stage)) for stage in stages)


def export(models: str, row: str, seed: int, stage: Part) -> str:
    """The path of a trained stage."""
    name = stage.config.name
    start = {"start": export(models, ROWS[row].start, seed, stage.start)} if stage.start else {}
    given = trainings.flags(stage.file, {**stage.changes, **start, "seed": seed})
    folder = Path(models) / f"{row.replace(' ', '-')}-{seed}" / name
    same = functools.partial(is_of, stage.config)
    return trainings.export(f"{row!r}, {name}, seed {seed}", folder, name, given, same)


def is_of(config: Any, card: dict[str, Any]) -> bool:
    """Whether an export is of as many steps by this stage's network."""
    wanted = {name: list(value) if isinstance(value, tuple) else value for name, value in config.net.items()}
    net = card.get("architecture", {})
    same = {**net, **wanted} == net and card.get("coarse", {"side": 0})["side"] == config.coarse
    return same and card.get("steps") == config.steps and card["shape"][0] == config.size


@functools.cache
def cascaded(row: str) -> Callable[..., tuple[Array, ...]]:
    """`((priors, level), key, label)` to the pictures of all stages: the priors with noise of `level` between them."""
    kind = ROWS[row]
    first = ROWS[kind.first or row].generate

    def pictures(given: tuple[tuple[Prior, ...], Scalar], key: Key, label: Array) -> tuple[Array, ...]:
        priors, level = given
        corrupt = with_noise if kind.told else as_it_is
        makers = [first] + [kind.generate] * (len(priors) - 1)
        told = [(make(prior.given(label=label)), prior.shape) for make, prior in zip(makers, priors)]
        return cascade([CascadeStage(*each, corrupt, level) for each in told])(key, None).info.pictures

    return pictures
