"""Estimates from a linear operator without a generator: yardsticks for the inverters with one.

To add one, write a file with a final subclass of `LinearEstimate` and a yaml under
configs/inverter with `family: null`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from rtil.inverters.inverter import Inverter, Loss, Reconstruction, Watch, with_adjoint
from rtil.models.generator import Generator
from rtil.operators.operator import ForwardOperator, LinearOperator

LINEAR = (
    "so it has no adjoint and no linear estimate. Use an inverter with a generator, "
    "such as inverter=ilo."
)


class LinearEstimate(Inverter):
    """An image from measurements and A, A^T alone; one iterate, no random draws."""

    needs_generator = False

    @abstractmethod
    def estimate(self, A: LinearOperator, y: Tensor) -> Tensor:
        """The images (B, *A.in_shape) for measurements y (B, *A.out_shape), each by itself."""

    @final
    def check(self, G: Generator | None) -> None:
        """Uses no generator."""

    @final
    def check_operator(self, A: ForwardOperator) -> None:
        """Raises ValueError where A has no adjoint."""
        with_adjoint(A, self, LINEAR)

    @final
    @torch.no_grad()
    def invert(
        self,
        G: Generator | None,
        A: ForwardOperator,
        y: Tensor,
        loss: Loss,
        rngs: Sequence[torch.Generator] = (),
        watch: Watch | None = None,
    ) -> Reconstruction:
        """As Inverter.invert; G and rngs are not used.

        Raises:
            ValueError: A is not linear.
        """
        image = self.estimate(with_adjoint(A, self, LINEAR), y)
        if watch is not None:
            watch(image)
        value = loss(A(image), y)
        return Reconstruction(image, image, value, value, torch.empty(0, len(y)))
