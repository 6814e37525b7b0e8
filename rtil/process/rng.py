"""Random numbers that belong to what they are drawn for, not to the order of calls.

In inversion a generator is seeded by (seed, image id, purpose). In training every step has one
generator, and a number belongs to the place of its sample in the whole batch (`Draws`).
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor


def seeded(device: torch.device | str, *parts: object) -> torch.Generator:
    """A generator whose stream depends on the parts alone, e.g. (seed, image id, "noise")."""
    return torch.Generator(device=device).manual_seed(seed_of(*parts))


def seed_of(*parts: object) -> int:
    """What `seeded` seeds its generator with."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "little") >> 1


@dataclass(frozen=True)
class Draws:
    """Random numbers of a batch whose samples are shared by processes.

    Every process draws the numbers of all samples from a generator of the same state and keeps
    those of its own, so that training does not depend on the number of processes.

    Attributes:
        rng: of every draw, seeded alike in all processes.
        total: samples of the batch over all processes.
        rank, world: of this process, and how many there are.
    """

    rng: torch.Generator
    total: int
    rank: int = 0
    world: int = 1

    def over(self, total: int) -> Draws:
        """The same for a batch of another size."""
        return replace(self, total=total)

    @property
    def own(self) -> list[int]:
        """Places of this process's samples in the batch, in ascending order.

        Each process has equally many, so that the mean over processes of their means is the mean
        over samples; where the batch does not divide, every sample stands in several processes.
        Where it does, they are consecutive: groups of samples stay together.
        """
        places = math.lcm(self.total, self.world)
        share, copies = places // self.world, places // self.total
        return [place // copies for place in range(self.rank * share, (self.rank + 1) * share)]

    def keep(self, drawn: Tensor) -> Tensor:
        """The rows of this process's samples out of those of all, without the memory of these."""
        return drawn if self.world == 1 else drawn[self.own]

    def normal(self, *shape: int) -> Tensor:
        """x ~ N(0, 1) of this shape for each sample (B, *shape), on the generator's device."""
        size = (self.total, *shape)
        return self.keep(torch.randn(size, generator=self.rng, device=self.rng.device))

    def uniform(self, *shape: int) -> Tensor:
        """x ~ U(0, 1) of this shape for each sample (B, *shape), on the generator's device."""
        size = (self.total, *shape)
        return self.keep(torch.rand(size, generator=self.rng, device=self.rng.device))
