r"""The U-Net of ADM (Dhariwal & Nichol 2021, arXiv:2105.05233), exactly, and small ones of the same build.

Module names are the checkpoint's with dots as underscores (`input_blocks_3_0/in_layers_2/kernel`), so that a public
state dict maps on by name. 1x1 convolutions are dense layers: kernels (C_in, C_out).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffinv.nn import layers
from diffinv.typing import Array

_zeros = nn.initializers.zeros


class ResBlock(nn.Module):
    """norm, SiLU, (resample), conv, FiLM norm, SiLU, dropout, zero conv; the skip is resampled and projected too.

    All attributes are static.

    Attributes:
      features: output channels.
      resample: `layers.up`, `layers.down` or None.
      groups: of the norms, see `layers.GroupNorm`.
      eps: of the norms.
      dropout: rate; acts only where `apply` is given an rng named "dropout".
      plain: use `lax`'s own convolution (training and forward mode).
      dtype: of the computation; parameters are float32.
      smallest: fewest channels a group.
      film: the embedding scales and shifts the norm; otherwise it is added before it (Ho et al. 2020).
    """

    features: int
    resample: Any = None
    groups: int = 32
    eps: float = 1e-5
    dropout: float = 0.0
    plain: bool = False
    dtype: Any = jnp.float32
    smallest: int = 4
    film: bool = True

    @nn.compact
    def __call__(self, x: Array, embedding: Array) -> Array:
        norm = lambda name: layers.GroupNorm(self.groups, self.eps, self.smallest, name=name)
        conv = lambda name, **kw: layers.convolution(self.features, self.plain, name=name, dtype=self.dtype, **kw)
        dense = lambda features, name: nn.Dense(features, name=name, dtype=self.dtype)
        resample = self.resample or (lambda a: a)
        h = conv("in_layers_2")(resample(nn.silu(norm("in_layers_0")(x))))
        film = dense((1 + self.film) * self.features, "emb_layers_1")(nn.silu(embedding))
        h = norm("out_layers_0")(h, jnp.split(film, 2)) if self.film else norm("out_layers_0")(h + film[None, None])
        h = nn.silu(h)
        h = nn.Dropout(self.dropout, deterministic=not self.has_rng("dropout"))(h)
        h = conv("out_layers_3", kernel_init=_zeros)(h)
        x = resample(x)
        return h + (x if x.shape[-1] == self.features else dense(self.features, "skip_connection")(x))


class AttentionBlock(nn.Module):
    """`x + proj(attend(qkv(norm(x))))` over the H W positions; the last projection starts at zero.

    All attributes are static.

    Attributes:
      head_channels: channels a head, where `heads` is None.
      legacy: ADM's (heads, 3, d) order of qkv.
      groups: of the norm, see `layers.GroupNorm`.
      eps: of the norm.
      dtype: of the computation; parameters are float32.
      smallest: fewest channels a group.
      heads: their number, or None.
    """

    head_channels: int = 64
    legacy: bool = True
    groups: int = 32
    eps: float = 1e-5
    dtype: Any = jnp.float32
    smallest: int = 4
    heads: int | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        height, width, channels = x.shape
        h = layers.GroupNorm(self.groups, self.eps, self.smallest, name="norm")(x).reshape(height * width, channels)
        qkv = nn.Dense(3 * channels, name="qkv", dtype=self.dtype)(h)
        h = layers.attend(qkv, self.heads or max(1, channels // self.head_channels), self.legacy)
        h = nn.Dense(channels, name="proj_out", dtype=self.dtype, kernel_init=_zeros)(h)
        return x + h.reshape(x.shape)


class Downsample(nn.Module):
    """A 3x3 convolution of stride 2, (H, W, C) to (H/2, W/2, C), with a border of one pixel.

    Attributes:
      corner: the border is on the lower right alone, as in Ho et al. 2020, not on every side; static.
      plain: see `layers.conv`; static.
      dtype: of the computation; static.
    """

    corner: bool = False
    plain: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        border = (0, 1) if self.corner else (1, 1)
        conv = layers.plain_conv if self.plain else layers.conv
        options = {"strides": 2, "padding": (border, border), "conv_general_dilated": conv, "dtype": self.dtype}
        return nn.Conv(x.shape[-1], (3, 3), name="op", **options)(x)


class Upsample(nn.Module):
    """Nearest neighbour, then a 3x3 convolution: (H, W, C) to (2 H, 2 W, C).

    Attributes:
      plain: see `layers.conv`; static.
      dtype: of the computation; static.
    """

    plain: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return layers.convolution(x.shape[-1], self.plain, name="conv", dtype=self.dtype)(layers.up(x))


class UNet(nn.Module):
    """`(x (H, W, C_in), condition (), label=None, low=None, level=None) -> (H, W, out_channels)`, for one example.

    The result is float32. All attributes are static.

    Attributes:
      channels: the width, before the multipliers.
      multipliers: the width of level i is `int(channels * multipliers[i])`.
      blocks: residual blocks a level (one more on the way up).
      attention: downsampling factors, of the patched grid, at which attention follows each block.
      head_channels: channels a head.
      out_channels: 6 for ADM's learned variance of RGB.
      patch: space-to-depth in, depth-to-space out; 1 is ADM.
      time_scale: multiplies the condition before the embedding; 1 for DDPM indices, larger for `log(r) / 4`.
      classes: number of labels, or None.
      groups: of GroupNorm, at most.
      eps: of GroupNorm.
      dropout: rate; acts only where `apply` is given an rng named "dropout".
      legacy_attention: ADM's (heads, 3, d) order of qkv.
      resample_blocks: residual blocks that resample (ADM's `resblock_updown`); otherwise plain means and repeats, which
        cost nothing.
      dtype: of the computation, e.g. bfloat16; parameters and output are float32.
      remat: recompute each block in the backward pass.
      plain_conv: `lax`'s own convolution, for training and forward mode; see `layers.conv`.
      smallest_group: fewest channels a group of GroupNorm; 1 for exactly `groups` (public weights).
      heads: number of heads, in place of `head_channels`.
      film: see `ResBlock`; False for DDPM (Ho et al. 2020).
      resample_convs: with `resample_blocks=False`, resampling by `Downsample` and `Upsample`, as in DDPM.
      corner_padding: of `Downsample`.
      frequency_shift: of `layers.time_embedding`.
      scalar_label: the label is a number, in [0, 1], and not one of `classes`: two dense layers embed it.
      low_channels: of a coarse picture `low`, (H, W, low_channels), which joins x; its `level`, (), is embedded as
        the condition is (Saharia et al. 2022, arXiv:2205.11487); 0 for none.
    """

    channels: int = 64
    multipliers: tuple[float, ...] = (1, 2, 2)
    blocks: int = 1
    attention: tuple[int, ...] = (4,)
    head_channels: int = 64
    out_channels: int = 3
    patch: int = 1
    time_scale: float = 1.0
    classes: int | None = None
    groups: int = 32
    eps: float = 1e-5
    dropout: float = 0.0
    legacy_attention: bool = True
    resample_blocks: bool = True
    dtype: Any = jnp.float32
    remat: bool = False
    plain_conv: bool = False
    smallest_group: int = 4
    heads: int | None = None
    film: bool = True
    resample_convs: bool = False
    corner_padding: bool = False
    frequency_shift: int = 0
    scalar_label: bool = False
    low_channels: int = 0

    @nn.compact
    def __call__(
        self,
        x: Array,
        condition: Array,
        label: Array | None = None,
        low: Array | None = None,
        level: Array | None = None,
    ) -> Array:
        widths = [int(self.channels * m) for m in self.multipliers]
        x, embedding = self._joined(x, self._embed(condition, label), low, level)
        x = layers.space_to_depth(x, self.patch).astype(self.dtype)
        h = layers.convolution(widths[0], self.plain_conv, name="input_blocks_0_0", dtype=self.dtype)(x)
        skips = [h]
        for depth, width in enumerate(widths):
            for _ in range(self.blocks):
                h = self._block(f"input_blocks_{len(skips)}", h, embedding, width, 2**depth)
                skips.append(h)
            if depth < len(widths) - 1:
                h = self._resample(f"input_blocks_{len(skips)}_0", h, embedding, width, layers.down)
                skips.append(h)
        h = self._res("middle_block_0", widths[-1])(h, embedding)
        h = self._attention("middle_block_1")(h)
        h = self._res("middle_block_2", widths[-1])(h, embedding)
        index = 0
        for depth, width in reversed(list(enumerate(widths))):
            for block in range(self.blocks + 1):
                name = f"output_blocks_{index}"
                h = self._block(name, jnp.concatenate([h, skips.pop()], -1), embedding, width, 2**depth)
                if depth and block == self.blocks:
                    last = 2 if 2**depth in self.attention else 1
                    h = self._resample(f"{name}_{last}", h, embedding, width, layers.up)
                index += 1
        return self._out(h)

    def _joined(self, x: Array, embedding: Array, low: Array | None, level: Array | None) -> tuple[Array, Array]:
        if {low is None, level is None} != {not self.low_channels}:
            shown = "None" if low is None else low.shape
            raise ValueError(
                f"low is {shown} for a network of low_channels={self.low_channels}; give it and level, or none"
            )
        if low is None or level is None:
            return x, embedding
        return jnp.concatenate([x, low.astype(x.dtype)], -1), embedding + self._time("level_embed", level)

    def _embed(self, condition: Array, label: Array | None) -> Array:
        h = self._time("time_embed", condition)
        if (self.classes is None and not self.scalar_label) != (label is None):
            raise ValueError(f"label is {label} for a network of classes={self.classes}; give both or neither")
        return h if label is None else h + self._label(label, 4 * self.channels)

    def _time(self, name: str, condition: Array) -> Array:
        t, width = self.time_scale * jnp.asarray(condition), 4 * self.channels
        h = layers.time_embedding(t, self.channels, shift=self.frequency_shift).astype(self.dtype)
        h = nn.silu(nn.Dense(width, name=f"{name}_0", dtype=self.dtype)(h))
        return nn.Dense(width, name=f"{name}_2", dtype=self.dtype)(h)

    def _label(self, label: Array, width: int) -> Array:
        if self.classes is not None:
            return nn.Embed(self.classes, width, name="label_emb", dtype=self.dtype)(label)
        h = nn.Dense(width, name="label_emb_0", dtype=self.dtype)(jnp.asarray(label, jnp.float32).reshape(1))
        return nn.Dense(width, name="label_emb_2", dtype=self.dtype)(nn.silu(h))

    def _res(self, name: str, width: int, resample: Any = None) -> nn.Module:
        block = nn.remat(ResBlock) if self.remat else ResBlock
        options: dict[str, Any] = {"smallest": self.smallest_group, "film": self.film, "name": name}
        return block(width, resample, self.groups, self.eps, self.dropout, self.plain_conv, self.dtype, **options)

    def _resample(self, name: str, h: Array, embedding: Array, width: int, resample: Any) -> Array:
        if self.resample_blocks:
            return self._res(name, width, resample)(h, embedding)
        if not self.resample_convs:
            return resample(h)
        options = {"plain": self.plain_conv, "dtype": self.dtype, "name": name}
        return (Upsample(**options) if resample is layers.up else Downsample(self.corner_padding, **options))(h)

    def _attention(self, name: str) -> nn.Module:
        block = nn.remat(AttentionBlock) if self.remat else AttentionBlock
        options: dict[str, Any] = {"smallest": self.smallest_group, "heads": self.heads, "name": name}
        return block(self.head_channels, self.legacy_attention, self.groups, self.eps, self.dtype, **options)

    def _block(self, name: str, h: Array, embedding: Array, width: int, factor: int) -> Array:
        h = self._res(f"{name}_0", width)(h, embedding)
        return self._attention(f"{name}_1")(h) if factor in self.attention else h

    def _out(self, h: Array) -> Array:
        h = nn.silu(layers.GroupNorm(self.groups, self.eps, self.smallest_group, name="out_0")(h))
        features = self.out_channels * self.patch**2
        h = layers.convolution(features, self.plain_conv, name="out_2", dtype=self.dtype, kernel_init=_zeros)(h)
        return layers.depth_to_space(h, self.patch).astype(jnp.float32)


def adm_imagenet256(**changes: Any) -> UNet:
    """ADM, ImageNet 256x256, unconditional: 552,814,086 parameters. Source: openai/guided-diffusion."""
    config = {"channels": 256, "multipliers": (1, 1, 2, 2, 4, 4), "blocks": 2, "attention": (8, 16, 32)}
    return UNet(**{**config, "out_channels": 6, **changes})


def adm_ffhq256(**changes: Any) -> UNet:
    """ADM, FFHQ 256x256, of DPS (Chung et al. 2023) and DAPS. Source: DPS2022/diffusion-posterior-sampling."""
    config = {"channels": 128, "multipliers": (1, 1, 2, 2, 4, 4), "blocks": 1, "attention": (16,)}
    return UNet(**{**config, "out_channels": 6, **changes})


def small32(**changes: Any) -> UNet:
    """The embedded 32x32 prior: two-pixel patches, for EDM's condition `log(r) / 4`."""
    config = {"channels": 64, "multipliers": (1, 1.5, 2), "blocks": 1, "attention": (2, 4), "patch": 2}
    return UNet(**{**config, "head_channels": 32, "time_scale": 40.0, "resample_blocks": False, **changes})


def parameter_count(variables: Any) -> int:
    """Number of scalars in a parameter tree, of arrays or of `jax.eval_shape`'s shapes."""
    return sum(leaf.size for leaf in jax.tree.leaves(variables))
