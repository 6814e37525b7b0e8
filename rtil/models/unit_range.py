"""A generator whose drawings are read as images in [0, 1], as the published code of ILO does."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from rtil.models.generator import Generator, State, StylePrior


@final
class UnitRange(Generator):
    """x = 2 G - 1 in [-1, 1], the image whose values in [0, 1] are what G draws.

    The published code trains G on images in [-1, 1] and inverts it against images in [0, 1], so
    that black is where G draws mid-grey. Measured, compared and scored as any other image, with
    loss.mse = 1/4, x has the published squared error |A G - A (x* + 1) / 2|^2 for a linear A.
    LPIPS is given images in [-1, 1], as it was trained on; the published inversion has no LPIPS.

    Args:
        G: of any kind; shares its weights.
    """

    def __init__(self, G: Generator) -> None:
        super().__init__()
        self.G, self.z_dim, self.w_shape = G, G.z_dim, G.w_shape
        self.max_blocks, self.num_blocks = G.max_blocks, G.num_blocks
        self.per_block_styles, self.noise_shapes = G.per_block_styles, G.noise_shapes

    @property
    def shapes(self) -> dict[int, tuple[int, int, int]]:
        return self.G.shapes

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.G.image_shape

    @property
    def stage(self) -> tuple[float, ...]:
        return self.G.stage

    def map(self, z0: Tensor) -> Tensor:
        return self.G.map(z0)

    def step(
        self, k: int, state: State, w: Tensor, noise: tuple[Tensor, ...] | None = None
    ) -> State:
        return self.G.step(k, state, w, noise)

    def image(self, state: State, w: Tensor) -> Tensor:
        return 2 * self.G.image(state, w) - 1

    def style_prior(self, num_samples: int, rng: torch.Generator) -> StylePrior:
        return self.G.style_prior(num_samples, rng)

    def verify(self) -> None:
        self.G.verify()

    def progress(self, nimg: int) -> None:
        self.G.progress(nimg)
        self.num_blocks = self.G.num_blocks
