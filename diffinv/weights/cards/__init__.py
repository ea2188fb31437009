"""Model cards: what each field may hold, and whether a card's fields fit each other and the weights beside it.

A card is JSON, version 1. What rebuilds a prior or an upscaler is declared here, with its limits; everything else in a
card is a note, which nothing reads but people. Nothing that a card says is a path, and no name in it reaches Python:
networks and processes are chosen from closed tables.
"""

from diffinv.weights.cards.autoencoders import AUTOENCODER, build_autoencoder, is_autoencoder
from diffinv.weights.cards.checks import (
    VERSION,
    card_refusals,
    expected_shapes,
    is_upscaler,
    kind_of,
    require_card,
    require_numbers,
    require_weights,
    side_multiple,
)
from diffinv.weights.cards.fields import ARCHITECTURES, LEVELS, PROCESSES, build_network, build_process
from diffinv.weights.cards.generators import GAME, build_game, is_generator

__all__ = [
    "ARCHITECTURES",
    "AUTOENCODER",
    "GAME",
    "LEVELS",
    "PROCESSES",
    "VERSION",
    "build_autoencoder",
    "build_game",
    "build_network",
    "build_process",
    "expected_shapes",
    "is_autoencoder",
    "is_generator",
    "is_upscaler",
    "kind_of",
    "card_refusals",
    "require_card",
    "require_weights",
    "require_numbers",
    "side_multiple",
]
