"""A denoiser of images: its network, which is deepinv's, and the file that its weights are in.

`scripts/train_denoiser.py` trains one; estimates that denoise (`rtil.inverters.deepinv`) read it.
A file holds a digest of its contents, and its sizes are compared before anything is built.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn

from rtil.checkpoint import load_weights
from rtil.inverters.inverter import Weights
from rtil.operators.linear_physics import library
from rtil.process.brief import brief
from rtil.process.weights import ADVICE, read
from rtil.runs.kinds import (
    COUNT,
    COUNT_OR_NONE,
    POSITIVE,
    SIDE,
    WIDTH,
    ListOf,
    OneOf,
    Record,
    check,
)
from rtil.runs.kinds import WEIGHT as SECONDS

FORMAT = "rtil-denoiser-1"
COMMAND = "python scripts/train_denoiser.py"
SIZES = Record(
    {
        "channels": OneOf((1, 3)),
        "resolution": SIDE,
        "widths": ListOf(WIDTH, fewest=4, most=4),
        "blocks": COUNT,
        "image_std": POSITIVE,
    }
)
FILE = Record({"network": SIZES, "config": Record({"data": Record({})})})
COUNTERS = Record({"nimg": COUNT_OR_NONE, "seconds": SECONDS})


class Sizes(NamedTuple):
    """What a denoiser's network is built from.

    channels, resolution: of its images. widths, blocks: of DRUNet's four scales, and residual
    blocks a scale. image_std: root mean square of images in [-1, 1].
    """

    channels: int
    resolution: int
    widths: Sequence[int] = (16, 32, 64, 128)
    blocks: int = 1
    image_std: float = 0.5

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of its images."""
        return self.channels, self.resolution, self.resolution


@final
class Denoiser(nn.Module):
    """D(v, s) estimates u of v = u + s e, e ~ N(0, I), for images u in [0, 1].

    With x = 2 v - 1 and t = 2 s it is deepinv's EDMPrecond (Karras et al. 2022, table 1) around
    its DRUNet (Zhang et al. 2021), which is given a channel of ones: it has no biases of its own.

    Raises:
        ValueError: deepinv is not installed.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        models = library("models")
        self.shape = sizes.shape
        backbone = Backbone(models, sizes)
        self.net = models.precond.EDMPrecond(backbone, pixel_std=sizes.image_std)

    def forward(self, x: Tensor, sigma: Any) -> Tensor:
        """D(x, sigma) (B, C, H, W) in about [0, 1].

        Args:
            x: (B, C, H, W). sigma: above 0, one number or (B,), in units of [0, 1] images.
        """
        level = torch.as_tensor(sigma, dtype=torch.float32, device=x.device)
        level = (2 * level).flatten().expand(len(x))
        return ((self.net(2 * x - 1, level) + 1) / 2).to(x.dtype)


@final
class Backbone(nn.Module):
    """DRUNet of an image, a channel of ones, and a channel of the noise level."""

    def __init__(self, models: Any, sizes: Sizes) -> None:
        super().__init__()
        channels = sizes.channels
        self.drunet = models.DRUNet(
            channels + 1, channels, nc=[*sizes.widths], nb=sizes.blocks, pretrained=None
        )
        # Its own first weights, a fifth of what is usual, learn too slowly for minutes: after 2000
        # letters the loss of scripts/train_denoiser.py was 0.67, and 0.51 from torch's.
        for layer in self.drunet.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                layer.reset_parameters()

    def forward(self, x: Tensor, level: Tensor, class_labels: object = None) -> Tensor:
        ones = torch.ones_like(x[:, :1])
        return self.drunet(torch.cat([x, ones], 1), level)


class Trained(NamedTuple):
    """A denoiser as its file holds it, on the CPU, in evaluation mode."""

    network: Denoiser
    weights: Weights


def load(path: str) -> Trained:
    """Reads a denoiser.

    Raises:
        FileNotFoundError: there is none; names the command that trains it.
        ValueError: unreadable, damaged, of another format, or deepinv is not installed.
    """
    try:
        state = Path(path).stat()
    except OSError as error:
        raise FileNotFoundError(
            f"no denoiser at {path}: train it on the generator's images with "
            f"`{COMMAND} data=... scale=...`, or name one with inverter.denoiser=FILE."
        ) from error
    return _load(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=1)
def _load(path: str, changed: int, size: int) -> Trained:
    """`load`, of a file as it is now."""
    content = contents(Path(path))
    network = Denoiser(Sizes(**content["network"]))
    load_weights(network, content["ema"], path)
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    weights = Weights(Path(path), digest, content["config"])
    return Trained(network.eval().requires_grad_(False), weights)


def contents(path: Path) -> dict:
    """What the file of a denoiser holds, checked before it is used; raises as `load`."""
    advice = f"`{COMMAND}` writes such files."
    content = read(path, advice)
    found = content.get("format") if isinstance(content, Mapping) else None
    if not isinstance(content, dict) or found != FORMAT:
        raise ValueError(f"{path} has format {brief(found)}; expected {FORMAT}. {advice}")
    check(content, FILE, str(path), ADVICE)
    check(content, COUNTERS, str(path), ADVICE)
    return content
