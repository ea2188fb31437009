r"""The magnitude-preserving U-Net of EDM2: weights of unit rows, no norms over the picture, no biases.

Every layer keeps the expected magnitude of what it gets. With `normalized(x) = x / (1e-4 + |x| / sqrt(n))`:

    layer   x * normalized(W) gain / sqrt(fan_in)
    silu    silu(x) / 0.596
    sum     ((1 - t) a + t b) / sqrt((1 - t)^2 + t^2)
    join    [(1 - t) a / sqrt(N_a), t b / sqrt(N_b)] sqrt((N_a + N_b) / ((1 - t)^2 + t^2))

Source: Karras et al. 2024, arXiv:2312.02696, figure 21 and equations 47, 75, 81, 88, 103, and
`training/networks_edm2.py` of NVlabs/edm2. Module names are those of the public state dicts with dots as underscores;
1x1 convolutions are dense layers.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffinv.nn import layers
from diffinv.nn.song import resample_by_taps
from diffinv.typing import Array

EPS, MAGNITUDE = 1e-4, 0.596
"""Added to a norm; of silu of a normal number."""


def normalized(x: Array, axes: tuple[int, ...]) -> Array:
    """`x / (1e-4 + rms)` over `axes`, whose norm is taken in float32; equation 47 and its pixel norm."""
    rms = jnp.sqrt(jnp.mean(jnp.square(x.astype(jnp.float32)), axes, keepdims=True))
    return x / (EPS + rms).astype(x.dtype)


def mp_silu(x: Array) -> Array:
    """`silu(x) / 0.596`; equation 81."""
    return nn.silu(x) / MAGNITUDE


def mp_sum(a: Array, b: Array, t: float) -> Array:
    """`((1 - t) a + t b) / sqrt((1 - t)^2 + t^2)`; equation 88."""
    return (a + t * (b - a)) / math.hypot(1 - t, t)


def mp_join(a: Array, b: Array, t: float) -> Array:
    """Channels side by side, each side's share of the magnitude `1 - t` and `t` whatever its width; equation 103."""
    wide = math.sqrt(a.shape[-1] + b.shape[-1]) / math.hypot(1 - t, t)
    return jnp.concatenate([wide * (1 - t) / math.sqrt(a.shape[-1]) * a, wide * t / math.sqrt(b.shape[-1]) * b], -1)


