"""DiffPIR: a denoiser's diffusion, with the measurements put into each denoised image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from rtil.inverters.deepinv import Denoised
from rtil.operators.linear_physics import library


@final
@dataclass(frozen=True)
class DiffPIR(Denoised):
    """deepinv's DiffPIR (Zhu et al. 2023, algorithm 1). At each noise level s_t of the diffusion

        x0 = D(x_t, s_t),    x0 <- argmin over u of |A u - y|^2 + rho_t |u - x0|^2,
        rho_t = data_weight s^2 / s_t^2,

    with the noise s of y, and the noise that x0 leaves of x_t is kept but for a share zeta of its
    variance, which is drawn anew.

    Args:
        denoiser: file of the denoiser D.
        steps: of the diffusion.
        data_weight: lambda of the paper.
        zeta: share in [0, 1].
        noise_std, least_noise: as `DeepinvEstimate`.

    Raises:
        ValueError: settings out of range.
    """

    denoiser: str
    steps: int = 100
    data_weight: float = 2.0
    zeta: float = 1.0
    noise_std: float = 0.0
    least_noise: float = 0.01

    def __post_init__(self) -> None:
        above = min(self.data_weight, self.least_noise) > 0
        if not (self.steps >= 2 and self.noise_std >= 0 and above and 0 <= self.zeta <= 1):
            raise ValueError(
                f"DiffPIR: steps={self.steps} must be 2 or more, data_weight={self.data_weight} "
                f"and least_noise={self.least_noise} above 0, zeta={self.zeta} from 0 to 1, "
                f"noise_std={self.noise_std} 0 or more."
            )

    def estimate(self, D: Any, physics: Any, y: Tensor) -> Tensor:
        fidelity = library("optim.data_fidelity")
        model = library("sampling").DiffPIR(
            D,
            fidelity.L2(),
            sigma=float(physics.noise_model.sigma),
            max_iter=self.steps,
            zeta=self.zeta,
            lambda_=self.data_weight,
            device=y.device,
        )
        grey = torch.full((len(y), *physics.img_size), 0.5, dtype=y.dtype, device=y.device)
        return model(y, physics, x_init=grey)
