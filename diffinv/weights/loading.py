"""A `Prior`, an upscaler, a generator, an autoencoder or a prior over its codes, out of weights and their card."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from diffinv import consistency, scalespace
from diffinv.adapters import TIMES
from diffinv.codec import Codec, LatentPrior
from diffinv.consistency import ctmsr
from diffinv.denoisers import spectral
from diffinv.denoisers.rescheduled import Rescheduled
from diffinv.denoisers.sized import Sized
from diffinv.generator import TextToImage
from diffinv.prior import PARAMETRISATIONS, PRECONDITIONED, NetworkDenoiser, Prior
from diffinv.process import Process
from diffinv.typing import Array
from diffinv.weights import cards
from diffinv.weights.store import embedded, read_card, require_kind, restore, widened


def architecture(card: dict[str, Any]) -> Any:
    """The Linen module that `card["architecture"]` describes: `name`, one of `ARCHITECTURES`, and its fields.

    Raises ValueError for another name, and for fields out of range; see `cards`.
    """
    return cards.build_network(card["architecture"], "card.architecture")


def build(
    params: Any,
    card: dict[str, Any],
    process: Process | None = None,
    apply: Callable[..., Array] | None = None,
    shape: tuple[int, ...] | None = None,
    tile: int = 0,
    **changes: Any,
) -> Prior:
    """The prior of parameters and their card; arguments as in `load_prior`.

    `BUILDERS` says what each parametrisation becomes: a network that was trained on noise levels, "edm" or "boundary",
    serves any process by itself; the others keep their own, and are asked there (`denoisers.Rescheduled`); a "spectral"
    network makes a prior over `scalespace.spectral_codes`, under its own process alone. The card's `given`, such as
    a label, is passed on.

    Raises ValueError for a card that is not sound, see `cards`, and for an upscaler's.
    """
    cards.require_card(card, "the card", apply is None)
    require_kind(card, "the card", "prior")
    if apply is not None and changes:
        raise ValueError(f"{sorted(changes)} are fields of our networks, and apply is your own; leave them out")
    if shape is not None:
        require_sides(card, shape)
    own = architecture(card).clone(**changes).apply if apply is None else apply
    builder = BUILDERS[card["parametrisation"]["parametrisation"]]
    prior = builder(widened(params), card, own, cards.build_process(card["process"]), process).given(**_given(card))
    return prior if shape is None or not any_size(card) else _sized(prior, architecture(card), tuple(shape), tile)


def any_size(card: dict[str, Any]) -> bool:
    """Whether the card's network takes pictures of any size: one of local view, which says how far it sees."""
    return "architecture" in card and "latent" not in card and hasattr(architecture(card), "reach")


def require_sides(card: dict[str, Any], shape: tuple[int, ...]) -> None:
    """ValueError where the card's prior is not one of pictures of this shape, (H, W, C)."""
    own = tuple(card["shape"])
    if not any_size(card) and tuple(shape) != own:
        raise ValueError(f"shape is {tuple(shape)}, but the prior is of {own} alone; leave it out")
    if len(shape) != 3 or shape[2] != own[2] or min(shape) < 1:
        raise ValueError(f"shape is {tuple(shape)}; give (height, width, {own[2]})")


def _sized(prior: Prior, net: Any, shape: tuple[int, ...], tile: int) -> Prior:
    denoise = Sized(prior.denoise, cards.side_multiple(net), net.reach(), tile)
    return replace(prior, shape=shape, denoise=denoise)


def _given(card: dict[str, Any]) -> dict[str, Array]:
    """The card's conditions: whole numbers, such as labels, as int32, others as float32."""
    told = {name: np.asarray(value) for name, value in card.get("given", {}).items()}
    kind = lambda value: jnp.int32 if np.issubdtype(value.dtype, np.integer) else jnp.float32
    return {name: jnp.asarray(value, kind(value)) for name, value in told.items()}


def _network(params: Any, card: dict[str, Any], apply: Callable[..., Array], process: Process) -> Any:
    """The network as a denoiser under `process`; one with a second time as a flow map."""
    told = card["parametrisation"].items()
    fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in told}
    if "condition" in fields:
        fields["condition"] = TIMES[fields["condition"]]
    if card.get("consistency", {}).get("second_time", False):
        return consistency.FlowMap(NetworkDenoiser(params, process, consistency.second_channel(apply), **fields))
    return NetworkDenoiser(params, process, apply, **fields)


def _of_any_process(
    params: Any, card: dict[str, Any], apply: Callable[..., Array], trained: Process, process: Process | None
) -> Prior:
    process = trained if process is None else process
    return Prior(process, _network(params, card, apply, process), tuple(card["shape"]))


def _of_its_own_process(
    params: Any, card: dict[str, Any], apply: Callable[..., Array], trained: Process, process: Process | None
) -> Prior:
    denoiser = _network(params, card, apply, trained)
    if process is None:
        return Prior(trained, denoiser, tuple(card["shape"]))
    return Prior(process, Rescheduled(denoiser, process), tuple(card["shape"]))


