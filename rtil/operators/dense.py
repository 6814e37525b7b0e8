"""Any linear measurement that is small enough to write down as a matrix (paper, section 5.2)."""

from collections.abc import Sequence
from math import prod
from typing import final

from torch import Tensor

from rtil.operators.operator import LinearOperator


@final
class Dense(LinearOperator):
    """y = M x on the flattened image (paper, section 5.2).

    Args:
        in_shape: (C, H, W) of the image; n = C H W.
        matrix: (m, n) the matrix M.

    Raises:
        ValueError: a matrix that does not measure images of that shape.
    """

    matrix: Tensor

    def __init__(self, in_shape: Sequence[int], matrix: Tensor) -> None:
        if matrix.ndim != 2 or len(matrix) < 1 or matrix.shape[1] != prod(in_shape):
            raise ValueError(
                f"Dense: got a matrix of shape {tuple(matrix.shape)}; images of shape "
                f"{tuple(in_shape)} need (m, {prod(in_shape)}) with m at least 1."
            )
        super().__init__(in_shape, (len(matrix),), measures_images=False)
        self.register_buffer("matrix", matrix)

    def forward(self, x: Tensor) -> Tensor:
        """y = M x, shape (B, m)."""
        self.check_input(x)
        return x.flatten(1) @ self.matrix.T

    def adjoint(self, y: Tensor) -> Tensor:
        """A^T y = M^T y, shape (B, C, H, W)."""
        self.check_measurement(y)
        return (y @ self.matrix).unflatten(1, self.in_shape)
