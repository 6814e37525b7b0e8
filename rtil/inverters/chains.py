"""Chains of a posterior: the model of images, what one starts from and found, what several say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from rtil.latents.additive import Additive
from rtil.latents.space import Latents
from rtil.models.generator import Generator


class Model(NamedTuple):
    """Images as a chain sees them: m(z) = (1 - a) mu + a G(z).

    mu: (C, H, W). share: a. sigmas: standard deviations of the maps z_1, z_2, ..; relative: in
    units of the rms of the map that each joins.
    """

    G: Generator
    mu: Tensor
    share: float
    sigmas: Sequence[float]
    relative: bool

    def shrunk(self, images: Tensor) -> Tensor:
        """(1 - a) mu + a images, of images of G."""
        return torch.lerp(self.mu, images, self.share)

    def render(self, z: Sequence[Tensor]) -> tuple[Tensor, Latents]:
        """m(z) (B, C, H, W) and the latents of G, of standard normal z0, maps, noise maps."""
        maps = len(self.sigmas)
        add = {k: sigma * z[k] for k, sigma in enumerate(self.sigmas, start=1)}
        latents = Latents(self.G.map(z[0]), tuple(z[1 + maps :]), add, member=(0,) * len(z[0]))
        image = Additive(maps, relative=self.relative).synthesize(self.G, latents)
        return self.shrunk(image), latents


class Draw(NamedTuple):
    """What a chain is perturbed by: z, r and A r + e of the model itself.

    z: latents, standard normal: z0, maps, noise maps. r: (B, C, H, W). seen: (B, *out_shape).
    """

    z: list[Tensor]
    r: Tensor
    seen: Tensor

    def mirrored(self) -> Draw:
        """The draw of opposite sign, which is as likely."""
        return Draw([-z for z in self.z], -self.r, -self.seen)


class Chain(NamedTuple):
    """One chain of a batch: the expected image given its latents, a draw of it, and its steps.

    energy: (B,), what the chain minimised, at its last iterate.
    """

    image: Tensor
    draw: Tensor
    energy: Tensor
    latents: Latents
    history: Tensor


def mean_of(
    chains: Sequence[Chain], temperature: float | None, opposite: bool
) -> tuple[Tensor, Tensor]:
    """Mean of the chains' images (B, C, H, W), and their variance around it, alike.

    Args:
        chains: R of them.
        temperature: T, chains weigh as exp(-energy / T); None: alike.
        opposite: chains came in pairs of opposite draws.
    """
    images = torch.stack([chain.image for chain in chains])
    energies = torch.stack([chain.energy for chain in chains])
    if temperature is None:
        weights = torch.full_like(energies, 1 / len(energies))
    else:
        weights = torch.softmax(-energies / temperature, 0)
    weights = weights[..., None, None, None]
    mean = (weights * images).sum(0)
    variance = (weights * (images - mean).square()).sum(0)
    if temperature is None:  # else a mixture, whose variance this is
        # The mean of opposite draws is that of the posterior where G is linear: no degree of
        # freedom is lost but to the last of an odd number.
        count = len(images)
        lost = count % 2 / count if opposite else 1.0
        variance = variance * (count / max(count - lost, 1.0))
    return mean, variance
