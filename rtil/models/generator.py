"""The contract of every generator: blocks that can be cut, and the state that crosses a cut.

A generator knows nothing about RTIL. Families of latents (rtil.latents) drive it block by block
through `step`, and training and inversion drive it through the same families. To add a
generator, write one file with a final subclass and one yaml under configs/model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class State(NamedTuple):
    """What crosses the cut after block k's convolutions and before its toRGB.

    x: (B, C_k, H_k, W_k) feature map; block k + 1 takes it in any type. Without entries before
        block 1, which reads none.
    rgb: image accumulated by blocks before k, or None.
    keep_rgb: False leaves the image of blocks up to k out of what follows (published restart).
    """

    x: Tensor
    rgb: Tensor | None = None
    keep_rgb: bool = True


EMPTY = State(torch.empty(0))


class StylePrior(NamedTuple):
    """Gaussian model of the styles: w = lrelu(std * v + mean), v ~ N(0, I).

    mean, std: (w_dim,). slope: of the leaky ReLU; 1 makes the map affine.
    """

    mean: Tensor
    std: Tensor
    slope: float

    def __call__(self, v: Tensor) -> Tensor:
        """Maps (..., w_dim) to styles of the same shape."""
        return F.leaky_relu(self.std * v + self.mean, self.slope)

    def inverse(self, w: Tensor) -> Tensor:
        """v of styles (..., w_dim), of their shape; 0 in entries that the fit found constant."""
        x = F.leaky_relu(w, 1.0 / self.slope) - self.mean
        return torch.where(self.std > 0, x / self.std, 0.0)


@dataclass(frozen=True)
class StyleMixing:
    """When images take their styles from two latents (Karras et al. 2019, section 3.1).

    Args:
        probability: that styles from a uniformly drawn index on are those of a second z0.
        per: "sample": each sample of a draw decides, and has an index of its own. "batch": all
            samples of a draw do alike (published code, whose two GPUs draw an index each).

    Raises:
        ValueError: `per` is none of these.
    """

    probability: float = 0.0
    per: str = "sample"

    def __post_init__(self) -> None:
        if self.per not in ("sample", "batch"):
            raise ValueError(f"model.style_mixing_per={self.per!r} must be sample or batch.")


UNMIXED = StyleMixing()


class Generator(nn.Module, ABC):
    """G = image . step_K . ... . step_1 . map, with blocks counted from 1.

    Attributes:
        z_dim: length of z0.
        num_blocks: blocks in use now (a growing generator uses its first ones).
        max_blocks: blocks it has.
        w_shape: shape of one sample's styles.
        per_block_styles: whether blocks after the first read the styles.
        noise_shapes: shape of each noise map, in the order the blocks use them.
        map_dtype: type of the feature maps between convolutions and of what convolutions multiply;
            None: the weights'. Weights, styles, noise and images keep the weights' type.
    """

    z_dim: int
    num_blocks: int
    max_blocks: int
    w_shape: tuple[int, ...]
    per_block_styles: bool
    noise_shapes: tuple[tuple[int, ...], ...]
    map_dtype: torch.dtype | None = None

    @property
    @abstractmethod
    def shapes(self) -> dict[int, tuple[int, int, int]]:
        """shapes[k] = (C_k, H_k, W_k) of block k's output, k from 1 to num_blocks."""

    @property
    @abstractmethod
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the image it draws now."""

    @property
    @abstractmethod
    def stage(self) -> tuple[float, ...]:
        """What `progress` has set and decides which kernels a step starts."""

    @abstractmethod
    def map(self, z0: Tensor) -> Tensor:
        """Maps z0 (B, z_dim) ~ N(0, I) to styles (B, *w_shape)."""

    @abstractmethod
    def step(self, k: int, state: State, w: Tensor, noise: tuple[Tensor, ...] | None) -> State:
        """Runs block k's convolutions on the state after block k - 1.

        Args:
            k: block, from 1.
            state: after block k - 1; EMPTY for k = 1.
            w: (B, *w_shape).
            noise: one map (B, 1, H, W) per entry of noise_shapes; None for the fixed ones.
        """

    @abstractmethod
    def image(self, state: State, w: Tensor) -> Tensor:
        """Turns the state after the last block into an image (B, C, H, W), about [-1, 1]."""

    @abstractmethod
    def style_prior(self, num_samples: int, rng: torch.Generator) -> StylePrior:
        """Fits the Gaussian model of the styles that ILO optimises under."""

    @abstractmethod
    def progress(self, nimg: int) -> None:
        """Sets the stage of growing that training has reached after nimg images."""

    @abstractmethod
    def verify(self) -> None:
        """Checks on values what its class does not promise, before it is trained.

        Raises:
            ValueError: blocks do not draw what the whole does.
        """

    def run(
        self,
        w: Tensor,
        noise: tuple[Tensor, ...] | None = None,
        start: int = 0,
        stop: int | None = None,
        state: State = EMPTY,
    ) -> State:
        """Runs blocks start + 1 .. stop (default: to the last) on the state after block start."""
        for k in range(start + 1, (stop or self.num_blocks) + 1):
            state = self.step(k, state, w, noise)
        return state

    def forward(self, z0: Tensor) -> Tensor:
        """G^0(z0) with the fixed noise maps: (B, z_dim) to (B, C, H, W)."""
        w = self.map(z0)
        return self.image(self.run(w), w)

    def sample_w(
        self, batch: int, rng: torch.Generator, style_mixing: StyleMixing = UNMIXED
    ) -> Tensor:
        """Draws styles (B, *w_shape) for z0 ~ N(0, I).

        Args:
            batch: B.
            rng: on any device; the draws are moved to the weights' device.
            style_mixing: how often a second z0 takes part.

        Raises:
            ValueError: style mixing asked of a generator whose blocks share one style.
        """
        w = self.map(self.randn((batch, self.z_dim), rng))
        if style_mixing.probability == 0.0:
            return w
        if not self.per_block_styles:
            raise ValueError(
                f"{type(self).__name__}: style_mixing={style_mixing.probability} needs styles per "
                "block; this generator reads its latent once. Set style_mixing=0."
            )
        second = self.map(self.randn((batch, self.z_dim), rng))
        count = self.w_shape[0]
        # One decision stands for all samples where it is made for the batch.
        size = (batch if style_mixing.per == "sample" else 1,)
        mixed = torch.rand(size, generator=rng, device=rng.device) < style_mixing.probability
        index = torch.randint(1, count, size, generator=rng, device=rng.device)
        cut = torch.where(mixed, index, count).to(w.device)
        keep = torch.arange(count, device=w.device) < cut[:, None]
        return torch.where(keep[:, :, None], w, second)

    def sample_noise(self, batch: int, rng: torch.Generator) -> tuple[Tensor, ...]:
        """Draws every noise map from N(0, I); an empty tuple where the generator has none."""
        return tuple(self.randn((batch, *shape), rng) for shape in self.noise_shapes)

    def randn(self, shape: tuple[int, ...], rng: torch.Generator) -> Tensor:
        """Normal draws of the weights' type on their device, from rng's own device."""
        weight = next(self.parameters())
        draw = torch.randn(shape, generator=rng, device=rng.device, dtype=torch.float32)
        return draw.to(weight)
