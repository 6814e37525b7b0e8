"""StyleGAN2 with skip generator and residual discriminator (Karras et al. 2020)."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.baseline.layers import (
    EqualConv2d,
    EqualLinear,
    ModulatedConv2d,
    kernel2d,
    lrelu,
    minibatch_stddev,
    pixel_norm,
    upfirdn2d,
)


class StyledConv(nn.Module):
    """Modulated convolution, noise, bias, leaky ReLU."""

    def __init__(self, inputs: int, outputs: int, w_dim: int, up: bool) -> None:
        super().__init__()
        self.conv = ModulatedConv2d(inputs, outputs, 3, w_dim, up)
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor, w: Tensor, noise: Tensor) -> Tensor:
        x = self.conv(x, w)
        x = x + self.noise_strength * noise
        return lrelu(x + self.bias.view(1, -1, 1, 1))


class ToRGB(nn.Module):
    """1x1 modulated convolution without demodulation."""

    def __init__(self, inputs: int, image_channels: int, w_dim: int) -> None:
        super().__init__()
        self.conv = ModulatedConv2d(inputs, image_channels, 1, w_dim, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(image_channels))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        return self.conv(x, w) + self.bias.view(1, -1, 1, 1)


class Block(nn.Module):
    """One resolution."""

    def __init__(self, inputs: int | None, outputs: int, image_channels: int, w_dim: int) -> None:
        super().__init__()
        self.up = StyledConv(inputs, outputs, w_dim, up=True) if inputs else None
        self.conv = StyledConv(outputs, outputs, w_dim, up=False)
        self.to_rgb = ToRGB(outputs, image_channels, w_dim)


class StyleGAN2Generator(nn.Module):
    """Arguments as rtil.models.stylegan2.StyleGAN2Generator."""

    def __init__(
        self,
        resolution: int,
        channels: dict[int, int],
        image_channels: int,
        z_dim: int,
        num_mapping: int = 8,
        mapping_lr: float = 0.01,
    ) -> None:
        super().__init__()
        sizes = [2**i for i in range(2, resolution.bit_length())]
        widths = [int(channels[size]) for size in sizes]
        self.z_dim, self.num_blocks, self.num_styles = z_dim, len(sizes), 2 * len(sizes)
        self.image_shape = (image_channels, resolution, resolution)
        self.shapes = {k: (c, s, s) for k, (c, s) in enumerate(zip(widths, sizes), start=1)}
        self.noise_sizes = [4] + [size for size in sizes[1:] for _ in range(2)]
        self.mapping = nn.ModuleList(
            EqualLinear(z_dim, z_dim, mapping_lr) for _ in range(num_mapping)
        )
        self.const = nn.Parameter(torch.randn(1, widths[0], 4, 4))
        self.blocks = nn.ModuleList(
            Block(a, b, image_channels, z_dim) for a, b in zip([None, *widths[:-1]], widths)
        )
        self.register_buffer("blur", kernel2d() * 4.0, persistent=False)
        for i, size in enumerate(self.noise_sizes):
            self.register_buffer(f"noise_{i}", torch.randn(1, 1, size, size))

    def map(self, z: Tensor) -> Tensor:
        """z (B, z_dim) to styles (B, num_styles, z_dim)."""
        w = pixel_norm(z)
        for layer in self.mapping:
            w = lrelu(layer(w))
        return w.unsqueeze(1).repeat(1, self.num_styles, 1)

    def step(
        self, k: int, x: Tensor | None, rgb: Tensor | None, w: Tensor, noise: list[Tensor]
    ) -> tuple[Tensor, Tensor | None]:
        """Block k on the map after block k - 1 and the image before it: toRGB, then block."""
        block = self.blocks[k - 1]
        if k == 1:
            return block.conv(self.const.repeat(len(w), 1, 1, 1), w[:, 0], noise[0]), None
        rgb = upfirdn2d(self.rgb(k - 1, x, rgb, w), self.blur, up=2, pad=(2, 1))
        x = block.up(x, w[:, 2 * k - 3], noise[2 * k - 3])
        return block.conv(x, w[:, 2 * k - 2], noise[2 * k - 2]), rgb

    def rgb(self, k: int, x: Tensor, rgb: Tensor | None, w: Tensor) -> Tensor:
        """Image after block k: its toRGB added to the image of the blocks before."""
        out = self.blocks[k - 1].to_rgb(x, w[:, 2 * k - 1])
        return out if rgb is None else out + rgb

    def forward(
        self,
        w: Tensor,
        noise: list[Tensor],
        add: dict[int, Tensor] | None = None,
        start: int = 0,
        x: Tensor | None = None,
        rgb: Tensor | None = None,
    ) -> Tensor:
        """Image (B, C, H, W) of styles, noise and injected maps, from block `start` on."""
        add = add or {}
        for k in range(start, self.num_blocks + 1):
            if k > start:
                x, rgb = self.step(k, x, rgb, w, noise)
            if k in add:
                x = x + add[k]
        return self.rgb(self.num_blocks, x, rgb, w)


class ConvLayer(nn.Module):
    """Convolution, bias, leaky ReLU; down = True blurs first and takes stride 2."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, down: bool = False, activate: bool = True
    ) -> None:
        super().__init__()
        stride, padding = (2, 0) if down else (1, kernel // 2)
        self.conv = EqualConv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bias = nn.Parameter(torch.zeros(outputs)) if activate else None
        self.pad = ((kernel + 2) // 2, (kernel + 1) // 2) if down else None
        self.register_buffer("blur", kernel2d(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.pad:
            x = upfirdn2d(x, self.blur, pad=self.pad)
        x = self.conv(x)
        return x if self.bias is None else lrelu(x + self.bias.view(1, -1, 1, 1))


class ResBlock(nn.Module):
    """Residual block that halves the size."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = ConvLayer(inputs, inputs, 3)
        self.conv2 = ConvLayer(inputs, outputs, 3, down=True)
        self.skip = ConvLayer(inputs, outputs, 1, down=True, activate=False)

    def forward(self, x: Tensor) -> Tensor:
        return (self.conv2(self.conv1(x)) + self.skip(x)) / math.sqrt(2)


class StyleGAN2Discriminator(nn.Module):
    """Arguments as rtil.models.stylegan2.StyleGAN2Discriminator."""

    def __init__(
        self,
        resolution: int,
        channels: dict[int, int],
        image_channels: int,
        stddev_group: int | None = 4,
    ) -> None:
        super().__init__()
        widths = [int(channels[2**i]) for i in range(resolution.bit_length() - 1, 1, -1)]
        self.stddev_group = stddev_group
        self.from_rgb = ConvLayer(image_channels, widths[0], 1)
        self.blocks = nn.ModuleList(ResBlock(a, b) for a, b in pairwise(widths))
        self.conv = ConvLayer(widths[-1] + 1, widths[-1], 3)
        self.hidden = EqualLinear(widths[-1] * 16, widths[-1])
        self.score = EqualLinear(widths[-1], 1)

    def forward(self, x: Tensor) -> Tensor:
        """Scores (B,)."""
        x = self.from_rgb(x)
        for block in self.blocks:
            x = block(x)
        x = self.conv(minibatch_stddev(x, self.stddev_group))
        x = lrelu(self.hidden(x.flatten(1)))
        return self.score(x).squeeze(1)


def style_of(v: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Styles w = lrelu(std v + mean) of ILO's free variable (Daras et al. 2021, code)."""
    return F.leaky_relu(std * v + mean, 0.2)
