"""PGGAN: progressively grown generator and discriminator (Karras et al. 2018).

The layout is the one of the released mGANprior-RTIL checkpoints, whose generator departs from
Karras et al. in five places; PGGANGenerator takes either choice in each of them. Growing is a
function of the images seen: `progress(nimg)` sets how many blocks are in use and how far the
newest has faded in.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import NamedTuple, cast, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtil.kernels.bias_act import SQRT2
from rtil.kernels.norm_act import norm_act
from rtil.models.generator import Generator, State, StylePrior
from rtil.models.layers import (
    EqualConv2d,
    EqualLinear,
    check_resolution,
    derived,
    entering,
    minibatch_stddev,
)

SLOPE = 0.2


def growth(nimg: int, phase_nimg: list[int] | None, blocks: int) -> tuple[int, float]:
    """Blocks in use and fade-in weight alpha of the newest after nimg images.

    Each phase fades its block in linearly over its first half (published code).

    Args:
        nimg: images seen.
        phase_nimg: images of each phase, one per block; None: no growing.
        blocks: blocks there are.
    """
    if phase_nimg is None:
        return blocks, 1.0
    start = 0
    for phase, length in enumerate(phase_nimg):
        if nimg < start + length:
            alpha = min(1.0, (nimg - start) / (length / 2)) if phase else 1.0
            return phase + 1, alpha
        start += length
    return blocks, 1.0


def check_phases(who: str, phase_nimg: list[int] | None, blocks: int) -> list[int] | None:
    """Validates the phase lengths against the number of blocks.

    Raises:
        ValueError: not one positive length per block.
    """
    if phase_nimg is None:
        return None
    phases = [int(n) for n in phase_nimg]
    if len(phases) != blocks or min(phases) < 1:
        raise ValueError(
            f"{who}: phase_nimg={phases} must hold one positive number of images for each of "
            f"the {blocks} resolutions; null trains at full size from the start."
        )
    return phases


class Growing(nn.Module, ABC):
    """What generator and discriminator share while they grow.

    Attributes:
        alpha: weight of the newest size, which fades in from 0 to 1.
    """

    fade: Tensor

    def __init__(self) -> None:
        super().__init__()
        # Where the maps are: a recorded step (rtil.process.replay) reads it when it is replayed.
        self.register_buffer("fade", torch.ones(()), persistent=False)
        self._alpha = 1.0

    @property
    def alpha(self) -> float:
        return self._alpha

    @alpha.setter
    def alpha(self, value: float) -> None:
        self._alpha = value
        self.fade.fill_(value)

    @abstractmethod
    def progress(self, nimg: int) -> None:
        """Sets the stage of growing that training has reached after nimg images."""

    def faded(self, old: Tensor, new: Tensor) -> Tensor:
        """old + alpha (new - old)."""
        if new.dtype == self.fade.dtype:
            return torch.lerp(old, new, self.fade)
        wide = torch.promote_types(new.dtype, self.fade.dtype)
        return torch.lerp(old.to(wide), new.to(wide), self.fade.to(wide)).to(new.dtype)


def _same(x: Tensor) -> Tensor:
    return x


def _activate(x: Tensor) -> Tensor:
    return F.leaky_relu(x, SLOPE)


def _normalise(x: Tensor) -> Tensor:
    return norm_act(x, slope=1.0)


def _normalise_and_activate(x: Tensor) -> Tensor:
    return norm_act(x, SLOPE)


def _bilinear(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def _nearest(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")


class Around(NamedTuple):
    """What happens to all that convolutions read, and to what the hidden ones write."""

    before: Callable[[Tensor], Tensor]
    after: Callable[[Tensor], Tensor]


UPSAMPLE = {"bilinear": _bilinear, "nearest": _nearest}
PIXEL_NORM = {
    "output": Around(_same, _normalise_and_activate),
    "input": Around(_normalise, _activate),
}


def check_choice(name: str, value: str, allowed: Iterable[str]) -> None:
    """Raises ValueError where a choice of the generator is none of those allowed."""
    names = list(allowed)
    if value not in names:
        raise ValueError(f"PGGANGenerator: {name}={value!r} must be {' or '.join(names)}.")


class ConvBlock(nn.Module):
    """Equalised 3x3 convolutions conv0, conv1, ...

    Args:
        in_channels, out_channels: widths.
        around: pixel norm and activation before and after a convolution.
        resize: what the first convolution reads goes through it.
        convs: how many there are.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        around: Around,
        resize: Callable[[Tensor], Tensor],
        convs: int = 2,
    ) -> None:
        super().__init__()
        self.around, self.resize = around, resize
        for i, width in enumerate([in_channels, *[out_channels] * (convs - 1)]):
            self.add_module(f"conv{i}", EqualConv2d(width, out_channels, 3, SQRT2, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        before, after = self.around
        first, *rest = self.children()
        x = after(first(self.resize(before(x))))
        for conv in rest:
            x = after(conv(before(x)))
        return x


@final
class PGGANGenerator(Growing, Generator):
    """The generator of Karras et al. 2018 (paper, Table 2).

    Differs from Karras et al. 2018 by default, as the published RTIL module does: features are
    enlarged bilinearly, normalised before their activation, the latent not at all, colour layers
    have the hidden layers' gain, the first layer is scaled by the size of its output and two
    convolutions follow it instead of one. The network of Karras et al. is upsample="nearest",
    pixel_norm="input", rgb_gain=1.0, input_fan="in", first_convs=1; each choice stands alone.

    Args:
        resolution: final side of the image, a power of two from 8 up.
        channels: {size: width} for every size from 4 to the resolution.
        image_channels: 1 or 3.
        z_dim: length of z0.
        phase_nimg: images of each growing phase, one per resolution from 4; None: no growing.
        upsample: bilinear or nearest, of features and of the image that fades out.
        pixel_norm: output: of every hidden convolution, before the leaky ReLU. input: of all that
            a convolution reads, the latent and what toRGB reads included. The images are those
            of a norm after each activation (Karras et al. 2018, section 4.2), but the cut after a
            block lies before the norm, so that a mix of codes or a sum with z_k is normalised
            like any other map, as in mGANprior.
        rgb_gain: of toRGB's weights, gain / sqrt(fan_in).
        input_fan: out or in: whether 16 times the width at 4x4 or 16 z_dim scales the first
            layer's weights.
        first_convs: 3x3 convolutions at 4x4, after the first layer.

    Raises:
        ValueError: resolution, channel table, phases or a choice out of range.
    """

    per_block_styles = False
    noise_shapes = ()

    def __init__(
        self,
        resolution: int,
        channels: dict[int, int],
        image_channels: int = 3,
        z_dim: int = 512,
        phase_nimg: list[int] | None = None,
        upsample: str = "bilinear",
        pixel_norm: str = "output",
        rgb_gain: float = SQRT2,
        input_fan: str = "out",
        first_convs: int = 2,
    ) -> None:
        super().__init__()
        self.table = check_resolution("PGGANGenerator", resolution, channels)
        widths = list(self.table.values())
        # The published weight hook takes the fan-in of a transposed convolution from its output.
        fan = {"out": 16 * widths[0], "in": 16 * z_dim}
        check_choice("upsample", upsample, UPSAMPLE)
        check_choice("pixel_norm", pixel_norm, PIXEL_NORM)
        check_choice("input_fan", input_fan, fan)
        if not (rgb_gain > 0 and first_convs >= 1):
            raise ValueError(
                f"PGGANGenerator: rgb_gain={rgb_gain} must be positive and "
                f"first_convs={first_convs} at least 1."
            )
        self.image_channels, self.z_dim, self.w_shape = image_channels, z_dim, (z_dim,)
        self.max_blocks = self.num_blocks = len(self.table)
        self.phase_nimg = check_phases("PGGANGenerator", phase_nimg, self.max_blocks)
        self.alpha = 1.0
        self.around, self.upsample = PIXEL_NORM[pixel_norm], UPSAMPLE[upsample]

        self.input = nn.Parameter(torch.randn(z_dim, widths[0], 4, 4))
        self.input_bias = nn.Parameter(torch.zeros(widths[0]))
        self.input_scale = SQRT2 / math.sqrt(fan[input_fan])
        first = ConvBlock(widths[0], widths[0], self.around, _same, first_convs)
        self.blocks = nn.ModuleList([first])
        for a, b in pairwise(widths):
            self.blocks.append(ConvBlock(a, b, self.around, self.upsample))
        self.to_rgb = nn.ModuleList(EqualConv2d(c, image_channels, 1, rgb_gain) for c in widths)

    @property
    def shapes(self) -> dict[int, tuple[int, int, int]]:
        table = list(self.table.items())[: self.num_blocks]
        return {k: (c, s, s) for k, (s, c) in enumerate(table, start=1)}

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return (self.image_channels, *self.shapes[self.num_blocks][1:])

    @property
    def stage(self) -> tuple[float, ...]:
        return self.num_blocks, self.alpha < 1.0

    def map(self, z0: Tensor) -> Tensor:
        """The identity: z0 (B, z_dim) is all the first block reads."""
        return z0

    def step(
        self, k: int, state: State, w: Tensor, noise: tuple[Tensor, ...] | None = None
    ) -> State:
        before, after = self.around
        if k == 1:
            first = derived(self.input, "scaled", lambda: self.input * self.input_scale)
            x = torch.einsum("bz,zchw->bchw", before(w), first)
            x = entering(x + self.input_bias[:, None, None], self.map_dtype)
            return State(self.blocks[0](after(x)))
        fading = k == self.num_blocks and self.alpha < 1.0
        rgb = None
        if fading:
            rgb = self.upsample(self.to_rgb[k - 2](before(state.x.to(self.input.dtype))))
        return State(self.blocks[k - 1](entering(state.x, self.map_dtype)), rgb)

    def image(self, state: State, w: Tensor) -> Tensor:
        rgb = self.to_rgb[self.num_blocks - 1](self.around.before(state.x.to(self.input.dtype)))
        return rgb if state.rgb is None else self.faded(state.rgb, rgb)

    def style_prior(self, num_samples: int, rng: torch.Generator) -> StylePrior:
        """z0 itself is standard normal: mean 0, standard deviation 1, no activation."""
        weight = next(self.parameters())
        zeros = torch.zeros(self.z_dim, device=weight.device, dtype=weight.dtype)
        return StylePrior(zeros, zeros + 1.0, 1.0)

    def verify(self) -> None:
        """Its blocks are the network."""

    def progress(self, nimg: int) -> None:
        self.num_blocks, self.alpha = growth(nimg, self.phase_nimg, self.max_blocks)


@final
class PGGANDiscriminator(Growing):
    """The discriminator of Karras et al. 2018, growing with the generator.

    Args:
        resolution, channels, image_channels, phase_nimg: as for the generator.
        stddev_group: group of the minibatch standard deviation; None for the whole batch, as
            published. Groups of 4 let a batch hold several family members (rtil.latents.mixture).

    Attributes:
        map_dtype: as of a Generator; the last block, where samples are compared, and the score
            keep the weights' type.
    """

    map_dtype: torch.dtype | None = None

    def __init__(
        self,
        resolution: int,
        channels: dict[int, int],
        image_channels: int = 3,
        phase_nimg: list[int] | None = None,
        stddev_group: int | None = 4,
    ) -> None:
        super().__init__()
        table = check_resolution("PGGANDiscriminator", resolution, channels)
        widths = list(table.values())
        self.num_blocks = self.max_blocks = len(widths)
        self.phase_nimg = check_phases("PGGANDiscriminator", phase_nimg, self.max_blocks)
        self.alpha, self.stddev_group = 1.0, stddev_group
        self.from_rgb = nn.ModuleList(EqualConv2d(image_channels, c, 1, SQRT2) for c in widths)
        # blocks[i] reads size 4 * 2^i; block 0 ends in a 4x4 convolution to one pixel.
        self.blocks = nn.ModuleList([_pair(widths[0] + 1, widths[0], last=True)])
        for narrow, wide in zip(widths[1:], widths):
            self.blocks.append(_pair(narrow, wide))
        self.score = EqualLinear(widths[0], 1, gain=SQRT2)

    def forward(self, x: Tensor) -> Tensor:
        """Scores images (B, C, H, W) of the current size: (B,), larger for real.

        Differs from Karras et al. 2018: pixel norm after every convolution, as published.
        """
        top = self.num_blocks - 1
        x = entering(x, self.map_dtype)
        h = self.from_rgb[top](x)
        for i in range(top, -1, -1):
            if i == 0:
                h = minibatch_stddev(h.to(self.score.weight.dtype), self.stddev_group)
            for conv in cast(nn.ModuleList, self.blocks[i]):
                h = norm_act(conv(h), SLOPE)
            if i == 0:
                break
            h = F.avg_pool2d(h, 2)
            if i == top and self.alpha < 1.0:
                h = self.faded(self.from_rgb[i - 1](F.avg_pool2d(x, 2)), h)
        return self.score(h.flatten(1))[:, 0]

    def progress(self, nimg: int) -> None:
        self.num_blocks, self.alpha = growth(nimg, self.phase_nimg, self.max_blocks)


def _pair(in_channels: int, out_channels: int, last: bool = False) -> nn.ModuleList:
    """Two 3x3 convolutions; the last pair ends in an unpadded 4x4 one."""
    kernel, padding = (4, 0) if last else (3, 1)
    return nn.ModuleList(
        [
            EqualConv2d(in_channels, out_channels, 3, SQRT2, padding=1),
            EqualConv2d(out_channels, out_channels, kernel, SQRT2, padding=padding),
        ]
    )
