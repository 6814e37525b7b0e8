"""Transforms of colours, each by given parameters: c -> A c + b for the colour c of every pixel.

All but brightness keep or scale the axis of greys, v = (1, 1, 1) / sqrt(3), and what is beside
it (Karras et al. 2020, "Training Generative Adversarial Networks with Limited Data", App. B), so
A is a I + b v v^T + c [v]x, and they commute. Which are drawn is said in `rtil.augmentation.ada`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def matrices(contrast: Tensor, luma: Tensor, hue: Tensor, saturation: Tensor) -> Tensor:
    """A (B, 3, 3): contrast times luma along v, and saturation with a turn by hue beside it.

    Args:
        contrast, saturation: (B,), factors; 1 changes nothing.
        luma: (B,), 1, or -1 where light and dark are exchanged and hues stay.
        hue: (B,), radians about v.
    """
    eye = torch.eye(3, dtype=contrast.dtype, device=contrast.device)
    grey = torch.full_like(eye, 1 / 3)  # v v^T
    # [v]x w is the cross product v x w: the next channel less the one before.
    cross = (eye.roll(1, 0) - eye.roll(1, 1)) / math.sqrt(3)
    along = luma[:, None, None] * grey
    beside = hue.cos()[:, None, None] * (eye - grey) + hue.sin()[:, None, None] * cross
    return contrast[:, None, None] * (along + saturation[:, None, None] * beside)


def recolour(x: Tensor, matrix: Tensor, brightness: Tensor) -> Tensor:
    """A c + b for every pixel of x (B, C, H, W), C = 3, or 1 of greys.

    Args:
        matrix: A (B, 3, 3). brightness: b (B,), in units of [-1, 1].
    """
    if x.shape[1] == 1:
        # v is an eigenvector, so a grey stays one.
        matrix = matrix.sum(2, keepdim=True).mean(1, keepdim=True)
    return (matrix[..., None, None] * x[:, None]).sum(2) + brightness[:, None, None, None]
