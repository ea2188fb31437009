"""Weights as safetensors with a model card beside them, and a `Prior` out of the two.

`PATH.safetensors` holds the flat names "a/b/c" of the nested parameters, `PATH.json` the card: what the network is,
how it was trained, and the weights' sha256, which `restore` verifies.
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from diffinv import prior
from diffinv import process as processes
from diffinv.nn import unet

ARCHITECTURES = {"unet": unet.UNet}


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError("weights are stored as safetensors; pip install safetensors") from error
    return safetensors.numpy


def _paths(path: str) -> tuple[str, str]:
    stem = os.fspath(path).removesuffix(".safetensors").removesuffix(".json")
    return f"{stem}.safetensors", f"{stem}.json"


def flatten(params: Any) -> dict[str, np.ndarray]:
    """Nested dicts to `{"a/b/c": array}`, in contiguous host memory."""
    flat = traverse_util.flatten_dict(params, sep="/")
    return {name: np.ascontiguousarray(jax.device_get(leaf)) for name, leaf in flat.items()}


def unflatten(flat: dict[str, np.ndarray]) -> dict[str, Any]:
    """The inverse of `flatten`."""
    return traverse_util.unflatten_dict(flat, sep="/")


def _replace(path: str, content: bytes) -> None:
    """Write through a temporary file, so that a reader never sees half of it."""
    temporary = f"{path}.tmp"
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        raise FileNotFoundError(f"no file {path}; give the path that `save` wrote, with its card beside it") from None


def save(path: str, params: Any, card: dict[str, Any]) -> dict[str, Any]:
    """Writes `path`.safetensors and `path`.json, and returns the card with `sha256` and `parameters` filled in.

    Original. `params`: nested dicts of arrays; `card`: JSON values, see `load_prior` for those that rebuild a prior.
    """
    weights, beside = _paths(path)
    os.makedirs(os.path.dirname(weights) or ".", exist_ok=True)
    flat = flatten(params)
    content = _safetensors().save(flat)
    count = sum(leaf.size for leaf in flat.values())
    card = {**card, "parameters": count, "sha256": hashlib.sha256(content).hexdigest()}
    _replace(weights, content)
    _replace(beside, (json.dumps(card, indent=2) + "\n").encode())
    return card


def read_card(path: str) -> dict[str, Any]:
    """The card alone. Raises FileNotFoundError where it is missing, ValueError where it is no JSON object."""
    beside = _paths(path)[1]
    try:
        card = json.loads(_read(beside))
    except ValueError as error:
        raise ValueError(f"{beside} is not a model card ({error}); download or export it again") from None
    if not isinstance(card, dict) or "sha256" not in card:
        raise ValueError(f"{beside} has no sha256; download or export it again")
    return card


def amend(path: str, changes: dict[str, Any]) -> dict[str, Any]:
    """Adds `changes` to the card of `path`, and leaves its weights alone. Raises ValueError for what describes them.

    Original.
    """
    card = read_card(path)
    fixed = {"sha256", "parameters", "architecture", "parametrisation", "process", "shape"} & set(changes)
    if fixed:
        raise ValueError(f"changes to {sorted(fixed)} would make the card of {path} wrong; save the weights again")
    card.update(changes)
    _replace(_paths(path)[1], (json.dumps(card, indent=2) + "\n").encode())
    return card


def restore(path: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """`(params, card)` of what `save` wrote; `path` with or without its suffix.

    Original. Raises FileNotFoundError where a file is missing, ValueError where the weights are not those of the card.
    """
    weights = _paths(path)[0]
    card, content = read_card(path), _read(weights)
    if (found := hashlib.sha256(content).hexdigest()) != card["sha256"]:
        raise ValueError(
            f"{weights} has sha256 {found[:12]}.. and {len(content)} bytes, its card says {card['sha256'][:12]}..; "
            "it is damaged or of another export: copy both files again"
        )
    return unflatten(_safetensors().load(content)), card


def _process(card: dict[str, Any]) -> processes.Process:
    fields = dict(card)
    return getattr(processes, fields.pop("name"))(**fields)


def architecture(card: dict[str, Any]) -> Any:
    """The Linen module that `card["architecture"]` describes: `name`, one of `ARCHITECTURES`, and its fields."""
    fields = {key: tuple(value) if isinstance(value, list) else value for key, value in card["architecture"].items()}
    name, fields["dtype"] = fields.pop("name"), jax.numpy.dtype(fields.get("dtype", "float32"))
    if name not in ARCHITECTURES:
        raise ValueError(f"the card's architecture is {name!r}; known are {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[name](**fields)


def load_prior(path: str, process: processes.Process | None = None, **changes: Any) -> prior.Prior:
    """The prior of a checkpoint, rebuilt from its card: `architecture`, `parametrisation`, `process`, `shape`.

    Original.

    Args:
      path: as in `restore`.
      process: the forward process to use it under; by default the one it was trained with.
      **changes: fields of the network that leave its weights as they are, e.g. `plain_conv=True`, `dtype`, `remat`.
    """
    params, card = restore(path)
    net = architecture(card).clone(**changes)
    denoiser = prior.NetworkDenoiser(
        jax.tree.map(jax.numpy.asarray, params),
        _process(card["process"]) if process is None else process,
        net.apply,
        **card["parametrisation"],
    )
    return prior.Prior(denoiser.process, denoiser, tuple(card["shape"]))


def embedded(name: str = "prior32") -> str:
    """The path, without suffix, of a prior that ships inside the package: "prior32", 32 x 32 pictures. Original."""
    return os.path.join(os.path.dirname(os.path.abspath(__file__)), "priors", name)
