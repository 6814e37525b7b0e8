"""Deblurring: convolution with a Gaussian kernel."""

from collections.abc import Sequence
from math import ceil, inf
from typing import final

import torch
from torch import Tensor

from rtil.operators.operator import LinearOperator


def blurring_matrix(length: int, std: float, size: int) -> Tensor:
    """Matrix that convolves a signal with a truncated Gaussian kernel.

        M[j, i] = sum over |t| <= (size - 1) / 2 with j + t mirroring to i of k(t),
        k(t) proportional to exp(-t^2 / (2 std^2)), sum of k = 1,

    where the signal is mirrored at its ends without repeating the end pixel. Rows sum to one.

    Args:
        length: samples of the signal, at least size.
        std: standard deviation of the kernel in samples.
        size: its number of samples, odd.

    Returns:
        (length, length), float64.
    """
    offsets = torch.arange(size) - size // 2
    kernel = torch.exp(-0.5 * (offsets.double() / std) ** 2)
    positions = torch.arange(length)[:, None] + offsets
    last = length - 1
    mirrored = last - (last - positions.abs()).abs()
    weights = (kernel / kernel.sum()).expand(length, -1)
    return torch.zeros(length, length, dtype=torch.float64).scatter_add(1, mirrored, weights)


@final
class Blur(LinearOperator):
    """y = M_h x M_w^T with the matrices of `blurring_matrix`, an image as large as x.

    Args:
        in_shape: (C, H, W) of the image.
        blur_std: standard deviation of the kernel in pixels, positive.
        kernel_size: side of the kernel in pixels, odd, from 3 to the shorter side of the image;
            None takes the smallest that reaches 3 blur_std to either side.

    Raises:
        ValueError: a blur_std or a kernel_size out of range.
    """

    rows: Tensor
    columns: Tensor

    def __init__(
        self, in_shape: Sequence[int], blur_std: float, kernel_size: int | None = None
    ) -> None:
        super().__init__(in_shape, in_shape, measures_images=True)
        if not 0 < blur_std < inf:
            raise ValueError(
                f"Blur: blur_std={blur_std}; it is the kernel's standard deviation in pixels and "
                "must be above 0."
            )
        _, height, width = self.in_shape
        reach = 2 * ceil(3 * blur_std) + 1 if kernel_size is None else kernel_size
        if reach not in range(3, min(height, width) + 1, 2):
            origin = f" (3 blur_std={blur_std} to either side)" if kernel_size is None else ""
            raise ValueError(
                f"Blur: the kernel has kernel_size={reach} pixels a side{origin} and the image "
                f"{height}x{width}; it must be odd, from 3 to {min(height, width)}. Set "
                "task.kernel_size, or a smaller blur_std."
            )
        self.register_buffer("rows", blurring_matrix(height, blur_std, reach).float())
        self.register_buffer("columns", blurring_matrix(width, blur_std, reach).float())

    def forward(self, x: Tensor) -> Tensor:
        """y = M_h x M_w^T, shape (B, C, H, W)."""
        self.check_input(x)
        return self.rows @ x @ self.columns.T

    def adjoint(self, y: Tensor) -> Tensor:
        """A^T y = M_h^T y M_w, shape (B, C, H, W)."""
        self.check_measurement(y)
        return self.rows.T @ y @ self.columns
