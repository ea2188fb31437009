"""The card of a generator: what rebuilds the networks of a `generator.Game`, its words and its captions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import jax
from flax import traverse_util

from diffinv import generator, schema
from diffinv.schema import Schema, choice, several, switch, text, whole
from diffinv.weights.cards import fields

GAME: Schema = {
    "size": whole("side of the largest picture", 4, 1024, "pixels"),
    "branches": whole("pictures, each twice as large as the one before", 1, 8),
    "features": whole("channels at the smallest picture's size", 2, 1024),
    "width": whole("of the condition", 1, 4096),
    "channels": choice((3, 1), "3 for colour, 1 for grey"),
    "blocks": whole("residual blocks a branch", 0, 16),
    "noise": whole("numbers in z", 1, 4096),
    "judge_features": whole("channels of a judge after its first halving", 1, 1024),
    "alone": switch("judges see the picture alone besides the pair"),
    "words": whole("in the vocabulary, 0 for no texts", 0, 100_000),
    "embedding": whole("the text's numbers", 1, 4096),
    "length": whole("the most words that are read", 1, 1024),
    "viewer_features": whole("channels of the network beside the text's", 1, 1024),
}
WORDS = several(text("a word", 100), 0, 100_000)


def is_generator(card: Mapping[str, Any]) -> bool:
    """Whether the card is of a generator, and of no prior or upscaler."""
    return "generator" in card


def build_game(card: Mapping[str, Any], where: str = "generator") -> generator.Game:
    """The networks that the section `generator` describes. Raises ValueError for a field out of its range."""
    fields.first(_section(card, where))
    try:
        return generator.game(**card)
    except ValueError as error:
        raise ValueError(f"{where}.{error}") from None


def _section(card: Any, where: str) -> Iterator[str]:
    yield from schema.refusals(GAME, card, where, partial=True)
    if isinstance(card, Mapping) and "size" not in card:
        yield f"{where}.size is missing"


def generator_refusals(card: Mapping[str, Any]) -> Iterator[str]:
    """One line for each thing that is wrong with the fields that a generator alone has."""
    lines = list(_section(card["generator"], "card.generator"))
    if not WORDS.accepts(card.get("words", [])):
        lines.append(f"card.words is {schema.shown(card['words'])}; give a list of words")
    yield from lines
    if lines:
        return
    try:
        game = build_game(card["generator"], "card.generator")
    except ValueError as error:
        yield str(error)
        return
    if len(card.get("words", [])) != (known := game.reader.words if game.reader else 0):
        yield f"card.words has {len(card.get('words', []))} words, the network {known}; make them agree"
    if "shape" in card and list(card["shape"]) != [game.sides[-1]] * 2 + [game.tree.channels]:
        yield f"card.shape is {schema.shown(card['shape'])}, the network's side {game.sides[-1]}; make them agree"


def generator_shapes(card: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Flat names and shapes of the weights that a sound card describes."""
    game = build_game(card["generator"], "card.generator")
    tree = jax.eval_shape(lambda: generator.drawn(jax.random.key(0), game))
    return {name: leaf.shape for name, leaf in traverse_util.flatten_dict(tree, sep="/").items()}
