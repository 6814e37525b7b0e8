"""The contract of an augmentation: D is trained on T(x), real and generated, with T drawn anew.

    D o T in place of D        in every loss and penalty, of both networks
    T differentiable twice     G learns through it, and R1 is a gradient of D(T(x)) by x

An augmentation is a module, whose buffers checkpoints hold and recorded steps read. It draws from
`Draws`, so a transform belongs to its image's place in the whole batch, and it makes equally many
draws whatever its probabilities are. To add one, write a file with a final subclass and a yaml in
configs/augment; transforms with given parameters are in `geometry` and `colour`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from rtil.process.replay import Noted
from rtil.process.rng import Draws


class Augmentation(nn.Module, ABC):
    """Transforms of the images that a discriminator sees."""

    @abstractmethod
    def forward(self, x: Tensor, draws: Draws) -> Tensor:
        """T(x) for images (B, C, S, S) in [-1, 1], a transform for each; values may leave it."""

    @abstractmethod
    def observe(self, leads: Tensor, weight: float = 1.0) -> None:
        """Takes note of how D tells real images, once for each space in every step of D.

        Args:
            leads: of this process's real images (B,), see Objective.lead.
            weight: of the space; they sum to 1.
        """

    @abstractmethod
    def adjust(self, step: int) -> Noted:
        """After D's half of a step: moves its probabilities, and says what they are."""
