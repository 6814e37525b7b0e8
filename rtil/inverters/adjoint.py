"""The pseudo-inverse of A: what the measurements alone say, a yardstick without any prior."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from rtil.inverters.data_term import MeasurementLoss
from rtil.inverters.linear import LinearEstimate
from rtil.operators.operator import LinearOperator


@final
@dataclass(frozen=True)
class Adjoint(LinearEstimate):
    """x_hat = A^+ y, the smallest image that explains y: a sum of back-projections A^T r.

    Conjugate gradients on A^T A x = A^T y from x = 0 (CGLS; Bjorck 1996, section 7.4), float64.
    The residual falls with every step, and each image stops by itself at

        |A x_hat - y| <= max(tolerance |y|, s sqrt(m)),    s = 2 noise_std,

    so that an A with small singular values, such as a blur, does not amplify noise without bound
    (discrepancy principle of Morozov). Steps are whole: an A whose singular values are equal, such
    as a mask or the identity, is solved in one, noise and all. Where all of y could be noise,
    x_hat is 0, mid-grey.

    Args:
        noise_std: of the measurements, in units of the [0, 1] image.
        tolerance: relative residual at which an image is solved.
        max_steps: cap on the solver's steps.

    Raises:
        ValueError: settings out of range.
    """

    noise_std: float = 0.0
    tolerance: float = 1e-6
    max_steps: int = 3000

    def __post_init__(self) -> None:
        if not (self.noise_std >= 0 and self.tolerance > 0 and self.max_steps >= 1):
            raise ValueError(
                f"Adjoint: noise_std={self.noise_std} must be 0 or more, "
                f"tolerance={self.tolerance} above 0, max_steps={self.max_steps} 1 or more."
            )

    def estimate(
        self, A: LinearOperator, y: Tensor, loss: MeasurementLoss | None = None
    ) -> Tensor:
        """As LinearEstimate.estimate; of what a loss sees alone, where one is given."""
        A, rest = copy.deepcopy(A).double(), y.double()
        kept = None if loss is None else loss.kept
        count = A.num_measurements if loss is None else loss.num_measurements
        # An image stops at the size of the noise, or where float64 has no more to give.
        noise = 2 * self.noise_std * count**0.5
        rest = rest if kept is None else rest * kept
        target = (self.tolerance * _norm(rest)).clamp_min(noise)
        slope = A.adjoint(rest)
        x, p, old = torch.zeros_like(slope), slope, _norm(slope)
        for _ in range(self.max_steps):
            # An image that is solved stays as it is, so that it goes the way it would go alone.
            active = (_norm(rest) > target) & (old > 0)
            if not bool(active.any()):
                break
            q = A(p) if kept is None else A(p) * kept
            length = _norm(q).clamp_min(1e-300)
            step = torch.where(active, (old / length) ** 2, 0.0)
            x = x + _like(step, x) * p
            rest = rest - _like(step, rest) * q
            # The gradient from the residual, not by recurrence: rounding does not add up in it.
            slope = A.adjoint(rest)
            new = _norm(slope)
            p = torch.where(
                _like(active, p), slope + _like((new / old.clamp_min(1e-300)) ** 2, p) * p, p
            )
            old = torch.where(active, new, old)
        return x.to(y)


def _norm(x: Tensor) -> Tensor:
    """Euclidean norm of each of a batch of tensors (B, ..), (B,)."""
    return torch.linalg.vector_norm(x.flatten(1), dim=1)


def _like(value: Tensor, x: Tensor) -> Tensor:
    """(B,) as (B, 1, ..) to go with x (B, ..)."""
    return value.view(-1, *[1] * (x.ndim - 1))
