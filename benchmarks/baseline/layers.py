"""Layers: equalised maps, modulated convolution, zero-insertion filter, minibatch deviation."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TAPS = (1.0, 3.0, 3.0, 1.0)


def lrelu(x: Tensor, gain: float = math.sqrt(2.0)) -> Tensor:
    """gain * leaky ReLU with slope 0.2."""
    return F.leaky_relu(x, 0.2) * gain


def pixel_norm(x: Tensor) -> Tensor:
    """x / rms over dimension 1 (Karras et al. 2018, section 4.2)."""
    return x / torch.sqrt(torch.mean(x**2, dim=1, keepdim=True) + 1e-8)


def kernel2d() -> Tensor:
    """The 4x4 binomial filter of StyleGAN2 with sum 1."""
    taps = torch.tensor(TAPS)
    kernel = taps[:, None] * taps[None, :]
    return kernel / kernel.sum()


def upfirdn2d(x: Tensor, kernel: Tensor, up: int = 1, pad: tuple[int, int] = (0, 0)) -> Tensor:
    """Inserts up - 1 zeros after each pixel, pads, and filters every channel (B, C, H, W)."""
    batch, channels, height, width = x.shape
    x = x.reshape(batch * channels, 1, height, 1, width, 1)
    x = F.pad(x, (0, up - 1, 0, 0, 0, up - 1))
    x = x.reshape(batch * channels, 1, height * up, width * up)
    x = F.pad(x, (*pad, *pad))
    x = F.conv2d(x, torch.flip(kernel, (0, 1))[None, None])
    return x.reshape(batch, channels, *x.shape[2:])


class EqualLinear(nn.Module):
    """Linear map whose weight is scaled when used (Karras et al. 2018, section 4.1)."""

    def __init__(self, inputs: int, outputs: int, lr: float = 1.0, gain: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / lr)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.scale, self.lr = gain * lr / math.sqrt(inputs), lr

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.scale, self.bias * self.lr)


class EqualConv2d(nn.Module):
    """Convolution whose weight is scaled when used (Karras et al. 2018, section 4.1)."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        padding: int = 0,
        bias: bool = True,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.scale = gain / math.sqrt(inputs * kernel**2)
        self.stride, self.padding = stride, padding

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.scale, self.bias, self.stride, self.padding)


class ModulatedConv2d(nn.Module):
    """Per-sample weights in one grouped convolution (Karras et al. 2020, eq. 1-3)."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        w_dim: int,
        up: bool = False,
        demodulate: bool = True,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.style = EqualLinear(w_dim, inputs)
        self.scale = 1.0 / math.sqrt(inputs * kernel**2)
        self.inputs, self.outputs, self.kernel = inputs, outputs, kernel
        self.up, self.demodulate = up, demodulate
        self.register_buffer("blur", kernel2d() * 4.0, persistent=False)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        k = self.kernel
        style = self.style(w).view(batch, 1, self.inputs, 1, 1)
        weight = self.scale * self.weight[None] * style
        if self.demodulate:
            norm = torch.rsqrt(weight.pow(2).sum((2, 3, 4)) + 1e-8)
            weight = weight * norm.view(batch, self.outputs, 1, 1, 1)
        x = x.reshape(1, batch * self.inputs, height, width)
        if self.up:
            weight = weight.transpose(1, 2).reshape(batch * self.inputs, self.outputs, k, k)
            x = F.conv_transpose2d(x, weight, stride=2, groups=batch)
        else:
            weight = weight.view(batch * self.outputs, self.inputs, k, k)
            x = F.conv2d(x, weight, padding=k // 2, groups=batch)
        x = x.view(batch, self.outputs, *x.shape[2:])
        return upfirdn2d(x, self.blur, pad=(1, 1)) if self.up else x


def minibatch_stddev(x: Tensor, limit: int | None) -> Tensor:
    """Appends the mean standard deviation within groups of consecutive samples.

    The group is the largest divisor of the batch up to `limit`; None takes the whole batch.
    """
    batch, channels, height, width = x.shape
    group = batch if limit is None else min(batch, limit)
    while batch % group:
        group -= 1
    y = x.view(batch // group, group, channels, height, width)
    y = torch.sqrt(y.var(1, unbiased=False) + 1e-8).mean((1, 2, 3), keepdim=True)
    y = y.repeat(1, group, height, width).view(batch, 1, height, width)
    return torch.cat([x, y], 1)
