"""The contract of a latent family member: drawn in training, optimised in inversion (Fig. 4).

Both use the same `synthesize`, so an inverter meets exactly the network that was trained. To add
a family, write one file with a frozen dataclass that extends `Member` and a function that returns
a `rtil.latents.family.Family` of such members, and name the function in a yaml under configs/rtil.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple, final

import torch
from torch import Tensor

from rtil.models.generator import EMPTY, UNMIXED, Generator, State, StyleMixing


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


class MapScale(NamedTuple):
    """What a map z_k is drawn with in training, z_k ~ N(0, sigma^2 I).

    sigma: standard deviation. relative: in units of the rms of the map that it joins, image by
    image, instead of feature units.
    """

    sigma: float
    relative: bool = False


class LatentSpace(ABC):
    """What one pass of training draws: a `Member`, or a mixture of members."""

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """Name of each member that `sample` draws from, e.g. ("G^2",)."""

    @property
    @abstractmethod
    def members(self) -> tuple[Member, ...]:
        """The members that `sample` draws from: itself, or those of a mixture."""

    @final
    @property
    def title(self) -> str:
        """Its name in terms and logs."""
        return self.names[0] if len(self.names) == 1 else "family"

    @abstractmethod
    def check(self, G: Generator) -> None:
        """Raises ValueError where G cannot be driven by this space."""

    @abstractmethod
    def drawn(self, batch: int, turn: int) -> tuple[int, ...]:
        """Member of each sample of draw number `turn`; () where every draw is alike."""

    @abstractmethod
    def sample(
        self,
        G: Generator,
        batch: int,
        rng: torch.Generator,
        style_mixing: StyleMixing = UNMIXED,
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


class Member(LatentSpace):
    """One member of a family: every draw is alike.

    Attributes:
        num_codes: styles that a sample takes.
    """

    num_codes: int

    @property
    @abstractmethod
    def name(self) -> str:
        """Its name, which may be set as mathematics, e.g. "G^2"."""

    @property
    @abstractmethod
    def is_plain(self) -> bool:
        """Whether it draws what the generator draws without any family."""

    @property
    @abstractmethod
    def nested(self) -> tuple[Member, ...]:
        """The members that it contains, from the plain generator to itself, for figures."""

    @property
    @abstractmethod
    def order(self) -> tuple[float, ...]:
        """Where a figure shows it among members of its kind."""

    @abstractmethod
    def map_scale(self, k: int) -> MapScale | None:
        """What it draws z_k with; None where nothing joins the output of block k."""

    @abstractmethod
    def shares_pass(self, other: Member) -> bool:
        """Whether one `synthesize` can draw a batch with samples of both."""

    @abstractmethod
    def extend(self, G: Generator, w: Tensor, rng: torch.Generator) -> Latents:
        """Draws what joins styles w (B num_codes, *w_shape), num_codes consecutive ones a sample.

        `member` of the result is (0,) * B.
        """

    @final
    @property
    def names(self) -> tuple[str, ...]:
        return (self.name,)

    @final
    @property
    def members(self) -> tuple[Member, ...]:
        return (self,)

    @final
    def drawn(self, batch: int, turn: int) -> tuple[int, ...]:
        return ()

    @final
    def sample(
        self,
        G: Generator,
        batch: int,
        rng: torch.Generator,
        style_mixing: StyleMixing = UNMIXED,
        turn: int = 0,
    ) -> Latents:
        return self.extend(G, G.sample_w(batch * self.num_codes, rng, style_mixing), rng)


def merge(parts: Sequence[Latents]) -> Latents:
    """Concatenates latents along the batch; a z_k that some parts lack is zero there."""
    first = parts[0]
    if len(parts) == 1:
        return first
    add = None
    if first.add is not None:
        blocks = sorted({k for part in parts for k in part.add or {}})
        add = {k: _merged_map(parts, k) for k in blocks}
    alpha = counts = None
    if first.alpha is not None:
        alpha = torch.cat([part.alpha for part in parts if part.alpha is not None])
        counts = tuple(count for part in parts for count in part.counts or ())
    return Latents(
        w=torch.cat([part.w for part in parts]),
        noise=tuple(torch.cat(maps) for maps in zip(*(part.noise for part in parts))),
        add=add,
        alpha=alpha,
        counts=counts,
        member=tuple(member for part in parts for member in part.member),
    )


def take(latents: Latents, rows: Sequence[int]) -> Latents:
    """The latents of some samples of a batch, in memory of their own."""
    index = [*rows]
    counts = latents.counts
    codes = index
    if counts is not None:
        ends = [*accumulate(counts)]
        codes = [code for b in index for code in range(ends[b] - counts[b], ends[b])]
    return Latents(
        w=latents.w[codes],
        noise=tuple(maps[index] for maps in latents.noise),
        add=None if latents.add is None else {k: z[index] for k, z in latents.add.items()},
        alpha=None if latents.alpha is None else latents.alpha[codes],
        counts=None if counts is None else tuple(counts[b] for b in index),
        member=tuple(latents.member[b] for b in index),
    )


def _merged_map(parts: Sequence[Latents], k: int) -> Tensor:
    """z_k of all parts; at least one of them has it."""
    like = next(part.add[k] for part in parts if part.add and k in part.add)
    maps = []
    for part in parts:
        z = (part.add or {}).get(k)
        maps.append(like.new_zeros(len(part.member), *like.shape[1:]) if z is None else z)
    return torch.cat(maps)
