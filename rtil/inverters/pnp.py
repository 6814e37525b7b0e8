"""Plug and play: a denoiser in place of the proximal map of a prior."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from rtil.inverters.deepinv import Denoised
from rtil.operators.linear_physics import library


@final
@dataclass(frozen=True)
class PnP(Denoised):
    """deepinv's ADMM with a denoiser (Venkatakrishnan et al. 2013; Chan et al. 2017):

        u = argmin over u of |A u - y|^2 / (2 s^2) + |u - (x - z)|^2 / (2 s_k^2),
        x = D(u + z, s_k),    z <- z + u - x,

    with the noise s of y. The levels s_k fall from sigma_start to sigma_end in equal ratios. Where
    they are equal and D is the estimate of least squared error under a Gaussian prior, it
    converges to that of u given y.

    Args:
        denoiser: file of the denoiser D.
        steps: iterations.
        sigma_start, sigma_end: standard deviations in units of [0, 1] images.
        noise_std, least_noise: as `DeepinvEstimate`.

    Raises:
        ValueError: settings out of range.
    """

    denoiser: str
    steps: int = 50
    sigma_start: float = 0.5
    sigma_end: float = 0.05
    noise_std: float = 0.0
    least_noise: float = 0.01

    def __post_init__(self) -> None:
        least = min(self.sigma_end, self.least_noise)
        if not (self.steps >= 1 and self.noise_std >= 0 and least > 0):
            raise ValueError(
                f"PnP: steps={self.steps} must be 1 or more, sigma_end={self.sigma_end} and "
                f"least_noise={self.least_noise} above 0, noise_std={self.noise_std} 0 or more."
            )
        if self.sigma_start < self.sigma_end:
            raise ValueError(
                f"PnP: sigma_start={self.sigma_start} must be sigma_end={self.sigma_end} or more."
            )

    def estimate(self, D: Any, physics: Any, y: Tensor) -> Tensor:
        optim = library("optim")
        start, end = torch.tensor([self.sigma_start, self.sigma_end], dtype=torch.float64).log()
        levels = torch.linspace(float(start), float(end), self.steps, dtype=torch.float64).exp()
        # deepinv's step size is the variance s_k^2 that the proximal map weighs its input by.
        model = optim.ADMM(
            data_fidelity=optim.data_fidelity.L2(sigma=float(physics.noise_model.sigma)),
            prior=optim.prior.PnP(denoiser=D),
            stepsize=levels.square().tolist(),
            sigma_denoiser=levels.tolist(),
            max_iter=self.steps,
        )
        return model(y, physics)
