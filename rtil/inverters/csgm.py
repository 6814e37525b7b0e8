"""CSGM: the image in the range of G that fits the measurements best (Bora et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, final

import torch
from torch import Tensor

from rtil.inverters.inverter import GeneratorInverter, Loss, Reconstruction, Watch
from rtil.inverters.minimise import (
    Descent,
    Observation,
    Schedule,
    Variable,
    minimise,
    randn,
    reconstruction,
)
from rtil.inverters.prior import check_map, half_square, prior_weight
from rtil.inverters.start import best_start
from rtil.latents.additive import Additive
from rtil.latents.space import Latents
from rtil.models.generator import Generator
from rtil.models.layers import frozen
from rtil.operators.operator import ForwardOperator


class Search(NamedTuple):
    """found: what CSGM returns. z0: (B, z_dim) of its last iterate, where others go on from."""

    found: Reconstruction
    z0: Tensor


@final
@dataclass(frozen=True)
class CSGM(GeneratorInverter):
    """min over z0 of the measurement loss + l2 |z0|^2 (paper, eq. 1; Bora et al. 2017, eq. 3).

    Args:
        steps: Adam updates of each start.
        lr: their step size.
        candidates: 1, or how many draws of G are compared with y before each start, which then is
            from the one that fits best (`rtil.inverters.start`).
        restarts: starts from new draws; each image keeps the one with the lowest loss.
        l2: weight of |z0|^2.
        map: None, or the factor of -log p(z0) = |z0|^2 / 2 beside the measurement loss: a number,
            or "posterior" for the maximum a posteriori of z0 ~ N(0, I), see `prior_weight`. It is
            l2 = map / 2 under another name, so only one of the two can be set. It says nothing to
            a generator that normalises z0 (PGGAN with pixel_norm=input).
        noise_std: of the measurements, in units of the [0, 1] image; read by "posterior".
        rampup, rampdown: shares of the steps, see Schedule.

    Raises:
        ValueError: settings out of range.
    """

    steps: int
    lr: float = 0.1
    restarts: int = 2
    candidates: int = 1
    l2: float = 0.0
    map: str | float | None = None
    noise_std: float = 0.0
    rampup: float = 0.05
    rampdown: float = 0.75

    def __post_init__(self) -> None:
        counts = min(self.steps, self.restarts, self.candidates)
        if counts < 1 or self.lr <= 0 or self.l2 < 0:
            raise ValueError(
                f"CSGM: steps={self.steps}, restarts={self.restarts} and "
                f"candidates={self.candidates} must be 1 or more, lr={self.lr} positive, "
                f"l2={self.l2} 0 or more."
            )
        check_map("CSGM", self.map, self.noise_std)
        if self.map is not None and self.l2:
            raise ValueError(
                f"CSGM: l2={self.l2} and map={self.map} weigh the same |z0|^2; set one of them."
            )

    def check(self, G: Generator) -> None:
        """Any generator has a first latent."""

    @frozen()
    def invert(
        self,
        G: Generator,
        A: ForwardOperator,
        y: Tensor,
        loss: Loss,
        rngs: Sequence[torch.Generator],
        watch: Watch | None = None,
    ) -> Reconstruction:
        return self.search(G, Observation(A, y, loss, watch), rngs).found

    def search(
        self, G: Generator, observation: Observation, rngs: Sequence[torch.Generator]
    ) -> Search:
        """As `invert`, with z0."""
        best = self._start(G, observation, rngs)
        for _ in range(self.restarts - 1):
            best = _better(best, self._start(G, observation, rngs))
        return best

    def _start(
        self, G: Generator, observation: Observation, rngs: Sequence[torch.Generator]
    ) -> Search:
        """One start, from the next draws of each image's generator."""
        y, member = observation.y, (0,) * len(observation.y)
        if self.candidates > 1:
            z0 = best_start(G, observation, rngs, self.candidates)
        else:
            z0 = randn((G.z_dim,), rngs, y)
        noise = tuple(randn(shape, rngs, y) for shape in G.noise_shapes)
        weight = prior_weight(self.map, observation.loss, self.noise_std)

        def render() -> tuple[Tensor, Tensor | None]:
            latents = Latents(G.map(z0), noise, {}, member=member)
            penalty = self.l2 * z0.square().sum(1) if self.l2 else None
            if weight:  # the same |z0|^2 under its other name; only one of the two is set
                penalty = weight * half_square(z0)
            return Additive(0).synthesize(G, latents), penalty

        # z0 alone moves; the noise maps stay as they were drawn.
        descent = Descent(self.steps, Schedule(self.rampup, self.rampdown))
        minimum = minimise(render, [Variable(z0, self.lr)], observation, descent)
        found = reconstruction(minimum, Latents(G.map(z0), noise, {}, member=member))
        return Search(found, z0)


def _better(one: Search, other: Search) -> Search:
    """For each image the start that ended with the lower loss; histories are joined."""
    a, b = one.found, other.found
    assert a.latents is not None and b.latents is not None
    # The best iterates and the last ones are compared with their like: one start can have the
    # better best and the other the better last.
    best, last = b.loss < a.loss, b.last_loss < a.last_loss
    latents = Latents(
        _pick(a.latents.w, b.latents.w, last),
        tuple(_pick(x, z, last) for x, z in zip(a.latents.noise, b.latents.noise)),
        {},
        member=a.latents.member,
    )
    found = Reconstruction(
        _pick(a.image, b.image, best),
        _pick(a.last, b.last, last),
        _pick(a.loss, b.loss, best),
        _pick(a.last_loss, b.last_loss, last),
        torch.cat([a.history, b.history]),
        latents,
        (*a.starts, len(a.history)),
    )
    return Search(found, _pick(one.z0, other.z0, last))


def _pick(mine: Tensor, other: Tensor, take: Tensor) -> Tensor:
    """(B, ..): the other's entry where take (B,) is true."""
    return torch.where(take.view(-1, *[1] * (mine.ndim - 1)), other, mine)
