"""Diffusion posterior sampling: a denoiser's diffusion, drawn towards the measurements."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from rtil.inverters.deepinv import Denoised
from rtil.operators.linear_physics import library


@final
@dataclass(frozen=True)
class DPS(Denoised):
    """A draw of deepinv's DPS (Chung et al. 2023): the reverse of a variance-preserving diffusion

        grad log p_t(x | y) = grad log p_t(x) - weight grad |A D(x) - y|

    by ancestral steps. The default weight is the best of 100, 300 and 1000 on eight
    validation images of data=glyphs, cs with ratio=0.1.

    Args:
        denoiser: file of the denoiser D.
        steps: of the diffusion, each with a gradient through D.
        weight: of the guidance.
        noise_std, least_noise: as `DeepinvEstimate`; they have no effect here.

    Raises:
        ValueError: settings out of range.
    """

    denoiser: str
    steps: int = 100
    weight: float = 300.0
    noise_std: float = 0.0
    least_noise: float = 0.01

    def __post_init__(self) -> None:
        if not (
            self.steps >= 2 and self.noise_std >= 0 and min(self.weight, self.least_noise) > 0
        ):
            raise ValueError(
                f"DPS: steps={self.steps} must be 2 or more, weight={self.weight} and "
                f"least_noise={self.least_noise} above 0, noise_std={self.noise_std} 0 or more."
            )

    def estimate(self, D: Any, physics: Any, y: Tensor) -> Tensor:
        sampling = library("sampling")
        model = sampling.DPS(
            D,
            num_steps=self.steps,
            weight=self.weight,
            guidance="norm",
            device=y.device,
        )
        start = y.new_empty((len(y), *physics.img_size), dtype=torch.float64)
        begin = model.solver.timesteps[0]
        noise = model.sde.sigma_t(begin) * model.sde.scale_t(begin)
        return model(y, physics, x_init=torch.randn_like(start) * noise)
