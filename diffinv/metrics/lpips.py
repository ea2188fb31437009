r"""LPIPS with VGG-16, from weights that the user gives: two files, verified, never downloaded.

d(x, y) = sum over taps of  mean over space of  sum_c w_kc (f_kc(x)/|f_k(x)| - f_kc(y)/|f_k(y)|)^2
"""

from __future__ import annotations

import hashlib
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffinv.describe import Described
from diffinv.nn import vgg
from diffinv.typing import Array
from diffinv.weights.convert import torchfile

VGG_SHA256 = "397923af"  # the first digits, which torchvision writes into the file's name


@struct.dataclass
class LPIPS(Described):
    """`(x, y) -> ()`, pictures (H, W, 3) in [-1, 1] at their own size; a pytree, differentiable.

    Source: Zhang et al. 2018, arXiv:1801.03924, eq. 1, version 0.1 (`lpips.LPIPS(net="vgg")`). Differs: 1e-20 is added
    to the squared length, so that the gradient at a feature of zeros is 0.

    Attributes:
      variables: of `vgg.VGG`.
      weights: of the channels, five arrays (c,).
      stages: of the network; static.
    """

    variables: Any
    weights: tuple[Array | np.ndarray, ...]
    stages: tuple[tuple[int, ...], ...] = struct.field(pytree_node=False, default=vgg.STAGES)

    def __call__(self, x: Array, y: Array) -> Array:
        pairs = jax.vmap(lambda z: vgg.VGG(self.stages).apply(self.variables, z))(jnp.stack([x, y]))
        parts = [_between(f, g, weight) for (f, g), weight in zip(pairs, self.weights, strict=True)]
        return sum(parts[1:], parts[0])


def _between(f: Array, g: Array, weight: Array | np.ndarray) -> Array:
    unit = lambda a: a / (jnp.sqrt(jnp.sum(a**2, -1, keepdims=True) + 1e-20) + 1e-10)
    return jnp.mean(jnp.sum(jnp.asarray(weight)[None, None] * (unit(f) - unit(g)) ** 2, -1))


def linear_weights(path: str, stages: tuple[tuple[int, ...], ...] = vgg.STAGES) -> tuple[np.ndarray, ...]:
    """LPIPS's learned weights, (c,) for each tap, of a `.npz` (`vgg.lin0`) or a torch file (`lin0.model.1.weight`).

    Raises FileNotFoundError, and ValueError for another shape or a negative weight.
    """
    path = _existing(path, "LPIPS's linear layers")
    state = np.load(path, allow_pickle=False) if path.endswith(".npz") else torchfile.load(path)
    found = []
    for index, stage in enumerate(stages):
        names = [name for name in (f"vgg.lin{index}", f"lin{index}.model.1.weight") if name in state]
        value = np.asarray(state[names[0]], np.float32).ravel() if names else np.zeros(0)
        if value.shape != (stage[-1],) or value.min() < 0:
            raise ValueError(f"{path} has no {stage[-1]} weights >= 0 for tap {index}; give LPIPS 0.1's for VGG")
        found.append(value)
    return tuple(found)


def _existing(path: str, what: str) -> str:
    if not os.path.isfile(path):
        raise FileNotFoundError(f"no file {path}; give the path of {what}: nothing is downloaded")
    return path


def _digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def lpips(vgg_path: str, linear_path: str, sha256: str = VGG_SHA256) -> LPIPS:
    """LPIPS from torchvision's `vgg16-397923af.pth` and LPIPS 0.1's linear layers.

    Source: as `LPIPS`. `sha256`: the first digits that the VGG file's must have; "" accepts any. Raises
    FileNotFoundError where a file is missing, ValueError where it is another.
    """
    digest = _digest(_existing(vgg_path, "torchvision's vgg16-397923af.pth"))
    if not digest.startswith(sha256):
        raise ValueError(
            f"{vgg_path} has sha256 {digest[:12]}.., not {sha256}..; give torchvision's vgg16-397923af.pth"
        )
    return LPIPS(vgg.from_torch(torchfile.load(vgg_path)), linear_weights(linear_path))
