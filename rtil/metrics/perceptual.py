"""The contract of a perceptual distance, of images in [-1, 1]: one module of this folder each.

`loss.perceptual=NAME` and `metrics.NAME` are the module `rtil.metrics.NAME`, whose `DISTANCE` is a
subclass of `Perceptual`. To add one, write that module; nothing else names it. It is a column of
results with `+metrics.NAME=auto`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from importlib import import_module
from pkgutil import iter_modules
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

import rtil.metrics
from rtil.metrics.image import check_pair


class Kept(NamedTuple):
    """Features of images x, and the versions of x and of the weights that they were made with."""

    x: Tensor
    versions: tuple[int, int]
    features: list[Tensor]


class Perceptual(nn.Module, ABC):
    """A distance of two images by what a frozen network makes of them.

    Gradients reach the first image alone, and `train()` changes nothing. A subclass builds its
    network in its constructor, where it raises FileNotFoundError if weights are not on disk: none
    are ever fetched.

    Attributes:
        name: in messages.
        sizes: smallest side [pixels] that each backbone takes. Of one alone, no name has to be
            given.
        net: the backbone.
        min_size: its smallest side.

    Args:
        net: backbone, a key of `sizes`.

    Raises:
        ValueError: unknown net.
    """

    name: ClassVar[str]
    sizes: ClassVar[Mapping[str, int]]

    def __init__(self, net: str) -> None:
        super().__init__()
        self._kept: Kept | None = None
        self.net = self.backbone(net)
        self.min_size = self.sizes[self.net]

    @classmethod
    def backbone(cls, net: str) -> str:
        """The backbone that `net` names. Raises ValueError where there are others alone."""
        if len(cls.sizes) == 1:
            return next(iter(cls.sizes))
        if net not in cls.sizes:
            allowed = ", ".join(cls.sizes)
            raise ValueError(f"{cls.name}: net={net!r}; it must be one of {allowed}.")
        return net

    @classmethod
    def fits(cls, net: str, sides: Sequence[int]) -> bool:
        """Whether the backbone takes images of these sides [pixels]."""
        return min(sides) >= cls.sizes[cls.backbone(net)]

    def forward(self, x_hat: Tensor, x: Tensor) -> Tensor:
        """Distance of each pair of images.

        Args:
            x_hat: (B, C, H, W) in [-1, 1], C = 1 (repeated to 3) or 3, sides at least `min_size`.
            x: like x_hat; no gradient.

        Returns:
            (B,), 0 for equal images.
        """
        check_pair(self.name, x_hat, x)
        _, channels, height, width = x.shape
        if channels not in (1, 3):
            raise ValueError(
                f"{self.name}: got images with {channels} channels; "
                "it compares grey (1) or colour (3) images."
            )
        if min(height, width) < self.min_size:
            raise ValueError(
                f"{self.name}: got images of {height}x{width} pixels; net={self.net} needs at "
                f"least {self.min_size}x{self.min_size}."
            )
        references = self._references(x)
        return self.compare(self.features(x_hat.expand(-1, 3, -1, -1)), references)

    @torch.no_grad()
    def _references(self, x: Tensor) -> list[Tensor]:
        """The features of x (B, C, H, W), kept until another x comes or anything has changed."""
        # An inversion compares every iterate with the same y. On a GPU a replayed step reads where
        # it was recorded, so nothing that a later call lets go of may be part of it.
        if x.is_cuda or x.is_inference():
            return self.features(x.expand(-1, 3, -1, -1))
        versions = x._version, sum(p._version for p in self.parameters())
        if self._kept is None or self._kept.x is not x or self._kept.versions != versions:
            self._kept = Kept(x, versions, self.features(x.expand(-1, 3, -1, -1)))
        return self._kept.features

    @abstractmethod
    def features(self, x: Tensor) -> list[Tensor]:
        """What is compared of colour images (B, 3, H, W): maps (B, C_l, H_l, W_l)."""

    @abstractmethod
    def compare(self, features: Sequence[Tensor], references: Sequence[Tensor]) -> Tensor:
        """Distance of each pair, (B,), from the features of both."""


def distance_of(name: str) -> type[Perceptual]:
    """The distance that a setting names.

    Raises:
        ValueError: there is no such distance; names those that are.
    """
    modules = [module.name for module in iter_modules(rtil.metrics.__path__)]
    if name in modules:
        distance = getattr(import_module(f"rtil.metrics.{name}"), "DISTANCE", None)
        if isinstance(distance, type) and issubclass(distance, Perceptual):
            return distance
    known = [m for m in modules if hasattr(import_module(f"rtil.metrics.{m}"), "DISTANCE")]
    raise ValueError(f"loss.perceptual={name!r} is no distance; allowed are {', '.join(known)}.")


def unit_length(maps: Tensor) -> Tensor:
    """Maps (B, C, H, W) divided by their length over channels; 0 stays 0, with gradient 0."""
    # 1e-20 under the root keeps its gradient finite at 0; 1e-10 is that of the lpips package.
    return maps / ((maps.square().sum(dim=1, keepdim=True) + 1e-20).sqrt() + 1e-10)
