"""Inpainting: some pixels of the image are observed, the others are missing (paper, section 4).

`Mask` is the operator of a given mask, `inpainting` (task=inpainting) draws one if none is given.
"""

from collections.abc import Sequence
from typing import final

import numpy as np
import torch
from torch import Tensor

from rtil.operators.operator import LinearOperator


@final
class Mask(LinearOperator):
    """y = mask . x, an image with zeros (mid-grey in [-1, 1]) where nothing was observed.

    Args:
        in_shape: (C, H, W) of the image.
        mask: (H, W) bool, True where a pixel is observed, in all its channels.

    Raises:
        ValueError: a mask of another shape or type, or one that observes nothing.
    """

    observed: Tensor

    def __init__(self, in_shape: Sequence[int], mask: Tensor) -> None:
        super().__init__(in_shape, in_shape, measures_images=True, observed=mask)
        if mask.dtype != torch.bool or tuple(mask.shape) != self.in_shape[1:]:
            raise ValueError(
                f"Mask: got a mask of shape {tuple(mask.shape)} and type {mask.dtype}; "
                f"images of shape {self.in_shape} need {self.in_shape[1:]} and torch.bool."
            )
        if not mask.any():
            raise ValueError("Mask: the mask observes no pixel; at least one must be True.")

    def forward(self, x: Tensor) -> Tensor:
        """y = mask . x, shape (B, C, H, W)."""
        self.check_input(x)
        return x * self.observed

    def adjoint(self, y: Tensor) -> Tensor:
        """A^T = A: a mask is a projection, shape (B, C, H, W)."""
        self.check_measurement(y)
        return y * self.observed


def inpainting(
    in_shape: Sequence[int], ratio: float, seed: int = 0, mask: Tensor | None = None
) -> Mask:
    """`Mask` of round(ratio H W) pixels drawn from a seed (paper, section 4), or of a given mask.

    The positions are uniform without replacement and shared by the channels. One seed gives nested
    masks: the pixels of a smaller ratio are among those of a larger one.

    Args:
        in_shape: (C, H, W) of the image.
        ratio: share of observed pixels in (0, 1]; at least one pixel is observed.
        seed: of the numpy generator that draws the positions.
        mask: (H, W) bool, instead of the one that ratio and seed draw.

    Raises:
        ValueError: ratio outside (0, 1], or a mask that does not fit the image.
    """
    if mask is not None:
        return Mask(in_shape, mask)
    _, height, width = in_shape
    pixels = height * width
    if not 0 < ratio <= 1:
        raise ValueError(
            f"inpainting: ratio={ratio} asks for {ratio * pixels:.0f} of {pixels} "
            "observed pixels; ratio must be in (0, 1]."
        )
    observed = np.random.default_rng(seed).permutation(pixels)[: max(1, round(ratio * pixels))]
    drawn = torch.zeros(pixels, dtype=torch.bool)
    drawn[torch.from_numpy(observed)] = True
    return Mask(in_shape, drawn.reshape(height, width))