def _spectral(
    params: Any, card: dict[str, Any], apply: Callable[..., Array], trained: Process, process: Process | None
) -> Prior:
    if process is not None:
        names = type(process).__name__, type(trained).__name__
        raise ValueError("process is {}, but the network serves {} alone; leave the argument out".format(*names))
    codes = scalespace.spectral_codes(trained, tuple(card["shape"]))
    return spectral.spectral_prior(spectral.denoiser(params, trained, apply, codes))


BUILDERS: dict[str, Callable[..., Prior]] = {
    **dict.fromkeys(PARAMETRISATIONS, _of_its_own_process),
    **dict.fromkeys(PRECONDITIONED, _of_any_process),
    "spectral": _spectral,
}
"""By parametrisation: `(params, card, apply, trained, process) -> Prior`; `process` is None for the trained one."""


def load_prior(
    path: str,
    process: Process | None = None,
    apply: Callable[..., Array] | None = None,
    shape: tuple[int, ...] | None = None,
    tile: int = 0,
    **changes: Any,
) -> Prior:
    """The prior of a checkpoint, rebuilt from its card: `architecture`, `parametrisation`, `process`, `shape`.

    Raises as `restore` does, and ValueError for the checkpoint of an upscaler.

    Args:
      path: as in `restore`.
      process: the forward process to use it under; by default the one it was trained with.
      apply: of a network of your own, `(params, x, condition, **given) -> output`; its card needs no `architecture`.
      shape: of one sample, (H, W, C), where the network takes any (`any_size`); by default the card's.
      tile: with `shape`, the longest side that is denoised at once, in pixels; 0 for the whole picture.
      **changes: fields of our network that leave its weights as they are, e.g. `plain_conv=True`, `dtype`, `remat`.
    """
    params, card = restore(path)
    if apply is None or cards.is_upscaler(card):
        read_card(path, "prior")
    return build(params, card, process, apply, shape, tile, **changes)


def load_upscaler(path: str, **changes: Any) -> ctmsr.Upscaler:
    """The upscaler of a checkpoint, rebuilt from its card: `architecture`, `parametrisation`, `scale`.

    `path` as in `restore`; `changes` as in `load_prior`. Raises ValueError for the checkpoint of a prior.
    """
    params, card = restore(path)
    read_card(path, "upscaler")
    net = architecture(card).clone(**changes)
    return ctmsr.Upscaler(widened(params), net.apply, **card["parametrisation"])


def load_generator(path: str) -> TextToImage:
    """The generator of a checkpoint, rebuilt from its card: `generator`, `words`, `labels`. `path` as in `restore`.

    Raises ValueError for the checkpoint of a prior or of an upscaler.
    """
    params, card = restore(path)
    require_kind(card, os.fspath(path), "generator")
    game = cards.build_game(card["generator"], "card.generator")
    used = {name: leaf for name, leaf in widened(params).items() if name != "judges"}
    return TextToImage(used, game, tuple(card.get("words", ())), tuple(card.get("labels", ())))


def load_autoencoder(path: str, shape: tuple[int, ...] | None = None, **changes: Any) -> Codec:
    """The autoencoder of a checkpoint, rebuilt from its card: `autoencoder`, `shape`. `path` as in `restore`.

    Args: `shape`: of a picture, (H, W, C), by default the card's; `changes`: as in `load_prior`.

    Raises ValueError for the checkpoint of another kind, and for sides that the network does not divide.
    """
    params, card = restore(path)
    require_kind(card, os.fspath(path), "autoencoder")
    picture = tuple(card["shape"] if shape is None else shape)
    return Codec(widened(params), cards.build_autoencoder(card["autoencoder"]).clone(**changes), picture)


def load_latent(path: str, process: Process | None = None, autoencoder: str = "", **changes: Any) -> LatentPrior:
    """A prior over codes and its autoencoder: the one that its card names, beside it or among those that ship.

    Args: `path`, `process`, `changes`: as in `load_prior`; `autoencoder`: path of one to take instead, "" for none.

    Raises ValueError for a prior over pictures, and for an autoencoder whose weights are others than the card's.
    """
    card = read_card(path, "prior")
    if "latent" not in card:
        raise ValueError(f"{path} is a prior over pictures: its card names no autoencoder; load it with load_prior")
    place = autoencoder or _beside(path, card["latent"]["autoencoder"])
    found, wanted = read_card(place, "autoencoder")["sha256"], card["latent"]["sha256"]
    if not autoencoder and found != wanted:
        raise ValueError(
            f"{place} has sha256 {found[:12]}.., the card of {path} wants {wanted[:12]}..: its codes are others; copy "
            "the autoencoder that the prior was trained with, or name another by autoencoder="
        )
    codec = load_autoencoder(place, card["latent"]["picture"])
    return LatentPrior(load_prior(path, process, **changes), codec)


def _beside(path: str, name: str) -> str:
    """The autoencoder of this name beside a checkpoint, or the shipped one."""
    near = os.path.join(os.path.dirname(os.fspath(path)), name)
    return near if os.path.exists(f"{near}.json") or not os.path.exists(f"{embedded(name)}.json") else embedded(name)
