"""The perceptual distance of mGANprior: L1 between features of VGG16 (Gu et al. 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from rtil.metrics.backbone import load_backbone
from rtil.metrics.perceptual import Perceptual

# The first 16 layers of torchvision's vgg16().features: convolutions of these widths, each with a
# ReLU, and "pool". The last is relu3_3.
LAYERS = (64, 64, "pool", 128, 128, "pool", 256, 256, 256)
# Of torchvision's classifiers, for colours in [0, 1].
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
# mGANprior's code multiplies the mean over features by it, and the weight of the term by that.
SCALE = 1e-3


@final
class VGGL1(Perceptual):
    """SCALE / n_f ||f(x_hat) - f(x)||_1, with f the n_f numbers of relu3_3 (paper, A.4).

    A mean over features, not a sum, as in mGANprior's published code, whose factor SCALE makes
    the weights 0.1 and 0.5 of A.4 mean here what they mean there. Images go through as torchvision
    trained the network: [-1, 1] to [0, 1], then less MEAN and over STD for each colour.

    Differs from mGANprior's code, which enlarges what it compares to 256x256 pixels by repeating
    them: images are compared as they are ("no upsampling", paper, A.4).

    Args:
        net: of no effect, there is VGG16 alone.

    Raises:
        FileNotFoundError: VGG16's weights are not in torch hub's folder.
        RuntimeError: they cannot be read.
    """

    name = "VGG L1"
    sizes: ClassVar[dict[str, int]] = {"vgg": 4}  # 1 pixel is left after two poolings
    mean: Tensor
    std: Tensor

    def __init__(self, net: str = "vgg") -> None:
        super().__init__(net)
        import torchvision

        modules: list[nn.Module] = []
        channels = 3
        for width in LAYERS:
            if isinstance(width, int):
                modules += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            else:
                modules.append(nn.MaxPool2d(2))
        self.trunk = nn.Sequential(*modules)
        url = torchvision.models.VGG16_Weights.IMAGENET1K_V1.url
        layers = {key: f"features.{key}" for key in self.trunk.state_dict()}
        self.trunk.load_state_dict(load_backbone(url, self.name, layers))
        self.requires_grad_(False)
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1))

    def features(self, x: Tensor) -> list[Tensor]:
        """relu3_3, (B, 256, H / 4, W / 4)."""
        return [self.trunk(((x + 1) / 2 - self.mean) / self.std)]

    def compare(self, features: Sequence[Tensor], references: Sequence[Tensor]) -> Tensor:
        """SCALE times the mean absolute difference."""
        (feature,), (reference,) = features, references
        return SCALE * (feature - reference).abs().mean(dim=(1, 2, 3))


DISTANCE = VGGL1
