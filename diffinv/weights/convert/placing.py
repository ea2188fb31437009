"""Tensors of public files, and their place in a Flax network; every name and every shape is checked."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from diffinv import limits
from diffinv.describe import described
from diffinv.nn import leaves
from diffinv.weights.convert import safetensors, torchfile

State = dict[str, np.ndarray]
TORCH = (".pt", ".pth", ".ckpt", ".bin")


@described
class Imported(NamedTuple):
    """A checkpoint of another code, as ours.

    Attributes:
      params: of a Linen module.
      card: the model card that rebuilds the prior, without digests.
    """

    params: dict[str, Any]
    card: dict[str, Any]


def read_state(path: str | Path, weights: str | None = None, limit: int | None = None) -> tuple[State, str]:
    """`(state, which)`: a flat state dict and where it lay in the file, "" for the top.

    A torch file of several state dicts (of the model and of its moving average, say) needs `weights`, the
    name of one. Numpy's `.npz`, safetensors and torch's formats; nothing in the file is run. What `DataParallel` and
    `torch.compile` put before the names, "module." and "_orig_mod.", is taken off.

    Args: `limit`: bytes that the arrays, unpacked, may take; see `limits.allowance`.

    Raises FileNotFoundError, and ValueError for a foreign, damaged or ambiguous file, and for one over the limit.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no file {path}; give a .pt, .safetensors or .npz file, or a folder with config.json")
    limits.require_file(path)
    if path.suffix == ".pkl":
        raise ValueError(
            f"{path} is a pickle of classes, which runs code when it is opened; convert it once with its authors' "
            "code, see docs/bring-your-own-prior.md, and import the safetensors file"
        )
    if path.suffix == ".safetensors":
        return unwrapped(safetensors.from_bytes(limits.read_bytes(path), path), path), ""
    if path.suffix == ".npz":
        return unwrapped(_npz(path, limit), path), ""
    if path.suffix in TORCH:
        state, which = choose(torchfile.load(path, limit), weights, path)
        return unwrapped(state, path), which
    raise ValueError(f"{path} ends in {path.suffix!r}; known are .safetensors, .npz and {', '.join(TORCH)}")


def _npz(path: Path, limit: int | None) -> State:
    try:
        return limits.arrays(path, limit)
    except limits.TooLarge:
        raise
    except Exception as error:
        raise ValueError(f"{path} is truncated or no npz file of arrays ({error}); fetch it again") from None


def unwrapped(state: Mapping[str, np.ndarray], path: Any) -> State:
    """The state without "module." before its names and "_orig_mod." in them, as wrappers of torch leave them.

    Raises ValueError where two tensors then have one name.
    """
    bare = [re.sub(r"^(module\.)+", "", re.sub(r"(^|(?<=\.))_orig_mod\.", "", str(name))) for name in state]
    if twice := [name for name, count in Counter(bare).items() if count > 1]:
        raise ValueError(f"{path} has {twice[0]!r} with and without the name of a wrapper; save one of them alone")
    return dict(zip(bare, state.values(), strict=True))


def _flat(tree: Any) -> TypeGuard[State]:
    """Whether it is a state dict: names to arrays."""
    return isinstance(tree, dict) and bool(tree) and all(isinstance(leaf, np.ndarray) for leaf in tree.values())


def averaged(tree: dict[str, Any]) -> State:
    """The moving average that torch_ema keeps beside a "model", by that one's names; {} where there is none.

    It is a list, "shadow_params", of what was trained, in the model's order: without the buffer `sigmas` and without
    score_sde's Fourier frequencies W. Raises ValueError where the two do not have as many tensors of the same shapes.
    """
    model, ema = tree.get("model"), tree.get("ema")
    found = ema.get("shadow_params") if isinstance(ema, dict) else None
    if not _flat(model) or not isinstance(found, (list, tuple)):
        return {}
    untrained = lambda name: name.endswith("sigmas") or (name.endswith(".W") and model[name].ndim == 1)
    names = [name for name in model if not untrained(str(name))]
    if [model[name].shape for name in names] != [np.shape(value) for value in found]:
        raise ValueError(f"the average has {len(found)} tensors, the model {len(names)}, or other shapes: of two runs")
    return {**model, **{name: np.asarray(value) for name, value in zip(names, found, strict=True)}}


