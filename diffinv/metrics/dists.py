r"""DISTS, deep structure and texture similarity, from weights that the user gives: two files, never downloaded.

DISTS(x, y) = 1 - sum_{k, c} (a_kc (2 m_x m_y + e) / (m_x^2 + m_y^2 + e) + b_kc (2 v_xy + e) / (v_x + v_y + e))
"""

from __future__ import annotations

import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffinv import limits
from diffinv.describe import Described
from diffinv.linalg import added
from diffinv.metrics.image import DataRange, two_pictures
from diffinv.nn import vgg
from diffinv.typing import Array
from diffinv.weights.convert import safetensors, torchfile

SMALL = 1e-6
PUBLISHED = "weights.pt of github.com/dingkeyan93/DISTS"
VGG_FILE = "vgg16-397923af.pth of download.pytorch.org/models"


@struct.dataclass
class DISTS(Described):
    """`(x, y, data_range) -> ()`, 0 for equal pictures (H, W, 3); a pytree, differentiable.

    m, v and v_xy are the means, variances and covariance over space of a channel of the pictures (in 0 .. 1) and of the
    five features of VGG-16, pooled by `vgg.l2_pool`. The authors resize the shorter side to 256 first; here the
    picture's own size counts.

    Source: Ding, Ma, Wang & Simoncelli 2020, arXiv:2004.07728, eq. 5 to 8.

    Attributes:
      variables: of `vgg.VGG`.
      texture: a, of the means, six arrays (c,).
      structure: b, of the covariances, six arrays (c,); all of both sum to 1.
      stages: of the network; static.
    """

    variables: Any
    texture: tuple[Array | np.ndarray, ...]
    structure: tuple[Array | np.ndarray, ...]
    stages: tuple[tuple[int, ...], ...] = struct.field(pytree_node=False, default=vgg.STAGES)

    def __call__(self, x: Array, y: Array, data_range: DataRange) -> Array:
        pair = jnp.stack(two_pictures(x, y, data_range)).astype(jnp.float32)
        network = vgg.VGG(self.stages, pool=vgg.l2_pool)
        features = jax.vmap(lambda z: network.apply(self.variables, 2 * z - 1))(pair)
        every = zip((pair, *features), self.texture, self.structure, strict=True)
        return 1 - added(_alike(f, g, a, b) for (f, g), a, b in every)


def _alike(f: Array, g: Array, a: Array | np.ndarray, b: Array | np.ndarray) -> Array:
    mean = lambda h: jnp.mean(h, (0, 1), keepdims=True)
    m, n = mean(f), mean(g)
    both, shared = mean((f - m) ** 2) + mean((g - n) ** 2), mean((f - m) * (g - n))
    means, covariances = (2 * m * n + SMALL) / (m**2 + n**2 + SMALL), (2 * shared + SMALL) / (both + SMALL)
    return jnp.sum(jnp.asarray(a) * means.ravel() + jnp.asarray(b) * covariances.ravel())


def _tensors(path: str, what: str) -> dict[str, Any]:
    if not os.path.isfile(path):
        raise FileNotFoundError(f"no file {path}; give the path of {what}: nothing is downloaded")
    if path.endswith(".safetensors"):
        return safetensors.from_bytes(limits.read_bytes(path), path)
    return torchfile.load(path)


def dists(vgg_path: str, weights_path: str, stages: tuple[tuple[int, ...], ...] = vgg.STAGES) -> DISTS:
    """DISTS from torchvision's VGG-16 and the authors' `alpha` and `beta`, each a torch file or safetensors.

    Source: as `DISTS`. Raises FileNotFoundError where a file is missing, and says where it is published; ValueError
    where it holds something else.
    """
    state, weights = _tensors(vgg_path, VGG_FILE), _tensors(weights_path, PUBLISHED)
    widths = [3, *(stage[-1] for stage in stages)]
    parts = []
    for name in ("alpha", "beta"):
        value = np.asarray(weights.get(name, ()), np.float64).ravel()
        if value.size != sum(widths) or value.min() < 0:
            raise ValueError(f"{weights_path}: {name} is no {sum(widths)} weights >= 0; give {PUBLISHED}")
        parts.append(value)
    total = parts[0].sum() + parts[1].sum()
    split = [tuple(np.split((part / total).astype(np.float32), np.cumsum(widths)[:-1])) for part in parts]
    return DISTS(vgg.from_torch(state, stages), split[0], split[1], stages)
