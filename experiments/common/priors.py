"""The prior that a command works with: of a checkpoint, under the process that solvers expect."""

from __future__ import annotations

import os

from diffinv import process, weights
from diffinv.prior import Prior


def place(path: str) -> str:
    """Where a checkpoint is: a path as it is, the name of one that ships, or "" for the embedded one."""
    shipped = weights.embedded(path) if path and os.path.basename(path) == path else ""
    return shipped if shipped and os.path.exists(f"{shipped}.json") else path or weights.embedded()


def load(path: str, name: str = "--prior", shape: tuple[int, ...] | None = None, tile: int = 0) -> tuple[Prior, dict]:
    """A prior of pictures, and its card; `path` as in `place`, `name` is what it is called in an error.

    It is under the variance-preserving process, whatever it was trained with, or on its own table if it has one; where
    it takes any size, of `shape`, and in tiles, as in `weights.load_prior`. A `.onnx` file wants a card beside it, see
    `weights.load_onnx`. Raises ValueError for a prior of anything else than grey or RGB pictures, and for one that
    is told of a coarse picture.
    """
    path = place(path)
    card = weights.read_onnx_card(path) if path.endswith(".onnx") else weights.read_card(path, "prior")
    if "coarse" in card:
        raise ValueError(f"{name} is {path!r}, a cascade's stage, which needs a coarse picture; give another prior")
    own = card["process"]["name"] == "discrete"
    if path.endswith(".onnx"):
        return _of_pictures(*weights.load_onnx(path, None if own else process.VP()), path, name)
    sized = {"shape": shape, "tile": tile} if shape is not None and weights.any_size(card) else {}
    prior = weights.load_prior(path, None if own else process.VP(), **sized)
    return _of_pictures(prior, card, path, name)


def _of_pictures(prior: Prior, card: dict, path: str, name: str) -> tuple[Prior, dict]:
    if len(prior.shape) != 3 or prior.shape[2] not in (1, 3):
        raise ValueError(f"{name} is {path!r} of shape {prior.shape}; give one of grey or RGB pictures")
    return prior, card
