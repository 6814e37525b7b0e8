"""Where a search starts: of many draws of the generator, the one that fits y best.

Draws are those of a generator and common to all images of a run, so that their images are drawn
once. They are chosen by the measurement loss, which the search minimises from there on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
LARGEST = 2**29  # numbers of all images of a pool that are kept, 2 GiB


class Pool(NamedTuple):
    """Draws of a generator: z0 (N, z_dim), and their images (N, C, H, W), None where too large."""

    z0: Tensor
    images: Tensor | None


@lru_cache(maxsize=1)
@torch.no_grad()
def draw_pool(G: Generator, count: int, key: tuple) -> Pool:
    """So many draws of G, the same in every run; kept for all batches of one.

    Args:
        key: see `weights_key`; a change draws anew.
    """
    weights = next(G.parameters())
    z0 = torch.randn(count, G.z_dim, generator=seeded("cpu", "start")).to(weights)
    fits = count * prod(G.image_shape) <= LARGEST
    return Pool(z0, torch.cat([*_images(G, z0)]) if fits else None)


def _images(G: Generator, z0: Tensor) -> Iterator[Tensor]:
    """The images of z0, a chunk at a time, with noise maps of 0, their mean."""
    for codes in z0.split(CHUNK):
        noise = tuple(z0.new_zeros(len(codes), *shape) for shape in G.noise_shapes)
        latents = Latents(G.map(codes), noise, {}, member=(0,) * len(codes))
        yield Additive(0).synthesize(G, latents)


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
    return _nearest(G, observation, rngs, [candidates, candidates])[0]


def best_starts(
    G: Generator,
    observation: Observation,
    rngs: Sequence[torch.Generator],
    candidates: int,
    count: int,
) -> Tensor:
    """As `best_start`, `count` of them for each image (count, B, z_dim), no draw seen twice."""
    return _nearest(G, observation, rngs, [candidates] * count)


@torch.no_grad()
def _nearest(
    G: Generator, observation: Observation, rngs: Sequence[torch.Generator], sizes: Sequence[int]
) -> Tensor:
    """The z0 (parts, B, z_dim) of the nearest draw in each part of an image's own order."""
    pool = draw_pool(G, sum(sizes), weights_key(G))
    images = _images(G, pool.z0) if pool.images is None else pool.images.split(CHUNK)
    losses = torch.cat([_losses(some, observation) for some in images], 1)
    chosen = []
    for own, rng in zip(losses, rngs):
        order = torch.randperm(own.numel(), generator=rng).to(own.device)
        chosen.append(torch.stack([part[own[part].argmin()] for part in order.split(sizes)]))
    return pool.z0[torch.stack(chosen, 1)]


def _losses(images: Tensor, observation: Observation) -> Tensor:
    """The loss of each image for each of B measurements, (B, images)."""
    seen = observation.A(images)
    return torch.stack([observation.loss(seen, y.expand_as(seen)) for y in observation.y])
