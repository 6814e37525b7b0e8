"""Wasserstein loss with gradient penalty and drift (Gulrajani et al. 2017, Karras et al. 2018)."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from rtil.objectives.objective import Critic, Objective
from rtil.process.rng import Draws


@final
class WGANGP(Objective):
    """D: D(G) - D(x) + drift D(x)^2 + gp (|grad D(x')| - 1)^2; G: -D(G).

    Args:
        members: number of family members of each space (not used: nothing is kept per member).
        gp_weight: lambda of the gradient penalty, one interpolation per member.
        drift: weight of the squared real score (Karras et al. 2018, App. A.1).

    Raises:
        ValueError: negative weights.
    """

    def __init__(self, members: list[int], gp_weight: float = 10.0, drift: float = 0.001) -> None:
        super().__init__()
        if min(gp_weight, drift) < 0:
            raise ValueError(f"WGANGP: gp_weight={gp_weight}, drift={drift} must be 0 or more.")
        self.gp_weight, self.drift = gp_weight, drift
        self.pair_penalty = self.gradient_penalty

    def real(self, scores: Tensor) -> Tensor:
        return -scores + self.drift * scores.square()

    def fake(self, scores: Tensor, real: Tensor | None = None) -> Tensor:
        return scores

    def lead(self, real: Tensor, fake: Tensor) -> Tensor:
        return real - fake

    def generator(self, scores: Tensor, real: Tensor | None = None) -> Tensor:
        return -scores

    def gradient_penalty(self, D: Critic, real: Tensor, fake: Tensor, draws: Draws) -> Tensor:
        """gp (|grad D(x')| - 1)^2 at x' = e real + (1 - e) fake, e ~ U(0, 1) per image (B,)."""
        e = draws.uniform(1, 1, 1).to(real)
        between = torch.lerp(fake, real, e).detach().requires_grad_(True)
        (grad,) = torch.autograd.grad(D(between).sum(), between, create_graph=True)
        return self.gp_weight * (grad.flatten(1).norm(dim=1) - 1).square()
