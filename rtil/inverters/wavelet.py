"""Orthonormal bases of images: a deviation that has few coefficients in one is sparse.

Written in torch and not taken from a library of wavelets: inversion needs the gradient on any
device, and Haar's filters are one butterfly. To add a basis, write its two maps and name them in
`BASES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Basis(NamedTuple):
    """analyse: images (B, C, H, W) to coefficients of the same shape. synthesise: its inverse,
    which is its transpose. divides: whether it halves the sides, which then have to be even."""

    analyse: Callable[[Tensor], Tensor]
    synthesise: Callable[[Tensor], Tensor]
    divides: bool = False


def haar(x: Tensor) -> Tensor:
    """Coefficients (B, C, H, W) of images of that shape in Haar's orthonormal basis.

    Each level splits 2x2 pixels into their sum and three differences, each over 2, and goes on
    with the sums, in the upper left, for as long as both sides are even.
    """
    if x.shape[-2] % 2 or x.shape[-1] % 2:
        return x
    pixels = F.pixel_unshuffle(x, 2).unflatten(1, (x.shape[1], 4)).unbind(2)
    low, right, below, across = _butterfly(*pixels)
    upper = torch.cat([haar(low), right], -1)
    return torch.cat([upper, torch.cat([below, across], -1)], -2)


def haar_inverse(c: Tensor) -> Tensor:
    """The images of coefficients, which undoes `haar`."""
    height, width = c.shape[-2] // 2, c.shape[-1] // 2
    if c.shape[-2] % 2 or c.shape[-1] % 2:
        return c
    upper, lower = c[..., :height, :], c[..., height:, :]
    low = haar_inverse(upper[..., :width])
    pixels = _butterfly(low, upper[..., width:], lower[..., :width], lower[..., width:])
    return F.pixel_shuffle(torch.stack(pixels, 2).flatten(1, 2), 2)


def _butterfly(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> tuple[Tensor, ...]:
    """Half of Hadamard's 4x4 matrix, which is its own inverse."""
    top, bottom, left, right = a + b, c + d, a - b, c - d
    return (top + bottom) / 2, (left + right) / 2, (top - bottom) / 2, (left - right) / 2


def same(x: Tensor) -> Tensor:
    """Pixels are their own coefficients."""
    return x


BASES: Mapping[str, Basis] = {
    "pixels": Basis(same, same),
    "haar": Basis(haar, haar_inverse, divides=True),
}
