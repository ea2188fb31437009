r"""EfficientNet-Lite0, an ImageNet classifier, on one picture (H, W, 3) in [-1, 1]: a judge, so inference only.

Batch-norm is folded into the convolutions: kernel' = kernel g, bias' = beta - mean g, g = gamma / sqrt(var + 1e-3).
TF-style SAME padding, ReLU6, no squeeze-excitation. `from_torch` maps the public weights on. Any even size works; it
was trained at 224.

Source: Tan & Le 2019, arXiv:1905.11946; the Lite variant of TensorFlow's `efficientnet/lite`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

from diffinv.describe import described
from diffinv.typing import Array

LITE0 = (  # (repeats, kernel, stride, expansion, features)
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


@described
class Activations(NamedTuple):
    """What the network gives.

    Attributes:
      taps: the last block at each of the strides 2, 4, 8, 16, 32, (h, w, c).
      pooled: (1280,).
      logits: (1000,).
    """

    taps: tuple[Array, ...]
    pooled: Array
    logits: Array


class Depthwise(nn.Module):
    """`y[i, j, c] = b_c + sum_{p, q} k[p, q, c] x[s i + p, s j + q, c]`, with SAME padding.

    It is a sum of shifted products: XLA's grouped convolution takes 4 to 20 times as long on a CPU.

    Attributes:
      kernel: its side; static.
      stride: s; static.
    """

    kernel: int
    stride: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        size, stride, (height, width, channels) = self.kernel, self.stride, x.shape
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (size, size, channels), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (channels,), jnp.float32)
        pads = lax.padtype_to_pads((height, width), (size, size), (stride, stride), "SAME")
        x = jnp.pad(x, (*pads, (0, 0)))
        h, w = -(-height // stride), -(-width // stride)
        end = lambda start, n: start + stride * (n - 1) + 1
        shifted = lambda p, q: x[p : end(p, h) : stride, q : end(q, w) : stride]
        return (
            sum(shifted(p, q) * kernel[None, None, p, q] for p in range(size) for q in range(size)) + bias[None, None]
        )


class InvertedResidual(nn.Module):
    """expand 1x1, depthwise, project 1x1; ReLU6 after the first two; a skip where shapes agree. Sandler et al. 2018.

    Attributes:
      features: output channels; static.
      kernel: side of the depthwise convolution; static.
      stride: of the depthwise convolution; static.
      expansion: of the channels inside; static.
      precision: of the products; static.
    """

    features: int
    kernel: int
    stride: int
    expansion: int
    precision: Any = lax.Precision.HIGHEST

    @nn.compact
    def __call__(self, x: Array) -> Array:
        dense = lambda features, name: nn.Dense(features, precision=self.precision, name=name)
        channels = x.shape[-1]
        h = x
        if self.expansion > 1:
            h = nn.relu6(dense(channels * self.expansion, "expand")(h))
        h = nn.relu6(Depthwise(self.kernel, self.stride, name="depthwise")(h))
        h = dense(self.features, "project")(h)
        return x + h if self.stride == 1 and channels == self.features else h


class EfficientNetLite(nn.Module):
    """x in [-1, 1], (H, W, 3), to `Activations`.

    The input layer takes `(127.5 x + 0.5) / 128`, which is (x_uint8 - 127) / 128. All attributes are static.

    Attributes:
      stages: rows (repeats, kernel, stride, expansion, features).
      precision: of the products; full float32 on every device by default, since this is an instrument.
    """

    stages: tuple[tuple[int, ...], ...] = LITE0
    precision: Any = lax.Precision.HIGHEST

    @nn.compact
    def __call__(self, x: Array) -> Activations:
        if x.ndim != 3 or x.shape[-1] != 3:
            raise ValueError(f"x is {x.shape}; give one RGB picture (H, W, 3), and vmap over a batch")
        blocks = [(k, s if i == 0 else 1, e, f) for n, k, s, e, f in self.stages for i in range(n)]
        dense = lambda features, name: nn.Dense(features, precision=self.precision, name=name)
        x = (127.5 * x.astype(jnp.float32) + 0.5) / 128
        x = nn.relu6(nn.Conv(32, (3, 3), 2, "SAME", precision=self.precision, name="stem")(x))
        taps = []
        for index, (kernel, stride, expansion, features) in enumerate(blocks):
            taps += [x] if stride == 2 else []
            x = InvertedResidual(features, kernel, stride, expansion, self.precision, name=f"blocks_{index}")(x)
        pooled = jnp.mean(nn.relu6(dense(1280, "head")(x)), axis=(0, 1))
        return Activations((*taps, x), pooled, dense(1000, "fc")(pooled))


def efficientnet_lite0() -> EfficientNetLite:
    """The network of 4.6 million parameters; weights come by `from_torch`. Source: as the module."""
    return EfficientNetLite()


def _folded(state: dict[str, Any], conv: str, norm: str) -> dict[str, np.ndarray]:
    """One convolution with its norm, taken out of `state`: kernel, OIHW to ours, and bias; float32."""
    take = lambda name: np.asarray(state.pop(name), np.float64)
    gamma, beta, mean, var = (take(f"{norm}.{n}") for n in ("weight", "bias", "running_mean", "running_var"))
    gain = gamma / np.sqrt(var + 1e-3)
    kernel = take(f"{conv}.weight") * gain[:, None, None, None]
    return {"kernel": kernel.astype(np.float32), "bias": (beta - mean * gain).astype(np.float32)}


def _hwio(layer: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {**layer, "kernel": layer["kernel"].transpose(2, 3, 1, 0)}


def _pointwise(layer: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {**layer, "kernel": layer["kernel"][:, :, 0, 0].T}


def _depthwise(layer: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {**layer, "kernel": layer["kernel"][:, 0].transpose(1, 2, 0)}


def _block(state: dict[str, Any], name: str) -> dict[str, Any]:
    block = {
        "depthwise": _depthwise(_folded(state, f"{name}._depthwise_conv", f"{name}._bn1")),
        "project": _pointwise(_folded(state, f"{name}._project_conv", f"{name}._bn2")),
    }
    if f"{name}._expand_conv.weight" in state:
        block["expand"] = _pointwise(_folded(state, f"{name}._expand_conv", f"{name}._bn0"))
    return block


def from_torch(state: Mapping[str, Any]) -> dict[str, Any]:
    r"""The variables `{"params": ...}` of `efficientnet_lite0` from torch names and OIHW kernels, in float32.

    Source: original; the names are those of `EfficientNet-PyTorch` (`_conv_stem`, `_blocks.0._bn1`, `_fc`).

    Args:
      state: name to array, of any float dtype; `num_batches_tracked` is ignored. A missing name or one left over is an
        error, so that no other network is read silently.
    """
    state = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    try:
        params = {
            "stem": _hwio(_folded(state, "_conv_stem", "_bn0")),
            **{f"blocks_{i}": _block(state, f"_blocks.{i}") for i in range(sum(row[0] for row in LITE0))},
            "head": _pointwise(_folded(state, "_conv_head", "_bn1")),
            "fc": {
                "kernel": np.asarray(state.pop("_fc.weight"), np.float32).T,
                "bias": np.asarray(state.pop("_fc.bias"), np.float32),
            },
        }
    except KeyError as error:
        raise ValueError(f"state has no {error}; give the state dict of EfficientNet-Lite0") from error
    if state:
        raise ValueError(
            f"state also has {sorted(state)[:3]}, {len(state)} in all; give the state dict of EfficientNet-Lite0"
        )
    return {"params": params}
