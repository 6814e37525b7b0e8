"""Relativistic pairing loss with zero-centred gradient penalties (Huang et al. 2024, "The GAN is
dead; long live the GAN!", section 2, whose pairing is of Jolicoeur-Martineau 2019).

D judges a generated image beside a real one, so a real image whose surroundings G leaves out goes
on to pull; its authors argue that no local minimum is left where modes are dropped. With
f(t) = softplus(t):

    D minimises  E f(D(G(z)) - D(x)) + r1 / 2 E |grad D(x)|^2 + r2 / 2 E |grad D(G(z))|^2
    G minimises  E f(D(x) - D(G(z)))
"""

from __future__ import annotations

from typing import final

import torch.nn.functional as F
from torch import Tensor

from rtil.objectives.logistic import gradient_norm2
from rtil.objectives.objective import Critic, Objective
from rtil.process.rng import Draws


@final
class Relativistic(Objective):
    """RpGAN + R1 + R2: images are paired by their place in the batch, each space's with the same
    real ones. Both penalties are taken in every step.

    Args:
        members: number of family members of each space (not used: nothing is kept per member).
        r1_weight: gamma at real images. r2_weight: gamma at generated ones; published: the same.

    Raises:
        ValueError: negative weights.
    """

    paired = True

    def __init__(self, members: list[int], r1_weight: float = 1.0, r2_weight: float = 1.0) -> None:
        super().__init__()
        if min(r1_weight, r2_weight) < 0:
            raise ValueError(
                f"Relativistic: r1_weight={r1_weight}, r2_weight={r2_weight} must be 0 or more."
            )
        self.r1_weight, self.r2_weight = r1_weight, r2_weight
        if r1_weight:
            self.real_penalty = self.r1
        if r2_weight:
            self.pair_penalty = self.r2

    def fake(self, scores: Tensor, real: Tensor | None = None) -> Tensor:
        assert real is not None, "its loss is of pairs"
        return F.softplus(scores - real)

    def lead(self, real: Tensor, fake: Tensor) -> Tensor:
        return real - fake

    def generator(self, scores: Tensor, real: Tensor | None = None) -> Tensor:
        assert real is not None, "its loss is of pairs"
        return F.softplus(real - scores)

    def r1(self, D: Critic, real: Tensor) -> Tensor:
        """(gamma / 2) |grad_x D(x)|^2 for each real image (B,)."""
        return self.r1_weight / 2 * gradient_norm2(D, real)

    def r2(self, D: Critic, real: Tensor, fake: Tensor, draws: Draws) -> Tensor:
        """(gamma / 2) |grad_x D(x)|^2 for each generated image (B,)."""
        return self.r2_weight / 2 * gradient_norm2(D, fake)
