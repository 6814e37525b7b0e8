"""LPIPS, the learned perceptual distance of Zhang et al. 2018.

lpips and torchvision take longer to import than torch itself, so what uses them imports them.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from rtil.metrics.backbone import backbone_file, load_backbone
from rtil.metrics.perceptual import Perceptual, unit_length

BACKBONES = {"alex": "AlexNet_Weights", "vgg": "VGG16_Weights"}  # of torchvision.models


@final
class LPIPS(Perceptual):
    """Learned perceptual distance, version 0.1 (Zhang et al. 2018, eq. 1).

    sum over layers l of mean over pixels of w_l . (f_l(x_hat) - f_l(x))^2, with f_l the backbone's
    features normalised over channels. The weights w_l ship with the lpips package; the backbone's
    are read from torch hub's folder.

    Differs from lpips.LPIPS in the gradient where all channels of a feature are 0: lpips divides 0
    by 0 there and returns NaN, here it is 0. The values agree.

    Args:
        net: backbone, "alex" or "vgg".

    Raises:
        ValueError: unknown net.
        FileNotFoundError: the backbone's weights are not on disk.
        RuntimeError: they cannot be read.
    """

    name = "LPIPS"
    # For which every pooling before the last feature has an output.
    sizes: ClassVar[dict[str, int]] = {"alex": 31, "vgg": 16}

    def __init__(self, net: str = "alex") -> None:
        super().__init__(net)
        import torchvision

        url = getattr(torchvision.models, BACKBONES[net]).IMAGENET1K_V1.url
        backbone_file(url, self.name)  # before lpips draws a network, for seconds
        import lpips

        with warnings.catch_warnings():
            # lpips calls torchvision with an argument that torchvision calls deprecated.
            warnings.filterwarnings("ignore", category=UserWarning, module="torchvision")
            self.model = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
        # lpips names layer 3 of the backbone slice2.3 where torchvision has features.3.
        trunk = self.model.net
        layers = {key: "features." + key.split(".", 1)[1] for key in trunk.state_dict()}
        trunk.load_state_dict(load_backbone(url, self.name, layers))
        self.model.requires_grad_(False)
        for module in self.model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0

    def features(self, x: Tensor) -> list[Tensor]:
        """The backbone's, each (B, C_l, H_l, W_l) and of unit length over channels."""
        return [*map(unit_length, self.model.net(self.model.scaling_layer(x)))]

    def compare(self, features: Sequence[Tensor], references: Sequence[Tensor]) -> Tensor:
        """Sum over layers of the weighted squared differences, each a mean over pixels."""
        terms = []
        for feature, reference, layer in zip(features, references, self.model.lins):
            terms.append(layer((feature - reference).square()).mean(dim=(1, 2, 3)))
        return torch.stack(terms).sum(dim=0)


DISTANCE = LPIPS
