"""Adaptive discriminator augmentation (Karras et al. 2020, "Training Generative Adversarial
Networks with Limited Data").

With few images D learns them by heart, and its scores of real images drift away from 0. Each
transform is therefore applied to each image with a probability p, which follows

    r_t = E[sign D(T(x))],   p <- p + (images since then) / speed * sign(r_t - target)

Where a loss knows differences of scores alone (`Objective.lead`), a constant that is added to D
changes that r_t and nothing else. There it is

    r_t = E[sign(D(T(x)) - D(T(G(z))))]

over the pairs that D's loss has in its batches, with the weights of the family.

Below p = 1 no transform is as likely as none, so that G does not learn to draw transformed images
(section 2.2 there).
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import final

import torch
from torch import Tensor

from rtil.augmentation import colour, geometry
from rtil.augmentation.augmentation import Augmentation
from rtil.kernels.upfirdn2d import fir
from rtil.process.distributed import all_sum
from rtil.process.replay import Noted
from rtil.process.rng import Draws

KINDS = ("blit", "geometry", "colour")

# Ranges of the transforms (App. B there). Shifts are in image sides.
SHIFT = 0.125  # whole pixels: up to this; others: standard deviation
SCALE = 0.2  # standard deviation of log2, as below
ANISOTROPY = 0.2
BRIGHTNESS = 0.2  # standard deviation, of [-1, 1]
CONTRAST = 0.5
SATURATION = 1.0


@final
class Ada(Augmentation):
    """Transforms with an adaptive probability.

    Differs from the published code in that p is bounded by 1 too, where everything is transformed
    already, and that images are mirrored beyond their edge however far a transform reaches.

    Args:
        kinds: of transforms: blit (flip, quarter turns, whole pixels), geometry (scale, rotation,
            stretch, parts of pixels), colour (brightness, contrast, luma flip, hue, saturation).
        p: probability of each transform in [0, 1], at the start of training.
        target: of r_t in [-1, 1].
        speed: images in which p can go from 0 to 1; None or 0 where p is fixed.
        every: steps between adjustments.

    Raises:
        ValueError: kinds that there are not, or one twice.
    """

    p: Tensor
    signs: Tensor
    fir: Tensor

    def __init__(
        self,
        kinds: Collection[str] = KINDS,
        p: float = 0.0,
        target: float = 0.6,
        speed: int | None = 500_000,
        every: int = 4,
    ) -> None:
        super().__init__()
        known = {*kinds} & {*KINDS}
        # A kind that is named twice would be the same training in another directory.
        if not kinds or len(known) < len(kinds):
            raise ValueError(
                f"Ada: kinds={list(kinds)} must be some of {', '.join(KINDS)}, each once."
            )
        self.kinds = kinds
        self.target, self.speed, self.every = target, speed, every
        # A recorded step reads the tensor, so it sees its new value.
        self.register_buffer("p", torch.tensor(float(p)))
        # Sum of signs since the last adjustment, and the number of real images. Processes add up
        # whole numbers, so any number of them finds the same; and in float64 weights that sum to
        # 1 make whole numbers of what is alike in all spaces, once that is rounded to float32.
        self.register_buffer("signs", torch.zeros(2, dtype=torch.float64))
        self.register_buffer("fir", fir(geometry.SYM6), persistent=False)

    def forward(self, x: Tensor, draws: Draws) -> Tensor:
        if "blit" in self.kinds:
            x = self.blit(x, draws)
        if "geometry" in self.kinds:
            x = self.warp(x, draws)
        return self.recolour(x, draws) if "colour" in self.kinds else x

    def chosen(self, draws: Draws, p: Tensor) -> Tensor:
        """(B,), whether each image gets a transform, with probability p."""
        return draws.uniform() < p

    def blit(self, x: Tensor, draws: Draws) -> Tensor:
        """Flip with p / 2, a quarter turn with p / 4 for each, a shift with p."""
        flip = self.chosen(draws, self.p) & (draws.uniform() < 0.5)
        turns = (4 * draws.uniform()).floor() * self.chosen(draws, self.p)
        reach = SHIFT * x.shape[3]
        shift = (reach * (2 * draws.uniform(2) - 1)).round() * self.chosen(draws, self.p)[:, None]
        return geometry.blit(x, flip, turns, shift)

    def warp(self, x: Tensor, draws: Draws) -> Tensor:
        """Scale, rotate, stretch, rotate, shift; the rotations with p together."""
        half = 1 - (1 - self.p).sqrt()  # of each, so that neither is made with 1 - p
        changes = [self.chosen(draws, q) for q in (self.p, half, self.p, half, self.p)]
        scale = torch.exp2(SCALE * draws.normal() * changes[0])
        first = math.pi * (2 * draws.uniform() - 1) * changes[1]
        stretch = torch.exp2(ANISOTROPY * draws.normal() * changes[2])
        last = math.pi * (2 * draws.uniform() - 1) * changes[3]
        shift = SHIFT * x.shape[3] * draws.normal(2) * changes[4][:, None]

        # Places in the output are led back through the transforms, the last first.
        stretched = torch.stack([stretch, 1 / stretch], 1).diag_embed()
        inverse = geometry.product(geometry.rotation(first), stretched)
        inverse = geometry.product(inverse, geometry.rotation(last)) / scale[:, None, None]
        warped = geometry.warp(x, self.fir, inverse.to(x), shift.to(x))
        # Resampling is no identity at the edge, and rounds.
        return torch.where(torch.stack(changes).any(0)[:, None, None, None], warped, x)

    def recolour(self, x: Tensor, draws: Draws) -> Tensor:
        """Brightness and contrast; luma flip with p / 2, hue and saturation, which greys lack."""
        changes = [self.chosen(draws, self.p) for _ in range(5)]
        brightness = BRIGHTNESS * draws.normal() * changes[0]
        contrast = torch.exp2(CONTRAST * draws.normal() * changes[1])
        changes[2] = changes[2] & (draws.uniform() < 0.5)
        luma = 1.0 - 2.0 * changes[2]
        hue = math.pi * (2 * draws.uniform() - 1) * changes[3]
        saturation = torch.exp2(SATURATION * draws.normal() * changes[4])
        matrix = colour.matrices(contrast, luma.to(contrast), hue, saturation)
        # Brightness is added before contrast, as published.
        added = contrast * luma * brightness
        recoloured = colour.recolour(x, matrix.to(x), added.to(x))
        return torch.where(torch.stack(changes).any(0)[:, None, None, None], recoloured, x)

    @torch.no_grad()
    def observe(self, leads: Tensor, weight: float = 1.0) -> None:
        signs = leads.sign().to(self.signs)
        self.signs += weight * all_sum(torch.stack([signs.sum(), torch.ones_like(signs).sum()]))

    @torch.no_grad()
    def adjust(self, step: int) -> Noted:
        """p and r_t every few steps."""
        if (step + 1) % self.every:
            return []
        total, count = self.signs.to(self.p)
        r = total / count.clamp_min(1)
        if self.speed:
            moved = self.p + (r - self.target).sign() * count / self.speed
            self.p.copy_(moved.clamp(0, 1))
        self.signs.zero_()
        return [("augment/p", self.p.clone()[None], ()), ("augment/r", r[None], ())]
