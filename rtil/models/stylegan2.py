"""StyleGAN2: generator with a skip path and residual discriminator (Karras et al. 2020).

The layout is that of the released checkpoints, but for the order of linear operations.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import cast, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtil.kernels import styled_conv
from rtil.kernels.bias_act import SQRT2, bias_act
from rtil.kernels.conv2d import conv2d, conv_transpose2d
from rtil.kernels.styled_act import demodulation, modulate, styled_act
from rtil.kernels.upfirdn2d import fir, upfirdn2d
from rtil.models.generator import Generator, State, StylePrior
from rtil.models.layers import (
    EqualConv2d,
    EqualLinear,
    check_resolution,
    derived,
    entering,
    is_frozen,
    map_norm,
    minibatch_stddev,
    pixel_norm,
)

SLOPE = 0.2


class ModulatedConv2d(nn.Module):
    """Convolution whose input channels are scaled by a style (Karras et al. 2020, eq. 1-3).

    y_o = d_o sum_i W_oi * (s_i x_i),  d_o = (sum_i s_i^2 |W_oi|^2 + 1e-8)^(-1/2). Scaling the
    activations instead of the weights is the same linear map with one set of weights for the
    whole batch. With up = 2 a transposed convolution and a blur double the size.
    """

    fir: Tensor

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, w_dim: int, up: bool, demod: bool
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel, kernel))
        self.style = EqualLinear(w_dim, in_channels, bias_init=1.0)
        self.scale = 1.0 / math.sqrt(in_channels * kernel**2)
        self.up, self.demod, self.padding = up, demod, kernel // 2
        if up:
            self.register_buffer("fir", fir(), persistent=False)

    def forward(self, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor | None]:
        """Maps x (B, in, H, W) and styles w (B, w_dim) to y / d and d.

        Returns:
            (B, out, H', W') in x's dtype before it is scaled, and d (B, out) in w's dtype, None
            without demodulation.
        """
        style = self.style(w)
        exact = self._exact()
        weight = derived(self.weight, f"scaled {x.dtype}", lambda: exact.to(x.dtype))
        x = modulate(x, style)
        if self.up:
            x = conv_transpose2d(x, weight.transpose(0, 1), stride=2)
            x = upfirdn2d(x, self.fir, padding=(1, 1), gain=4.0)
        else:
            x = conv2d(x, weight, padding=self.padding)
        if not self.demod:
            return x, None
        squares = derived(self.weight, "squares", lambda: exact.square().sum((2, 3)))
        return x, demodulation(style, squares)

    def _exact(self) -> Tensor:
        return derived(self.weight, "scaled", lambda: self.weight * self.scale)

    def layer(
        self, dtype: torch.dtype, bias: Tensor, strength: Tensor | None, slope: float, gain: float
    ) -> styled_conv.Layer | None:
        """This layer for maps of a type, as `styled_conv` takes it; None but `frozen` on a CPU."""
        on_cpu = self.weight.device.type == "cpu"
        if not (is_frozen() and on_cpu) or self.weight.requires_grad:
            return None

        def build() -> styled_conv.Layer:
            exact, style = self._exact(), self.style
            weight = (exact.transpose(0, 1) if self.up else exact).to(dtype)
            layout = torch.channels_last if weight.shape[2] > 1 else torch.contiguous_format
            sources = (self.weight, style.weight, style.bias, bias)
            return styled_conv.Layer(
                affine=(style.weight * style.scale).contiguous(),
                shift=style.bias * style.lr,
                weight=weight.contiguous(memory_format=layout),
                bias=bias,
                squares=exact.square().sum((2, 3)).contiguous() if self.demod else None,
                fir=self.fir if self.up else None,
                strength=0.0 if strength is None else float(strength),
                slope=slope,
                gain=gain,
                sources=sources if strength is None else (*sources, strength),
            )

        return derived(self.weight, f"layer {dtype}", build)


class StyledConv(nn.Module):
    """Modulated convolution, noise, bias and leaky ReLU (Karras et al. 2020, Fig. 2c)."""

    def __init__(self, in_channels: int, out_channels: int, w_dim: int, up: bool) -> None:
        super().__init__()
        self.conv = ModulatedConv2d(in_channels, out_channels, 3, w_dim, up, demod=True)
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: Tensor, w: Tensor, noise: Tensor) -> Tensor:
        """Maps x (B, in, H, W), styles (B, w_dim), noise (B or 1, 1, H', W')."""
        layer = self.conv.layer(x.dtype, self.bias, self.noise_strength, SLOPE, SQRT2)
        if layer is not None and styled_conv.serves(layer, x, w, noise):
            return styled_conv.styled_conv(x, w, noise, layer, self.plain)
        return self.plain(x, w, noise)

    def plain(self, x: Tensor, w: Tensor, noise: Tensor) -> Tensor:
        """The same, one operation after the other."""
        x, d = self.conv(x, w)
        return styled_act(x, d, noise, self.noise_strength, self.bias, SLOPE, SQRT2)


class ToRGB(nn.Module):
    """1x1 modulated convolution to image channels, without demodulation."""

    def __init__(self, in_channels: int, image_channels: int, w_dim: int) -> None:
        super().__init__()
        self.conv = ModulatedConv2d(in_channels, image_channels, 1, w_dim, False, demod=False)
        self.bias = nn.Parameter(torch.zeros(image_channels))

    def forward(self, x: Tensor, w: Tensor, skip: Tensor | None) -> Tensor:
        """Maps x (B, in, H, W) and styles (B, w_dim) to (B, image_channels, H, W), w's dtype.

        Args:
            skip: what is added to the image, of its shape; None for nothing.
        """
        x = x.to(w.dtype)
        layer = self.conv.layer(x.dtype, self.bias, None, 1.0, 1.0)
        if layer is not None and styled_conv.serves(layer, x, w, skip):
            return styled_conv.to_rgb(x, w, skip, layer, self.plain)
        return self.plain(x, w, skip)

    def plain(self, x: Tensor, w: Tensor, skip: Tensor | None) -> Tensor:
        """The same, one operation after the other."""
        x, _ = self.conv(x, w)
        rgb = bias_act(x, self.bias, slope=1.0, gain=1.0)
        return rgb if skip is None else rgb + skip


class Block(nn.Module):
    """One resolution: an up-sampling convolution (but for the first block), a plain one, toRGB."""

    def __init__(
        self, in_channels: int | None, out_channels: int, image_channels: int, w_dim: int
    ) -> None:
        super().__init__()
        self.up = StyledConv(in_channels, out_channels, w_dim, up=True) if in_channels else None
        self.conv = StyledConv(out_channels, out_channels, w_dim, up=False)
        self.to_rgb = ToRGB(out_channels, image_channels, w_dim)


@final
class StyleGAN2Generator(Generator):
    """The generator of Karras et al. 2020 with skip connections (their Fig. 7b).

    Args:
        resolution: side of the image, a power of two from 8 up.
        channels: {size: width} for every size from 4 to the resolution.
        image_channels: 1 or 3.
        z_dim: length of z0 and of every style.
        num_mapping: layers of the mapping network.
        mapping_lr: its learning-rate multiplier.
        normalise: divides the output of every block by its rms over the sample, so that an
            injected map of a given sigma is as large beside any features. Not in the paper, where
            training can grow the features instead.

    Raises:
        ValueError: resolution or channel table out of range.
    """

    per_block_styles = True
    fir: Tensor

    def __init__(
        self,
        resolution: int,
        channels: dict[int, int],
        image_channels: int = 3,
        z_dim: int = 512,
        num_mapping: int = 8,
        mapping_lr: float = 0.01,
        normalise: bool = False,
    ) -> None:
        super().__init__()
        self.table = check_resolution("StyleGAN2Generator", resolution, channels)
        self.normalise = normalise
        self.image_channels, self.z_dim = image_channels, z_dim
        self.max_blocks = self.num_blocks = len(self.table)
        self.w_shape = (2 * self.num_blocks, z_dim)
        sizes = [4] + [size for size in list(self.table)[1:] for _ in range(2)]
        self.noise_shapes = tuple((1, size, size) for size in sizes)

        self.mapping = nn.ModuleList(
            EqualLinear(z_dim, z_dim, lr=mapping_lr) for _ in range(num_mapping)
        )
        self.const = nn.Parameter(torch.randn(1, self.table[4], 4, 4))
        widths = list(self.table.values())
        self.blocks = nn.ModuleList(
            Block(before, width, image_channels, z_dim)
            for before, width in zip([None, *widths[:-1]], widths)
        )
        self.register_buffer("fir", fir(), persistent=False)
        for i, shape in enumerate(self.noise_shapes):
            self.register_buffer(f"noise_{i}", torch.randn(1, *shape))

    @property
    def shapes(self) -> dict[int, tuple[int, int, int]]:
        return {k: (c, s, s) for k, (s, c) in enumerate(self.table.items(), start=1)}

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return (self.image_channels, *self.shapes[self.num_blocks][1:])

    @property
    def stage(self) -> tuple[float, ...]:
        return (self.num_blocks,)

    def map(self, z0: Tensor) -> Tensor:
        """Maps z0 (B, z_dim) to styles (B, 2 * num_blocks, z_dim), equal for all layers."""
        w = pixel_norm(z0)
        for layer in self.mapping:
            w = bias_act(layer(w), None, SLOPE, SQRT2)
        return w[:, None].expand(-1, *self.w_shape)

    def step(
        self, k: int, state: State, w: Tensor, noise: tuple[Tensor, ...] | None = None
    ) -> State:
        if noise is None:
            noise = tuple(getattr(self, f"noise_{i}") for i in range(len(self.noise_shapes)))
        block = self._block(k)
        if k == 1:
            x = entering(self.const, self.map_dtype).expand(w.shape[0], -1, -1, -1)
            return State(self._output(block.conv(x, w[:, 0], noise[0])), None)
        # toRGB of the block before and the first convolution of this one read the same style.
        before, last = w[:, 2 * k - 3 : 2 * k - 1].unbind(1)
        rgb = None
        if state.keep_rgb:
            rgb = self._block(k - 1).to_rgb(state.x, before, state.rgb)
            rgb = upfirdn2d(rgb, self.fir, up=2, padding=(2, 1), gain=4.0)
        x = entering(state.x, self.map_dtype)
        assert block.up is not None  # all blocks but the first
        x = block.up(x, before, noise[2 * k - 3])
        return State(self._output(block.conv(x, last, noise[2 * k - 2])), rgb)

    def _block(self, k: int) -> Block:
        return cast(Block, self.blocks[k - 1])

    def _output(self, x: Tensor) -> Tensor:
        return map_norm(x) if self.normalise else x

    def image(self, state: State, w: Tensor) -> Tensor:
        return self._block(self.num_blocks).to_rgb(state.x, w[:, -1], state.rgb)

    @torch.no_grad()
    def style_prior(self, num_samples: int, rng: torch.Generator) -> StylePrior:
        """Mean and standard deviation of the styles before their last leaky ReLU (ILO code).

        Args:
            num_samples: styles drawn; the published code uses 1e6.
            rng: of the draws.
        """
        total = square = torch.zeros((), dtype=torch.float64)
        done = 0
        while done < num_samples:
            count = min(10_000, num_samples - done)
            w = self.map(self.randn((count, self.z_dim), rng))[:, 0].double()
            v = F.leaky_relu(w, 1.0 / SLOPE)
            total, square = total + v.sum(0), square + v.square().sum(0)
            done += count
        mean = total / done
        std = (square / done - mean.square()).clamp_min(0).sqrt()
        weight = next(self.parameters())
        return StylePrior(mean.to(weight), std.to(weight), SLOPE)

    @torch.no_grad()
    def mean_w(self, num_samples: int, rng: torch.Generator) -> Tensor:
        """Mean style (z_dim,) over num_samples draws, for `truncate`."""
        return self.map(self.randn((num_samples, self.z_dim), rng))[:, 0].mean(0)

    def truncate(self, w: Tensor, psi: float, mean: Tensor) -> Tensor:
        """Pulls styles towards their mean: mean + psi (w - mean) (Karras et al. 2019, App. B)."""
        return mean + psi * (w - mean)

    def verify(self) -> None:
        """Its blocks are the network."""

    def progress(self, nimg: int) -> None:
        """Nothing grows."""


class ConvLayer(nn.Module):
    """Convolution with bias and leaky ReLU; down = True blurs first and takes stride 2."""

    fir: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        down: bool = False,
        activate: bool = True,
    ) -> None:
        super().__init__()
        # A 1x1 convolution reads what stride 2 keeps and nothing else: decimate before it.
        self.decimate = 2 if down and kernel == 1 else 1
        stride, padding = (2 // self.decimate, 0) if down else (1, kernel // 2)
        self.conv = EqualConv2d(
            in_channels, out_channels, kernel, stride=stride, padding=padding, bias=False
        )
        self.bias = nn.Parameter(torch.zeros(out_channels)) if activate else None
        self.blur = None
        if down:
            self.blur = ((kernel + 2) // 2, (kernel + 1) // 2)
            self.register_buffer("fir", fir(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.blur is not None:
            x = upfirdn2d(x, self.fir, down=self.decimate, padding=self.blur)
        x = self.conv(x)
        return x if self.bias is None else bias_act(x, self.bias, SLOPE, SQRT2)


class ResBlock(nn.Module):
    """Residual block that halves the size (Karras et al. 2020, Fig. 7c)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = ConvLayer(in_channels, in_channels, 3)
        self.conv2 = ConvLayer(in_channels, out_channels, 3, down=True)
        self.skip = ConvLayer(in_channels, out_channels, 1, down=True, activate=False)

    def forward(self, x: Tensor) -> Tensor:
        return (self.conv2(self.conv1(x)) + self.skip(x)) / SQRT2