class MPLayer(nn.Module):
    """`x normalized(W) gain / sqrt(fan_in)`, W's rows of any length; a dense layer, or a convolution of `side`.

    All attributes are static.

    Attributes:
      features: of the result.
      side: of the kernel, 0 for dense.
      plain: as in `unet.ResBlock`.
      dtype: of the computation.
    """

    features: int
    side: int = 0
    plain: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, gain: Array | float = 1.0) -> Array:
        window = (self.side, self.side) if self.side else ()
        shape = (*window, x.shape[-1], self.features)
        w = self.param("kernel", nn.initializers.normal(1.0), shape, jnp.float32)
        fan_in = math.prod(shape[:-1])
        w = (normalized(w, tuple(range(len(shape) - 1))) * (gain / math.sqrt(fan_in))).astype(self.dtype)
        if not self.side:
            return x.astype(self.dtype) @ w
        conv = layers.plain_conv if self.plain else layers.conv
        border = [(self.side // 2, self.side // 2)] * 2
        numbers = jax.lax.conv_dimension_numbers((1, *x.shape), shape, ("NHWC", "HWIO", "NHWC"))
        return conv(x[None].astype(self.dtype), w, (1, 1), border, dimension_numbers=numbers)[0]


class MPFourier(nn.Module):
    """`sqrt(2) cos(f t + phi)` at stored frequencies and phases, (size,); equation 75.

    Attributes:
      size: of the result; static.
    """

    size: int

    @nn.compact
    def __call__(self, t: Array) -> Array:
        f = self.param("freqs", nn.initializers.normal(2 * math.pi), (self.size,), jnp.float32)
        phi = self.param("phases", nn.initializers.uniform(2 * math.pi), (self.size,), jnp.float32)
        angles = jax.lax.stop_gradient(f) * jnp.asarray(t).astype(jnp.float32) + jax.lax.stop_gradient(phi)
        return math.sqrt(2) * jnp.cos(angles)


class MPBlock(nn.Module):
    """Resample, (skip, pixel norm,) residual branch with the embedding as a gain, attention, clip; figure 21.

    All attributes are static.

    Attributes:
      features: output channels.
      encoder: whether the skip and a pixel norm come before the residual branch, or the skip after it.
      factor: 1, or 2 and 0.5 to resample by `taps`.
      heads: of the attention, 0 for none; qkv's channels are (heads, d, 3).
      taps: the resampling filter.
      balance: shares of the residual and of the attention branch.
      clip: largest activation.
      dropout: as in `unet.ResBlock`.
      plain: as in `unet.ResBlock`.
      dtype: as in `unet.ResBlock`.
    """

    features: int
    encoder: bool
    factor: float = 1
    heads: int = 0
    taps: tuple[float, ...] = (1, 1)
    balance: tuple[float, float] = (0.3, 0.3)
    clip: float = 256.0
    dropout: float = 0.0
    plain: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, embedding: Array) -> Array:
        conv = lambda name: MPLayer(self.features, 3, self.plain, self.dtype, name=name)
        dense = lambda name: MPLayer(self.features, dtype=self.dtype, name=name)
        project = x.shape[-1] != self.features
        x = x if self.factor == 1 else resample_by_taps(x, self.taps, self.factor)
        if self.encoder:
            x = normalized(dense("conv_skip")(x) if project else x, (-1,))
        gain = dense("emb_linear")(embedding, self.param("emb_gain", nn.initializers.zeros, (), jnp.float32)) + 1
        y = mp_silu(conv("conv_res0")(mp_silu(x)) * gain[None, None])
        y = conv("conv_res1")(nn.Dropout(self.dropout, deterministic=not self.has_rng("dropout"))(y))
        if project and not self.encoder:
            x = dense("conv_skip")(x)
        x = mp_sum(x, y, self.balance[0])
        if self.heads:
            x = mp_sum(x, self._attended(x), self.balance[1])
        return jnp.clip(x, -self.clip, self.clip)

    def _attended(self, x: Array) -> Array:
        """Of queries, keys and values of unit magnitude."""
        height, width, channels = x.shape
        h = MPLayer(3 * channels, dtype=self.dtype, name="attn_qkv")(x.reshape(-1, channels))
        q, k, v = jnp.moveaxis(normalized(h.reshape(height * width, self.heads, -1, 3), (2,)), -1, 0)
        scores = jnp.einsum("qhc,khc->hqk", q, k / math.sqrt(q.shape[-1]))
        weights = jax.nn.softmax(scores.astype(jnp.float32)).astype(v.dtype)
        h = jnp.einsum("hqk,khc->qhc", weights, v).reshape(-1, channels)
        return MPLayer(channels, dtype=self.dtype, name="attn_proj")(h).reshape(x.shape)


class EDM2UNet(nn.Module):
    """`(x (H, W, C_in), condition (), label=None) -> (H, W, out_channels)` in float32, for one example.

    XS, S, M, L, XL and XXL of the paper have channels 128, 192, 256, 320, 384, 448. `num_blocks` is `blocks`. A channel
    of ones stands in for biases. All attributes are static.

    Attributes:
      resolution: native size, which names the modules and decides where attention is; other sizes run too.
      channels: as in `unet.UNet`.
      multipliers: as in `unet.UNet`, whole numbers; the embedding is as wide as the widest level.
      blocks: as in `unet.UNet`.
      attention: native resolutions with attention.
      out_channels: of the result.
      head_channels: of an attention head.
      noise_channels: multiplier of the Fourier features' number, 0 for the first level's channels.
      classes: number of labels, or None; without a label the network is unconditional.
      label_balance: share of the label in the embedding.
      concat_balance: share of the skip in a join.
      balance: as in `MPBlock`.
      clip: as in `MPBlock`.
      taps: as in `MPBlock`.
      dropout: as in `unet.UNet`.
      dtype: as in `unet.UNet`.
      remat: as in `unet.UNet`.
      plain_conv: as in `unet.UNet`.
    """

    resolution: int = 64
    channels: int = 192
    multipliers: tuple[int, ...] = (1, 2, 3, 4)
    blocks: int = 3
    attention: tuple[int, ...] = (16, 8)
    out_channels: int = 3
    head_channels: int = 64
    noise_channels: int = 0
    classes: int | None = None
    label_balance: float = 0.5
    concat_balance: float = 0.5
    balance: tuple[float, float] = (0.3, 0.3)
    clip: float = 256.0
    taps: tuple[float, ...] = (1, 1)
    dropout: float = 0.0
    dtype: Any = jnp.float32
    remat: bool = False
    plain_conv: bool = False

    @nn.compact
    def __call__(self, x: Array, condition: Array, label: Array | None = None) -> Array:
        embedding = self._embed(condition, label).astype(self.dtype)
        name = self.name_of
        h = jnp.concatenate([x, jnp.ones_like(x[..., :1])], -1).astype(self.dtype)
        h = self._conv(f"{name('enc', 0)}_conv", self.channels * self.multipliers[0])(h)
        skips = [h]
        for level, multiplier in enumerate(self.multipliers):
            if level:
                h = self._block(f"{name('enc', level)}_down", h.shape[-1], True, 0.5)(h, embedding)
                skips.append(h)
            for i in range(self.blocks):
                width, attends = self.channels * multiplier, self.attends(level)
                h = self._block(f"{name('enc', level)}_block{i}", width, True, 1, attends)(h, embedding)
                skips.append(h)
        for level, multiplier in reversed(list(enumerate(self.multipliers))):
            if level == len(self.multipliers) - 1:
                h = self._block(f"{name('dec', level)}_in0", h.shape[-1], False, 1, True)(h, embedding)
                h = self._block(f"{name('dec', level)}_in1", h.shape[-1], False)(h, embedding)
            else:
                h = self._block(f"{name('dec', level)}_up", h.shape[-1], False, 2)(h, embedding)
            for i in range(self.blocks + 1):
                width, attends = self.channels * multiplier, self.attends(level)
                h = mp_join(h, skips.pop(), self.concat_balance)
                h = self._block(f"{name('dec', level)}_block{i}", width, False, 1, attends)(h, embedding)
        gain = self.param("out_gain", nn.initializers.zeros, (), jnp.float32)
        return self._conv("out_conv", self.out_channels)(h, gain).astype(jnp.float32)

    def name_of(self, side: str, level: int) -> str:
        """Of a level's modules on a side, "enc" or "dec"."""
        return f"{side}_{self.resolution >> level}x{self.resolution >> level}"

    def attends(self, level: int) -> bool:
        """Whether attention follows a level's blocks."""
        return self.resolution >> level in self.attention

    def _conv(self, name: str, features: int) -> MPLayer:
        return MPLayer(features, 3, self.plain_conv, self.dtype, name=name)

    def _block(self, name: str, features: int, encoder: bool, factor: float = 1, attends: bool = False) -> nn.Module:
        block, heads = nn.remat(MPBlock) if self.remat else MPBlock, features // self.head_channels if attends else 0
        rest: dict[str, Any] = {"taps": self.taps, "balance": self.balance, "clip": self.clip, "dropout": self.dropout}
        return block(features, encoder, factor, heads, **rest, plain=self.plain_conv, dtype=self.dtype, name=name)

    def _embed(self, condition: Array, label: Array | None) -> Array:
        width, first = self.channels * max(self.multipliers), self.channels * self.multipliers[0]
        embedding = MPFourier(self.channels * self.noise_channels or first, name="emb_fourier")(condition)
        embedding = MPLayer(width, name="emb_noise")(embedding)
        if self.classes is not None:
            hot = jnp.zeros(self.classes) if label is None else jax.nn.one_hot(label, self.classes)
            hot = (hot * math.sqrt(self.classes)).astype(jnp.float32)
            embedding = mp_sum(embedding, MPLayer(width, name="emb_label")(hot), self.label_balance)
        return mp_silu(embedding)
