"""diffinv's network for any size in PyTorch, with the Flax weights: the yardstick of `benchmarks.sampling`.

Written as one writes it in PyTorch: (B, C, H, W), channels_last in memory. Module names are those of the Flax network.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.torch_unet import filled
from diffinv.nn import convnet


class PixelNorm(nn.Module):
    """`diffinv.nn.convnet.PixelNorm`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-6) * self.gain[:, None, None]


class ConvBlock(nn.Module):
    """`diffinv.nn.convnet.ConvBlock`."""

    def __init__(self, channels: int, embedding: int) -> None:
        super().__init__()
        self.norm_in, self.norm_out = PixelNorm(channels), PixelNorm(channels)
        self.conv_in, self.conv_out = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        self.film = nn.Linear(embedding, 2 * channels)

    def forward(self, x: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        scale, shift = self.film(embedding)[..., None, None].chunk(2, 1)
        h = self.conv_in(F.silu(self.norm_in(x)))
        return x + self.conv_out(F.silu(torch.addcmul(shift, self.norm_out(h), 1 + scale)))


class ConvUNet(nn.Module):
    """The network of the Flax module `net`: `(x (B, C_in, H, W), condition (B,) or (1,)) -> (B, C_out, H, W)`."""

    def __init__(self, net: convnet.ConvUNet, in_channels: int = 3) -> None:
        super().__init__()
        self.net = net
        widths, embedding = [int(net.channels * m) for m in net.multipliers], 2 * net.channels
        self.embed0, self.embed1 = nn.Linear(net.channels, embedding), nn.Linear(embedding, embedding)
        self.first = nn.Conv2d(in_channels * net.patch**2, widths[0], 3, padding=1)
        for level, width in enumerate(widths):
            if level:
                self.add_module(f"down{level}", nn.Conv2d(widths[level - 1], width, 1))
                self.add_module(f"up{level - 1}", nn.Conv2d(width, widths[level - 1], 1))
            for name in (f"{way}{level}_{i}" for way in ("down", "up") for i in range(net.blocks)):
                self.add_module(name, ConvBlock(width, embedding))
        self.norm_last = PixelNorm(widths[0])
        self.last = nn.Conv2d(widths[0], net.out_channels * net.patch**2, 3, padding=1)

    def _embed(self, condition: torch.Tensor) -> torch.Tensor:
        half = self.net.channels // 2
        frequencies = torch.exp(-math.log(1e4) * torch.arange(half, dtype=torch.float32) / half)
        angles = self.net.time_scale * condition.float()[:, None] * frequencies
        h = torch.cat([torch.cos(angles), torch.sin(angles)], 1)
        return F.silu(self.embed1(F.silu(self.embed0(h))))

    def _blocks(self, name: str, h: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        for i in range(self.net.blocks):
            h = getattr(self, f"{name}_{i}")(h, embedding)
        return h

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        embedding, kept, levels = self._embed(condition), [], len(self.net.multipliers)
        h = self.first(F.pixel_unshuffle(x, self.net.patch))
        for level in range(levels):
            h = getattr(self, f"down{level}")(F.avg_pool2d(h, 2)) if level else h
            h = self._blocks(f"down{level}", h, embedding)
            kept.append(h)
        for level in reversed(range(levels)):
            if level < levels - 1:
                h = kept[level] + getattr(self, f"up{level}")(F.interpolate(h, scale_factor=2, mode="nearest"))
            h = self._blocks(f"up{level}", h, embedding)
        return F.pixel_shuffle(self.last(F.silu(self.norm_last(h))), self.net.patch)


def load(params: Any, net: convnet.ConvUNet, in_channels: int = 3) -> ConvUNet:
    """The PyTorch network with the Flax parameters `params` of `net` ({"params": ...} or what is inside), frozen."""
    one = lambda path: len(path) == 2 and path[0].startswith(("down", "up"))
    return filled(ConvUNet(net, in_channels), params, net.patch, ("first", "last"), one)
