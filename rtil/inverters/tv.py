"""Total variation: a yardstick that knows of images that they are piecewise smooth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from rtil.inverters.linear import LinearEstimate
from rtil.operators.operator import LinearOperator

GRADIENT_NORM = 8.0  # bound on |gradient|^2 (Chambolle 2004, theorem 3.1)
POWER_STEPS, SLACK = 50, 1.1  # of the estimate of |A|, and how far it may be too low in |A|^2
PROBES = 8  # of the estimate of |A|_F


@final
@dataclass(frozen=True)
class TV(LinearEstimate):
    """Total-variation regularised least squares (Rudin, Osher and Fatemi 1992).

        min over x in [-1, 1]^n of |A x - y|^2 / (2 |A|^2) + w TV(x),
        TV(x) = sum over pixels of the Euclidean norm of the differences to the right and below,
                over all channels together,
        w = weight + noise_weight s,    s = 2 noise_std |A|_F / (sqrt(n) |A|^2),

    with the spectral norm |A|, so that neither weight depends on the scale of A. The first is for
    measurements without noise, where less is more exact and slower. s is the standard deviation
    that the noise has in a pixel of the gradient A^T (A x - y) / |A|^2; for denoising it is that
    of the noise. The defaults were chosen on the validation images of data=glyphs.

    Solved by the primal-dual method of Chambolle and Pock (2011, algorithm 1) with K = (A/|A|,
    gradient) and steps tau = w^(-1/2) / |K|, sigma = w^(1/2) / |K|: dual variables are of the size
    of w, and with equal steps 3000 do not reach what 100 of these do. Each image stops by itself
    where a step changes it by at most tolerance, relative to its norm.

    Args:
        weight: of TV without noise.
        noise_weight: of TV for each unit of noise.
        noise_std: of the measurements, in units of the [0, 1] image.
        tolerance: relative change of a step at which an image is solved.
        max_steps: cap on the steps.

    Raises:
        ValueError: settings out of range.
    """

    weight: float = 1e-3
    noise_weight: float = 0.7
    noise_std: float = 0.0
    tolerance: float = 1e-5
    max_steps: int = 2000

    def __post_init__(self) -> None:
        others = min(self.noise_weight, self.noise_std, self.tolerance)
        if not (self.weight > 0 and others >= 0 and self.max_steps >= 1):
            raise ValueError(
                f"TV: weight={self.weight} must be above 0, noise_weight={self.noise_weight}, "
                f"noise_std={self.noise_std} and tolerance={self.tolerance} 0 or more, "
                f"max_steps={self.max_steps} 1 or more."
            )

    def estimate(self, A: LinearOperator, y: Tensor) -> Tensor:
        # Everything below is of A / |A|, which makes weights and steps those of any A.
        scale = spectral_norm(A, y)
        noise = 2 * self.noise_std * pixel_norm(A, y) / scale**2
        weight = self.weight + self.noise_weight * noise
        norm = (SLACK + GRADIENT_NORM) ** 0.5
        tau, sigma, b = weight**-0.5 / norm, weight**0.5 / norm, y / scale
        x = ahead = y.new_zeros(len(y), *A.in_shape)
        residual, field = torch.zeros_like(b), gradient(x)
        active = torch.ones(len(y), 1, 1, 1, dtype=torch.bool, device=y.device)
        for _ in range(self.max_steps):
            # Dual step of the data term: the proximal map of its conjugate.
            residual = (residual + sigma * (A(ahead) / scale - b)) / (1 + sigma)
            # Dual step of TV: projection onto |field| <= weight, pixel by pixel.
            field = field + sigma * gradient(ahead)
            length = field.square().sum((1, 2), keepdim=True).sqrt()
            field = field * (weight / length.clamp_min(weight))
            # Primal step, kept in the box of images.
            slope = A.adjoint(residual) / scale + gradient_adjoint(field)
            new = torch.where(active, (x - tau * slope).clamp(-1, 1), x)
            change = torch.linalg.vector_norm(new - x, dim=(1, 2, 3), keepdim=True)
            size = torch.linalg.vector_norm(new, dim=(1, 2, 3), keepdim=True)
            active = active & (change > self.tolerance * size)
            x, ahead = new, 2 * new - x
            if not bool(active.any()):
                break
        return x


def spectral_norm(A: LinearOperator, y: Tensor) -> float:
    """|A| by power iteration on A^T A from a fixed draw, to a few per cent from below.

    Args:
        y: of the type and on the device of the computation.
    """
    rng = torch.Generator().manual_seed(0)
    x, size = torch.randn((1, *A.in_shape), generator=rng).to(y), y.new_ones(())
    for _ in range(POWER_STEPS):
        x = A.adjoint(A(x / size))
        size = torch.linalg.vector_norm(x)
    return float(size.sqrt())


def pixel_norm(A: LinearOperator, y: Tensor) -> float:
    """|A|_F / sqrt(n), as the root mean square of A^T e over fixed draws e ~ N(0, I)."""
    rng = torch.Generator().manual_seed(1)
    e = torch.randn((PROBES, *A.out_shape), generator=rng).to(y)
    return float(A.adjoint(e).square().mean().sqrt())


def gradient(x: Tensor) -> Tensor:
    """Differences to the pixel below and to the right (B, 2, C, H, W); 0 at the far border."""
    field = x.new_zeros(len(x), 2, *x.shape[1:])
    field[:, 0, :, :-1] = x[:, :, 1:] - x[:, :, :-1]
    field[:, 1, :, :, :-1] = x[..., 1:] - x[..., :-1]
    return field


def gradient_adjoint(field: Tensor) -> Tensor:
    """Transpose of `gradient`, minus the divergence (B, C, H, W)."""
    x = field.new_zeros(len(field), *field.shape[2:])
    x[:, :, 1:] += field[:, 0, :, :-1]
    x[:, :, :-1] -= field[:, 0, :, :-1]
    x[..., 1:] += field[:, 1, ..., :-1]
    x[..., :-1] -= field[:, 1, ..., :-1]
    return x
