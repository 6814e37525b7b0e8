"""The whole family inside one batch: the member itself is drawn (design: cost of the family)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import isclose
from typing import final

import torch
from torch import Tensor

from rtil.latents.space import Latents, LatentSpace, Member, merge
from rtil.models.generator import EMPTY, UNMIXED, Generator, State, StyleMixing
from rtil.models.layers import group_size

CYCLE = 1000  # longest rotation that weights are rounded to


@final
@dataclass(frozen=True)
class Mixture(LatentSpace):
    """Each group of samples draws its member, so one pass trains every member.

    The expected loss is sum_m weight_m E L_m, the weighted mean that training every member in
    turn has. Groups are those of the discriminator's minibatch standard deviation, so its
    statistics never mix members; members rotate over groups and draws in proportion to weights.
    Differs from the paper: one draw per sample instead of one pass per member (rtil=ilo, mgan).

    Args:
        members: that can share a pass, see `Member.shares_pass`; at least one.
        weights: share of each member; None for equal shares.
        group: samples per group; its largest divisor that fits the batch is used. None: the batch.

    Raises:
        ValueError: members that cannot share a pass, or weights that do not fit.
    """

    members: tuple[Member, ...] = ()  # no default in effect: it is refused, and makes it concrete
    weights: tuple[float, ...] | None = None
    group: int | None = 4

    def __post_init__(self) -> None:
        object.__setattr__(self, "members", tuple(self.members))
        weights = self.weights or (1.0,) * len(self.members)
        object.__setattr__(self, "weights", tuple(float(w) for w in weights))
        alike = [self.members[0].shares_pass(member) for member in self.members]
        if not alike or not all(alike):
            raise ValueError(
                f"Mixture: members {self.members} cannot share a pass; they must be one or more "
                "of one kind and differ only in what is drawn for each sample (`shares_pass` of "
                "their class says in what)."
            )
        if len(weights) != len(self.members) or min(weights) < 0 or not any(weights):
            raise ValueError(
                f"Mixture: weights={self.weights} must be {len(self.members)} numbers, none "
                "negative and not all zero."
            )

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(member.name for member in self.members)

    def check(self, G: Generator) -> None:
        for member in self.members:
            member.check(G)

    @cached_property
    def rotation(self) -> tuple[int, ...]:
        """Shortest sequence of members whose counts are in proportion to the weights."""
        weights = self.weights or ()
        share = [w / sum(weights) for w in weights]
        counts = [0] * len(share)
        sequence: list[int] = []
        while len(sequence) < CYCLE:
            n = len(sequence) + 1
            member = max(range(len(share)), key=lambda m: share[m] * n - counts[m])
            counts[member] += 1
            sequence.append(member)
            if all(isclose(s * n, c, abs_tol=1e-6) for s, c in zip(share, counts)):
                break
        return tuple(sequence)

    def drawn(self, batch: int, turn: int) -> tuple[int, ...]:
        """Member of each sample of draw number `turn`, sorted so that members lie together."""
        group = group_size(batch, self.group)
        groups = batch // group
        first = turn * groups
        drawn = sorted(self.rotation[(first + g) % len(self.rotation)] for g in range(groups))
        return tuple(m for m in drawn for _ in range(group))

    def sample(
        self,
        G: Generator,
        batch: int,
        rng: torch.Generator,
        style_mixing: StyleMixing = UNMIXED,
        turn: int = 0,
    ) -> Latents:
        member = self.drawn(batch, turn)
        counts = [member.count(m) * space.num_codes for m, space in enumerate(self.members)]
        styles = G.sample_w(sum(counts), rng, style_mixing)
        parts = [
            space.extend(G, w, rng)
            for space, w in zip(self.members, styles.split(counts))
            if len(w)
        ]
        return merge(parts)._replace(w=styles, member=member)

    def synthesize(
        self, G: Generator, latents: Latents, start: int = 0, state: State = EMPTY
    ) -> Tensor:
        return self.members[0].synthesize(G, latents, start, state)
