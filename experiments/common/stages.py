"""Exported priors that are the stages of a cascade, from coarse to fine, and what they draw."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp

from diffinv import posterior, process, samplers, schema, times, weights
from diffinv.cascade import CascadeStage, Generate, as_it_is, cascade, jumping, sampling, with_noise
from diffinv.prior import Prior
from diffinv.typing import Array, Key, Scalar
from experiments.common import priors

LEVEL = schema.number("noise on the coarse picture that a stage is told of", 0, 10, unit="on [-1, 1]")
WEIGHT = schema.number("of guidance by the label; 1: without", low=0, high=1000)
STEPS = schema.whole("of a diffusion stage's sampler, EDM's by Heun", 1, 100_000)


class Stages(NamedTuple):
    """Priors from coarse to fine, and their cards."""

    priors: tuple[Prior, ...]
    cards: tuple[dict[str, Any], ...]

    @property
    def labels(self) -> list[str]:
        """Of the finest stage's card; none where nobody told it any."""
        return self.cards[-1].get("labels", [])


def split(paths: str) -> list[str]:
    """The checkpoints of `A,B,C`, which may be one whose name has commas."""
    several = [paths] if os.path.exists(f"{paths}.json") else paths.split(",")
    return [priors.place(path.strip()) for path in several]


def require_fit(cards: Sequence[dict[str, Any]], paths: Sequence[str], name: str) -> None:
    """ValueError, which names the stage, where one is not told of the picture that the one before it makes."""
    for place, (path, card) in enumerate(zip(paths, cards)):
        side = card.get("coarse", {}).get("side", 0)
        before = cards[place - 1]["shape"] if place else [0, 0, card["shape"][-1]]
        if "latent" in card:
            raise ValueError(f"{name} has {path!r}, over codes, which is no stage; give priors of pictures")
        if place == 0 and side:
            raise ValueError(f"{name} starts with {path!r}, which is told of {side} x {side}; put its stage before it")
        if place and [side, side, card["shape"][-1]] != list(before):
            told = f"is told of {side} x {side} x {card['shape'][-1]}" if side else "is told of no coarse picture"
            raise ValueError(f"{name} has {path!r}, which {told}, after one of {' x '.join(map(str, before))}")
        if card.get("labels", []) != cards[-1].get("labels", []):
            raise ValueError(f"{name} has {path!r}, whose labels are not those of {paths[-1]!r}; give others")


def loaded(paths: Sequence[str], name: str) -> Stages:
    """The stages, each under the process that it was trained with. Raises ValueError for those that do not fit."""
    cards = [weights.read_card(path, "prior") for path in paths]
    require_fit(cards, paths, name)
    once = lambda card: card.get("consistency", {}).get("second_time")
    found = [weights.load_prior(path, None if once(card) else process.EDM()) for path, card in zip(paths, cards)]
    return Stages(tuple(found), tuple(cards))


def maker(prior: Prior, card: dict[str, Any], label: Array | None, weight: Scalar, steps: int) -> Generate:
    """A stage by one evaluation of a consistency model, or by Heun's method and classifier-free guidance.

    Without a label it is told of none, where its card names that of nothing.

    Source: Ho et al. 2021, arXiv:2106.15282; guidance by Ho and Salimans 2022, arXiv:2207.12598.
    """
    nothing = card.get("label_null")
    told = prior if nothing is None else prior.given(label=jnp.int32(nothing) if label is None else label)
    if "consistency" in card:
        return jumping(told)
    if nothing is None or label is None:
        return sampling(told, samplers.heun, times.karras(steps))
    guided = lambda told: posterior.cfg(told, told.given(label=jnp.int32(nothing)), weight)
    return sampling(told, lambda told: samplers.heun(guided(told)), times.karras(steps))


def drawing(cards: Sequence[dict[str, Any]], steps: int) -> Callable[..., tuple[Array, ...]]:
    """`(priors, level, weight, key, label) -> pictures`, (H, W, C) of each stage on [-1, 1]; the label may be None."""

    def pictures(priors: Sequence[Prior], level: Scalar, weight: Scalar, key: Key, label: Array | None):
        made = [maker(prior, card, label, weight, steps) for prior, card in zip(priors, cards)]
        corrupt = [with_noise if "coarse" in card else as_it_is for card in cards]
        stages = [CascadeStage(*each, level) for each in zip(made, [prior.shape for prior in priors], corrupt)]
        return cascade(stages)(key, None).info.pictures

    return pictures
