r"""The diffusion transformer, DiT (Peebles & Xie 2023, arXiv:2212.09748), exactly, on codes or on pixels.

Module names are those of facebookresearch/DiT with dots as underscores (`blocks_0/attn_qkv/kernel`), so that a public
state dict maps on by name. The positions are no parameters.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from diffinv.nn import layers
from diffinv.typing import Array

_zeros, _xavier, _small = nn.initializers.zeros, nn.initializers.xavier_uniform(), nn.initializers.normal(0.02)


def positions(height: int, width: int, size: int, period: float = 1e4) -> np.ndarray:
    r"""Fixed embeddings of a grid, row by row, (height width, size) float32: of the column, then of the row,

        [sin(n f), cos(n f)],   f_k = period^(-k / (size / 4)),   k < size / 4.

    Source: facebookresearch/DiT, `get_2d_sincos_pos_embed`, after Vaswani et al. 2017; all static. Raises ValueError
    where 4 does not divide `size`.
    """
    if size % 4:
        raise ValueError(f"size is {size}; positions take a multiple of 4: change the network's channels")
    frequencies = period ** (-np.arange(size // 4) / (size // 4))
    rows, columns = (axis.ravel() for axis in np.meshgrid(np.arange(height), np.arange(width), indexing="ij"))
    angles = [np.outer(axis, frequencies) for axis in (columns, rows)]
    return np.concatenate([f(a) for a in angles for f in (np.sin, np.cos)], axis=1).astype(np.float32)


def _modulated(x: Array, shift: Array, scale: Array, eps: float) -> Array:
    """`norm(x) (1 + scale) + shift` over the channels of each token, in float32; the norm has no weights."""
    h = x.astype(jnp.float32)
    h = h - jnp.mean(h, -1, keepdims=True)
    h = h * jax.lax.rsqrt(jnp.mean(h**2, -1, keepdims=True) + eps)
    return (h * (1 + scale.astype(jnp.float32))[None] + shift.astype(jnp.float32)[None]).astype(x.dtype)


class DiTBlock(nn.Module):
    r"""adaLN-Zero: `x + g1 attention(norm(x))`, then `x + g2 mlp(norm(x))`, whose shifts, scales and gates g are linear
    in the condition, and 0 at first.

    All attributes are static.

    Attributes:
      heads: of the attention.
      ratio: hidden units of the MLP over its channels.
      eps: of the first norm.
      eps_mlp: of the norm before the MLP.
      dtype: of the computation; parameters are float32.
    """

    heads: int
    ratio: float = 4.0
    eps: float = 1e-6
    eps_mlp: float = 1e-6
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, condition: Array) -> Array:
        width = x.shape[-1]
        dense = lambda features, name, init=_xavier: nn.Dense(features, name=name, dtype=self.dtype, kernel_init=init)
        film = dense(6 * width, "adaLN_modulation_1", _zeros)(nn.silu(condition))
        shift1, scale1, gate1, shift2, scale2, gate2 = jnp.split(film, 6)
        qkv = dense(3 * width, "attn_qkv")(_modulated(x, shift1, scale1, self.eps))
        x = x + gate1[None] * dense(width, "attn_proj")(layers.attend(qkv, self.heads, legacy=False))
        h = dense(int(self.ratio * width), "mlp_fc1")(_modulated(x, shift2, scale2, self.eps_mlp))
        return x + gate2[None] * dense(width, "mlp_fc2")(nn.gelu(h, approximate=True))


class DiT(nn.Module):
    """`(x (H, W, C_in), condition (), label=None) -> (H, W, out_channels)`, for one example.

    H and W are multiples of `patch`. The result is float32. All attributes are static.

    Source: Peebles & Xie 2023, section 3 and table 1, and facebookresearch/DiT.

    Attributes:
      channels: of a token, a multiple of 4.
      blocks: of the transformer.
      heads: of each attention.
      patch: side of the square that is a token.
      ratio: hidden units of an MLP over its channels.
      out_channels: 2 C_in with the learned variance.
      classes: number of labels, with the null label, the last one, among them; or None.
      time_scale: multiplies the condition before the embedding; 1 for DDPM indices, larger for `log(r) / 4`.
      frequency_shift: of `layers.time_embedding`; 1 as diffusers has it.
      eps: of the norms.
      eps_mlp: of the norms before an MLP; 1e-5 as diffusers has it.
      remat: recompute each block in the backward pass.
      dtype: of the computation, e.g. bfloat16; parameters and output are float32.
    """

    channels: int = 384
    blocks: int = 12
    heads: int = 6
    patch: int = 2
    ratio: float = 4.0
    out_channels: int = 8
    classes: int | None = None
    time_scale: float = 1.0
    frequency_shift: int = 0
    eps: float = 1e-6
    eps_mlp: float = 1e-6
    remat: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, condition: Array, label: Array | None = None) -> Array:
        if (self.classes is None) != (label is None):
            raise ValueError(f"label is {label} for a network of classes={self.classes}; give both or neither")
        tokens = layers.space_to_depth(x, self.patch).astype(self.dtype)
        height, width, _ = tokens.shape
        embedding = self._embed(condition, label)
        h = self._dense(self.channels, "x_embedder_proj")(tokens.reshape(height * width, -1))
        h = h + jnp.asarray(positions(height, width, self.channels), self.dtype)
        block = nn.remat(DiTBlock) if self.remat else DiTBlock
        for i in range(self.blocks):
            options = (self.heads, self.ratio, self.eps, self.eps_mlp, self.dtype)
            h = block(*options, name=f"blocks_{i}")(h, embedding)
        shift, scale = jnp.split(
            self._dense(2 * self.channels, "final_layer_adaLN_modulation_1", _zeros)(nn.silu(embedding)), 2
        )
        h = self._dense(self.out_channels * self.patch**2, "final_layer_linear", _zeros)(
            _modulated(h, shift, scale, self.eps)
        )
        return layers.depth_to_space(h.reshape(height, width, -1), self.patch).astype(jnp.float32)

    def _dense(self, features: int, name: str, init: Any = _xavier) -> nn.Dense:
        return nn.Dense(features, name=name, dtype=self.dtype, kernel_init=init)

    def _embed(self, condition: Array, label: Array | None) -> Array:
        t = self.time_scale * jnp.asarray(condition)
        h = layers.time_embedding(t, 256, shift=self.frequency_shift).astype(self.dtype)
        h = nn.silu(self._dense(self.channels, "t_embedder_mlp_0", _small)(h))
        h = self._dense(self.channels, "t_embedder_mlp_2", _small)(h)
        if self.classes is not None:
            options = {"embedding_init": _small, "dtype": self.dtype, "name": "y_embedder_embedding_table"}
            h = h + nn.Embed(self.classes, self.channels, **options)(label)
        return h


SIZES = {"S": (12, 384, 6), "B": (12, 768, 12), "L": (24, 1024, 16), "XL": (28, 1152, 16)}
"""Blocks, channels and heads of the published sizes."""


def published(name: str = "XL/2", **changes: Any) -> DiT:
    """A network of the paper's, "S/8" to "XL/2": for codes of 4 channels, 1000 labels and none, learned variance.

    Source: Peebles & Xie 2023, table 1; XL/2 has 674,834,720 parameters, and the paper's 675 M with the positions of
    32 x 32 codes. Raises ValueError for another name.
    """
    size, _, patch = name.partition("/")
    if size not in SIZES or patch not in ("2", "4", "8"):
        raise ValueError(f"name is {name!r}; give {', '.join(SIZES)}, a stroke and the patch 2, 4 or 8, as in 'XL/2'")
    blocks, channels, heads = SIZES[size]
    fields = {"blocks": blocks, "channels": channels, "heads": heads, "patch": int(patch), "classes": 1001}
    return DiT(**{**fields, **changes})
