"""Networks in PyTorch, to be exported: one of many kinds of layer, and a small U-Net of diffusers."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F


class Mixed(nn.Module):
    """Group, layer and batch norm, attention, grouped, strided and transposed convolutions, pools, mirrored padding."""

    def __init__(self, width=16):
        super().__init__()
        self.first, self.embed = nn.Conv2d(3, width, 3, padding=1), nn.Linear(width, 2 * width)
        self.group, self.down = nn.GroupNorm(4, width), nn.Conv2d(width, 2 * width, 3, 2, 1, groups=2)
        self.layer, self.mix = nn.LayerNorm(2 * width), nn.MultiheadAttention(2 * width, 4, batch_first=True)
        self.up, self.batch = nn.ConvTranspose2d(2 * width, width, 4, 2, 1), nn.BatchNorm2d(width)
        self.last = nn.Conv2d(2 * width, 3, 3, padding=1, padding_mode="reflect")

    def forward(self, x, t):
        angles = t[:, None] * torch.exp(torch.linspace(0, -4, 8))
        embedding = self.embed(F.silu(torch.cat([torch.sin(angles), torch.cos(angles)], -1)))
        scale, shift = embedding[:, :, None, None].chunk(2, 1)
        h = self.first(x)
        g = F.gelu(self.group(h) * (1 + scale) + shift)
        d = F.leaky_relu(self.down(g), 0.1)
        q = self.layer(d.flatten(2).transpose(1, 2))
        d = d + self.mix(q, q, q, need_weights=False)[0].transpose(1, 2).reshape(d.shape)
        low = F.interpolate(F.avg_pool2d(g, 2), scale_factor=2, mode="bilinear", align_corners=False)
        return self.last(torch.cat([self.batch(self.up(d)) + low, F.max_pool2d(h, 3, 1, 1)], 1))


class _Sample(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x, t):
        return self.net(x, t).sample


def diffusers_unet():
    """`UNet2DModel` of two levels, one with attention; skipped without diffusers."""
    diffusers = pytest.importorskip("diffusers")
    blocks = {
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    }
    widths = {"block_out_channels": (32, 64), "layers_per_block": 1, "norm_num_groups": 8}
    return _Sample(diffusers.UNet2DModel(sample_size=16, in_channels=3, out_channels=3, **blocks, **widths))


class Field(nn.Module):
    """What `examples/denoiser.onnx` was written from: the exact denoiser of a smooth Gaussian field of deviation 0.5.

    Its covariance is diagonal in the DCT of 8 x 8 pixels, with variances in proportion to 1 / (1 + k^2 + l^2).
    """

    def __init__(self):
        super().__init__()
        k = torch.arange(8, dtype=torch.float64)
        line = torch.cos(torch.pi * k[:, None] * (k + 0.5) / 8)
        line = line / line.norm(dim=1, keepdim=True)
        variance = 1 / (1 + k[:, None] ** 2 + k**2)
        self.basis = nn.Parameter(torch.kron(line, line).T.contiguous().float())
        self.variance = nn.Parameter((0.25 * variance / variance.mean()).flatten().float())

    def forward(self, x, sigma):
        gain = self.variance / (self.variance + sigma[:, None] ** 2)
        return ((x.flatten(1) @ self.basis * gain) @ self.basis.T).reshape(x.shape)
