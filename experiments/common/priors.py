"""The prior that a command works with: of a checkpoint, under the process that solvers expect."""

from __future__ import annotations

from diffinv import process, weights
from diffinv.prior import Prior


def load(path: str, name: str = "--prior") -> tuple[Prior, dict]:
    """A prior of pictures, and its card; "" is the embedded one. `name` is what the path is called in an error.

    It is under the variance-preserving process, whatever it was trained with, or on its own table if it has one. Raises
    ValueError for a prior of anything else than grey or RGB pictures.
    """
    path = path or weights.embedded()
    card = weights.read_card(path, "prior")
    own = card["process"]["name"] == "discrete"
    prior = weights.load_prior(path, None if own else process.VP())
    if len(prior.shape) != 3 or prior.shape[2] not in (1, 3):
        raise ValueError(f"{name} is {path!r} of shape {prior.shape}; give one of grey or RGB pictures")
    return prior, card
