"""Deep image prior: an untrained network that is fitted to the measurements alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from rtil.inverters.deepinv import DeepinvEstimate, Drawn, Rngs
from rtil.operators.linear_physics import library

FIRST = (4, 4)  # size of the map that the decoder begins with


@final
@dataclass(frozen=True)
class DIP(DeepinvEstimate):
    """deepinv's DeepImagePrior (Ulyanov et al. 2018): G_w(z), z ~ N(0, I) fixed, of the weights

        min over w of |A G_w(z) - y|^2

    after so many steps of Adam from a random w, with deepinv's ConvDecoder (Darestani and Heckel
    2021) as G. An image at a time: its network normalises over a batch.

    Args:
        steps: of Adam; with noise, fewer of them fit less of it.
        lr: step size.
        width: channels of a layer.
        layers: of the decoder, 3 or more.
        noise_std, least_noise: as `DeepinvEstimate`; they have no effect here.

    Raises:
        ValueError: settings out of range.
    """

    steps: int = 500
    lr: float = 0.01
    width: int = 32
    layers: int = 5
    noise_std: float = 0.0
    least_noise: float = 0.01

    def __post_init__(self) -> None:
        if not (min(self.steps, self.width) >= 1 and self.layers >= 3 and self.lr > 0):
            raise ValueError(
                f"DIP: steps={self.steps} and width={self.width} must be 1 or more, "
                f"layers={self.layers} 3 or more, lr={self.lr} above 0."
            )

    def check_images(self, shape: tuple[int, ...]) -> None:
        """Fits any."""

    def reconstruct(self, physics: Any, y: Tensor, rngs: Rngs) -> Tensor:
        """As DeepinvEstimate.reconstruct."""
        # One after the other: batch norm would make an image depend on what shares its batch.
        images = [self._fitted(physics, y[b : b + 1], rng) for b, rng in enumerate(rngs)]
        return torch.cat(images)

    def _fitted(self, physics: Any, y: Tensor, rng: torch.Generator) -> Tensor:
        """One image (1, C, H, W)."""
        models = library("models")
        size = (self.width, *FIRST)
        # Its first weights are drawn on the CPU, so that they are the same on every device.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(torch.randint(2**62, (), generator=rng)))
            G = models.ConvDecoder(physics.img_size, FIRST, self.layers, self.width)
        model = models.DeepImagePrior(G.to(y.device), size, self.steps, self.lr)
        with Drawn([rng]):
            return model(y, physics)
