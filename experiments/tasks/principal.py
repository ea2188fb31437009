"""An autoencoder of one level that begins as the principal components of squares, which it then improves on.

A difference of two SiLUs is linear, `silu(a) - silu(-a) = a`, and a channel that is large and constant makes a norm
over all channels a constant too: with components in pairs of both signs, the network of one level, whose residual
blocks begin as the identity, is the linear map to its codes and back. Original.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffinv.nn import layers
from diffinv.nn.autoencoder import AutoencoderKL

CONSTANT = 16.0  # of the constant pair, over components of variance 1
LOG_VARIANCE = -8.0  # of the codes at the start


class Components(NamedTuple):
    """Mean (D,), directions (K, D), and deviations (K,) along them, of squares."""

    mean: np.ndarray
    directions: np.ndarray
    deviations: np.ndarray


def components(pictures: np.ndarray, patch: int, count: int) -> Components:
    """The first `count` principal components of the squares of pictures (N, H, W, C) in [-1, 1]."""
    cut = jax.vmap(lambda x: layers.space_to_depth(x, patch))(jnp.asarray(pictures, jnp.float32))
    rows = np.asarray(cut, np.float64).reshape(-1, cut.shape[-1])
    values, vectors = np.linalg.eigh(np.cov(rows.T))
    order = np.argsort(-values)[:count]
    return Components(rows.mean(0), vectors[:, order].T, np.sqrt(np.maximum(values[order], 1e-8)))


def require_principal(net: AutoencoderKL, where: str = "config.net") -> None:
    """ValueError where the network cannot begin so: with one level, one group, and a pair of channels a code."""
    if len(net.multipliers) != 1 or net.groups != 1 or net.channels < 2 * net.code_channels + 2:
        raise ValueError(
            f"config.principal is True, and {where} has {len(net.multipliers)} levels, {net.groups} groups and "
            f"{net.channels} channels; give one level, one group and at least {2 * net.code_channels + 2} channels"
        )


def _pairs(kernel: Any, bias: Any, rows: np.ndarray, offset: np.ndarray) -> tuple[Any, Any]:
    """A first convolution: `rows @ x + offset` and its negative in the first channels, the constant pair after them,
    and pairs of what was drawn in the others."""
    count, middle = len(rows), kernel.shape[0] // 2
    first, half = 2 * count + 2, (kernel.shape[-1] - 2 * count - 2) // 2
    own = np.zeros((*kernel.shape[:-1], first), np.float32)
    own[middle, middle, :, : 2 * count] = np.concatenate([rows, -rows]).T
    drawn = kernel[..., first : first + half]
    rest = jnp.zeros((*kernel.shape[:-1], kernel.shape[-1] - first - 2 * half), kernel.dtype)
    offsets = np.concatenate([offset, -offset, [CONSTANT, -CONSTANT], np.zeros(bias.shape[0] - first)])
    return jnp.concatenate([jnp.asarray(own), drawn, -drawn, rest], -1), offsets


def _differences(shape: tuple[int, ...], columns: np.ndarray) -> np.ndarray:
    """A last convolution: of the pairs' differences, by `columns` (K, out)."""
    kernel = np.zeros(shape, np.float32)
    middle, count = shape[0] // 2, len(columns)
    kernel[middle, middle, :count] = columns
    kernel[middle, middle, count : 2 * count] = -columns
    return kernel


def _half(half: dict, rows: np.ndarray, offset: np.ndarray, columns: np.ndarray, bias: np.ndarray) -> dict:
    """Encoder or decoder, with norms that keep the scale of their input."""
    channels = half["conv_in"]["bias"].shape[0]
    scale = np.sqrt((2 * CONSTANT**2 + 2 * len(rows)) / channels)

    def scaled(path: Any, leaf: Any) -> Any:
        return jnp.full_like(leaf, scale) if path[-1].key == "scale" else leaf

    half = jax.tree_util.tree_map_with_path(scaled, half)
    first = dict(zip(("kernel", "bias"), _pairs(half["conv_in"]["kernel"], half["conv_in"]["bias"], rows, offset)))
    last = {"kernel": _differences(half["conv_out"]["kernel"].shape, columns), "bias": bias}
    return {**half, "conv_in": first, "conv_out": last}


def begun(net: AutoencoderKL, params: dict, found: Components) -> dict:
    """The network's drawn parameters with those of the linear map in their place; its codes have variance 1."""
    count = net.code_channels
    identity = {"kernel": np.eye(2 * count), "bias": np.zeros(2 * count)}
    encoder = _half(
        params["encoder"],
        found.directions / found.deviations[:, None],
        -found.directions @ found.mean / found.deviations,
        np.concatenate([np.eye(count), np.zeros((count, count))], 1),
        np.concatenate([np.zeros(count), np.full(count, LOG_VARIANCE)]),
    )
    columns = found.directions * found.deviations[:, None]
    decoder = _half(params["decoder"], np.eye(count), np.zeros(count), columns, found.mean)
    plain = {"encoder": encoder, "decoder": decoder}
    plain |= {"quant_conv": identity} if net.quant else {}
    plain |= {"post_quant_conv": {"kernel": np.eye(count), "bias": np.zeros(count)}} if net.post_quant else {}
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), plain)
