"""Weights as safetensors with a model card beside them, and a `Prior` out of the two.

`PATH.safetensors` holds the flat names "a/b/c" of the nested parameters, `PATH.json` the card: what the network is,
how it was trained, and the weights' sha256, which `restore` verifies.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from numpy.typing import ArrayLike

from diffinv import consistency, prior, times
from diffinv import process as processes
from diffinv.consistency import ctmsr
from diffinv.convert import schedule
from diffinv.nn import ctmsr_unet, song, srnet, unet
from diffinv.scalespace import spectral
from diffinv.typing import Array

ARCHITECTURES = {"unet": unet.UNet, "song": song.SongUNet, "srnet": srnet.SRNet, "ctmsr": ctmsr_unet.CTMSRUNet}
PROCESSES: dict[str, Callable[..., processes.Process]] = {
    "discrete": schedule.discrete,
    "Blurring": lambda shape, **fields: processes.Blurring(processes.dct_frequencies(*shape), **fields),
    "HeatDissipation": lambda shape, **fields: processes.HeatDissipation(processes.dct_frequencies(*shape), **fields),
}
LEVELS = (0.1, 1.0, 10.0)  # noise-to-signal ratios of the certificate


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


def build_process(card: dict[str, Any]) -> processes.Process:
    """The process that `card["process"]` describes: `name`, its fields, and `shape` where it acts on coefficients.

    Original.
    """
    fields = dict(card)
    name = fields.pop("name")
    return (PROCESSES.get(name) or getattr(processes, name))(**fields)


def architecture(card: dict[str, Any]) -> Any:
    """The Linen module that `card["architecture"]` describes: `name`, one of `ARCHITECTURES`, and its fields."""
    fields = {key: tuple(value) if isinstance(value, list) else value for key, value in card["architecture"].items()}
    name, fields["dtype"] = fields.pop("name"), jax.numpy.dtype(fields.get("dtype", "float32"))
    if name not in ARCHITECTURES:
        raise ValueError(f"the card's architecture is {name!r}; known are {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[name](**fields)


def build(params: Any, card: dict[str, Any], process: processes.Process | None = None, **changes: Any) -> prior.Prior:
    """The prior of parameters and their card; arguments as in `load_prior`.

    A network that was trained on noise levels, "edm", serves any process by itself; the others keep their own, and
    are asked there (`convert.schedule.Rescheduled`). The card's `given`, such as a label, is passed on. A "spectral"
    network makes a prior over codes of `scalespace.cosines`, under its own process alone. Original.
    """
    net, trained = architecture(card).clone(**changes), build_process(card["process"])
    if card["parametrisation"]["parametrisation"] == "spectral":
        return _spectral(params, card, net.apply, trained, process)
    preconditioned = card["parametrisation"]["parametrisation"] == "edm"
    two_times = card.get("consistency", {}).get("second_time", False)
    denoiser: Any = prior.NetworkDenoiser(
        jax.tree.map(jnp.asarray, params),
        process if process is not None and preconditioned else trained,
        consistency.second_channel(net.apply) if two_times else net.apply,
        **card["parametrisation"],
    )
    denoiser = consistency.FlowMap(denoiser) if two_times else denoiser
    if "given" in card:
        denoiser = denoiser.given(**{name: jnp.asarray(value, jnp.int32) for name, value in card["given"].items()})
    forward = process or trained
    if process is not None and not preconditioned:
        denoiser = schedule.Rescheduled(denoiser, process)
    return prior.Prior(forward, denoiser, tuple(card["shape"]))


def _spectral(
    params: Any, card: dict[str, Any], apply: Any, trained: processes.Process, process: processes.Process | None
) -> prior.Prior:
    if process is not None:
        names = type(process).__name__, type(trained).__name__
        raise ValueError("process is {}, but the network serves {} alone; leave the argument out".format(*names))
    denoiser = spectral.denoiser(jax.tree.map(jnp.asarray, params), trained, apply)
    if "given" in card:
        denoiser = denoiser.given(**{name: jnp.asarray(value, jnp.int32) for name, value in card["given"].items()})
    return spectral.spectral_prior(denoiser)


def load_prior(path: str, process: processes.Process | None = None, **changes: Any) -> prior.Prior:
    """The prior of a checkpoint, rebuilt from its card: `architecture`, `parametrisation`, `process`, `shape`.

    Original.

    Args:
      path: as in `restore`.
      process: the forward process to use it under; by default the one it was trained with.
      **changes: fields of the network that leave its weights as they are, e.g. `plain_conv=True`, `dtype`, `remat`.
    """
    return build(*restore(path), process, **changes)


def load_upscaler(path: str, **changes: Any) -> ctmsr.Upscaler:
    """The upscaler of a checkpoint, rebuilt from its card: `architecture`, `parametrisation`, `scale`.

    Original. `path` as in `restore`; `changes` as in `load_prior`. Raises ValueError for the checkpoint of a prior.
    """
    params, card = restore(path)
    if "scale" not in card:
        raise ValueError(f"{path} holds a prior, its card names no scale; load it with load_prior")
    net = architecture(card).clone(**changes)
    return ctmsr.Upscaler(jax.tree.map(jnp.asarray, params), net.apply, **card["parametrisation"])


def probe(shape: tuple[int, ...]) -> Array:
    """A fixed picture of unit variance, `sqrt(2) sin(0.9 n + 1e-3 n^2)` at the flat index n; float32. Original."""
    n = np.arange(np.prod(shape), dtype=np.float64)
    return jnp.asarray(np.sqrt(2) * np.sin(0.9 * n + 1e-3 * n**2), jnp.float32).reshape(shape)


def probe_shape(card: dict[str, Any]) -> tuple[int, ...]:
    """The picture that leaves two pixels at the coarsest level, or the native size where that is smaller. Original."""
    fields, (*size, channels) = card["architecture"], card["shape"]
    side = fields.get("patch", 1) * 2 ** len(fields["multipliers"])
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


def certificate(values: ArrayLike, shape: tuple[int, ...], tolerance: float = 1e-4) -> dict[str, Any]:
    """The card's `certificate`: `references` as they are today. `tolerance` is relative to each root mean square.

    Original. Raises ValueError where a value is not finite.
    """
    values = np.asarray(values, np.float64)
    if not np.isfinite(values).all():
        raise ValueError("the network's reference outputs are not finite; its weights or its schedule are wrong")
    columns = "mean, root mean square and eight values of the denoised probe; rows: noise-to-signal ratios"
    fields = {"shape": list(shape), "levels": list(LEVELS), "tolerance": tolerance, "columns": columns}
    return {**fields, "values": [[float(f"{v:.8g}") for v in row] for row in values]}


def verify(card: dict[str, Any], values: Array) -> float:
    """The largest relative deviation of `values` from the card's certificate.

    Original. Raises ValueError where there is no certificate, or where the deviation exceeds its tolerance.
    """
    if "certificate" not in card:
        raise ValueError("the card has no certificate; import the checkpoint again to give it one")
    kept = np.asarray(card["certificate"]["values"])
    deviation = float(np.max(np.abs(np.asarray(values, np.float64) - kept) / kept[:, 1:2]))
    if not deviation <= card["certificate"]["tolerance"]:
        raise ValueError(
            f"the network's reference outputs deviate by {deviation:.2g} of their root mean square, the certificate "
            f"allows {card['certificate']['tolerance']:g}; this code or machine computes another network"
        )
    return deviation


def embedded(name: str = "prior32") -> str:
    """The path, without suffix, of a prior that ships inside the package: "prior32", 32 x 32 pictures. Original."""
    return os.path.join(os.path.dirname(os.path.abspath(__file__)), "priors", name)
