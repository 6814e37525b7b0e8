"""Denoising: the image itself is measured, with noise."""

from collections.abc import Sequence
from typing import final

from torch import Tensor

from rtil.operators.operator import LinearOperator


@final
class Identity(LinearOperator):
    """y = x; all that there is to undo is the noise of `noisy`.

    Args:
        in_shape: (C, H, W) of the image.
    """

    def __init__(self, in_shape: Sequence[int]) -> None:
        super().__init__(in_shape, in_shape, measures_images=True)

    def forward(self, x: Tensor) -> Tensor:
        """y = x, shape (B, C, H, W)."""
        self.check_input(x)
        return x

    def adjoint(self, y: Tensor) -> Tensor:
        """A^T y = y, shape (B, C, H, W)."""
        self.check_measurement(y)
        return y
