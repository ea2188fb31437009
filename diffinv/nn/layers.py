r"""Layers of one example, (H, W, C), channels last: convolution, folded GroupNorm, embedding, attention, resampling.

They know nothing of diffusion. `vmap` supplies the batch, and gives the batched call bitwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

from diffinv.typing import Array

Dtype = Any
NHWC = ("NHWC", "HWIO", "NHWC")


def _dilated(size: int, dilation: int) -> int:
    """Extent of `size` taps with `dilation - 1` holes between neighbours."""
    return (size - 1) * dilation + 1 if size else 0


def _transposed_padding(sizes, kernel, out, strides, padding, lhs_dilation, rhs_dilation) -> list[tuple[int, int]]:
    """Padding (low, high) per axis with which the input gradient is a forward convolution of the cotangent."""
    pads = []
    for n, k, m, s, (low, _), ld, rd in zip(sizes, kernel, out, strides, padding, lhs_dilation, rhs_dilation):
        before = _dilated(k, rd) - 1 - low
        pads.append((before, _dilated(n, ld) + _dilated(k, rd) - 1 - _dilated(m, s) - before))
    return pads


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4, 5, 6))
def _conv(x, kernel, strides, padding, lhs_dilation, rhs_dilation, precision):
    return lax.conv_general_dilated(x, kernel, strides, padding, lhs_dilation, rhs_dilation, NHWC, precision=precision)


def _conv_fwd(x, kernel, *static):
    return _conv(x, kernel, *static), (x, kernel)


def _kernel_gradient(x, g, extent, strides, padding, lhs_dilation, rhs_dilation, precision) -> Array:
    """One matrix product for each tap of the kernel: a shifted, strided view of `x` against the cotangent."""
    spatial = [(low, high, d - 1) for (low, high), d in zip(padding, lhs_dilation)]
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *spatial, (0, 0, 0)])
    taps = []
    for tap in np.ndindex(*extent):
        start = [i * d for i, d in zip(tap, rhs_dilation)]
        stop = [i + (m - 1) * s + 1 for i, m, s in zip(start, g.shape[1:-1], strides)]
        view = lax.slice(x, (0, *start, 0), (x.shape[0], *stop, x.shape[-1]), (1, *strides, 1))
        taps.append(jnp.tensordot(view, g, (tuple(range(g.ndim - 1)),) * 2, precision=precision))
    return jnp.stack(taps).reshape(*extent, x.shape[-1], g.shape[-1])


def _conv_bwd(strides, padding, lhs_dilation, rhs_dilation, precision, residual, g):
    x, kernel = residual
    extent, geometry = kernel.shape[:-2], (strides, padding, lhs_dilation, rhs_dilation)
    pads = _transposed_padding(x.shape[1:-1], extent, g.shape[1:-1], *geometry)
    turned = jnp.flip(kernel, range(len(extent))).swapaxes(-1, -2)
    dx = lax.conv_general_dilated(g, turned, lhs_dilation, pads, strides, rhs_dilation, NHWC, precision=precision)
    return dx, _kernel_gradient(x, g, extent, *geometry, precision)


_conv.defvjp(_conv_fwd, _conv_bwd)

plain_conv = lax.conv_general_dilated


def _spec(lhs: Array, rhs: Array, numbers: Any) -> lax.ConvDimensionNumbers:
    return lax.conv_dimension_numbers(lhs.shape, rhs.shape, numbers)


def conv(
    lhs: Array,
    rhs: Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    precision: Any = None,
    preferred_element_type: Dtype | None = None,
) -> Array:
    r"""`lax.conv_general_dilated` whose input gradient is again a canonical forward convolution:

        dL/dx = conv(dL/dy, flip(kernel)^T),   strides and input dilation exchanged,

    and whose kernel gradient is one matrix product a tap. XLA's CPU backend leaves the transposed forms that JAX
    emits off its fast path inside `scan` (the input gradient 4 to 6 times slower, the kernel gradient 80;
    jax-ml/jax#12868). Usable as `nn.Conv(conv_general_dilated=conv)`. Reverse mode only, and under `vmap` the kernel's
    gradient is formed per example, then summed: for `jvp`, and for training steps outside a scan, use `plain_conv`.
    So do backends other than the CPU, grouped convolutions and layouts other than NHWC, HWIO.

    Source: original.

    Args:
      lhs: (N, H, W, C_in); rhs: (kh, kw, C_in, C_out); the rest as in `jax.lax`, static.
    """
    canonical = lhs.ndim == 4 and _spec(lhs, rhs, dimension_numbers) == _spec(lhs, rhs, NHWC)
    simple = feature_group_count == 1 and preferred_element_type is None
    if not (canonical and simple and jax.default_backend() == "cpu"):
        return plain_conv(
            lhs, rhs, window_strides, padding, lhs_dilation, rhs_dilation, dimension_numbers,
            feature_group_count, precision=precision, preferred_element_type=preferred_element_type,
        )  # fmt: skip
    ones = (1,) * (lhs.ndim - 2)
    lhs_dilation, rhs_dilation = tuple(lhs_dilation or ones), tuple(rhs_dilation or ones)
    if isinstance(padding, str):
        extent = [_dilated(k, d) for k, d in zip(rhs.shape[:-2], rhs_dilation)]
        padding = lax.padtype_to_pads(lhs.shape[1:-1], extent, window_strides, padding)
    return _conv(lhs, rhs, tuple(window_strides), tuple(map(tuple, padding)), lhs_dilation, rhs_dilation, precision)


def group_count(channels: int, groups: int = 32, smallest: int = 4) -> int:
    """`min(groups, channels // smallest)`, at least 1 (Karras et al. 2022); ADM's 32 from 128 channels on, or at
    `smallest = 1` always.

    Raises ValueError where it does not divide the channels.
    """
    count = max(1, min(groups, channels // smallest))
    if channels % count:
        raise ValueError(f"channels is {channels}, not divisible by {count} groups; choose a multiple of {count}")
    return count


@cache
def _members(channels: int, groups: int) -> np.ndarray:
    """Which channels are in which group, (groups, channels) of 0 and 1."""
    return np.repeat(np.eye(groups, dtype=np.float32), channels // groups, axis=1)


def group_moments(h: Array, groups: int) -> tuple[Array, Array, Array]:
    r"""`(h - c, m, v)`: mean and variance of (..., C / groups), of `h`, (..., C), about a reference, repeated to (C,):

        m = mean(h - c),   v = mean((h - c)^2) - m^2,   c = mean of a few of the group's numbers, without its gradient.

    c changes nothing but rounding: about 0, squares in float32 would lose a deviation of 1 beside a mean of 3000. What
    is lost is about (1 + m^2 / v) 6e-8 of v. Groups are matrix products, which XLA's CPU backend does not pull into the
    loops over the picture, as it does repetition: that is 15 % of a U-Net.

    Source: shifted data, Chan, Golub & LeVeque 1983, section 2. `groups` is static and divides C.
    """
    channels, over = h.shape[-1], tuple(range(h.ndim - 1))
    few = tuple(slice(side // 8, None, -(-side // 4)) for side in h.shape[:-1])
    members = _members(channels, groups).astype(h.dtype)
    product = partial(jnp.matmul, precision="highest")
    spread = lambda means: product(product(means, members.T / (channels // groups)), members)
    apart = h - lax.stop_gradient(spread(jnp.mean(h[few], over))).reshape((1,) * len(over) + (-1,))
    mean, square = spread(jnp.stack([jnp.mean(apart, over), jnp.mean(apart**2, over)]))
    variance = square - mean**2
    return apart, mean, jnp.where(variance < 0, 0.0, variance)  # whose derivative at 0 is that of the variance


class GroupNorm(nn.Module):
    """GroupNorm over (H, W, C/G), with FiLM, folded to one scale and shift per channel:

        y = a x + b,   g = gamma / sqrt(var + eps),   a = g (1 + scale),   b = (beta - mean g) (1 + scale) + shift,

    with x and its mean about a reference, see `group_moments`. Statistics and affine map are in float32, the result in
    the input's dtype. It is 3.7 times as fast on a CPU as normalising the reshaped groups.

    Source: Wu & He 2018; FiLM as in Dhariwal & Nichol 2021, `norm(h) (1 + scale) + shift`.

    Attributes:
      groups: the upper bound of `group_count`; static.
      eps: added to the variance; static.
      smallest: the fewest channels a group; static.
    """

    groups: int = 32
    eps: float = 1e-5
    smallest: int = 4

    @nn.compact
    def __call__(self, x: Array, film: Sequence[Array] | None = None) -> Array:
        channels = x.shape[-1]
        count = group_count(channels, self.groups, self.smallest)
        gamma = self.param("scale", nn.initializers.ones, (channels,), jnp.float32)
        beta = self.param("bias", nn.initializers.zeros, (channels,), jnp.float32)
        h, mean, variance = group_moments(x.astype(jnp.float32), count)
        a = gamma * lax.rsqrt(variance + self.eps)
        b = beta - mean * a
        if film is not None:
            scale, shift = (f.astype(jnp.float32) for f in film)
            a, b = a * (1 + scale), b * (1 + scale) + shift
        return (h * a[None, None] + b[None, None]).astype(x.dtype)


def time_embedding(t: Array, size: int, period: float = 1e4, shift: int = 0) -> Array:
    r"""`[cos(t f), sin(t f)]`, `f_k = exp(-ln(period) k / (half - shift))`, k < half = size // 2; (size,) float32.

    Cosines first. Source: Dhariwal & Nichol 2021, `timestep_embedding`; `shift = 1` is Ho et al. 2020's, whose last
    frequency is 1 / period. An odd size is padded with one 0.
    """
    half = size // 2
    frequencies = jnp.exp(-math.log(period) * jnp.arange(half, dtype=jnp.float32) / (half - shift))
    angles = jnp.asarray(t).astype(jnp.float32) * frequencies
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles), jnp.zeros(size % 2, jnp.float32)])


def attend(qkv: Array, heads: int, legacy: bool = True) -> Array:
    r"""`softmax(q k^T / sqrt(d)) v` per head, from one projection (T, 3 C) to (T, C); softmax in float32.

    Source: Vaswani et al. 2017. `legacy` (static): ADM's channel order, (heads, 3, d); otherwise (3, heads, d).
    The scale is d^{-1/4} on q and on k, which is ADM's and safer in bf16.
    """
    length, width = qkv.shape[0], qkv.shape[1] // 3
    if width % heads:
        raise ValueError(f"heads is {heads}, which does not divide the {width} channels; choose a divisor")
    split = (heads, 3, -1) if legacy else (3, heads, -1)
    q, k, v = jnp.moveaxis(qkv.reshape(length, *split), 2 if legacy else 1, 0)
    scale = (width // heads) ** -0.25
    weights = jnp.einsum("thd,shd->hts", q * scale, k * scale).astype(jnp.float32)
    weights = jax.nn.softmax(weights, axis=-1).astype(qkv.dtype)
    return jnp.einsum("hts,shd->thd", weights, v).reshape(length, width)


def up(x: Array) -> Array:
    """Nearest neighbour, twice the size: (H, W, C) to (2 H, 2 W, C). Dhariwal & Nichol 2021."""
    h, w, c = x.shape
    return jnp.broadcast_to(x[:, None, :, None], (h, 2, w, 2, c)).reshape(2 * h, 2 * w, c)


def down(x: Array) -> Array:
    """Mean of 2 x 2 pixels: (H, W, C) to (H/2, W/2, C). Dhariwal & Nichol 2021."""
    h, w, c = x.shape
    if h % 2 or w % 2:
        raise ValueError(f"x is {x.shape}; its height and width must be even to be halved, pad it first")
    return jnp.mean(x.reshape(h // 2, 2, w // 2, 2, c), axis=(1, 3))


def space_to_depth(x: Array, patch: int) -> Array:
    """(H, W, C) to (H/p, W/p, p p C), channel index (row, column, C). `patch` static."""
    h, w, c = x.shape
    if h % patch or w % patch:
        raise ValueError(f"x is {x.shape}; its height and width must be divisible by patch = {patch}")
    return x.reshape(h // patch, patch, w // patch, patch, c).swapaxes(1, 2).reshape(h // patch, w // patch, -1)


def depth_to_space(x: Array, patch: int) -> Array:
    """The inverse of `space_to_depth`."""
    h, w, c = x.shape
    blocks = x.reshape(h, w, patch, patch, c // patch**2)
    return blocks.swapaxes(1, 2).reshape(h * patch, w * patch, -1)


def convolution(features: int, plain: bool = False, **options: Any) -> Callable[[Array], Array]:
    """A 3x3 `nn.Conv` of one example, padding 1, on `conv` (or `plain_conv`)."""
    return nn.Conv(features, (3, 3), padding=1, conv_general_dilated=plain_conv if plain else conv, **options)
