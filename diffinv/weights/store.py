"""Weights as safetensors with a model card beside them.

`PATH.safetensors` holds the flat names "a/b/c" of the nested parameters, `PATH.json` the card: what the network is,
how it was trained, and the weights' sha256, which `restore` verifies.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, traverse_util

from diffinv import limits, schema
from diffinv.atomic import replacing
from diffinv.weights import cards
from diffinv.weights.convert import safetensors as tensors

KINDS = {
    "prior": ("a", "no scale", "load_prior"),
    "upscaler": ("an", "a scale", "load_upscaler, or --model of experiments.super_resolve"),
    "generator": ("a", "a generator", "load_generator, or --model of experiments.generate"),
    "autoencoder": ("an", "an autoencoder", "load_autoencoder"),
}
"""Of each kind of card: its article, what shows it, and what loads it."""


DESCRIBING = frozenset(
    "version sha256 parameters architecture parametrisation process shape generator words autoencoder latent".split()
)
"""What of a card describes the weights beside it."""


def _paths(path: str) -> tuple[str, str]:
    stem = os.fspath(path).removesuffix(".safetensors").removesuffix(".json")
    return f"{stem}.safetensors", f"{stem}.json"


def _plain(params: Any) -> dict[str, Any]:
    """Nested dicts of a tree of parameters, an `nnx.State` among them."""
    if isinstance(params, nnx.Module):
        raise ValueError(f"params is {type(params).__name__}, a module; give its state: nnx.state(model, nnx.Param)")
    params = nnx.to_pure_dict(params) if isinstance(params, nnx.State) else params
    if not isinstance(params, Mapping):
        raise ValueError(f"params is a {type(params).__name__}; give nested dicts of arrays, or an nnx.State")
    if wrong := [key for key in params if not isinstance(key, (str, int)) or not str(key) or "/" in str(key)]:
        raise ValueError(f"params has the key {schema.shown(wrong[0])}; names are texts without '/'")
    nested = lambda value: isinstance(value, (Mapping, nnx.State))
    return {str(key): _plain(value) if nested(value) else _array(key, value) for key, value in params.items()}


def _array(key: Any, value: Any) -> np.ndarray:
    if not hasattr(value, "dtype") or jnp.issubdtype(value.dtype, jax.dtypes.extended):
        raise ValueError(f"params[{key!r}] is {schema.shown(value)}; give arrays of numbers alone")
    return np.ascontiguousarray(jax.device_get(value))


def flatten(params: Any) -> dict[str, np.ndarray]:
    """Nested dicts, or an `nnx.State`, to `{"a/b/c": array}`, in contiguous host memory.

    The whole-number keys of an `nnx.State` become text; `flax.nnx.restore_int_paths` takes them back. Raises ValueError
    for what holds anything else than arrays.
    """
    return traverse_util.flatten_dict(_plain(params), sep="/")


def unflatten(flat: dict[str, np.ndarray]) -> dict[str, Any]:
    """The inverse of `flatten`."""
    return traverse_util.unflatten_dict(flat, sep="/")


def _replace(path: str, content: bytes) -> None:
    with replacing(path) as file:
        file.write(content)


def _read(path: str) -> bytes:
    try:
        return limits.read_bytes(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"no file {path}; give the path that `save` wrote, with its card beside it") from None


def save(path: str, params: Any, card: dict[str, Any]) -> dict[str, Any]:
    """Writes `path`.safetensors and `path`.json; returns the card with version, `sha256` and `parameters` filled in.

    `params`: nested dicts of arrays, or an `nnx.State`; `card`: JSON values, see `load_prior` for those that
    rebuild a prior. Raises ValueError, and writes nothing, where a weight is not a finite floating-point number or the
    card's name is not one of a file.
    """
    weights, beside = _paths(path)
    flat = flatten(params)
    cards.require_numbers(flat, weights)
    if "name" in card:
        schema.require({"name": schema.component()}, {"name": card["name"]}, "card")
    content = tensors.written(flat)
    count = sum(leaf.size for leaf in flat.values())
    card = {"version": cards.VERSION, **card, "parameters": count, "sha256": hashlib.sha256(content).hexdigest()}
    told = (json.dumps(card, indent=2) + "\n").encode()
    os.makedirs(os.path.dirname(weights) or ".", exist_ok=True)
    _replace(weights, content)
    _replace(beside, told)
    return card


def read_card(path: str, kind: str | None = None) -> dict[str, Any]:
    """The card alone, checked: see `cards`. `kind`: one of `KINDS`, where it must be of one.

    Raises FileNotFoundError where it is missing, ValueError, with its path, where it is no sound card of that kind.
    """
    beside = _paths(path)[1]
    card = _told(beside)
    if kind is not None and not {"architecture", "generator", "autoencoder"} & set(card):
        raise ValueError(f"{beside}: card.architecture is missing; load it with load_prior(path, apply=...)")
    if kind is not None:
        require_kind(card, beside, kind)
    return card


def _told(beside: str) -> dict[str, Any]:
    """A card that has a digest, and is checked as far as it describes a network."""
    try:
        card = limits.read_object(beside)
    except FileNotFoundError:
        raise FileNotFoundError(f"no file {beside}; give the path that `save` wrote, with its card beside it") from None
    except ValueError as error:
        raise ValueError(f"{error}; it is no model card: download or export it again") from None
    if "sha256" not in card:
        raise ValueError(f"{beside} has no sha256; download or export it again")
    if {"parametrisation", "architecture", "process", "generator", "autoencoder"} & set(card):
        cards.require_card(card, beside, "architecture" in card)
    return card


def require_kind(card: dict[str, Any], beside: str, kind: str) -> None:
    """ValueError where the card, of the file `beside`, is not of a `kind`, one of `KINDS`."""
    found = cards.kind_of(card)
    if found != kind:
        article, shows, other = KINDS[found]
        raise ValueError(
            f"{beside} is of {article} {found}, and {kind} is wanted: its card names {shows}; load it with {other}"
        )


def amend(path: str, changes: dict[str, Any]) -> dict[str, Any]:
    """Adds `changes` to the card of `path`, and leaves its weights alone. Raises ValueError for what describes them."""
    card = read_card(path)
    fixed = DESCRIBING & set(changes)
    if fixed:
        raise ValueError(f"changes to {sorted(fixed)} would make the card of {path} wrong; save the weights again")
    card.update(changes)
    _replace(_paths(path)[1], (json.dumps(card, indent=2) + "\n").encode())
    return card


def restore(path: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """`(params, card)` of what `save` wrote; `path` with or without its suffix.

    Raises FileNotFoundError where a file is missing, ValueError where the card is not sound (see `cards`),
    where the weights are not those of the card or of its network, or where one of them is no finite number.
    """
    weights, beside = _paths(path)
    card, content = _told(beside), _read(weights)
    if (found := hashlib.sha256(content).hexdigest()) != card["sha256"]:
        raise ValueError(
            f"{weights} has sha256 {found[:12]}.. and {len(content)} bytes, its card says "
            f"{str(card['sha256'])[:12]}..; it is damaged or of another export: copy both files again"
        )
    flat = tensors.from_bytes(content, weights)
    cards.require_numbers(flat, weights)
    count = sum(leaf.size for leaf in flat.values())
    if card.get("parameters", count) != count:
        raise ValueError(f"{weights} has {count} parameters, its card says {card['parameters']}; export it again")
    if {"architecture", "generator", "autoencoder"} & set(card):
        cards.require_weights(card, flat, weights)
    return unflatten(flat), card


def widened(params: Any) -> Any:
    """Weights that are stored in 16 bits as float32, in which they are computed and trained; others as they are."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32 if leaf.dtype.itemsize < 4 else leaf.dtype), params)


def halved(params: Any) -> Any:
    """Weights rounded to float16, for storage at half the size.

    Raises ValueError where one is beyond float16's range, 65504.
    """
    largest = max(float(np.max(np.abs(leaf))) for leaf in jax.tree.leaves(params) if leaf.size)
    if not largest <= float(np.finfo(np.float16).max):
        raise ValueError(f"a weight is {largest:g}, and float16 ends at 65504; store these weights as float32")
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float16), params)


def embedded(name: str = "prior32") -> str:
    """The path, without suffix, of a prior that ships inside the package: "prior32", 32 x 32 pictures."""
    return os.path.join(os.path.dirname(os.path.abspath(__file__)), "shipped", name)
