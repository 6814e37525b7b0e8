"""The contract of a latent family member: drawn in training, optimised in inversion (Fig. 4).

Both use the same `synthesize`, so an inverter meets exactly the network that was trained. To add
a family, write one file with a frozen dataclass and name it in a yaml under configs/rtil.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from rtil.models.generator import EMPTY, Generator, State


class Latents(NamedTuple):
    """Everything that an image of the family is a function of.

    w: styles (sum_b N_b, *w_shape): one row per code, N_b codes for sample b (1 but for codes).
    noise: noise maps (B, 1, H, W), one per entry of G.noise_shapes, or () for none.
    add: {k: z_k (B, C_k, H_k, W_k)}, what joins block k's output (paper, section 3.1).
    alpha: (sum_b N_b, C) code weights (section 3.2), with counts = (N_0, .., N_{B-1}).
    member: index of the family member each of the B samples was drawn from.
    """

    w: Tensor
    noise: tuple[Tensor, ...] = ()
    add: dict[int, Tensor] | None = None
    alpha: Tensor | None = None
    counts: tuple[int, ...] | None = None
    member: tuple[int, ...] = ()


class LatentSpace(ABC):
    """One member of the family, or a mixture of members."""

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """Name of each member that `sample` draws from, e.g. ("G^2",)."""

    @abstractmethod
    def check(self, G: Generator) -> None:
        """Raises ValueError where G cannot be driven by this space."""

    def drawn(self, batch: int, turn: int) -> tuple[int, ...]:
        """Member of each sample of draw number `turn`; () where every draw is alike."""
        return ()

    @abstractmethod
    def sample(
        self,
        G: Generator,
        batch: int,
        rng: torch.Generator,
        style_mixing: float = 0.0,
        turn: int = 0,
    ) -> Latents:
        """Draws latents of `batch` images: p_z, what training sees and inversion starts from.

        Args:
            G: generator.
            batch: B.
            rng: of every draw, on any device.
            style_mixing: see Generator.sample_w.
            turn: number of the draw; a mixture rotates its members by it.
        """

    @abstractmethod
    def synthesize(
        self, G: Generator, latents: Latents, start: int = 0, state: State = EMPTY
    ) -> Tensor:
        """Draws the images (B, C, H, W), from block `start`'s output `state` on.

        A restart adds z_start to the state first, so it equals the full run bit for bit.
        """


def merge(parts: Sequence[Latents]) -> Latents:
    """Concatenates latents along the batch; a z_k that some parts lack is zero there."""
    if len(parts) == 1:
        return parts[0]
    noise = tuple(torch.cat(maps) for maps in zip(*(p.noise for p in parts)))
    sizes = [len(p.member) for p in parts]
    add = {}
    for k in sorted({k for p in parts for k in p.add or {}}):
        like = next(p.add[k] for p in parts if k in (p.add or {}))
        add[k] = torch.cat(
            [
                p.add[k] if k in (p.add or {}) else like.new_zeros(n, *like.shape[1:])
                for p, n in zip(parts, sizes)
            ]
        )
    codes = parts[0].alpha is not None
    return Latents(
        w=torch.cat([p.w for p in parts]),
        noise=noise,
        add=add if parts[0].add is not None else None,
        alpha=torch.cat([p.alpha for p in parts]) if codes else None,
        counts=sum((p.counts for p in parts), ()) if codes else None,
        member=sum((p.member for p in parts), ()),
    )
