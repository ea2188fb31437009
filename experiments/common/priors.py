"""The prior that a command works with: of a checkpoint, under the process that solvers expect."""

from __future__ import annotations

import os
from typing import Any

from diffinv import LatentPrior, process, weights
from diffinv.prior import Prior


def place(path: str) -> str:
    """Where a checkpoint is: a path as it is, the name of one that ships, or "" for the embedded one."""
    shipped = weights.embedded(path) if path and os.path.basename(path) == path else ""
    return shipped if shipped and os.path.exists(f"{shipped}.json") else path or weights.embedded()


def require_pictures(card: dict, path: str, name: str = "--prior") -> None:
    """ValueError for the card of a prior over an autoencoder's codes."""
    if "latent" in card:
        raise ValueError(f"{name} is {path!r}, over codes, which experiments.reconstruct takes; give one of pictures")


def load(
    path: str, name: str = "--prior", shape: tuple[int, ...] | None = None, tile: int = 0, latent: bool = False
) -> tuple[Any, dict]:
    """A prior of pictures, and its card; `path` as in `place`, `name` is what it is called in an error.

    It is under the variance-preserving process, whatever it was trained with, or on its own table if it has one; where
    it takes any size, of `shape`, and in tiles, as in `weights.load_prior`. A `.onnx` file wants a card beside it, see
    `weights.load_onnx`. A prior over codes is a `LatentPrior`, and refused unless it may be one, `latent`. Raises
    ValueError for a prior of anything else than grey or RGB pictures, and for one that is told of a coarse picture.
    """
    path = place(path)
    card = weights.read_onnx_card(path) if path.endswith(".onnx") else weights.read_card(path, "prior")
    if "coarse" in card:
        raise ValueError(f"{name} is {path!r}, a cascade's stage, which needs a coarse picture; give another prior")
    if not latent:
        require_pictures(card, path, name)
    chosen = None if card["process"]["name"] == "discrete" else process.VP()
    if path.endswith(".onnx"):
        return _of_pictures(*weights.load_onnx(path, chosen), path, name)
    if "latent" in card:
        return _of_pictures(weights.load_latent(path, chosen), card, path, name)
    sized = {"shape": shape, "tile": tile} if shape is not None and weights.any_size(card) else {}
    return _of_pictures(weights.load_prior(path, chosen, **sized), card, path, name)


def _of_pictures(prior: Prior | LatentPrior, card: dict, path: str, name: str) -> tuple[Any, dict]:
    if len(prior.shape) != 3 or prior.shape[2] not in (1, 3):
        raise ValueError(f"{name} is {path!r} of shape {prior.shape}; give one of grey or RGB pictures")
    return prior, card
