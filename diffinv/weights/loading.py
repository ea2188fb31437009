"""A `Prior`, or an upscaler, out of weights and their card."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from diffinv import consistency, prior
from diffinv import process as processes
from diffinv.consistency import ctmsr
from diffinv.denoisers import spectral
from diffinv.denoisers.rescheduled import Rescheduled
from diffinv.typing import Array
from diffinv.weights import cards
from diffinv.weights.store import read_card, require_kind, restore, widened


def architecture(card: dict[str, Any]) -> Any:
    """The Linen module that `card["architecture"]` describes: `name`, one of `ARCHITECTURES`, and its fields.

    Raises ValueError for another name, and for fields out of range; see `cards`.
    """
    return cards.build_network(card["architecture"], "card.architecture")


def _given(denoiser: Any, card: dict[str, Any]) -> Any:
    """The denoiser under the card's conditions: whole numbers, such as labels, as int32, others as float32."""
    told = {name: np.asarray(value) for name, value in card.get("given", {}).items()}
    kinds = {name: jnp.int32 if np.issubdtype(value.dtype, np.integer) else jnp.float32 for name, value in told.items()}
    return denoiser.given(**{name: jnp.asarray(value, kinds[name]) for name, value in told.items()})


def build(
    params: Any,
    card: dict[str, Any],
    process: processes.Process | None = None,
    apply: Callable[..., Array] | None = None,
    **changes: Any,
) -> prior.Prior:
    """The prior of parameters and their card; arguments as in `load_prior`.

    A network that was trained on noise levels, "edm", serves any process by itself; the others keep their own, and
    are asked there (`denoisers.Rescheduled`). The card's `given`, such as a label, is passed on. A "spectral"
    network makes a prior over codes of `scalespace.cosines`, under its own process alone.

    Original. Raises ValueError for a card that is not sound, see `cards`, and for an upscaler's.
    """
    cards.require_card(card, "the card", apply is None)
    require_kind(card, "the card", "prior")
    if apply is not None and changes:
        raise ValueError(f"{sorted(changes)} are fields of our networks, and apply is your own; leave them out")
    apply = architecture(card).clone(**changes).apply if apply is None else apply
    trained = cards.build_process(card["process"])
    if card["parametrisation"]["parametrisation"] == "spectral":
        return _spectral(widened(params), card, apply, trained, process)
    preconditioned = card["parametrisation"]["parametrisation"] == "edm"
    two_times = card.get("consistency", {}).get("second_time", False)
    denoiser: Any = prior.NetworkDenoiser(
        widened(params),
        process if process is not None and preconditioned else trained,
        consistency.second_channel(apply) if two_times else apply,
        **_parametrisation(card),
    )
    denoiser = _given(consistency.FlowMap(denoiser) if two_times else denoiser, card)
    forward = process or trained
    if process is not None and not preconditioned:
        denoiser = Rescheduled(denoiser, process)
    return prior.Prior(forward, denoiser, tuple(card["shape"]))


def _parametrisation(card: dict[str, Any]) -> dict[str, Any]:
    fields = card["parametrisation"]
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}


def _spectral(
    params: Any, card: dict[str, Any], apply: Any, trained: processes.Process, process: processes.Process | None
) -> prior.Prior:
    if process is not None:
        names = type(process).__name__, type(trained).__name__
        raise ValueError("process is {}, but the network serves {} alone; leave the argument out".format(*names))
    return spectral.spectral_prior(_given(spectral.denoiser(params, trained, apply), card))


def load_prior(
    path: str, process: processes.Process | None = None, apply: Callable[..., Array] | None = None, **changes: Any
) -> prior.Prior:
    """The prior of a checkpoint, rebuilt from its card: `architecture`, `parametrisation`, `process`, `shape`.

    Original. Raises as `restore` does, and ValueError for the checkpoint of an upscaler.

    Args:
      path: as in `restore`.
      process: the forward process to use it under; by default the one it was trained with.
      apply: of a network of your own, `(params, x, condition, **given) -> output`; its card needs no `architecture`.
      **changes: fields of our network that leave its weights as they are, e.g. `plain_conv=True`, `dtype`, `remat`.
    """
    params, card = restore(path)
    if apply is None or cards.is_upscaler(card):
        read_card(path, "prior")
    return build(params, card, process, apply, **changes)


def load_upscaler(path: str, **changes: Any) -> ctmsr.Upscaler:
    """The upscaler of a checkpoint, rebuilt from its card: `architecture`, `parametrisation`, `scale`.

    Original. `path` as in `restore`; `changes` as in `load_prior`. Raises ValueError for the checkpoint of a prior.
    """
    params, card = restore(path)
    read_card(path, "upscaler")
    net = architecture(card).clone(**changes)
    return ctmsr.Upscaler(widened(params), net.apply, **card["parametrisation"])
