"""Weights as safetensors with a model card beside them, and a `Prior` out of the two.

`PATH.safetensors` holds the flat names "a/b/c" of the nested parameters, `PATH.json` the card: what the network is,
how it was trained, and the weights' sha256, which `restore` verifies.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, traverse_util
from numpy.typing import ArrayLike

from diffinv import cards, consistency, limits, prior, schema, times
from diffinv import process as processes
from diffinv.cards import ARCHITECTURES, LEVELS, PROCESSES, build_process
from diffinv.consistency import ctmsr
from diffinv.convert import safetensors as tensors
from diffinv.convert import schedule
from diffinv.scalespace import spectral
from diffinv.typing import Array

__all__ = ["ARCHITECTURES", "LEVELS", "PROCESSES", "build_process"]
TOLERANCE = 1e-4  # of the reference outputs, relative to their root mean square; ours, and no file's


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
    """Write through a temporary file, so that a reader never sees half of it, and nothing is left where it fails."""
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)


def _read(path: str) -> bytes:
    try:
        return limits.read(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"no file {path}; give the path that `save` wrote, with its card beside it") from None


def save(path: str, params: Any, card: dict[str, Any]) -> dict[str, Any]:
    """Writes `path`.safetensors and `path`.json; returns the card with version, `sha256` and `parameters` filled in.

    Original. `params`: nested dicts of arrays, or an `nnx.State`; `card`: JSON values, see `load_prior` for those that
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
    """The card alone, checked: see `cards`. `kind`: "prior" or "upscaler", where it must be of one.

    Raises FileNotFoundError where it is missing, ValueError, with its path, where it is no sound card of that kind.
    """
    beside = _paths(path)[1]
    card = _told(beside)
    if kind is not None and "architecture" not in card:
        raise ValueError(f"{beside}: card.architecture is missing; load it with load_prior(path, apply=...)")
    if kind is not None:
        _require_kind(card, beside, kind)
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
    if "parametrisation" in card or "architecture" in card or "process" in card:
        cards.require(card, beside, "architecture" in card)
    return card


def _require_kind(card: dict[str, Any], beside: str, kind: str) -> None:
    found = "upscaler" if cards.is_upscaler(card) else "prior"
    if found != kind:
        other = "load_upscaler, or --model of experiments.super_resolve" if found == "upscaler" else "load_prior"
        raise ValueError(
            f"{beside} is of {'an' if found == 'upscaler' else 'a'} {found}, and {kind} is wanted: its card names "
            f"{'a scale' if found == 'upscaler' else 'no scale'}; load it with {other}"
        )


def amend(path: str, changes: dict[str, Any]) -> dict[str, Any]:
    """Adds `changes` to the card of `path`, and leaves its weights alone. Raises ValueError for what describes them.

    Original.
    """
    card = read_card(path)
    fixed = {"version", "sha256", "parameters", "architecture", "parametrisation", "process", "shape"} & set(changes)
    if fixed:
        raise ValueError(f"changes to {sorted(fixed)} would make the card of {path} wrong; save the weights again")
    card.update(changes)
    _replace(_paths(path)[1], (json.dumps(card, indent=2) + "\n").encode())
    return card


def restore(path: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """`(params, card)` of what `save` wrote; `path` with or without its suffix.

    Original. Raises FileNotFoundError where a file is missing, ValueError where the card is not sound (see `cards`),
    where the weights are not those of the card or of its network, or where one of them is no finite number.
    """
    weights, beside = _paths(path)
    card, content = _told(beside), _read(weights)
    if (found := hashlib.sha256(content).hexdigest()) != card["sha256"]:
        raise ValueError(
            f"{weights} has sha256 {found[:12]}.. and {len(content)} bytes, its card says "
            f"{str(card['sha256'])[:12]}..; it is damaged or of another export: copy both files again"
        )
    flat = tensors.parsed(content, weights)
    cards.require_numbers(flat, weights)
    count = sum(leaf.size for leaf in flat.values())
    if card.get("parameters", count) != count:
        raise ValueError(f"{weights} has {count} parameters, its card says {card['parameters']}; export it again")
    if "architecture" in card:
        cards.require_fit(card, flat, weights)
    return unflatten(flat), card


def widened(params: Any) -> Any:
    """Weights that are stored in 16 bits as float32, in which they are computed and trained; others as they are.

    Original.
    """
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32 if leaf.dtype.itemsize < 4 else leaf.dtype), params)


