"""What an inversion meets inside a generator: feature scales, reach of each depth, hand-overs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from rtil.inverters.ilo import ILO
from rtil.inverters.inverter import Loss
from rtil.latents.additive import Additive
from rtil.latents.space import LatentSpace
from rtil.metrics.image import psnr, to_unit
from rtil.models.generator import EMPTY, Generator
from rtil.operators import ForwardOperator
from rtil.process.rng import seeded

BATCH = 64


class Depth(NamedTuple):
    """ILO up to stage k, of each of n images.

    psnr_db: of its iterate with the lowest measurement loss. z_rms: root mean square of z_k at
    its end, None for k = 0. jump: root mean square change on [0, 1] of the image between the last
    iterate of stage k - 1 and the first of stage k, where z_k is 0; None for k = 0.
    """

    k: int
    psnr_db: list[float]
    z_rms: list[float] | None
    jump: list[float] | None


class HandOver:
    """Keeps the iterates on both sides of the last stage's start, and their change."""

    def __init__(self, start: int) -> None:
        self.start, self.seen, self.before, self.jump = start, 0, None, None

    def __call__(self, image: Tensor) -> None:
        if self.seen == self.start:
            change = (image - self.before) / 2
            self.jump = change.square().mean((1, 2, 3)).sqrt().tolist()
        self.before = image.clone() if self.seen == self.start - 1 else None
        self.seen += 1


@torch.no_grad()
def draw(G: Generator, space: LatentSpace, count: int, seed: int) -> Tensor:
    """Images (count, C, H, W) in [-1, 1] of a family member."""
    rng, parts = seeded("cpu", "samples", space.names[0], seed), []
    for first in range(0, count, BATCH):
        latents = space.sample(G, min(BATCH, count - first), rng)
        parts.append(space.synthesize(G, latents).clamp(-1, 1))
    return torch.cat(parts)


@torch.no_grad()
def feature_scales(G: Generator, count: int, seed: int) -> dict[int, dict[str, list[float]]]:
    """{k: {"std", "rms"}} of x_k, the output of block k of G^0, for each of `count` samples.

    Both are over a sample's channels and positions: std is the unit of ILO's relative step size,
    rms that of a relative sigma.
    """
    rng = seeded("cpu", "samples", "feature scales", seed)
    found = {k: {"std": [], "rms": []} for k in range(1, G.num_blocks + 1)}
    for first in range(0, count, BATCH):
        latents = Additive(0).sample(G, min(BATCH, count - first), rng)
        state = EMPTY
        for k, scales in found.items():
            state = G.step(k, state, latents.w, latents.noise or None)
            scales["std"] += state.x.std((1, 2, 3)).tolist()
            scales["rms"] += state.x.square().mean((1, 2, 3)).sqrt().tolist()
    return found


def depths(
    G: Generator,
    inverter: ILO,
    A: ForwardOperator,
    x: Tensor,
    loss: Loss,
    rngs: Callable[[], Sequence[torch.Generator]],
) -> list[Depth]:
    """ILO up to each of its stages, on measurements A x without noise.

    Its run up to stage k begins as the one up to stage k - 1 does, draw by draw, so the entries
    are the ends of the stages of one run.

    Args:
        inverter: with one step size for all stages.
        x: true images (B, C, H, W) in [-1, 1].
        rngs: makes the images' generators anew.
    """
    stages, y, found = inverter.stages, A(x), []
    for k in range(len(stages)):
        part = replace(inverter, steps=stages[: k + 1])
        watch = HandOver(sum(n + 1 for n in stages[:k]))
        done = part.invert(G, A, y, loss, rngs(), watch=watch if k else None)
        z = done.latents.add[k].square().mean((1, 2, 3)).sqrt().tolist() if k else None
        scores = psnr(to_unit(done.image), to_unit(x)).tolist()
        found.append(Depth(k, scores, z, watch.jump))
    return found
