"""The linear minimum-mean-square-error estimate from training images: a yardstick without G."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import final

import torch
from torch import Tensor

from rtil.inverters.inverter import FittedInverter
from rtil.inverters.linear import LinearEstimate
from rtil.inverters.minimise import randn
from rtil.operators.operator import LinearOperator


@final
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
        # S = factor^T factor. tr S and |S|^2 are those of the smaller of S and the Gram matrix.
        factor = x / count**0.5
        self.is_dense = size <= count
        small = factor.T @ factor if self.is_dense else factor @ factor.T
        self.matrix = small if self.is_dense else factor
        trace, square = small.trace(), small.square().sum()
        spread = square - trace**2 / size  # |S - (tr S / n) I|^2
        error = (x.square().sum(1).square().sum() / count - square) / count
        # At least a little of the identity: A C A^T is inverted.
        self.rho = float((error / spread.clamp_min(1e-300)).clamp(1e-6, 1.0))
        self.floor = self.rho * float(trace) / size

    def covariance(self, x: Tensor) -> Tensor:
        """C x for rows x (B, n), float64."""
        product = x @ self.matrix if self.is_dense else (x @ self.matrix.T) @ self.matrix
        return (1 - self.rho) * product + self.floor * x

    @property
    def variance(self) -> Tensor:
        """The diagonal of C, (n,)."""
        own = self.matrix.diagonal() if self.is_dense else self.matrix.square().sum(0)
        return (1 - self.rho) * own + self.floor

    def draw(self, rngs: Sequence[torch.Generator]) -> Tensor:
        """Rows of N(0, C) (B, n), each from its own CPU generator."""
        size = (self.matrix.shape[1],)
        if self.is_dense:
            return randn(size, rngs, self.matrix) @ self._root.T
        # Two independent parts: of the images' span, and of the identity.
        spanned = randn((len(self.matrix),), rngs, self.matrix) @ self.matrix
        return (1 - self.rho) ** 0.5 * spanned + self.floor**0.5 * randn(size, rngs, self.matrix)

    @cached_property
    def _root(self) -> Tensor:
        """The Cholesky factor of C, where C is dense."""
        identity = torch.eye(len(self.matrix), dtype=self.matrix.dtype, device=self.matrix.device)
        return torch.linalg.cholesky((1 - self.rho) * self.matrix + self.floor * identity)

    def to(self, device: torch.device) -> GaussianPrior:
        """The same on a device."""
        moved = copy.copy(self)
        moved.__dict__.pop("_root", None)
        moved.mean, moved.matrix = self.mean.to(device), self.matrix.to(device)
        return moved


@final
@dataclass(frozen=True)
class LMMSE(LinearEstimate, FittedInverter):
    """x_hat = mean + C A^T (A C A^T + s^2 I)^-1 (y - A mean), the Wiener estimate.

    Exact for a linear A up to the tolerance of the conjugate-gradient solver (float64).

    Args:
        noise_std: of the measurements, in units of the [0, 1] image (s = 2 noise_std).
        tolerance: relative residual at which an image is solved.
        max_steps: cap on the solver's steps.
        prior: mean and covariance C of the training images; None until `fit`.

    Raises:
        ValueError: settings out of range.
    """

    noise_std: float = 0.0
    tolerance: float = 1e-6
    max_steps: int = 3000
    prior: GaussianPrior | None = None

    def __post_init__(self) -> None:
        if not (self.noise_std >= 0 and self.tolerance > 0 and self.max_steps >= 1):
            raise ValueError(
                f"LMMSE: noise_std={self.noise_std} must be 0 or more, "
                f"tolerance={self.tolerance} above 0, max_steps={self.max_steps} 1 or more."
            )

    def fit(self, images: Tensor) -> LMMSE:
        """With the mean and the covariance of images (N, C, H, W) in [-1, 1].

        Raises:
            ValueError: fewer than two images.
        """
        return replace(self, prior=GaussianPrior(images))

    def estimate(self, A: LinearOperator, y: Tensor) -> Tensor:
        """As LinearEstimate.estimate.

        Raises:
            ValueError: it was not fitted.
        """
        prior = self.prior
        if prior is None:
            raise ValueError(
                "LMMSE: it knows no training images yet; use what fit(images) returns."
            )
        variance = (2.0 * self.noise_std) ** 2
        # In float64 on the CPU: the covariance is there, and the solver's tolerance needs it.
        operator = copy.deepcopy(A).cpu().double()
        measured = y.detach().cpu().double()

        def forward(x: Tensor) -> Tensor:
            return operator(x.view(-1, *prior.shape)).flatten(1)

        def adjoint(v: Tensor) -> Tensor:
            return operator.adjoint(v.view(-1, *measured.shape[1:])).flatten(1)

        def normal(v: Tensor) -> Tensor:
            return forward(prior.covariance(adjoint(v))) + variance * v

        # One solve of m unknowns instead of n: what is inverted is A C A^T + s^2 I.
        rest = measured.flatten(1) - forward(prior.mean[None])
        dual = conjugate_gradient(normal, rest, self.tolerance, self.max_steps)
        x = prior.mean + prior.covariance(adjoint(dual))
        return x.view(len(y), *prior.shape).to(y)


def conjugate_gradient(
    normal: Callable[[Tensor], Tensor], b: Tensor, tolerance: float, max_steps: int
) -> Tensor:
    """Solves M x = b for rows b (B, m), M symmetric and positive semidefinite on their span.

    Each row stops by itself at |r| <= tolerance |b|; entries that M ignores (unobserved pixels)
    stay zero.
    """
    x, r = torch.zeros_like(b), b.clone()
    p, rr = r.clone(), r.square().sum(1)
    target = (tolerance**2 * rr).clamp_min(1e-300)
    for _ in range(max_steps):
        active = rr > target  # a row that is solved stays as it is
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
