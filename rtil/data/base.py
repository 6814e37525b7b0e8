"""The contract of image data: one split of a data set, uint8 images by number, and their range.

Flips, random crops and devices belong to the training loop. How to add one more is said in
`rtil.data.source`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor


class ImageData(ABC):
    """One split of a data set of square images.

    Attributes:
        size: image side S in pixels.
        channels: 1 (grey) or 3 (RGB).
    """

    size: int
    channels: int

    @abstractmethod
    def __len__(self) -> int:
        """Number of images in the split."""

    @abstractmethod
    def batch(self, indices: Sequence[int] | Tensor) -> Tensor:
        """Images (B, channels, S, S), uint8 on the CPU, of B indices in [0, len)."""

    @abstractmethod
    def name(self, index: int) -> str:
        """Stable id of an image, usable as a file name, unique within the split."""

    @abstractmethod
    def digest(self) -> str | None:
        """Tells the split's files from others; None where settings alone make the images."""

    @abstractmethod
    def unreadable(self) -> list[str]:
        """Names of the split's files that could not be read so far."""

    @abstractmethod
    def provenance(self) -> dict[str, object]:
        """What a record says of the split's files; nothing where settings make the images."""


def to_float(u8: Tensor) -> Tensor:
    """x = u8 / 127.5 - 1: float32 in [-1, 1]."""
    return u8.to(torch.float32) / 127.5 - 1


def to_uint8(x: Tensor) -> Tensor:
    """u8 = round(127.5 (x + 1)), clamped to [0, 255]: undoes `to_float`."""
    return ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
