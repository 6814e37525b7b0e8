"""StyleGAN2 and PGGAN written out, in float64, for one latent: what imported networks must equal.

Nothing here is shared with rtil.models: weights are modulated instead of activations, up-sampling
inserts zeros and convolves, filters are applied as they stand. Slow, and meant to be.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

SLOPE = 0.2


class Layer(NamedTuple):
    """One modulated convolution as its layout defines it.

    weight: (out, in, k, k), scaled; correlated with the input, or with up convolved with the
    zero-filled input. affine: (in, w_dim), scaled, and affine_bias (in,), with its one. bias:
    (out,). noise: (1, 1, H, W) times its strength, or None. A convolution demodulates and
    activates; toRGB does neither.
    """

    weight: Tensor
    affine: Tensor
    affine_bias: Tensor
    bias: Tensor
    noise: Tensor | None = None


def pixel_norm(x: Tensor) -> Tensor:
    """x (1, C, ...) over its root mean square along C (Karras et al. 2018, section 4.2)."""
    return x / torch.sqrt((x**2).mean(1, keepdim=True) + 1e-8)


def lrelu(x: Tensor) -> Tensor:
    """Leaky ReLU of slope 0.2."""
    return torch.where(x > 0, x, SLOPE * x)


def zero_fill(x: Tensor) -> Tensor:
    """(1, C, H, W) to (1, C, 2H, 2W): x at even places, zeros between."""
    filled = x.new_zeros(1, x.shape[1], 2 * x.shape[2], 2 * x.shape[3])
    filled[:, :, ::2, ::2] = x
    return filled


def smooth(x: Tensor, before: int, after: int) -> Tensor:
    """x padded with zeros and filtered by [1, 3, 3, 1] in both directions, total weight 4."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=x.dtype) / 4
    x = F.pad(x, (before, after, before, after))
    kernel = (taps[:, None] * taps).expand(x.shape[1], 1, 4, 4)
    return F.conv2d(x, kernel, groups=x.shape[1])


def dense(w: Tensor, weights: list[tuple[Tensor, Tensor]]) -> Tensor:
    """The mapping network: z (1, z_dim) to w; weights are scaled (Karras et al. 2019, sec. 2)."""
    w = pixel_norm(w)
    for weight, bias in weights:
        w = lrelu(w @ weight.T + bias) * math.sqrt(2)
    return w


def modulated(x: Tensor, w: Tensor, layer: Layer, up: bool, demodulate: bool) -> Tensor:
    """Karras et al. 2020, eq. 1 and 3, then with up a convolution that doubles the size."""
    style = w @ layer.affine.T + layer.affine_bias
    weight = layer.weight * style[0][None, :, None, None]
    if demodulate:
        weight = weight / torch.sqrt((weight**2).sum((1, 2, 3), keepdim=True) + 1e-8)
    if not up:
        return F.conv2d(x, weight, padding=weight.shape[-1] // 2)
    x = F.conv2d(zero_fill(x), weight.flip(2, 3), padding=2)
    return smooth(x[:, :, :-1, :-1], 1, 1)


def stylegan2(
    w: Tensor, const: Tensor, blocks: list[tuple[list[Layer], Layer]], clamp: float | None = None
) -> Tensor:
    """Karras et al. 2020, Fig. 7b.

    Args:
        w: (1, w_dim), the same for every layer.
        const: (1, C, 4, 4).
        blocks: (convolutions, toRGB) of each size; the first convolution of all but the first
            block doubles the size.
        clamp: largest magnitude after an activation or toRGB; None: no limit.
    """
    x = const
    image: Tensor | None = None
    limit = math.inf if clamp is None else clamp
    for size, (convolutions, to_rgb) in enumerate(blocks):
        for i, layer in enumerate(convolutions):
            x = modulated(x, w, layer, up=size > 0 and i == 0, demodulate=True)
            x = x if layer.noise is None else x + layer.noise
            x = (lrelu(x + layer.bias[:, None, None]) * math.sqrt(2)).clamp(-limit, limit)
        rgb = modulated(x, w, to_rgb, up=False, demodulate=False) + to_rgb.bias[:, None, None]
        rgb = rgb.clamp(-limit, limit)
        image = rgb if image is None else rgb + smooth(zero_fill(image), 2, 1)
    assert image is not None, "a generator has a block"
    return image
