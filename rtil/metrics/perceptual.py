"""Learned perceptual distances, of images in [-1, 1].

lpips and torchvision take longer to import than torch itself, so what uses them imports them.
"""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from rtil.metrics.image import check_pair

LPIPS_BACKBONES = {"alex": "AlexNet_Weights", "vgg": "VGG16_Weights"}  # of torchvision.models
# Smallest side for which every pooling before the last feature has an output.
LPIPS_MIN_SIZES = {"alex": 31, "vgg": 16}


class LPIPS(nn.Module):
    """Learned perceptual distance, version 0.1 (Zhang et al. 2018, eq. 1).

    sum over layers l of mean over pixels of w_l . (f_l(x_hat) - f_l(x))^2, with f_l the backbone's
    features normalised over channels. The weights w_l ship with the lpips package; the backbone's
    are read from torch hub's folder and never fetched. Everything is frozen; gradients reach x_hat
    only. `train()` changes nothing.

    Differs from lpips.LPIPS in the gradient where all channels of a feature are 0: lpips divides 0
    by 0 there and returns NaN, here it is 0. The values agree.

    Args:
        net: backbone, "alex" or "vgg".

    Raises:
        ValueError: unknown net.
        FileNotFoundError: the backbone's weights are not on disk.
        RuntimeError: they cannot be read.
    """

    def __init__(self, net: str = "alex") -> None:
        super().__init__()
        if net not in LPIPS_BACKBONES:
            allowed = ", ".join(LPIPS_BACKBONES)
            raise ValueError(f"LPIPS: net={net!r}; it must be one of {allowed}.")
        self.net = net
        self.min_size = LPIPS_MIN_SIZES[net]
        import lpips
        import torchvision

        known = getattr(torchvision.models, LPIPS_BACKBONES[net])
        weights = load_backbone(known.IMAGENET1K_V1.url)
        with warnings.catch_warnings():
            # lpips calls torchvision with an argument that torchvision calls deprecated.
            warnings.filterwarnings("ignore", category=UserWarning, module="torchvision")
            self.model = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
        # lpips names layer 3 of the backbone slice2.3 where torchvision has features.3.
        trunk = self.model.net
        trunk.load_state_dict(
            {key: weights["features." + key.split(".", 1)[1]] for key in trunk.state_dict()}
        )
        self.model.requires_grad_(False)
        for module in self.model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0

    def forward(self, x_hat: Tensor, x: Tensor) -> Tensor:
        """Distance of each pair of images.

        Args:
            x_hat: (B, C, H, W) in [-1, 1], C = 1 (repeated to 3) or 3, sides at least `min_size`.
            x: like x_hat; no gradient.

        Returns:
            (B,), 0 for equal images.
        """
        check_pair("LPIPS", x_hat, x)
        _, channels, height, width = x.shape
        if channels not in (1, 3):
            raise ValueError(
                f"LPIPS: got images with {channels} channels; "
                "it compares grey (1) or colour (3) images."
            )
        if min(height, width) < self.min_size:
            raise ValueError(
                f"LPIPS: got images of {height}x{width} pixels; net={self.net} needs at least "
                f"{self.min_size}x{self.min_size}."
            )
        with torch.no_grad():
            references = self.features(x)
        terms = []
        for feature, reference, layer in zip(self.features(x_hat), references, self.model.lins):
            terms.append(layer((feature - reference).square()).mean(dim=(1, 2, 3)))
        return torch.stack(terms).sum(dim=0)

    def features(self, x: Tensor) -> list[Tensor]:
        """Backbone features of x, each (B, C_l, H_l, W_l) and of unit length over channels."""
        layers = self.model.net(self.model.scaling_layer(x.expand(-1, 3, -1, -1)))
        # 1e-20 under the root keeps its gradient finite at 0; 1e-10 is lpips' own.
        return [f / ((f.square().sum(dim=1, keepdim=True) + 1e-20).sqrt() + 1e-10) for f in layers]


def load_backbone(url: str) -> dict[str, Tensor]:
    """Weights of a torchvision classifier in torch hub's folder, where torchvision looks."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
    if not path.is_file():
        raise FileNotFoundError(
            f"LPIPS: the backbone's weights {path.name} are not in {path.parent} and are never "
            f"downloaded for you. Fetch {url} into that folder (TORCH_HOME moves it), or go on "
            "without LPIPS: invert with loss.lpips=0 and score with PSNR and SSIM only."
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise RuntimeError(
            f"LPIPS: {path} cannot be read as PyTorch weights; it may be truncated. "
            f"Delete it and fetch {url} again."
        ) from error
