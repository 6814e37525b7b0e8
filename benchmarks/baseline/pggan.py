"""PGGAN at full size (Karras et al. 2018; paper, Table 2), codes mixed one at a time."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.baseline.layers import (
    EqualConv2d,
    EqualLinear,
    lrelu,
    minibatch_stddev,
    pixel_norm,
)

SQRT2 = math.sqrt(2.0)


class ConvBlock(nn.Module):
    """Two 3x3 convolutions with pixel norm and leaky ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv0 = EqualConv2d(inputs, outputs, 3, padding=1, gain=SQRT2)
        self.conv1 = EqualConv2d(outputs, outputs, 3, padding=1, gain=SQRT2)

    def forward(self, x: Tensor) -> Tensor:
        x = lrelu(pixel_norm(self.conv0(x)), 1.0)
        return lrelu(pixel_norm(self.conv1(x)), 1.0)


class PGGANGenerator(nn.Module):
    """Arguments as rtil.models.pggan.PGGANGenerator, without phases."""

    def __init__(
        self, resolution: int, channels: dict[int, int], image_channels: int, z_dim: int
    ) -> None:
        super().__init__()
        sizes = [2**i for i in range(2, resolution.bit_length())]
        widths = [int(channels[size]) for size in sizes]
        self.z_dim, self.num_blocks = z_dim, len(sizes)
        self.input = nn.Parameter(torch.randn(z_dim, widths[0], 4, 4))
        self.input_bias = nn.Parameter(torch.zeros(widths[0]))
        self.input_scale = SQRT2 / math.sqrt(widths[0] * 16)
        self.blocks = nn.ModuleList(
            ConvBlock(a, b) for a, b in zip([widths[0], *widths[:-1]], widths)
        )
        self.to_rgb = nn.ModuleList(EqualConv2d(c, image_channels, 1, gain=SQRT2) for c in widths)

    def head(self, z: Tensor, block: int) -> Tensor:
        """g_0: codes (B, z_dim) to the map after `block`."""
        x = F.conv_transpose2d(z[:, :, None, None], self.input * self.input_scale, self.input_bias)
        x = self.blocks[0](lrelu(pixel_norm(x), 1.0))
        return self.between(x, 1, block)

    def between(self, x: Tensor, start: int, stop: int) -> Tensor:
        """Blocks start + 1 .. stop."""
        for block in self.blocks[start:stop]:
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = block(x)
        return x

    def tail(self, x: Tensor, block: int) -> Tensor:
        """g_1: map after `block` to the image."""
        return self.to_rgb[-1](self.between(x, block, self.num_blocks))

    def forward(self, codes: list[Tensor], alpha: list[Tensor], block: int) -> Tensor:
        """g_1(sum_n g_0(z_n) alpha^n), one pass per code (paper, section 3.2).

        Args:
            codes: N of (B, z_dim).
            alpha: N of (B, C) or (B, 1).
            block: where the maps are mixed.
        """
        mixed = 0.0
        for z, weight in zip(codes, alpha):
            mixed = mixed + self.head(z, block) * weight[:, :, None, None]
        return self.tail(mixed, block)


class PGGANDiscriminator(nn.Module):
    """Arguments as rtil.models.pggan.PGGANDiscriminator, without phases."""

    def __init__(
        self,
        resolution: int,
        channels: dict[int, int],
        image_channels: int,
        stddev_group: int | None = 4,
    ) -> None:
        super().__init__()
        widths = [int(channels[2**i]) for i in range(2, resolution.bit_length())]
        self.stddev_group = stddev_group
        self.from_rgb = nn.ModuleList(
            EqualConv2d(image_channels, c, 1, gain=SQRT2) for c in widths
        )
        pairs = [(widths[0] + 1, widths[0], 4, 0)]
        pairs += [(narrow, wide, 3, 1) for narrow, wide in zip(widths[1:], widths)]
        self.blocks = nn.ModuleList(
            nn.ModuleList(
                [
                    EqualConv2d(a, b, 3, padding=1, gain=SQRT2),
                    EqualConv2d(b, b, kernel, padding=padding, gain=SQRT2),
                ]
            )
            for a, b, kernel, padding in pairs
        )
        self.score = EqualLinear(widths[0], 1, gain=SQRT2)

    def forward(self, x: Tensor) -> Tensor:
        """Scores (B,)."""
        x = self.from_rgb[-1](x)
        for i in range(len(self.blocks) - 1, -1, -1):
            if i == 0:
                x = minibatch_stddev(x, self.stddev_group)
            for conv in self.blocks[i]:
                x = lrelu(pixel_norm(conv(x)), 1.0)
            if i > 0:
                x = F.interpolate(x, scale_factor=0.5, mode="bilinear", align_corners=False)
        return self.score(x.flatten(1)).squeeze(1)
