"""Pixel norm and leaky ReLU in one call (Karras et al. 2018, section 4.2).

y = lrelu(x r),  r = (mean over channels of x^2 + eps)^(-1/2)
dx = r g - x r^3 mean(g x),  g = dy lrelu'(x)
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from rtil.kernels import cpu_library

EPS = 1e-8


def norm_act(x: Tensor, slope: float = 0.2) -> Tensor:
    """Computes lrelu(x / rms(x)) with the rms over dimension 1, differentiable twice.

    Args:
        x: (B, C, H, W) or (B, C).
        slope: of the leaky ReLU, >= 0; 1 leaves the pixel norm alone.

    Returns:
        As x.
    """
    if cpu_library.serves(x):
        return _fused((slope, EPS), x)
    y = x * torch.rsqrt(x.square().mean(1, keepdim=True) + EPS)
    return y if slope == 1.0 else F.leaky_relu(y, slope)


def _value(settings: tuple, x: Tensor) -> Tensor:
    y = cpu_library.empty(x)
    batch, pixels, channels = cpu_library.sizes(x)
    cpu_library.call("norm_act", x, *settings, y, batch * pixels, channels)
    return y


def _gradient(settings: tuple, wanted, dy: Tensor, y: Tensor, x: Tensor) -> list:
    dx = cpu_library.empty(x)
    batch, pixels, channels = cpu_library.sizes(x)
    cpu_library.call("norm_act_grad", dy, x, *settings, dx, batch * pixels, channels)
    return [dx]


def _formula(settings: tuple, wanted, dy: Tensor, y: Tensor, x: Tensor) -> list:
    slope, eps = settings
    r = torch.rsqrt(x.square().mean(1, keepdim=True) + eps)
    g = dy * torch.where(y > 0, 1.0, slope).to(dy)
    return [r * g - x * r.pow(3) * (g * x).mean(1, keepdim=True)]


def _second(settings: tuple, dy: Tensor, y: Tensor, x: Tensor, v: Tensor) -> list:
    d_dy, d_x = cpu_library.empty(x), cpu_library.empty(x)
    batch, pixels, channels = cpu_library.sizes(x)
    cpu_library.call("norm_act_second", dy, x, v, *settings, d_dy, d_x, batch * pixels, channels)
    return [d_dy, d_x]


_fused = cpu_library.differentiable(_value, _gradient, _formula, second=_second)
