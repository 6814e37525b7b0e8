"""The contract of a GAN objective: losses per image; the training loop averages once.

To add one, write a file with a final subclass and point a model yaml's `objective` at it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from rtil.latents.space import LatentSpace
from rtil.models.generator import Generator


class Objective(nn.Module, ABC):
    """Losses that the loop minimises; buffers are saved in checkpoints.

    Attributes:
        d_every: steps between lazy penalties on real images (0: never).
        g_every: steps between lazy penalties on the generator (0: never).
    """

    d_every: int = 0
    g_every: int = 0

    @abstractmethod
    def real(self, scores: Tensor) -> Tensor:
        """Discriminator loss (B,) on scores (B,) of real images."""

    @abstractmethod
    def fake(self, scores: Tensor) -> Tensor:
        """Discriminator loss (B,) on scores (B,) of generated images."""

    @abstractmethod
    def generator(self, scores: Tensor) -> Tensor:
        """Generator loss (B,) on scores (B,) of its images."""

    @abstractmethod
    def pair_penalty(
        self, D: nn.Module, real: Tensor, fake: Tensor, rng: torch.Generator
    ) -> Tensor | None:
        """Penalty (B,) of every discriminator step and member; None where there is none."""

    @abstractmethod
    def d_penalty(self, D: nn.Module, real: Tensor) -> Tensor:
        """Penalty (B,) taken every d_every steps, scaled to stand for all of them."""

    def penalty_draw(self, world: int, turn: int) -> tuple[int, int]:
        """Samples of a penalty on the generator in a step's turn, and the number of their draw."""
        return 0, turn

    @abstractmethod
    def g_penalty(
        self,
        G: Generator,
        space: LatentSpace,
        index: int,
        world: int,
        rng: torch.Generator,
        style_mixing: float,
        turn: int,
    ) -> tuple[Tensor, tuple[int, ...]]:
        """Penalty (B',) taken every g_every steps, scaled to stand for all of them.

        Args:
            index: position of `space` in the family.
            world: number of processes that share the penalty's batch.

        Returns:
            The penalty of each sample and the member each was drawn from.
        """
