"""The decoder of a diffusers AutoencoderKL as a module that draws images, for model=wrapped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from torch import Tensor, nn


@final
class KLDecoder(nn.Module):
    """x = D(P(z / scaling + shift)), D and P as in AutoencoderKL (Rombach et al. 2022).

    Entries have the names that they have there, so that its files are read by
    scripts/import_checkpoint.py. Needs the extra `rtil[diffusers]`. Defaults are those of the
    first Stable Diffusion.

    Args:
        block_out_channels: as in the autoencoder's config.json, and so are all others.
        layers_per_block: residual blocks of each size, less one.
        latent_channels: of z, which is (B, latent_channels, S / 8, S / 8) with four sizes.
        norm_num_groups: of the group normalisation.
        out_channels: 1 or 3.
        scaling_factor, shift_factor: scale and mean of latents, which make z about N(0, 1).
        use_post_quant_conv: whether there is P, a 1x1 convolution.

    Raises:
        ValueError: diffusers is not installed, or has no decoder of these settings.
    """

    def __init__(
        self,
        block_out_channels: Sequence[int] = (128, 256, 512, 512),
        layers_per_block: int = 2,
        latent_channels: int = 4,
        norm_num_groups: int = 32,
        out_channels: int = 3,
        scaling_factor: float = 0.18215,
        shift_factor: float = 0.0,
        use_post_quant_conv: bool = True,
    ) -> None:
        super().__init__()
        # Seconds to import, and needed by nothing else.
        try:
            from diffusers.models.autoencoders.vae import Decoder
        except ImportError as error:
            raise ValueError(
                f"KLDecoder: diffusers cannot be imported ({error}). pip install 'rtil[diffusers]'"
            ) from error
        self.scaling_factor, self.shift_factor = scaling_factor, shift_factor
        self.post_quant_conv = (
            nn.Conv2d(latent_channels, latent_channels, 1) if use_post_quant_conv else None
        )
        self.decoder = Decoder(
            in_channels=latent_channels,
            out_channels=out_channels,
            up_block_types=("UpDecoderBlock2D",) * len(block_out_channels),
            block_out_channels=tuple(block_out_channels),
            layers_per_block=layers_per_block,
            norm_num_groups=norm_num_groups,
        )

    def forward(self, z: Tensor) -> Tensor:
        """Draws images (B, out_channels, S, S) in about [-1, 1]."""
        x = z / self.scaling_factor + self.shift_factor
        if self.post_quant_conv is not None:
            x = self.post_quant_conv(x)
        return self.decoder(x)