def halved(params: Any) -> Any:
    """Weights rounded to float16, for storage at half the size. Original.

    Raises ValueError where one is beyond float16's range, 65504.
    """
    largest = max(float(np.max(np.abs(leaf))) for leaf in jax.tree.leaves(params) if leaf.size)
    if not largest <= float(np.finfo(np.float16).max):
        raise ValueError(f"a weight is {largest:g}, and float16 ends at 65504; store these weights as float32")
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float16), params)


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
    are asked there (`convert.schedule.Rescheduled`). The card's `given`, such as a label, is passed on. A "spectral"
    network makes a prior over codes of `scalespace.cosines`, under its own process alone.

    Original. Raises ValueError for a card that is not sound, see `cards`, and for an upscaler's.
    """
    cards.require(card, "the card", apply is None)
    _require_kind(card, "the card", "prior")
    if apply is not None and changes:
        raise ValueError(f"{sorted(changes)} are fields of our networks, and apply is your own; leave them out")
    apply = architecture(card).clone(**changes).apply if apply is None else apply
    trained = build_process(card["process"])
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
        denoiser = schedule.Rescheduled(denoiser, process)
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


def probe(shape: tuple[int, ...]) -> Array:
    """A fixed picture of unit variance, `sqrt(2) sin(0.9 n + 1e-3 n^2)` at the flat index n; float32. Original."""
    n = np.arange(np.prod(shape), dtype=np.float64)
    return jnp.asarray(np.sqrt(2) * np.sin(0.9 * n + 1e-3 * n**2), jnp.float32).reshape(shape)


def probe_shape(card: dict[str, Any]) -> tuple[int, ...]:
    """The picture that leaves two pixels at the coarsest level, or the native size where that is smaller. Original."""
    net, (*size, channels) = architecture(card), card["shape"]
    side = 2 * cards.unit(net)
    return (min(side, size[0]), min(side, size[1]), channels)


def references(prior: prior.Prior, shape: tuple[int, ...]) -> Array:
    """What a prior makes of `probe(shape)` at the ratios `LEVELS`: mean, root mean square and eight values of x0 (and
    of the learned variance's share), shape (levels, 10). The static `shape` must suit the network. Original.
    """

    def at(ratio: Array) -> Array:
        t = times.from_sigma(prior.process, ratio).astype(jnp.float32)
        scale = jnp.sqrt(prior.process.alpha(t) ** 2 + prior.process.sigma(t) ** 2).astype(jnp.float32)
        x0, v = prior.predict(scale * probe(shape), t)
        out = (x0 if v is None else jnp.concatenate([x0, v], -1)).ravel()
        few = out[np.linspace(0, out.size - 1, 8).astype(int)]
        return jnp.concatenate([jnp.stack([jnp.mean(out), jnp.sqrt(jnp.mean(out**2))]), few])

    return jax.lax.map(at, jnp.asarray(LEVELS, jnp.float32))


def certificate(values: ArrayLike, shape: tuple[int, ...]) -> dict[str, Any]:
    """The card's `certificate`: `references` as they are today.

    Original. Raises ValueError where a value is not finite.
    """
    values = np.asarray(values, np.float64)
    if not np.isfinite(values).all():
        raise ValueError("the network's reference outputs are not finite; its weights or its schedule are wrong")
    columns = "mean, root mean square and eight values of the denoised probe; rows: noise-to-signal ratios"
    fields = {"shape": list(shape), "levels": list(LEVELS), "columns": columns}
    return {**fields, "values": [[float(f"{v:.8g}") for v in row] for row in values]}


def verify(card: dict[str, Any], values: Array) -> float:
    """The largest relative deviation of `values` from the card's certificate.

    Original. Raises ValueError where there is no certificate, or where the deviation exceeds `TOLERANCE`, whatever the
    file says of it.
    """
    if "certificate" not in card:
        raise ValueError("the card has no certificate; import the checkpoint again to give it one")
    kept, found = np.asarray(card["certificate"]["values"], np.float64), np.asarray(values, np.float64)
    if kept.shape != found.shape or not (kept[:, 1] > 0).all():
        raise ValueError("card.certificate has other values than the network gives; import the checkpoint again")
    deviation = float(np.max(np.abs(found - kept) / kept[:, 1:2]))
    if not deviation <= TOLERANCE:
        raise ValueError(
            f"the network's reference outputs deviate by {deviation:.2g} of their root mean square, {TOLERANCE:g} is "
            "allowed; this code or machine computes another network"
        )
    return deviation


def embedded(name: str = "prior32") -> str:
    """The path, without suffix, of a prior that ships inside the package: "prior32", 32 x 32 pictures. Original."""
    return os.path.join(os.path.dirname(os.path.abspath(__file__)), "priors", name)
