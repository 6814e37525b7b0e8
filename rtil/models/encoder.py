"""A network that reads an image and says where its latent lies: that of the objective `vae`."""

from __future__ import annotations

from itertools import pairwise
from typing import cast, final

import torch.nn.functional as F
from torch import Tensor, nn

SMALLEST = 4  # side at which convolutions end
WIDEST = 256


@final
class Encoder(nn.Module):
    """Mean and log standard deviation of N(mean, std^2 I) over z0, by strided convolutions.

    A 4x4 convolution of stride 2 with twice the channels for every halving down to 4 pixels a
    side, leaky ReLU, and one linear layer.

    Args:
        image_shape: (C, H, W) at full size; smaller images, of a growing generator, are enlarged.
        z_dim: length of z0.
        width: channels after the first convolution, at most 256 anywhere.
    """

    def __init__(self, image_shape: tuple[int, int, int], z_dim: int, width: int) -> None:
        super().__init__()
        channels, *self.sides = image_shape
        sides, widths = self.sides, [channels]
        while min(sides) > SMALLEST:
            sides = [side // 2 for side in sides]
            widths.append(min(width * 2 ** (len(widths) - 1), WIDEST))
        self.convs = nn.ModuleList(
            nn.Conv2d(few, many, 4, stride=2, padding=1) for few, many in pairwise(widths)
        )
        self.out = nn.Linear(widths[-1] * sides[0] * sides[1], 2 * z_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) to (B, 2 z_dim)."""
        if [*x.shape[2:]] != self.sides:
            x = F.interpolate(x, size=self.sides, mode="nearest")
        for conv in self.convs:
            x = F.leaky_relu(conv(x), 0.2)
        return cast(Tensor, self.out(x.flatten(1)))
