"""Geometric transforms of images, each by given parameters and differentiable twice.

`blit` moves whole pixels and is exact. `warp` resamples, once for all that it composes:

    T(x)(u) = x(L (u - t)),   u in pixels from the image's centre

on a grid twice as fine, which a wavelet's scaling filter leads to and back (Karras et al. 2020,
"Training Generative Adversarial Networks with Limited Data", App. B). Beyond its edge an image
goes on mirrored. Which transforms are drawn is said in `rtil.augmentation.ada`.

`grid_sample`, which kornia warps with too, has no second derivative; `gather` has.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rtil.kernels.upfirdn2d import upfirdn2d

# Scaling filter of the least asymmetric wavelet with six vanishing moments (Daubechies 1992, ch.
# 8.1). It is orthogonal to its shifts by two, so up-sampling and then down-sampling is the
# identity.
SYM6 = (
    *(0.015404109327027, 0.003490712084217, -0.117990111148191, -0.048311742585633),
    *(0.491055941926747, 0.787641141030194, 0.337929421727622, -0.072637522786463),
    *(-0.021060292512301, 0.044724901770666, 0.001767711864243, -0.007800708325034),
)
CENTRE = sum(n * h for n, h in enumerate(SYM6)) / sum(SYM6)
MARGIN = len(SYM6) // 2  # pixels beyond the edge that the filter reads


def mirrored(places: Tensor, size: int) -> Tensor:
    """Places on a line of so many pixels, reflected at the first and the last of them."""
    period = max(2 * (size - 1), 1)
    places = places.remainder(period)
    return torch.minimum(places, period - places)


def blit(x: Tensor, flip: Tensor, turns: Tensor, shift: Tensor) -> Tensor:
    """Mirrors, then turns, then shifts images by whole pixels.

    Args:
        x: (B, C, S, S). flip: (B,), whether left and right are exchanged.
        turns: (B,), quarter turns counter-clockwise, 0 to 3.
        shift: (B, 2), whole pixels down and to the right.
    """
    flip, turns = flip[:, None, None, None], turns[:, None, None, None]
    x = torch.where(flip, x.flip(3), x)
    turned = x
    for times in (1, 2, 3):
        turned = torch.where(turns == times, x.rot90(times, (2, 3)), turned)
    size = x.shape[3]
    places = mirrored(torch.arange(size, device=x.device) - shift[:, :, None].long(), size)
    rows, columns = places[:, 0, None, :, None], places[:, 1, None, None, :]
    turned = turned.gather(2, rows.expand_as(x))
    return turned.gather(3, columns.expand_as(x))


def rotation(angle: Tensor) -> Tensor:
    """Matrices (B, 2, 2) that turn (row, column) by angles (B,) in radians."""
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([cos, -sin, sin, cos], 1).view(-1, 2, 2)


def product(a: Tensor, b: Tensor) -> Tensor:
    """Matrices a b (B, n, n), in full precision: a GPU's matmul may round to ten bits."""
    return (a[:, :, :, None] * b[:, None]).sum(2)


def warp(x: Tensor, f: Tensor, inverse: Tensor, shift: Tensor) -> Tensor:
    """Images resampled where `inverse` (output - shift) leads.

    Args:
        x: (B, C, S, S). f: SYM6 scaled to sum 1 (`rtil.kernels.upfirdn2d.fir`).
        inverse: L (B, 2, 2), on (row, column).
        shift: t (B, 2) in pixels, down and to the right.
    """
    size = x.shape[3]
    places = mirrored(torch.arange(-MARGIN, size + MARGIN, device=x.device), size)
    wide = x.index_select(2, places).index_select(3, places)
    fine = upfirdn2d(wide, f, up=2, padding=(-1, -2), gain=4.0)

    # Pixel c of the image lies at 2 c + CENTRE of the fine one.
    middle = (size - 1) / 2
    line = (torch.arange(fine.shape[3], device=x.device, dtype=x.dtype) - CENTRE) / 2 - middle
    u = line - shift[:, :, None]
    rows = inverse[:, :, 0, None, None] * u[:, None, 0, :, None]
    columns = inverse[:, :, 1, None, None] * u[:, None, 1, None, :]
    places = 2 * mirrored(rows + columns + middle, size) + CENTRE
    fine = bilinear(fine, places[:, 0], places[:, 1])
    return upfirdn2d(fine, f, down=2, flip=True)


def bilinear(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Images (B, C, H', W') interpolated at places (B, H', W') inside x (B, C, H, W)."""
    batch, channels, _, width = x.shape
    top, left = rows.floor(), columns.floor()
    down, right = rows - top, columns - left
    pixels = x.flatten(2)
    first = (top * width + left).long()
    total = torch.zeros((), dtype=x.dtype, device=x.device)
    for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
        weight = (down if row else 1 - down) * (right if column else 1 - right)
        index = (first + (row * width + column)).flatten(1)[:, None]
        corner = pixels.gather(2, index.expand(-1, channels, -1))
        total = total + weight[:, None] * corner.view(batch, channels, *rows.shape[1:])
    return total
