"""Where a search starts: of many draws of the generator, the one that fits y best.

Draws are those of a generator and common to all images of a run, so that their images are drawn
once. They are chosen by the measurement loss, which the search minimises from there on.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from rtil.inverters.minimise import Observation
from rtil.inverters.styles import weights_key
from rtil.latents.additive import Additive
from rtil.latents.space import Latents
from rtil.models.generator import Generator
from rtil.process.rng import seeded

CHUNK = 64  # images at a time
LARGEST = 2**29  # numbers of all images of a pool, 2 GiB: 1365 candidates of 3x256x256


class Pool(NamedTuple):
    """Draws of a generator: z0 (N, z_dim), and their images (N, C, H, W)."""

    z0: Tensor
    images: Tensor


def check_candidates(who: str, G: Generator, candidates: int, times: int = 2) -> None:
    """Raises ValueError where the images of `times` so many candidates are too many to keep."""
    pixels = prod(G.image_shape)
    if candidates > 1 and times * candidates * pixels > LARGEST:
        raise ValueError(
            f"{who}: candidates={candidates} keeps {times} times as many images of {pixels} "
            f"numbers, beyond {LARGEST} in all; at most {LARGEST // (times * pixels)} fit."
        )


@lru_cache(maxsize=1)
@torch.no_grad()
def draw_pool(G: Generator, count: int, key: tuple) -> Pool:
    """So many draws of G, the same in every run; kept for all batches of one.

    Noise maps are 0, their mean: those of a search are its own.

    Args:
        key: see `weights_key`; a change draws anew.
    """
    weights = next(G.parameters())
    rng = seeded("cpu", "start")
    z0 = torch.randn(count, G.z_dim, generator=rng).to(weights)
    images = []
    for codes in z0.split(CHUNK):
        noise = tuple(weights.new_zeros(len(codes), *shape) for shape in G.noise_shapes)
        latents = Latents(G.map(codes), noise, {}, member=(0,) * len(codes))
        images.append(Additive(0).synthesize(G, latents))
    return Pool(z0, torch.cat(images))


def best_start(
    G: Generator, observation: Observation, rngs: Sequence[torch.Generator], candidates: int
) -> Tensor:
    """For each image the z0 (B, z_dim) whose measurements are nearest to its own.

    Args:
        G: generator with frozen weights.
        observation: measurements of B images, and the loss that compares them.
        rngs: one CPU generator per image.
        candidates: draws that each image looks at.
    """
    # Of twice as many each image looks at a half of its own, so that several starts of one image,
    # which average over what y leaves open, do not all begin at the same draw.
    pool = draw_pool(G, 2 * candidates, weights_key(G))
    return _nearest(pool, observation, rngs, candidates, 1)[0]


def best_starts(
    G: Generator,
    observation: Observation,
    rngs: Sequence[torch.Generator],
    candidates: int,
    count: int,
) -> Tensor:
    """As `best_start`, `count` of them for each image (count, B, z_dim), no draw seen twice."""
    pool = draw_pool(G, count * candidates, weights_key(G))
    return _nearest(pool, observation, rngs, candidates, count)


@torch.no_grad()
def _nearest(
    pool: Pool,
    observation: Observation,
    rngs: Sequence[torch.Generator],
    candidates: int,
    count: int,
) -> Tensor:
    """The z0 of the nearest draw in each of an image's first `count` parts of the pool."""
    A, loss = observation.A, observation.loss
    seen = torch.cat([A(images) for images in pool.images.split(CHUNK)])
    chosen = []
    for y, rng in zip(observation.y, rngs):
        order = torch.randperm(len(seen), generator=rng).to(seen.device)
        for part in order.split(candidates)[:count]:
            losses = [loss(some, y.expand_as(some)) for some in seen[part].split(CHUNK)]
            chosen.append(part[torch.cat(losses).argmin()])
    return pool.z0[torch.stack(chosen).view(-1, count).T]