@final
class StyleGAN2Discriminator(nn.Module):
    """The residual discriminator of Karras et al. 2020.

    Args:
        resolution, channels, image_channels: as for the generator.
        stddev_group: group of the minibatch standard deviation; None for the whole batch.

    Attributes:
        map_dtype: as of a Generator; from where samples are compared on, maps and score keep the
            weights' type.
    """

    map_dtype: torch.dtype | None = None

    def __init__(
        self,
        resolution: int,
        channels: dict[int, int],
        image_channels: int = 3,
        stddev_group: int | None = 4,
    ) -> None:
        super().__init__()
        table = check_resolution("StyleGAN2Discriminator", resolution, channels)
        widths = list(table.values())[::-1]
        self.stddev_group = stddev_group
        self.from_rgb = ConvLayer(image_channels, widths[0], 1)
        self.blocks = nn.ModuleList(ResBlock(a, b) for a, b in pairwise(widths))
        self.conv = ConvLayer(widths[-1] + 1, widths[-1], 3)
        self.hidden = EqualLinear(widths[-1] * 16, widths[-1])
        self.score = EqualLinear(widths[-1], 1)

    def forward(self, x: Tensor) -> Tensor:
        """Scores images (B, C, H, W): (B,), larger for real."""
        x = self.from_rgb(entering(x, self.map_dtype))
        for block in self.blocks:
            x = block(x)
        x = x.to(self.score.weight.dtype)
        x = self.conv(minibatch_stddev(x, self.stddev_group))
        x = bias_act(self.hidden(x.flatten(1)), None, SLOPE, SQRT2)
        return self.score(x)[:, 0]

    def progress(self, nimg: int) -> None:
        """Nothing grows."""
