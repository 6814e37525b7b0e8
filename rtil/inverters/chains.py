"""Chains of a posterior: what one starts from, what it found, and what several say together."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rtil.latents.space import Latents


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


def mixture(
    images: Tensor, energies: Tensor, temperature: float | None, opposite: bool
) -> tuple[Tensor, Tensor]:
    """Mean of the chains' images (B, C, H, W), and their variance around it, alike.

    Args:
        images: (R, B, C, H, W).
        energies: (R, B), negative log-densities.
        temperature: T, chains weigh as exp(-energy / T); None: alike.
        opposite: chains came in pairs of opposite draws.
    """
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