def choose(tree: dict[str, Any], weights: str | None, path: str | Path) -> tuple[State, str]:
    """The state dict in `tree` and its name; see `read_state`."""
    if weights is None and _flat(tree):
        return tree, ""
    found = {name: value for name, value in tree.items() if _flat(value)}
    found |= {"ema": average} if (average := averaged(tree)) else {}
    if weights is None and len(found) == 1:
        return next(iter(found.values())), next(iter(found))
    if weights in found:
        return found[weights], weights
    held = ", ".join(map(str, found)) or "none"
    raise ValueError(f"weights is {weights!r}; the state dicts in {path} are: {held}; choose one by --weights")


def need(state: Mapping[str, np.ndarray], name: str, axes: int) -> np.ndarray:
    """The tensor `name`; ValueError where it is missing, or has another number of axes, or none of its elements."""
    if name not in state:
        raise ValueError(f"{name} is not in the checkpoint; it is of another architecture")
    if state[name].ndim != axes or 0 in state[name].shape:
        raise ValueError(
            f"{name} has shape {state[name].shape}, and {axes} axes are needed; fetch the checkpoint again"
        )
    return state[name]


def without(state: Mapping[str, np.ndarray], prefix: str) -> State:
    """The state with `prefix` taken off the names that bear it."""
    return {name.removeprefix(prefix): value for name, value in state.items()}


def _torch_shape(leaf: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Flax's shape as torch stores it."""
    if leaf != "kernel":
        return shape
    return (shape[3], shape[2], shape[0], shape[1]) if len(shape) == 4 else shape[::-1]


def _placed(name: str, leaf: str, value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """One tensor in Flax's layout, float32. 1x1 convolutions are dense. Raises ValueError with both shapes."""
    expected, found = _torch_shape(leaf, shape), value.shape
    if leaf == "kernel" and len(shape) == 2 and found[2:] in ((1,), (1, 1)):
        value = value.reshape(found[:2])
    if value.shape != expected:
        raise ValueError(f"{name} has shape {found}, the architecture needs {expected}; check the preset and its size")
    value = np.asarray(value, np.float32)
    if not np.isfinite(value).all():
        raise ValueError(f"{name} holds values that are not finite; fetch the checkpoint again")
    if leaf != "kernel":
        return value
    return np.ascontiguousarray(value.transpose((2, 3, 1, 0) if len(shape) == 4 else (1, 0)))


def shapes(net: Any, channels: int = 3) -> dict[tuple[str, ...], Any]:
    """Flat names and shapes of the parameters of `net`, one of our networks, by counting."""
    found = leaves.leaves(net, channels)
    return {tuple(name.split("/")): jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in found.items()}


def fill(net: Any, state: State, rename: Callable[[tuple[str, ...]], str], channels: int = 3) -> Any:
    """The parameters of the Linen module `net`, each from the tensor that `rename` gives for its path.

    Raises ValueError for a tensor that is missing, left over, of another shape or not finite; it says which.
    """
    tree, rest = {}, dict(state)
    for path, leaf in shapes(net, channels).items():
        name = rename(path)
        if name not in rest:
            needed = _torch_shape(path[-1], leaf.shape)
            raise ValueError(f"{name} of shape {needed} is not in the checkpoint; it is of another architecture")
        tree[path] = _placed(name, path[-1], rest.pop(name), leaf.shape)
    if rest:
        name, value = next(iter(rest.items()))
        raise ValueError(
            f"{name} of shape {value.shape} has no place in the network ({len(rest)} tensors are left over)"
        )
    return traverse_util.unflatten_dict(tree)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises FileNotFoundError, ValueError where it is none."""
    if not path.exists():
        raise FileNotFoundError(f"no file {path}; it belongs beside the weights")
    try:
        return limits.read_object(path)
    except ValueError as error:
        raise ValueError(f"{error}; fetch it again") from None
