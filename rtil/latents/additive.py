"""Additive intermediate latents: the family G^0 .. G^K of ILO-RTIL (paper, section 3.1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rtil.latents.space import Latents, LatentSpace
from rtil.models.generator import EMPTY, Generator, State


@dataclass(frozen=True)
class Additive(LatentSpace):
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
    def names(self) -> tuple[str, ...]:
        return (f"G^{self.depth}",)

    def check(self, G: Generator) -> None:
        if self.depth > G.max_blocks:
            raise ValueError(
                f"Additive: depth={self.depth} asks for injection after block {self.depth}, the "
                f"generator has {G.max_blocks} blocks; lower rtil's depths or raise resolution."
            )

    def sample(
        self,
        G: Generator,
        batch: int,
        rng: torch.Generator,
        style_mixing: float = 0.0,
        turn: int = 0,
    ) -> Latents:
        return self.extend(G, G.sample_w(batch, rng, style_mixing), rng)

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
