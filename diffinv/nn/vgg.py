r"""VGG-16's convolutions on one picture (H, W, 3) in [-1, 1]: features of LPIPS and DISTS. A judge, so inference only.

Source: Simonyan and Zisserman 2015, arXiv:1409.1556; weights are torchvision's, which the user gives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

from diffinv.typing import Array

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of LPIPS: ImageNet's mean and spread, for [-1, 1]


def max_pool(h: Array) -> Array:
    """The largest of each 2 x 2 positions, (h, w, c) to (h // 2, w // 2, c)."""
    return nn.max_pool(h, (2, 2), (2, 2))


def l2_pool(h: Array) -> Array:
    """Root of the squares' mean under a 3 x 3 Hann window at every other position: DISTS's, which does not alias.

    Source: Ding et al. 2020, arXiv:2004.07728, eq. 4 and their code: (1, 2, 1) / 4 along each axis, zeros outside.
    """
    weights = jnp.asarray((0.25, 0.5, 0.25), h.dtype)
    window = jnp.outer(weights, weights)[:, :, None, None]
    squares = jnp.moveaxis(h**2, -1, 0)[..., None]
    mean = lax.conv_general_dilated(
        squares,
        window,
        (2, 2),
        [(1, 1), (1, 1)],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=lax.Precision.HIGHEST,
    )
    return jnp.moveaxis(jnp.sqrt(mean[..., 0] + 1e-12), 0, -1)


class VGG(nn.Module):
    """x in [-1, 1], (H, W, 3), to five features: the last of each stage after its ReLU, (h, w, c), h from H to H / 16.

    Attributes:
      stages: widths; static.
      precision: of the products; static.
      pool: between stages; static.

    Raises ValueError for another form, or sides below 16.
    """

    stages: tuple[tuple[int, ...], ...] = STAGES
    precision: Any = lax.Precision.HIGHEST
    pool: Callable[[Array], Array] = max_pool

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, ...]:
        if x.ndim != 3 or x.shape[-1] != 3 or min(x.shape[:2]) < 16:
            raise ValueError(
                f"x is {x.shape}; give one RGB picture (H, W, 3) of at least 16 x 16, and vmap over a batch"
            )
        h = (x - jnp.asarray(SHIFT, x.dtype)[None, None]) / jnp.asarray(SCALE, x.dtype)[None, None]
        taps, index = [], 0
        for stage, widths in enumerate(self.stages):
            h = self.pool(h) if stage else h
            for width in widths:
                h = nn.relu(nn.Conv(width, (3, 3), padding=1, precision=self.precision, name=f"conv{index}")(h))
                index += 1
            taps.append(h)
        return tuple(taps)


def from_torch(state: Mapping[str, Any], stages: tuple[tuple[int, ...], ...] = STAGES) -> dict[str, Any]:
    """The variables `{"params": ...}` from torchvision's names, `features.0.weight`; `classifier.*` is ignored.

    Raises ValueError for a missing name or another shape, so that no other network is read silently.
    """
    params, place, before = {}, 0, 3
    for index, width in enumerate(width for stage in stages for width in stage):
        kernel = _weight(state, f"features.{place}.weight", (width, before, 3, 3))
        bias = _weight(state, f"features.{place}.bias", (width,))
        params[f"conv{index}"] = {"kernel": kernel.transpose(2, 3, 1, 0), "bias": bias}
        ends = np.cumsum([len(stage) for stage in stages])
        place, before = place + 2 + (index + 1 in ends), width
    return {"params": params}


def _weight(state: Mapping[str, Any], name: str, shape: tuple[int, ...]) -> np.ndarray:
    value = np.asarray(state[name], np.float32) if name in state else None
    if value is None or value.shape != shape:
        raise ValueError(f"{name} is {None if value is None else value.shape}, not {shape}; give VGG-16's weights")
    return value
