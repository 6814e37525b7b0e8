"""The generator of DCGAN, an ordinary module: what model=wrapped cuts where no other is named."""

from __future__ import annotations

from typing import final

from torch import Tensor, nn


@final
class DCGAN(nn.Module):
    """Strided transposed convolutions with batch normalisation (Radford et al. 2016, Fig. 1).

    Weights as in the DCGAN tutorial of PyTorch, whose files it reads: cuts lie after main.2,
    main.5, main.8 and main.11.

    Args:
        image_channels: 1 or 3.
        z_dim: length of the latent, which forward takes as (B, z_dim, 1, 1).
        width: channels of the last hidden maps; those before have twice as many each.
        sizes: maps from 4x4 up to half of the image; 4 draw 64x64.
    """

    def __init__(
        self, image_channels: int = 3, z_dim: int = 100, width: int = 64, sizes: int = 4
    ) -> None:
        super().__init__()
        widths = [width * 2**i for i in range(sizes - 1, -1, -1)]
        layers: list[nn.Module] = []
        for before, after in zip([z_dim, *widths], widths):
            stride, padding = (2, 1) if layers else (1, 0)
            layers += [
                nn.ConvTranspose2d(before, after, 4, stride, padding, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(inplace=True),
            ]
        layers += [nn.ConvTranspose2d(width, image_channels, 4, 2, 1, bias=False), nn.Tanh()]
        self.main = nn.Sequential(*layers)
        for layer in self.main:
            if isinstance(layer, nn.ConvTranspose2d):
                nn.init.normal_(layer.weight, 0.0, 0.02)  # Radford et al. 2016, section 4
            elif isinstance(layer, nn.BatchNorm2d):
                nn.init.normal_(layer.weight, 1.0, 0.02)  # PyTorch's tutorial

    def forward(self, z: Tensor) -> Tensor:
        """Draws images (B, image_channels, S, S) in [-1, 1]."""
        return self.main(z)
