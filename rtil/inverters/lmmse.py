"""The linear minimum-mean-square-error estimate from training images: a yardstick without G."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from rtil.inverters.linear import LinearEstimate
from rtil.operators.operator import LinearOperator


class GaussianPrior:
    """Mean and shrunk covariance of training images (Ledoit and Wolf 2004).

    C = (1 - rho) S + rho (tr S / n) I with the sample covariance S of N images and the rho that
    minimises the expected squared error, so that few images do not make C singular. S is kept
    dense where n <= N and as its factor where not; nothing limits n.

    Args:
        images: (N, C, H, W) in [-1, 1].

    Raises:
        ValueError: fewer than two images.
    """

    def __init__(self, images: Tensor) -> None:
        if len(images) < 2:
            raise ValueError(f"GaussianPrior: {len(images)} training images; it needs 2 or more.")
        self.shape = tuple(images.shape[1:])
        self.num_images = len(images)
        x = images.flatten(1).double()
        self.mean = x.mean(0)
        x -= self.mean
        count, size = x.shape
        self.factor, self.dense = x / count**0.5, None
        if size <= count:
            self.dense = self.factor.T @ self.factor
            trace, square = self.dense.trace(), self.dense.square().sum()
        else:
            gram = self.factor @ self.factor.T
            trace, square = gram.trace(), gram.square().sum()
        spread = square - trace**2 / size  # |S - (tr S / n) I|^2
        error = (x.square().sum(1).square().sum() / count - square) / count
        self.rho = float((error / spread.clamp_min(1e-300)).clamp(1e-6, 1.0))
        self.floor = self.rho * float(trace) / size
        if self.dense is not None:
            self.factor = None

    def covariance(self, x: Tensor) -> Tensor:
        """C x for rows x (B, n), float64."""
        if self.dense is not None:
            return (1 - self.rho) * (x @ self.dense) + self.floor * x
        return (1 - self.rho) * ((x @ self.factor.T) @ self.factor) + self.floor * x


class LMMSE(LinearEstimate):
    """x_hat = mean + C A^T (A C A^T + s^2 I)^-1 (y - A mean), the Wiener estimate.

    Exact for a linear A up to the tolerance of the conjugate-gradient solver (float64).

    Args:
        prior: of the training images.
        noise_std: of the measurements, in units of the [0, 1] image (s = 2 noise_std).
        tolerance: relative residual at which an image is solved.
        max_steps: cap on the solver's steps.
    """

    def __init__(
        self,
        prior: GaussianPrior,
        noise_std: float = 0.0,
        tolerance: float = 1e-6,
        max_steps: int = 3000,
    ) -> None:
        self.prior, self.variance = prior, (2.0 * noise_std) ** 2
        self.tolerance, self.max_steps = tolerance, max_steps

    def estimate(self, A: LinearOperator, y: Tensor) -> Tensor:
        operator = copy.deepcopy(A).cpu().double()
        measured = y.detach().cpu().double()
        shape = self.prior.shape

        def forward(x: Tensor) -> Tensor:
            return operator(x.view(-1, *shape)).flatten(1)

        def adjoint(v: Tensor) -> Tensor:
            return operator.adjoint(v.view(-1, *measured.shape[1:])).flatten(1)

        def normal(v: Tensor) -> Tensor:
            return forward(self.prior.covariance(adjoint(v))) + self.variance * v

        rest = measured.flatten(1) - forward(self.prior.mean[None])
        dual = conjugate_gradient(normal, rest, self.tolerance, self.max_steps)
        x = self.prior.mean + self.prior.covariance(adjoint(dual))
        return x.view(len(y), *shape).to(y)


def conjugate_gradient(normal, b: Tensor, tolerance: float, max_steps: int) -> Tensor:
    """Solves M x = b for rows b (B, m), M symmetric and positive semidefinite on their span.

    Each row stops by itself at |r| <= tolerance |b|; entries that M ignores (unobserved pixels)
    stay zero.
    """
    x, r = torch.zeros_like(b), b.clone()
    p, rr = r.clone(), r.square().sum(1)
    target = (tolerance**2 * rr).clamp_min(1e-300)
    for _ in range(max_steps):
        active = rr > target
        if not bool(active.any()):
            break
        q = normal(p)
        step = torch.where(active, rr / (p * q).sum(1).clamp_min(1e-300), 0.0)
        x += step[:, None] * p
        r -= step[:, None] * q
        new = r.square().sum(1)
        p = r + torch.where(active, new / rr.clamp_min(1e-300), 0.0)[:, None] * p
        rr = torch.where(active, new, rr)
    return x
