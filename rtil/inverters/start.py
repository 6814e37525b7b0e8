"""Where a search starts: of many draws of the generator, the one that fits y best.

Draws are those of a generator and common to all images of a run, so that their images are drawn
once, or once a batch where they are too many to keep. They are chosen by the measurement loss,
which the search minimises from there on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from rtil.inverters.chains import Model
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
    search = Search(G, 2 * candidates, candidates, 1)
    return search.nearest(observation, rngs, lambda images: images)[0]


def best_starts(
    model: Model,
    observation: Observation,
    rngs: Sequence[torch.Generator],
    candidates: int,
    count: int,
) -> Tensor:
    """As `best_start`, `count` of them for each image (count, B, z_dim), no draw seen twice."""
    search = Search(model.G, count * candidates, candidates, count)
    return search.nearest(observation, rngs, model.shrunk)


class Search(NamedTuple):
    """Of `size` draws each image looks at `parts` times `candidates`, in an order of its own."""

    G: Generator
    size: int
    candidates: int
    parts: int

    @torch.no_grad()
    def nearest(
        self,
        observation: Observation,
        rngs: Sequence[torch.Generator],
        image_of: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """The z0 (parts, B, z_dim) of the draw in each part that is nearest to each y."""
        pool = draw_pool(self.G, self.size, weights_key(self.G))
        images = _images(self.G, pool.z0) if pool.images is None else pool.images.split(CHUNK)
        looked = self.parts * self.candidates
        orders = [torch.randperm(self.size, generator=rng)[:looked] for rng in rngs]
        losses = torch.full((len(orders), self.size), torch.inf, dtype=observation.y.dtype)
        for first, chunk in zip(range(0, self.size, CHUNK), images):
            seen = observation.A(image_of(chunk))
            for image, (y, order) in enumerate(zip(observation.y, orders)):
                mine = order[(order >= first) & (order < first + CHUNK)]
                if len(mine):
                    candidates = seen[(mine - first).to(seen.device)]
                    loss = observation.loss(candidates, y.expand_as(candidates))
                    losses[image, mine] = loss.to(losses)
        best = [
            [part[own[part].argmin()] for part in order.split(self.candidates)]
            for own, order in zip(losses, orders)
        ]
        return pool.z0[torch.tensor(best, device=pool.z0.device).T]
