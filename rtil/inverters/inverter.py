"""The contract of an inverter.

To add one, write a file with a frozen dataclass and a yaml under configs/inverter.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from rtil.latents.space import Latents
from rtil.models.generator import Generator
from rtil.operators.operator import ForwardOperator

Loss = Callable[[Tensor, Tensor], Tensor]
Watch = Callable[[Tensor], None]


class Reconstruction(NamedTuple):
    """What an inverter returns for a batch of B images.

    image: (B, C, H, W) in about [-1, 1], the iterate with the lowest measurement loss.
    last: (B, C, H, W), the last iterate.
    loss, last_loss: (B,) measurement losses of the two.
    history: (T, B) measurement loss of every iterate, on the CPU; empty for direct estimates.
    latents: of the last iterate; None for estimates without a generator.
    starts: row of `history` that each stage, or start from a new draw, begins with.
    """

    image: Tensor
    last: Tensor
    loss: Tensor
    last_loss: Tensor
    history: Tensor
    latents: Latents | None = None
    starts: tuple[int, ...] = (0,)


class Inverter(ABC):
    """Estimates images from measurements.

    Attributes:
        needs_generator: whether it optimises the latents of one.
    """

    needs_generator: ClassVar[bool] = True

    @abstractmethod
    def check(self, G: Generator) -> None:
        """Raises ValueError where the settings do not fit the generator."""

    @abstractmethod
    def invert(
        self,
        G: Generator,
        A: ForwardOperator,
        y: Tensor,
        loss: Loss,
        rngs: Sequence[torch.Generator],
        watch: Watch | None = None,
    ) -> Reconstruction:
        """Estimates a batch; each image is treated as if it were alone.

        Args:
            G: generator with frozen weights.
            A: forward operator.
            y: measurements (B, *A.out_shape).
            loss: (A x_hat, y) to a loss per image (B,).
            rngs: one CPU generator per image, the source of all its random draws.
            watch: shown every iterate (B, C, H, W) that may be returned; it can record but not
                steer.

        Raises:
            RuntimeError: a loss that is not finite.
        """


class FittedInverter(Inverter):
    """Settings of an inverter that learns from images before it inverts."""

    @abstractmethod
    def fit(self, images: Tensor) -> Inverter:
        """What inverts, fitted to training images (N, C, H, W) in [-1, 1]."""
