"""diffinv's U-Net in PyTorch, with the Flax weights: the yardstick of `benchmarks.sampling` and of the parity test.

Written as one writes it in PyTorch: (B, C, H, W), channels_last in memory, its own GroupNorm, attention and pixel
(un)shuffle. Module names are those of the Flax network, so that weights map on by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from flax import traverse_util
from torch import nn
from torch.nn import functional as F

from diffinv.nn import layers
from diffinv.nn import unet as flax_unet


def _down(x: torch.Tensor) -> torch.Tensor:
    return F.avg_pool2d(x, 2)


def _up(x: torch.Tensor) -> torch.Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")


def _norm(net: flax_unet.UNet, channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(layers.group_count(channels, net.groups, net.smallest_group), channels, net.eps)


class ResBlock(nn.Module):
    """`diffinv.nn.unet.ResBlock`, from `channels` to `features`."""

    def __init__(self, net: flax_unet.UNet, channels: int, features: int, resample: Any = None) -> None:
        super().__init__()
        self.resample = resample
        self.in_layers_0, self.in_layers_2 = _norm(net, channels), nn.Conv2d(channels, features, 3, padding=1)
        self.emb_layers_1 = nn.Linear(4 * net.channels, 2 * features)
        self.out_layers_0, self.out_layers_3 = _norm(net, features), nn.Conv2d(features, features, 3, padding=1)
        self.skip_connection = nn.Conv2d(channels, features, 1) if channels != features else nn.Identity()

    def forward(self, x: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        resample = self.resample or (lambda a: a)
        h = self.in_layers_2(resample(F.silu(self.in_layers_0(x))))
        scale, shift = self.emb_layers_1(F.silu(embedding))[..., None, None].chunk(2, 1)
        h = F.silu(torch.addcmul(shift, self.out_layers_0(h), 1 + scale))
        return self.out_layers_3(h) + self.skip_connection(resample(x))


class AttentionBlock(nn.Module):
    """`diffinv.nn.unet.AttentionBlock`."""

    def __init__(self, net: flax_unet.UNet, channels: int) -> None:
        super().__init__()
        self.heads = net.heads or max(1, channels // net.head_channels)
        self.legacy = net.legacy_attention
        self.norm, self.qkv = _norm(net, channels), nn.Linear(channels, 3 * channels)
        self.proj_out = nn.Linear(channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, channels, height, width = x.shape
        h = self.norm(x).permute(0, 2, 3, 1).reshape(batch, height * width, channels)
        split = (self.heads, 3, -1) if self.legacy else (3, self.heads, -1)
        q, k, v = self.qkv(h).reshape(batch, height * width, *split).unbind(3 if self.legacy else 2)
        h = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
        h = self.proj_out(h.transpose(1, 2).reshape(batch, height * width, channels))
        return x + h.reshape(batch, height, width, channels).permute(0, 3, 1, 2)


class UNet(nn.Module):
    """The network of the Flax module `net`: `(x (B, C_in, H, W), condition (B,) or (1,)) -> (B, out_channels, H, W)`.

    Without labels and dropout. `load` fills in its weights.
    """

    def __init__(self, net: flax_unet.UNet, in_channels: int = 3) -> None:
        super().__init__()
        if net.classes is not None:
            raise ValueError(f"classes is {net.classes}; this re-implementation knows no labels")
        self.net, self.in_channels = net, in_channels
        widths = [int(net.channels * m) for m in net.multipliers]
        patch, embedding = net.patch**2, 4 * net.channels
        self.time_embed_0, self.time_embed_2 = nn.Linear(net.channels, embedding), nn.Linear(embedding, embedding)
        self.input_blocks_0_0 = nn.Conv2d(patch * in_channels, widths[0], 3, padding=1)
        self.ways: list[tuple[str, list[Any]]] = []  # "push" or "pop" or "stay", and the steps that follow
        channels, skips = widths[0], [widths[0]]
        for level, width in enumerate(widths):
            for _ in range(net.blocks):
                self._way("push", self._block(f"input_blocks_{len(skips)}", channels, width, 2**level))
                channels = width
                skips.append(width)
            if level < len(widths) - 1:
                self._way("push", [self._resample(f"input_blocks_{len(skips)}_0", width, _down)])
                skips.append(width)
        middle = [("middle_block_0", ResBlock), ("middle_block_1", AttentionBlock), ("middle_block_2", ResBlock)]
        for name, kind in middle:
            self.add_module(name, kind(net, *[channels] * (2 if kind is ResBlock else 1)))
        self._way("stay", [name for name, _ in middle])
        index = 0
        for level, width in reversed(list(enumerate(widths))):
            for block in range(net.blocks + 1):
                name = f"output_blocks_{index}"
                steps = self._block(name, channels + skips.pop(), width, 2**level)
                if level and block == net.blocks:
                    steps.append(self._resample(f"{name}_{len(steps)}", width, _up))
                self._way("pop", steps)
                channels, index = width, index + 1
        self.out_0 = _norm(net, channels)
        self.out_2 = nn.Conv2d(channels, net.out_channels * patch, 3, padding=1)

    def _way(self, kind: str, steps: list[Any]) -> None:
        self.ways.append((kind, steps))

    def _block(self, name: str, channels: int, features: int, factor: int) -> list[Any]:
        self.add_module(f"{name}_0", ResBlock(self.net, channels, features))
        if factor not in self.net.attention:
            return [f"{name}_0"]
        self.add_module(f"{name}_1", AttentionBlock(self.net, features))
        return [f"{name}_0", f"{name}_1"]

    def _resample(self, name: str, width: int, resample: Any) -> Any:
        if not self.net.resample_blocks:
            return resample
        self.add_module(name, ResBlock(self.net, width, width, resample))
        return name

    def _run(self, step: Any, h: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        module = getattr(self, step) if isinstance(step, str) else step
        return module(h, embedding) if isinstance(module, ResBlock) else module(h)

    def _embed(self, condition: torch.Tensor) -> torch.Tensor:
        half = self.net.channels // 2
        order = torch.arange(half, dtype=torch.float32, device=condition.device)
        frequencies = torch.exp(-math.log(1e4) * order / half)
        angles = self.net.time_scale * condition.float()[:, None] * frequencies
        h = F.pad(torch.cat([torch.cos(angles), torch.sin(angles)], 1), (0, self.net.channels % 2))
        return self.time_embed_2(F.silu(self.time_embed_0(h.to(self.time_embed_0.weight.dtype))))

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        embedding = self._embed(condition)
        h = self.input_blocks_0_0(F.pixel_unshuffle(x, self.net.patch))
        skips = [h]
        for kind, steps in self.ways:
            h = torch.cat([h, skips.pop()], 1) if kind == "pop" else h
            for step in steps:
                h = self._run(step, h, embedding)
            if kind == "push":
                skips.append(h)
        return F.pixel_shuffle(self.out_2(F.silu(self.out_0(h))), self.net.patch)


def _unshuffled(weight: np.ndarray, axis: int, patch: int) -> np.ndarray:
    """Channels in diffinv's order (row, column, C), to PyTorch's (C, row, column)."""
    shape = weight.shape
    weight = weight.reshape(*shape[:axis], patch**2, shape[axis] // patch**2, *shape[axis + 1 :])
    return weight.swapaxes(axis, axis + 1).reshape(shape)


def filled(model: nn.Module, params: Any, patch: int, ends: tuple[str, str], one: Callable[..., bool]) -> Any:
    """`model`, frozen, with Flax parameters; `ends` are its first and last convolutions, whose channels hold patches.

    `one(path)`: a matrix that is a convolution of 1 x 1 there.
    """
    state = {}
    for path, leaf in traverse_util.flatten_dict(params.get("params", params)).items():
        value = np.asarray(leaf)
        if path == (ends[0], "kernel"):
            value = _unshuffled(value, 2, patch)
        if path[0] == ends[1]:
            value = _unshuffled(value, value.ndim - 1, patch)
        value = np.array(value.transpose({4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[value.ndim]), order="C")
        name = ".".join(path[:-1] + ({"kernel": "weight", "scale": "weight"}.get(path[-1], path[-1]),))
        state[name] = torch.from_numpy(value[..., None, None] if value.ndim == 2 and one(path) else value)
    model.load_state_dict(state)
    return model.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def load(params: Any, net: flax_unet.UNet, in_channels: int = 3) -> UNet:
    """The PyTorch network with the Flax parameters `params` of `net` ({"params": ...} or what is inside), frozen."""
    ends, one = ("input_blocks_0_0", "out_2"), lambda path: path[-2] == "skip_connection"
    return filled(UNet(net, in_channels), params, net.patch, ends, one)
