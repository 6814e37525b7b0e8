"""Additive intermediate latents: the family G^0 .. G^K of ILO-RTIL (paper, section 3.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from rtil.latents.space import Latents, MapScale, Member
from rtil.models.generator import EMPTY, Generator, State


@final
@dataclass(frozen=True)
class Additive(Member):
    """G^depth: z_k ~ N(0, sigma^2 I) joins the output of blocks k = 1 .. depth, before toRGB.

    x_k <- x_k + z_k (paper, section 3.1). Depth 0 is the plain generator.

    Args:
        depth: number of injected maps.
        sigma: their standard deviation, in feature units.
        relative: sigma counts in units of each map's own rms instead. Differs from the paper
            (relative: false), where the generator can shrink the noise by growing its features.

    Raises:
        ValueError: negative depth or sigma.
    """

    depth: int
    sigma: float = 1.0
    relative: bool = False

    def __post_init__(self) -> None:
        if self.depth < 0 or self.sigma < 0:
            raise ValueError(
                f"Additive: depth={self.depth}, sigma={self.sigma}; both must be 0 or more."
            )

    num_codes = 1

    @property
    def name(self) -> str:
        return f"G^{self.depth}"

    @property
    def is_plain(self) -> bool:
        return self.depth == 0

    @property
    def nested(self) -> tuple[Member, ...]:
        """G^0 .. G^depth with the same sigma."""
        later = range(1, self.depth + 1)
        return Additive(0), *(Additive(k, self.sigma, self.relative) for k in later)

    @property
    def order(self) -> tuple[float, ...]:
        return float(self.relative), self.sigma * (self.depth > 0), float(self.depth)

    def map_scale(self, k: int) -> MapScale | None:
        return MapScale(self.sigma, self.relative) if 1 <= k <= self.depth else None

    def shares_pass(self, other: Member) -> bool:
        """Where both are additive with one sigma rule: a z_k that one lacks is zero."""
        return isinstance(other, Additive) and other.relative == self.relative

    def check(self, G: Generator) -> None:
        if self.depth > G.max_blocks:
            raise ValueError(
                f"Additive: depth={self.depth} asks for injection after block {self.depth}, the "
                f"generator has {G.max_blocks} blocks; lower rtil's depths or raise resolution."
            )

    def extend(self, G: Generator, w: Tensor, rng: torch.Generator) -> Latents:
        """Draws what joins styles w (B, *w_shape): noise maps and injected maps."""
        batch, depth = len(w), min(self.depth, G.num_blocks)
        noise = G.sample_noise(batch, rng)
        add = {k: self.sigma * G.randn((batch, *G.shapes[k]), rng) for k in range(1, depth + 1)}
        return Latents(w, noise, add, member=(0,) * batch)

    def synthesize(
        self, G: Generator, latents: Latents, start: int = 0, state: State = EMPTY
    ) -> Tensor:
        add = latents.add or {}
        for k in range(start, G.num_blocks + 1):
            if k > start:
                state = G.step(k, state, latents.w, latents.noise or None)
            if k in add:
                z = add[k]
                if self.relative:
                    square = state.x.detach().to(z.dtype).square()
                    z = z * square.mean((1, 2, 3), keepdim=True).sqrt()
                state = state._replace(x=state.x + z)
        return G.image(state, latents.w)
