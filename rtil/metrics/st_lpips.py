"""ST-LPIPS, the shift-tolerant perceptual distance of Ghildyal and Liu 2022.

Its weights, of backbone and layers, come with the package stlpips-pytorch (the extra
`rtil[stlpips]`), whose files are read and whose code is not imported: it needs packages that it
does not declare.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import ClassVar, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from rtil.metrics.backbone import read_weights
from rtil.metrics.perceptual import Perceptual, unit_length

PACKAGE = "stlpips-pytorch"
FOLDER = "weights/vST0.0"
# SHA-256 of the files of version 0.0.2.
DIGESTS = {
    "alex": "b356b382f96010f77d085ee8343ecd9fd322d0a56e8de2b2d0549fafcad8b9ee",
    "vgg": "44597da68f49c1837c100ff52299050f274d102eb102e5837178c79be6f0e250",
}


@final
class BlurPool(nn.Module):
    """Halves maps without aliasing: every other pixel of what a 3x3 binomial filter leaves.

    The border is mirrored by 2 pixels, twice what the filter needs, so that less of what is near
    the border depends on where it lies (Ghildyal and Liu 2022, section 4).
    """

    kernel: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        line = torch.tensor([1.0, 2.0, 1.0]) / 4
        kernel = torch.outer(line, line).expand(channels, 1, 3, 3).contiguous()
        self.register_buffer("kernel", kernel, persistent=False)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) with sides from 3 up to (B, C, (H + 3) // 2, (W + 3) // 2)."""
        padded = functional.pad(maps, (2, 2, 2, 2), mode="reflect")
        return functional.conv2d(padded, self.kernel, stride=2, groups=maps.shape[1])


def alex_stages() -> list[list[nn.Module]]:
    """AlexNet, whose first convolution keeps every pixel, and blurs before it halves."""
    return [
        [nn.Conv2d(3, 64, 11, padding=2), BlurPool(64), nn.ReLU()],
        [nn.MaxPool2d(3, 1), BlurPool(64), nn.Conv2d(64, 192, 5, padding=2), nn.ReLU()],
        [nn.MaxPool2d(3, 1), BlurPool(192), nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()],
        [nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()],
        [nn.Conv2d(256, 256, 3, padding=1), nn.ReLU()],
    ]


def vgg_stages() -> list[list[nn.Module]]:
    """VGG16, whose poolings keep every pixel, and blur before they halve."""
    stages: list[list[nn.Module]] = []
    channels = 3
    for width, depth in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        stage: list[nn.Module] = [nn.MaxPool2d(2, 1), BlurPool(channels)] if stages else []
        for _ in range(depth):
            stage += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
        stages.append(stage)
    return stages


STAGES = {"alex": alex_stages, "vgg": vgg_stages}


@final
class STLPIPS(Perceptual):
    """Shift-tolerant LPIPS, version ST0.0 (Ghildyal and Liu 2022).

    sum over stages l of mean over pixels of w_l . (f_l(x_hat) - f_l(x))^2 as in LPIPS, with
    backbones that halve their maps without aliasing, so that a shift by a pixel changes little.

    Args:
        net: backbone, "alex" or "vgg".

    Raises:
        ValueError: unknown net.
        FileNotFoundError: the package with the weights is not installed.
        RuntimeError: they are others than those of version 0.0.2.
    """

    name = "ST-LPIPS"
    # Mirrored borders of 2 pixels need maps of 3.
    sizes: ClassVar[dict[str, int]] = {"alex": 21, "vgg": 18}
    shift: Tensor
    scale: Tensor

    def __init__(self, net: str = "alex") -> None:
        super().__init__(net)
        weights = load_weights(net)
        stages, layers = [], []
        start = 0
        for number, modules in enumerate(STAGES[net](), start=1):
            stage = nn.Sequential(*modules)
            # The file counts layers through all stages, and its filters are those of BlurPool.
            stage.load_state_dict(
                _shifted(stage.state_dict(), weights, f"net.slice{number}", start)
            )
            start += len(modules)
            stages.append(stage)
            lin = weights[f"lin{number - 1}.model.1.weight"]
            layer = nn.Conv2d(lin.shape[1], 1, 1, bias=False)
            layer.load_state_dict({"weight": lin})
            layers.append(layer)
        self.stages, self.layers = nn.ModuleList(stages), nn.ModuleList(layers)
        self.requires_grad_(False)
        self.register_buffer("shift", weights["scaling_layer.shift"])
        self.register_buffer("scale", weights["scaling_layer.scale"])

    def features(self, x: Tensor) -> list[Tensor]:
        """Those of each stage, of unit length over channels."""
        maps = (x - self.shift) / self.scale
        found = []
        for stage in self.stages:
            maps = stage(maps)
            found.append(unit_length(maps))
        return found

    def compare(self, features: Sequence[Tensor], references: Sequence[Tensor]) -> Tensor:
        """Sum over stages of the weighted squared differences, each a mean over pixels."""
        terms = []
        for feature, reference, layer in zip(features, references, self.layers):
            terms.append(layer((feature - reference).square()).mean(dim=(1, 2, 3)))
        return torch.stack(terms).sum(dim=0)


def _shifted(
    names: Iterable[str], weights: dict[str, Tensor], prefix: str, start: int
) -> dict[str, Tensor]:
    """The tensors of a stage, whose first layer has the number `start` in the file."""
    own = {}
    for name in names:
        layer, _, part = name.partition(".")
        own[name] = weights[f"{prefix}.{start + int(layer)}.{part}"]
    return own


def load_weights(net: str) -> dict[str, Tensor]:
    """The tensors that the package ships for a backbone. Raises as `STLPIPS` does."""
    path = weights_file(net)
    advice = f"install {PACKAGE}==0.0.2 again"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != DIGESTS[net]:
        raise RuntimeError(
            f"{STLPIPS.name}: {path} has SHA-256 {digest[:8]}..., and the published file "
            f"{DIGESTS[net][:8]}...; {advice}."
        )
    return read_weights(path, STLPIPS.name, advice)


def weights_file(net: str) -> Path:
    """Where the package lies. Raises FileNotFoundError where it is not installed."""
    try:
        installed = distribution(PACKAGE)
    except PackageNotFoundError:
        installed = None
    path = None
    if installed is not None:
        path = Path(
            str(installed.locate_file(f"stlpips_pytorch/{FOLDER}/{net}_shift_tolerant.pth"))
        )
    if path is None or not path.is_file():
        raise FileNotFoundError(
            f"{STLPIPS.name}: its weights come with the package {PACKAGE}, which is not "
            "installed. Install the extra rtil[stlpips], or go on without it: invert with "
            "loss.lpips=0 and metrics.st_lpips=auto."
        )
    return path


DISTANCE = STLPIPS
