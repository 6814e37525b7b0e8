"""Super-resolution: bicubic down-sampling of each side by a factor (paper, section 4)."""

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from rtil.operators.operator import LinearOperator

FACTORS = range(2, 17)


def cubic(t: Tensor) -> Tensor:
    """Cubic convolution kernel with a = -1/2, zero for |t| >= 2 (Keys 1981)."""
    t = t.abs()
    near = (1.5 * t - 2.5) * t**2 + 1
    far = ((-0.5 * t + 2.5) * t - 4) * t + 2
    return torch.where(t < 1, near, torch.where(t < 2, far, torch.zeros_like(t)))


def downsampling_matrix(size: int, factor: int) -> Tensor:
    """Matrix that down-samples a signal by `factor` with the cubic kernel stretched to 4 factor.

    Sample j of the result lies at (j + 1/2) factor, pixel i at i + 1/2, and

        M[j, i] = sum over p that mirror to i of cubic((p + 1/2) / factor - (j + 1/2)) / factor,

    where p runs over the kernel's support and the signal is mirrored at its ends without repeating
    the end pixel, again and again if the kernel is longer than the signal. The kernel's integer
    translates sum to one, so each row does too.

    Args:
        size: samples of the signal, at least 2.
        factor: divides size.

    Returns:
        (size / factor, size), float64.
    """
    centres = (torch.arange(size // factor, dtype=torch.float64) + 0.5) * factor
    first = torch.floor(centres - 2 * factor).long()
    pixels = first[:, None] + torch.arange(4 * factor + 1)
    weights = cubic((pixels + 0.5 - centres[:, None]) / factor) / factor
    period = 2 * (size - 1)
    folded = pixels.remainder(period)
    mirrored = torch.minimum(folded, period - folded)
    return torch.zeros(size // factor, size, dtype=torch.float64).scatter_add(1, mirrored, weights)


@final
class Downsample(LinearOperator):
    """y = M_h x M_w^T with the matrices of `downsampling_matrix` (paper, section 4).

    The matrices are dense and small: the adjoint is their transpose, and a kernel longer than the
    image needs no special case. Weights for powers of two are exact in float32.

    Args:
        in_shape: (C, H, W) of the image.
        factor: integer from 2 to 16 that divides H and W.

    Raises:
        ValueError: a factor that is out of range or does not divide both sides.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, in_shape: Sequence[int], factor: int) -> None:
        channels, height, width = in_shape
        allowed = [f for f in FACTORS if height % f == 0 and width % f == 0]
        if factor not in allowed:
            hint = f"one of {', '.join(map(str, allowed))}" if allowed else "none exists"
            raise ValueError(
                f"Downsample: factor={factor} for images of {height}x{width} pixels; it must be "
                f"an integer from 2 to 16 that divides both sides: {hint}."
            )
        factor = int(factor)
        out_shape = (channels, height // factor, width // factor)
        super().__init__(in_shape, out_shape, measures_images=True)
        self.factor = factor
        self.register_buffer("rows", downsampling_matrix(height, factor).float())
        self.register_buffer("columns", downsampling_matrix(width, factor).float())

    def forward(self, x: Tensor) -> Tensor:
        """y = M_h x M_w^T, shape (B, C, H/factor, W/factor)."""
        self.check_input(x)
        return self.rows @ x @ self.columns.T

    def adjoint(self, y: Tensor) -> Tensor:
        """A^T y = M_h^T y M_w, shape (B, C, H, W)."""
        self.check_measurement(y)
        return self.rows.T @ y @ self.columns
